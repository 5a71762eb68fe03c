//! What a kind of virtio device is, whichever transport carries it.
//!
//! Answers for: the two halves of a device model. [`Model`] is what the driver finds at the device's registers; it is called while the
//! guest's vCPU waits. [`Service`] does the requests; it is called in a worker's thread, and reaches queues and buffers through
//! [`crate::Serving`] only. What both have to know they share ([`vdev::Shared`]). Does not answer for: when they are called
//! ([`crate::Core`]).

use crate::{Features, Serving};
use alloc::{boxed::Box, vec::Vec};
use core::fmt;
use core::ops::Range;
use types::Ticks;
use vdev::{Context, Wake};

/// What a device says of itself, once, when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its kind (5, "Device Types").
    pub device_id: u16,
    /// Its class on a PCI bus: base class in bits 23 to 16, subclass, programming interface (PCI Code and ID Assignment).
    pub class: u32,
    /// What it offers besides what all devices do, which is no concern of its own.
    pub features: Features,
    /// Its queues: most entries of each, a power of two. While a chain is taken out of a queue interrupts are masked, so these bound
    /// how long that takes: 256 is plenty.
    pub queues: Vec<u16>,
    /// Bytes of its configuration space.
    pub configuration_size: u16,
}

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The driver has chosen these features, and will not change its mind before a reset.
    Negotiated(Features),
    /// The driver is there (`DRIVER_OK`): requests may come.
    Started,
    /// The driver has reset the device. No request is done any more.
    Reset,
    /// What the device waited for has come.
    Woken(Wake),
}

/// The half of a device that its driver finds at the registers. Whoever calls holds the device's lock, with interrupts masked.
pub trait Model: Send {
    /// What it is. Asked once.
    fn description(&self) -> Description;

    /// The driver reads the configuration space, from `offset` on; all of it is within. It is little-endian.
    fn read_configuration(&mut self, offset: u16, into: &mut [u8], context: &mut Context<'_>) {
        let _ = (offset, context);
        into.fill(0);
    }

    /// The driver writes to it.
    fn write_configuration(&mut self, offset: u16, from: &[u8], context: &mut Context<'_>) {
        let _ = (offset, from, context);
    }

    /// What the status report says of it, on one line behind what the driver has negotiated: nothing, or beginning with `; `.
    ///
    /// # Errors
    /// If the report is full.
    fn report(&mut self, into: &mut dyn fmt::Write, context: &mut Context<'_>) -> fmt::Result {
        let _ = (into, context);
        Ok(())
    }

    /// Something has happened. Says whether the configuration space has changed because of it, other than by the driver.
    fn event(&mut self, event: Event, context: &mut Context<'_>) -> bool {
        let _ = (event, context);
        false
    }
}

/// The half of a device that does requests, of one queue or several.
pub trait Service: Send {
    /// A life of the device begins, with these features. What it still has of another is void.
    fn begin(&mut self, features: Features) {
        let _ = features;
    }

    /// Does a part of the work on a queue, as short as it can be well done: a handful of requests. The driver is told of those that
    /// have been completed when this returns. Called when the driver has notified, and as the last call has said.
    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next;

    /// Whether it may wait for something: see [`vdev::Worker::waits`].
    fn waits(&self) -> bool {
        false
    }
}

/// When a queue is to be served next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there may be more.
    Again,
    /// When the driver notifies, or the device's back end has woken it. To hear of the next request only after [`Serving::pop`] has
    /// found nothing, which has the driver notify.
    Idle,
    /// At that time, or when the driver notifies.
    Until(Ticks),
    /// When the service is rung, by whomever: its back end does so.
    Rung,
}

/// A whole device.
pub struct Parts {
    /// What is at its registers.
    pub model: Box<dyn Model>,
    /// Who does its requests, and of which queues: each has a thread.
    pub services: Vec<(Range<u16>, Box<dyn Service>)>,
}

impl core::fmt::Debug for Parts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Parts").field("description", &self.model.description()).finish_non_exhaustive()
    }
}
