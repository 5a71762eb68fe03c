//! What a console device does with its queues (virtio 1.3, 5.3.6).
//!
//! Answers for: bytes between a port's queues and its back end, and control messages between their queues and what is due. Does not
//! answer for: what that is (`conversation`), what stands behind a port (the host's).

use super::conversation::Conversation;
use super::layout::{CONTROL_RECEIVE, Control, QUEUES_OF_ONE, Role, event, feature, receive_queue};
use alloc::{boxed::Box, string::String, vec::Vec};
use core::ops::Range;
use vdev::{CharDevice, Context, Shared, Taken};
use virtio::{Features, Next, Request, Service, Serving, Stopped};
use zerocopy::IntoBytes;

/// Bytes that are passed on at once, with interrupts masked.
const PIECE: usize = 1024;
/// Pieces of output, or buffers of input, or messages, in one step.
const BATCH: usize = 16;

/// What stands behind a port. The device writes to it in an emergency, the service all the time.
pub(super) struct End {
    wire: Box<dyn CharDevice>,
    /// Bytes of output that there was no space for.
    pub(super) dropped: u64,
}

impl End {
    pub(super) fn new(wire: Box<dyn CharDevice>) -> Self {
        Self { wire, dropped: 0 }
    }

    /// Passes on as much as there is space for. Says how much that was.
    fn pass_on(&mut self, bytes: &[u8], context: &mut Context<'_>) -> usize {
        let (count, taken) = self.wire.append(bytes);
        if taken == Taken::Ring {
            context.output();
        }
        count
    }

    /// The same, and what there is no space for is lost.
    pub(super) fn pass_on_or_drop(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        let lost = bytes.len().saturating_sub(self.pass_on(bytes, context));
        self.dropped = self.dropped.saturating_add(u64::try_from(lost).unwrap_or(u64::MAX));
    }

    /// What has come in, as much as `into` has room for. Says how much.
    fn take_in(&mut self, into: &mut [u8]) -> usize {
        let mut count = 0_usize;
        for (into, byte) in into.iter_mut().zip(core::iter::from_fn(|| self.wire.read())) {
            *into = byte;
            count = count.saturating_add(1);
        }
        count
    }
}

/// A port.
pub(super) struct Port {
    /// Empty: it has none.
    pub(super) name: String,
    pub(super) end: Shared<End>,
    conversation: Conversation,
    input: Input,
    output: Output,
}

impl Port {
    pub(super) fn new(name: String, end: Shared<End>, queue_size: u16) -> Self {
        let (input, output) = (Input::new(queue_size), Output::new(queue_size));
        Self { name, end, conversation: Conversation::default(), input, output }
    }
}

/// The buffer that is to get input.
struct Input {
    request: Request,
    /// It is there, and nothing has come in.
    waits: bool,
}

/// Output under way.
struct Output {
    request: Request,
    /// There is a request, of which not everything has been passed on.
    is_begun: bool,
    bytes: [u8; PIECE],
    /// What of them has not been passed on.
    rest: Range<usize>,
}

/// Does what there is to do in all queues of a device.
pub(super) struct Ports {
    ports: Vec<Port>,
    /// Output waits for space, and is not dropped.
    waits: bool,
    /// `VIRTIO_CONSOLE_F_MULTIPORT` has been negotiated.
    multiport: bool,
    /// For messages, one at a time.
    message: Request,
}

impl Ports {
    pub(super) fn new(ports: Vec<Port>, waits: bool, queue_size: u16) -> Self {
        Self { ports, waits, multiport: false, message: Request::new(queue_size) }
    }
}

impl Service for Ports {
    fn begin(&mut self, features: Features) {
        self.multiport = features.contains(feature::MULTIPORT);
        for port in &mut self.ports {
            port.conversation = Conversation::default();
            port.input.waits = false;
            (port.output.is_begun, port.output.rest) = (false, 0..0);
        }
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        if work.queue() >= QUEUES_OF_ONE && !self.multiport {
            return Next::Idle;
        }
        match Role::of(work.queue()) {
            Role::Receive(port) => match self.ports.get_mut(port) {
                // What comes for a port that nobody has open waits where it is.
                Some(port) if port.conversation.is_open() || !self.multiport => port.input.serve(&port.end, work),
                _ => Next::Idle,
            },
            Role::Transmit(port) => match self.ports.get_mut(port) {
                Some(port) => port.output.serve(&port.end, self.waits, work),
                None => Next::Idle,
            },
            Role::ControlReceive => self.speak(work),
            Role::ControlTransmit => self.listen(work),
        }
    }
}

