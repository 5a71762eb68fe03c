//! The machine's PCI Express, seen from the side that programs it.
//!
//! Answers for: what a function says of itself ([`Function`]), and how it can be reset ([`Reset`]). Does not answer for: how configuration space is reached
//! ([`Configuration`]: the driver's), where it is (`machine`), what guests see (`pci`), interrupts and streams.
//!
//! Follows the PCI Express Base Specification, revision 5.0 (sections have its numbers; SR-IOV is chapter 9), and for what
//! that leaves to them the PCI Local Bus Specification 3.0, the PCI-to-PCI Bridge Architecture Specification 1.2 and the ECN
//! "Advanced Capabilities for Conventional PCI". What configuration space says is a device's word: it is bounded, checked, and at worst costs
//! that device. Addresses, classes and header types are those of the `pci_types` package; its way to configuration space is
//! `unsafe`, and its walks end when the device says so, so both are made here.

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
#[cfg(test)]
extern crate std;

mod bar;
mod capability;
mod configuration;
mod flaw;
mod function;
mod registers;

pub use bar::{Bar, BarKind, Place};
pub use capability::{
    AccessControl, AdvancedFeatures, Capabilities, Express, Msi, Msix, Part, PortKind, PowerManagement, Sriov,
};
pub use configuration::{Configuration, Space};
pub use flaw::{Flaw, Trouble};
pub use function::{Bridge, Class, Function, Reset};
pub use pci_types::PciAddress;
