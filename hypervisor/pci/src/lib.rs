//! A PCI bus as a guest sees it.
//!
//! Answers for: what is the same of every function on the bus (its configuration space, BARs, capabilities, interrupts:
//! [`Endpoint`]), functions of the machine as a guest gets to see them ([`Passed`]), where the guest has put whom ([`Routes`]), and the host bridge with its node in the device tree
//! ([`HostBridge`]). Does not answer for: what a particular function does (a [`Function`], in `vdevs`), nor for where the bus is
//! and who is on it (`vm::config`).
//!
//! There is one bus, number 0, with conventional functions on it: PCI Local Bus Specification, revision 3.0 ("PCI"), reached as
//! PCI Express Base Specification, 7.2.2, says ("ECAM"). There are no ports, no bridges to other buses, and no I/O space.
//!
//! What a device of the bus calls its offsets ([`vdev::Vdev::read`]): its configuration space is at 0 to 0xfff; BAR *n* at
//! (*n* + 1) << 56; what is in between is its window, if its factory wants one.

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

mod config;
mod endpoint;
mod function;
mod host;
mod interrupts;
mod msix;
mod passed;
mod routes;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

pub use config::{Command, ConfigSpace, Flaw};
pub use endpoint::Endpoint;
pub use function::{Bar, Capability, Configuration, Description, Function, Identity, Messages, Region, Width};
pub use host::{Bridge, HostBridge, MessageTarget};
pub use interrupts::Interrupts;
pub use passed::{PASSED, Passed};
pub use routes::Routes;

/// Bytes of a function's configuration space as ECAM has it.
pub const CONFIG_SIZE: u64 = 0x1000;
/// Bytes of all configuration spaces of a bus.
pub const ECAM_SIZE: u64 = 1 << 20;

/// Where a function's BARs begin in its device's offsets.
const fn bar_offset(index: u8) -> u64 {
    ((index as u64).wrapping_add(1)) << BAR_SHIFT
}

/// Bits of an offset within a BAR: more than addresses have.
const BAR_SHIFT: u32 = 56;

#[cfg(test)]
mod tests;
