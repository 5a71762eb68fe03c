//! The table of a function's messages.
//!
//! Answers for: MSI-X as PCI, 6.8.2 describes it: what is in the table, what is pending, what is masked, what is to be sent when.
//! Does not answer for: sending it ([`crate::Interrupts`]).
//!
//! Table and pending bits have a BAR to themselves, the table in its lower half and the pending bits in the upper one, where no
//! page has both, nor anything else ("6.8.2: strongly recommended").

use crate::config::Flaw;
use crate::function::{Bar, Capability, Messages, Width};
use alloc::boxed::Box;
use alloc::vec;
use types::{AccessSize, Ipa};
use vdev::AccessSizes;

/// Capability ID.
pub(crate) const ID: u8 = 0x11;
/// Bytes of a vector's entry.
pub(crate) const ENTRY: u64 = 16;
/// Most vectors of a function.
const MOST: u16 = 2048;

/// Message control (PCI, 6.8.2.3): bit 15, "MSI-X Enable".
pub(crate) const ENABLE: u16 = 1 << 15;
/// Bit 14, "Function Mask".
pub(crate) const FUNCTION_MASK: u16 = 1 << 14;
/// Vector control (PCI, 6.8.2.9): bit 0, "Mask bit".
const MASK: u32 = 1;

/// A message: what is stored, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: Ipa,
    pub(crate) data: u32,
}

#[derive(Clone, Copy, Debug)]
struct Vector {
    address: u64,
    data: u32,
    control: u32,
    is_pending: bool,
}

/// PCI, 6.8.2.9: after a reset every vector is masked.
const RESET: Vector = Vector { address: 0, data: 0, control: MASK, is_pending: false };

/// The vectors of one function.
#[derive(Debug)]
pub(crate) struct Msix {
    control: u16,
    vectors: Box<[Vector]>,
    /// Bytes of the table's half of the BAR.
    half: u64,
}

impl Msix {
    pub(crate) fn new(messages: Messages) -> Result<Self, Flaw> {
        let count = messages.vectors;
        if count == 0 || count > MOST {
            return Err(Flaw::Vectors(count));
        }
        let half = ENTRY.saturating_mul(count.into()).next_power_of_two().max(types::PAGE_SIZE);
        Ok(Self { control: 0, vectors: vec![RESET; usize::from(count)].into_boxed_slice(), half })
    }

    /// The BAR that table and pending bits are in.
    pub(crate) const fn bar(&self, index: u8) -> Bar {
        // PCI, 6.8.2: accesses to the table and the pending bits are aligned dwords or qwords.
        let sizes = AccessSizes::WORD.union(AccessSizes::DOUBLEWORD);
        Bar { index, size: self.half.saturating_mul(2), width: Width::Bits32, sizes }
    }

    /// The capability that says so.
    pub(crate) fn capability(&self, bar: u8) -> Capability {
        // "Table Size", N - 1; bits 2 to 0 of the offsets are the BAR's number ("BIR").
        let last = u16::try_from(self.vectors.len().saturating_sub(1)).unwrap_or(0);
        let pending = u32::try_from(self.half).unwrap_or(0) | u32::from(bar);
        let body = last.to_le_bytes().into_iter().chain(u32::from(bar).to_le_bytes()).chain(pending.to_le_bytes());
        let writable = (ENABLE | FUNCTION_MASK).to_le_bytes().to_vec();
        Capability { id: ID, body: body.collect(), writable, is_watched: false }
    }

    pub(crate) const fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// What the guest has written to message control.
    pub(crate) const fn set_control(&mut self, control: u16) {
        self.control = control;
    }

    pub(crate) fn reset(&mut self) {
        self.control = 0;
        self.vectors.fill(RESET);
    }

    /// What a load in the BAR finds.
    pub(crate) fn read(&self, offset: u64, size: AccessSize) -> u64 {
        let dword = |offset| u64::from(self.dword(offset));
        match size {
            AccessSize::Doubleword => dword(offset) | dword(offset.saturating_add(4)) << 32,
            _ => dword(offset),
        }
    }

    /// A store there. What can be sent then is for [`Msix::take`].
    pub(crate) fn write(&mut self, offset: u64, size: AccessSize, value: u64) {
        self.set_dword(offset, low(value));
        if size == AccessSize::Doubleword {
            self.set_dword(offset.saturating_add(4), low(value >> 32));
        }
    }

    /// The function has something to say by this vector. One that there is not says nothing.
    pub(crate) fn raise(&mut self, vector: u16) {
        if let Some(vector) = self.vectors.get_mut(usize::from(vector)) {
            vector.is_pending = true;
        }
    }

    /// What vector `vector` is to send now, if it is: PCI, 6.8.2.4 has it stay pending while it is masked, or all are.
    pub(crate) fn take(&mut self, vector: usize) -> Option<Message> {
        if !self.is_enabled() || self.control & FUNCTION_MASK != 0 {
            return None;
        }
        let vector = self.vectors.get_mut(vector).filter(|vector| vector.is_pending && vector.control & MASK == 0)?;
        vector.is_pending = false;
        // 6.8.2.7: a message is stored at a multiple of four bytes.
        Some(Message { address: Ipa(vector.address & !3), data: vector.data })
    }

    /// The message of vector `vector`, unless that is masked by itself.
    pub(crate) fn unmasked(&self, vector: usize) -> Option<Message> {
        let vector = self.vectors.get(vector).filter(|vector| vector.control & MASK == 0)?;
        Some(Message { address: Ipa(vector.address & !3), data: vector.data })
    }

