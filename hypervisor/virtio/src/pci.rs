//! Virtio on a PCI bus (4.1): the standard's interface; the one before it ("legacy", "transitional") would need I/O space.
//!
//! Answers for: who the function is, where in its BAR which structure is, and what accesses to them mean. Does not answer for: what
//! they stand for ([`crate::Core`]), the fields of the common configuration ([`common`]), when which interrupt is raised
//! ([`interrupt`]), nor for the bus (`::pci`).
//!
//! BAR 0 has all structures, each in a page of its own: whoever maps one of them to a driver's process gives away no other, and what
//! is written most, notifications, has no neighbours. BAR 1 has the table of messages, if they reach anybody.

mod common;
mod interrupt;

use crate::Parts;
use crate::device::{Core, Interface};
use crate::front::{Front, high, low, set_high, set_low};
use ::pci::{
    Bar, Capability, Command, ConfigSpace, Configuration, Description, Endpoint, Function, Identity, Messages, Region,
    Width,
};
use alloc::{boxed::Box, string::ToString, sync::Arc, vec, vec::Vec};
use common::Field;
use interrupt::{Interrupt, NO_VECTOR};
use types::AccessSize;
use vdev::{AccessFault, AccessSizes, Context, Control, ControlError, OptionError, Setup, Vdev, Wake};

/// Vendor ID of all virtio devices (4.1.2.1).
const VENDOR: u16 = 0x1af4;
/// What is added to a virtio device's ID (4.1.2).
const FIRST_DEVICE: u16 = 0x1040;
/// 4.1.2.1: "Non-transitional devices SHOULD have a PCI Revision ID of 1 or higher".
const REVISION: u8 = 1;

/// The BAR that structures are in, and the one of messages.
const BAR: u8 = 0;
const MESSAGES: u8 = 1;
/// Most vectors: a page of them. Queues beyond share.
const MOST_VECTORS: u16 = 256;

/// Where in the BAR structures begin.
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const NOTIFY: u64 = 0x2000;
/// Structures are at multiples of this.
const PAGE: u64 = 0x1000;
/// `notify_off_multiplier`: bytes from one queue's notifications to the next one's (4.1.4.4).
const MULTIPLIER: u64 = 4;

/// A vendor-specific capability (4.1.4), and which structure one is of (`cfg_type`).
const VENDOR_SPECIFIC: u8 = 9;
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

// Fields of the PCI configuration access capability (4.1.4.9).
const CAP_BAR: u16 = 4;
const CAP_OFFSET: u16 = 8;
const CAP_LENGTH: u16 = 12;
const PCI_CFG_DATA: u16 = 16;

/// A device on the bus.
struct OnBus {
    front: Front,
    interrupt: Interrupt,
    places: Places,
    /// `config_generation`, and which of the device's generations that stands for.
    generation: u8,
    known: u32,
}

/// Where what depends on the device is.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// Bytes of notifications.
    notify: u64,
    /// Where its own configuration begins, and its bytes.
    device: u64,
    configuration: u64,
    /// Bytes of the BAR.
    bar: u64,
}

/// What an access is to, and where in it.
enum Structure {
    Common(u64),
    Isr(u64),
    Notify(u64),
    Device(u64),
}

/// A device of these parts, on the bus.
///
/// # Errors
/// If it has no slot there, or the host has no threads for it.
pub(crate) fn device(parts: Parts, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let own = parts.model.description();
    let queues = u16::try_from(own.queues.len()).unwrap_or(u16::MAX);
    let places = Places::new(queues, own.configuration_size);
    let id = FIRST_DEVICE.saturating_add(own.device_id);
    let identity = Identity {
        revision: REVISION,
        subsystem_vendor: VENDOR,
        subsystem: id,
        ..Identity::new(VENDOR, id, own.class)
    };
    let description = Description {
        bars: vec![Bar { index: BAR, size: places.bar, width: Width::Bits32, sizes: AccessSizes::all() }],
        capabilities: places.capabilities(),
        messages: Some(Messages { bar: MESSAGES, vectors: queues.saturating_add(1).min(MOST_VECTORS) }),
        ..Description::new(identity)
    };
    Endpoint::attach(setup, &description, |setup, interrupts| {
        let interrupt = Interrupt::new(interrupts, queues);
        let name = setup.name.to_string();
        let core = Core::new(parts, Interface::Modern, Arc::new(interrupt.clone()), setup)?;
        // As long as the command register is as after a reset.
        core.hold();
        Ok(OnBus { front: Front::new(name, core), interrupt, places, generation: 0, known: 0 })
    })
}

impl Places {
    fn new(queues: u16, configuration: u16) -> Self {
        let notify = u64::from(queues).saturating_mul(MULTIPLIER);
        let device = NOTIFY.saturating_add(notify.next_multiple_of(PAGE));
        let configuration = u64::from(configuration);
        Self { notify, device, configuration, bar: device.saturating_add(configuration).next_power_of_two() }
    }

