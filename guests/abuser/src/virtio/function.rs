//! A device that is a function of the PCI bus (virtio 1.3, 4.1; PCI Local Bus Specification 3.0).
//!
//! Answers for: finding functions in the configuration spaces (ECAM), putting their regions into the window of the bus, finding the
//! structures by their capabilities, and the driver's operations by these. Does not answer for: bridges, of which there is one, and
//! one bus.

use core::ops::Range;

use arrayvec::ArrayVec;
use guest_rt::mmio::{Mmio, Width};
use guest_rt::mmu::{self, Kind as Mapping};
use guest_rt::tree::Tree;

use super::transport::{Area, Transport};

/// Vendor ID of virtio devices, and what is added to their own ID (4.1.2).
const VENDOR: u32 = 0x1af4;
const FIRST_DEVICE: u32 = 0x1040;

/// Registers of a configuration space (PCI, 6.1), and what is in the command (PCI, 6.2.2).
pub(crate) const COMMAND: usize = 0x04;
const HEADER_TYPE: usize = 0x0e;
pub(crate) const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
pub(crate) const MEMORY: u64 = 2;
pub(crate) const BUS_MASTER: u64 = 4;

/// Kinds of capabilities: vendor-specific, MSI-X (PCI, appendix H), and of the first the kinds of structures (4.1.4).
const VENDOR_SPECIFIC: u64 = 9;
const MSI_X: u64 = 0x11;
const COMMON_CFG: u64 = 1;
const NOTIFY_CFG: u64 = 2;
const ISR_CFG: u64 = 3;
const DEVICE_CFG: u64 = 4;
const PCI_CFG: u64 = 5;

/// Fields of the common configuration, by their names in 4.1.4.3.
pub(crate) mod field {
    pub(crate) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(crate) const DEVICE_FEATURE: usize = 0x04;
    pub(crate) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(crate) const DRIVER_FEATURE: usize = 0x0c;
    pub(crate) const CONFIG_MSIX_VECTOR: usize = 0x10;
    pub(crate) const NUM_QUEUES: usize = 0x12;
    pub(crate) const DEVICE_STATUS: usize = 0x14;
    pub(crate) const CONFIG_GENERATION: usize = 0x15;
    pub(crate) const QUEUE_SELECT: usize = 0x16;
    pub(crate) const QUEUE_SIZE: usize = 0x18;
    pub(crate) const QUEUE_MSIX_VECTOR: usize = 0x1a;
    pub(crate) const QUEUE_ENABLE: usize = 0x1c;
    pub(crate) const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub(crate) const QUEUE_DESC: usize = 0x20;
    pub(crate) const QUEUE_DRIVER: usize = 0x28;
    pub(crate) const QUEUE_DEVICE: usize = 0x30;
    pub(crate) const QUEUE_NOTIF_CONFIG_DATA: usize = 0x38;
    pub(crate) const QUEUE_RESET: usize = 0x3a;
    /// Bytes of what there is without administration.
    pub(crate) const END: usize = 0x3c;
}

/// A region: the register that it has, where it is, its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    register: usize,
    pub(crate) at: u64,
    pub(crate) bytes: u64,
}

impl Bar {
    /// Whether it is the one of this number.
    pub(crate) fn is_number(&self, number: u32) -> bool {
        self.register == BARS + 4 * number as usize
    }
}

/// A function whose regions have places.
#[derive(Clone, Debug)]
pub(crate) struct OnPci {
    /// Its configuration space.
    pub(crate) space: Mmio,
    pub(crate) bars: ArrayVec<Bar, 6>,
    fields: Mmio,
    pub(crate) notifications: Mmio,
    multiplier: usize,
    isr: Mmio,
    device: Option<Mmio>,
    /// Where its capabilities are: those of structures, that of accesses (4.1.4.9), and MSI-X.
    pub(crate) structures: ArrayVec<usize, 8>,
    pub(crate) access: usize,
    pub(crate) messages: Option<usize>,
}

