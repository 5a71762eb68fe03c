//! How a driver reaches a device: the operations of virtio 1.3, and the registers that they are on MMIO (4.2.2).
//!
//! Answers for: one access for each operation, whatever the value, since a driver that breaks rules is not to be held from it. Does
//! not answer for: what is done in which order (`driver`).

use guest_rt::mmio::Mmio;

use super::function::OnPci;

/// Parts of a queue (2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    Descriptor,
    Driver,
    Device,
}

impl Area {
    pub(crate) const ALL: [Self; 3] = [Self::Descriptor, Self::Driver, Self::Device];
}

/// Events of a device (2.3).
pub(crate) const USED_BUFFER: u32 = 1;
pub(crate) const CONFIGURATION_CHANGE: u32 = 2;

/// What a driver can do to a device.
pub(crate) trait Transport {
    /// Its kind (5).
    fn device_id(&self) -> u32;
    /// A word of the features that it offers, and one of those that the driver accepts (2.2).
    fn offered(&self, word: u32) -> u32;
    fn accept(&self, word: u32, features: u32);
    /// The device status field (2.1).
    fn status(&self) -> u32;
    fn set_status(&self, status: u32);
    /// Which queue the next operations are about; there may be none of this number.
    fn select(&self, queue: u32);
    /// Most entries that it can have, and how many it is to have.
    fn limit(&self) -> u32;
    fn set_size(&self, size: u32);
    fn set_area(&self, area: Area, address: u64);
    /// Whether it is enabled, and enabling it (1).
    fn ready(&self) -> u32;
    fn set_ready(&self, value: u32);
    /// Resets it (2.6.1); whether that is not complete.
    fn reset_queue(&self);
    fn is_resetting(&self) -> bool;
    /// Tells the device to look at a queue.
    fn notify(&self, queue: u32);
    /// What has happened since this was last asked: [`USED_BUFFER`], [`CONFIGURATION_CHANGE`].
    fn events(&self) -> u32;
    /// The registers themselves, and those of the device's kind.
    fn registers(&self) -> Mmio;
    fn configuration(&self) -> Mmio;
    /// Its line, where it has one of its own.
    fn interrupt(&self) -> Option<u32>;
    /// What it is on a PCI bus, if it is there.
    fn function(&self) -> Option<&OnPci> {
        None
    }
}

/// Control registers, by their names in 4.2.2.
pub(crate) mod register {
    pub(crate) const MAGIC_VALUE: usize = 0x000;
    pub(crate) const VERSION: usize = 0x004;
    pub(crate) const DEVICE_ID: usize = 0x008;
    pub(crate) const VENDOR_ID: usize = 0x00c;
    pub(crate) const DEVICE_FEATURES: usize = 0x010;
    pub(crate) const DEVICE_FEATURES_SEL: usize = 0x014;
    pub(crate) const DRIVER_FEATURES: usize = 0x020;
    pub(crate) const DRIVER_FEATURES_SEL: usize = 0x024;
    pub(crate) const QUEUE_SEL: usize = 0x030;
    pub(crate) const QUEUE_SIZE_MAX: usize = 0x034;
    pub(crate) const QUEUE_SIZE: usize = 0x038;
    pub(crate) const QUEUE_READY: usize = 0x044;
    pub(crate) const QUEUE_NOTIFY: usize = 0x050;
    pub(crate) const INTERRUPT_STATUS: usize = 0x060;
    pub(crate) const INTERRUPT_ACK: usize = 0x064;
    pub(crate) const STATUS: usize = 0x070;
    pub(crate) const QUEUE_DESC_LOW: usize = 0x080;
    pub(crate) const QUEUE_DRIVER_LOW: usize = 0x090;
    pub(crate) const QUEUE_DEVICE_LOW: usize = 0x0a0;
    pub(crate) const SHM_SEL: usize = 0x0ac;
    pub(crate) const SHM_LEN_LOW: usize = 0x0b0;
    pub(crate) const QUEUE_RESET: usize = 0x0c0;
    pub(crate) const CONFIG_GENERATION: usize = 0x0fc;
    pub(crate) const CONFIG: usize = 0x100;
}

/// A device on MMIO.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnMmio {
    registers: Mmio,
    interrupt: Option<u32>,
}

impl OnMmio {
    /// # Safety
    ///
    /// A device's registers are mapped at `address`.
    pub(crate) const unsafe fn new(address: usize, interrupt: Option<u32>) -> Self {
        // SAFETY: the caller's promise.
        Self { registers: unsafe { Mmio::new(address) }, interrupt }
    }
}

impl Transport for OnMmio {
    fn device_id(&self) -> u32 {
        self.registers.read(register::DEVICE_ID)
    }

    fn offered(&self, word: u32) -> u32 {
        self.registers.write(register::DEVICE_FEATURES_SEL, word);
        self.registers.read(register::DEVICE_FEATURES)
    }

    fn accept(&self, word: u32, features: u32) {
        self.registers.write(register::DRIVER_FEATURES_SEL, word);
        self.registers.write(register::DRIVER_FEATURES, features);
    }

    fn status(&self) -> u32 {
        self.registers.read(register::STATUS)
    }

    fn set_status(&self, status: u32) {
        self.registers.write(register::STATUS, status);
    }

    fn select(&self, queue: u32) {
        self.registers.write(register::QUEUE_SEL, queue);
    }

    fn limit(&self) -> u32 {
        self.registers.read(register::QUEUE_SIZE_MAX)
    }

    fn set_size(&self, size: u32) {
        self.registers.write(register::QUEUE_SIZE, size);
    }

    fn set_area(&self, area: Area, address: u64) {
        let at = match area {
            Area::Descriptor => register::QUEUE_DESC_LOW,
            Area::Driver => register::QUEUE_DRIVER_LOW,
            Area::Device => register::QUEUE_DEVICE_LOW,
        };
        self.registers.write(at, address as u32);
        self.registers.write(at + 4, (address >> 32) as u32);
    }

    fn ready(&self) -> u32 {
        self.registers.read(register::QUEUE_READY)
    }

    fn set_ready(&self, value: u32) {
        self.registers.write(register::QUEUE_READY, value);
    }

    fn reset_queue(&self) {
        self.registers.write(register::QUEUE_RESET, 1);
    }

    fn is_resetting(&self) -> bool {
        self.registers.read(register::QUEUE_RESET) != 0
    }

    fn notify(&self, queue: u32) {
        self.registers.write(register::QUEUE_NOTIFY, queue);
    }

    fn events(&self) -> u32 {
        let events = self.registers.read(register::INTERRUPT_STATUS);
        self.registers.write(register::INTERRUPT_ACK, events);
        events
    }

    fn registers(&self) -> Mmio {
        self.registers
    }

    fn configuration(&self) -> Mmio {
        // SAFETY: the same window, further on.
        unsafe { Mmio::new(self.registers.address() + register::CONFIG) }
    }

    fn interrupt(&self) -> Option<u32> {
        self.interrupt
    }
}
