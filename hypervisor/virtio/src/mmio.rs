//! Virtio over MMIO (4.2): version 2, and with the option `legacy` version 1 (4.2.4).
//!
//! Answers for: the registers, the interrupt, the node in the guest's device tree. Does not answer for: what they stand for
//! ([`crate::Core`]).
//!
//! Control registers take accesses of 32 bits and no others, as drivers have to make them (4.2.2.2). What only can be written reads
//! zero, and stores to what only can be read are ignored; at other offsets there is nothing. The device's own configuration space
//! takes all sizes. There is no shared memory region: such registers read all ones.
//!
//! No load has an effect. So a device that has a page for itself has its driver read it without an exit ([`Setup::shadow_page`]): loads
//! there take all sizes, and find zero where there is nothing. Whatever may change what is read ends with [`Mmio::settle`]; what a
//! worker changes is [`Interrupt`]'s. See docs/design/034-shadow-page.md.

mod interrupt;
mod registers;
mod shadow;

use crate::device::{Core, Interface};
use crate::front::{Front, set_high, set_low};
use crate::model::Parts;
use crate::{Layout, RingError};
use alloc::{boxed::Box, string::ToString, sync::Arc, vec, vec::Vec};
use interrupt::Interrupt;
use registers::Register;
use shadow::Shadow;
use types::{AccessSize, IntId, Ipa, Range};
use vdev::{AccessFault, Context, Control, ControlError, Node, OptionError, Setup, Trigger, Vdev, Wake};

/// Bytes of registers and configuration space.
pub(crate) const REGION_SIZE: u64 = END as u64;
const END: u16 = 0x200;

/// Where the configuration space begins.
const CONFIGURATION: u16 = 0x100;
const CONFIGURATION_SIZE: usize = (END - CONFIGURATION) as usize;
const QUEUE_NOTIFY: u64 = Register::QueueNotify.offset() as u64;
const INTERRUPT_ACK: u64 = Register::InterruptAck.offset() as u64;
/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// "BLKH": nobody registers such numbers, and drivers do not look.
const VENDOR: u32 = 0x484b_4c42;

/// A device at registers in memory.
struct Mmio {
    location: Ipa,
    line: Option<IntId>,
    front: Front,
    interface: Interface,
    interrupt: Interrupt,
    /// Legacy: bytes of a page, by which the driver counts, once for all its lives, as Linux says it before its first reset; and to how
    /// many each queue's used ring is aligned.
    page_size: u32,
    alignments: Vec<u32>,
}

/// A device of these parts, by MMIO.
///
/// # Errors
/// If it has no place, or the host has no threads for it.
pub(crate) fn device(parts: Parts, is_legacy: bool, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let Some(location) = setup.location else {
        return Err(OptionError::general("it needs `loc ADDRESS`".to_string()));
    };
    let (name, line) = (setup.name.to_string(), setup.interrupt);
    let interface = if is_legacy { Interface::Legacy } else { Interface::Modern };
    let interrupt = Interrupt::new(setup.shadow_page().map(Shadow::new));
    let core = Core::new(parts, interface, Arc::new(interrupt.clone()), setup)?;
    let alignments = vec![0; core.description().queues.len()];
    let front = Front::new(name, core);
    Ok(Box::new(Mmio { location, line, front, interface, interrupt, page_size: 0, alignments }))
}

impl Mmio {
    fn register(&self, offset: u64, size: AccessSize) -> Result<Register, AccessFault> {
        let register = Register::at(offset, self.interface).ok_or(AccessFault::Unsupported)?;
        if size == AccessSize::Word { Ok(register) } else { Err(AccessFault::Size) }
    }

