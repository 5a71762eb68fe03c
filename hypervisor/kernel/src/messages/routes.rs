//! Whose LPIs are.
//!
//! Answers for: which LPIs a VM has, where each goes, and how many come in a time. Does not answer for: what an ITS has to be told about
//! it (`unit`).
//!
//! A VM with messages has a window of 256 LPIs, so that the number of one says whose it is and which of the VM's.

use super::{MOST_IN_PERIOD, Way};
use crate::compartment::Compartment;
use alloc::string::String;
use alloc::vec::Vec;
use its::{Event, lpis};
use types::{IntId, Ticks, VmId};

/// Vectors that a VM has at most.
pub(crate) const MOST: usize = 256;
/// VMs that have some at most.
pub(super) const WINDOWS: usize = lpis::COUNT as usize / MOST;

/// One LPI, as long as it is somebody's.
pub(super) struct Slot {
    pub(super) its: usize,
    pub(super) event: Event,
    /// To which CPU it comes, as the ITS counts them.
    pub(super) collection: u16,
    pub(super) to: Option<Way>,
    /// It has come too often, and does not come for now.
    pub(super) is_held: bool,
    pub(super) arrived: u64,
}

/// What an LPI of a window is.
pub(super) enum Place {
    Free,
    Used(Slot),
    /// Its ITS has failed: nobody knows whether it comes, and nobody gets it.
    Lost,
}

/// What one VM has.
pub(super) struct Window {
    pub(super) owner: Option<VmId>,
    pub(super) compartment: Option<&'static Compartment>,
    pub(super) places: Vec<Place>,
    /// How many have come in the period that began then.
    begun: Ticks,
    count: u32,
    /// How many are held, and until when.
    pub(super) held: u32,
    pub(super) held_until: Ticks,
    /// Up to here those that were held have been let come again.
    pub(super) next: usize,
}

/// All windows.
pub(super) struct Routes {
    windows: [Option<Window>; WINDOWS],
    /// LPIs that were nobody's, or had no way to a guest.
    pub(super) dropped: u64,
}

/// The LPI that has a place.
pub(super) fn lpi(window: usize, place: usize) -> IntId {
    IntId(lpis::FIRST + (window * MOST + place) as u32)
}

impl Routes {
    pub(super) const fn new() -> Self {
        Self { windows: [const { None }; WINDOWS], dropped: 0 }
    }

    pub(super) fn window(&mut self, number: usize) -> Option<&mut Window> {
        self.windows.get_mut(number)?.as_mut()
    }

    pub(super) fn of(&mut self, owner: VmId) -> Option<(usize, &mut Window)> {
        let mut all = self.windows.iter_mut().enumerate();
        all.find_map(|(number, window)| Some((number, window.as_mut().filter(|window| window.owner == Some(owner))?)))
    }

    /// The window and the place of an LPI that has come.
    pub(super) fn find(&mut self, lpi: u32) -> Option<(&mut Window, usize)> {
        let index = lpi.checked_sub(lpis::FIRST)? as usize;
        Some((self.window(index / MOST)?, index % MOST))
    }

    /// Takes `count` places in a row for a VM: its window, and the first of them. There are `lpis` LPIs.
    ///
    /// # Errors
    /// If it has no room for so many, or no VM has any more.
    pub(super) fn take(
        &mut self,
        compartment: &'static Compartment,
        lpis: u32,
        count: usize,
        slot: impl Fn(usize) -> Slot,
    ) -> Result<(usize, usize), String> {
        let owner = compartment.id;
        let number = match self.of(owner) {
            Some((number, _)) => number,
            None => {
                let usable = (lpis as usize / MOST).min(WINDOWS);
                let free = (0..usable).find(|number| self.windows.get(*number).is_some_and(Option::is_none));
                let free = free.ok_or("too many VMs have messages of the machine's devices")?;
                let places = (0..MOST).map(|_| Place::Free).collect();
                let (owner, compartment, zero) = (Some(owner), Some(compartment), Ticks(0));
                let (begun, held_until) = (zero, zero);
                let window = Window { owner, compartment, places, begun, count: 0, held: 0, held_until, next: 0 };
                self.windows[free] = Some(window);
                free
            }
        };
        let window = self.window(number).ok_or("it has no window")?;
        let is_free = |first: &usize| {
            let places = window.places.get(*first..*first + count);
            places.is_some_and(|places| places.iter().all(|place| matches!(place, Place::Free)))
        };
        let first = (0..MOST).find(is_free).ok_or("a VM has 256 vectors of passed functions at most")?;
        for (n, place) in window.places.iter_mut().skip(first).take(count).enumerate() {
            *place = Place::Used(slot(n));
        }
        Ok((number, first))
    }

    /// These places are free again, or `lost`.
    pub(super) fn give_back(&mut self, number: usize, first: usize, count: usize, lost: bool) {
        let Some(window) = self.window(number) else { return };
        for place in window.places.iter_mut().skip(first).take(count) {
            if matches!(place, Place::Used(slot) if slot.is_held) {
                window.held -= 1;
            }
            *place = if lost { Place::Lost } else { Place::Free };
        }
        if window.places.iter().any(|place| matches!(place, Place::Used(_))) {
            return;
        }
        window.abandon();
        if window.places.iter().all(|place| matches!(place, Place::Free))
            && let Some(window) = self.windows.get_mut(number)
        {
            *window = None;
        }
    }
}

impl Window {
    /// One more has come. Says whether that is too many for the period.
    pub(super) fn count(&mut self, now: Ticks, period: Ticks) -> bool {
        if now.saturating_sub(self.begun) >= period {
            (self.begun, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count > MOST_IN_PERIOD
    }

    /// One more is held, until the period is over. Says whether it is the first of all.
    pub(super) fn note_held(&mut self, period: Ticks) -> bool {
        let is_first = self.held_until == Ticks(0);
        if self.held == 0 {
            (self.held_until, self.next) = (self.begun.saturating_add(period), 0);
        }
        self.held += 1;
        is_first
    }

    /// Nothing of it comes to the VM any more, whose number may be another's soon.
    pub(super) fn abandon(&mut self) {
        (self.owner, self.compartment) = (None, None);
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.places.iter().filter_map(|place| match place {
            Place::Used(slot) => Some(slot),
            Place::Free | Place::Lost => None,
        })
    }

    pub(super) fn slot(&mut self, place: usize) -> Option<&mut Slot> {
        match self.places.get_mut(place)? {
            Place::Used(slot) => Some(slot),
            Place::Free | Place::Lost => None,
        }
    }
}
