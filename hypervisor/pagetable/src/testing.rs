//! Memory and walkers for tests.
//!
//! Answers for: a pool with a limit that notices double frees, use after free and leaks, and hardware that is as
//! unforgiving as the architecture allows: walkers that see writes in any order until they are published, keep every
//! translation and every table they could ever have seen until they are told to forget it, and break when a valid
//! descriptor is replaced by a different one. Does not answer for: anything outside tests.

use crate::pool::{Maintenance, Stale, TablePool};
use std::{cell::RefCell, rc::Rc, vec, vec::Vec};
use types::{Address, Pa, Range};

/// What maintenance was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Publish,
    Invalidate { start: u64, end: u64, stale: Stale },
}

/// A descriptor that walkers may still remember.
struct Memory {
    start: u64,
    end: u64,
    /// The tables that it led to; none for a leaf.
    tables: Vec<u64>,
}

/// Where a live table stands: the input address of its first descriptor, and its level.
#[derive(Clone, Copy)]
struct Place {
    base: u64,
    level: u32,
}

impl Place {
    /// Input addresses of descriptor `index`.
    fn span(self, index: usize) -> (u64, u64) {
        let size = 1 << (12 + 9 * (3 - self.level));
        (self.base + index as u64 * size, self.base + (index as u64 + 1) * size)
    }
}

/// Bits that a live leaf may change in without break-before-make: AP/S2AP, XN.
const PERMISSIONS: u64 = (0b11 << 6) | (0b11 << 53);

/// Where tables come from. Memory is never handed out twice, so that stale pointers are noticed.
const POOL: u64 = 0x10_0000_0000;

/// A table, or what is left of it.
#[derive(Clone, Copy, Default)]
struct Page {
    allocated: bool,
    /// It has been written to, and walkers may not have seen it.
    unpublished: bool,
    /// Where walkers reach it.
    live: Option<Place>,
}

#[derive(Default)]
struct World {
    /// The descriptors of all tables that there ever were, from [`POOL`] on. Plain, since Miri comes here often.
    words: Vec<u64>,
    /// The same tables.
    pages: Vec<Page>,
    left: usize,
    remembered: Vec<Memory>,
    events: Vec<Event>,
    leaves_written: usize,
}

impl World {
    /// Number of a page that is allocated.
    fn number(&self, page: u64) -> usize {
        let number = ((page - POOL) / 4096) as usize;
        assert!(self.pages[number].allocated, "reached for a table that is not allocated");
        number
    }

    /// Where a descriptor of an allocated table is.
    fn word(&self, page: u64, index: usize) -> usize {
        self.number(page) * 512 + index
    }

    /// Every write so far is seen.
    fn publish(&mut self) {
        self.pages.iter_mut().for_each(|page| page.unpublished = false);
    }

    /// The live tables from `page` down, and their places.
    fn subtree(&self, page: u64, place: Place, found: &mut Vec<(u64, Place)>) {
        found.push((page, place));
        if place.level == 3 {
            return;
        }
        let first = self.word(page, 0);
        let mut index = 0;
        while index < 512 {
            let descriptor = self.words[first + index];
            if descriptor & 3 == 3 {
                let below = Place { base: place.span(index).0, level: place.level + 1 };
                self.subtree(descriptor & 0xffff_ffff_f000, below, found);
            }
            index += 1;
        }
    }

    /// As [`World::subtree`], below `descriptor`.
    fn below(&self, descriptor: u64, place: Place) -> Vec<(u64, Place)> {
        let mut found = vec![];
        self.subtree(descriptor & 0xffff_ffff_f000, place, &mut found);
        found
    }

    fn write_live(&mut self, page: u64, index: usize, new: u64, place: Place) {
        let (start, end) = place.span(index);
        let old = self.words[self.word(page, index)];
        let is_table = |descriptor: u64| place.level < 3 && descriptor & 3 == 3;
        let below = Place { base: start, level: place.level + 1 };
        if old & new & 1 == 1 && old != new {
            assert!(!is_table(old) && !is_table(new), "a live table was replaced without break");
            assert_eq!((old ^ new) & !PERMISSIONS, 0, "a live leaf was changed without break: {old:#x} to {new:#x}");
        }
        if new & 1 == 1 && old & 1 == 0 {
            let clash = self.remembered.iter().any(|memory| memory.start < end && start < memory.end);
            assert!(!clash, "{start:#x} made before the break was invalidated");
            if is_table(new) {
                for (page, place) in self.below(new, below) {
                    let number = self.number(page);
                    let page = &mut self.pages[number];
                    assert!(!page.unpublished, "a table was linked before its contents were published");
                    assert!(page.live.replace(place).is_none(), "a table has two places");
                }
            }
        }
        if new & 1 == 1 && !is_table(new) {
            assert!(place.level > 0, "level 0 has no blocks");
            assert_eq!(new & 0xffff_ffff_f000 & (end - start - 1), 0, "a block is not aligned to its size");
            self.leaves_written += 1;
        }
        if old & 1 == 1 && old != new {
            let mut tables = vec![];
            if is_table(old) && new & 1 == 0 {
                for (page, _) in self.below(old, below) {
                    let number = self.number(page);
                    self.pages[number].live = None;
                    tables.push(page);
                }
            }
            self.remembered.push(Memory { start, end, tables });
        }
    }

