//! Virtio over MMIO, in both versions (virtio 1.3, 4.2.2, 4.2.4), from the driver's side.

use super::World;
use super::registers::Access;
use types::AccessSize;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus};
use virtio_drivers::{PAGE_SIZE, PhysAddr};

pub(super) struct Mmio {
    pub(super) world: World,
    pub(super) legacy: bool,
}

impl Mmio {
    fn read(&self, offset: u64) -> u32 {
        self.world.load(offset, AccessSize::Word) as u32
    }

    fn write(&self, offset: u64, value: u32) {
        self.world.store(offset, AccessSize::Word, value.into());
    }

    fn write_wide(&self, offset: u64, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }
}

impl Access for Mmio {
    fn device_type(&self) -> DeviceType {
        assert_eq!(self.read(0x000), u32::from_le_bytes(*b"virt"));
        assert_eq!(self.read(0x004), if self.legacy { 1 } else { 2 });
        DeviceType::try_from(self.read(0x008)).unwrap()
    }

    fn read_device_features(&mut self) -> u64 {
        [1, 0].into_iter().fold(0, |high, word| {
            self.write(0x014, word);
            high << 32 | u64::from(self.read(0x010))
        })
    }

    fn write_driver_features(&mut self, features: u64) {
        for word in 0..2 {
            self.write(0x024, word);
            self.write(0x020, (features >> (32 * word)) as u32);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.write(0x030, queue.into());
        self.read(0x034)
    }

    fn notify(&mut self, queue: u16) {
        self.write(0x050, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.read(0x070))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(0x070, status.bits());
    }

    fn set_guest_page_size(&mut self, size: u32) {
        if self.legacy {
            self.write(0x028, size);
        }
    }

    fn requires_legacy_layout(&self) -> bool {
        self.legacy
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.write(0x030, queue.into());
        self.write(0x038, size);
        if self.legacy {
            self.write(0x03c, PAGE_SIZE as u32);
            self.write(0x040, u32::try_from(descriptors / PAGE_SIZE as u64).unwrap());
        } else {
            self.write_wide(0x080, descriptors);
            self.write_wide(0x090, driver);
            self.write_wide(0x0a0, device);
            self.write(0x044, 1);
        }
    }

    fn queue_unset(&mut self, queue: u16) {
        self.write(0x030, queue.into());
        self.write(if self.legacy { 0x040 } else { 0x044 }, 0);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.write(0x030, queue.into());
        self.read(if self.legacy { 0x040 } else { 0x044 }) != 0
    }

    fn reset_queue(&mut self, queue: u16) -> bool {
        self.write(0x030, queue.into());
        self.write(0x0c0, 1);
        self.read(0x0c0) == 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.read(0x060);
        self.write(0x064, status);
        InterruptStatus::from_bits_retain(status)
    }

    fn read_config_generation(&self) -> u32 {
        if self.legacy { 0 } else { self.read(0x0fc) }
    }

    fn configuration(&self) -> u64 {
        0x100
    }

    fn world(&self) -> &World {
        &self.world
    }
}
