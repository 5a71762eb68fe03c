//! Addresses: what a guest calls physical, what really is, and what the hypervisor itself uses.

use core::fmt;

/// The page of both translation stages: 4 KiB, the granule this hypervisor uses everywhere.
pub const PAGE_SIZE: u64 = 4096;

/// What [`Range`] needs of an address type.
pub trait Address: Copy + Ord + fmt::Display {
    /// The address with this numeric value.
    fn from_u64(value: u64) -> Self;
    /// Its numeric value.
    fn as_u64(self) -> u64;
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on, or `None` beyond the end of the 64-bit space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The next lower multiple of `alignment`, a power of two.
            #[must_use]
            pub const fn align_down(self, alignment: u64) -> Self {
                Self(self.0 & !(alignment - 1))
            }

            /// The next higher multiple of `alignment`, a power of two; `None` if there is none in 64 bits.
            #[must_use]
            pub const fn align_up(self, alignment: u64) -> Option<Self> {
                match self.0.checked_add(alignment - 1) {
                    Some(sum) => Some(Self(sum & !(alignment - 1))),
                    None => None,
                }
            }

            /// Whether this is a multiple of `alignment`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, alignment: u64) -> bool {
                self.0 & (alignment - 1) == 0
            }
        }

        impl Address for $name {
            fn from_u64(value: u64) -> Self {
                Self(value)
            }
            fn as_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address! {
    /// A physical address: what the memory system sees.
    Pa
}
address! {
    /// An intermediate physical address: what a guest takes for physical (stage 2 input; DDI 0487, "Translation
    /// stages"). It comes from a guest or a configuration, so it proves nothing until stage 2 or the guest's memory map
    /// has been asked.
    Ipa
}
address! {
    /// A virtual address at EL2: what the hypervisor's own instructions use.
    Va
}

/// A half-open, never wrapping range of addresses. It may be empty; it cannot contain the very last byte of the 64-bit
/// space, which no machine has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Range<A> {
    start: A,
    length: u64,
}

impl<A: Address> Range<A> {
    /// The `length` bytes from `start` on, or `None` if that runs over the end of the 64-bit space.
    #[must_use]
    pub fn new(start: A, length: u64) -> Option<Self> {
        start.as_u64().checked_add(length)?;
        Some(Self { start, length })
    }

    /// From `start` up to, not including, `end`; empty if `end` is not above `start`.
    #[must_use]
    pub fn between(start: A, end: A) -> Self {
        Self { start, length: end.as_u64().saturating_sub(start.as_u64()) }
    }

    /// First address.
    #[must_use]
    pub fn start(&self) -> A {
        self.start
    }

    /// First address behind the range.
    #[must_use]
    pub fn end(&self) -> A {
        // `new` and `between` have established that this does not wrap.
        A::from_u64(self.start.as_u64().wrapping_add(self.length))
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether `address` lies inside.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        address >= self.start && address < self.end()
    }

    /// Whether all of `other` lies inside. An empty `other` does if its start is within or at the end.
    #[must_use]
    pub fn contains_range(&self, other: &Self) -> bool {
        other.start >= self.start && other.end() <= self.end()
    }

    /// Whether the two share a byte.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start < other.end() && other.start < self.end()
    }

    /// Whether start and length are multiples of `alignment`, a power of two.
    #[must_use]
    pub fn is_aligned(&self, alignment: u64) -> bool {
        (self.start.as_u64() | self.length) & (alignment - 1) == 0
    }
}

impl<A: Address> fmt::Display for Range<A> {
    /// As `0x80000000-0x87ffffff`: the last address is part of the range.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.end().as_u64().saturating_sub(1);
        write!(f, "{}-{last:#x}", self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_wrap() {
        assert!(Range::new(Ipa(u64::MAX), 1).is_none());
        assert!(Range::new(Ipa(u64::MAX - 1), 1).is_some());
        assert!(Range::between(Ipa(8), Ipa(4)).is_empty());
    }

    #[test]
    fn touching_ranges_do_not_overlap() {
        let a = Range::new(Pa(0x1000), 0x1000).unwrap();
        let b = Range::new(Pa(0x2000), 0x1000).unwrap();
        assert!(!a.overlaps(&b) && !b.overlaps(&a));
        assert!(a.overlaps(&Range::new(Pa(0x1fff), 1).unwrap()));
        assert!(!a.overlaps(&Range::new(Pa(0x1800), 0).unwrap()));
        assert!(a.contains(Pa(0x1fff)) && !a.contains(Pa(0x2000)));
    }

    #[test]
    fn alignment_is_checked_at_the_top_of_the_space() {
        assert_eq!(Pa(u64::MAX).align_up(PAGE_SIZE), None);
        assert_eq!(Pa(0x1001).align_up(PAGE_SIZE), Some(Pa(0x2000)));
        assert_eq!(Pa(0x1fff).align_down(PAGE_SIZE), Pa(0x1000));
    }
}
