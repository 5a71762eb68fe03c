//! What a balloon and its driver agree on: numbers and layouts (virtio 1.3, 5.5).

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Device ID (5.5.1).
pub(super) const ID: u16 = 5;
/// Of no defined class.
pub(super) const CLASS: u32 = 0xff_0000;

/// Features (5.5.3).
pub(super) mod feature {
    use virtio::Features;

    pub(crate) const MUST_TELL_HOST: Features = Features::from_bits_retain(1 << 0);
    pub(crate) const STATS_VQ: Features = Features::from_bits_retain(1 << 1);
    pub(crate) const PAGE_REPORTING: Features = Features::from_bits_retain(1 << 5);
}

/// Queues (5.5.2).
pub(super) const INFLATE: u16 = 0;
pub(super) const DEFLATE: u16 = 1;
pub(super) const STATS: u16 = 2;
/// `reporting_vq` is queue 4, behind `free_page_vq`. Drivers that count only queues that there are (Linux's) have it at 3. So it is in
/// both places.
pub(super) const REPORTING: u16 = 3;
/// How many there are.
pub(super) const QUEUES: u16 = 5;

/// The configuration space (5.5.4), as far as the offered features have it. Little-endian even in the legacy interface (5.5.4.0.1).
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Configuration {
    /// Pages that the host wants in the balloon.
    pub(super) num_pages: U32,
    /// Pages that the driver says are in it.
    pub(super) actual: U32,
}

/// A number of the guest's (5.5.6.3).
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Statistic {
    pub(super) tag: U16,
    pub(super) val: U64,
}

/// What such a number is of (5.5.6.4): bytes of memory that is used for nothing, and that could be had without paging.
pub(super) mod tag {
    pub(crate) const MEMFREE: u16 = 4;
    pub(crate) const AVAIL: u16 = 6;
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_spec::balloon::F;

    #[test]
    fn numbers_are_those_of_the_specification() {
        let pairs = [
            (feature::MUST_TELL_HOST, F::MUST_TELL_HOST),
            (feature::STATS_VQ, F::STATS_VQ),
            (feature::PAGE_REPORTING, F::PAGE_REPORTING),
        ];
        for (own, theirs) in pairs {
            assert_eq!(u128::from(own.bits()), theirs.bits().to_ne());
        }
        assert_eq!((size_of::<Configuration>(), size_of::<Statistic>()), (8, 10));
    }
}
