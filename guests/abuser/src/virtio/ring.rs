//! Virtqueues from the driver's side, split (2.7) and packed (2.8), with nothing that would hold a driver from breaking rules.
//!
//! Answers for: where a queue's parts are, buffers offered as they should be, and each field as it should not be. Does not answer
//! for: telling the device (`driver`).

use guest_rt::mmio::Width;
use guest_rt::registers::dsb;

use super::arena;
use super::transport::Area;

/// Descriptor flags (2.7.5, 2.8.1).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Where a queue's parts are in its place.
const DRIVER: usize = 0x1800;
const DEVICE: usize = 0x2800;
/// Most entries that there is room for.
pub(crate) const MOST: u16 = 256;

/// A part of a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) is_writable: bool,
}

impl Part {
    /// Bytes of the arena that the device is to read.
    pub(crate) fn readable(at: usize, length: u32) -> Self {
        Self { address: arena::address(at), length, is_writable: false }
    }

    /// Bytes of the arena that it may write.
    pub(crate) fn writable(at: usize, length: u32) -> Self {
        arena::offer(at..at + length as usize);
        Self { address: arena::address(at), length, is_writable: true }
    }

    pub(crate) fn flags(self) -> u16 {
        if self.is_writable { WRITE } else { 0 }
    }
}

/// A queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    base: usize,
    pub(crate) size: u16,
    is_packed: bool,
    /// Split: the available ring's index, and the next descriptor. Packed: the next place, and its wrap counter.
    available: u16,
    descriptor: u16,
    wrap: bool,
    /// The next used one, likewise.
    used: u16,
    used_wrap: bool,
}

impl Ring {
    /// An empty one in the arena's place of this number.
    pub(crate) fn new(number: usize, size: u16, is_packed: bool) -> Self {
        let ring = Self {
            base: arena::queue(number),
            size,
            is_packed,
            available: 0,
            descriptor: 0,
            wrap: true,
            used: 0,
            used_wrap: true,
        };
        let entries = usize::from(size.min(MOST));
        arena::fill(ring.base..ring.base + 16 * entries, 0);
        arena::fill(ring.at(Area::Driver, 0)..ring.at(Area::Driver, 6 + 2 * entries), 0);
        arena::fill(ring.at(Area::Device, 0)..ring.at(Area::Device, 6 + 8 * entries), 0);
        // What a device writes: the used ring; the descriptors themselves, and the structure that says what it wants to hear of.
        if is_packed {
            arena::offer(ring.base..ring.base + 16 * entries);
            arena::offer(ring.at(Area::Device, 0)..ring.at(Area::Device, 4));
        } else {
            arena::offer(ring.at(Area::Device, 0)..ring.at(Area::Device, 6 + 8 * entries));
        }
        ring
    }

    /// A place in one of its parts.
    pub(crate) fn at(&self, area: Area, offset: usize) -> usize {
        let part = match area {
            Area::Descriptor => 0,
            Area::Driver => DRIVER,
            Area::Device => DEVICE,
        };
        self.base + part + offset
    }

    /// Where a part is to be for the device.
    pub(crate) fn address(&self, area: Area) -> u64 {
        arena::address(self.at(area, 0))
    }

    /// Where the next buffer's first descriptor will be.
    pub(crate) fn next(&self) -> u16 {
        if self.is_packed { self.available } else { self.descriptor }
    }

    /// Makes a buffer of these parts available as it has to be.
    pub(crate) fn add(&mut self, parts: &[Part]) {
        let first = self.next();
        if self.is_packed {
            self.add_packed(parts);
        } else {
            for (number, part) in (0..).zip(parts) {
                let is_last = usize::from(number) + 1 == parts.len();
                let index = (first + number) % self.size;
                let flags = part.flags() | if is_last { 0 } else { NEXT };
                self.describe(index, part, flags, (index + 1) % self.size);
            }
            self.descriptor = (first + parts.len() as u16) % self.size;
            self.offer(first);
        }
    }

