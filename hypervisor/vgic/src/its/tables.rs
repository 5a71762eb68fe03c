//! What the ITS knows: devices, events and collections.
//!
//! Answers for: which LPI an event of a device is, and which vCPU takes it. Does not answer for: the commands that say so
//! (`commands`), the LPI's state (`shared`).
//!
//! Follows IHI 0069, "The Interrupt Translation Service": DeviceID and EventID name an interrupt in a device's table, that names an
//! LPI and a collection, and the collection a redistributor. Where all that is kept is IMPLEMENTATION DEFINED: here it is, and not
//! in the guest's memory (docs/design/027-its.md).

use super::tree::{Full, Tree};
use crate::word::{low, low_byte};
use types::RequesterId;

/// Bits of a collection's number.
pub(super) const COLLECTION_BITS: u32 = 8;
const COLLECTIONS: usize = 1 << COLLECTION_BITS;
/// Bits of an EventID, and of a DeviceID.
pub(super) const ID_BITS: u32 = 16;
/// Most devices.
const DEVICES: u16 = 1024;
/// No vCPU.
const NOBODY: u8 = u8::MAX;

/// What an event is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Translation {
    /// How far the LPI is behind the first one.
    pub(super) lpi: u16,
    pub(super) collection: u8,
}

impl Translation {
    const fn pack(self) -> u32 {
        (self.lpi as u32) << 16 | self.collection as u32
    }

    const fn unpack(value: u32) -> Self {
        Self { lpi: (value >> 16) as u16, collection: low_byte(value as u64) }
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Tables {
    /// EventID bits of each device that is mapped.
    devices: Tree,
    /// By DeviceID and EventID.
    events: Tree,
    /// The vCPU of each collection.
    collections: [u8; COLLECTIONS],
}

const fn key(device: RequesterId, event: u16) -> u32 {
    (device.0 as u32) << ID_BITS | event as u32
}

impl Tables {
    /// For so many events altogether.
    pub(super) fn new(events: u16) -> Self {
        Self { devices: Tree::new(events.min(DEVICES)), events: Tree::new(events), collections: [NOBODY; COLLECTIONS] }
    }

    /// How many devices and events are mapped, and how many events there can be.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        (self.devices.len(), self.events.len(), self.events.capacity())
    }

    /// How many bits its EventIDs have, if `device` is mapped.
    pub(super) fn device(&self, device: RequesterId) -> Option<u32> {
        self.devices.get(device.0.into())
    }

    /// Maps a device that has no events yet.
    pub(super) fn map_device(&mut self, device: RequesterId, bits: u32) -> Result<(), Full> {
        self.devices.insert(device.0.into(), bits)
    }

    /// Unmaps it; its events have to be taken first.
    pub(super) fn unmap_device(&mut self, device: RequesterId) {
        self.devices.remove(device.0.into());
    }

    /// Forgets some event of a device. Says whether there was one.
    pub(super) fn forget_event_of(&mut self, device: RequesterId) -> bool {
        let some = self.events.first_like(key(device, 0), ID_BITS);
        some.is_some_and(|(key, _)| self.events.remove(key).is_some())
    }

    /// Forgets some event, or else some device. Says whether there was one.
    pub(super) fn forget_some(&mut self) -> bool {
        let tree = if self.events.len() == 0 { &mut self.devices } else { &mut self.events };
        tree.first_like(0, 0).is_some_and(|(key, _)| tree.remove(key).is_some())
    }

    /// What an event is translated to.
    pub(super) fn event(&self, device: RequesterId, event: u16) -> Option<Translation> {
        self.events.get(key(device, event)).map(Translation::unpack)
    }

    /// Maps an event, instead of what it may be mapped to.
    pub(super) fn map_event(&mut self, device: RequesterId, event: u16, to: Translation) -> Result<(), Full> {
        self.events.insert(key(device, event), to.pack())
    }

    /// Forgets an event: what it was translated to.
    pub(super) fn forget_event(&mut self, device: RequesterId, event: u16) -> Option<Translation> {
        self.events.remove(key(device, event)).map(Translation::unpack)
    }

    /// The vCPU of a collection, if it is mapped.
    pub(super) fn collection(&self, collection: u8) -> Option<u8> {
        self.collections.get(usize::from(collection)).copied().filter(|vcpu| *vcpu != NOBODY)
    }

    /// Unmaps all collections.
    pub(super) fn forget_collections(&mut self) {
        self.collections = [NOBODY; COLLECTIONS];
    }

    /// Maps a collection, or unmaps it.
    pub(super) fn map_collection(&mut self, collection: u8, vcpu: Option<u8>) {
        if let Some(slot) = self.collections.get_mut(usize::from(collection)) {
            *slot = vcpu.unwrap_or(NOBODY);
        }
    }
}

/// The number of a collection, if there can be one.
pub(super) fn collection_number(id: u64) -> Option<u8> {
    u8::try_from(id & 0xffff).ok()
}

/// An EventID, if it has no more bits than there are.
pub(super) fn event_number(id: u64) -> Option<u16> {
    u16::try_from(low(id)).ok()
}
