//! Virtio over MMIO (4.2): version 2, and with the option `legacy` version 1 (4.2.4).
//!
//! Answers for: the registers, the interrupt, the node in the guest's device tree. Does not answer for: what they stand for
//! ([`crate::Core`]).
//!
//! Control registers take accesses of 32 bits and no others, as drivers have to make them (4.2.2.2). What only can be written reads
//! zero, and stores to what only can be read are ignored; at other offsets there is nothing. The device's own configuration space
//! takes all sizes. There is no shared memory region: such registers read all ones.

mod interrupt;
mod registers;

use crate::device::{Core, Interface};
use crate::model::Parts;
use crate::{Layout, RingError};
use alloc::{
    boxed::Box,
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};
use interrupt::Interrupt;
use registers::Register;
use types::{AccessSize, IntId, Ipa, Range};
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, FactoryFlags, Node, OptionError, OptionKind, OptionSpec,
    Options, Setup, Trigger, Vdev, Wake,
};

/// Bytes of registers and configuration space: for the factory.
pub const REGION_SIZE: u64 = 0x200;
/// What the factory takes.
pub const ACCESS_SIZES: AccessSizes = AccessSizes::all();
/// A place in memory and an interrupt, found if they are not given.
pub const FLAGS: FactoryFlags = FactoryFlags::LOC_MEM.union(FactoryFlags::INTR_REQUIRED).union(FactoryFlags::ASSIGN);
/// The option that every virtio device has.
pub const LEGACY: OptionSpec =
    OptionSpec::new("legacy", OptionKind::Flag, "the interface of virtio 0.9.5 instead of 1.x");

/// Where the configuration space begins.
const CONFIGURATION: u64 = 0x100;
/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// "BLKH": nobody registers such numbers, and drivers do not look.
const VENDOR: u32 = 0x484b_4c42;

/// A device at registers in memory.
struct Mmio {
    name: String,
    location: Ipa,
    line: Option<IntId>,
    core: Core,
    interface: Interface,
    interrupt: Interrupt,
    /// Which words of features the driver reads and writes, and which queue it speaks of.
    offered_word: u32,
    accepted_word: u32,
    queue: u16,
    /// Legacy: bytes of a page, by which the driver counts; and to how many each queue's used ring is aligned.
    page_size: u32,
    alignments: Vec<u32>,
}

/// A device of these parts, by MMIO, with options among which is [`LEGACY`].
///
/// # Errors
/// If it has no place, or the host has no threads for it.
pub fn device(parts: Parts, options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let Some(location) = setup.location else {
        return Err(OptionError::general("it needs `loc ADDRESS`".to_string()));
    };
    let (name, line) = (setup.name.to_string(), setup.interrupt);
    let interface = if options.has(LEGACY.name) { Interface::Legacy } else { Interface::Modern };
    let interrupt = Interrupt::default();
    let core = Core::new(parts, interface, Arc::new(interrupt.clone()), setup)?;
    let alignments = vec![0; core.description().queues.len()];
    Ok(Box::new(Mmio {
        name,
        location,
        line,
        core,
        interface,
        interrupt,
        offered_word: 0,
        accepted_word: 0,
        queue: 0,
        page_size: 0,
        alignments,
    }))
}

impl Mmio {
    fn register(&self, offset: u64, size: AccessSize) -> Result<Register, AccessFault> {
        let register = Register::at(offset, self.interface).ok_or(AccessFault::Unsupported)?;
        if size == AccessSize::Word { Ok(register) } else { Err(AccessFault::Size) }
    }

