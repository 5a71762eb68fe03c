//! Where devices are.
//!
//! Answers for: the virtio devices that the device tree names (virtio 1.3, 4.2.1), and those on the PCI bus (4.1.2), whose regions are
//! put into the bus's window here. Does not answer for: registers, which are the package's own transports' business.

use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;

use guest_rt::mmu::{self, Kind};
use guest_rt::println;
use guest_rt::tree::Tree;
use virtio_drivers::transport::DeviceTypeError;
use virtio_drivers::transport::mmio::{MmioError, MmioTransport};
use virtio_drivers::transport::pci::bus::{BarInfo, Cam, Command, DeviceFunction, MemoryBarType, MmioCam, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

use crate::memory::Platform;

/// Those in memory, in the order of the tree.
pub(crate) fn in_memory(tree: Tree) -> impl Iterator<Item = MmioTransport<'static>> {
    let nodes = tree.nodes().filter(|node| node.is_compatible("virtio,mmio"));
    nodes.filter_map(|node| {
        let registers = node.reg(0)?;
        let header = NonNull::new(mmu::reach(registers.start, Kind::Device) as *mut u8)?.cast();
        // SAFETY: the tree says that a device is there, it is mapped, and nobody else looks at it.
        match unsafe { MmioTransport::new(header, (registers.end - registers.start) as usize) } {
            Ok(transport) => Some(transport),
            // A place for a device, without one (4.2.3.1.1).
            Err(MmioError::InvalidDeviceID(DeviceTypeError::InvalidDeviceType(0))) => None,
            Err(error) => {
                println!("drivers: mmio {:#x}: FAILED: {error}", registers.start);
                None
            }
        }
    })
}

/// Those on the first PCI bus, in the order of their slots.
pub(crate) fn on_the_bus(tree: Tree) -> impl Iterator<Item = PciTransport> {
    let bus = tree.nodes().find(|node| node.is_compatible("pci-host-ecam-generic"));
    bus.and_then(|node| Some((node.reg(0)?.start, node.pci_window()?))).into_iter().flat_map(|(spaces, mut window)| {
        // SAFETY: the tree says that configuration spaces are there, they are mapped, and nobody else looks at them. The tree may
        // name fewer buses than the package takes for granted: nobody here asks for another than the first.
        let spaces = unsafe { MmioCam::new(mmu::reach(spaces, Kind::Device) as *mut u8, Cam::Ecam) };
        let mut root = PciRoot::new(spaces);
        let functions: Vec<_> = root.enumerate_bus(0).filter(|(_, info)| virtio_device_type(info).is_some()).collect();
        functions.into_iter().filter_map(move |(function, _)| {
            place(&mut root, function, &mut window);
            let transport = PciTransport::new::<Platform, _>(&mut root, function);
            transport.inspect_err(|error| println!("drivers: pci {function}: FAILED: {error}")).ok()
        })
    })
}

/// Puts a function's regions into what is left of the window, and enables them. Those for which there is no room are left out.
fn place(root: &mut PciRoot<MmioCam<'static>>, function: DeviceFunction, window: &mut Range<u64>) {
    for (number, bar) in (0..).zip(root.bars(function).into_iter().flatten()) {
        let Some(BarInfo::Memory { address_type, size, .. }) = bar else { continue };
        let at = window.start.next_multiple_of(size);
        if size > window.end.saturating_sub(at) {
            continue;
        }
        window.start = at + size;
        match address_type {
            MemoryBarType::Width64 => root.set_bar_64(function, number, at),
            _ => root.set_bar_32(function, number, at as u32),
        }
    }
    root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
}
