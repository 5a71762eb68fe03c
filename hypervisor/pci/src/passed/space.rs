//! What of a configuration space is the function's own at every look.
//!
//! Answers for: which bits of the first 256 bytes a guest reads out of the function, and putting them over what it reads otherwise. Does
//! not answer for: which they are ([`super::capabilities`]).

use crate::config::{INTERRUPT_STATUS, SIZE, STATUS};
use types::AccessSize;
use vdev::HostFunction;

/// Bits of the status register that say what has happened (PCI, 6.2.3): written as one to be cleared.
pub(super) const EVENTS: u16 = 0xf900;

/// Which bits are the function's.
pub(super) struct Overlay([u8; SIZE]);

impl Overlay {
    pub(super) fn new() -> Self {
        let mut overlay = Self([0; SIZE]);
        let [low, high] = (EVENTS | u16::from(INTERRUPT_STATUS)).to_le_bytes();
        overlay.see_bits(STATUS, low);
        overlay.see_bits(STATUS.saturating_add(1), high);
        overlay
    }

    /// Everything from `at` on.
    pub(super) fn see_all_behind(&mut self, at: u16) {
        self.0.iter_mut().skip(at.into()).for_each(|mask| *mask = 0xff);
    }

    /// These bytes.
    pub(super) fn see(&mut self, at: u16, length: u16) {
        self.fill(at, length, 0xff);
    }

    /// These bits of a byte.
    pub(super) fn see_bits(&mut self, at: u16, bits: u8) {
        self.fill(at, 1, bits);
    }

    /// None of these bytes.
    pub(super) fn hide(&mut self, at: u16, length: u16) {
        self.fill(at, length, 0);
    }

    fn fill(&mut self, at: u16, length: u16, bits: u8) {
        self.0.iter_mut().skip(at.into()).take(length.into()).for_each(|mask| *mask = bits);
    }

    /// What the guest reads where it would read `own` otherwise.
    pub(super) fn read(&self, function: &dyn HostFunction, at: u16, size: AccessSize, own: u64) -> u64 {
        let length = usize::try_from(size.bytes()).unwrap_or(0);
        let bytes = self.0.iter().skip(at.into()).take(length);
        let mask = bytes.rev().fold(0_u64, |mask, byte| mask << 8 | u64::from(*byte));
        if mask == 0 {
            return own;
        }
        own & !mask | u64::from(function.configuration(at, size, None)) & mask
    }
}

/// What a store of `value` at `at` writes of the register of two bytes at `register`: a mask, and the bits.
pub(super) fn written(at: u16, size: AccessSize, value: u64, register: u16) -> (u16, u16) {
    let (mut mask, mut bits) = (0, 0);
    for (byte, shift) in [(register, 0_u32), (register.saturating_add(1), 8)] {
        let Some(offset) = byte.checked_sub(at).filter(|offset| u64::from(*offset) < size.bytes()) else { continue };
        let [new, ..] = value.wrapping_shr(u32::from(offset).saturating_mul(8)).to_le_bytes();
        mask |= 0xff_u16.wrapping_shl(shift);
        bits |= u16::from(new).wrapping_shl(shift);
    }
    (mask, bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_writes_the_bytes_of_a_register_that_it_covers() {
        assert_eq!(written(4, AccessSize::Word, 0x1234_5678, 4), (0xffff, 0x5678));
        assert_eq!(written(4, AccessSize::Word, 0x1234_5678, 6), (0xffff, 0x1234));
        assert_eq!(written(7, AccessSize::Byte, 0x12, 6), (0xff00, 0x1200));
        assert_eq!(written(6, AccessSize::Byte, 0x12, 6), (0xff, 0x12));
        assert_eq!(written(8, AccessSize::Word, 0x12, 6), (0, 0));
        assert_eq!(written(4, AccessSize::Halfword, 0x12, 6), (0, 0));
    }
}
