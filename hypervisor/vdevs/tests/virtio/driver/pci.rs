//! Virtio on a PCI bus (virtio 1.3, 4.1), from the driver's side.
//!
//! The package's own transport has registers by pointers, which a test cannot follow; but it enumerates the bus by a trait. So who is
//! there, how large BARs are and where capabilities are is found by its code, and registers are accessed by this.

use super::World;
use super::registers::Access;
use ::pci::testkit::Slots;
use types::AccessSize;
use virtio_drivers::PhysAddr;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{
    VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG,
    virtio_device_type,
};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus};

/// A vendor-specific capability.
const VENDOR_SPECIFIC: u8 = 9;

/// The bus's configuration spaces.
struct Spaces(World);

impl ConfigurationAccess for Spaces {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        self.0.load(Slots::config_at(slot(function), register.into()).0, AccessSize::Word) as u32
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        self.0.store(Slots::config_at(slot(function), register.into()).0, AccessSize::Word, data.into());
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn slot(function: DeviceFunction) -> vdev::PciSlot {
    vdev::PciSlot::new(function.device, function.function).unwrap()
}

/// A device, by where its structures are.
pub(super) struct Pci {
    world: World,
    kind: DeviceType,
    common: u64,
    notify: u64,
    multiplier: u64,
    isr: u64,
    configuration: u64,
}

impl Pci {
    /// The only virtio device of the bus. Its BARs are put one behind the other.
    pub(super) fn new(world: World) -> Self {
        let mut root = PciRoot::new(Spaces(world.clone()));
        let all = root.enumerate_bus(0).filter_map(|(function, info)| Some((function, virtio_device_type(&info)?)));
        let found: Vec<_> = all.collect();
        let [(function, kind)] = found[..] else { panic!("not one virtio device: {found:?}") };
        let mut bars = [0; 6];
        let mut free = Slots::WINDOW_32.0;
        for index in 0..2 {
            let info = root.bar_info(function, index).unwrap().unwrap();
            let (_, size) = info.memory_address_size().unwrap();
            let at = free.next_multiple_of(size);
            root.set_bar_32(function, index, at as u32);
            (bars[usize::from(index)], free) = (at, at + size);
        }
        root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
        let word = |at: u8| root_word(&world, function, at);
        let mut places = [0; 5];
        let mut multiplier = 0;
        for capability in root.capabilities(function).filter(|capability| capability.id == VENDOR_SPECIFIC) {
            let [_, kind] = capability.private_header.to_le_bytes();
            if kind > VIRTIO_PCI_CAP_DEVICE_CFG {
                continue;
            }
            let bar = bars[(word(capability.offset + 4) & 0xff) as usize];
            places[usize::from(kind)] = bar + u64::from(word(capability.offset + 8));
            if kind == VIRTIO_PCI_CAP_NOTIFY_CFG {
                multiplier = word(capability.offset + 16).into();
            }
        }
        let place = |kind: u8| places[usize::from(kind)];
        Self {
            kind,
            common: place(VIRTIO_PCI_CAP_COMMON_CFG),
            notify: place(VIRTIO_PCI_CAP_NOTIFY_CFG),
            multiplier,
            isr: place(VIRTIO_PCI_CAP_ISR_CFG),
            configuration: place(VIRTIO_PCI_CAP_DEVICE_CFG),
            world,
        }
    }

    fn read(&self, offset: u64, size: AccessSize) -> u64 {
        self.world.load(self.common + offset, size)
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) {
        self.world.store(self.common + offset, size, value);
    }

    fn select(&self, queue: u16) {
        self.write(0x16, AccessSize::Halfword, queue.into());
    }
}

fn root_word(world: &World, function: DeviceFunction, at: u8) -> u32 {
    Spaces(world.clone()).read_word(function, at)
}

impl Access for Pci {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        [1, 0].into_iter().fold(0, |high, word| {
            self.write(0x00, AccessSize::Word, word);
            high << 32 | self.read(0x04, AccessSize::Word)
        })
    }

    fn write_driver_features(&mut self, features: u64) {
        for word in 0..2 {
            self.write(0x08, AccessSize::Word, word);
            self.write(0x0c, AccessSize::Word, features >> (32 * word) & 0xffff_ffff);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.read(0x18, AccessSize::Halfword) as u32
    }

    fn notify(&mut self, queue: u16) {
        self.select(queue);
        let offset = self.read(0x1e, AccessSize::Halfword) * self.multiplier;
        self.world.store(self.notify + offset, AccessSize::Halfword, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.read(0x14, AccessSize::Byte) as u32)
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(0x14, AccessSize::Byte, status.bits().into());
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.select(queue);
        self.write(0x18, AccessSize::Halfword, size.into());
        for (at, area) in [(0x20, descriptors), (0x28, driver), (0x30, device)] {
            self.write(at, AccessSize::Doubleword, area);
        }
        self.write(0x1c, AccessSize::Halfword, 1);
    }

    /// There is no way to, but for a reset, of the queue or of the device.
    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.read(0x1c, AccessSize::Halfword) == 1
    }

    fn reset_queue(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.write(0x3a, AccessSize::Halfword, 1);
        self.read(0x3a, AccessSize::Halfword) == 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::from_bits_retain(self.world.load(self.isr, AccessSize::Byte) as u32)
    }

    fn read_config_generation(&self) -> u32 {
        self.read(0x15, AccessSize::Byte) as u32
    }

    fn configuration(&self) -> u64 {
        self.configuration
    }

    fn world(&self) -> &World {
        &self.world
    }
}

/// As the package's own transport does: its queues' memory is not the device's any more.
impl Drop for Pci {
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
        assert!(self.get_status().is_empty());
    }
}
