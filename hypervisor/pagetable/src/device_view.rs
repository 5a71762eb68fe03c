//! A guest's stage 2 as devices see it.
//!
//! Answers for: a second root over the same tables, kept the same by every store to the first one, in which devices may have one page
//! more that no CPU has; and that nothing is free before devices have forgotten it, too. Does not answer for: who walks it (`smmu`), nor
//! for which page that is.
//!
//! The page is where devices send their messages to. A CPU that could write there could send any device's, so it is in none of
//! the tables that CPUs walk: it has an entry of the root for itself, in which the guest has nothing.

use crate::{
    descriptor::{Entry, Level, Table},
    pool::{Maintenance, Stale, TablePool},
    stage2::{Access, Memory, Stage2, Stage2Attributes},
};
use core::sync::atomic::{AtomicBool, Ordering};
use types::{Ipa, PAGE_SIZE, Pa, Range};

/// A root whose entries are those of a [`Stage2`].
#[derive(Debug)]
#[must_use = "its tables are lost unless it is destroyed"]
pub struct DeviceView {
    of: Table,
    root: Table,
    input_end: u64,
    doorbell: Option<Doorbell>,
}

/// The tables of the page that only devices have.
#[derive(Clone, Copy, Debug)]
struct Doorbell {
    /// Page and index of its entry of the root.
    entry: (Pa, usize),
    at: Ipa,
    /// Below the root, the last one first.
    tables: [Option<Pa>; 3],
}

/// Entries of a table.
const ENTRIES: usize = 512;

impl DeviceView {
    /// Of tables that are there. From now on every change to these goes by [`Mirrored`]. `None` if the pool has no memory for the root.
    pub fn new(tables: &Stage2, pool: &mut impl TablePool) -> Option<Self> {
        let of = tables.root_table();
        let root = Table { pa: pool.allocate(of.pages())?, ..of };
        let view = Self { of, root, input_end: 1_u64.wrapping_shl(tables.layout().ipa_bits()), doorbell: None };
        for at in view.entries() {
            let ((from, index), (to, _)) = (of.slot(at), root.slot(at));
            let descriptor = pool.read(from, index);
            // All of the new one is zero.
            if descriptor != 0 {
                pool.write(to, index, descriptor);
            }
        }
        Some(view)
    }

    /// What an SMMU is told to walk, in the shape of the guest's own.
    #[must_use]
    pub const fn root(&self) -> Pa {
        self.root.pa
    }

    /// Where devices have the page of [`DeviceView::open_doorbell`].
    #[must_use]
    pub fn doorbell(&self) -> Option<Ipa> {
        self.doorbell.map(|doorbell| doorbell.at)
    }

