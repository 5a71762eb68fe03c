//! Frames for the guest (virtio 1.3, 5.1.6.3, 5.1.6.4).
//!
//! Answers for: finding buffers for a frame and filling them. Does not answer for: where frames come from, the control queue.

use super::layout::{Header, feature, header_size};
use alloc::{sync::Arc, vec::Vec};
use vdev::{Frame, NetPort, Offloads, Received};
use virtio::{Features, Next, Request, Service, Serving, Stopped};
use zerocopy::IntoBytes;

/// Frames that are received in one step.
const BATCH: usize = 16;
/// Most buffers of a frame: the longest has room in so many of 1 KiB.
const MOST_BUFFERS: usize = 65;

/// Puts frames into the buffers that the driver offers.
pub(super) struct Receiver {
    port: Arc<dyn NetPort>,
    legacy: bool,
    queue_size: u16,
    header_size: usize,
    /// A frame may be in several buffers.
    merges: bool,
    /// Buffers, of which the first `held` are the driver's and empty. More are made when they are needed.
    requests: Vec<Request>,
    held: usize,
}

impl Receiver {
    pub(super) fn new(port: Arc<dyn NetPort>, queue_size: u16, legacy: bool) -> Self {
        Self { port, legacy, queue_size, header_size: 0, merges: false, requests: Vec::new(), held: 0 }
    }

    /// Has one more buffer at hand, if there is one.
    fn hold(&mut self, work: &mut Serving<'_, '_>) -> bool {
        if self.held == self.requests.len() {
            self.requests.push(Request::new(self.queue_size));
        }
        let popped = self.requests.get_mut(self.held).is_some_and(|request| work.pop(request));
        if popped {
            self.held = self.held.saturating_add(1);
        }
        popped
    }

    /// How many buffers a packet takes. An error if they are not there: whether they may still come.
    fn count(&mut self, packet: u64, work: &mut Serving<'_, '_>) -> Result<usize, Missing> {
        let (mut room, most) = (0_u64, if self.merges { MOST_BUFFERS } else { 1 });
        for index in 0..most {
            if index >= self.held && !self.hold(work) {
                return Err(Missing::Yet);
            }
            room = room.saturating_add(self.requests.get_mut(index).map_or(0, Request::writable));
            if room >= packet {
                return Ok(index.saturating_add(1));
            }
        }
        Err(Missing::Ever)
    }

    /// Fills so many buffers, and gives them back.
    fn fill(&mut self, count: usize, frame: &mut Frame<'_, '_>, work: &mut Serving<'_, '_>) -> Result<(), Stopped> {
        let header = Header::of(&frame.unfinished, u16::try_from(count).unwrap_or(u16::MAX));
        let header = header.as_bytes().get(..self.header_size).unwrap_or_default();
        let requests = self.requests.get_mut(..count).unwrap_or_default();
        let mut index = 0_usize;
        let mut write = |part: &[u8], work: &mut Serving<'_, '_>| {
            let mut rest = part;
            while let Some(request) = requests.get_mut(index).filter(|_| !rest.is_empty()) {
                let written = work.write(request, rest)?;
                rest = rest.get(written..).unwrap_or_default();
                if !rest.is_empty() {
                    index = index.saturating_add(1);
                }
            }
            Ok(())
        };
        write(header, work)?;
        for part in &mut *frame.parts {
            write(part, work)?;
        }
        work.complete_together(requests)
    }

    /// One frame, if there are buffers for it.
    fn take(&mut self, mut frame: Frame<'_, '_>, work: &mut Serving<'_, '_>) -> Received {
        let length = u64::try_from(self.header_size.saturating_add(frame.length)).unwrap_or(u64::MAX);
        let count = match self.count(length, work) {
            Ok(count) => count,
            Err(Missing::Yet) => return Received::Left,
            // It does not fit, and is lost; the buffers are still empty.
            Err(Missing::Ever) => return Received::Taken,
        };
        if self.fill(count, &mut frame, work).is_ok() {
            self.requests.rotate_left(count);
            self.held = self.held.saturating_sub(count);
        } else {
            // They are void, or soon will be.
            self.held = 0;
        }
        Received::Taken
    }
}

/// There are too few buffers.
enum Missing {
    /// So far.
    Yet,
    /// More would not help.
    Ever,
}

impl Service for Receiver {
    fn begin(&mut self, features: Features) {
        self.header_size = header_size(features, self.legacy);
        self.merges = features.contains(feature::MRG_RXBUF);
        self.held = 0;
        // Without `GUEST_CSUM` there is no dividing by the driver either (5.1.3.1).
        let checksum = features.contains(feature::GUEST_CSUM);
        let tcp4 = checksum && features.contains(feature::GUEST_TSO4);
        let tcp6 = checksum && features.contains(feature::GUEST_TSO6);
        // By whoever takes frames out: so none is taken that came before.
        self.port.open(Offloads { checksum, tcp4, tcp6 });
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        // A queue that has been reset alone has taken with it what was held of it.
        let held = self.requests.get(..self.held).unwrap_or_default();
        if held.first().is_some_and(|request| !work.is_alive(request)) {
            self.held = 0;
        }
        let port = Arc::clone(&self.port);
        for _ in 0..BATCH {
            match port.receive(&mut |frame| self.take(frame, work)) {
                Received::Taken => {}
                Received::Left => return Next::Idle,
                Received::None => return Next::Rung,
            }
        }
        Next::Again
    }
}