/// The bus.
pub(crate) struct Bus {
    spaces: u64,
    /// What is left of the window below 4 GiB.
    window: Range<u64>,
}

impl Bus {
    /// The one that the tree has, if it has one.
    pub(crate) fn find(tree: Tree) -> Option<Self> {
        let node = tree.nodes().find(|node| node.is_compatible("pci-host-ecam-generic"))?;
        Some(Self { spaces: node.reg(0)?.start, window: node.pci_window()? })
    }

    /// All virtio devices on it, in the order of their slots.
    pub(crate) fn functions(&mut self) -> ArrayVec<OnPci, 8> {
        let mut all = ArrayVec::new();
        for slot in 0..256 {
            // SAFETY: the tree says that configuration spaces are there; nobody's reads as all ones.
            let space = unsafe { Mmio::new(mmu::reach(self.spaces + (slot << 12), Mapping::Device)) };
            let identity = space.read(0);
            if identity & 0xffff == VENDOR
                && identity >> 16 >= FIRST_DEVICE
                && space.read_width(HEADER_TYPE, Width::Byte) & 0x7f == 0
            {
                all.extend(self.place(space).into_iter().take(all.remaining_capacity()));
            }
        }
        all
    }

    /// Puts a function's regions into the window, and finds its structures there.
    fn place(&mut self, space: Mmio) -> Option<OnPci> {
        let mut bars = ArrayVec::new();
        let mut register = BARS;
        while register < BARS + 24 {
            space.write(register, u32::MAX);
            let kind = space.read(register);
            let is_wide = kind & 0b110 == 0b100;
            if kind & !0xf != 0 {
                let bytes = u64::from(!(kind & !0xf)) + 1;
                let at = self.window.start.next_multiple_of(bytes);
                self.window.start = at + bytes;
                let _ = bars.try_push(Bar { register, at, bytes });
            }
            register += if is_wide { 8 } else { 4 };
        }
        let bar = |index: u64| bars.iter().find(|bar: &&Bar| bar.is_number(index as u32)).map(|bar| bar.at);
        let (mut structures, mut found, mut multiplier) = (ArrayVec::new(), [None; 6], 0);
        let (mut access, mut messages) = (None, None);
        let mut at = space.read_width(CAPABILITIES, Width::Byte) as usize;
        // As many as there can be: the list may be a loop.
        for _ in 0..48 {
            if at == 0 {
                break;
            }
            let byte = |more| space.read_width(at + more, Width::Byte);
            match (byte(0), byte(3)) {
                (VENDOR_SPECIFIC, PCI_CFG) => access = Some(at),
                (VENDOR_SPECIFIC, kind @ (COMMON_CFG | NOTIFY_CFG | ISR_CFG | DEVICE_CFG)) => {
                    let _ = structures.try_push(at);
                    found[kind as usize] = bar(byte(4)).map(|bar| bar + u64::from(space.read(at + 8)));
                    if kind == NOTIFY_CFG {
                        multiplier = space.read(at + 16) as usize;
                    }
                }
                (MSI_X, _) => messages = Some(at),
                _ => {}
            }
            at = byte(1) as usize;
        }
        // SAFETY: in the bus's window, where the device puts its structures; mapped just now.
        let structure =
            |kind: u64| found[kind as usize].map(|at| unsafe { Mmio::new(mmu::reach(at, Mapping::Device)) });
        let (fields, notifications, isr) = (structure(COMMON_CFG)?, structure(NOTIFY_CFG)?, structure(ISR_CFG)?);
        let device = structure(DEVICE_CFG);
        let function = OnPci {
            space,
            bars,
            fields,
            notifications,
            multiplier,
            isr,
            device,
            structures,
            access: access?,
            messages,
        };
        function.restore();
        Some(function)
    }
}

