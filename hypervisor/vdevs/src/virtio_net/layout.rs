//! What a network device and its driver agree on: numbers and layouts (virtio 1.3, 5.1).

use vdev::{Checksum, Segments, Unfinished};
use virtio::Features;
use zerocopy::byteorder::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Device ID (5.1.1).
pub(super) const ID: u16 = 1;
/// Ethernet controller.
pub(super) const CLASS: u32 = 0x02_0000;
/// `mac` and `status` of the configuration space (5.1.4).
pub(super) const CONFIGURATION_SIZE: u16 = 8;
/// `VIRTIO_NET_S_LINK_UP`.
pub(super) const LINK_UP: u16 = 1;

/// Features (5.1.3).
pub(super) mod feature {
    use virtio::Features;

    pub(crate) const CSUM: Features = Features::from_bits_retain(1 << 0);
    pub(crate) const GUEST_CSUM: Features = Features::from_bits_retain(1 << 1);
    pub(crate) const MAC: Features = Features::from_bits_retain(1 << 5);
    pub(crate) const GUEST_TSO4: Features = Features::from_bits_retain(1 << 7);
    pub(crate) const GUEST_TSO6: Features = Features::from_bits_retain(1 << 8);
    pub(crate) const HOST_TSO4: Features = Features::from_bits_retain(1 << 11);
    pub(crate) const HOST_TSO6: Features = Features::from_bits_retain(1 << 12);
    pub(crate) const MRG_RXBUF: Features = Features::from_bits_retain(1 << 15);
    pub(crate) const STATUS: Features = Features::from_bits_retain(1 << 16);
    pub(crate) const CTRL_VQ: Features = Features::from_bits_retain(1 << 17);
    pub(crate) const CTRL_RX: Features = Features::from_bits_retain(1 << 18);

