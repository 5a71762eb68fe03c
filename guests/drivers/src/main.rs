//! The drivers of the package `virtio-drivers`, each against its device.
//!
//! Answers for: finding devices in the device tree and on the PCI bus, having them driven by the package's own transports
//! ([`places`]), and a line of what came of each: `drivers: TRANSPORT DEVICE: ok, WHAT` or `… FAILED: WHAT`. Does not answer for: what is
//! asked of each kind of device ([`devices`]), memory balloons, for which the package has no driver, nor interrupts: all is polled.
//!
//! Two network devices by the same transport are taken to be connected with each other. A device that never answers is waited for
//! without end where the package does so: whoever runs this sets the limit.
//!
//! Virtual I/O Device (VIRTIO) Version 1.3.

#![no_std]
#![no_main]

extern crate alloc;

mod devices;
mod memory;
mod places;

use guest_rt::machine::Machine;
use guest_rt::tree::Tree;
use guest_rt::{entry, println};
use virtio_drivers::transport::{DeviceType, Transport};

use devices::Verdict;

entry!(main);

fn main(machine: &'static Machine) {
    // SAFETY: where the boot protocol has put the tree, which nobody writes.
    let Ok(tree) = (unsafe { Tree::at(machine.tree.start as usize) }) else { return };
    drive("mmio", places::in_memory(tree));
    drive("pci", places::on_the_bus(tree));
    println!("drivers: good-bye");
}

/// Has each device driven, one after the other.
fn drive<T: Transport>(place: &str, transports: impl Iterator<Item = T>) {
    let mut first_of_net = None;
    for transport in transports {
        let kind = transport.device_type();
        match kind {
            DeviceType::Block => tell(place, "blk", devices::blk(transport)),
            DeviceType::Console => tell(place, "console", devices::console(transport)),
            DeviceType::EntropySource => tell(place, "entropy", devices::entropy(transport)),
            DeviceType::Input => tell(place, "input", devices::input(transport)),
            DeviceType::Socket => tell(place, "vsock", devices::vsock(transport)),
            DeviceType::_9P => tell(place, "9p", devices::files(transport)),
            DeviceType::Network => match first_of_net.take() {
                None => first_of_net = Some(transport),
                Some(first) => tell(place, "net", devices::net(first, transport)),
            },
            _ => println!("drivers: {place} {kind:?}: no driver"),
        }
    }
}

fn tell(place: &str, device: &str, verdict: Verdict) {
    match verdict {
        Ok(seen) => println!("drivers: {place} {device}: ok, {seen}"),
        Err(complaint) => println!("drivers: {place} {device}: FAILED: {complaint}"),
    }
}
