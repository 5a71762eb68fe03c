//! The driver's side of a virtqueue, for tests.
//!
//! Answers for: what a driver that keeps to the specification writes into a queue's areas and reads there (2.7, 2.8), in both kinds
//! of queue; no test of the device's side shares code with that. Does not answer for: transports. Only tests use it.

use crate::{Features, Layout};
use alloc::{vec, vec::Vec};
use types::{AccessSize, Ipa};
use vdev::GuestMemory;

/// A buffer as a driver offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    /// Where it is.
    pub(crate) address: u64,
    /// Its length in bytes.
    pub(crate) length: u32,
    /// The device writes it.
    pub(crate) writable: bool,
}

/// A driver's side of one queue. Mistakes of a test's own, and memory that is not there, are panics.
#[derive(Debug)]
pub(crate) struct Driver {
    features: Features,
    layout: Layout,
    /// Split: the available index. Packed: the next place, and the wrap counter.
    next: u16,
    wrap: bool,
    /// The same for what has been used.
    next_used: u16,
    used_wrap: bool,
    /// By ID: the places that are taken; none if it is free.
    taken: Vec<u16>,
    free: u16,
    /// Split: descriptors that are free. Packed: IDs.
    spare: Vec<u16>,
    /// Split: the descriptors of a chain, by its head.
    chains: Vec<Vec<u16>>,
    /// What was made available since somebody asked whether to notify.
    fresh: u16,
}

impl Driver {
    /// Where the areas of a queue of `size` are if they lie one behind the other from `at` on, a multiple of 16; and what is
    /// behind them.
    #[must_use]
    pub(crate) fn place(at: u64, size: u16) -> (Layout, u64) {
        let entries = u64::from(size);
        let driver = at + 16 * entries;
        let device = (driver + 2 * entries + 6 + 3) & !3;
        let layout = Layout { size, descriptor_area: Ipa(at), driver_area: Ipa(driver), device_area: Ipa(device) };
        (layout, (device + 8 * entries + 6 + 15) & !15)
    }

    /// A queue that nothing has been put into; its areas are zero.
    #[must_use]
    pub(crate) fn new(features: Features, layout: Layout) -> Self {
        let size = usize::from(layout.size);
        Self {
            features,
            layout,
            next: 0,
            wrap: true,
            next_used: 0,
            used_wrap: true,
            taken: vec![0; size],
            free: layout.size,
            // The highest first, so that order is nothing to rely on.
            spare: (0..layout.size).collect(),
            chains: vec![Vec::new(); size],
            fresh: 0,
        }
    }

    fn is_packed(&self) -> bool {
        self.features.contains(Features::RING_PACKED)
    }

    /// So many places are free.
    #[must_use]
    pub(crate) fn room(&self) -> u16 {
        self.free
    }

    /// Makes a chain available: its ID, or `None` if there is no room. `table` is where an indirect table may be written.
    pub(crate) fn offer(&mut self, memory: &dyn GuestMemory, buffers: &[Offered], table: Option<u64>) -> Option<u16> {
        let slots = if table.is_some() { 1 } else { u16::try_from(buffers.len()).unwrap() };
        if slots > self.free || slots == 0 {
            return None;
        }
        let indirect = table.map(|table| {
            for (index, buffer) in (1_u16..).zip(buffers) {
                let next = usize::from(index) < buffers.len() && !self.is_packed();
                let flags = u16::from(next) | u16::from(buffer.writable) << 1;
                let last = if self.is_packed() { [0, flags] } else { [flags, index] };
                write_descriptor(memory, table + 16 * u64::from(index - 1), buffer, last);
            }
            let length = 16 * u32::try_from(buffers.len()).unwrap();
            // The write flag is to be ignored.
            [Offered { address: table, length, writable: length % 32 == 0 }]
        });
        let flag = if indirect.is_some() { 4 } else { 0 };
        let buffers = indirect.as_ref().map_or(buffers, |one| &one[..]);
        let id = if self.is_packed() {
            self.offer_packed(memory, buffers, flag)
        } else {
            self.offer_split(memory, buffers, flag)
        };
        self.free -= slots;
        self.taken[usize::from(id)] = slots;
        self.fresh = self.fresh.saturating_add(if self.is_packed() { slots } else { 1 });
        Some(id)
    }

    fn offer_split(&mut self, memory: &dyn GuestMemory, buffers: &[Offered], flag: u16) -> u16 {
        let own: Vec<u16> = buffers.iter().map(|_| self.spare.pop().unwrap()).collect();
        for (place, buffer) in buffers.iter().enumerate() {
            let next = own.get(place + 1).copied();
            let flags = u16::from(next.is_some()) | u16::from(buffer.writable) << 1 | flag;
            let at = self.layout.descriptor_area.0 + 16 * u64::from(own[place]);
            write_descriptor(memory, at, buffer, [flags, next.unwrap_or(0xffff)]);
        }
        let head = own[0];
        let available = self.layout.driver_area.0;
        put(memory, available + 4 + 2 * u64::from(self.next % self.layout.size), head);
        self.next = self.next.wrapping_add(1);
        put(memory, available + 2, self.next);
        self.chains[usize::from(head)] = own;
        head
    }

    fn offer_packed(&mut self, memory: &dyn GuestMemory, buffers: &[Offered], flag: u16) -> u16 {
        let id = self.spare.pop().unwrap();
        let mut first = None;
        for (place, buffer) in buffers.iter().enumerate() {
            let at = self.layout.descriptor_area.0 + 16 * u64::from(self.next);
            let mut flags = u16::from(place + 1 < buffers.len()) | u16::from(buffer.writable) << 1 | flag;
            flags |= if self.wrap { 1 << 7 } else { 1 << 15 };
            // The ID counts in the last one only, and the first one's flags come last.
            let own = if place + 1 == buffers.len() { id } else { !id };
            let now = if place == 0 { get(memory, at + 14) } else { flags };
            write_descriptor(memory, at, buffer, [own, now]);
            first.get_or_insert((at + 14, flags));
            self.next += 1;
            if self.next == self.layout.size {
                (self.next, self.wrap) = (0, !self.wrap);
            }
        }
        let (at, flags) = first.unwrap();
        put(memory, at, flags);
        id
    }

