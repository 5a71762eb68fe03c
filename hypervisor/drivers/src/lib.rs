//! Physical devices that the hypervisor itself uses.
//!
//! Answers for: registers of devices, accessed as the device wants it. Does not answer for: where devices are (`machine`),
//! who handles their interrupts (`kernel`), what guests see (`vdevs`, `vgic`).

#![no_std]

mod gic_error;
pub mod gicv2;
pub mod gicv3;
mod mmio;
pub mod pl011;
pub mod pl031;

pub use gic_error::GicError;
pub use mmio::{Mmio, Window};