    fn forget(&mut self, start: u64, end: u64, stale: Stale) {
        self.publish();
        self.remembered.retain(|memory| {
            // A leaf in all its extent; a table through any address it is needed to translate, unless only leaves were
            // meant (DDI 0487, D8.17.5, "the scope of TLB maintenance instructions").
            if memory.tables.is_empty() {
                !(start <= memory.start && memory.end <= end)
            } else {
                !(stale == Stale::Tables && start < memory.end && memory.start < end)
            }
        });
    }
}

/// A pool of tables.
pub(crate) struct TestPool(Rc<RefCell<World>>);

impl TestPool {
    /// Room for so many tables.
    pub(crate) fn with(left: usize) -> Self {
        Self(Rc::new(RefCell::new(World { left, ..World::default() })))
    }

    /// What reports to the walkers of these tables.
    pub(crate) fn walkers(&self) -> Walkers {
        Walkers(self.0.clone())
    }

    pub(crate) fn in_use(&self) -> usize {
        self.0.borrow().pages.iter().filter(|page| page.allocated).count()
    }

    pub(crate) fn set_left(&mut self, left: usize) {
        self.0.borrow_mut().left = left;
    }

    /// Descriptors of a table.
    pub(crate) fn table(&self, page: u64) -> [u64; 512] {
        let world = self.0.borrow();
        let first = world.word(page, 0);
        world.words[first..first + 512].try_into().expect("512 descriptors")
    }
}

impl TablePool for TestPool {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        assert!(pages.is_power_of_two() && pages <= 16);
        let mut world = self.0.borrow_mut();
        world.left = world.left.checked_sub(pages)?;
        let first = world.pages.len().next_multiple_of(pages);
        world.pages.resize(first, Page::default());
        // The zeros are writes as well.
        world.pages.resize(first + pages, Page { allocated: true, unpublished: true, live: None });
        world.words.resize((first + pages) * 512, 0);
        Some(Pa(POOL + first as u64 * 4096))
    }

    fn free(&mut self, table: Pa, pages: usize) {
        let mut world = self.0.borrow_mut();
        for page in (table.0..).step_by(4096).take(pages) {
            let number = world.number(page);
            assert!(world.pages[number].live.is_none(), "freed a table that walkers reach");
            let remembered = world.remembered.iter().any(|memory| memory.tables.contains(&page));
            assert!(!remembered, "freed a table that walkers may remember");
            world.pages[number] = Page::default();
        }
        world.left += pages;
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        let world = self.0.borrow();
        world.words[world.word(table.0, index)]
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        let mut world = self.0.borrow_mut();
        let number = world.number(table.0);
        if let Some(place) = world.pages[number].live {
            world.write_live(table.0, index, descriptor, place);
        }
        if descriptor & 1 == 1 {
            let remembered = world.remembered.iter().any(|memory| memory.tables.contains(&table.0));
            assert!(!remembered, "a dead table that walkers may remember became valid again");
        }
        world.words[number * 512 + index] = descriptor;
        world.pages[number].unpublished = true;
    }
}

/// The hardware that walks the tables of a [`TestPool`].
pub(crate) struct Walkers(Rc<RefCell<World>>);

impl Walkers {
    /// Loads a root: from now on every write is seen.
    pub(crate) fn install(&mut self, root: Pa, level: u32, pages: usize) {
        let mut world = self.0.borrow_mut();
        world.publish();
        for page in 0..pages as u64 {
            let base = (page * 512) << (12 + 9 * (3 - level));
            for (page, place) in world.below(root.0 + page * 4096, Place { base, level }) {
                let number = world.number(page);
                world.pages[number].live = Some(place);
            }
        }
    }

    /// Unloads the root and forgets everything.
    pub(crate) fn retire(&mut self) {
        let mut world = self.0.borrow_mut();
        world.pages.iter_mut().for_each(|page| page.live = None);
        world.remembered.clear();
    }

    /// What was asked for since this was called last.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.0.borrow_mut().events)
    }

    /// How many leaves became valid since this was called last.
    pub(crate) fn leaves_written(&mut self) -> usize {
        core::mem::take(&mut self.0.borrow_mut().leaves_written)
    }

    /// Checks that no walker remembers what is no longer so, and that every write is seen.
    pub(crate) fn assert_up_to_date(&self) {
        let world = self.0.borrow();
        assert!(world.remembered.is_empty(), "walkers were not told of {:#x}", world.remembered[0].start);
        let unseen = |page: &Page| page.live.is_some() && page.unpublished;
        assert!(!world.pages.iter().any(unseen), "writes were not published");
    }
}

impl<A: Address> Maintenance<A> for Walkers {
    fn publish(&mut self) {
        let mut world = self.0.borrow_mut();
        world.publish();
        world.events.push(Event::Publish);
    }

    fn invalidate(&mut self, range: Range<A>, stale: Stale) {
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        let mut world = self.0.borrow_mut();
        world.forget(start, end, stale);
        world.events.push(Event::Invalidate { start, end, stale });
    }
}
