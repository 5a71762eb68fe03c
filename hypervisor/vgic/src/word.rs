//! Words of 32 interrupts, one bit each, as the registers of the architecture have them.
//!
//! Answers for: single bits, walking set bits, cutting a guest's 64-bit value to a word. Nothing here can overflow.

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
