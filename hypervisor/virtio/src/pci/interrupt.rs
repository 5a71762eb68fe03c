//! The interrupts of a device on the PCI bus (4.1.4.5, 4.1.5.1.2, 4.1.5.3, 4.1.5.4).
//!
//! Answers for: ISR status, and which event has which vector. Does not answer for: whether messages are enabled, masked, or sent
//! (`::pci`).
//!
//! With messages enabled there are messages only. Else an event is in ISR status, and the pin is asserted while something is there.

use crate::serving::Signals;
use ::pci::Interrupts;
use alloc::{boxed::Box, vec};
use vdev::{Context, Shared};

/// Bits of ISR status.
const QUEUE: u8 = 1 << 0;
const CONFIGURATION: u8 = 1 << 1;

/// An event that is not told (`VIRTIO_MSI_NO_VECTOR`).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The device and its workers raise them, so their state has a lock of its own, behind those of the queues and before the function's.
#[derive(Clone, Debug)]
pub(super) struct Interrupt {
    function: Interrupts,
    state: Shared<State>,
}

#[derive(Debug)]
struct State {
    status: u8,
    /// Vectors, of changes of the configuration and of each queue.
    configuration: u16,
    queues: Box<[u16]>,
}

impl Interrupt {
    pub(super) fn new(function: Interrupts, queues: u16) -> Self {
        let queues = vec![NO_VECTOR; usize::from(queues)].into_boxed_slice();
        Self { function, state: Shared::new(State { status: 0, configuration: NO_VECTOR, queues }) }
    }

    /// What is in ISR status. Nothing is, afterwards.
    pub(super) fn take_status(&self, context: &mut Context<'_>) -> u8 {
        self.change(context, |state| core::mem::take(&mut state.status))
    }

    /// The vector of changes of the configuration.
    pub(super) fn configuration_vector(&self, context: &mut Context<'_>) -> u16 {
        self.state.with(context, |state, _| state.configuration)
    }

    /// The vector of a queue; [`NO_VECTOR`] if there is no such queue.
    pub(super) fn queue_vector(&self, queue: u16, context: &mut Context<'_>) -> u16 {
        self.state.with(context, |state, _| state.queues.get(usize::from(queue)).copied().unwrap_or(NO_VECTOR))
    }

    /// The driver gives changes of the configuration a vector; one that does not exist is none.
    pub(super) fn map_configuration(&self, vector: u16, context: &mut Context<'_>) {
        let vector = self.existing(vector);
        self.state.with(context, |state, _| state.configuration = vector);
    }

    /// The driver gives a queue a vector, likewise.
    pub(super) fn map_queue(&self, queue: u16, vector: u16, context: &mut Context<'_>) {
        let vector = self.existing(vector);
        self.state.with(context, |state, _| {
            if let Some(own) = state.queues.get_mut(usize::from(queue)) {
                *own = vector;
            }
        });
    }

    fn existing(&self, vector: u16) -> u16 {
        if vector < self.function.vectors() { vector } else { NO_VECTOR }
    }

    /// As after a reset of the device.
    pub(super) fn reset(&self, context: &mut Context<'_>) {
        self.change(context, |state| {
            (state.status, state.configuration) = (0, NO_VECTOR);
            state.queues.fill(NO_VECTOR);
        });
    }

    /// Messages may be enabled now, or not any more: the pin is told.
    pub(super) fn settle(&self, context: &mut Context<'_>) {
        self.change(context, |_| ());
    }

    fn change<R>(&self, context: &mut Context<'_>, change: impl FnOnce(&mut State) -> R) -> R {
        self.state.with(context, |state, context| {
            let result = change(state);
            self.function.set_level(state.status != 0 && !self.function.has_messages(), context);
            result
        })
    }
}

impl Signals for Interrupt {
    fn used(&self, queue: u16, context: &mut Context<'_>) {
        let vector = self.queue_vector(queue, context);
        if !self.function.send(vector, context) {
            self.change(context, |state| state.status |= QUEUE);
        }
    }

    /// 4.1.4.5.1: this event is in ISR status in either case.
    fn changed(&self, context: &mut Context<'_>) {
        let vector = self.configuration_vector(context);
        self.change(context, |state| state.status |= CONFIGURATION);
        self.function.send(vector, context);
    }
}
