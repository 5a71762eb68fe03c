//! The virtual-device framework.
//!
//! Answers for: what a vdev is ([`Factory`], [`Vdev`]), what it may reach ([`Context`]), how accesses find it ([`Bus`]),
//! and what it may ask of the world ([`Effects`], the back-end traits). Does not answer for: any particular device
//! (`vdevs`), the interrupt controller (`vgic`), or when things happen (`vm`, `kernel`).

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

mod backend;
mod effects;
mod interrupt;
mod memory;

pub use backend::CharDevice;
pub use effects::{Cause, Effects};
pub use interrupt::InterruptController;
pub use memory::{GuestMemory, MemoryFault};
