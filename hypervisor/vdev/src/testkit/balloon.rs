//! RAM of which a device under test takes pages, and remembers which.

use crate::{Balloon, GIVE_BACK_PAGES, Holding};
use alloc::{collections::btree_set::BTreeSet, sync::Arc};
use types::{Ipa, Lock, PAGE_SIZE, Range};

/// RAM; clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct Pages(Arc<Lock<PagesState>>);

#[derive(Debug, Default)]
struct PagesState {
    first: u64,
    count: u64,
    wanted: u64,
    gone: BTreeSet<u64>,
}

impl Pages {
    /// From now on it is so many pages from `start` on, which the guest has and may have.
    pub fn set(&self, start: Ipa, count: u64) {
        let first = start.0.checked_div(PAGE_SIZE).unwrap_or(0);
        *self.0.lock() = PagesState { first, count, wanted: count, gone: BTreeSet::new() };
    }

    /// The guest is to make do with so many. The device is to be woken then.
    pub fn want(&self, pages: u64) {
        self.0.lock().wanted = pages;
    }

    /// The numbers of the pages that the guest has given back, the first of its RAM being 0.
    #[must_use]
    pub fn gone(&self) -> BTreeSet<u64> {
        self.0.lock().gone.clone()
    }

    /// The guest touches a page.
    pub fn touch(&self, number: u64) {
        self.0.lock().gone.remove(&number);
    }

    /// Whether there is any.
    pub(super) fn is_there(&self) -> bool {
        self.0.lock().count > 0
    }
}

impl Balloon for Pages {
    fn holding(&self) -> Holding {
        let state = self.0.lock();
        let gone = u64::try_from(state.gone.len()).unwrap_or(u64::MAX);
        Holding { size: state.count, wanted: state.wanted, present: state.count.saturating_sub(gone) }
    }

    fn give_back(&self, pages: Range<Ipa>) -> u64 {
        let state = &mut *self.0.lock();
        let [start, end] = [pages.start(), pages.end()].map(|at| at.0.checked_div(PAGE_SIZE).unwrap_or(0));
        let numbers = (start..end).take(usize::try_from(GIVE_BACK_PAGES).unwrap_or(0));
        let own = numbers.filter_map(|page| page.checked_sub(state.first)).filter(|number| *number < state.count);
        let new = own.filter(|number| state.gone.insert(*number)).count();
        u64::try_from(new).unwrap_or(u64::MAX)
    }
}
