//! Messages of a function of the machine.
//!
//! Answers for: MSI (PCI, 6.8.1) and MSI-X (6.8.2) as the guest programs them, and what the function itself is programmed with instead: where
//! messages go, and as what, is the host's to say. Masks are the guest's, and the function's to keep: what is pending stays pending there.
//! Does not answer for: how a message reaches the guest ([`vdev::HostFunction::message`]).

use crate::ConfigSpace;
use crate::config::Flaw;
use crate::function::Messages;
use crate::msix::{ENTRY, Msix};
use alloc::vec::Vec;
use types::{AccessSize, Ipa, PAGE_SIZE, RequesterId};
use vdev::HostFunction;

/// MSI, message control (PCI, 6.8.1.3): "MSI Enable", "Multiple Message Capable", "… Enable", "64 bit Address Capable", "Per-vector Masking".
const ENABLE: u16 = 1;
const CAPABLE_SHIFT: u32 = 1;
const ENABLED_SHIFT: u32 = 4;
const IS_64_BIT: u16 = 1 << 7;
const HAS_MASKS: u16 = 1 << 8;

/// A function's MSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Msi {
    at: u16,
    has_masks: bool,
    is_64_bit: bool,
    /// As in message control: so many messages are two to the power of this.
    capable: u16,
}

impl Msi {
    /// That at `at`, with this message control, of which `most` messages can reach the guest.
    pub(super) fn new(at: u16, control: u16, most: u16) -> Self {
        // 6.8.1.3: 32 messages at most; two codes are reserved.
        let capable = (control >> CAPABLE_SHIFT & 7).min(5);
        let capable = capable.min(u16::try_from(most.checked_ilog2().unwrap_or(0)).unwrap_or(0));
        Self { at, has_masks: control & HAS_MASKS != 0, is_64_bit: control & IS_64_BIT != 0, capable }
    }

    /// The doorbell may be anywhere: a function that has 32 bits for it may not reach it.
    pub(super) fn filter_usable(self, most: u16) -> Option<Self> {
        (self.is_64_bit && most > 0).then_some(self)
    }

    /// Bytes of the capability.
    pub(super) const fn length(&self) -> u16 {
        match (self.is_64_bit, self.has_masks) {
            (false, false) => 0xa,
            (true, false) => 0xe,
            (false, true) => 0x14,
            (true, true) => 0x18,
        }
    }

    const fn data(&self) -> u16 {
        self.at.saturating_add(if self.is_64_bit { 0xc } else { 8 })
    }

    /// Where masks and pending bits are, and how many bytes.
    pub(super) fn masks(&self) -> Option<(u16, u16)> {
        self.has_masks.then(|| (self.data().saturating_add(4), 8))
    }

    /// What the guest finds behind ID and next pointer, and what of it it can write.
    pub(super) fn layout(&self) -> (Vec<u8>, Vec<u8>) {
        let mut control = self.capable.wrapping_shl(CAPABLE_SHIFT);
        control |= if self.is_64_bit { IS_64_BIT } else { 0 } | if self.has_masks { HAS_MASKS } else { 0 };
        let mut body = control.to_le_bytes().to_vec();
        body.resize(usize::from(self.length().saturating_sub(2)), 0);
        let mut writable = (ENABLE | 7_u16.wrapping_shl(ENABLED_SHIFT)).to_le_bytes().to_vec();
        writable.extend(0xffff_fffc_u32.to_le_bytes());
        if self.is_64_bit {
            writable.extend([0xff; 4]);
        }
        writable.extend([0xff; 2]);
        (body, writable)
    }

    pub(super) fn has(&self, at: u16) -> bool {
        (self.at..self.at.saturating_add(self.length())).contains(&at)
    }

    pub(super) fn is_enabled(&self, space: &ConfigSpace) -> bool {
        self.control(space) & ENABLE != 0
    }

    fn control(&self, space: &ConfigSpace) -> u16 {
        halfword(space.read(self.at.saturating_add(2), AccessSize::Halfword))
    }