    /// A split queue's descriptor, of whatever.
    pub(crate) fn describe(&self, index: u16, part: &Part, flags: u16, next: u16) {
        let at = self.at(Area::Descriptor, 16 * usize::from(index));
        table_entry(at, part, flags, next);
    }

    /// Puts a descriptor, or something else, into the available ring, and then moves the index on.
    pub(crate) fn offer(&mut self, head: u16) {
        self.offer_silently(head);
        self.set_index(self.available);
    }

    /// The same, but for the index in memory.
    pub(crate) fn offer_silently(&mut self, head: u16) {
        let entry = 4 + 2 * usize::from(self.available % self.size);
        arena::write(self.at(Area::Driver, entry), Width::Halfword, head.into());
        self.available = self.available.wrapping_add(1);
    }

    /// What the available ring's index would be if all were right.
    pub(crate) const fn index(&self) -> u16 {
        self.available
    }

    /// Writes the available ring's index.
    pub(crate) fn set_index(&self, index: u16) {
        dsb();
        arena::write(self.at(Area::Driver, 2), Width::Halfword, index.into());
        dsb();
    }

    /// The flags of an available descriptor at the next place, or so many behind it.
    pub(crate) fn packed_flags(&self, behind: u16) -> u16 {
        let wrap = self.wrap != (self.available + behind >= self.size);
        if wrap { AVAIL } else { USED }
    }

    /// A packed queue's descriptor, of whatever; its flags come last.
    pub(crate) fn place(&self, index: u16, part: &Part, id: u16, flags: u16) {
        let at = self.at(Area::Descriptor, 16 * usize::from(index));
        arena::write(at, Width::Doubleword, part.address);
        arena::write(at + 8, Width::Word, part.length.into());
        arena::write(at + 12, Width::Halfword, id.into());
        dsb();
        arena::write(at + 14, Width::Halfword, flags.into());
        dsb();
    }

    /// Goes on so many places in a packed queue.
    pub(crate) fn advance(&mut self, places: u16) {
        self.available += places;
        if self.available >= self.size {
            self.available -= self.size;
            self.wrap = !self.wrap;
        }
    }

    fn add_packed(&mut self, parts: &[Part]) {
        let count = parts.len() as u16;
        // The first one last (2.8.17).
        for (behind, part) in (0..count).zip(parts).rev() {
            let index = (self.available + behind) % self.size;
            let more = if behind + 1 == count { 0 } else { NEXT };
            self.place(index, part, count, part.flags() | more | self.packed_flags(behind));
        }
        self.advance(count);
    }

    /// The next used buffer: what it is known by, and how much has been written. In a packed queue that is how many places it takes.
    pub(crate) fn take(&mut self) -> Option<(u32, u32)> {
        if self.is_packed {
            let at = self.at(Area::Descriptor, 16 * usize::from(self.used));
            let flags = arena::read(at + 14, Width::Halfword) as u16;
            if (flags & AVAIL != 0) != self.used_wrap || (flags & USED != 0) != self.used_wrap {
                return None;
            }
            dsb();
            let id = arena::read(at + 12, Width::Halfword) as u16;
            self.used += id.clamp(1, self.size);
            if self.used >= self.size {
                self.used -= self.size;
                self.used_wrap = !self.used_wrap;
            }
            return Some((id.into(), arena::read(at + 8, Width::Word) as u32));
        }
        if arena::read(self.at(Area::Device, 2), Width::Halfword) as u16 == self.used {
            return None;
        }
        dsb();
        let entry = self.at(Area::Device, 4 + 8 * usize::from(self.used % self.size));
        self.used = self.used.wrapping_add(1);
        Some((arena::read(entry, Width::Word) as u32, arena::read(entry + 4, Width::Word) as u32))
    }
}

/// A descriptor of a split queue, or of an indirect table.
pub(crate) fn table_entry(at: usize, part: &Part, flags: u16, next: u16) {
    arena::write(at, Width::Doubleword, part.address);
    arena::write(at + 8, Width::Word, part.length.into());
    arena::write(at + 12, Width::Halfword, flags.into());
    arena::write(at + 14, Width::Halfword, next.into());
}
