//! What a socket device and its driver agree on: numbers and layouts (virtio 1.3, 5.10).

use vdev::{VsockOp, VsockPacket};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Device ID (5.10.1).
pub(super) const ID: u16 = 19;
/// Simple communication controller, other.
pub(super) const CLASS: u32 = 0x07_8000;
/// `guest_cid` of the configuration space (5.10.4).
pub(super) const CONFIGURATION_SIZE: u16 = 8;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`: what an event says (5.10.6.7).
pub(super) const TRANSPORT_RESET: [u8; 4] = [0; 4];

/// Features (5.10.3).
pub(super) mod feature {
    use virtio::Features;

    pub(crate) const STREAM: Features = Features::from_bits_retain(1 << 0);
    pub(crate) const NO_IMPLIED_STREAM: Features = Features::from_bits_retain(1 << 2);
}

/// `struct virtio_vsock_hdr`, what a packet begins with (5.10.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    src_cid: U64,
    dst_cid: U64,
    src_port: U32,
    dst_port: U32,
    len: U32,
    /// `type`.
    kind: U16,
    op: U16,
    flags: U32,
    buf_alloc: U32,
    fwd_cnt: U32,
}

impl From<&Header> for VsockPacket {
    fn from(header: &Header) -> Self {
        Self {
            src_cid: header.src_cid.get(),
            dst_cid: header.dst_cid.get(),
            src_port: header.src_port.get(),
            dst_port: header.dst_port.get(),
            len: header.len.get(),
            kind: header.kind.get(),
            op: VsockOp::of(header.op.get()),
            flags: header.flags.get(),
            buf_alloc: header.buf_alloc.get(),
            fwd_cnt: header.fwd_cnt.get(),
        }
    }
}

impl From<&VsockPacket> for Header {
    fn from(packet: &VsockPacket) -> Self {
        Self {
            src_cid: packet.src_cid.into(),
            dst_cid: packet.dst_cid.into(),
            src_port: packet.src_port.into(),
            dst_port: packet.dst_port.into(),
            len: packet.len.into(),
            kind: packet.kind.into(),
            op: packet.op.number().into(),
            flags: packet.flags.into(),
            buf_alloc: packet.buf_alloc.into(),
            fwd_cnt: packet.fwd_cnt.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let offsets = [
            (offset_of!(Header, dst_cid), 8),
            (offset_of!(Header, src_port), 16),
            (offset_of!(Header, dst_port), 20),
            (offset_of!(Header, len), 24),
            (offset_of!(Header, kind), 28),
            (offset_of!(Header, op), 30),
            (offset_of!(Header, flags), 32),
            (offset_of!(Header, buf_alloc), 36),
            (offset_of!(Header, fwd_cnt), 40),
            (size_of::<Header>(), 44),
        ];
        offsets.into_iter().for_each(|(own, theirs)| assert_eq!(own, theirs));
    }

    #[test]
    fn a_header_is_its_packet() {
        let bytes: [u8; 44] = core::array::from_fn(|at| at as u8 + 1);
        let header = Header::read_from_bytes(&bytes).unwrap();
        let packet = VsockPacket::from(&header);
        assert_eq!(packet.src_cid, 0x0807_0605_0403_0201);
        assert_eq!((packet.kind, packet.op), (0x1e1d, VsockOp::Invalid), "there is no operation 0x201f");
        assert_eq!(packet.fwd_cnt, 0x2c2b_2a29);
        assert_eq!(Header::from(&packet), Header { op: 0.into(), ..header });
    }
}