    /// What is offered if the other end has accepted these: only what that takes undivided need not be divided.
    pub(crate) fn offered(of_peer: u64) -> Features {
        let of_peer = Features::from_bits_retain(of_peer);
        let mut features = CSUM | GUEST_CSUM | MAC | GUEST_TSO4 | GUEST_TSO6;
        features |= MRG_RXBUF | STATUS | CTRL_VQ | CTRL_RX;
        features.set(HOST_TSO4, of_peer.contains(GUEST_TSO4));
        features.set(HOST_TSO6, of_peer.contains(GUEST_TSO6));
        features
    }
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_*`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// `struct virtio_net_hdr`, what a packet begins with (5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    pub(super) hdr_len: U16,
    pub(super) gso_size: U16,
    pub(super) csum_start: U16,
    pub(super) csum_offset: U16,
    /// Not there for legacy drivers that have not negotiated `MRG_RXBUF` (5.1.6.1).
    pub(super) num_buffers: U16,
}

/// Bytes of the header with these features.
pub(super) fn header_size(features: Features, legacy: bool) -> usize {
    if legacy && !features.contains(feature::MRG_RXBUF) { 10 } else { size_of::<Header>() }
}

impl Header {
    /// What the driver has left to others of a packet of `length` bytes; `None` if it has not negotiated that it may, or what it
    /// says cannot be (5.1.6.2).
    pub(super) fn unfinished(&self, features: Features, length: usize) -> Option<Unfinished> {
        let (start, offset) = (self.csum_start.get(), self.csum_offset.get());
        let checksum = if self.flags & NEEDS_CSUM == 0 {
            None
        } else {
            let end = usize::from(start).saturating_add(offset.into()).saturating_add(2);
            if !features.contains(feature::CSUM) || end > length {
                return None;
            }
            Some(Checksum { start, offset })
        };
        let (needed, ipv6) = match self.gso_type {
            GSO_NONE => return Some(Unfinished { checksum, segments: None }),
            GSO_TCPV4 => (feature::HOST_TSO4, false),
            GSO_TCPV6 => (feature::HOST_TSO6, true),
            _ => return None,
        };
        // Whoever divides a packet computes the checksums of the parts.
        if !features.contains(needed) || checksum.is_none() || self.gso_size.get() == 0 {
            return None;
        }
        // A hint, no more (5.1.6.2.1).
        let headers = u16::try_from(length).unwrap_or(u16::MAX).min(self.hdr_len.get());
        Some(Unfinished { checksum, segments: Some(Segments { ipv6, size: self.gso_size.get(), headers }) })
    }

    /// What a received packet begins with, which is in so many buffers.
    pub(super) fn of(unfinished: &Unfinished, buffers: u16) -> Self {
        let mut header = Self { num_buffers: buffers.into(), ..Self::default() };
        if let Some(Checksum { start, offset }) = unfinished.checksum {
            header.flags = NEEDS_CSUM;
            (header.csum_start, header.csum_offset) = (start.into(), offset.into());
        }
        if let Some(Segments { ipv6, size, headers }) = unfinished.segments {
            header.gso_type = if ipv6 { GSO_TCPV6 } else { GSO_TCPV4 };
            (header.gso_size, header.hdr_len) = (size.into(), headers.into());
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    const ALL: Features = Features::all();

    fn segment() -> Header {
        Header {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54.into(),
            gso_size: 1448.into(),
            csum_start: 34.into(),
            csum_offset: 16.into(),
            num_buffers: 0.into(),
        }
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let offsets = [
            (offset_of!(Header, hdr_len), 2),
            (offset_of!(Header, gso_size), 4),
            (offset_of!(Header, csum_start), 6),
            (offset_of!(Header, csum_offset), 8),
            (offset_of!(Header, num_buffers), 10),
            (size_of::<Header>(), 12),
        ];
        offsets.into_iter().for_each(|(own, theirs)| assert_eq!(own, theirs));
        assert_eq!(header_size(Features::empty(), true), 10);
        assert_eq!(header_size(feature::MRG_RXBUF, true), 12);
        assert_eq!(header_size(Features::empty(), false), 12);
    }

    #[test]
    fn a_header_comes_out_as_it_went_in() {
        for header in [segment(), Header { gso_type: GSO_TCPV6, ..segment() }] {
            let unfinished = header.unfinished(ALL, 5000).unwrap();
            assert_eq!(Header::of(&unfinished, 3), Header { num_buffers: 3.into(), ..header });
        }
        assert_eq!(Header::default().unfinished(Features::empty(), 60), Some(Unfinished::default()));
    }

    #[test]
    fn what_was_not_negotiated_or_cannot_be_is_no_packet() {
        let good = segment();
        assert!(good.unfinished(ALL, 52).is_some());
        for (header, features, length) in [
            (good, ALL.difference(feature::CSUM), 5000),
            (good, ALL.difference(feature::HOST_TSO4), 5000),
            (Header { gso_type: GSO_TCPV6, ..good }, ALL.difference(feature::HOST_TSO6), 5000),
            (good, ALL, 51),
            (Header { csum_start: u16::MAX.into(), csum_offset: u16::MAX.into(), ..good }, ALL, 60),
            (Header { gso_size: 0.into(), ..good }, ALL, 5000),
            (Header { flags: 0, ..good }, ALL, 5000),
            (Header { gso_type: 3, ..good }, ALL, 5000),
            (Header { gso_type: 0x81, ..good }, ALL, 5000),
        ] {
            assert_eq!(header.unfinished(features, length), None, "{header:?} {features:?} {length}");
        }
        let hinted = Header { hdr_len: 9999.into(), ..good };
        assert_eq!(hinted.unfinished(ALL, 60).unwrap().segments.unwrap().headers, 60);
    }

    #[test]
    fn dividing_is_asked_of_drivers_whose_peers_do_not() {
        let offered = feature::offered(u64::MAX);
        assert!(offered.contains(feature::HOST_TSO4 | feature::HOST_TSO6));
        let without = feature::offered(!(1 << 7));
        assert_eq!(offered.difference(without), feature::HOST_TSO4);
    }
}