    fn read_register(&self, register: Register, context: &mut Context<'_>) -> u32 {
        let core = &self.core;
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => match self.interface {
                Interface::Modern => 2,
                Interface::Legacy => 1,
            },
            Register::DeviceId => core.description().device_id.into(),
            Register::VendorId => VENDOR,
            Register::DeviceFeatures => core.offered(self.offered_word),
            Register::QueueSizeMax => core.queue_limit(self.queue).into(),
            Register::QueueReady => core.is_ready(self.queue).into(),
            Register::QueuePfn if core.is_ready(self.queue) => {
                let page = core.layout(self.queue).descriptor_area.0.checked_div(self.page_size.into());
                page.and_then(|page| u32::try_from(page).ok()).unwrap_or(0)
            }
            Register::InterruptStatus => self.interrupt.status(context),
            Register::Status => core.status().bits().into(),
            Register::ShmLenLow | Register::ShmLenHigh | Register::ShmBaseLow | Register::ShmBaseHigh => u32::MAX,
            Register::ConfigGeneration => core.generation(),
            // A queue's reset is complete when the store is. Others are written only.
            _ => 0,
        }
    }

    fn write_register(&mut self, register: Register, value: u32, context: &mut Context<'_>) {
        match register {
            Register::DeviceFeaturesSel => self.offered_word = value,
            Register::DriverFeaturesSel => self.accepted_word = value,
            Register::DriverFeatures => self.core.accept(self.accepted_word, value),
            // There is no queue 65535: one has at most as many as there are numbers below.
            Register::QueueSel => self.queue = u16::try_from(value).unwrap_or(u16::MAX),
            Register::QueueSize => {
                // One too large for the field is too large for the device: it is refused when the queue is enabled.
                self.set_layout(|layout| layout.size = u16::try_from(value).unwrap_or(u16::MAX));
            }
            Register::QueueReady if value & 1 != 0 => self.core.enable(self.queue, context),
            Register::QueueReady => self.core.disable(self.queue, context),
            Register::QueueReset if value & 1 != 0 => self.core.reset_queue(self.queue, context),
            Register::QueueNotify => self.core.notify(value, context),
            Register::InterruptAck => self.interrupt.acknowledge(value, context),
            Register::Status => self.set_status(value, context),
            Register::QueueDescLow => self.set_layout(|layout| set_low(&mut layout.descriptor_area, value)),
            Register::QueueDescHigh => self.set_layout(|layout| set_high(&mut layout.descriptor_area, value)),
            Register::QueueDriverLow => self.set_layout(|layout| set_low(&mut layout.driver_area, value)),
            Register::QueueDriverHigh => self.set_layout(|layout| set_high(&mut layout.driver_area, value)),
            Register::QueueDeviceLow => self.set_layout(|layout| set_low(&mut layout.device_area, value)),
            Register::QueueDeviceHigh => self.set_layout(|layout| set_high(&mut layout.device_area, value)),
            Register::GuestPageSize => self.page_size = value,
            Register::QueueAlign => {
                if let Some(alignment) = self.alignments.get_mut(usize::from(self.queue)) {
                    *alignment = value;
                }
            }
            Register::QueuePfn => self.set_page(value, context),
            _ => {}
        }
    }

    fn set_layout(&mut self, set: impl FnOnce(&mut Layout)) {
        if let Some(layout) = self.core.layout_mut(self.queue) {
            set(layout);
        }
    }

    fn set_status(&mut self, value: u32, context: &mut Context<'_>) {
        // Bits 31 to 8 are nobody's.
        let [value, ..] = value.to_le_bytes();
        if self.core.set_status(value, context) {
            self.reset_registers(context);
        }
    }

    fn reset_registers(&mut self, context: &mut Context<'_>) {
        (self.offered_word, self.accepted_word, self.queue) = (0, 0, 0);
        self.page_size = 0;
        self.alignments.fill(0);
        self.interrupt.reset(context);
    }

    /// Legacy: the driver says at which page a queue is, which enables it; 0 says that it does not use it any more.
    fn set_page(&mut self, page: u32, context: &mut Context<'_>) {
        if page == 0 {
            return self.core.disable(self.queue, context);
        }
        let start = Ipa(u64::from(page).saturating_mul(self.page_size.into()));
        let alignment = self.alignments.get(usize::from(self.queue)).copied().unwrap_or(0);
        let Some(layout) = self.core.layout_mut(self.queue) else { return };
        match Layout::legacy(start, layout.size, alignment.into()) {
            Some(whole) => {
                *layout = whole;
                self.core.enable(self.queue, context);
            }
            None => self.core.refuse(self.queue, RingError::Place(crate::Area::Device, start), context),
        }
    }
}

impl Vdev for Mmio {
    fn read(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        match offset.checked_sub(CONFIGURATION) {
            Some(offset) => Ok(self.core.read_configuration(offset, size, context)),
            None => Ok(self.read_register(self.register(offset, size)?, context).into()),
        }
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        match offset.checked_sub(CONFIGURATION) {
            Some(offset) => self.core.write_configuration(offset, size, value, context),
            None => {
                let register = self.register(offset, size)?;
                self.write_register(register, u32::try_from(value).unwrap_or(u32::MAX), context);
            }
        }
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Reset | Control::Terminate => {
                self.core.reset(context);
                self.reset_registers(context);
            }
            Control::Button { handled } => *handled |= self.core.press_button(context),
            Control::Status(report) => {
                let written = write!(report, "{}: ", self.name).and_then(|()| self.core.report(report, context));
                return written.map_err(|_| ControlError("the report is full".to_string()));
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.core.wake(wake, context);
    }

    fn describe(&self, parent: &mut Node) {
        let registers = Range::between(self.location, Ipa(self.location.0.saturating_add(REGION_SIZE)));
        let node = Node::at("virtio_mmio", self.location).compatible(&["virtio,mmio"]).reg(&[registers]);
        let node = match self.line {
            Some(line) => node.interrupt(line, Trigger::Level),
            None => node,
        };
        parent.add(node.flag("dma-coherent"));
    }
}

/// Bits 31 to 0 of an address.
fn set_low(address: &mut Ipa, value: u32) {
    address.0 = address.0 >> 32 << 32 | u64::from(value);
}

/// Bits 63 to 32 of an address.
fn set_high(address: &mut Ipa, value: u32) {
    address.0 = address.0 << 32 >> 32 | u64::from(value) << 32;
}

#[cfg(test)]
mod tests;
