//! A device's place on the bus.
//!
//! Answers for: the device with its lock and what it may reach, which accesses it takes, and an access on its way there
//! ([`Target`]). Does not answer for: which device it is ([`super::Bus`]).

use super::Device;
use crate::{AccessFault, AccessSizes, Context, Effects, Factory, Identity, Services, Vdev};
use alloc::{boxed::Box, string::String};
use core::fmt;
use types::{AccessSize, Ipa, Lock, Range};

/// A device, and where it is.
pub(super) struct Slot {
    pub(super) start: u64,
    /// For each access size the first offset that it cannot have: the end of the region less what the access needs, or zero
    /// if the factory does not allow it. One comparison instead of three.
    limits: [u64; 4],
    pub(super) vdev: Lock<Box<dyn Vdev>>,
    pub(super) identity: Identity,
    pub(super) length: u64,
    pub(super) name: String,
    pub(super) factory: &'static Factory,
}

impl Slot {
    pub(super) fn new(region: Range<Ipa>, device: Device, identity: Identity) -> Self {
        Self {
            start: region.start().0,
            limits: limits(region.length(), device.factory.access_sizes),
            vdev: Lock::new(device.vdev),
            identity,
            length: region.length(),
            name: device.name,
            factory: device.factory,
        }
    }

    /// The first offset that an access of this size cannot have.
    #[inline(always)]
    pub(super) fn limit(&self, size: AccessSize) -> u64 {
        self.limits.get(size as usize).copied().unwrap_or(0)
    }

    /// Why it does not take this access.
    #[cold]
    pub(super) fn refusal(&self, offset: u64, size: AccessSize) -> AccessFault {
        match self.length.checked_sub(offset) {
            None | Some(0) => AccessFault::Nothing,
            Some(rest) if size.bytes() > rest => AccessFault::Straddles,
            // The device begins at a multiple of every size.
            Some(_) if !size.is_aligned(offset) => AccessFault::Unaligned,
            Some(_) => AccessFault::Size,
        }
    }

    /// What the device may reach during a call.
    #[inline(always)]
    pub(super) fn context<'a>(&'a self, services: &'a Services<'a>, effects: &'a mut Effects) -> Context<'a> {
        Context::new(services, &self.identity, effects)
    }
}

/// The first offset in a region of `length` bytes that an access of each size cannot have.
fn limits(length: u64, allowed: AccessSizes) -> [u64; 4] {
    [AccessSize::Byte, AccessSize::Halfword, AccessSize::Word, AccessSize::Doubleword].map(|size| {
        let last = length.checked_sub(size.bytes()).filter(|_| allowed.allows(size));
        last.map_or(0, |last| last.saturating_add(1))
    })
}

/// A device that takes an access, and where in it.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub(super) slot: &'a Slot,
    pub(super) offset: u64,
    pub(super) size: AccessSize,
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("device", &self.slot.name).field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Target<'_> {
    /// The load. Bits above the access size are undefined.
    ///
    /// # Errors
    /// What the device answers.
    #[inline(always)]
    pub fn read(self, services: &Services<'_>, effects: &mut Effects) -> Result<u64, AccessFault> {
        self.slot.vdev.lock().read(self.offset, self.size, &mut self.slot.context(services, effects))
    }

    /// The store of the low bytes of `value`; bits above are ignored.
    ///
    /// # Errors
    /// What the device answers.
    #[inline]
    pub fn write(self, value: u64, services: &Services<'_>, effects: &mut Effects) -> Result<(), AccessFault> {
        let value = value & self.size.mask();
        self.slot.vdev.lock().write(self.offset, self.size, value, &mut self.slot.context(services, effects))
    }
}
