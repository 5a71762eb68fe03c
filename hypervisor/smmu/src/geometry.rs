//! How large the stream table is and where in it a stream stands (IHI 0070, 3.3.1, 5.1, 6.3.24, 6.3.25).
//!
//! Two levels where the SMMU has them: the first has a descriptor for each 64 streams, and 64 entries are one page, which
//! exists only where somebody owns one of these streams. What has no page is refused (`C_BAD_STREAMID`). Does not answer
//! for: memory.

use crate::Features;
use crate::registers::{BASE_ALLOCATE, STRTAB_BASE_CFG};
use types::Pa;

/// `SPLIT`: a leaf has 2^6 entries, which is a page.
const SPLIT: u8 = 6;
/// `Span` of a first-level descriptor: 2^(Span - 1) entries.
const SPAN: u64 = 7;
const ENTRY_BYTES: u64 = 64;
const DESCRIPTOR_BYTES: u64 = 8;
/// Of the streams of a PCI bus domain, by the usual mapping: 8 KiB for the first level.
const DOMAIN_BITS: u8 = 16;
/// Of a table in one level: 4 MiB.
const MAX_LINEAR_BITS: u8 = 16;
/// Of a table in two levels: 512 KiB for the first.
const MAX_TWO_LEVEL_BITS: u8 = 22;

/// The shape of one SMMU's stream table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    bits: u8,
    two_level: bool,
}

impl Geometry {
    /// Room for streams 0 to `highest`, the last that the device tree has something behind, and for those of a whole PCI bus domain
    /// where that costs little. No more than the SMMU has, or a table of a reasonable size: a tree may say more, as those do that
    /// give a whole domain to an SMMU for few. Streams beyond the table are refused by the SMMU.
    #[must_use]
    pub fn for_machine(highest: u32, features: &Features) -> Self {
        let named = highest.checked_ilog2().map_or(0, |bit| bit.saturating_add(1));
        let (least, most) = if features.two_level { (DOMAIN_BITS, MAX_TWO_LEVEL_BITS) } else { (0, MAX_LINEAR_BITS) };
        let wanted = u8::try_from(named).unwrap_or(most).max(least);
        Self::with_bits(wanted.min(most).min(features.stream_bits), features)
    }

    /// Room for streams of so many bits, which the SMMU has.
    pub(crate) const fn with_bits(bits: u8, features: &Features) -> Self {
        Self { bits, two_level: features.two_level && bits > SPLIT }
    }

    /// Whether it has room for `stream`.
    #[must_use]
    pub fn has(self, stream: u32) -> bool {
        u64::from(stream) >> self.bits == 0
    }

    /// Bits of StreamID that it has room for.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether entries are in leaves of their own, one page for 64 streams.
    #[must_use]
    pub const fn is_two_level(self) -> bool {
        self.two_level
    }

    /// Bytes of the table, or of its first level: a power of two, and what it is to be aligned to. All zero is right for a
    /// start: every stream is refused.
    #[must_use]
    pub fn bytes(self) -> u64 {
        let (entries, bytes) = if self.two_level {
            (1_u64 << self.bits.saturating_sub(SPLIT), DESCRIPTOR_BYTES)
        } else {
            (1_u64 << self.bits, ENTRY_BYTES)
        };
        entries.saturating_mul(bytes).max(ENTRY_BYTES)
    }

    /// How many leaves there could be; 0 for a table in one level.
    #[must_use]
    pub fn leaves(self) -> usize {
        if self.two_level { 1 << self.bits.saturating_sub(SPLIT) } else { 0 }
    }

    /// In which leaf `stream` is.
    #[must_use]
    pub fn leaf_of(self, stream: u32) -> usize {
        if self.two_level { usize::try_from(stream >> SPLIT).unwrap_or(usize::MAX) } else { 0 }
    }

    /// `SMMU_STRTAB_BASE` for a table at `table`.
    pub(crate) const fn base_register(self, table: Pa) -> u64 {
        table.0 | BASE_ALLOCATE
    }

    /// `SMMU_STRTAB_BASE_CFG`.
    pub(crate) fn configuration_register(self) -> u32 {
        let size = STRTAB_BASE_CFG::LOG2SIZE.val(u32::from(self.bits));
        let format = if self.two_level {
            STRTAB_BASE_CFG::FMT::TwoLevel.value | STRTAB_BASE_CFG::SPLIT.val(u32::from(SPLIT)).value
        } else {
            STRTAB_BASE_CFG::FMT::Linear.value
        };
        size.value | format
    }

