//! Cutting blocks.
//!
//! Answers for: replacing a live block by a table of smaller leaves that map the same, so that a range can be changed
//! without touching its neighbours. Does not answer for: the change itself (`unmap`). Changing the size of a live block
//! needs break-before-make (DDI 0487, D8.17.1).

use crate::{
    change::MapError,
    descriptor::{ATTRIBUTES, ENTRIES, Entry, Format, Level, Table, output},
    pool::{Maintenance, Stale, TableList, TablePool},
    tree::Tree,
};
use types::{Address, Range};

impl<F: Format> Tree<F> {
    /// Sees to it that no leaf sticks out of `start` to `end`, except one that has the attributes `wanted` already. Nothing
    /// is changed if there are not enough tables.
    pub(crate) fn split_ends<P: TablePool, M: Maintenance<F::Input>>(
        &mut self,
        start: u64,
        end: u64,
        wanted: Option<u64>,
        pool: &mut P,
        maintenance: &mut M,
    ) -> Result<(), MapError<F::Input>> {
        if start >= end {
            return Ok(());
        }
        let for_start = self.tables_to_split(start, None, wanted, pool);
        let count = for_start.saturating_add(self.tables_to_split(end, Some(start), wanted, pool));
        if count == 0 {
            return Ok(());
        }
        let mut reserve = TableList::reserve(count, pool).ok_or(MapError::OutOfTables)?;
        self.tables = self.tables.saturating_add(count);
        self.split_at(start, wanted, &mut reserve, pool, maintenance);
        self.split_at(end, wanted, &mut reserve, pool, maintenance);
        Ok(())
    }

    /// How many tables it takes to make `at` a boundary between leaves, when `already` is one.
    fn tables_to_split(&self, at: u64, already: Option<u64>, wanted: Option<u64>, pool: &impl TablePool) -> usize {
        let mut table = self.root;
        let mut cut = loop {
            if table.level.is_aligned(at) {
                return 0;
            }
            let (page, index) = table.slot(at);
            match table.entry(pool.read(page, index)) {
                Entry::Invalid => return 0,
                Entry::Table(below) => table = below,
                Entry::Leaf(block) if has(block, wanted) => return 0,
                Entry::Leaf(_) => break Some(table.level),
            }
        };
        // A leaf's span at this level is cut if one of the two lies inside it; both may lie inside the same.
        let is_cut = |level: Level, at: u64| !level.is_aligned(at);
        let mut count = 0_usize;
        while let Some(level) = cut.filter(|&level| is_cut(level, at)) {
            let shared =
                already.is_some_and(|other| is_cut(level, other) && level.align_down(other) == level.align_down(at));
            count = count.saturating_add(usize::from(!shared));
            cut = level.below();
        }
        count
    }

    /// Makes `at` a boundary between leaves, with tables from the reserve.
    fn split_at<P: TablePool, M: Maintenance<F::Input>>(
        &self,
        at: u64,
        wanted: Option<u64>,
        reserve: &mut TableList,
        pool: &mut P,
        maintenance: &mut M,
    ) {
        let mut table = self.root;
        // Each turn goes a level down; at level 3 every page boundary is aligned.
        while !table.level.is_aligned(at) {
            let (page, index) = table.slot(at);
            match table.entry(pool.read(page, index)) {
                Entry::Invalid => return,
                Entry::Table(below) => table = below,
                Entry::Leaf(block) if has(block, wanted) => return,
                Entry::Leaf(block) => {
                    let Some(level) = table.level.below() else { return };
                    let Some(pa) = reserve.pop(pool) else { return };
                    let below = Table::new(pa, level);
                    fill(below, block, pool);
                    let start = F::Input::from_u64(table.level.align_down(at));
                    let span = Range::between(start, F::Input::from_u64(table.level.next(at)));
                    maintenance.publish();
                    pool.write(page, index, 0);
                    maintenance.invalidate(span, Stale::Leaves);
                    pool.write(page, index, below.descriptor());
                    maintenance.publish();
                    table = below;
                }
            }
        }
    }
}

/// Whether a leaf has these attributes.
fn has(leaf: u64, wanted: Option<u64>) -> bool {
    wanted.is_some_and(|wanted| Level::Three.leaf(output(leaf), wanted) & ATTRIBUTES == leaf & ATTRIBUTES)
}

/// Fills a table with leaves that map together what `block`, one level up, maps.
fn fill(table: Table, block: u64, pool: &mut impl TablePool) {
    let mut to = output(block);
    for index in 0..ENTRIES {
        pool.write(table.pa, index, table.level.leaf(to, block & ATTRIBUTES));
        to.0 = to.0.wrapping_add(table.level.size());
    }
}