    /// The first address of each entry of the root.
    fn entries(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + use<> {
        let size = self.root.level.size();
        let count = usize::try_from(self.root.mask).unwrap_or(0).saturating_add(1);
        (0..count).map(move |index| u64::try_from(index).unwrap_or(0).wrapping_mul(size))
    }

    /// Lets devices write the page `to`, as Device memory, where the guest has nothing: in the last entry of the root of which
    /// `is_free` says that the guest is never to have anything in it. Says where it is for them. `None` if there is no such entry, no
    /// memory for its tables, or one was opened before for another page.
    pub fn open_doorbell(
        &mut self,
        to: Pa,
        is_free: impl Fn(Range<Ipa>) -> bool,
        pool: &mut impl TablePool,
        maintenance: &mut impl Maintenance<Ipa>,
    ) -> Option<Ipa> {
        let (size, root) = (self.root.level.size(), self.root);
        if self.doorbell.is_some() || !to.is_aligned(PAGE_SIZE) {
            return None;
        }
        let is_empty = |at: u64| {
            let (page, index) = root.slot(at);
            matches!(root.entry(pool.read(page, index)), Entry::Invalid)
        };
        let fits = |at: &u64| {
            let end = at.checked_add(size).filter(|end| *end <= self.input_end);
            end.is_some_and(|end| is_free(Range::between(Ipa(*at), Ipa(end)))) && is_empty(*at)
        };
        // Of tables side by side in a root QEMU's SMMU (10.0) reads only the first one.
        let first = self.entries().take(ENTRIES);
        let at = first.rev().find(fits)?;
        self.put_doorbell(to, Ipa(at), pool, maintenance).then_some(Ipa(at))
    }

    /// The same, at an address that the guest knows. Devices have nothing else of what the guest has in the part of its addresses
    /// that is behind the same entry of the root, of which `is_free` says that there is none of its memory in it. Says whether that could be.
    pub fn open_doorbell_at(
        &mut self,
        to: Pa,
        at: Ipa,
        is_free: impl Fn(Range<Ipa>) -> bool,
        pool: &mut impl TablePool,
        maintenance: &mut impl Maintenance<Ipa>,
    ) -> bool {
        let start = at.align_down(self.root.level.size());
        let part = Range::new(start, self.root.level.size()).filter(|part| part.end().0 <= self.input_end);
        let Some(part) = part.filter(|part| is_free(*part)) else { return false };
        if self.doorbell.is_some() || !to.is_aligned(PAGE_SIZE) || !at.is_aligned(PAGE_SIZE) {
            return false;
        }
        // Break before make.
        let (page, index) = self.root.slot(at.0);
        let before = pool.read(page, index);
        if before != 0 {
            pool.write(page, index, 0);
            maintenance.publish();
            maintenance.invalidate(part, Stale::Tables);
        }
        let is_put = self.put_doorbell(to, at, pool, maintenance);
        if !is_put {
            pool.write(page, index, before);
            maintenance.publish();
        }
        is_put
    }

    /// Makes the tables of the page `to` at `at`, and puts them in place of an entry of the root that devices do not use. Says whether there was memory.
    fn put_doorbell(
        &mut self,
        to: Pa,
        at: Ipa,
        pool: &mut impl TablePool,
        maintenance: &mut impl Maintenance<Ipa>,
    ) -> bool {
        let root = self.root;
        let mut tables = [None; 3];
        let attributes = Stage2Attributes::new(Memory::DeviceNgnre, Access::WRITE);
        let (mut below, mut descriptor) = (Level::Three, crate::stage2::page(to, attributes));
        for slot in &mut tables {
            if below <= root.level {
                break;
            }
            let Some(table) = pool.allocate(1) else {
                tables.into_iter().flatten().for_each(|table| pool.free(table, 1));
                return false;
            };
            *slot = Some(table);
            let table = Table::new(table, below);
            let (page, index) = table.slot(at.0);
            pool.write(page, index, descriptor);
            descriptor = table.descriptor();
            below = match below {
                Level::Three => Level::Two,
                Level::Two => Level::One,
                Level::One | Level::Zero => Level::Zero,
            };
        }
        let entry = root.slot(at.0);
        maintenance.publish();
        pool.write(entry.0, entry.1, descriptor);
        maintenance.publish();
        self.doorbell = Some(Doorbell { entry, at, tables });
        true
    }

    /// The same place in this root, of a place in the guest's own.
    fn copy_of(&self, table: Pa, index: usize) -> Option<(Pa, usize)> {
        let offset = table.0.checked_sub(self.of.pa.0)?;
        let pages = u64::try_from(self.of.pages()).ok()?;
        let copy = Pa(self.root.pa.0.wrapping_add(offset));
        let is_root = offset < pages.wrapping_mul(PAGE_SIZE);
        let is_doorbell = self.doorbell.is_some_and(|doorbell| doorbell.entry == (copy, index));
        (is_root && !is_doorbell).then_some((copy, index))
    }

    /// Frees what is its own. No SMMU walks it any more.
    pub fn destroy(self, pool: &mut impl TablePool) {
        let tables = self.doorbell.map_or([None; 3], |doorbell| doorbell.tables);
        tables.into_iter().flatten().for_each(|table| pool.free(table, 1));
        pool.free(self.root.pa, self.root.pages());
    }
}

/// The pool of a guest's tables that devices may walk as well.
#[derive(Debug)]
pub struct Mirrored<'a, P> {
    /// Where the tables come from.
    pub pool: &'a mut P,
    /// What devices walk, if any do.
    pub view: Option<&'a DeviceView>,
    /// Devices may have kept what they ought to have forgotten ([`Walkers`]): from then on no table is given back.
    pub lost: &'a AtomicBool,
}

impl<P: TablePool> TablePool for Mirrored<'_, P> {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        self.pool.allocate(pages)
    }

    fn free(&mut self, table: Pa, pages: usize) {
        if !self.lost.load(Ordering::Relaxed) {
            self.pool.free(table, pages);
        }
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.pool.read(table, index)
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        self.pool.write(table, index, descriptor);
        if let Some((copy, index)) = self.view.and_then(|view| view.copy_of(table, index)) {
            self.pool.write(copy, index, descriptor);
        }
    }
}

/// Those who walk a [`DeviceView`].
pub trait DeviceWalkers {
    /// Every translation of `range` that they have kept is gone when this returns, and accesses through it are complete. Says whether
    /// that is so: if not, they may go on reaching what was mapped there.
    #[must_use]
    fn forget(&mut self, range: Range<Ipa>, stale: Stale) -> bool;
}

/// CPUs and devices that walk the same tables. Each change tells first the ones, then the others.
#[derive(Debug)]
pub struct Walkers<'a, C, D> {
    /// What tells CPUs.
    pub cpus: C,
    /// What tells devices.
    pub devices: D,
    /// Set once devices have not forgotten what they ought to have: what was unmapped then or later must not become anybody else's.
    pub lost: &'a AtomicBool,
}

impl<C: Maintenance<Ipa>, D: DeviceWalkers> Maintenance<Ipa> for Walkers<'_, C, D> {
    fn publish(&mut self) {
        self.cpus.publish();
    }

    fn invalidate(&mut self, range: Range<Ipa>, stale: Stale) {
        self.cpus.invalidate(range, stale);
        if !self.devices.forget(range, stale) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
