//! The hypervisor's own translation: stage 1 of EL2, `TTBR0_EL2`, one privilege level (`HCR_EL2.E2H` = 0).
//!
//! Answers for: `TCR_EL2`, `MAIR_EL2`, and the leaf attributes, which cannot express memory that is both writable and
//! executable. Does not answer for: what the hypervisor maps where (`kernel`). Follows DDI 0487, D8.2, D8.4, D8.6.

use crate::{
    change::{MapError, Progress},
    descriptor::{Format, Level, Table},
    pool::{Maintenance, TablePool},
    range::PaRange,
    tree::{Mapping, Tree},
};
use types::{Pa, Range, Va};

/// What a part of the hypervisor's address space is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum El2Attributes {
    /// Instructions: read and execute, never written.
    Code,
    /// Constants: read.
    ReadOnly,
    /// Variables, stacks, heap, guests' RAM: read and write, never executed. Write-back cacheable.
    Data,
    /// Device registers: Device-nGnRE, read and write.
    Device,
    /// Memory shared with something that does not snoop caches: Normal non-cacheable, read and write.
    NonCacheable,
}

/// Stage 1 block and page descriptors of a regime with one privilege level (DDI 0487, D8.3.2).
#[derive(Debug)]
struct El2Format;

/// `AttrIndx`, bits 4:2: indices into `MAIR_EL2` as [`El2Stage1::mair`] fills it.
const NORMAL_WRITE_BACK: u64 = 0;
const DEVICE: u64 = 1;
const NORMAL_NON_CACHEABLE: u64 = 2;
const ATTR_INDX_SHIFT: u32 = 2;
/// AP[1], bit 6: RES1 where there is one privilege level.
const AP1_RES1: u64 = 1 << 6;
/// AP[2], bit 7: read-only.
const READ_ONLY: u64 = 1 << 7;
/// XN, bit 54.
const XN: u64 = 1 << 54;

impl Format for El2Format {
    type Input = Va;
    type Attributes = El2Attributes;
    const PERMISSIONS: u64 = READ_ONLY | XN;

    fn encode(attributes: El2Attributes) -> u64 {
        let (memory, permissions) = match attributes {
            El2Attributes::Code => (NORMAL_WRITE_BACK, READ_ONLY),
            El2Attributes::ReadOnly => (NORMAL_WRITE_BACK, READ_ONLY | XN),
            El2Attributes::Data => (NORMAL_WRITE_BACK, XN),
            El2Attributes::Device => (DEVICE, XN),
            El2Attributes::NonCacheable => (NORMAL_NON_CACHEABLE, XN),
        };
        (memory << ATTR_INDX_SHIFT) | permissions | AP1_RES1
    }

    fn decode(leaf: u64) -> El2Attributes {
        match (leaf >> ATTR_INDX_SHIFT) & 0b111 {
            DEVICE => El2Attributes::Device,
            NORMAL_NON_CACHEABLE => El2Attributes::NonCacheable,
            _ if leaf & XN == 0 => El2Attributes::Code,
            _ if leaf & READ_ONLY != 0 => El2Attributes::ReadOnly,
            _ => El2Attributes::Data,
        }
    }
}

/// The hypervisor's own tables: 48 bits of virtual address, so there is room beside what is mapped one to one.
///
/// Changes are bounded and all or nothing as those of [`crate::Stage2`]. What the calling CPU runs on, code, stack or the
/// tables themselves, must not lie in a block that a change splits or whose memory type it changes: break-before-make
/// leaves it unmapped for a moment. Map it in the pieces it needs from the start.
#[derive(Debug)]
#[must_use = "its tables are lost unless it is destroyed"]
pub struct El2Stage1 {
    tree: Tree<El2Format>,
}

impl El2Stage1 {
    /// Bits of virtual address.
    pub const VA_BITS: u32 = 48;

    /// An empty one. `None` if the pool has no memory for the root.
    pub fn new(pa: PaRange, pool: &mut impl TablePool) -> Option<Self> {
        let root = Table::new(pool.allocate(1)?, Level::Zero);
        Some(Self { tree: Tree::new(root, Self::VA_BITS, pa.bits()) })
    }

    /// The value of `TCR_EL2`: write-back, inner shareable walks, 4 KiB granule, no top-byte ignore.
    #[must_use]
    pub const fn tcr(pa: PaRange) -> u64 {
        const RES1: u64 = (1 << 31) | (1 << 23);
        const SH0_INNER: u64 = 0b11 << 12;
        const ORGN0_WRITE_BACK: u64 = 0b01 << 10;
        const IRGN0_WRITE_BACK: u64 = 0b01 << 8;
        let t0sz = 64_u32.wrapping_sub(Self::VA_BITS) as u64;
        RES1 | (pa.ps() << 16) | SH0_INNER | ORGN0_WRITE_BACK | IRGN0_WRITE_BACK | t0sz
    }

    /// The value of `MAIR_EL2`.
    #[must_use]
    pub const fn mair() -> u64 {
        const WRITE_BACK_ALLOCATE: u64 = 0xff;
        const DEVICE_NGNRE: u64 = 0x04;
        const NON_CACHEABLE: u64 = 0x44;
        WRITE_BACK_ALLOCATE | (DEVICE_NGNRE << 8) | (NON_CACHEABLE << 16)
    }

    /// The value of `TTBR0_EL2`: the address of the root table.
    #[must_use]
    pub fn root(&self) -> Pa {
        self.tree.root.pa
    }

    /// Maps `range`, which must be unmapped, to the same number of bytes from `to` on. To go on after a partial
    /// [`Progress`], move `to` along with the start of the rest.
    pub fn map<P: TablePool>(
        &mut self,
        range: Range<Va>,
        to: Pa,
        attributes: El2Attributes,
        entries: usize,
        pool: &mut P,
        maintenance: &mut impl Maintenance<Va>,
    ) -> Result<Progress<Va>, MapError<Va>> {
        self.tree.map(range, to, attributes, entries, pool, maintenance)
    }

    /// Unmaps whatever is mapped in `range`; holes are no error.
    pub fn unmap<P: TablePool>(
        &mut self,
        range: Range<Va>,
        entries: usize,
        pool: &mut P,
        maintenance: &mut impl Maintenance<Va>,
    ) -> Result<Progress<Va>, MapError<Va>> {
        self.tree.unmap(range, entries, pool, maintenance)
    }

    /// Gives whatever is mapped in `range` these attributes; holes stay holes.
    pub fn protect<P: TablePool>(
        &mut self,
        range: Range<Va>,
        attributes: El2Attributes,
        entries: usize,
        pool: &mut P,
        maintenance: &mut impl Maintenance<Va>,
    ) -> Result<Progress<Va>, MapError<Va>> {
        self.tree.protect(range, attributes, entries, pool, maintenance)
    }

    /// The block or page that maps `address`.
    #[must_use]
    pub fn lookup(&self, address: Va, pool: &impl TablePool) -> Option<Mapping<Va, El2Attributes>> {
        self.tree.lookup(address, pool)
    }

    /// Frees all tables. No CPU uses them any more.
    pub fn destroy(self, pool: &mut impl TablePool) {
        self.tree.destroy(pool);
    }

    /// How many 4 KiB tables it takes, the root's among them.
    #[must_use]
    pub fn tables(&self) -> usize {
        self.tree.tables
    }
}

#[cfg(test)]
mod tests;
