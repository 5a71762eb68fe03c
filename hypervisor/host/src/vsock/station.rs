//! One station: who it is, and its halves of connections.
//!
//! Answers for: finding halves, and whose turn it is. Does not answer for: what packets mean ([`super::Hub`]).

use super::half::{Half, Pair, State, WINDOW};
use super::lines::Lines;
use super::{End, StationId};
use alloc::{string::String, vec::Vec};
use arrayvec::ArrayVec;
use core::fmt;
use vdev::{VSOCK_STREAM, VsockOp, VsockPacket};

/// Most connections of a station: 512 KiB for what waits there.
pub const CONNECTIONS: usize = 32;
/// Most of them that other guests have asked for, so that there are always some for its own wishes.
pub const OFFERS: usize = 16;
/// Most refusals that wait for a guest.
pub const REPLIES: usize = 32;

/// Packets at a station.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent from it.
    pub sent: u64,
    /// Taken by it.
    pub received: u64,
    /// Sent from it, and answered by `VIRTIO_VSOCK_OP_RST`.
    pub refused: u64,
    /// Sent with a CID that is not the sender's.
    pub forged: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, refused, forged } = self;
        write!(f, "sent {sent}, received {received}, refused {refused}, forged {forged}")
    }
}

/// The memory of a station: it is made, and given back, without the lock.
#[derive(Debug)]
pub struct Storage {
    pub(super) halves: Vec<Half>,
    pub(super) replies: ArrayVec<VsockPacket, REPLIES>,
}

impl Storage {
    /// All that a station needs; `None` if there is no memory.
    #[must_use]
    pub fn new() -> Option<Self> {
        let mut halves = Vec::new();
        halves.try_reserve_exact(CONNECTIONS).ok()?;
        for _ in 0..CONNECTIONS {
            halves.push(Half::new()?);
        }
        Some(Self { halves, replies: ArrayVec::new() })
    }
}

/// One station.
#[derive(Debug)]
pub(super) struct Station<D> {
    pub(super) id: StationId,
    pub(super) end: End,
    pub(super) cid: u32,
    groups: Vec<String>,
    pub(super) door: D,
    pub(super) is_open: bool,
    pub(super) counts: Counts,
    /// What its agent has said of a line.
    pub(super) lines: Lines,
    /// Whose turn it is.
    turn: usize,
    pub(super) storage: Storage,
}

impl<D> Station<D> {
    /// One without driver.
    pub(super) fn new(id: StationId, end: End, cid: u32, groups: Vec<String>, (door, storage): (D, Storage)) -> Self {
        let (counts, lines) = (Counts::default(), Lines::default());
        Self { id, end, cid, groups, door, is_open: false, counts, lines, turn: 0, storage }
    }

    /// Whether both are in a group.
    pub(super) fn shares_group(&self, other: &Self) -> bool {
        self.groups.iter().any(|group| other.groups.contains(group))
    }

    /// The half of these two.
    pub(super) fn find(&self, pair: &Pair) -> Option<usize> {
        self.storage.halves.iter().position(|half| half.state != State::Free && half.pair == *pair)
    }

    /// The first half of that kind.
    pub(super) fn position(&self, state: State) -> Option<usize> {
        self.storage.halves.iter().position(|half| half.state == state)
    }

    /// A half for what another guest wishes: not if there is one of these two already, or others have as many as they may have.
    pub(super) fn offer(&self, pair: &Pair) -> Option<usize> {
        let halves = &self.storage.halves;
        let offers = halves.iter().filter(|half| half.state != State::Free && half.is_offer).count();
        self.position(State::Free).filter(|_| offers < OFFERS && self.find(pair).is_none())
    }

    /// The guest is to hear that there is no such connection, of sockets of that kind.
    pub(super) fn refuse(&mut self, pair: &Pair, from: u64, kind: u16) {
        self.counts.refused = self.counts.refused.saturating_add(1);
        let reply = VsockPacket { src_cid: from, kind, buf_alloc: 0, ..self.packet(pair, VsockOp::Rst) };
        // Who accepts packets sees to it that there is room.
        let _ = self.storage.replies.try_push(reply);
    }

    /// Whether there is room for what one packet may be answered by: two refusals.
    pub(super) fn can_refuse(&self) -> bool {
        self.storage.replies.remaining_capacity() >= 2
    }

    fn packet(&self, pair: &Pair, op: VsockOp) -> VsockPacket {
        VsockPacket {
            src_cid: pair.peer_cid.into(),
            dst_cid: self.cid.into(),
            src_port: pair.peer_port,
            dst_port: pair.own_port,
            len: 0,
            kind: VSOCK_STREAM,
            op,
            flags: 0,
            buf_alloc: WINDOW,
            fwd_cnt: 0,
        }
    }

    /// What is to be said next, and by which half: each in its turn.
    pub(super) fn say(&mut self, into: &mut [u8]) -> Option<(usize, VsockPacket)> {
        let order = (self.turn..CONNECTIONS).chain(0..self.turn);
        let said = order.into_iter().find_map(|index| {
            let half = self.storage.halves.get_mut(index).filter(|half| half.state != State::Free)?;
            Some((index, half.say(into)?, half.pair, half.told()))
        });
        let (index, saying, pair, fwd_cnt) = said?;
        self.turn = index.saturating_add(1);
        self.counts.received = self.counts.received.saturating_add(1);
        let packet = self.packet(&pair, saying.op);
        Some((index, VsockPacket { len: saying.length, flags: saying.flags, fwd_cnt, ..packet }))
    }
}
