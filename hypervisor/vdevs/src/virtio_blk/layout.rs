//! What a block device and its driver agree on: numbers and layouts (virtio 1.3, 5.2).

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Device ID (5.2.1).
pub(super) const ID: u16 = 2;
/// Mass storage controller, other.
pub(super) const CLASS: u32 = 0x01_8000;

/// Features (5.2.3).
pub(super) mod feature {
    use virtio::Features;

    pub(crate) const SEG_MAX: Features = Features::from_bits_retain(1 << 2);
    pub(crate) const RO: Features = Features::from_bits_retain(1 << 5);
    pub(crate) const BLK_SIZE: Features = Features::from_bits_retain(1 << 6);
    pub(crate) const FLUSH: Features = Features::from_bits_retain(1 << 9);
    pub(crate) const TOPOLOGY: Features = Features::from_bits_retain(1 << 10);
    pub(crate) const MQ: Features = Features::from_bits_retain(1 << 12);
    pub(crate) const DISCARD: Features = Features::from_bits_retain(1 << 13);
    pub(crate) const WRITE_ZEROES: Features = Features::from_bits_retain(1 << 14);
}

/// Types of requests (5.2.6).
pub(super) mod request {
    pub(crate) const IN: u32 = 0;
    pub(crate) const OUT: u32 = 1;
    pub(crate) const FLUSH: u32 = 4;
    pub(crate) const GET_ID: u32 = 8;
    pub(crate) const DISCARD: u32 = 11;
    pub(crate) const WRITE_ZEROES: u32 = 13;
}

/// The last byte of a request, which the device writes (5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    /// Done.
    Ok = 0,
    /// Not done, or in part.
    IoErr = 1,
    /// There is no such request.
    Unsupp = 2,
}

/// Bytes of the answer to `GET_ID`.
pub(super) const SERIAL: usize = 20;
/// Most sectors that a [`Segment`] may have: 16 MiB, so that none takes long.
pub(super) const MOST_ZEROED: u32 = 1 << 15;
/// A segment's `flags.unmap`.
pub(super) const UNMAP: u32 = 1;

/// The configuration space, up to the last field that is of use (5.2.4).
#[derive(Clone, Copy, Debug, Default, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Configuration {
    /// In sectors of 512 bytes.
    pub(super) capacity: U64,
    pub(super) size_max: U32,
    /// Most segments of a request, besides its first and last.
    pub(super) seg_max: U32,
    pub(super) geometry: [u8; 4],
    pub(super) blk_size: U32,
    /// Logical blocks of a physical one, as a power of two.
    pub(super) physical_block_exp: u8,
    pub(super) alignment_offset: u8,
    pub(super) min_io_size: U16,
    pub(super) opt_io_size: U32,
    pub(super) writeback: u8,
    pub(super) unused: u8,
    pub(super) num_queues: U16,
    pub(super) max_discard_sectors: U32,
    pub(super) max_discard_seg: U32,
    pub(super) discard_sector_alignment: U32,
    pub(super) max_write_zeroes_sectors: U32,
    pub(super) max_write_zeroes_seg: U32,
    pub(super) write_zeroes_may_unmap: u8,
    pub(super) reserved: [u8; 3],
}

/// What a request begins with (5.2.6).
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    /// Which request; see [`request`].
    pub(super) kind: U32,
    reserved: U32,
    /// Where it begins.
    pub(super) sector: U64,
}

/// A part of the disk in the data of `DISCARD` and `WRITE_ZEROES` (5.2.6).
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Segment {
    /// Where it begins.
    pub(super) sector: U64,
    /// How many sectors.
    pub(super) num_sectors: U32,
    /// [`UNMAP`], nothing else.
    pub(super) flags: U32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let offsets = [
            (offset_of!(Configuration, seg_max), 12),
            (offset_of!(Configuration, blk_size), 20),
            (offset_of!(Configuration, physical_block_exp), 24),
            (offset_of!(Configuration, num_queues), 34),
            (offset_of!(Configuration, max_discard_sectors), 36),
            (offset_of!(Configuration, max_write_zeroes_sectors), 48),
            (offset_of!(Configuration, write_zeroes_may_unmap), 56),
            (size_of::<Configuration>(), 60),
            (size_of::<Header>(), 16),
            (size_of::<Segment>(), 16),
        ];
        offsets.into_iter().for_each(|(own, theirs)| assert_eq!(own, theirs));
    }
}
