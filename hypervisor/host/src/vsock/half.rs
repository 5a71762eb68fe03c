//! One guest's half of a connection.
//!
//! Answers for: how much its guest may send and be sent (virtio 1.3, 5.10.6.3), what waits for it, and in which order that goes.
//! Does not answer for: what is at the other end ([`super::Hub`]).

use alloc::collections::vec_deque::VecDeque;
use vdev::{VsockOp, VsockPacket};

/// Bytes that a guest may send before the other end has taken some: what the host keeps for that. It is the `buf_alloc` of all packets
/// to guests.
pub const WINDOW: u32 = 16 << 10;

/// Most bytes that a guest can have under way at once, whatever it says that it has room for. Counters of 32 bits say more than that
/// only if they lie.
const MOST: u32 = i32::MAX.unsigned_abs();

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Free,
    /// The guest has asked for it.
    Asked,
    /// The guest is asked whether it takes it.
    Offered,
    /// It is there.
    Open,
}

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// Nobody any more.
    Nobody,
    /// Another guest.
    Guest(Slot),
    /// What sends back what it gets.
    Echo,
    /// What hears the guest's agent.
    Agent,
}

/// Whose half, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) station: usize,
    pub(super) index: usize,
}

/// Who speaks with whom: the guest's port, and the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) own_port: u32,
    pub(super) peer_cid: u32,
    pub(super) peer_port: u32,
}

/// Whether the guest is to hear that the connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    No,
    /// After what there is for it: it has missed nothing.
    AfterData,
    /// At once.
    Now,
}

/// What is to be said to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Saying {
    pub(super) op: VsockOp,
    pub(super) flags: u32,
    pub(super) length: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) state: State,
    pub(super) other: Other,
    pub(super) pair: Pair,
    /// Another guest has asked for it.
    pub(super) is_offer: bool,
    /// `Request` or `Response`, until the guest has got it.
    opening: Option<VsockOp>,
    /// Bytes for the guest. It has room for [`WINDOW`] from the beginning.
    waiting: VecDeque<u8>,
    /// Bytes that the guest has sent; that are no concern of the host's any more; and of which the guest knows that.
    received: u32,
    forwarded: u32,
    told: u32,
    /// Bytes that the guest has been sent, and what it has said of its room.
    sent: u32,
    buf_alloc: u32,
    fwd_cnt: u32,
    /// The guest has asked how much room there is.
    queried: bool,
    /// What the guest does not do any more.
    pub(super) shut: u32,
    /// What the other end does not do any more, which the guest does not know.
    shutdown: u32,
    reset: Reset,
}

impl Half {
    /// One that is free; `None` if there is no memory.
    pub(super) fn new() -> Option<Self> {
        let mut waiting = VecDeque::new();
        waiting.try_reserve_exact(usize::try_from(WINDOW).ok()?).ok()?;
        Some(Self::with(waiting, State::Free, Pair::default(), Other::Nobody, None))
    }

    fn with(waiting: VecDeque<u8>, state: State, pair: Pair, other: Other, opening: Option<VsockOp>) -> Self {
        Self {
            state,
            other,
            pair,
            is_offer: state == State::Offered,
            opening,
            waiting,
            received: 0,
            forwarded: 0,
            told: 0,
            sent: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
            queried: false,
            shut: 0,
            shutdown: 0,
            reset: Reset::No,
        }
    }

    /// A connection begins.
    pub(super) fn begin(&mut self, state: State, pair: Pair, other: Other, opening: Option<VsockOp>) {
        let mut waiting = core::mem::take(&mut self.waiting);
        waiting.clear();
        *self = Self::with(waiting, state, pair, other, opening);
    }

    /// There is none any more. Says what was at the other end.
    pub(super) fn free(&mut self) -> Other {
        let other = self.other;
        self.begin(State::Free, Pair::default(), Other::Nobody, None);
        other
    }

    /// The other end has taken it.
    pub(super) fn answer(&mut self) {
        (self.state, self.opening) = (State::Open, Some(VsockOp::Response));
    }

    /// Whether the guest has been asked for its answer.
    pub(super) fn is_asked(&self) -> bool {
        self.state == State::Offered && self.opening.is_none()
    }

    /// The guest says what it has room for. Says whether that can be: it cannot be done with what it has not been sent.
    #[must_use]
    pub(super) fn note(&mut self, packet: &VsockPacket) -> bool {
        let behind = self.sent.wrapping_sub(packet.fwd_cnt);
        // Packets of a guest's threads may overtake each other: an older word is no lie, but not heard.
        if behind <= self.sent.wrapping_sub(self.fwd_cnt) {
            (self.buf_alloc, self.fwd_cnt) = (packet.buf_alloc, packet.fwd_cnt);
        }
        behind <= MOST
    }

