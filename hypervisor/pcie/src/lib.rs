//! The machine's PCI Express, seen from the side that programs it.
//!
//! Answers for: which functions there are ([`scan`]), their addresses on the bus, what they can do ([`Function`]), which of them
//! cannot be told apart or kept apart (their group), who has which ([`Owners`]), how each is brought to rest ([`Rest`]), and making the
//! functions that one function promises ([`virtual_functions`]). Does not answer for: how configuration space is reached
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

mod assign;
mod bar;
mod bridge;
mod capability;
mod configuration;
mod flaw;
mod function;
mod group;
mod owners;
mod pin;
mod registers;
mod rest;
mod scan;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
pub mod virtual_functions;

pub use bar::{Bar, BarKind, Place};
pub use bridge::{Bridge, Window};
pub use capability::{
    AccessControl, AdvancedFeatures, Capabilities, Express, Msi, Msix, Part, PortKind, PowerManagement, Resizable,
    Sriov,
};
pub use configuration::{Configuration, Space};
pub use flaw::{Flaw, Trouble};
pub use function::{Class, Function, Reset, requester};
pub use owners::Owners;
pub use pci_types::PciAddress;
pub use pin::{Line, LineEnd, pin_at_host};
pub use rest::{READY_LIMIT, Rest, RestProgress, Unrest, quiet_only, switch_masters_off};
pub use scan::{Hierarchy, MAX_FUNCTIONS, scan};