    /// What it reads; of `InterruptStatus` the interrupt knows.
    fn value(&self, register: Register) -> u32 {
        let (core, queue) = (&self.front.core, self.front.queue);
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => match self.interface {
                Interface::Modern => 2,
                Interface::Legacy => 1,
            },
            Register::DeviceId => core.description().device_id.into(),
            Register::VendorId => VENDOR,
            Register::DeviceFeatures => self.front.offered(),
            Register::QueueSizeMax => core.queue_limit(queue).into(),
            Register::QueueReady => core.is_ready(queue).into(),
            Register::QueuePfn if core.is_ready(queue) => {
                let page = self.front.layout().descriptor_area.0.checked_div(self.page_size.into());
                page.and_then(|page| u32::try_from(page).ok()).unwrap_or(0)
            }
            Register::Status => core.status().bits().into(),
            Register::ShmLenLow | Register::ShmLenHigh | Register::ShmBaseLow | Register::ShmBaseHigh => u32::MAX,
            Register::ConfigGeneration => core.generation(),
            // A queue's reset is complete when the store is. Others are written only.
            _ => 0,
        }
    }

    /// Has the driver read what is so now, and hear of it if it is to.
    fn settle(&mut self, context: &mut Context<'_>) {
        let mut configuration = [0; CONFIGURATION_SIZE];
        self.front.core.copy_configuration(&mut configuration, context);
        let this = &*self;
        self.interrupt.settle(context, |shadow| this.show(&configuration, shadow));
    }

    /// Puts into the page whatever a load would find, but for `InterruptStatus`. The generation is another one while the configuration
    /// space is neither the old nor the new one: who reads it meanwhile tries again (2.5.1, "Driver Requirements").
    fn show(&self, configuration: &[u8; CONFIGURATION_SIZE], shadow: &mut Shadow) {
        let (words, _) = configuration.as_chunks();
        let words = || (CONFIGURATION..).step_by(4).zip(words.iter().map(|word| u32::from_le_bytes(*word)));
        if self.interface == Interface::Modern && words().any(|(offset, value)| shadow.shown(offset) != value) {
            shadow.show(Register::ConfigGeneration.offset(), !self.value(Register::ConfigGeneration));
        }
        words().for_each(|(offset, value)| shadow.show(offset, value));
        for offset in (0..CONFIGURATION).step_by(4) {
            match Register::at(offset.into(), self.interface) {
                Some(Register::InterruptStatus) | None => {}
                Some(register) => shadow.show(offset, self.value(register)),
            }
        }
    }

    fn write_register(&mut self, register: Register, value: u32, context: &mut Context<'_>) {
        let front = &mut self.front;
        match register {
            Register::DeviceFeaturesSel => front.offered_word = value,
            Register::DriverFeaturesSel => front.accepted_word = value,
            Register::DriverFeatures => front.accept(value),
            // There is no queue 65535: one has at most as many as there are numbers below.
            Register::QueueSel => front.queue = u16::try_from(value).unwrap_or(u16::MAX),
            Register::QueueSize => {
                // One too large for the field is too large for the device: it is refused when the queue is enabled.
                front.set_layout(|layout| layout.size = u16::try_from(value).unwrap_or(u16::MAX));
            }
            Register::QueueReady if value & 1 != 0 => front.core.enable(front.queue, context),
            Register::QueueReady => front.core.disable(front.queue, context),
            Register::QueueReset if value & 1 != 0 => _ = front.reset_queue(context),
            Register::Status => self.set_status(value, context),
            Register::QueueDescLow => front.set_layout(|layout| set_low(&mut layout.descriptor_area, value)),
            Register::QueueDescHigh => front.set_layout(|layout| set_high(&mut layout.descriptor_area, value)),
            Register::QueueDriverLow => front.set_layout(|layout| set_low(&mut layout.driver_area, value)),
            Register::QueueDriverHigh => front.set_layout(|layout| set_high(&mut layout.driver_area, value)),
            Register::QueueDeviceLow => front.set_layout(|layout| set_low(&mut layout.device_area, value)),
            Register::QueueDeviceHigh => front.set_layout(|layout| set_high(&mut layout.device_area, value)),
            Register::GuestPageSize => self.page_size = value,
            Register::QueueAlign => {
                if let Some(alignment) = self.alignments.get_mut(usize::from(front.queue)) {
                    *alignment = value;
                }
            }
            Register::QueuePfn => self.set_page(value, context),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32, context: &mut Context<'_>) {
        // Bits 31 to 8 are nobody's.
        let [value, ..] = value.to_le_bytes();
        if self.front.set_status(value, context) {
            self.reset_registers(context);
        }
    }

    fn reset_registers(&mut self, context: &mut Context<'_>) {
        self.alignments.fill(0);
        self.interrupt.reset(context);
    }

    /// Legacy: the driver says at which page a queue is, which enables it; 0 says that it does not use it any more.
    fn set_page(&mut self, page: u32, context: &mut Context<'_>) {
        let Front { core, queue, .. } = &mut self.front;
        if page == 0 {
            return core.disable(*queue, context);
        }
        let start = Ipa(u64::from(page).saturating_mul(self.page_size.into()));
        let alignment = self.alignments.get(usize::from(*queue)).copied().unwrap_or(0);
        let Some(layout) = core.layout_mut(*queue) else { return };
        match Layout::legacy(start, layout.size, alignment.into()) {
            Some(whole) => {
                *layout = whole;
                core.enable(*queue, context);
            }
            None => core.refuse(*queue, RingError::Place(crate::Area::Device, start), context),
        }
    }
}

impl Vdev for Mmio {
    fn read(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        match offset.checked_sub(CONFIGURATION.into()) {
            Some(offset) => Ok(self.front.core.read_configuration(offset, size, context)),
            None => Ok(match self.register(offset, size)? {
                Register::InterruptStatus => self.interrupt.status(context),
                register => self.value(register),
            }
            .into()),
        }
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        let low = u32::try_from(value).unwrap_or(u32::MAX);
        // Stored to for every request, and nothing that can be read changes by it but `InterruptStatus`.
        match (offset, size) {
            (QUEUE_NOTIFY, AccessSize::Word) => {
                self.front.core.notify(low, context);
                return Ok(());
            }
            (INTERRUPT_ACK, AccessSize::Word) => {
                self.interrupt.acknowledge(low, context);
                return Ok(());
            }
            _ => {}
        }
        match offset.checked_sub(CONFIGURATION.into()) {
            Some(offset) => self.front.core.write_configuration(offset, size, value, context),
            None => {
                let register = self.register(offset, size)?;
                self.write_register(register, low, context);
            }
        }
        self.settle(context);
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        if self.front.control(event, context)? {
            self.reset_registers(context);
            self.page_size = 0;
        }
        self.settle(context);
        Ok(())
    }

    /// Back ends do this often, and seldom change anything but what they say.
    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        let before = self.front.core.generation();
        self.front.core.wake(wake, context);
        if self.front.core.generation() != before {
            self.settle(context);
        }
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

#[cfg(test)]
mod tests;
