//! A device's registers as a transport of the package.
//!
//! Answers for: what is the same of all transports. Does not answer for: which register is where ([`Access`]).

use super::World;
use types::AccessSize;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Registers somewhere. A method is what the one of [`Transport`] is.
pub(crate) trait Access {
    fn device_type(&self) -> DeviceType;
    fn read_device_features(&mut self) -> u64;
    fn write_driver_features(&mut self, features: u64);
    fn max_queue_size(&mut self, queue: u16) -> u32;
    fn notify(&mut self, queue: u16);
    fn get_status(&self) -> DeviceStatus;
    fn set_status(&mut self, status: DeviceStatus);
    fn set_guest_page_size(&mut self, _size: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr);
    fn queue_unset(&mut self, queue: u16);
    fn queue_used(&mut self, queue: u16) -> bool;
    /// Resets a queue alone (2.6.1), which takes `VIRTIO_F_RING_RESET`; says whether that is complete.
    fn reset_queue(&mut self, queue: u16) -> bool;
    fn ack_interrupt(&mut self) -> InterruptStatus;
    fn read_config_generation(&self) -> u32;
    /// Where the device's own configuration begins.
    fn configuration(&self) -> u64;
    fn world(&self) -> &World;
}

/// A device's registers, wherever they are.
pub(crate) struct Registers(pub(super) Box<dyn Access>);

impl Registers {
    /// Resets a queue alone. The package knows of no such thing.
    pub(crate) fn reset_queue(&mut self, queue: u16) {
        assert!(self.0.reset_queue(queue), "the reset of queue {queue} goes on");
        assert!(!self.queue_used(queue), "queue {queue} is still enabled");
    }
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        self.0.device_type()
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.read_device_features()
    }

    fn write_driver_features(&mut self, features: u64) {
        self.0.write_driver_features(features);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.0.max_queue_size(queue)
    }

    fn notify(&mut self, queue: u16) {
        self.0.notify(queue);
        self.0.world().work();
    }

    fn get_status(&self) -> DeviceStatus {
        self.0.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.0.set_status(status);
        let refused = status & !self.get_status();
        assert!(self.requires_legacy_layout() || refused.is_empty(), "{refused:?} does not stay");
    }

    fn set_guest_page_size(&mut self, size: u32) {
        self.0.set_guest_page_size(size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.0.requires_legacy_layout()
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.0.queue_set(queue, size, descriptors, driver, device);
        // What was allocated is zero for the device, too.
        self.0.world().work();
    }

    fn queue_unset(&mut self, queue: u16) {
        self.0.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.0.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.0.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        for (byte, at) in value.as_mut_bytes().iter_mut().zip(self.0.configuration() + offset as u64..) {
            *byte = self.0.world().load(at, AccessSize::Byte) as u8;
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> Result<()> {
        for (byte, at) in value.as_bytes().iter().zip(self.0.configuration() + offset as u64..) {
            self.0.world().store(at, AccessSize::Byte, (*byte).into());
        }
        Ok(())
    }
}
