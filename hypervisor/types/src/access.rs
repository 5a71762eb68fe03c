//! Widths of a memory access.

/// How many bytes one load or store moves: what `ISS.SAS` of a data abort encodes (DDI 0487, ESR_ELx, "ISS encoding for
/// an exception from a Data Abort").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AccessSize {
    /// One byte.
    Byte = 0,
    /// Two bytes.
    Halfword = 1,
    /// Four bytes.
    Word = 2,
    /// Eight bytes.
    Doubleword = 3,
}

impl AccessSize {
    /// From the two-bit `SAS` field; higher bits are ignored.
    #[must_use]
    pub const fn from_sas(sas: u64) -> Self {
        match sas & 3 {
            0 => Self::Byte,
            1 => Self::Halfword,
            2 => Self::Word,
            _ => Self::Doubleword,
        }
    }

    /// From a number of bytes: 1, 2, 4 or 8; anything else is `None`.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Halfword),
            4 => Some(Self::Word),
            8 => Some(Self::Doubleword),
            _ => None,
        }
    }

    /// Number of bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self as u8
    }

    /// Number of bits: 8, 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        8 << self as u8
    }

    /// All bits that an access of this size carries.
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Whether `address` is a multiple of this size.
    #[must_use]
    pub const fn is_aligned(self, address: u64) -> bool {
        address & (self.bytes() - 1) == 0
    }

    /// `value`, whose top bit is bit `self.bits() - 1`, extended to 64 bits with its sign.
    #[must_use]
    pub const fn sign_extend(self, value: u64) -> u64 {
        let shift = 64 - self.bits();
        (((value << shift) as i64) >> shift) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::AccessSize;

    #[test]
    fn sizes_agree_with_the_sas_field() {
        for (sas, bytes) in [(0, 1), (1, 2), (2, 4), (3, 8)] {
            let size = AccessSize::from_sas(sas);
            assert_eq!(size.bytes(), bytes);
            assert_eq!(AccessSize::from_bytes(bytes), Some(size));
        }
        assert_eq!(AccessSize::from_bytes(3), None);
        assert_eq!(AccessSize::Byte.mask(), 0xff);
        assert_eq!(AccessSize::Doubleword.mask(), u64::MAX);
    }

    #[test]
    fn sign_extension_copies_the_top_bit_of_the_access() {
        assert_eq!(AccessSize::Byte.sign_extend(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(AccessSize::Halfword.sign_extend(0x7fff), 0x7fff);
        assert_eq!(AccessSize::Word.sign_extend(0x8000_0000), 0xffff_ffff_8000_0000);
        assert_eq!(AccessSize::Doubleword.sign_extend(1 << 63), 1 << 63);
    }
}
