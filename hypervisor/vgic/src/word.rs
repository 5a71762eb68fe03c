//! Words of 32 interrupts, one bit each, as the registers of the architecture have them.
//!
//! Answers for: single bits, walking set bits, cutting a guest's 64-bit value to a word, and putting one together. Nothing here can overflow.

use types::AccessSize;

/// Bit `index` of a word; `index` counts modulo 32.
#[inline(always)]
pub(crate) const fn bit(index: u32) -> u32 {
    1_u32.wrapping_shl(index)
}

/// The low 32 bits of `value`.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Cutting is what it is for.
pub(crate) const fn low(value: u64) -> u32 {
    value as u32
}

/// The low 8 bits of `value`.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Cutting is what it is for.
pub(crate) const fn low_byte(value: u64) -> u8 {
    value as u8
}

/// A doubleword register after a write of `value` at `offset`: of all of it, or of one half.
pub(crate) const fn merge(before: u64, offset: u64, size: AccessSize, value: u64) -> u64 {
    match (size, offset & 7) {
        (AccessSize::Doubleword, 0) => value,
        (AccessSize::Word, 0) => (before & !0xffff_ffff) | low(value) as u64,
        (AccessSize::Word, 4) => (before & 0xffff_ffff) | value.wrapping_shl(32),
        _ => before,
    }
}

/// What a read at `offset` of a doubleword register shows: all of it, or one half. Nothing of other sizes.
pub(crate) const fn part(value: u64, offset: u64, size: AccessSize) -> u64 {
    match (size, offset & 7) {
        (AccessSize::Doubleword, 0) => value,
        (AccessSize::Word, 0) => low(value) as u64,
        (AccessSize::Word, 4) => value.wrapping_shr(32),
        _ => 0,
    }
}

/// All ones if `condition`, else zero.
#[inline(always)]
pub(crate) const fn all_if(condition: bool) -> u32 {
    if condition { u32::MAX } else { 0 }
}

/// Takes as many of the set bits of `free` as `wanted` has; `None` if there are not so many. (Usually one of a few: this
/// target has no instruction to count bits.)
#[inline(always)]
pub(crate) const fn allot(mut free: u32, mut wanted: u32) -> Option<u32> {
    while wanted != 0 {
        if free == 0 {
            return None;
        }
        wanted &= wanted.wrapping_sub(1);
        free &= free.wrapping_sub(1);
    }
    Some(free)
}

/// The positions of the set bits of a word, lowest first: at most 32 steps.
pub(crate) struct Ones(pub(crate) u32);

impl Iterator for Ones {
    type Item = u32;

    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let position = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        Some(position)
    }
}

/// `value` with its lower 16 bits moved to the odd positions: how `ICFGR` spreads one bit per interrupt over two.
pub(crate) const fn spread(value: u32) -> u32 {
    let mut spread = value & 0xffff;
    spread = (spread | spread.wrapping_shl(8)) & 0x00ff_00ff;
    spread = (spread | spread.wrapping_shl(4)) & 0x0f0f_0f0f;
    spread = (spread | spread.wrapping_shl(2)) & 0x3333_3333;
    spread = (spread | spread.wrapping_shl(1)) & 0x5555_5555;
    spread.wrapping_shl(1)
}

/// The inverse of [`spread`]: the odd bits, packed into the lower 16.
pub(crate) const fn gather(value: u32) -> u32 {
    let mut packed = value.wrapping_shr(1) & 0x5555_5555;
    packed = (packed | packed.wrapping_shr(1)) & 0x3333_3333;
    packed = (packed | packed.wrapping_shr(2)) & 0x0f0f_0f0f;
    packed = (packed | packed.wrapping_shr(4)) & 0x00ff_00ff;
    (packed | packed.wrapping_shr(8)) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreading_puts_each_bit_on_the_odd_position_of_its_pair() {
        for index in 0..16 {
            assert_eq!(spread(bit(index)), bit(2 * index + 1));
            assert_eq!(gather(bit(2 * index + 1)), bit(index));
            assert_eq!(gather(bit(2 * index)), 0);
        }
        assert_eq!(spread(0xffff), 0xaaaa_aaaa);
        assert_eq!(gather(u32::MAX), 0xffff);
    }

    #[test]
    fn doubleword_registers_are_reached_by_halves_too() {
        const VALUE: u64 = 0x0123_4567_89ab_cdef;
        let both = merge(merge(0, 0x70, AccessSize::Word, VALUE), 0x74, AccessSize::Word, VALUE >> 32);
        assert_eq!((both, merge(0, 0x70, AccessSize::Doubleword, VALUE)), (VALUE, VALUE));
        assert_eq!(
            (merge(VALUE, 0x70, AccessSize::Halfword, 1), merge(VALUE, 0x72, AccessSize::Word, 1)),
            (VALUE, VALUE)
        );
        assert_eq!(
            (part(VALUE, 0x70, AccessSize::Word), part(VALUE, 0x74, AccessSize::Word)),
            (VALUE & u64::from(u32::MAX), VALUE >> 32)
        );
        assert_eq!((part(VALUE, 0x70, AccessSize::Doubleword), part(VALUE, 0x70, AccessSize::Byte)), (VALUE, 0));
    }

    #[test]
    fn one_free_bit_is_taken_for_each_that_is_wanted() {
        assert_eq!(allot(0b1011, 0), Some(0b1011));
        assert_eq!(allot(0b1011, 0x8000_0100), Some(0b1000));
        assert_eq!(allot(0b1011, 0b111), Some(0));
        assert_eq!(allot(0b1011, 0b1111), None);
    }

    #[test]
    fn ones_come_lowest_first() {
        assert!(Ones(0x8000_0005).eq([0, 2, 31]));
        assert!(Ones(0).next().is_none());
    }
}
