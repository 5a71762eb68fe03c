//! What is known of a function.

use crate::{Bar, Bridge, Capabilities, registers};
use arrayvec::ArrayVec;
use core::fmt;
use core::ops::RangeInclusive;
use pci_types::{PciAddress, device_type::DeviceType};
use types::RequesterId;

/// Vendor ID and Device IDs of virtio devices (Virtual I/O Device 1.3, 4.1.2).
const VIRTIO: u16 = 0x1af4;
const VIRTIO_DEVICES: RangeInclusive<u16> = 0x1000..=0x107f;

/// The class code (PCI Code and ID Assignment Specification, 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Base class.
    pub base: u8,
    /// Sub-class.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

impl Class {
    /// What to call it: a word or two.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match DeviceType::from((self.base, self.sub)) {
            DeviceType::NvmeController => "NVMe",
            DeviceType::SataController => "SATA",
            DeviceType::ScsiBusController | DeviceType::SasController => "SCSI",
            DeviceType::EthernetController => "Ethernet",
            DeviceType::HostBridge => "host bridge",
            DeviceType::PciPciBridge => "bridge",
            DeviceType::UsbController => "USB",
            DeviceType::SdHostController => "SD",
            _ => match self.base {
                0x01 => "storage",
                0x02 => "network",
                0x03 => "display",
                0x04 => "multimedia",
                0x05 => "memory",
                0x06 => "bridge device",
                0x07 => "communication",
                0x08 => "system",
                0x09 => "input",
                0x0c => "serial bus",
                0x0d => "wireless",
                0x12 => "accelerator",
                _ => "other",
            },
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}", self.base, self.sub, self.interface)
    }
}

/// How a function can be reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// By itself: Function Level Reset (PCI Express, 6.6.2).
    Function,
    /// By itself, the way of conventional PCI (ECN Advanced Capabilities: AF FLR).
    AdvancedFeatures,
    /// With everything that is behind the same bridge (Secondary Bus Reset, 7.5.1.3.13), this one.
    Bus(PciAddress),
    /// Not at all.
    None,
}

/// A function as it was found, with the addresses that it has got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// Segment (which host, in the order of the device tree), bus, device, function. With ARI a function's number has eight bits, and
    /// its upper five stand where the device's do.
    pub address: PciAddress,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem Vendor ID and Subsystem ID. Zeroes for a bridge.
    pub subsystem: (u16, u16),
    /// Revision ID.
    pub revision: u8,
    /// What it is.
    pub class: Class,
    /// If it is a bridge.
    pub bridge: Option<Bridge>,
    /// The pin that it interrupts by: 1 is INTA, 4 INTD.
    pub pin: Option<u8>,
    /// Its BARs, those that it has, by index.
    pub bars: ArrayVec<Bar, 6>,
    /// What else it has.
    pub capabilities: Capabilities,
    /// The bridge whose secondary bus it is on; none on a host's own bus.
    pub above: Option<PciAddress>,
    /// For a virtual function the one that it belongs to (9.1).
    pub physical: Option<PciAddress>,
    /// Its isolation group: functions of the same segment with the same number can reach each other without asking an SMMU,
    /// or cannot be told apart by one. They have one owner.
    pub group: u16,
}

impl Function {
    /// The best way to reset it.
    #[must_use]
    pub fn reset(&self) -> Reset {
        if self.capabilities.express.is_some_and(|express| express.has_flr) {
            Reset::Function
        } else if self.capabilities.advanced.is_some_and(|advanced| advanced.has_flr) {
            Reset::AdvancedFeatures
        } else {
            self.above.filter(|_| self.bridge.is_none() && self.physical.is_none()).map_or(Reset::None, Reset::Bus)
        }
    }

    /// Whether it is a part of the bus itself, which nobody but the hypervisor has: a bridge, or what else is of that class.
    #[must_use]
    pub fn is_bridging(&self) -> bool {
        self.bridge.is_some() || self.class.base == 0x06
    }

    /// Whether it asks the SMMU in front of it before it reaches memory. A virtio device, which is one by its identification registers
    /// (Virtual I/O Device (VIRTIO) 1.3, 4.1.2), need not: without `VIRTIO_F_ACCESS_PLATFORM` it "can access any address supplied to it by
    /// the driver" (6), and emulators have it do so.
    #[must_use]
    pub fn asks_smmu(&self) -> bool {
        self.vendor != VIRTIO || !VIRTIO_DEVICES.contains(&self.device)
    }

    /// The number that its transactions carry (2.2.6.2). Behind a bridge to conventional PCI the bridge may put its own there.
    #[must_use]
    pub fn requester(&self) -> RequesterId {
        requester(self.address)
    }

    /// Whether all memory that it has, has addresses.
    #[must_use]
    pub fn is_placed(&self) -> bool {
        self.bars.iter().all(|bar| bar.place.is_some() || bar.kind.is_io())
    }

    /// The Command register of the function at rest: it answers where it has addresses, and does nothing by itself. A bridge forwards
    /// what others send, and what is behind it is at rest.
    #[must_use]
    pub fn command_at_rest(&self) -> u16 {
        use registers::command::{BUS_MASTER, INTERRUPT_DISABLE, MEMORY};
        let has_memory = self.is_placed() && self.bars.iter().any(|bar| bar.place.is_some());
        match &self.bridge {
            Some(bridge) if bridge.secondary != 0 => MEMORY | BUS_MASTER | INTERRUPT_DISABLE,
            None if has_memory => MEMORY | INTERRUPT_DISABLE,
            _ => INTERRUPT_DISABLE,
        }
    }
}

/// Bus, device, function as a Requester ID.
#[must_use]
pub fn requester(address: PciAddress) -> RequesterId {
    let low = address.device() << 3 | address.function();
    RequesterId(u16::from_be_bytes([address.bus(), low]))
}
