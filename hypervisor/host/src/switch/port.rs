//! One port: who it is, and the frames that wait there.
//!
//! Answers for: pieces, of which a port has so many and no more, and the order of frames. Does not answer for: which frames those are.

use super::buffer::{Buffer, Piece, piece};
use super::rate::Limit;
use super::station::{Learned, Place};
use super::{Door, End, PortId};
use crate::switch::FRAME_PIECES;
use alloc::{collections::vec_deque::VecDeque, format, string::String, vec::Vec};
use core::fmt;
use types::Frequency;
use vdev::{Mac, NetFilter, NetWish, Offloads, Unfinished};

/// Pieces for frames that wait at a port: 256 KiB. Those for what it sends come on top.
pub const POOL: usize = 128;

/// Frames at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent from it, wherever they went.
    pub sent: u64,
    /// Taken by its receiver.
    pub received: u64,
    /// Lost because it was full, or nobody was there.
    pub full: u64,
    /// Lost because the receiver does not divide frames.
    pub undivided: u64,
    /// Sent with an address that is not the sender's.
    pub forged: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, full, undivided, forged } = self;
        write!(
            f,
            "sent {sent}, received {received}, lost {full}, too long for the receiver {undivided}, forged {forged}"
        )
    }
}

/// One port.
#[derive(Debug)]
pub(super) struct Port<D> {
    pub(super) id: PortId,
    pub(super) end: End,
    pub(super) mac: Mac,
    pub(super) place: Place,
    pub(super) peer_mac: Option<Mac>,
    pub(super) group: u16,
    pub(super) door: D,
    pub(super) limit: Option<Limit>,
    pub(super) takes: Offloads,
    pub(super) filter: NetFilter,
    pub(super) learned: Learned,
    pub(super) counts: Counts,
    is_open: bool,
    pub(super) storage: Storage,
}

/// The memory of a port: it is made, and given back, without the lock.
#[derive(Debug)]
pub struct Storage {
    /// For what it sends: a frame, and a copy of it.
    sending: Vec<Piece>,
    /// For what it is sent.
    free: Vec<Piece>,
    /// What it has been sent: what is known of each frame, and the pieces of all.
    frames: VecDeque<(usize, Unfinished)>,
    pieces: VecDeque<Piece>,
}

impl Storage {
    /// All that a port needs; `None` if there is no memory.
    #[must_use]
    pub fn new() -> Option<Self> {
        let mut frames = VecDeque::new();
        frames.try_reserve_exact(POOL).ok()?;
        let mut waiting = VecDeque::new();
        waiting.try_reserve_exact(POOL).ok()?;
        Some(Self { sending: pieces(FRAME_PIECES.saturating_mul(2))?, free: pieces(POOL)?, frames, pieces: waiting })
    }
}

impl<D: Door> Port<D> {
    /// A closed one.
    pub(super) fn new(
        id: PortId,
        end: End,
        mac: Mac,
        place: Place,
        wish: &NetWish,
        frequency: Frequency,
        (door, storage): (D, Storage),
    ) -> Self {
        Self {
            id,
            end,
            mac,
            place,
            peer_mac: wish.peer_mac,
            group: wish.group,
            door,
            limit: wish.rate.map(|rate| Limit::new(rate, frequency)),
            takes: Offloads::default(),
            filter: NetFilter::default(),
            learned: Learned::default(),
            counts: Counts::default(),
            is_open: false,
            storage,
        }
    }

    /// What it is connected to, for people.
    pub(super) fn described_place(&self) -> String {
        match &self.place {
            Place::Switch(name) => format!("/dev/vswitch{name}, group {}", self.group),
            Place::Link(Some(peer)) => format!("{peer}, which is not there"),
            Place::Link(None) => String::from("nobody"),
        }
    }

    /// Whether there is a card of the machine.
    pub(super) const fn is_card(&self) -> bool {
        matches!(self.end, End::Card(_))
    }

    /// Whether two are on the same switch.
    pub(super) fn is_on_switch_of(&self, other: &Self) -> bool {
        matches!(self.place, Place::Switch(_)) && self.place == other.place
    }

    pub(super) fn open(&mut self, takes: Offloads) {
        (self.takes, self.is_open) = (takes, true);
        self.storage.frames.clear();
        self.storage.free.extend(self.storage.pieces.drain(..));
    }

    /// Whether a frame to this address is to come here; one that is lost by that is counted.
    pub(super) fn wants(&mut self, to: Mac, unfinished: &Unfinished) -> bool {
        let is_meant = self.filter.passes(to, self.mac);
        if is_meant && !self.is_open {
            self.counts.full = self.counts.full.saturating_add(1);
        } else if is_meant && !self.takes.take(unfinished) {
            self.counts.undivided = self.counts.undivided.saturating_add(1);
        }
        is_meant && self.is_open && self.takes.take(unfinished)
    }

    /// Room for a frame to send; `None` if there is none left.
    pub(super) fn begin(&mut self, unfinished: Unfinished, length: usize) -> Option<Buffer> {
        take(&mut self.storage.sending, Buffer::pieces_for(length), length, unfinished)
    }

    /// Pieces for what it sends are free again.
    pub(super) fn give_back(&mut self, frame: Buffer) {
        self.storage.sending.extend(frame.pieces);
    }

    /// One more frame waits. Gives as many free pieces for it; if there are not so many the frame is lost, and its own come back.
    pub(super) fn exchange(&mut self, frame: Buffer) -> Buffer {
        let Some(spare) = take(&mut self.storage.free, frame.pieces.len(), 0, Unfinished::default()) else {
            self.counts.full = self.counts.full.saturating_add(1);
            return frame;
        };
        let was_empty = self.storage.frames.is_empty();
        self.storage.frames.push_back((frame.length, frame.unfinished));
        self.storage.pieces.extend(frame.pieces);
        if was_empty {
            self.door.ring();
        }
        spare
    }

    /// Takes the first frame out.
    pub(super) fn next(&mut self) -> Option<Buffer> {
        let (length, unfinished) = self.storage.frames.pop_front()?;
        let count = Buffer::pieces_for(length).min(self.storage.pieces.len());
        Some(Buffer { pieces: self.storage.pieces.drain(..count).collect(), length, unfinished })
    }

    /// What was taken out has been received, or is put back.
    pub(super) fn finish(&mut self, frame: Buffer, taken: bool) {
        if taken {
            self.counts.received = self.counts.received.saturating_add(1);
            self.storage.free.extend(frame.pieces);
        } else {
            self.storage.frames.push_front((frame.length, frame.unfinished));
            frame.pieces.into_iter().rev().for_each(|piece| self.storage.pieces.push_front(piece));
        }
    }

    /// Pieces that it has, for tests: none is ever lost.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.storage.sending.len(), self.storage.free.len() + self.storage.pieces.len())
    }
}

fn pieces(count: usize) -> Option<Vec<Piece>> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).ok()?;
    for _ in 0..count {
        all.push(piece()?);
    }
    Some(all)
}

/// So many pieces, if there are.
fn take(from: &mut Vec<Piece>, count: usize, length: usize, unfinished: Unfinished) -> Option<Buffer> {
    let rest = from.len().checked_sub(count)?;
    Some(Buffer { pieces: from.drain(rest..).collect(), length, unfinished })
}