    /// Programs the function after what the guest has written.
    pub(super) fn settle(&self, space: &ConfigSpace, from: RequesterId, function: &dyn HostFunction) {
        let control_at = self.at.saturating_add(2);
        let put = |at, size, value| function.configuration(at, size, Some(value));
        // Nothing is sent while address and data do not belong together.
        put(control_at, AccessSize::Halfword, 0);
        let control = self.control(space);
        if control & ENABLE == 0 {
            return;
        }
        let order = (control >> ENABLED_SHIFT & 7).min(self.capable);
        let low = space.read(self.at.saturating_add(4), AccessSize::Word) & !3;
        let high = if self.is_64_bit { space.read(self.at.saturating_add(8), AccessSize::Word) } else { 0 };
        let data = halfword(space.read(self.data(), AccessSize::Halfword));
        let count = 1_u16.wrapping_shl(order.into());
        let mut first = None;
        for vector in 0..count {
            // 6.8.1.6: the function changes as many low bits of the data as it takes.
            let data = data & !count.wrapping_sub(1) | vector;
            let told = function.message(vector, (from, Ipa(high << 32 | low), data.into()));
            first = first.or(told);
        }
        let Some((address, data)) = first else { return };
        put(self.at.saturating_add(4), AccessSize::Word, dword(address));
        if self.is_64_bit {
            put(self.at.saturating_add(8), AccessSize::Word, dword(address >> 32));
        } else if address >> 32 != 0 {
            return;
        }
        put(self.data(), AccessSize::Halfword, data & 0xffff);
        put(control_at, AccessSize::Halfword, u32::from(ENABLE | order.wrapping_shl(ENABLED_SHIFT)));
    }

    /// The guest has written something of it. Masks are the function's own, pending bits are not written, and for neither it is switched off: what
    /// happens while "MSI Enable" is zero is lost (6.8.1.3).
    pub(super) fn write(
        &self,
        (at, size, value): (u16, AccessSize, u64),
        space: &ConfigSpace,
        from: RequesterId,
        function: &dyn HostFunction,
    ) {
        let behind = self.masks().and_then(|(masks, _)| at.checked_sub(masks));
        match behind {
            Some(0..4) => _ = function.configuration(at, size, Some(dword(value))),
            Some(_) => {}
            None => self.settle(space, from, function),
        }
    }
}

/// A function's table of messages, and where it is.
#[derive(Debug)]
pub(super) struct Table {
    /// Message control.
    pub(super) control_at: u16,
    bar: u8,
    offset: u64,
    /// Bytes of the function's own, of which the guest may have fewer.
    length: u64,
    pending: (u8, u64, u64),
    entries: Msix,
}

impl Table {
    /// Of a capability at `at`, with what is in it (PCI, 6.8.2.3 to 6.8.2.5). `sizes` says how large each region is.
    pub(super) fn new(
        (at, control, table, pending): (u16, u16, u32, u32),
        most: u16,
        size_of: impl Fn(u8) -> u64,
    ) -> Result<Option<Self>, Flaw> {
        let vectors = (control & 0x7ff).saturating_add(1);
        let place = |word: u32| (u8::try_from(word & 7).unwrap_or(u8::MAX), u64::from(word & !7));
        let ((bar, offset), (pending_bar, pending_offset)) = (place(table), place(pending));
        let length = ENTRY.saturating_mul(vectors.into());
        let pending_length = u64::from(vectors.div_ceil(64)).saturating_mul(8);
        let is_inside = |bar, offset: u64, length| offset.checked_add(length).is_some_and(|end| end <= size_of(bar));
        if !is_inside(bar, offset, length) || !is_inside(pending_bar, pending_offset, pending_length) {
            return Ok(None);
        }
        let entries = Msix::new(Messages { bar, vectors: vectors.min(most) })?;
        let pending = (pending_bar, pending_offset, pending_length);
        Ok(Some(Self { control_at: at.saturating_add(2), bar, offset, length, pending, entries }))
    }

    /// The pages of a region that the guest does not reach by itself: the first byte, and the first behind.
    pub(super) fn pages(&self, bar: u8) -> [(u64, u64); 2] {
        let (pending_bar, pending, pending_length) = self.pending;
        let whole = |of: u8, offset: u64, length: u64| {
            let end = offset.saturating_add(length).checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
            if of == bar { (offset & !PAGE_SIZE.wrapping_sub(1), end) } else { (0, 0) }
        };
        [whole(self.bar, self.offset, self.length), whole(pending_bar, pending, pending_length)]
    }

    /// Where in the table it is.
    pub(super) fn find(&self, bar: u8, offset: u64) -> Option<u64> {
        offset.checked_sub(self.offset).filter(|within| bar == self.bar && *within < self.length)
    }

    pub(super) fn has_pending(&self, bar: u8, offset: u64) -> bool {
        let (own, start, length) = self.pending;
        bar == own && offset.checked_sub(start).is_some_and(|within| within < length)
    }

