//! Shares: groups of threads with a guaranteed part of the machine's time.
//!
//! Answers for: how much of the last [`WINDOW_MILLISECONDS`] each group has used, and whether that is less than it is
//! guaranteed. Does not answer for: what follows from that for who runs (`metering`), and for names.
//!
//! The original calls such a group an adaptive partition ("Adaptive partitioning thread scheduler" in the QNX user's guide);
//! that word is taken here. The rules are the original's: under load every share gets what it is guaranteed; a share that has
//! used that up runs only while nobody with time left wants to; time that nobody wants goes to whoever wants it, by
//! priority, and counts as used.
//!
//! The window slides in steps: it has [`SLOTS`] slots, of which one is dropped when a new one begins.

use crate::parameters::ShareError;
use alloc::vec::Vec;
use types::Ticks;

/// Length of the window in milliseconds, as in the original.
pub const WINDOW_MILLISECONDS: u64 = 100;

/// Slots of the window.
const SLOTS: usize = 20;

/// Most shares, the system's among them.
const MAX_SHARES: usize = 16;

/// Names a share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ShareId(pub(crate) u8);

impl ShareId {
    /// That of all threads that are in no other: what the others leave over.
    pub const SYSTEM: Self = Self(0);

    /// The one that was defined as the `index`th, from 1. Whether it exists shows when it is used.
    #[must_use]
    pub const fn from_index(index: u8) -> Self {
        Self(index)
    }

    /// 0 for the system's, then as they were defined.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Debug)]
struct Share {
    percent: u8,
    /// What was used in each slot, in ticks, and in all of them.
    slots: [u64; SLOTS],
    used: u64,
    /// It has time left, as far as the scheduler was told.
    has_time: bool,
}

/// All shares. Empty until the first one is defined.
#[derive(Debug)]
pub(crate) struct Shares {
    list: Vec<Share>,
    /// The slot that runs, and when it ends.
    slot: usize,
    slot_end: Ticks,
    slot_length: Ticks,
    /// The machine's time in a window, in ticks.
    capacity: u64,
}

impl Shares {
    pub(crate) const fn new() -> Self {
        Self { list: Vec::new(), slot: 0, slot_end: Ticks(0), slot_length: Ticks(1), capacity: 1 }
    }

    /// Whether there is any but the system's.
    pub(crate) fn are_defined(&self) -> bool {
        !self.list.is_empty()
    }

    /// A new share of `percent` of the time of `cpus` CPUs, at the system's expense.
    pub(crate) fn define(&mut self, percent: u8, window: Ticks, cpus: usize) -> Result<ShareId, ShareError> {
        let new = |percent| Share { percent, slots: [0; SLOTS], used: 0, has_time: true };
        let left = self.list.first().map_or(100, |system| system.percent);
        if percent == 0 {
            return Err(ShareError::Nothing);
        }
        let rest = left.checked_sub(percent).ok_or(ShareError::TooMuch { left })?;
        if self.list.len() >= MAX_SHARES {
            return Err(ShareError::TooMany);
        }
        self.list.try_reserve(2).map_err(|_| ShareError::NoMemory)?;
        if self.list.is_empty() {
            let slots = u64::try_from(SLOTS).unwrap_or(1);
            self.slot_length = Ticks(window.0.checked_div(slots).unwrap_or(1).max(1));
            self.capacity = self.slot_length.0.saturating_mul(slots).saturating_mul(u64::try_from(cpus).unwrap_or(1));
            self.list.push(new(100));
        }
        if let Some(system) = self.list.first_mut() {
            system.percent = rest;
        }
        self.list.push(new(percent));
        Ok(ShareId(u8::try_from(self.list.len().saturating_sub(1)).unwrap_or(0)))
    }

    /// Changes what a share is guaranteed; the difference is the system's.
    pub(crate) fn redefine(&mut self, id: ShareId, percent: u8) -> Result<(), ShareError> {
        let left = self.percent(ShareId::SYSTEM).saturating_add(self.percent(id));
        if percent == 0 {
            return Err(ShareError::Nothing);
        }
        let rest = left.checked_sub(percent).ok_or(ShareError::TooMuch { left })?;
        for (id, percent) in [(ShareId::SYSTEM, rest), (id, percent)] {
            if let Some(share) = self.list.get_mut(id.index()) {
                share.percent = percent;
            }
        }
        Ok(())
    }

    pub(crate) fn exists(&self, id: ShareId) -> bool {
        id == ShareId::SYSTEM || id.index() < self.list.len()
    }

    /// A thread of the share has run.
    pub(crate) fn charge(&mut self, id: ShareId, time: Ticks) {
        let slot = self.slot;
        if let Some(share) = self.list.get_mut(id.index()) {
            share.used = share.used.saturating_add(time.0);
            if let Some(slot) = share.slots.get_mut(slot) {
                *slot = slot.saturating_add(time.0);
            }
        }
    }

    /// Moves the window on.
    pub(crate) fn advance(&mut self, now: Ticks) {
        for _ in 0..SLOTS {
            if now < self.slot_end {
                return;
            }
            self.slot_end = self.slot_end.saturating_add(self.slot_length);
            self.slot = self.slot.wrapping_add(1).checked_rem(SLOTS).unwrap_or(0);
            for share in &mut self.list {
                let oldest = share.slots.get_mut(self.slot).map_or(0, core::mem::take);
                share.used = share.used.saturating_sub(oldest);
            }
        }
        // A whole window has passed in silence.
        self.slot_end = self.slot_end.max(now.saturating_add(self.slot_length));
    }

    /// When the window moves on next.
    pub(crate) fn next(&self) -> Ticks {
        self.slot_end
    }

    /// What is left to a share of its guarantee in this window.
    pub(crate) fn left(&self, id: ShareId) -> Ticks {
        let Some(share) = self.list.get(id.index()) else { return Ticks(0) };
        let guaranteed = self.capacity.saturating_mul(u64::from(share.percent)).checked_div(100).unwrap_or(0);
        Ticks(guaranteed.saturating_sub(share.used))
    }

    /// Whether a share has time left, if that has changed since it was last asked.
    pub(crate) fn change(&mut self, id: ShareId) -> Option<bool> {
        let has_time = self.left(id) > Ticks(0);
        let share = self.list.get_mut(id.index())?;
        (core::mem::replace(&mut share.has_time, has_time) != has_time).then_some(has_time)
    }

    /// Whether a share had time left when it was last asked.
    pub(crate) fn has_time(&self, id: ShareId) -> bool {
        self.list.get(id.index()).is_none_or(|share| share.has_time)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ShareId> + use<> {
        (0..u8::try_from(self.list.len()).unwrap_or(0)).map(ShareId)
    }

    pub(crate) fn percent(&self, id: ShareId) -> u8 {
        self.list.get(id.index()).map_or(100, |share| share.percent)
    }

    pub(crate) fn used(&self, id: ShareId) -> (Ticks, Ticks) {
        (Ticks(self.list.get(id.index()).map_or(0, |share| share.used)), Ticks(self.capacity))
    }
}
