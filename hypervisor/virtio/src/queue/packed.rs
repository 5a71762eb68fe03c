//! Packed virtqueues (2.8): one ring of descriptors, which the device gives back in place.

use super::descriptor::{Descriptor, Table};
use super::{Layout, MAX_QUEUE_SIZE};
use crate::{Area, Chain, Features, RingError};
use core::sync::atomic::{Ordering, fence};
use types::{AccessSize, Ipa};
use vdev::GuestMemory;

/// `VIRTQ_DESC_F_AVAIL` and `VIRTQ_DESC_F_USED` (2.8.1), and `VIRTQ_DESC_F_WRITE` in a used descriptor (2.8.3).
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const WRITE: u16 = 1 << 1;

/// `RING_EVENT_FLAGS_*` (2.8.10), in bits 17 and 16 of an event suppression structure as one word.
const ENABLE: u64 = 0;
const DISABLE: u64 = 1;
const DESC: u64 = 2;

/// A place in the ring, and the wrap counter when it is come to.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    /// Both sides begin at the first descriptor, with their counters at 1 (2.8.1).
    const START: Self = Self { index: 0, wrap: true };

    /// The one `slots`, at most `size`, further on in a ring of `size`.
    fn after(self, slots: u16, size: u16) -> Self {
        let index = u32::from(self.index).saturating_add(slots.into());
        match u16::try_from(index).ok().filter(|index| *index < size) {
            Some(index) => Self { index, ..self },
            None => {
                let index = u16::try_from(index.saturating_sub(size.into())).unwrap_or(0);
                Self { index, wrap: !self.wrap }
            }
        }
    }

    /// As an event suppression structure has it: bits 14 to 0, and 15.
    fn bits(self) -> u64 {
        u64::from(self.index) | u64::from(self.wrap) << 15
    }
}

#[derive(Debug)]
pub(super) struct Packed {
    ring: Ipa,
    driver_events: Ipa,
    device_events: Ipa,
    size: u16,
    event_index: bool,
    indirect: bool,
    /// Where the next available descriptor is to be.
    available: Place,
    /// Where the next used descriptor goes.
    used: Place,
    /// Descriptors of chains that the device has.
    taken: u16,
    /// Places that have been used since the driver's wishes were last looked at.
    unconsidered: u32,
}

impl Packed {
    pub(super) fn new(features: Features, layout: &Layout) -> Result<Self, RingError> {
        let size = layout.size;
        if size == 0 || size > MAX_QUEUE_SIZE {
            return Err(RingError::Size(size));
        }
        Ok(Self {
            ring: Layout::check(Area::Descriptor, layout.descriptor_area, 16, u64::from(size) << 4)?,
            driver_events: Layout::check(Area::Driver, layout.driver_area, 4, 4)?,
            device_events: Layout::check(Area::Device, layout.device_area, 4, 4)?,
            size,
            event_index: features.contains(Features::EVENT_IDX),
            indirect: features.contains(Features::INDIRECT_DESC),
            available: Place::START,
            used: Place::START,
            taken: 0,
            unconsidered: 0,
        })
    }

    fn at(&self, place: Place) -> Ipa {
        Ipa(self.ring.0.wrapping_add(u64::from(place.index) << 4))
    }

    /// The half of a descriptor that has its flags.
    fn flags(&self, memory: &dyn GuestMemory, place: Place) -> Result<u64, RingError> {
        Ok(memory.load(Ipa(self.at(place).0.wrapping_add(8)), AccessSize::Doubleword)?)
    }

    fn descriptor(&self, memory: &dyn GuestMemory, place: Place, rest: u64) -> Result<Descriptor, RingError> {
        Ok(Descriptor::packed(memory.load(self.at(place), AccessSize::Doubleword)?, rest))
    }

    /// Whether flags are those of an available descriptor, when the driver's wrap counter is that of `available` (2.8.1).
    fn is_available(&self, flags: u16) -> bool {
        (flags & AVAIL != 0) == self.available.wrap && (flags & USED != 0) != self.available.wrap
    }

    pub(super) fn has_more(&mut self, memory: &dyn GuestMemory) -> Result<bool, RingError> {
        let rest = self.flags(memory, self.available)?;
        Ok(self.is_available(Descriptor::packed(0, rest).flags))
    }