    fn find(&self, offset: u64) -> Structure {
        if let Some(within) = offset.checked_sub(self.device) {
            Structure::Device(within)
        } else if let Some(within) = offset.checked_sub(NOTIFY) {
            Structure::Notify(within)
        } else if let Some(within) = offset.checked_sub(ISR) {
            Structure::Isr(within)
        } else {
            Structure::Common(offset)
        }
    }

    /// 4.1.4: what says where all that is.
    fn capabilities(&self) -> Vec<Capability> {
        let mut all = vec![
            structure(COMMON_CFG, COMMON, common::LENGTH, &[]),
            structure(NOTIFY_CFG, NOTIFY, self.notify, &le32(MULTIPLIER)),
            structure(ISR_CFG, ISR, 1, &[]),
        ];
        if self.configuration != 0 {
            // With padding, which reads zero, as 4.1.4 allows: drivers that count it in words have all of it.
            all.push(structure(DEVICE_CFG, self.device, self.configuration.next_multiple_of(4), &[]));
        }
        let mut access = structure(PCI_CFG, 0, 0, &[0; 4]);
        // BAR, offset, length and data are the driver's.
        access.writable = [[0, 0, 0xff].as_slice(), &[0; 3], &[0xff; 12]].concat();
        access.is_watched = true;
        all.push(access);
        all
    }
}

/// The capability of a structure (4.1.4), with what follows of it.
fn structure(kind: u8, offset: u64, length: u64, more: &[u8]) -> Capability {
    let own_length = u8::try_from(more.len()).unwrap_or(u8::MAX).saturating_add(16);
    let body = [&[own_length, kind, BAR, 0, 0, 0], &le32(offset)[..], &le32(length), more].concat();
    Capability { id: VENDOR_SPECIFIC, body, writable: vec![], is_watched: false }
}

