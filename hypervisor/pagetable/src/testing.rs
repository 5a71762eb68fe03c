//! Memory and walkers for tests.
//!
//! Answers for: a pool with a limit that notices double frees, use after free and leaks; a [`Maintenance`] that keeps what
//! a TLB would keep. Does not answer for: anything outside tests.

use crate::pool::{Maintenance, Stale, TablePool};
use std::{boxed::Box, collections::BTreeMap, vec::Vec};
use types::{Pa, Range};

/// Tables from 0x10_0000_0000 upwards; memory is never handed out twice, so that stale pointers are noticed.
pub(crate) struct TestPool {
    tables: BTreeMap<u64, Box<[u64; 512]>>,
    next: u64,
    /// How many tables may still be allocated.
    pub(crate) left: usize,
}

impl TestPool {
    pub(crate) fn with(left: usize) -> Self {
        Self { tables: BTreeMap::new(), next: 0x10_0000_0000, left }
    }

    pub(crate) fn in_use(&self) -> usize {
        self.tables.len()
    }
}

impl TablePool for TestPool {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        assert!(pages.is_power_of_two() && pages <= 16);
        self.left = self.left.checked_sub(pages)?;
        let start = self.next.next_multiple_of(pages as u64 * 4096);
        self.next = start + pages as u64 * 4096;
        for page in (start..self.next).step_by(4096) {
            self.tables.insert(page, Box::new([0; 512]));
        }
        Some(Pa(start))
    }

    fn free(&mut self, table: Pa, pages: usize) {
        for page in (table.0..).step_by(4096).take(pages) {
            self.tables.remove(&page).expect("freed what was not allocated");
        }
        self.left += pages;
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.tables[&table.0][index]
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        self.tables.get_mut(&table.0).expect("written to a table that is not allocated")[index] = descriptor;
    }
}

/// Writes down what it is told.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Publish,
    Invalidate { start: u64, end: u64, stale: Stale },
}

impl<A: types::Address> Maintenance<A> for Recorder {
    fn publish(&mut self) {
        self.events.push(Event::Publish);
    }

    fn invalidate(&mut self, range: Range<A>, stale: Stale) {
        self.events.push(Event::Invalidate { start: range.start().as_u64(), end: range.end().as_u64(), stale });
    }
}
