//! Fields within 64-bit words.

/// Bits `low` to `high`, both included, of a word.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    low: u32,
    high: u32,
}

impl Field {
    /// One bit.
    pub(crate) const fn bit(bit: u32) -> Self {
        Self { low: bit, high: bit }
    }

    /// Bits `high` to `low`, as the specification writes them; the bits of a structure's word `n` are those of the
    /// structure minus 64 times `n`.
    pub(crate) const fn bits(high: u32, low: u32) -> Self {
        Self { low, high }
    }

    /// Where its bits stand in the word.
    pub(crate) const fn mask(self) -> u64 {
        (u64::MAX >> (63_u32.saturating_sub(self.high))) & (u64::MAX << self.low)
    }

    /// Its value in `word`.
    pub(crate) const fn get(self, word: u64) -> u64 {
        (word & self.mask()) >> self.low
    }

    /// Whether any of its bits is set in `word`.
    pub(crate) const fn is_set(self, word: u64) -> bool {
        word & self.mask() != 0
    }

    /// A word with this value in it and nothing else; what does not fit is cut off.
    pub(crate) const fn of(self, value: u64) -> u64 {
        (value << self.low) & self.mask()
    }

    /// Its value in `word`, if it has at most 32 bits.
    pub(crate) fn get32(self, word: u64) -> u32 {
        u32::try_from(self.get(word)).unwrap_or(u32::MAX)
    }

    /// Its value in `word`, if it has at most 16 bits.
    pub(crate) fn get16(self, word: u64) -> u16 {
        u16::try_from(self.get(word)).unwrap_or(u16::MAX)
    }

    /// Its value in `word`, if it has at most 8 bits.
    pub(crate) fn get8(self, word: u64) -> u8 {
        u8::try_from(self.get(word)).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_to_their_bits() {
        let field = Field::bits(55, 6);
        assert_eq!(field.mask(), 0x00ff_ffff_ffff_ffc0);
        assert_eq!(field.get(u64::MAX), (1 << 50) - 1);
        assert_eq!(Field::bits(2, 1).of(7), 6, "what does not fit does not reach the neighbours");
        assert_eq!(Field::bits(63, 0).of(u64::MAX), u64::MAX);
        assert_eq!((Field::bit(63).mask(), Field::bit(0).get(3)), (1 << 63, 1));
    }
}
