//! A frame's way from its sender to its receivers.
//!
//! Answers for: what is done with the lock held and what is not: all copying is done without. Does not answer for: where frames go.

use super::{Door, Net, PortId};
use types::Ticks;
use vdev::{FillFrame, Frame, Received, Sent, TakeFrame, Unfinished};

/// The one [`Net`], behind its lock.
pub trait Table {
    /// How ports' devices are reached.
    type Door: Door;

    /// Does something with it, which does not take long.
    fn with<R>(&self, work: impl FnOnce(&mut Net<Self::Door>) -> R) -> R;
}

/// Sends a frame; see [`vdev::NetPort::send`].
pub fn send(
    table: &impl Table,
    id: PortId,
    now: Ticks,
    unfinished: Unfinished,
    length: usize,
    fill: &mut FillFrame<'_>,
) -> Sent {
    let mut frame = match table.with(|net| net.begin(id, now, unfinished, length)) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Sent::Gone,
        Err(when) => return Sent::Wait(when),
    };
    if !frame.fill(fill) {
        table.with(|net| net.give_back(id, frame));
        return Sent::Gone;
    }
    let mut whom = table.with(|net| net.route(id, &frame));
    let last = whom.pop();
    for to in whom {
        // In pieces of the sender's: if it dies here, nobody else misses them.
        if let Some(mut copy) = table.with(|net| net.second(id, &frame)) {
            copy.copy_from(&frame);
            table.with(|net| net.hand_over(id, to, copy));
        }
    }
    table.with(|net| match last {
        Some(to) => net.hand_over(id, to, frame),
        None => net.give_back(id, frame),
    });
    Sent::Gone
}

/// Has `take` look at the first frame that waits; see [`vdev::NetPort::receive`].
pub fn receive(table: &impl Table, id: PortId, take: &mut TakeFrame<'_>) -> Received {
    let Some((mut frame, takes)) = table.with(|net| net.next(id)) else { return Received::None };
    if !takes.checksum {
        frame.finish_checksum();
    }
    let (unfinished, length) = (frame.unfinished, frame.length);
    let mut parts = frame.parts();
    let received = take(Frame { unfinished, length, parts: &mut parts });
    drop(parts);
    table.with(|net| net.finish(id, frame, received != Received::Left));
    received
}
