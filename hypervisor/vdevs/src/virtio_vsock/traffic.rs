//! Packets between queues and the host (virtio 1.3, 5.10.6).
//!
//! Answers for: reading what the driver sends, filling buffers, and telling of what has been lost. Does not answer for: what packets
//! mean.
//!
//! `rx` and `tx` never wait for each other but in one case: a guest that has been refused so often without looking that there is no room
//! for another refusal is not heard until it looks (5.10.6.1).

use super::layout::{Header, TRANSPORT_RESET, feature};
use super::{EVENT, RX, TX};
use alloc::{boxed::Box, sync::Arc, vec};
use vdev::{VSOCK_STREAM, VsockPacket, VsockPort};
use virtio::{Features, Next, Request, Service, Serving, Stopped};
use zerocopy::IntoBytes;

/// Packets in one step.
const BATCH: usize = 16;
/// Most bytes of data in a packet for the guest.
const MOST_DATA: usize = 4096;

/// Does what there is to do in the queues of a device.
pub(super) struct Traffic {
    port: Arc<dyn VsockPort>,
    /// There are stream sockets (5.10.3.2).
    streams: bool,
    /// A buffer of `rx`, and whether it is held.
    buffer: Request,
    holds: bool,
    data: Box<[u8]>,
    /// A packet that the driver sends, and whether it has to wait.
    request: Request,
    waiting: Option<VsockPacket>,
    /// The driver is to hear that its connections are lost.
    interrupted: bool,
    event: Request,
}

impl Traffic {
    pub(super) fn new(port: Arc<dyn VsockPort>, queue_size: u16) -> Self {
        let (buffer, request, event) = (Request::new(queue_size), Request::new(queue_size), Request::new(queue_size));
        let data = vec![0; MOST_DATA].into_boxed_slice();
        let (streams, holds, waiting, interrupted) = (true, false, None, false);
        Self { port, streams, buffer, holds, data, request, waiting, interrupted, event }
    }

    /// Fills buffers with what there is for the guest.
    fn receive(&mut self, work: &mut Serving<'_, '_>) -> Next {
        self.port.attend();
        for _ in 0..BATCH {
            self.holds = self.holds && work.is_alive(&self.buffer) || work.pop(&mut self.buffer);
            if !self.holds {
                // Not only for the driver: there may be word that it has gone.
                return Next::Rung;
            }
            let room = usize::try_from(self.buffer.writable()).unwrap_or(usize::MAX);
            let Some(room) = room.checked_sub(size_of::<Header>()) else {
                // Nothing can be said in it. One that is void is forgotten.
                self.holds = false;
                let _ = work.complete(&self.buffer);
                continue;
            };
            let into = self.data.get_mut(..room.min(MOST_DATA)).unwrap_or_default();
            let Some(packet) = self.port.receive(into) else { return Next::Rung };
            self.holds = false;
            if self.fill(&packet, work).is_err() {
                // The queue is not what it was when the packet was taken, and it cannot be put back.
                self.port.open();
                self.interrupted = true;
                work.serve_too(EVENT);
                return Next::Rung;
            }
            if self.waiting.is_some() {
                work.serve_too(TX);
            }
        }
        Next::Again
    }

    fn fill(&mut self, packet: &VsockPacket, work: &mut Serving<'_, '_>) -> Result<(), Stopped> {
        let length = usize::try_from(packet.len).unwrap_or(0);
        work.write(&mut self.buffer, Header::from(packet).as_bytes())?;
        work.write(&mut self.buffer, self.data.get(..length).unwrap_or_default())?;
        work.complete(&self.buffer)
    }

    /// Sends what the driver offers.
    fn transmit(&mut self, work: &mut Serving<'_, '_>) -> Next {
        for _ in 0..BATCH {
            if self.waiting.is_some() && !work.is_alive(&self.request) {
                self.waiting = None;
            }
            if self.waiting.is_none() {
                if !work.pop(&mut self.request) {
                    return Next::Idle;
                }
                self.waiting = self.begin(work);
            }
            if let Some(packet) = self.waiting {
                let request = &mut self.request;
                let sent = self.port.send(&packet, &mut |part| work.read(request, part) == Ok(part.len()));
                // It may have been answered.
                work.serve_too(RX);
                if !sent {
                    return Next::Rung;
                }
                self.waiting = None;
            }
            // One that is void has nobody who waits for it.
            let _ = work.complete(&self.request);
        }
        Next::Again
    }

    /// Reads what a packet begins with, if it is one.
    fn begin(&mut self, work: &mut Serving<'_, '_>) -> Option<VsockPacket> {
        let mut header = Header::default();
        let length = work.read(&mut self.request, header.as_mut_bytes());
        let packet = VsockPacket::from(&header);
        // A kind that has not been negotiated is one that nobody knows.
        let kind = if packet.kind == VSOCK_STREAM && !self.streams { 0 } else { packet.kind };
        (length == Ok(size_of::<Header>())).then_some(VsockPacket { kind, ..packet })
    }

    /// Tells the driver of what has been lost.
    fn tell(&mut self, work: &mut Serving<'_, '_>) -> Next {
        if self.interrupted && work.pop(&mut self.event) {
            let written = work.write(&mut self.event, &TRANSPORT_RESET).and_then(|_| work.complete(&self.event));
            self.interrupted = written.is_err();
        }
        Next::Idle
    }
}

impl Service for Traffic {
    fn begin(&mut self, features: Features) {
        self.streams = features.contains(feature::STREAM) || !features.contains(feature::NO_IMPLIED_STREAM);
        (self.holds, self.waiting, self.interrupted) = (false, None, false);
        self.port.open();
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        match work.queue() {
            RX => self.receive(work),
            TX => self.transmit(work),
            _ => self.tell(work),
        }
    }
}
