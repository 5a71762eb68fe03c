//! Mapping.
//!
//! Answers for: filling holes with the largest blocks that fit, all or nothing: the tables it takes are counted and
//! reserved before the first descriptor is written. Does not answer for: changing what is mapped (`unmap`, `split`).
//!
//! A descriptor that becomes valid needs no invalidation, since walkers keep nothing of invalid ones (DDI 0487, D8.16
//! "Translation Lookaside Buffers").

use crate::{
    change::{MapError, Progress},
    descriptor::{Entry, Format, Level, Table},
    pool::{Maintenance, TableList, TablePool},
    tree::Tree,
};
use types::{Address, Pa, Range};

/// What is to be mapped.
struct Order {
    /// Output minus input address, modulo 2^64.
    offset: u64,
    /// Attribute bits of the leaves.
    attributes: u64,
}

impl Order {
    /// The leaf that maps all of the span from `at` to `end`, if one descriptor of this level can.
    #[inline(always)]
    fn leaf(&self, level: Level, at: u64, end: u64) -> Option<u64> {
        let to = at.wrapping_add(self.offset);
        let fits = level.has_leaves() && end.wrapping_sub(at) == level.size() && level.is_aligned(to);
        fits.then(|| level.leaf(Pa(to), self.attributes))
    }
}

/// What a first walk found out.
struct Plan {
    /// Leaves that may still be written.
    leaves: usize,
    /// New tables that those so far need.
    tables: usize,
}

/// What the second walk works with.
struct Builder<'a, P, M> {
    pool: &'a mut P,
    maintenance: &'a mut M,
    reserve: TableList,
}

impl<F: Format> Tree<F> {
    /// Maps `range` to the same length from `to` on, writing at most `entries` (at least one) leaves.
    pub(crate) fn map<P: TablePool, M: Maintenance<F::Input>>(
        &mut self,
        range: Range<F::Input>,
        to: Pa,
        attributes: F::Attributes,
        entries: usize,
        pool: &mut P,
        maintenance: &mut M,
    ) -> Result<Progress<F::Input>, MapError<F::Input>> {
        let (start, end) = self.check(range)?;
        self.check_output(to, range.length())?;
        let order = Order { offset: to.0.wrapping_sub(start), attributes: F::encode(attributes) };

        let mut plan = Plan { leaves: entries.max(1), tables: 0 };
        let stop = order.plan(Place::Old(self.root), start, end, pool, &mut plan).map_err(MapError::at)?;
        let reserve = TableList::reserve(plan.tables, pool).ok_or(MapError::OutOfTables)?;
        self.tables = self.tables.saturating_add(plan.tables);

        let mut builder = Builder { pool, maintenance, reserve };
        builder.build::<F>(&order, self.root, true, start, stop);
        builder.maintenance.publish();
        Ok(Progress::up_to(stop, end, stop.wrapping_sub(start)))
    }
}

/// A table that is there, or the level of one that will be.
#[derive(Clone, Copy)]
enum Place {
    Old(Table),
    New(Level),
}

impl Place {
    fn level(self) -> Level {
        match self {
            Self::Old(table) => table.level,
            Self::New(level) => level,
        }
    }
}

impl Order {
    /// Walks from `from` to `to`, all within this table, without changing anything. Says where it stops for want of leaves,
    /// or at which address something is mapped already.
    fn plan(&self, place: Place, from: u64, to: u64, pool: &impl TablePool, plan: &mut Plan) -> Result<u64, u64> {
        let level = place.level();
        let mut at = from;
        while at < to && plan.leaves > 0 {
            let end = level.next(at).min(to);
            let below = match place {
                Place::New(_) => None,
                Place::Old(table) => {
                    let (page, index) = table.slot(at);
                    match table.entry(pool.read(page, index)) {
                        Entry::Invalid => None,
                        Entry::Leaf(_) => return Err(at),
                        // Not empty, so even if a block would span it, something is found in the way.
                        Entry::Table(below) => Some(Place::Old(below)),
                    }
                }
            };
            if below.is_none() && self.leaf(level, at, end).is_some() {
                plan.leaves = plan.leaves.saturating_sub(1);
                at = end;
                continue;
            }
            let Some(next) = level.below() else { return Err(at) };
            if below.is_none() {
                plan.tables = plan.tables.saturating_add(1);
            }
            let stop = self.plan(below.unwrap_or(Place::New(next)), at, end, pool, plan)?;
            if stop < end {
                return Ok(stop);
            }
            at = end;
        }
        Ok(at)
    }
}

impl<P: TablePool, M> Builder<'_, P, M> {
    /// Writes what [`Order::plan`] found possible. `live` is whether walkers reach `table`: a new table is filled first,
    /// published, and only then linked.
    fn build<F: Format>(&mut self, order: &Order, table: Table, live: bool, from: u64, to: u64)
    where
        M: Maintenance<F::Input>,
    {
        let mut at = from;
        while at < to {
            let end = table.level.next(at).min(to);
            let (page, index) = table.slot(at);
            if let Entry::Table(below) = table.entry(self.pool.read(page, index)) {
                self.build::<F>(order, below, live, at, end);
            } else if let Some(leaf) = order.leaf(table.level, at, end) {
                self.pool.write(page, index, leaf);
            } else if let Some(below) = self.new_table(table.level) {
                self.build::<F>(order, below, false, at, end);
                if live {
                    self.maintenance.publish();
                }
                self.pool.write(page, index, below.descriptor());
            }
            at = end;
        }
    }

    /// A table from the reserve, for the level below `level`. The plan has counted them, so there is one.
    fn new_table(&mut self, level: Level) -> Option<Table> {
        Some(Table::new(self.reserve.pop(self.pool)?, level.below()?))
    }
}

impl<A: Address> MapError<A> {
    fn at(address: u64) -> Self {
        Self::Overlap(A::from_u64(address))
    }
}

impl<A: Address> Progress<A> {
    /// Done up to `stop` of what ends at `end`.
    pub(crate) fn up_to(stop: u64, end: u64, changed: u64) -> Self {
        let rest = (stop < end).then(|| Range::between(A::from_u64(stop), A::from_u64(end)));
        Self { changed, rest }
    }
}