    pub(super) fn pop(&mut self, memory: &dyn GuestMemory, chain: &mut Chain) -> Result<bool, RingError> {
        // The address, and the rest of a list, are read after the flags of the first: the load acquires.
        let rest = self.flags(memory, self.available)?;
        if !self.is_available(Descriptor::packed(0, rest).flags) {
            return Ok(false);
        }
        let first = self.descriptor(memory, self.available, rest)?;
        chain.begin(self.size);
        if !first.is_indirect() {
            self.walk(memory, first, chain)?;
        } else if !self.indirect {
            return Err(RingError::IndirectUnwanted);
        } else if first.has_next() {
            return Err(RingError::IndirectLinked);
        } else {
            Table::walk_all(&first, memory, chain)?;
            chain.end(first.link, 1);
        }
        let taken = self.taken.saturating_add(chain.slots());
        if taken > self.size {
            return Err(RingError::Overrun);
        }
        self.taken = taken;
        self.available = self.available.after(chain.slots(), self.size);
        Ok(true)
    }

    /// Adds `first` and those behind it to a chain. It ends at the latest when the chain has as many as the queue.
    fn walk(&self, memory: &dyn GuestMemory, first: Descriptor, chain: &mut Chain) -> Result<(), RingError> {
        let (mut descriptor, mut slots) = (first, 1_u16);
        loop {
            chain.add(&descriptor)?;
            if !descriptor.has_next() {
                // The buffer ID is in the last one (2.8.6).
                chain.end(descriptor.link, slots);
                return Ok(());
            }
            let place = self.available.after(slots, self.size);
            descriptor = self.descriptor(memory, place, self.flags(memory, place)?)?;
            if descriptor.is_indirect() {
                return Err(RingError::IndirectLinked);
            }
            slots = slots.saturating_add(1);
        }
    }

    pub(super) fn push(&mut self, memory: &dyn GuestMemory, chain: &Chain, written: u32) -> Result<(), RingError> {
        let (at, word) = self.put(chain, written);
        // All that the driver may look at in one store, after what has been written to buffers: it releases.
        Ok(memory.store(at, AccessSize::Doubleword, word)?)
    }

    pub(super) fn push_together(
        &mut self,
        memory: &dyn GuestMemory,
        chains: &mut dyn Iterator<Item = &Chain>,
    ) -> Result<(), RingError> {
        let Some(first) = chains.next() else { return Ok(()) };
        // A driver looks at one descriptor after the other, so the first one is written last.
        let (at, word) = self.put(first, first.written());
        for chain in chains {
            self.push(memory, chain, chain.written())?;
        }
        Ok(memory.store(at, AccessSize::Doubleword, word)?)
    }

    /// What goes where for the driver to find a chain, which is the next one used.
    fn put(&mut self, chain: &Chain, written: u32) -> (Ipa, u64) {
        let mut flags = if self.used.wrap { AVAIL | USED } else { 0 };
        if written > 0 {
            flags |= WRITE;
        }
        let word = u64::from(written) | u64::from(chain.id()) << 32 | u64::from(flags) << 48;
        let at = Ipa(self.at(self.used).0.wrapping_add(8));
        self.used = self.used.after(chain.slots(), self.size);
        self.taken = self.taken.saturating_sub(chain.slots());
        self.unconsidered = self.unconsidered.saturating_add(chain.slots().into());
        (at, word)
    }

    pub(super) fn wants_interrupt(&mut self, memory: &dyn GuestMemory) -> Result<bool, RingError> {
        let used = core::mem::take(&mut self.unconsidered);
        if used == 0 {
            return Ok(false);
        }
        // The driver says what it wants and then looks at descriptors, so these have to be there before we look.
        fence(Ordering::SeqCst);
        let wish = memory.load(self.driver_events, AccessSize::Word)?;
        Ok(match wish >> 16 & 3 {
            DISABLE => false,
            DESC if self.event_index => self.has_passed(wish, used),
            _ => true,
        })
    }

    /// Whether the descriptor that an event suppression structure names is among the last `used` ones.
    fn has_passed(&self, wish: u64, used: u32) -> bool {
        let (index, wrap) = (wish & 0x7fff, wish >> 15 & 1 != 0);
        // Distances from the start of the lap before this one.
        let lap = if wrap == self.used.wrap { u64::from(self.size) } else { 0 };
        let event = lap.saturating_add(index);
        let end = u64::from(self.size).saturating_add(self.used.index.into());
        event < end && end.saturating_sub(event) <= used.into()
    }

    /// Tells the driver whether to notify.
    pub(super) fn tell(&self, memory: &dyn GuestMemory, expect: bool) -> Result<(), RingError> {
        let word = match (expect, self.event_index) {
            (false, _) => DISABLE << 16,
            (true, false) => ENABLE << 16,
            (true, true) => DESC << 16 | self.available.bits(),
        };
        Ok(memory.store(self.device_events, AccessSize::Word, word)?)
    }
}