/// A field of 32 bits.
fn le32(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

impl OnBus {
    /// What a field of the common configuration reads (4.1.4.3).
    fn read_field(&self, field: Field, context: &mut Context<'_>) -> u32 {
        let (core, queue) = (&self.front.core, self.front.queue);
        match field {
            Field::DeviceFeatureSelect => self.front.offered_word,
            Field::DeviceFeature => self.front.offered(),
            Field::DriverFeatureSelect => self.front.accepted_word,
            Field::DriverFeature => self.front.accepted(),
            Field::ConfigMsixVector => self.interrupt.configuration_vector(context).into(),
            Field::NumQueues => u32::try_from(core.description().queues.len()).unwrap_or(u32::MAX),
            Field::DeviceStatus => core.status().bits().into(),
            Field::ConfigGeneration => self.generation.into(),
            Field::QueueSelect | Field::QueueNotifyOff => queue.into(),
            Field::QueueSize => self.front.layout().size.into(),
            Field::QueueMsixVector => self.interrupt.queue_vector(queue, context).into(),
            Field::QueueEnable => core.is_ready(queue).into(),
            Field::QueueDescLow => low(self.front.layout().descriptor_area),
            Field::QueueDescHigh => high(self.front.layout().descriptor_area),
            Field::QueueDriverLow => low(self.front.layout().driver_area),
            Field::QueueDriverHigh => high(self.front.layout().driver_area),
            Field::QueueDeviceLow => low(self.front.layout().device_area),
            Field::QueueDeviceHigh => high(self.front.layout().device_area),
            // VIRTIO_F_NOTIF_CONFIG_DATA is not offered. A queue's reset is complete when the store is.
            Field::QueueNotifyData | Field::QueueReset => 0,
        }
    }

    fn write_field(&mut self, field: Field, value: u32, context: &mut Context<'_>) {
        let (front, interrupt) = (&mut self.front, &self.interrupt);
        // Of a field of 16 bits.
        let short = u16::try_from(value).unwrap_or(u16::MAX);
        match field {
            Field::DeviceFeatureSelect => front.offered_word = value,
            Field::DriverFeatureSelect => front.accepted_word = value,
            Field::DriverFeature => front.accept(value),
            Field::ConfigMsixVector => interrupt.map_configuration(short, context),
            Field::DeviceStatus => {
                let [status, ..] = value.to_le_bytes();
                if front.set_status(status, context) {
                    interrupt.reset(context);
                }
            }
            Field::QueueSelect => front.queue = short,
            Field::QueueSize => front.set_layout(|layout| layout.size = short),
            Field::QueueMsixVector => interrupt.map_queue(front.queue, short, context),
            // "The driver MUST NOT write a 0".
            Field::QueueEnable if value == 1 => front.core.enable(front.queue, context),
            Field::QueueReset if value == 1 => self.reset_queue(context),
            Field::QueueDescLow => front.set_layout(|layout| set_low(&mut layout.descriptor_area, value)),
            Field::QueueDescHigh => front.set_layout(|layout| set_high(&mut layout.descriptor_area, value)),
            Field::QueueDriverLow => front.set_layout(|layout| set_low(&mut layout.driver_area, value)),
            Field::QueueDriverHigh => front.set_layout(|layout| set_high(&mut layout.driver_area, value)),
            Field::QueueDeviceLow => front.set_layout(|layout| set_low(&mut layout.device_area, value)),
            Field::QueueDeviceHigh => front.set_layout(|layout| set_high(&mut layout.device_area, value)),
            // The others are the device's.
            _ => {}
        }
    }

    /// The driver resets the chosen queue, which has no vector then, as after a reset of the device.
    fn reset_queue(&mut self, context: &mut Context<'_>) {
        if self.front.reset_queue(context) {
            self.interrupt.map_queue(self.front.queue, NO_VECTOR, context);
        }
    }

    /// A load from the device's own configuration. Who reads an old part and a new one finds another generation between: 4.1.4.3.1
    /// advises to count when something new is read, so that a counter of 8 bits comes round for nobody.
    fn read_configuration(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> u64 {
        let newest = self.front.core.generation();
        if newest != self.known {
            (self.known, self.generation) = (newest, self.generation.wrapping_add(1));
        }
        self.front.core.read_configuration(offset, size, context)
    }

    /// The driver notifies of a queue by where it writes, whatever that is (4.1.5.2).
    fn notify(&self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<(), AccessFault> {
        if offset >= self.places.notify || !offset.is_multiple_of(MULTIPLIER) {
            return Err(AccessFault::Unsupported);
        }
        if size == AccessSize::Byte || size == AccessSize::Doubleword {
            return Err(AccessFault::Size);
        }
        self.front.core.notify(u32::try_from(offset / MULTIPLIER).unwrap_or(u32::MAX), context);
        Ok(())
    }

    /// What the PCI configuration access capability at `capability` says is to be accessed, if that can be.
    fn target(&self, space: &ConfigSpace, capability: u16) -> Option<(u64, AccessSize)> {
        let field = |at: u16, size| space.read(capability.saturating_add(at), size);
        let offset = field(CAP_OFFSET, AccessSize::Word);
        let size = match field(CAP_LENGTH, AccessSize::Word) {
            1 => AccessSize::Byte,
            2 => AccessSize::Halfword,
            4 => AccessSize::Word,
            _ => return None,
        };
        let is_within = offset.is_multiple_of(size.bytes()) && offset.saturating_add(size.bytes()) <= self.places.bar;
        (is_within && field(CAP_BAR, AccessSize::Byte) == u64::from(BAR)).then_some((offset, size))
    }
}

impl Function for OnBus {
    fn read(
        &mut self,
        _: Region,
        offset: u64,
        size: AccessSize,
        context: &mut Context<'_>,
    ) -> Result<u64, AccessFault> {
        match self.places.find(offset) {
            Structure::Common(offset) => {
                let fields = common::fields(offset, size)?;
                Ok(fields.fold(0, |whole, part| whole | part.place(self.read_field(part.field, context))))
            }
            Structure::Isr(0) => Ok(self.interrupt.take_status(context).into()),
            // What is written only reads zero.
            Structure::Notify(offset) if offset < self.places.notify => Ok(0),
            Structure::Isr(_) | Structure::Notify(_) => Err(AccessFault::Unsupported),
            Structure::Device(offset) => Ok(self.read_configuration(offset, size, context)),
        }
    }

    fn write(
        &mut self,
        _: Region,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        match self.places.find(offset) {
            Structure::Common(offset) => {
                let fields = common::fields(offset, size)?;
                fields.for_each(|part| self.write_field(part.field, part.of(value), context));
            }
            // It is read only.
            Structure::Isr(0) => {}
            Structure::Isr(_) => return Err(AccessFault::Unsupported),
            Structure::Notify(offset) => return self.notify(offset, size, context),
            Structure::Device(offset) => self.front.core.write_configuration(offset, size, value, context),
        }
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        let is_reset = matches!(event, Control::Reset);
        if self.front.control(event, context)? {
            self.interrupt.reset(context);
        }
        if is_reset {
            self.front.core.hold();
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.front.core.wake(wake, context);
    }

    /// 4.1.4.9: accesses to `pci_cfg_data` are accesses to the BAR. One that cannot be is none. PCI, 6.2.2: who is not bus master
    /// does not access memory.
    fn configuration(&mut self, event: Configuration<'_>, context: &mut Context<'_>) {
        let is_data = |capability: u16, at: u16| at & !3 == capability.saturating_add(PCI_CFG_DATA);
        match event {
            Configuration::Read { space, capability, at, .. } if is_data(capability, at) => {
                if let Some((offset, size)) = self.target(space, capability)
                    && let Ok(value) = self.read(Region::Bar(BAR), offset, size, context)
                {
                    space.set(capability.saturating_add(PCI_CFG_DATA), size, value);
                }
            }
            Configuration::Written { space, capability: Some(capability), at, .. } if is_data(capability, at) => {
                if let Some((offset, size)) = self.target(space, capability) {
                    let value = space.read(capability.saturating_add(PCI_CFG_DATA), size);
                    let _refused = self.write(Region::Bar(BAR), offset, size, value, context);
                }
            }
            // Messages may have been enabled, or are not any more; and so may access to memory.
            Configuration::Written { space, .. } => {
                self.interrupt.settle(context);
                if space.command().contains(Command::BUS_MASTER) {
                    self.front.core.release(context);
                } else {
                    self.front.core.hold();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
