//! Split virtqueues (2.7): a table of descriptors, a ring of those that are available, a ring of those that have been used.

use super::descriptor::{Descriptor, Table, half};
use super::{Layout, MAX_QUEUE_SIZE, is_passed};
use crate::{Area, Chain, Features, RingError};
use core::sync::atomic::{Ordering, fence};
use types::{AccessSize, Ipa};
use vdev::GuestMemory;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`: the driver does not want to be notified.
const NO_INTERRUPT: u64 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`: the device does not want to be notified.
const NO_NOTIFY: u64 = 1;

/// Where in either ring its index is, and where its entries begin; flags are at 0.
const INDEX: u64 = 2;
const ENTRIES: u64 = 4;

/// Indices run from 0 to 65535 and on from 0; the place in a ring is the index modulo the size.
#[derive(Debug)]
pub(super) struct Split {
    descriptors: Ipa,
    available: Ipa,
    used: Ipa,
    size: u16,
    event_index: bool,
    indirect: bool,
    /// The index of the chain that comes next, and the available ring's own as it was last seen.
    next_available: u16,
    seen_available: u16,
    /// The used ring's index, and what it was when the driver's wishes were last looked at.
    next_used: u16,
    considered: u16,
}

impl Split {
    pub(super) fn new(features: Features, layout: &Layout) -> Result<Self, RingError> {
        let size = layout.size;
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(RingError::Size(size));
        }
        let entries = u64::from(size);
        Ok(Self {
            descriptors: Layout::check(Area::Descriptor, layout.descriptor_area, 16, entries << 4)?,
            available: Layout::check(Area::Driver, layout.driver_area, 2, (entries << 1).wrapping_add(6))?,
            used: Layout::check(Area::Device, layout.device_area, 4, (entries << 3).wrapping_add(6))?,
            size,
            event_index: features.contains(Features::EVENT_IDX),
            indirect: features.contains(Features::INDIRECT_DESC),
            next_available: 0,
            seen_available: 0,
            next_used: 0,
            considered: 0,
        })
    }

    /// Where in a ring the entry `index` is, by entries.
    fn place(&self, index: u16) -> u64 {
        u64::from(index & self.size.wrapping_sub(1))
    }

    /// A half-word so many bytes into an area: the areas have been found not to wrap.
    fn load(memory: &dyn GuestMemory, area: Ipa, offset: u64) -> Result<u16, RingError> {
        Ok(half(memory.load(Ipa(area.0.wrapping_add(offset)), AccessSize::Halfword)?))
    }

    fn store(memory: &dyn GuestMemory, area: Ipa, offset: u64, value: u64) -> Result<(), RingError> {
        Ok(memory.store(Ipa(area.0.wrapping_add(offset)), AccessSize::Halfword, value)?)
    }

    /// Looks at the available ring's index. What it covers is read after it: the load acquires.
    pub(super) fn has_more(&mut self, memory: &dyn GuestMemory) -> Result<bool, RingError> {
        let index = Self::load(memory, self.available, INDEX)?;
        let waiting = index.wrapping_sub(self.next_available);
        let taken = self.next_available.wrapping_sub(self.next_used);
        // Those that wait and those that the device has cannot be more than there are descriptors.
        if u32::from(waiting).saturating_add(taken.into()) > self.size.into() {
            return Err(RingError::AvailableIndex(index));
        }
        self.seen_available = index;
        Ok(waiting > 0)
    }

    pub(super) fn pop(&mut self, memory: &dyn GuestMemory, chain: &mut Chain) -> Result<bool, RingError> {
        if self.seen_available == self.next_available && !self.has_more(memory)? {
            return Ok(false);
        }
        let entry = ENTRIES.wrapping_add(self.place(self.next_available) << 1);
        let head = Self::load(memory, self.available, entry)?;
        if head >= self.size {
            return Err(RingError::Head(head));
        }
        chain.begin(self.size);
        self.walk(memory, head, chain)?;
        chain.end(head, 1);
        self.next_available = self.next_available.wrapping_add(1);
        Ok(true)
    }

    /// Adds the descriptors from `head` on to a chain. It ends at the latest when the chain has as many as the queue.
    fn walk(&self, memory: &dyn GuestMemory, head: u16, chain: &mut Chain) -> Result<(), RingError> {
        let mut index = head;
        loop {
            let descriptor = Descriptor::read(memory, Ipa(self.descriptors.0.wrapping_add(u64::from(index) << 4)))?;
            if descriptor.is_indirect() {
                return match (self.indirect, descriptor.has_next()) {
                    (false, _) => Err(RingError::IndirectUnwanted),
                    (true, true) => Err(RingError::IndirectLinked),
                    (true, false) => Table::walk_links(&descriptor, memory, chain),
                };
            }
            chain.add(&descriptor)?;
            match descriptor.next() {
                None => return Ok(()),
                Some(next) if next >= self.size => return Err(RingError::Next(next)),
                Some(next) => index = next,
            }
        }
    }

    pub(super) fn push(&mut self, memory: &dyn GuestMemory, chain: &Chain, written: u32) -> Result<(), RingError> {
        self.put(memory, chain, written)?;
        self.publish(memory)
    }

    pub(super) fn push_together(
        &mut self,
        memory: &dyn GuestMemory,
        chains: &mut dyn Iterator<Item = &Chain>,
    ) -> Result<(), RingError> {
        for chain in chains {
            self.put(memory, chain, chain.written())?;
        }
        self.publish(memory)
    }

    fn put(&mut self, memory: &dyn GuestMemory, chain: &Chain, written: u32) -> Result<(), RingError> {
        let entry = ENTRIES.wrapping_add(self.place(self.next_used) << 3);
        let element = u64::from(chain.id()) | u64::from(written) << 32;
        memory.write(Ipa(self.used.0.wrapping_add(entry)), &element.to_le_bytes())?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    fn publish(&self, memory: &dyn GuestMemory) -> Result<(), RingError> {
        // What has been written to the ring and to buffers is there before the index is: the store releases.
        Self::store(memory, self.used, INDEX, self.next_used.into())
    }

    pub(super) fn wants_interrupt(&mut self, memory: &dyn GuestMemory) -> Result<bool, RingError> {
        let (old, new) = (self.considered, self.next_used);
        if old == new {
            return Ok(false);
        }
        self.considered = new;
        // The driver says what it wants and then looks at the index, so the index has to be there before we look (2.7.7).
        fence(Ordering::SeqCst);
        if self.event_index {
            let event = ENTRIES.wrapping_add(u64::from(self.size) << 1);
            Ok(is_passed(Self::load(memory, self.available, event)?, new, old))
        } else {
            Ok(u64::from(Self::load(memory, self.available, 0)?) & NO_INTERRUPT == 0)
        }
    }

    /// Tells the driver whether to notify.
    pub(super) fn tell(&self, memory: &dyn GuestMemory, expect: bool) -> Result<(), RingError> {
        if !self.event_index {
            Self::store(memory, self.used, 0, if expect { 0 } else { NO_NOTIFY })
        } else if expect {
            let event = ENTRIES.wrapping_add(u64::from(self.size) << 3);
            Self::store(memory, self.used, event, self.next_available.into())
        } else {
            // The driver passes the index that it was to notify at, and does so no more.
            Ok(())
        }
    }
}