    /// Where the first-level descriptor for `stream` is, in a table of two levels at `table`.
    pub(crate) fn descriptor_at(self, table: Pa, stream: u32) -> Pa {
        Pa(table.0.saturating_add(u64::from(stream >> SPLIT).saturating_mul(DESCRIPTOR_BYTES)))
    }

    /// The first-level descriptor of a leaf at `leaf`, which is aligned to its size.
    pub(crate) const fn descriptor(leaf: Pa) -> u64 {
        leaf.0 | SPAN
    }

    /// Where the entry for `stream` is, in its leaf at `leaf`, or in a table of one level there.
    pub(crate) fn entry_at(self, leaf: Pa, stream: u32) -> Pa {
        let index = if self.two_level { u64::from(stream) & ((1 << SPLIT) - 1) } else { u64::from(stream) };
        Pa(leaf.0.saturating_add(index.saturating_mul(ENTRY_BYTES)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::FEATURES;

    const LINEAR: Features = Features { two_level: false, ..FEATURES };

    #[test]
    fn a_table_is_as_small_as_its_streams_allow() {
        let two = Geometry::for_machine(0xffff, &FEATURES);
        assert!(two.is_two_level());
        assert_eq!((two.bytes(), two.leaves()), (8 << 10, 1024));
        assert_eq!(two.configuration_register(), 1 << 16 | 6 << 6 | 16);
        let linear = Geometry::for_machine(0xffff, &LINEAR);
        assert_eq!((linear.bytes(), linear.leaves(), linear.configuration_register()), (4 << 20, 0, 16));
        let page = Geometry::with_bits(6, &FEATURES);
        assert!(!page.is_two_level(), "a first level of one descriptor is of no use");
        assert_eq!((page.bytes(), page.configuration_register()), (4096, 6));
        assert_eq!(Geometry::for_machine(0, &LINEAR).bytes(), 64);
    }

    #[test]
    fn room_that_costs_little_is_for_a_whole_domain() {
        let bits = |highest, features: Features| Geometry::for_machine(highest, &features).bits();
        assert_eq!((bits(0, FEATURES), bits(64, LINEAR)), (16, 7));
        assert_eq!(bits(0, Features { stream_bits: 8, ..FEATURES }), 8);
        assert_eq!(bits(0x1_0000, Features { stream_bits: 32, ..FEATURES }), 17);
    }

    #[test]
    fn a_tree_that_names_more_streams_than_there_are_is_believed_as_far_as_they_go() {
        let bits = |highest, features: Features| Geometry::for_machine(highest, &features).bits();
        assert_eq!((bits(0x1_0000, FEATURES), bits(0xffff, Features { stream_bits: 8, ..LINEAR })), (16, 8));
        assert_eq!(bits(u32::MAX, Features { stream_bits: 32, ..FEATURES }), 22);
        assert_eq!(bits(u32::MAX, Features { stream_bits: 32, ..LINEAR }), 16);
        let geometry = Geometry::for_machine(64, &LINEAR);
        assert!(geometry.has(127) && !geometry.has(128));
    }

    #[test]
    fn places_are_those_of_the_specification() {
        let table = Pa(0x8000_0000);
        let two = Geometry::for_machine(0xffff, &FEATURES);
        assert_eq!(two.descriptor_at(table, 0x1234), Pa(0x8000_0000 + (0x1234 >> 6) * 8));
        assert_eq!(two.entry_at(Pa(0x9000_0000), 0x1234), Pa(0x9000_0000 + (0x1234 & 63) * 64));
        assert_eq!((two.leaf_of(0x1234), two.leaf_of(63), two.leaf_of(64)), (0x48, 0, 1));
        assert_eq!(Geometry::descriptor(Pa(0x9000_1000)), 0x9000_1007, "2^(7-1) entries");
        let linear = Geometry::for_machine(0xffff, &LINEAR);
        assert_eq!(linear.entry_at(table, 0x1234), Pa(0x8000_0000 + 0x1234 * 64));
        assert_eq!(two.base_register(table), 1 << 62 | 0x8000_0000);
    }
}