    pub(crate) fn vectors(&self) -> core::ops::Range<usize> {
        0..self.vectors.len()
    }

    /// Which vector a store at `offset` is to, if it is to one.
    pub(crate) fn vector_at(offset: u64) -> usize {
        usize::try_from(offset / ENTRY).unwrap_or(usize::MAX)
    }

    fn dword(&self, offset: u64) -> u32 {
        if let Some(pending) = offset.checked_sub(self.half) {
            let first = usize::try_from(pending / 4).unwrap_or(usize::MAX).saturating_mul(32);
            let bits = self.vectors.iter().skip(first).take(32).zip(0_u32..);
            return bits.fold(0, |word, (vector, bit)| word | u32::from(vector.is_pending).wrapping_shl(bit));
        }
        let Some(vector) = self.vectors.get(Self::vector_at(offset)) else { return 0 };
        match offset & (ENTRY - 1) {
            0x0 => low(vector.address),
            0x4 => low(vector.address >> 32),
            0x8 => vector.data,
            _ => vector.control,
        }
    }

    fn set_dword(&mut self, offset: u64, value: u32) {
        if offset >= self.half {
            // 6.8.2.10: the result of writing pending bits is undefined.
            return;
        }
        let Some(vector) = self.vectors.get_mut(Self::vector_at(offset)) else { return };
        match offset & (ENTRY - 1) {
            0x0 => vector.address = vector.address >> 32 << 32 | u64::from(value),
            0x4 => vector.address = vector.address & 0xffff_ffff | u64::from(value) << 32,
            0x8 => vector.data = value,
            // 6.8.2.9: the other bits are reserved, and are as they were after a reset.
            _ => vector.control = value & MASK,
        }
    }
}

/// Bits 31 to 0.
const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: AccessSize = AccessSize::Word;

    fn table(vectors: u16) -> Msix {
        Msix::new(Messages { bar: 1, vectors }).unwrap()
    }

    fn written(table: &mut Msix, vector: u64, address: u64, data: u64) {
        table.write(vector * 16, AccessSize::Doubleword, address);
        table.write(vector * 16 + 8, WORD, data);
        table.write(vector * 16 + 12, WORD, 0);
    }

    #[test]
    fn the_capability_says_where_table_and_pending_bits_are() {
        let capability = table(3).capability(1);
        assert_eq!((capability.id, capability.body), (0x11, vec![2, 0, 1, 0, 0, 0, 1, 0x10, 0, 0]));
        assert_eq!(capability.writable, [0, 0xc0], "enable and function mask");
        assert_eq!((table(3).bar(1).size, table(2048).bar(1).size), (0x2000, 0x1_0000));
        assert_eq!(Msix::new(Messages { bar: 0, vectors: 0 }).err(), Some(Flaw::Vectors(0)));
        assert_eq!(Msix::new(Messages { bar: 0, vectors: 2049 }).err(), Some(Flaw::Vectors(2049)));
    }

    #[test]
    fn entries_are_read_as_they_were_written_in_both_sizes() {
        let mut table = table(2);
        assert_eq!(table.read(0x1c, WORD), 1, "masked at first");
        table.write(0x10, AccessSize::Doubleword, 0x1_0800_0040);
        table.write(0x18, AccessSize::Doubleword, 0xffff_fffe_0000_0045);
        assert_eq!((table.read(0x10, WORD), table.read(0x14, WORD), table.read(0x18, WORD)), (0x0800_0040, 1, 0x45));
        assert_eq!(table.read(0x1c, WORD), 0, "reserved bits stay zero");
        table.write(0x1c, WORD, 0xffff_ffff);
        assert_eq!(table.read(0x18, AccessSize::Doubleword), 0x1_0000_0045);
        table.write(0x20, WORD, 7);
        table.write(0xffc, WORD, 7);
        assert_eq!((table.read(0x20, WORD), table.read(0xffc, WORD)), (0, 0), "no such vector");
    }

    #[test]
    fn a_message_goes_out_once_when_nothing_masks_it() {
        let mut table = table(2);
        written(&mut table, 1, 0x0800_0043, 0x45);
        table.raise(1);
        assert_eq!(table.take(1), None, "not enabled");
        table.set_control(ENABLE | FUNCTION_MASK);
        assert_eq!(table.take(1), None, "all are masked");
        table.set_control(ENABLE);
        table.write(0x1c, WORD, 1);
        assert_eq!((table.take(1), table.read(0x1000, WORD)), (None, 0b10), "it is masked, and pending");
        table.write(0x1c, WORD, 0);
        assert_eq!(table.take(1), Some(Message { address: Ipa(0x0800_0040), data: 0x45 }), "at a multiple of four");
        assert_eq!((table.take(1), table.read(0x1000, AccessSize::Doubleword)), (None, 0));
        table.raise(2);
        assert_eq!(table.take(2), None, "no such vector");
    }

    #[test]
    fn pending_bits_are_read_only_and_in_order() {
        let mut table = table(70);
        table.raise(0);
        table.raise(33);
        table.raise(69);
        table.write(0x1000, AccessSize::Doubleword, u64::MAX);
        assert_eq!(table.read(0x1000, AccessSize::Doubleword), 1 << 33 | 1);
        assert_eq!((table.read(0x1008, WORD), table.read(0x100c, WORD), table.read(0x1ffc, WORD)), (1 << 5, 0, 0));
        table.reset();
        assert_eq!((table.read(0x1000, AccessSize::Doubleword), table.read(0xc, WORD)), (0, 1));
    }
}
