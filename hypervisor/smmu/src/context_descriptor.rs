//! A guest's stage 1, as the SMMU finds it: the context descriptor (IHI 0070, 5.4).
//!
//! Answers for: what of it names memory and tags translations. Does not answer for: using it; with a stage 2 below,
//! the SMMU itself reads the guest's descriptors, and all addresses in them are the VM's.

use crate::bits::Field;
use types::Ipa;

// Word 0.
const T0SZ: Field = Field::bits(5, 0);
const TG0: Field = Field::bits(7, 6);
const EPD0: Field = Field::bit(14);
const T1SZ: Field = Field::bits(21, 16);
const TG1: Field = Field::bits(23, 22);
const EPD1: Field = Field::bit(30);
const V: Field = Field::bit(31);
const AA64: Field = Field::bit(41);
const S: Field = Field::bit(44);
const R: Field = Field::bit(45);
const A: Field = Field::bit(46);
const ASID: Field = Field::bits(63, 48);
/// Of words 1 and 2: bits 119 to 68 and 183 to 132.
const TTB: Field = Field::bits(55, 4);

/// One half of the address space that a descriptor translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Half {
    /// `TTB0` or `TTB1`.
    pub root: Ipa,
    /// `T0SZ` or `T1SZ`: 64 less the bits that are translated.
    pub size_offset: u8,
    /// `TG0` or `TG1`, each in its own encoding.
    pub granule: u8,
}

/// A valid VMSAv8-64 context descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextDescriptor {
    /// `ASID`.
    pub asid: u16,
    /// The lower half, unless `EPD0` switches it off.
    pub lower: Option<Half>,
    /// The upper half, unless `EPD1` switches it off.
    pub upper: Option<Half>,
    /// `A`: a fault aborts; otherwise reads give zero and writes are lost.
    pub aborts: bool,
    /// `R`: a fault is recorded.
    pub records: bool,
    /// `S`: a fault stalls. ILLEGAL under a stage 2 of ours, which forbids it.
    pub stalls: bool,
}

impl ContextDescriptor {
    /// From a copy of the 64 bytes, as little-endian words. `None` if it is not valid, or for VMSAv8-32.
    #[must_use]
    pub fn decode(words: &[u64; 8]) -> Option<Self> {
        let [word0, word1, word2, ..] = *words;
        if !V.is_set(word0) || !AA64.is_set(word0) {
            return None;
        }
        let half = |off: Field, word: u64, size: Field, granule: Field| {
            let root = Ipa(word & TTB.mask());
            (!off.is_set(word0)).then(|| Half { root, size_offset: size.get8(word0), granule: granule.get8(word0) })
        };
        Some(Self {
            asid: ASID.get16(word0),
            lower: half(EPD0, word1, T0SZ, TG0),
            upper: half(EPD1, word2, T1SZ, TG1),
            aborts: A.is_set(word0),
            records: R.is_set(word0),
            stalls: S.is_set(word0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux makes it for a 48-bit address space.
    fn of_linux() -> [u64; 8] {
        let word0 =
            16 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12 | 1 << 30 | 1 << 31 | 5 << 32 | 1 << 41 | 0b11 << 45 | 1 << 47;
        [word0 | 3 << 48, 0x4820_0000, 0, 0xffff_ff44, 0, 0, 0, 0]
    }

    #[test]
    fn a_linux_descriptor_is_understood() {
        let context = ContextDescriptor::decode(&of_linux()).unwrap();
        assert_eq!(context.asid, 3);
        assert_eq!(context.lower, Some(Half { root: Ipa(0x4820_0000), size_offset: 16, granule: 0 }));
        assert_eq!(context.upper, None);
        assert!(context.aborts && context.records && !context.stalls);
    }

    #[test]
    fn bits_are_where_the_specification_has_them() {
        let mut words = [0; 8];
        words[0] = 1 << 31 | 1 << 41;
        let plain = ContextDescriptor::decode(&words).unwrap();
        let with = |word: usize, bits: u64| {
            let mut words = words;
            words[word] |= bits;
            ContextDescriptor::decode(&words).unwrap()
        };
        let lower = plain.lower.unwrap();
        let upper = plain.upper.unwrap();
        assert_eq!(with(0, 0x3f).lower, Some(Half { size_offset: 0x3f, ..lower }));
        assert_eq!(with(0, 0xc0).lower, Some(Half { granule: 3, ..lower }));
        assert_eq!(with(0, 1 << 14).lower, None);
        assert_eq!(with(0, 0x3f << 16).upper, Some(Half { size_offset: 0x3f, ..upper }));
        assert_eq!(with(0, 0xc0 << 16).upper, Some(Half { granule: 3, ..upper }));
        assert_eq!(with(0, 1 << 30).upper, None);
        assert_eq!(with(0, 1 << 44), ContextDescriptor { stalls: true, ..plain });
        assert_eq!(with(0, 1 << 45), ContextDescriptor { records: true, ..plain });
        assert_eq!(with(0, 1 << 46), ContextDescriptor { aborts: true, ..plain });
        assert_eq!(with(0, 0xffff << 48), ContextDescriptor { asid: 0xffff, ..plain });
        // Bits 119:68 and 183:132.
        assert_eq!(with(1, u64::MAX).lower, Some(Half { root: Ipa(0x00ff_ffff_ffff_fff0), ..lower }));
        assert_eq!(with(2, u64::MAX).upper, Some(Half { root: Ipa(0x00ff_ffff_ffff_fff0), ..upper }));
    }

    #[test]
    fn what_is_not_valid_or_for_32_bits_is_none() {
        for bit in [31, 41] {
            let mut words = of_linux();
            words[0] &= !(1 << bit);
            assert_eq!(ContextDescriptor::decode(&words), None);
        }
    }
}
