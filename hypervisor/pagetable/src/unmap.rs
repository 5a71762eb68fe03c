//! Unmapping and changing attributes.
//!
//! Answers for: clearing and rewriting leaves, freeing tables that become empty, and telling walkers at the right moments.
//! Does not answer for: cutting blocks at the ends of the range (`split`).

use crate::{
    change::{MapError, Progress},
    descriptor::{Entry, Format, Table, output},
    pool::{Maintenance, Stale, TableList, TablePool},
    tree::Tree,
};
use core::marker::PhantomData;
use types::{Address, Range};

/// One bounded walk over what is mapped.
struct Walk<'a, P, M, F> {
    pool: &'a mut P,
    maintenance: &'a mut M,
    /// Descriptors (leaves and holes) that may still be looked at.
    entries: usize,
    /// Bytes of the leaves that were found.
    changed: u64,
    /// Whether a live descriptor was changed without telling walkers yet.
    stale: bool,
    /// Tables taken out of the tree. Walkers may still be in them until the invalidation.
    dead: TableList,
    format: PhantomData<F>,
}

impl<F: Format> Tree<F> {
    /// Unmaps what is mapped in `range`, looking at no more than `entries` (at least one) leaves and holes.
    pub(crate) fn unmap<P: TablePool, M: Maintenance<F::Input>>(
        &mut self,
        range: Range<F::Input>,
        entries: usize,
        pool: &mut P,
        maintenance: &mut M,
    ) -> Result<Progress<F::Input>, MapError<F::Input>> {
        let (start, end) = self.check(range)?;
        self.split_ends(start, end, None, pool, maintenance)?;
        let mut walk = Walk::<_, _, F>::new(entries, pool, maintenance);
        let stop = walk.unmap(self.root, start, end);
        let (changed, freed) = walk.finish(start, stop);
        self.tables = self.tables.saturating_sub(freed);
        Ok(Progress::up_to(stop, end, changed))
    }

    /// Gives what is mapped in `range` these attributes, looking at no more than `entries` (at least one) leaves and holes.
    pub(crate) fn protect<P: TablePool, M: Maintenance<F::Input>>(
        &mut self,
        range: Range<F::Input>,
        attributes: F::Attributes,
        entries: usize,
        pool: &mut P,
        maintenance: &mut M,
    ) -> Result<Progress<F::Input>, MapError<F::Input>> {
        let (start, end) = self.check(range)?;
        let attributes = F::encode(attributes);
        self.split_ends(start, end, Some(attributes), pool, maintenance)?;
        let mut walk = Walk::<_, _, F>::new(entries, pool, maintenance);
        let stop = walk.protect(attributes, self.root, start, end);
        let (changed, _) = walk.finish(start, stop);
        Ok(Progress::up_to(stop, end, changed))
    }
}

impl<'a, P: TablePool, M: Maintenance<F::Input>, F: Format> Walk<'a, P, M, F> {
    fn new(entries: usize, pool: &'a mut P, maintenance: &'a mut M) -> Self {
        let (entries, dead) = (entries.max(1), TableList::default());
        Self { pool, maintenance, entries, changed: 0, stale: false, dead, format: PhantomData }
    }

    /// Accounts for one leaf or hole.
    fn spend(&mut self, changed: u64) {
        self.entries = self.entries.saturating_sub(1);
        self.changed = self.changed.saturating_add(changed);
    }

    /// Clears the leaves from `from` to `to`, all within this table; says where it stopped. Leaves do not stick out of the
    /// range: its ends have been split.
    fn unmap(&mut self, table: Table, from: u64, to: u64) -> u64 {
        let mut at = from;
        while at < to && self.entries > 0 {
            let end = table.level.next(at).min(to);
            let (page, index) = table.slot(at);
            match table.entry(self.pool.read(page, index)) {
                Entry::Invalid => self.spend(0),
                Entry::Leaf(_) => {
                    self.pool.write(page, index, 0);
                    self.stale = true;
                    self.spend(end.wrapping_sub(at));
                }
                Entry::Table(below) => {
                    let stop = self.unmap(below, at, end);
                    let all = stop.wrapping_sub(at) == table.level.size();
                    if all || below.is_empty(self.pool) {
                        self.pool.write(page, index, 0);
                        self.dead.push(below.pa, self.pool);
                        self.stale = true;
                    }
                    if stop < end {
                        return stop;
                    }
                }
            }
            at = end;
        }
        at
    }

    /// Rewrites the leaves from `from` to `to`, all within this table; says where it stopped. A leaf that sticks out of the
    /// range has these attributes already.
    fn protect(&mut self, attributes: u64, table: Table, from: u64, to: u64) -> u64 {
        let mut at = from;
        while at < to && self.entries > 0 {
            let end = table.level.next(at).min(to);
            let (page, index) = table.slot(at);
            match table.entry(self.pool.read(page, index)) {
                Entry::Invalid => self.spend(0),
                Entry::Leaf(old) => {
                    let new = table.level.leaf(output(old), attributes);
                    if (new ^ old) & !F::PERMISSIONS != 0 {
                        self.pool.write(page, index, 0);
                        self.invalidate(at, end, Stale::Leaves);
                    }
                    if new != old {
                        self.pool.write(page, index, new);
                        self.stale = true;
                    }
                    self.spend(end.wrapping_sub(at));
                }
                Entry::Table(below) => {
                    let stop = self.protect(attributes, below, at, end);
                    if stop < end {
                        return stop;
                    }
                }
            }
            at = end;
        }
        at
    }

    fn invalidate(&mut self, from: u64, to: u64, stale: Stale) {
        let range = Range::between(F::Input::from_u64(from), F::Input::from_u64(to));
        self.maintenance.invalidate(range, stale);
    }

    /// Tells walkers, then frees the tables they may have been in. Says how many bytes were changed and how many tables
    /// freed.
    fn finish(mut self, from: u64, stop: u64) -> (u64, usize) {
        if self.stale {
            let stale = if self.dead.is_empty() { Stale::Leaves } else { Stale::Tables };
            self.invalidate(from, stop, stale);
        }
        (self.changed, self.dead.free(self.pool))
    }
}