    /// The next chain that the device has given back: its ID, and what has been written. The length is `None` if the device says
    /// that nothing has been (packed only).
    pub(crate) fn take_used(&mut self, memory: &dyn GuestMemory) -> Option<(u16, Option<u32>)> {
        let used = self.layout.device_area.0;
        let (id, length) = if self.is_packed() {
            let at = self.layout.descriptor_area.0 + 16 * u64::from(self.next_used);
            let flags = get(memory, at + 14);
            if (flags >> 7 & 1 != 0) != self.used_wrap || (flags >> 15 & 1 != 0) != self.used_wrap {
                return None;
            }
            let length = memory.load(Ipa(at + 8), AccessSize::Word).unwrap() as u32;
            (get(memory, at + 12), (flags & 2 != 0).then_some(length))
        } else {
            if get(memory, used + 2) == self.next_used {
                return None;
            }
            let at = used + 4 + 8 * u64::from(self.next_used % self.layout.size);
            let id = memory.load(Ipa(at), AccessSize::Word).unwrap();
            (u16::try_from(id).unwrap(), Some(memory.load(Ipa(at + 4), AccessSize::Word).unwrap() as u32))
        };
        let slots = core::mem::take(&mut self.taken[usize::from(id)]);
        assert!(slots > 0, "{id} was not available");
        self.free += slots;
        if self.is_packed() {
            self.spare.push(id);
            self.next_used += slots;
            if self.next_used >= self.layout.size {
                (self.next_used, self.used_wrap) = (self.next_used - self.layout.size, !self.used_wrap);
            }
        } else {
            self.spare.append(&mut self.chains[usize::from(id)]);
            self.next_used = self.next_used.wrapping_add(1);
        }
        Some((id, length))
    }

    /// Whether the device wants to be notified of what was made available since this was last asked.
    pub(crate) fn must_notify(&mut self, memory: &dyn GuestMemory) -> bool {
        let fresh = core::mem::take(&mut self.fresh);
        let events = self.features.contains(Features::EVENT_IDX);
        let (device, size) = (self.layout.device_area.0, self.layout.size);
        if fresh == 0 {
            return false;
        }
        if !self.is_packed() {
            assert!(get(memory, device) <= 1 && (!events || get(memory, device) == 0));
            let event = get(memory, device + 4 + 8 * u64::from(size));
            let passed = (1..=fresh).any(|back| self.next.wrapping_sub(back) == event);
            return if events { passed } else { get(memory, device) == 0 };
        }
        match get(memory, device + 2) {
            0 => true,
            1 => false,
            flags => {
                assert!(events && flags == 2);
                let event = get(memory, device);
                self.last_places(self.next, self.wrap, fresh).any(|place| place == event)
            }
        }
    }

    /// The last `count` places before one, as event suppression names them.
    fn last_places(&self, next: u16, wrap: bool, count: u16) -> impl Iterator<Item = u16> {
        let size = self.layout.size;
        (1..=count).map(move |back| match next.checked_sub(back) {
            Some(index) => index | u16::from(wrap) << 15,
            None => (next + size - back) | (u16::from(!wrap) << 15),
        })
    }

    /// Has the device notify of the chain that is used when `ahead` places more (packed) or chains more (split) have been than
    /// this driver has looked at, or of all or none.
    pub(crate) fn want_interrupt(&self, memory: &dyn GuestMemory, wish: Wish) {
        let (driver, size) = (self.layout.driver_area.0, self.layout.size);
        match (wish, self.is_packed()) {
            (Wish::Always, true) => put(memory, driver + 2, 0),
            (Wish::Never, true) => put(memory, driver + 2, 1),
            (Wish::At(ahead), true) => {
                let index = self.next_used + ahead;
                let (index, wrap) =
                    if index < size { (index, self.used_wrap) } else { (index - size, !self.used_wrap) };
                put(memory, driver, index | u16::from(wrap) << 15);
                put(memory, driver + 2, 2);
            }
            (Wish::Always, false) => put(memory, driver, 0),
            (Wish::Never, false) => put(memory, driver, 1),
            (Wish::At(ahead), false) => {
                put(memory, driver + 4 + 2 * u64::from(size), self.next_used.wrapping_add(ahead));
            }
        }
    }
}

/// When a driver wants to be notified.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// Always. In a split queue only without `VIRTIO_F_EVENT_IDX`, like the next.
    Always,
    /// Never.
    Never,
    /// With `VIRTIO_F_EVENT_IDX`.
    At(u16),
}

fn put(memory: &dyn GuestMemory, at: u64, value: u16) {
    memory.store(Ipa(at), AccessSize::Halfword, value.into()).unwrap();
}

fn get(memory: &dyn GuestMemory, at: u64) -> u16 {
    memory.load(Ipa(at), AccessSize::Halfword).unwrap() as u16
}

fn write_descriptor(memory: &dyn GuestMemory, at: u64, buffer: &Offered, last: [u16; 2]) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&buffer.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&buffer.length.to_le_bytes());
    bytes[12..14].copy_from_slice(&last[0].to_le_bytes());
    bytes[14..].copy_from_slice(&last[1].to_le_bytes());
    memory.write(Ipa(at), &bytes).unwrap();
}
