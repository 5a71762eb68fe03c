//! What translation tables need of the world: memory, and maintenance.
//!
//! Answers for: the two traits the kernel implements, and lists of tables that need no memory of their own. Does not
//! answer for: what is in a table (`descriptor`, `tree`).

use types::{Address, Pa, Range};

/// Where tables come from, and how their descriptors are reached. A table is 512 descriptors of 64 bits, 4 KiB.
pub trait TablePool {
    /// `pages` contiguous tables (a power of two, at most 16), all zero, aligned to their total size: what a concatenated
    /// root needs (DDI 0487, D8.2.2 "Concatenated translation tables"). `None` if there is no memory.
    fn allocate(&mut self, pages: usize) -> Option<Pa>;

    /// Takes back what [`TablePool::allocate`] gave, contents arbitrary. No walker reaches it any more.
    fn free(&mut self, table: Pa, pages: usize);

    /// Descriptor `index` (0 to 511) of a table.
    fn read(&self, table: Pa, index: usize) -> u64;

    /// Sets descriptor `index` (0 to 511) with one 64-bit store, which a walker sees whole or not at all. On a machine
    /// whose walkers (CPUs with the MMU off, an SMMU) are not coherent it cleans the line as well. No barrier: that is
    /// [`Maintenance`].
    fn write(&mut self, table: Pa, index: usize, descriptor: u64);
}

/// What walkers may have kept of descriptors that changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    /// Last-level translations only: `TLBI ..LE..` is enough.
    Leaves,
    /// Table descriptors as well, kept in walk caches: the invalidation must not be limited to the last level. A table may
    /// span more than the range; invalidating an address takes every descriptor with it that is needed to translate it.
    Tables,
}

/// The moments at which walkers have to be told. The caller of a change hands one in and thereby cannot forget it: each
/// change calls it at exactly the points where the architecture wants it (DDI 0487, D8.17 "Translation table maintenance
/// and the TLBs", "Using break-before-make").
///
/// Between break and make the range is invalid for everybody: a guest's CPU may fault there and has to try again, a
/// device's access behind an SMMU is lost. Do not share blocks with devices that are to be split later.
pub trait Maintenance<A> {
    /// All table writes so far are seen by every walker before any later one: DSB ISHST (and, for the CPU's own stage 1,
    /// an ISB before the new mapping is used).
    fn publish(&mut self);

    /// First as [`Maintenance::publish`]; then every cached translation of `range`, on all CPUs and SMMUs that use these
    /// tables, is gone, and accesses through it are complete, on return. Stage 2: TLBI IPAS2E1IS, DSB ISH, TLBI VMALLE1IS,
    /// DSB ISH, or VMALLS12E1IS alone where the range is large.
    fn invalidate(&mut self, range: Range<A>, stale: Stale);
}

/// The maintenance of tables that no walker uses: not yet, or not any more. Whoever installs them later does so with the
/// barrier (and, for a used VMID, the invalidation) that the installation itself needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle;

impl<A: Address> Maintenance<A> for Idle {
    fn publish(&mut self) {}
    fn invalidate(&mut self, _range: Range<A>, _stale: Stale) {}
}

/// A list of single tables which are in no tree, linked through their first descriptor. A link has bit 0 clear: a walker
/// that still reaches the table finds an invalid descriptor there.
#[derive(Debug, Default)]
pub(crate) struct TableList {
    head: u64,
}

/// Marks a link as such, so that a table at address 0 is not taken for the end of the list.
const LINK: u64 = 0b10;

impl TableList {
    /// Adds a table; its first descriptor is overwritten.
    pub(crate) fn push(&mut self, table: Pa, pool: &mut impl TablePool) {
        pool.write(table, 0, self.head);
        self.head = table.0 | LINK;
    }

    /// Takes a table out, its first descriptor zero again.
    pub(crate) fn pop(&mut self, pool: &mut impl TablePool) -> Option<Pa> {
        if self.is_empty() {
            return None;
        }
        let table = Pa(self.head & !LINK);
        self.head = pool.read(table, 0);
        pool.write(table, 0, 0);
        Some(table)
    }

    /// `count` new tables, or none at all if the pool has not so many.
    pub(crate) fn reserve(count: usize, pool: &mut impl TablePool) -> Option<Self> {
        let mut list = Self::default();
        for _ in 0..count {
            let Some(table) = pool.allocate(1) else {
                list.free(pool);
                return None;
            };
            list.push(table, pool);
        }
        Some(list)
    }

    /// Whether there is none in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.head == 0
    }

    /// Gives all of them back; says how many there were.
    pub(crate) fn free(mut self, pool: &mut impl TablePool) -> usize {
        let mut count = 0_usize;
        while let Some(table) = self.pop(pool) {
            pool.free(table, 1);
            count = count.saturating_add(1);
        }
        count
    }
}
