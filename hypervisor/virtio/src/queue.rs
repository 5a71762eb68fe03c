//! Virtqueues, from the device's side (2.6).
//!
//! Answers for: taking chains of descriptors out of a ring and giving them back, when a driver wants to be notified, and when it is
//! to notify; for split and packed queues alike. Does not answer for: which of its life's stages the device is in ([`crate::Core`]),
//! nor for what is in buffers.
//!
//! Everything here is read once and then checked; no loop is longer than the queue. `VIRTIO_F_IN_ORDER` is not offered.

mod descriptor;
mod packed;
mod split;

pub(crate) use descriptor::Descriptor;

use crate::{Area, Chain, Features, RingError};
use core::sync::atomic::{Ordering, fence};
use packed::Packed;
use split::Split;
use types::Ipa;
use vdev::GuestMemory;

/// Most entries of a queue (2.7, 2.8).
pub const MAX_QUEUE_SIZE: u16 = 1 << 15;

/// Where a queue is, as the driver says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Entries.
    pub size: u16,
    /// Descriptor table, or descriptor ring.
    pub descriptor_area: Ipa,
    /// Available ring, or driver event suppression.
    pub driver_area: Ipa,
    /// Used ring, or device event suppression.
    pub device_area: Ipa,
}

impl Layout {
    /// That of a legacy queue of `size` entries, which is in one piece from `start` on, its used ring at the next multiple of
    /// `alignment`, a power of two (2.7.2). `None` if the alignment is none, or it runs over the end of the address space.
    #[must_use]
    pub fn legacy(start: Ipa, size: u16, alignment: u64) -> Option<Self> {
        let driver_area = start.checked_add(u64::from(size) << 4)?;
        // Flags, index, the ring, and `used_event`, negotiated or not.
        let end = driver_area.checked_add(u64::from(size) << 1)?.checked_add(6)?;
        if !alignment.is_power_of_two() {
            return None;
        }
        Some(Self { size, descriptor_area: start, driver_area, device_area: end.align_up(alignment)? })
    }

    /// Checks that an area of `length` bytes is a multiple of `alignment`, a power of two, and does not wrap.
    fn check(area: Area, at: Ipa, alignment: u64, length: u64) -> Result<Ipa, RingError> {
        let fits = at.is_aligned(alignment) && at.checked_add(length).is_some();
        if fits { Ok(at) } else { Err(RingError::Place(area, at)) }
    }
}

/// A virtqueue in use.
#[derive(Debug)]
pub struct Queue {
    ring: Ring,
    /// What the driver has last been told: whether it is to notify; `None` before that.
    expecting: Option<bool>,
}

#[derive(Debug)]
enum Ring {
    Split(Split),
    Packed(Packed),
}

/// Does the same with a queue of either kind.
macro_rules! either {
    ($queue:expr, $ring:ident => $what:expr) => {
        match &mut $queue.ring {
            Ring::Split($ring) => $what,
            Ring::Packed($ring) => $what,
        }
    };
}

impl Queue {
    /// A queue that nothing has been taken out of, as these features have it.
    ///
    /// # Errors
    /// If its size or its areas' places cannot be (2.7, 2.8).
    pub fn new(features: Features, layout: &Layout) -> Result<Self, RingError> {
        let ring = if features.contains(Features::RING_PACKED) {
            Ring::Packed(Packed::new(features, layout)?)
        } else {
            Ring::Split(Split::new(features, layout)?)
        };
        Ok(Self { ring, expecting: None })
    }

    /// Takes the next chain out of the ring. Says whether there was one; else there is nothing of use in `chain`.
    ///
    /// # Errors
    /// If the driver has made a mistake.
    pub fn pop(&mut self, memory: &dyn GuestMemory, chain: &mut Chain) -> Result<bool, RingError> {
        either!(self, ring => ring.pop(memory, chain))
    }

    /// Gives a chain back that was taken out of this queue, of whose writable buffers the first `written` bytes have been written.
    ///
    /// # Errors
    /// If the ring is not in memory.
    pub fn push(&mut self, memory: &dyn GuestMemory, chain: &Chain, written: u32) -> Result<(), RingError> {
        either!(self, ring => ring.push(memory, chain, written))
    }

    /// Gives several chains back, with what has been written of each. The driver does not see one before it can see all.
    ///
    /// # Errors
    /// If the ring is not in memory.
    pub fn push_together(
        &mut self,
        memory: &dyn GuestMemory,
        chains: &mut dyn Iterator<Item = &Chain>,
    ) -> Result<(), RingError> {
        either!(self, ring => ring.push_together(memory, chains))
    }

    /// Whether the driver wants to be notified of the chains that have been given back since this was last asked. To be asked after
    /// each batch, and after no more of them than the queue has entries.
    ///
    /// # Errors
    /// If the ring is not in memory.
    pub fn wants_interrupt(&mut self, memory: &dyn GuestMemory) -> Result<bool, RingError> {
        either!(self, ring => ring.wants_interrupt(memory))
    }

    /// Tells the driver whether it is to notify when it makes the next chain available. If so, says whether there is one already,
    /// which it need not notify of any more. Not to notify is advice, which it may ignore.
    ///
    /// # Errors
    /// If the ring is not in memory.
    pub fn expect_notification(&mut self, memory: &dyn GuestMemory, expect: bool) -> Result<bool, RingError> {
        // With indices it is always the next one that is to be notified of, so that has to be said anew.
        if expect || self.expecting != Some(false) {
            self.expecting = Some(expect);
            either!(self, ring => ring.tell(memory, expect))?;
        }
        if !expect {
            return Ok(false);
        }
        // The driver makes a chain available and then looks whether to notify; we do the two things in the opposite order, so that
        // one of us sees what the other has done (2.7.10, 2.8.21).
        fence(Ordering::SeqCst);
        either!(self, ring => ring.has_more(memory))
    }
}

/// Whether `event` is among the indices from `old` up to, not including, `new`.
const fn is_passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
