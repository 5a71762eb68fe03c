//! What a device and its workers know of each other.
//!
//! Answers for: which queues live, and which of their lives it is; whether there is a driver, and whether the device may reach its memory;
//! who has been notified. Does not answer for: what follows from that ([`crate::Core`], [`super::Post`]).

use super::Signals;
use crate::{Features, Queue, RingError};
use alloc::{boxed::Box, sync::Arc};
use core::fmt;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use vdev::Context;

/// A queue as the device and its worker share it.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// There while the driver is there, and the queue is enabled.
    pub(super) queue: Option<Queue>,
    /// Which of its lives this is, and of the device's.
    pub(super) incarnation: u32,
    pub(super) life: u32,
}

impl Lane {
    pub(crate) fn open(&mut self, queue: Queue, state: &State) {
        (self.incarnation, self.life) = (self.incarnation.wrapping_add(1), state.life());
        self.queue = Some(queue);
    }

    pub(crate) fn close(&mut self) {
        self.queue = None;
    }
}

/// What the device and its workers tell each other without waiting.
pub(crate) struct State {
    pub(crate) signals: Arc<dyn Signals>,
    /// `DEVICE_NEEDS_RESET`.
    needs_reset: AtomicBool,
    /// The driver is there (`DRIVER_OK`).
    running: AtomicBool,
    /// The device is kept from the guest's memory.
    held: AtomicBool,
    /// How often a driver has come, and the features of the last one.
    life: AtomicU32,
    features: AtomicU64,
    /// The configuration space's generation (2.5).
    generation: AtomicU32,
    /// Queues of which the driver has notified.
    notes: Box<[AtomicBool]>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("running", &self.running).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn new(signals: Arc<dyn Signals>, queues: usize) -> Self {
        Self {
            signals,
            needs_reset: AtomicBool::new(false),
            running: AtomicBool::new(false),
            held: AtomicBool::new(false),
            life: AtomicU32::new(0),
            features: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            notes: (0..queues).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Acquire)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Acquire)
    }

    /// Whether the device is kept from the memory of a driver that is there. Without one there is nothing to be kept from.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Acquire) && self.is_running()
    }

    /// The device is to be kept from the guest's memory, or not any more. Says whether it was.
    pub(crate) fn hold(&self, held: bool) -> bool {
        self.held.swap(held, AcqRel)
    }

    pub(super) fn life(&self) -> u32 {
        self.life.load(Acquire)
    }

    /// What the driver has chosen that there is, or was.
    pub(super) fn features(&self) -> Features {
        Features::from_bits_retain(self.features.load(Relaxed))
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Acquire)
    }

    /// A driver is there. Its queues are open, or will be.
    pub(crate) fn start(&self, features: Features) {
        self.features.store(features.bits(), Relaxed);
        self.life.fetch_add(1, Release);
        self.running.store(true, Release);
    }

    /// There is none any more. Lanes are to be closed after this.
    pub(crate) fn stop(&self) {
        self.running.store(false, Release);
        self.notes.iter().for_each(|note| note.store(false, Relaxed));
    }

    /// What was wrong is forgotten. Lanes have been closed before this, so that nobody adds to it.
    pub(crate) fn forget(&self) {
        self.needs_reset.store(false, Release);
    }

    /// The driver has notified of a queue. Says whether there is such a queue.
    pub(crate) fn note(&self, queue: u16) -> bool {
        let note = self.notes.get(usize::from(queue));
        note.inspect(|note| note.store(true, Release)).is_some()
    }

    pub(super) fn has_note(&self, queue: u16) -> bool {
        self.notes.get(usize::from(queue)).is_some_and(|note| note.load(Acquire))
    }

    pub(super) fn take_note(&self, queue: u16) -> bool {
        self.notes.get(usize::from(queue)).is_some_and(|note| note.swap(false, Acquire))
    }

    /// The configuration space is another than it was. It changes in the device's calls only, whose lock keeps it together.
    pub(crate) fn change(&self, context: &mut Context<'_>) {
        self.generation.fetch_add(1, Release);
        if self.is_running() {
            self.signals.changed(context);
        }
    }

    /// The driver has made a mistake: nothing more is done for it before a reset (2.1.2).
    pub(crate) fn fail(&self, queue: u16, error: RingError, context: &mut Context<'_>) {
        context.log(log::Level::Warn, format_args!("queue {queue}: the driver's mistake, it has to reset: {error}"));
        self.needs_reset.store(true, Release);
        if self.is_running() {
            self.signals.failed(context);
        }
    }
}
