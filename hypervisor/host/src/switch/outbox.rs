//! What leaves a switch by a card.
//!
//! Answers for: taking frames of a port, one after the other, and giving them out as frames that any card sends. Does not answer for:
//! how those are made ([`super::divide`]), the card.

use super::divide::Parts;
use super::{PortId, Table, receive};
use alloc::{boxed::Box, vec::Vec};
use core::fmt;
use vdev::{MOST_FRAME, Offloads, Received};

/// One frame of a port at a time, and how much of it has left.
pub struct Outbox {
    frame: Box<[u8]>,
    length: usize,
    parts: Parts,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("length", &self.length).field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl Outbox {
    /// What the port of an outbox takes: everything, as the rest is done here.
    pub const TAKES: Offloads = Offloads { checksum: true, tcp4: true, tcp6: true };

    /// An empty one; `None` if there is no memory.
    #[must_use]
    pub fn new() -> Option<Self> {
        let mut frame = Vec::new();
        frame.try_reserve_exact(MOST_FRAME).ok()?;
        frame.resize(MOST_FRAME, 0);
        Some(Self { frame: frame.into_boxed_slice(), length: 0, parts: Parts::None })
    }

    /// Writes the next frame that is to leave to `into`, which has room for [`super::MOST_ON_WIRE`] bytes, and says how long it is.
    /// What cannot be sent is counted at the port, and nothing comes of it.
    pub fn next(&mut self, table: &impl Table, port: PortId, into: &mut [u8]) -> Next {
        if self.parts == Parts::None {
            match self.take(table, port) {
                Some(true) => {}
                Some(false) => return Next::Lost,
                None => return Next::None,
            }
        }
        let frame = self.frame.get(..self.length).unwrap_or_default();
        match self.parts.next(frame, into) {
            Some(length) => Next::Frame(length),
            None => {
                self.parts = Parts::None;
                Next::Lost
            }
        }
    }

    /// Takes a frame of the port. Says whether it can be sent.
    fn take(&mut self, table: &impl Table, port: PortId) -> Option<bool> {
        let (into, mut parts, mut length) = (&mut self.frame, None, 0);
        let received = receive(table, port, &mut |frame| {
            let unfinished = frame.unfinished;
            length = frame.length.min(into.len());
            let mut rest = into.get_mut(..length).unwrap_or_default();
            for part in frame.parts {
                let count = part.len().min(rest.len());
                let ((to, behind), from) = (rest.split_at_mut(count), part.get(..count).unwrap_or_default());
                to.copy_from_slice(from);
                rest = behind;
            }
            parts = into.get_mut(..length).and_then(|frame| Parts::of(frame, &unfinished));
            Received::Taken
        });
        if received == Received::None {
            return None;
        }
        self.length = length;
        self.parts = parts.unwrap_or(Parts::None);
        if parts.is_none() {
            table.with(|net| net.count_undivided(port));
        }
        Some(parts.is_some())
    }
}

/// What came of looking for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// There is one, of so many bytes.
    Frame(usize),
    /// There was one that cannot be sent.
    Lost,
    /// There is none.
    None,
}
