//! How many bits of physical address the machine has.
//!
//! Answers for: the field `ID_AA64MMFR0_EL1.PARange` and what of it the 4 KiB granule can use (DDI 0487, D8.1.7
//! "Output address size"). Does not answer for: reading the register (`el2`).

/// The physical address size of a machine, as far as these tables can use it: 48 bits at most, since more needs FEAT_LPA2.
/// A cluster of different cores uses the smallest of theirs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum PaRange {
    /// 4 GiB.
    Bits32 = 0,
    /// 64 GiB.
    Bits36 = 1,
    /// 1 TiB.
    Bits40 = 2,
    /// 4 TiB.
    Bits42 = 3,
    /// 16 TiB.
    Bits44 = 4,
    /// 256 TiB.
    Bits48 = 5,
}

impl PaRange {
    /// From a value of `ID_AA64MMFR0_EL1` (`PARange` is bits 3:0). Sizes above 48 bits count as 48.
    #[must_use]
    pub const fn from_id_aa64mmfr0(register: u64) -> Self {
        match register & 0xf {
            0 => Self::Bits32,
            1 => Self::Bits36,
            2 => Self::Bits40,
            3 => Self::Bits42,
            4 => Self::Bits44,
            _ => Self::Bits48,
        }
    }

    /// Number of address bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits32 => 32,
            Self::Bits36 => 36,
            Self::Bits40 => 40,
            Self::Bits42 => 42,
            Self::Bits44 => 44,
            Self::Bits48 => 48,
        }
    }

    /// The `PS` field of `TCR_EL2` and `VTCR_EL2`, not shifted.
    pub(crate) const fn ps(self) -> u64 {
        self as u64
    }
}

#[cfg(test)]
mod tests {
    use super::PaRange;

    #[test]
    fn the_field_is_read_from_bits_3_to_0_and_capped_at_48_bits() {
        for (field, bits) in [(0, 32), (1, 36), (2, 40), (3, 42), (4, 44), (5, 48), (6, 48), (7, 48)] {
            assert_eq!(PaRange::from_id_aa64mmfr0(field | 0xffff_0000).bits(), bits);
        }
        assert_eq!(PaRange::from_id_aa64mmfr0(6).ps(), 5, "PS must not name 52 bits without FEAT_LPA2");
    }
}
