//! Frames from the guest, and its orders (virtio 1.3, 5.1.6.2, 5.1.6.5).
//!
//! Answers for: reading packets and sending what is one. Does not answer for: what orders there are ([`super::control`]), where frames
//! go.

use super::control::Control;
use super::layout::{Header, header_size};
use super::{CONTROL, TRANSMIT};
use alloc::sync::Arc;
use types::Ticks;
use vdev::{LEAST_FRAME, MOST_FRAME, NetFilter, NetPort, Sent, Unfinished};
use virtio::{Features, Next, Request, Service, Serving, Stopped};
use zerocopy::IntoBytes;

/// Packets that are sent in one step.
const BATCH: usize = 16;

/// Sends what the driver offers, and follows its orders.
pub(super) struct Sender {
    port: Arc<dyn NetPort>,
    legacy: bool,
    features: Features,
    header_size: usize,
    request: Request,
    /// What `request` has to send, if that has to wait.
    waiting: Option<(Unfinished, usize)>,
    control: Control,
}

impl Sender {
    pub(super) fn new(port: Arc<dyn NetPort>, queue_size: u16, legacy: bool) -> Self {
        let (features, request) = (Features::empty(), Request::new(queue_size));
        let control = Control::new(Request::new(queue_size));
        Self { port, legacy, features, header_size: 0, request, waiting: None, control }
    }

    /// Reads what a packet begins with. `None` if it is none that could be sent.
    fn begin(&mut self, work: &mut Serving<'_, '_>) -> Result<Option<(Unfinished, usize)>, Stopped> {
        let mut header = Header::default();
        let into = header.as_mut_bytes().get_mut(..self.header_size).unwrap_or_default();
        let is_whole = work.read(&mut self.request, into)? == self.header_size;
        let length = usize::try_from(self.request.readable()).unwrap_or(usize::MAX);
        if !is_whole || !(LEAST_FRAME..=MOST_FRAME).contains(&length) {
            return Ok(None);
        }
        Ok(header.unfinished(self.features, length).map(|unfinished| (unfinished, length)))
    }

    /// Sends what the request has.
    fn send(&mut self, work: &mut Serving<'_, '_>, unfinished: Unfinished, length: usize) -> Result<Sent, Stopped> {
        let (request, mut stopped) = (&mut self.request, false);
        let sent = self.port.send(work.now(), unfinished, length, &mut |part| match work.read(request, part) {
            Ok(count) => count == part.len(),
            Err(Stopped) => {
                stopped = true;
                false
            }
        });
        if stopped { Err(Stopped) } else { Ok(sent) }
    }

    /// The next packet. An error if it has to wait: when it goes on; what is void is forgotten.
    fn transmit(&mut self, work: &mut Serving<'_, '_>) -> Result<(), Ticks> {
        let packet = match self.waiting.take() {
            Some(waiting) => Ok(Some(waiting)),
            None => self.begin(work),
        };
        let sent = match packet {
            Ok(Some((unfinished, length))) => match self.send(work, unfinished, length) {
                Ok(Sent::Wait(when)) => {
                    self.waiting = Some((unfinished, length));
                    return Err(when);
                }
                Ok(Sent::Gone) => Ok(()),
                Err(Stopped) => Err(Stopped),
            },
            Ok(None) => Ok(()),
            Err(Stopped) => Err(Stopped),
        };
        // One that is void has nobody who waits for it.
        let _ = sent.and_then(|()| work.complete(&self.request));
        Ok(())
    }
}

impl Service for Sender {
    fn begin(&mut self, features: Features) {
        (self.features, self.waiting) = (features, None);
        self.header_size = header_size(features, self.legacy);
        self.control.begin(features);
        self.port.set_filter(&NetFilter::default());
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        match work.queue() {
            TRANSMIT => {
                for _ in 0..BATCH {
                    if self.waiting.is_none() && !work.pop(&mut self.request) {
                        return Next::Idle;
                    }
                    if let Err(when) = self.transmit(work) {
                        return Next::Until(when);
                    }
                }
                Next::Again
            }
            CONTROL => self.control.serve(&*self.port, work),
            _ => Next::Idle,
        }
    }
}
