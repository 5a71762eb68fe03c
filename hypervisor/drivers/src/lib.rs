//! Physical devices that the hypervisor itself uses.
//!
//! Answers for: registers of devices, accessed as the device wants it. Does not answer for: where devices are (`machine`),
//! who handles their interrupts (`kernel`), what guests see (`vdevs`, `vgic`).

#![no_std]

pub mod bcm2835_pm;
mod device;
mod gic_error;
pub mod gicv2;
pub mod gicv3;
pub mod iproc_rng200;
mod mmio;
pub mod ns16550;
pub mod pl011;
pub mod pl031;
mod serial;

pub use device::Device;
pub use gic_error::GicError;
pub use mmio::{Mmio, Window};
pub use serial::Serial;
