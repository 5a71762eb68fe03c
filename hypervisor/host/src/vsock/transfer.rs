//! A packet's way to its receiver.
//!
//! Answers for: what is done with the lock held and what is not: memory of guests is read and written without. Does not answer for:
//! where packets go.

use super::{Accepted, Door, Hub, Signals, StationId};
use vdev::{FillFrame, VsockPacket};

/// Bytes that are moved at once with the lock held.
const PIECE: usize = 2048;

/// The one [`Hub`], behind its lock.
pub trait Table {
    /// How stations' devices are reached.
    type Door: Door;

    /// Does something with it, which does not take long.
    fn with<R>(&self, work: impl FnOnce(&mut Hub<Self::Door>) -> R) -> R;
}

/// Looks after what there have been signals of, if any; see [`vdev::VsockPort::attend`].
pub fn attend(table: &impl Table, signals: &Signals, id: StationId) {
    if signals.concern(id) {
        table.with(|hub| hub.attend(id));
    }
}

/// A guest has sent a packet; see [`vdev::VsockPort::send`].
pub fn send(table: &impl Table, id: StationId, packet: &VsockPacket, fill: &mut FillFrame<'_>) -> bool {
    match table.with(|hub| hub.accept(id, packet)) {
        Accepted::Done => return true,
        Accepted::Full => return false,
        Accepted::Data => {}
    }
    let mut piece = [0; PIECE];
    // Not more than a window.
    let mut left = usize::try_from(packet.len).unwrap_or(0);
    while let Some(part) = piece.get_mut(..left.min(PIECE)).filter(|part| !part.is_empty()) {
        if !fill(part) {
            table.with(|hub| hub.cut(id, packet));
            break;
        }
        table.with(|hub| hub.put(id, packet, part));
        left = left.saturating_sub(part.len());
    }
    true
}

/// The next packet for a guest; see [`vdev::VsockPort::receive`].
pub fn receive(table: &impl Table, id: StationId, into: &mut [u8]) -> Option<VsockPacket> {
    table.with(|hub| hub.next(id, into))
}
