//! One descriptor, and where in which table it stands.
//!
//! Answers for: what both stages share, that is levels, descriptor types and the address field (DDI 0487, D8.3
//! "Translation table descriptor formats", 4 KiB granule, 48-bit addresses). Does not answer for: a leaf's attributes,
//! which each stage brings as its [`Format`].

use types::{Address, PAGE_SIZE, Pa};

/// Descriptors of one table.
pub(crate) const ENTRIES: usize = 512;

/// Bit 0: valid.
const VALID: u64 = 1 << 0;
/// Bit 1 of a valid descriptor: a table at levels 0 to 2, a page at level 3; a block without it.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// Bits 47:12: the next table or the output address.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// The other bits of a leaf.
pub(crate) const ATTRIBUTES: u64 = !(ADDRESS | TABLE_OR_PAGE | VALID);
/// Bit 10 of a leaf: the access flag. Always set: nothing here counts accesses.
const ACCESS_FLAG: u64 = 1 << 10;
/// Bits 9:8 of a leaf: inner shareable. All CPUs and coherent devices of the machines we know are in one inner domain.
const INNER_SHAREABLE: u64 = 0b11 << 8;

/// How a translation stage encodes what a leaf allows.
pub(crate) trait Format {
    /// The address that is translated.
    type Input: Address;
    /// What a mapping allows.
    type Attributes: Copy;
    /// Leaf bits that may change while the descriptor is live, without break-before-make: permissions (DDI 0487, D8.17.1
    /// lists what needs it: memory type, cacheability, output address, size).
    const PERMISSIONS: u64;
    /// The attributes as leaf bits.
    fn encode(attributes: Self::Attributes) -> u64;
    /// The attributes in a leaf.
    fn decode(leaf: u64) -> Self::Attributes;
}

/// Level of a table in the tree; 3 is the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    Zero,
    One,
    Two,
    Three,
}

impl Level {
    /// Bytes that one descriptor of such a table spans.
    #[inline(always)]
    pub(crate) const fn size(self) -> u64 {
        match self {
            Self::Zero => 1 << 39,
            Self::One => 1 << 30,
            Self::Two => 1 << 21,
            Self::Three => 1 << 12,
        }
    }

    /// The next level down.
    #[inline(always)]
    pub(crate) const fn below(self) -> Option<Self> {
        match self {
            Self::Zero => Some(Self::One),
            Self::One => Some(Self::Two),
            Self::Two => Some(Self::Three),
            Self::Three => None,
        }
    }

    /// Whether a descriptor here may be a leaf: level 0 has no blocks with the 4 KiB granule (DDI 0487, D8.3.1).
    #[inline(always)]
    pub(crate) const fn has_leaves(self) -> bool {
        !matches!(self, Self::Zero)
    }

    /// Whether `address` starts a descriptor's span at this level.
    #[inline(always)]
    pub(crate) const fn is_aligned(self, address: u64) -> bool {
        address & self.size().wrapping_sub(1) == 0
    }

    /// The start of the span that holds `address`.
    #[inline(always)]
    pub(crate) const fn align_down(self, address: u64) -> u64 {
        address & !self.size().wrapping_sub(1)
    }

    /// The start of the span behind the one that holds `address`, which is below 2^48.
    #[inline(always)]
    pub(crate) const fn next(self, address: u64) -> u64 {
        self.align_down(address).wrapping_add(self.size())
    }

    /// A leaf of this level: `to` with the attribute bits of [`Format::encode`].
    #[inline(always)]
    pub(crate) const fn leaf(self, to: Pa, attributes: u64) -> u64 {
        let kind = match self {
            Self::Three => VALID | TABLE_OR_PAGE,
            Self::Zero | Self::One | Self::Two => VALID,
        };
        (to.0 & ADDRESS) | attributes | ACCESS_FLAG | INNER_SHAREABLE | kind
    }
}

/// What a descriptor says.
pub(crate) enum Entry {
    Invalid,
    /// A block or page: the descriptor.
    Leaf(u64),
    Table(Table),
}

/// A table at its place in the tree. A root may be up to 16 tables side by side, seen as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    pub(crate) pa: Pa,
    pub(crate) level: Level,
    /// One less than its number of descriptors, a power of two.
    pub(crate) mask: u64,
}

impl Table {
    /// A single table.
    pub(crate) const fn new(pa: Pa, level: Level) -> Self {
        Self { pa, level, mask: (ENTRIES as u64).wrapping_sub(1) }
    }

    /// Page and index of the descriptor for input address `at`.
    #[inline(always)]
    pub(crate) const fn slot(&self, at: u64) -> (Pa, usize) {
        let index = match self.level {
            Level::Zero => at >> 39,
            Level::One => at >> 30,
            Level::Two => at >> 21,
            Level::Three => at >> 12,
        } & self.mask;
        (Pa(self.pa.0.wrapping_add((index >> 9).wrapping_mul(PAGE_SIZE))), (index & 0x1ff) as usize)
    }

    /// What `descriptor`, found in this table, says. Bits 1:0 = 0b01 are reserved at level 3: invalid.
    #[inline(always)]
    pub(crate) const fn entry(&self, descriptor: u64) -> Entry {
        if descriptor & VALID == 0 {
            return Entry::Invalid;
        }
        match (self.level.below(), descriptor & TABLE_OR_PAGE != 0) {
            (Some(below), true) => Entry::Table(Self::new(Pa(descriptor & ADDRESS), below)),
            (Some(_), false) | (None, true) => Entry::Leaf(descriptor),
            (None, false) => Entry::Invalid,
        }
    }

    /// A descriptor that leads to this table. The hierarchical attributes (bits 63:59) stay zero: they restrict nothing.
    pub(crate) const fn descriptor(&self) -> u64 {
        (self.pa.0 & ADDRESS) | VALID | TABLE_OR_PAGE
    }
}

/// Output address of a leaf.
pub(crate) const fn output(leaf: u64) -> Pa {
    Pa(leaf & ADDRESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_of_type_01_at_level_3_is_invalid() {
        let table = Table::new(Pa(0x1000), Level::Three);
        assert!(matches!(table.entry(0x4000_0001), Entry::Invalid));
        assert!(matches!(table.entry(0x4000_0003), Entry::Leaf(_)));
        assert!(matches!(table.entry(0x4000_0002), Entry::Invalid), "bit 0 clear is invalid whatever else is set");
    }

    #[test]
    fn concatenated_tables_are_indexed_as_one() {
        let root = Table { pa: Pa(0x8000), level: Level::One, mask: 16 * 512 - 1 };
        assert_eq!(root.slot(0), (Pa(0x8000), 0));
        assert_eq!(root.slot(512 << 30), (Pa(0x9000), 0));
        assert_eq!(root.slot((8191 << 30) | 0x3fff_ffff), (Pa(0x8000 + 15 * 0x1000), 511));
    }
}