impl Ports {
    /// Says what is due, as far as the driver has buffers for it.
    fn speak(&mut self, work: &mut Serving<'_, '_>) -> Next {
        for _ in 0..BATCH {
            let due = |(id, port): (u32, &mut Port)| port.conversation.due().map(|message| (id, message));
            let Some((id, message)) = (0..).zip(&mut self.ports).find_map(due) else { return Next::Idle };
            if !work.pop(&mut self.message) {
                return Next::Idle;
            }
            let Some(port) = usize::try_from(id).ok().and_then(|id| self.ports.get_mut(id)) else { return Next::Idle };
            let header = Control { id: id.into(), event: message.event().into(), value: 1.into() };
            let name = if message.event() == event::PORT_NAME { port.name.as_bytes() } else { &[] };
            if say(&header, name, &mut self.message, work).is_ok() {
                port.conversation.said(message);
            }
        }
        Next::Again
    }

    /// Hears what the driver says.
    fn listen(&mut self, work: &mut Serving<'_, '_>) -> Next {
        for _ in 0..BATCH {
            if !work.pop(&mut self.message) {
                return Next::Idle;
            }
            let mut message = Control::default();
            let length = work.read(&mut self.message, message.as_mut_bytes());
            let completed = work.complete(&self.message);
            if length == Ok(size_of::<Control>()) && completed.is_ok() {
                self.hear(&message, work);
            }
        }
        Next::Again
    }

    /// A message of the driver's. It is nobody's business if it does not make sense.
    fn hear(&mut self, message: &Control, work: &mut Serving<'_, '_>) {
        let (number, yes) = (usize::try_from(message.id.get()).unwrap_or(usize::MAX), message.value.get() == 1);
        match (message.event.get(), self.ports.get_mut(number)) {
            (event::DEVICE_READY, _) if yes => {
                self.ports.iter_mut().for_each(|port| port.conversation.device_is_ready());
            }
            // Port 0 is the console (5.3.5).
            (event::PORT_READY, Some(port)) if yes => {
                port.conversation.port_is_ready(number == 0, !port.name.is_empty());
            }
            (event::PORT_OPEN, Some(port)) => {
                port.conversation.set_open(yes);
                work.serve_too(receive_queue(number));
            }
            _ => {}
        }
        work.serve_too(CONTROL_RECEIVE);
    }
}

/// Puts a message into a buffer, as much of it as there is room for.
fn say(header: &Control, name: &[u8], message: &mut Request, work: &mut Serving<'_, '_>) -> Result<(), Stopped> {
    work.write(message, header.as_bytes())?;
    work.write(message, name)?;
    work.complete(message)
}

impl Input {
    fn new(queue_size: u16) -> Self {
        Self { request: Request::new(queue_size), waits: false }
    }

    /// Puts what has come in into buffers.
    fn serve(&mut self, end: &Shared<End>, work: &mut Serving<'_, '_>) -> Next {
        for _ in 0..BATCH {
            self.waits = self.waits && work.is_alive(&self.request) || work.pop(&mut self.request);
            if !self.waits {
                return Next::Idle;
            }
            let mut bytes = [0; PIECE];
            let room = usize::try_from(self.request.writable()).unwrap_or(PIECE).min(PIECE);
            let into = bytes.get_mut(..room).unwrap_or_default();
            let count = work.with(end, |end, _| end.take_in(into));
            if count == 0 && room > 0 {
                // The buffer stays until something comes: its back end wakes the device then.
                return Next::Idle;
            }
            self.waits = false;
            if work.write(&mut self.request, bytes.get(..count).unwrap_or_default()).is_ok() {
                // One that is void is forgotten.
                let _ = work.complete(&self.request);
            }
        }
        Next::Again
    }
}

impl Output {
    fn new(queue_size: u16) -> Self {
        Self { request: Request::new(queue_size), is_begun: false, bytes: [0; PIECE], rest: 0..0 }
    }

    /// Passes on what the guest has written. What there is no space for `waits`, or is lost.
    fn serve(&mut self, end: &Shared<End>, waits: bool, work: &mut Serving<'_, '_>) -> Next {
        for _ in 0..BATCH {
            self.is_begun = self.is_begun || work.pop(&mut self.request);
            if !self.is_begun {
                return Next::Idle;
            }
            if self.rest.is_empty() {
                // If the request is void, nothing comes of it any more.
                self.rest = 0..work.read(&mut self.request, &mut self.bytes).unwrap_or(0);
            }
            let bytes = self.bytes.get(self.rest.clone()).unwrap_or_default();
            if waits && !bytes.is_empty() {
                let count = work.with(end, |end, context| end.pass_on(bytes, context));
                if count == 0 {
                    // The back end wakes the device when there is space.
                    return Next::Idle;
                }
                self.rest.start = self.rest.start.saturating_add(count);
            } else {
                work.with(end, |end, context| end.pass_on_or_drop(bytes, context));
                self.rest = 0..0;
            }
            if self.rest.is_empty() && (self.request.readable() == 0 || !work.is_alive(&self.request)) {
                self.is_begun = false;
                let _ = work.complete(&self.request);
            }
        }
        Next::Again
    }
}
