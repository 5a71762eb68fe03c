//! What all virtio devices have in common.
//!
//! Answers for: virtqueues ([`Queue`], [`Chain`]), negotiation and the life of a device ([`Core`]), what a kind of device is ([`Model`],
//! [`Service`]), and the transports, by registers in memory and on the PCI bus ([`device`]); after "Virtual I/O Device (VIRTIO) Version
//! 1.3" (OASIS), which all sections cited here are of. Does not answer for: what a kind of device does with a request (`vdevs`), nor for
//! the PCI bus (`pci`).

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;

mod chain;
mod device;
mod error;
mod features;
mod front;
#[cfg(test)]
mod loopback;
mod mmio;
mod model;
mod pci;
mod queue;
mod serving;
#[cfg(test)]
mod testing;
mod transport;

pub use chain::{Chain, Reader, STEP_BUFFERS, STEP_BYTES, Writer};
pub use device::{Core, Interface, Status};
pub use error::{Area, RingError};
pub use features::Features;
pub use model::{Description, Event, Model, Next, Parts, Service};
pub use queue::{Layout, MAX_QUEUE_SIZE, Queue};
pub use serving::{Request, Serving, Signals, Stopped};
pub use transport::{ACCESS_SIZES, FLAGS, LEGACY, REGION_SIZE, device};