    /// What the guest finds. Behind its vectors there is nothing.
    pub(super) fn read(&self, within: u64, size: AccessSize) -> u64 {
        if self.entries.vectors().contains(&Msix::vector_at(within)) { self.entries.read(within, size) } else { 0 }
    }

    pub(super) fn write(
        &mut self,
        (within, size, value): (u64, AccessSize, u64),
        from: RequesterId,
        function: &dyn HostFunction,
    ) {
        let vector = Msix::vector_at(within);
        if self.entries.vectors().contains(&vector) {
            self.entries.write(within, size, value);
            self.settle(vector, from, function);
        }
    }

    pub(super) const fn is_enabled(&self) -> bool {
        self.entries.is_enabled()
    }

    /// Message control, after the guest has written it, or after a reset.
    pub(super) fn set_control(&mut self, control: u16, function: &dyn HostFunction) {
        self.entries.set_control(control);
        let control = control & (crate::msix::ENABLE | crate::msix::FUNCTION_MASK);
        function.configuration(self.control_at, AccessSize::Halfword, Some(control.into()));
    }

    /// As after a reset, the guest's and the function's.
    pub(super) fn reset(&mut self, function: &dyn HostFunction) {
        self.entries.reset();
        self.set_control(0, function);
        // Of the function's own table no entry is to be used that was not written since.
        let count = usize::try_from(self.length / ENTRY).unwrap_or(0);
        (0..count).for_each(|vector| self.mask(vector, function));
    }

    /// The function's own table, after a reset, is again as the guest's says.
    pub(super) fn restore(&self, from: RequesterId, function: &dyn HostFunction) {
        let count = usize::try_from(self.length / ENTRY).unwrap_or(0);
        (0..count).for_each(|vector| self.settle(vector, from, function));
    }

    /// Programs a vector of the function: first where it goes, then that it may.
    fn settle(&self, vector: usize, from: RequesterId, function: &dyn HostFunction) {
        let told = self.entries.unmasked(vector).and_then(|message| {
            let number = u16::try_from(vector).ok()?;
            function.message(number, (from, message.address, message.data))
        });
        self.mask(vector, function);
        let Some((address, data)) = told else { return };
        self.put(vector, 0, dword(address), function);
        self.put(vector, 4, dword(address >> 32), function);
        self.put(vector, 8, data, function);
        self.put(vector, 12, 0, function);
    }

    fn mask(&self, vector: usize, function: &dyn HostFunction) {
        self.put(vector, 12, 1, function);
    }

    fn put(&self, vector: usize, register: u64, value: u32, function: &dyn HostFunction) {
        let entry = u64::try_from(vector).unwrap_or(u64::MAX).saturating_mul(ENTRY);
        let offset = self.offset.saturating_add(entry).saturating_add(register);
        // 6.8.2: it takes dwords there. One that does not sends nothing, or what confines it refuses.
        let _ = function.registers(self.bar, offset, AccessSize::Word, Some(value.into()));
    }
}

/// Bits 31 to 0.
const fn dword(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Bits 15 to 0.
const fn halfword(value: u64) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_msi_depends_on_what_it_has() {
        for (control, length) in [(0, 0xa), (1 << 7, 0xe), (1 << 8, 0x14), (3 << 7, 0x18)] {
            let msi = Msi::new(0x50, control, 1);
            assert_eq!(msi.length(), length);
            let (body, writable) = msi.layout();
            assert!(body.len() == usize::from(length) - 2 && writable.len() <= body.len());
        }
        assert_eq!(Msi::new(0x50, 0x7 << 1, 256).capable, 5, "reserved codes");
        assert_eq!(Msi::new(0x50, 0x3 << 1, 5).capable, 2, "no more than can be had");
        assert_eq!(Msi::new(0x50, 0, 1).filter_usable(1), None, "32 bits");
    }

    #[test]
    fn a_table_is_inside_its_region() {
        let sizes = |bar| if bar == 4 { 0x4000 } else { 0 };
        let table = |control, table, pending| Table::new((0x70, control, table, pending), 256, sizes).unwrap();
        let good = table(63, 0x2004, 0x3004).unwrap();
        assert_eq!(good.pages(4), [(0x2000, 0x3000), (0x3000, 0x4000)]);
        assert_eq!(good.pages(0), [(0, 0); 2]);
        assert!(table(1023, 4, 4).is_some());
        assert!(table(1024, 4, 4).is_none());
        assert!(table(0, 0x4004, 4).is_none() && table(0, 4, 0x4004).is_none() && table(0, 5, 4).is_none());
    }
}
