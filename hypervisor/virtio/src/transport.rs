//! How a driver reaches a virtio device: what the factory of every such device has in common.
//!
//! Answers for: what a factory says of places and accesses, the option `legacy`, and which transport carries a device: PCI, unless the
//! configuration gives it a place in memory. Does not answer for: the transports.

use crate::{Parts, mmio, pci};
use alloc::{boxed::Box, string::ToString};
use vdev::{AccessSizes, FactoryFlags, OptionError, OptionKind, OptionSpec, Options, Setup, Vdev};

/// Bytes of registers and configuration space, where they are in memory: for the factory.
pub const REGION_SIZE: u64 = mmio::REGION_SIZE;
/// What the factory takes.
pub const ACCESS_SIZES: AccessSizes = AccessSizes::all();
/// On the PCI bus, as in the original, or at a place in memory and with an interrupt that are given.
pub const FLAGS: FactoryFlags = FactoryFlags::LOC_MEM.union(FactoryFlags::LOC_PCI).union(FactoryFlags::INTR_UNLESS_PCI);
/// The option that every virtio device has.
pub const LEGACY: OptionSpec =
    OptionSpec::new("legacy", OptionKind::Flag, "the interface of virtio 0.9.5 instead of 1.x; in memory only");

/// A device of these parts, where the configuration has it, with options among which is [`LEGACY`].
///
/// # Errors
/// If it has no place, there is no such interface there, or the host has no threads for it.
pub fn device(parts: Parts, options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let is_legacy = options.has(LEGACY.name);
    if setup.connector.is_none() {
        return mmio::device(parts, is_legacy, setup);
    }
    if is_legacy {
        let message =
            "on the PCI bus there is no such interface: give it a place in memory, as in `loc 0x1c0d0000 intr gic:41`";
        return Err(options.error(LEGACY.name, message.to_string()));
    }
    pci::device(parts, setup)
}
