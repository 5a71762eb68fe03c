//! Sockets between VMs, and between a VM and the host.
//!
//! Answers for: what a device asks of whoever connects it with others, and what packets say, whatever they look like in a queue (virtio
//! 1.3, 5.10.6). Does not answer for: connections and who may have some (`host`), nor what a guest sees (`vdevs`).

use crate::FillFrame;
use alloc::{string::String, vec::Vec};

/// The CIDs that guests can have: those outside are reserved, or the host's (5.10.4).
pub const GUEST_CIDS: core::ops::RangeInclusive<u32> = 3..=0xffff_fffe;

/// What a configuration says of a device's place among others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VsockWish {
    /// What the device is called.
    pub name: String,
    /// Its CID, one of [`GUEST_CIDS`]; one is found if there is none.
    pub cid: Option<u32>,
    /// Devices that have one of these in common reach each other.
    pub groups: Vec<String>,
}

/// What a packet is about (5.10.6, `op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VsockOp {
    /// Nothing that there is (`VIRTIO_VSOCK_OP_INVALID`, and all other numbers).
    Invalid,
    /// Asks for a connection.
    Request,
    /// Takes one.
    Response,
    /// Refuses or ends one.
    Rst,
    /// Says what is not sent or received any more.
    Shutdown,
    /// Carries data.
    Rw,
    /// Says how much space there is.
    CreditUpdate,
    /// Asks how much space there is.
    CreditRequest,
}

impl VsockOp {
    const ALL: [Self; 8] = [
        Self::Invalid,
        Self::Request,
        Self::Response,
        Self::Rst,
        Self::Shutdown,
        Self::Rw,
        Self::CreditUpdate,
        Self::CreditRequest,
    ];

    /// What has this number.
    #[must_use]
    pub fn of(number: u16) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Invalid)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

/// A packet, but for its data. Fields are called what the standard calls them (5.10.6); a guest's are as it has written them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockPacket {
    /// Whose it is.
    pub src_cid: u64,
    /// Whom it is for.
    pub dst_cid: u64,
    /// See `src_cid`.
    pub src_port: u32,
    /// See `dst_cid`.
    pub dst_port: u32,
    /// Bytes of data.
    pub len: u32,
    /// The kind of socket (`type`): [`VSOCK_STREAM`], or one that nobody knows.
    pub kind: u16,
    /// What it is about.
    pub op: VsockOp,
    /// With [`VsockOp::Shutdown`]: [`VSOCK_RECEIVE`], [`VSOCK_SEND`].
    pub flags: u32,
    /// Bytes that its sender has room for altogether, used or not.
    pub buf_alloc: u32,
    /// Bytes that its sender is done with, since the connection was made.
    pub fwd_cnt: u32,
}

/// Stream sockets (`VIRTIO_VSOCK_TYPE_STREAM`).
pub const VSOCK_STREAM: u16 = 1;
/// The sender does not receive any more (`VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`).
pub const VSOCK_RECEIVE: u32 = 1 << 0;
/// The sender does not send any more (`VIRTIO_VSOCK_SHUTDOWN_F_SEND`).
pub const VSOCK_SEND: u32 = 1 << 1;

/// What happens to a device while whoever has its connections cannot be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VsockSignal {
    /// There is no driver any more.
    Closed,
    /// The guest is to be asked to shut itself down.
    Button,
}

/// A device's place among others. Calls are for the device's worker, but for [`VsockPort::signal`]; none waits for anybody.
///
/// When there may be something to receive, or room for what could not be sent, the device's first worker is rung.
pub trait VsockPort: Send + Sync {
    /// A driver is there that has no connections yet. What others had with this device is ended.
    fn open(&self);

    /// At any time: something for [`VsockPort::attend`], which is to be called soon. Says whether anything will come of it: without an
    /// agent in the guest nobody can be asked to shut it down.
    fn signal(&self, signal: VsockSignal) -> bool;

    /// Looks after what there have been signals of.
    fn attend(&self);

    /// The guest has sent this. `fill` fills in the data from first to last; if it cannot, the connection is ended. Says whether the
    /// packet has been taken: if not, nothing has happened, and it is to be sent again when the guest has taken what there is for it.
    fn send(&self, packet: &VsockPacket, fill: &mut FillFrame<'_>) -> bool;

    /// The next packet for the guest, which has room for as many bytes of data as there are in `into`.
    fn receive(&self, into: &mut [u8]) -> Option<VsockPacket>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_numbers_of_5_10_6() {
        for (number, op) in (0..).zip(VsockOp::ALL) {
            assert_eq!((VsockOp::of(number), op.number()), (op, number));
        }
        assert_eq!(VsockOp::Rst.number(), 3);
        assert_eq!(VsockOp::CreditRequest.number(), 7);
        assert_eq!([8, 0x103, u16::MAX].map(VsockOp::of), [VsockOp::Invalid; 3]);
    }
}