    /// The guest sends so many bytes. Says whether it may.
    #[must_use]
    pub(super) fn accept(&mut self, length: u32) -> bool {
        let may = length <= WINDOW.saturating_sub(self.received.wrapping_sub(self.forwarded));
        if may {
            self.received = self.received.wrapping_add(length);
        }
        may
    }

    /// Bytes for the guest, whose sender has kept to its window. Says whether there were none.
    pub(super) fn put(&mut self, bytes: &[u8]) -> bool {
        let was_empty = self.waiting.is_empty();
        let room = usize::try_from(WINDOW).unwrap_or(0).saturating_sub(self.waiting.len());
        self.waiting.extend(bytes.get(..bytes.len().min(room)).unwrap_or_default());
        was_empty
    }

    /// So many bytes of the guest's have arrived where they go. Says whether the guest is to hear of that.
    pub(super) fn forward(&mut self, length: u32) -> bool {
        self.forwarded = self.forwarded.wrapping_add(length);
        self.owes_credit()
    }

    fn owes_credit(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= WINDOW / 2
    }

    /// The guest wants to know how much room there is.
    pub(super) fn query(&mut self) {
        self.queried = true;
    }

    /// The other end does not receive or send any more.
    pub(super) fn shut_down(&mut self, flags: u32) {
        self.shutdown |= flags;
    }

    /// The connection is to end, for the guest at once.
    pub(super) fn reset(&mut self) {
        self.reset = Reset::Now;
    }

    /// The other end has gone, and with it what it has not taken. The guest hears of it after what came from there; at once if something
    /// of its own is lost, or if it does not receive any more. Says whether it is to hear of it at all: what it has not been asked it need
    /// not be told.
    pub(super) fn abandon(&mut self) -> bool {
        let unknown = self.state == State::Offered && self.opening.is_some();
        let is_lost = self.received != self.forwarded;
        let hears = self.state == State::Open && !is_lost && self.shut & vdev::VSOCK_RECEIVE == 0;
        self.other = Other::Nobody;
        self.reset = if hears { Reset::AfterData } else { Reset::Now };
        !unknown
    }

    /// How many bytes the guest has room for (5.10.6.3, `peer_free`).
    fn credit(&self) -> u32 {
        self.buf_alloc.min(MOST).saturating_sub(self.sent.wrapping_sub(self.fwd_cnt))
    }

    /// What is to be said next, with as many bytes in `into` as it says. After `Rst` the half is to be freed.
    pub(super) fn say(&mut self, into: &mut [u8]) -> Option<Saying> {
        let plain = |op| Some(Saying { op, flags: 0, length: 0 });
        let saying = if self.reset == Reset::Now {
            plain(VsockOp::Rst)
        } else if let Some(op) = self.opening.take() {
            plain(op)
        } else if self.state == State::Open {
            match self.data(into) {
                0 if self.queried || self.owes_credit() => {
                    self.queried = false;
                    plain(VsockOp::CreditUpdate)
                }
                0 if !self.waiting.is_empty() => None,
                0 if self.shutdown != 0 => {
                    let flags = core::mem::take(&mut self.shutdown);
                    Some(Saying { op: VsockOp::Shutdown, flags, length: 0 })
                }
                0 if self.reset == Reset::AfterData => plain(VsockOp::Rst),
                0 => None,
                length => Some(Saying { op: VsockOp::Rw, flags: 0, length }),
            }
        } else {
            None
        };
        if saying.is_some() {
            self.told = self.forwarded;
        }
        saying
    }

    /// What [`Half::say`] has said the guest knows of the room for it.
    pub(super) const fn told(&self) -> u32 {
        self.told
    }

    /// Moves bytes for the guest, as many as it has room for. Says how many.
    fn data(&mut self, into: &mut [u8]) -> u32 {
        let most = self.waiting.len().min(into.len()).min(usize::try_from(self.credit()).unwrap_or(usize::MAX));
        let (first, second) = self.waiting.as_slices();
        let split = first.len().min(most);
        let (into_first, into_second) = into.split_at_mut_checked(split).unwrap_or_default();
        let copy = |to: &mut [u8], from: &[u8]| to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        copy(into_first, first);
        copy(into_second.get_mut(..most.saturating_sub(split)).unwrap_or_default(), second);
        self.waiting.drain(..most);
        let length = u32::try_from(most).unwrap_or(WINDOW);
        self.sent = self.sent.wrapping_add(length);
        length
    }

    /// Bytes that wait for the guest, for tests.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.waiting.len()
    }
}
