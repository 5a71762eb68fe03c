//! What an input device does with its queues (virtio 1.3, 5.8.6).
//!
//! Answers for: events into buffers that the driver has offered, and whether there are enough. Does not answer for: what the events
//! are (`layout`).
//!
//! Buffers for a whole press are taken out of the queue beforehand: so whoever presses the button knows at once whether the driver
//! will hear of it, and all events of a press come together, or none. What a driver says (`statusq`: there are no lights) is taken
//! and dropped.

use super::layout::{EVENTS, InputEvent, PRESS, QUEUE_SIZE, press};
use alloc::vec::Vec;
use vdev::Shared;
use virtio::{Features, Next, Request, Service, Serving, Stopped};
use zerocopy::IntoBytes;

/// Buffers that are taken, or messages that are dropped, in one step.
const BATCH: usize = 16;

/// What registers and queues know of each other.
#[derive(Debug, Default)]
pub(super) struct Button {
    /// How often a driver has come or gone: what is said of another one's buffers is void.
    life: u32,
    /// There are buffers for a press.
    is_ready: bool,
    /// It has been pressed, and the driver has not been told.
    is_due: bool,
    /// How often it has been pressed.
    pub(super) pressed: u32,
}

impl Button {
    /// Whether the driver would hear of it.
    pub(super) const fn can_be_pressed(&self) -> bool {
        self.is_ready || self.is_due
    }

    /// Somebody presses it. Says whether the driver will hear of it; of two presses at once it hears one.
    pub(super) fn press(&mut self) -> bool {
        let will_be_heard = self.can_be_pressed();
        if will_be_heard {
            (self.is_due, self.pressed) = (true, self.pressed.saturating_add(1));
        }
        will_be_heard
    }

    /// The driver goes, or another one comes.
    pub(super) fn forget(&mut self) {
        (self.life, self.is_ready, self.is_due) = (self.life.wrapping_add(1), false, false);
    }
}

/// Does what there is to do in both queues.
pub(super) struct Events {
    button: Shared<Button>,
    /// For the events of a press, in their order, and how many of them have a buffer.
    buffers: Vec<Request>,
    held: usize,
    /// For what the driver says.
    message: Request,
}

impl Events {
    pub(super) fn new(button: Shared<Button>) -> Self {
        let buffers = (0..PRESS).map(|_| Request::new(QUEUE_SIZE)).collect();
        Self { button, buffers, held: 0, message: Request::new(QUEUE_SIZE) }
    }

    /// Takes buffers until there are enough for a press. Says whether there are; `None` if there may be more in the queue.
    fn collect(&mut self, work: &mut Serving<'_, '_>) -> Option<bool> {
        // One that is void, as its queue has been reset alone, makes all of them.
        if self.buffers.first().is_some_and(|first| self.held > 0 && !work.is_alive(first)) {
            self.held = 0;
        }
        for _ in 0..BATCH {
            let Some(buffer) = self.buffers.get_mut(self.held) else { return Some(true) };
            if !work.pop(buffer) {
                return Some(false);
            }
            if buffer.writable() >= EVENT {
                self.held = self.held.saturating_add(1);
            } else {
                // It goes back as it came: no event fits.
                let _ = work.complete(buffer);
            }
        }
        if self.held == PRESS { Some(true) } else { None }
    }

    /// Tells the driver of a press.
    fn tell(&mut self, work: &mut Serving<'_, '_>) -> Result<(), Stopped> {
        self.held = 0;
        for (buffer, event) in self.buffers.iter_mut().zip(press()) {
            work.write(buffer, event.as_bytes())?;
        }
        work.complete_together(&self.buffers)
    }

    fn serve_events(&mut self, work: &mut Serving<'_, '_>) -> Next {
        // Before a buffer is taken: what comes of another life after this is seen below.
        let life = work.with(&self.button, |button, _| button.life);
        let Some(is_ready) = self.collect(work) else { return Next::Again };
        let is_due = work.with(&self.button, |button, _| {
            let is_same = button.life == life;
            let is_due = is_ready && is_same && core::mem::take(&mut button.is_due);
            button.is_ready = is_ready && is_same && !is_due;
            is_due
        });
        if !is_due {
            return Next::Idle;
        }
        if self.tell(work) == Err(Stopped) {
            // The queue has been reset meanwhile: its next buffers are for this press, if the driver is the same.
            work.with(&self.button, |button, _| button.is_due |= button.life == life);
        }
        Next::Again
    }

    fn drop_messages(&mut self, work: &mut Serving<'_, '_>) -> Next {
        for _ in 0..BATCH {
            if !work.pop(&mut self.message) {
                return Next::Idle;
            }
            let _ = work.complete(&self.message);
        }
        Next::Again
    }
}

/// Bytes of an event.
const EVENT: u64 = size_of::<InputEvent>() as u64;

impl Service for Events {
    fn begin(&mut self, _: Features) {
        self.held = 0;
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        if work.queue() == EVENTS { self.serve_events(work) } else { self.drop_messages(work) }
    }
}