impl OnPci {
    /// Regions where they were put first, reached, and no messages.
    pub(crate) fn restore(&self) {
        self.command(0);
        for bar in &self.bars {
            self.move_bar(bar, bar.at);
        }
        if let Some(messages) = self.messages {
            self.space.write_width(messages + 2, Width::Halfword, 0);
        }
        self.command(MEMORY | BUS_MASTER);
    }

    pub(crate) fn command(&self, command: u64) {
        self.space.write_width(COMMAND, Width::Halfword, command);
    }

    /// Puts a region somewhere else, or says so.
    pub(crate) fn move_bar(&self, bar: &Bar, to: u64) {
        self.space.write(bar.register, to as u32);
    }

    /// The region of structures.
    pub(crate) fn bar(&self) -> &Bar {
        &self.bars[0]
    }

    fn read(&self, field: usize, width: Width) -> u32 {
        self.fields.read_width(field, width) as u32
    }

    fn write(&self, field: usize, width: Width, value: u32) {
        self.fields.write_width(field, width, value.into());
    }

    /// A field of 16 bits, of which nothing larger is written than it can be.
    fn write_half(&self, field: usize, value: u32) {
        self.write(field, Width::Halfword, value.min(0xffff));
    }
}

impl Transport for OnPci {
    fn device_id(&self) -> u32 {
        (self.space.read(0) >> 16) - FIRST_DEVICE
    }

    fn offered(&self, word: u32) -> u32 {
        self.fields.write(field::DEVICE_FEATURE_SELECT, word);
        self.fields.read(field::DEVICE_FEATURE)
    }

    fn accept(&self, word: u32, features: u32) {
        self.fields.write(field::DRIVER_FEATURE_SELECT, word);
        self.fields.write(field::DRIVER_FEATURE, features);
    }

    fn status(&self) -> u32 {
        self.read(field::DEVICE_STATUS, Width::Byte)
    }

    fn set_status(&self, status: u32) {
        self.write(field::DEVICE_STATUS, Width::Byte, status);
    }

    fn select(&self, queue: u32) {
        self.write_half(field::QUEUE_SELECT, queue);
    }

    fn limit(&self) -> u32 {
        self.read(field::QUEUE_SIZE, Width::Halfword)
    }

    fn set_size(&self, size: u32) {
        self.write_half(field::QUEUE_SIZE, size);
    }

    fn set_area(&self, area: Area, address: u64) {
        let at = match area {
            Area::Descriptor => field::QUEUE_DESC,
            Area::Driver => field::QUEUE_DRIVER,
            Area::Device => field::QUEUE_DEVICE,
        };
        self.fields.write(at, address as u32);
        self.fields.write(at + 4, (address >> 32) as u32);
    }

    fn ready(&self) -> u32 {
        self.read(field::QUEUE_ENABLE, Width::Halfword)
    }

    fn set_ready(&self, value: u32) {
        self.write_half(field::QUEUE_ENABLE, value);
    }

    fn reset_queue(&self) {
        self.write_half(field::QUEUE_RESET, 1);
    }

    fn is_resetting(&self) -> bool {
        self.read(field::QUEUE_RESET, Width::Halfword) != 0
    }

    /// Where a queue's notifications go is not asked for each: it is by its number. One that is not there is notified of at the first's.
    fn notify(&self, queue: u32) {
        let place = if queue < 16 { queue as usize } else { 0 };
        self.notifications.write_width(place * self.multiplier, Width::Halfword, queue.into());
    }

    fn events(&self) -> u32 {
        self.isr.read_width(0, Width::Byte) as u32
    }

    fn registers(&self) -> Mmio {
        self.fields
    }

    fn configuration(&self) -> Mmio {
        self.device.unwrap_or(self.fields)
    }

    fn interrupt(&self) -> Option<u32> {
        None
    }

    fn function(&self) -> Option<&OnPci> {
        Some(self)
    }
}
