//! Physical devices that the hypervisor itself uses.
//!
//! Answers for: registers of devices, accessed as the device wants it. Does not answer for: where devices are (`machine`),
//! who handles their interrupts (`kernel`), what guests see (`vdevs`, `vgic`).
//!
//! Registers and instructions of the machine exist on the machine only; on a PC there are tests of what devices answer.

#![no_std]

#[cfg(target_os = "none")]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(target_os = "none")]
pub mod bcm2711_emmc2;
#[cfg(target_os = "none")]
pub mod bcm2835_pm;
#[cfg(target_os = "none")]
mod device;
pub mod disk;
#[cfg(target_os = "none")]
pub mod ecam;
#[cfg(target_os = "none")]
mod gic_error;
#[cfg(target_os = "none")]
pub mod gicv2;
#[cfg(target_os = "none")]
pub mod gicv3;
#[cfg(target_os = "none")]
pub mod gicv3_its;
#[cfg(target_os = "none")]
pub mod iproc_rng200;
#[cfg(target_os = "none")]
mod mmio;
#[cfg(target_os = "none")]
pub mod ns16550;
#[cfg(target_os = "none")]
pub mod pl011;
#[cfg(target_os = "none")]
pub mod pl031;
mod sd_card;
pub mod sd_disk;
pub mod sdhci;
#[cfg(target_os = "none")]
mod serial;
#[cfg(target_os = "none")]
pub mod smmuv3;
pub mod virtio;
pub mod virtio_blk;
pub mod virtio_net;

#[cfg(target_os = "none")]
pub use device::{BeginDisk, Device};
#[cfg(target_os = "none")]
pub use gic_error::GicError;
#[cfg(target_os = "none")]
pub use mmio::{Mmio, Window};
#[cfg(target_os = "none")]
pub use serial::Serial;
