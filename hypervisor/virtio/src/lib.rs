//! What all virtio devices have in common.
//!
//! Answers for: virtqueues ([`Queue`], [`Chain`]), after "Virtual I/O Device (VIRTIO) Version 1.3" (OASIS), which all sections cited
//! here are of. Does not answer for: what a kind of device does with a request (`vdevs`).

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
mod error;
mod features;
mod queue;
#[cfg(test)]
mod testing;

pub use chain::{Chain, Reader, STEP_BUFFERS, STEP_BYTES, Writer};
pub use error::{Area, RingError};
pub use features::Features;
pub use queue::{Layout, MAX_QUEUE_SIZE, Queue};
