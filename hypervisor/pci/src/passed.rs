//! A function of the machine as a guest gets to see it.
//!
//! Answers for: everything between the guest and the function's configuration space, and the pages of its registers that have the table
//! of its messages: what is shown, what counts of what is written, where the guest has put the regions, pin and messages. Does not answer
//! for: reaching the function, and what confines it ([`vdev::HostFunction`], whose owner is the kernel).
//!
//! The guest sees the identity and the class of the function, regions of the same sizes that it puts anywhere in the windows of its
//! own bus, and capabilities by a list (`capabilities`). All else is hidden or read only. Regions of I/O ports and the expansion ROM
//! are not there. Where a region is alone it is mapped, but for the pages with table and pending bits; what is not mapped comes here and
//! goes on to the function, so that mapping makes accesses fast and changes nothing else.
//!
//! The function itself always answers in its regions, whatever the guest's "Memory Space Enable" says: an access that nobody
//! answers may be an error of the machine.

mod capabilities;
mod extended;
mod messages;
mod space;

use crate::config::{COMMAND, Command, ConfigSpace, FIRST_CAPABILITY, REVISION, STATUS, SUBSYSTEM_VENDOR};
use crate::endpoint::{check_room, register};
use crate::function::{Bar, Identity, Width};
use crate::{BAR_SHIFT, CONFIG_SIZE, Flaw};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use capabilities::{DETECTED, DEVICE_CONTROL, DEVICE_STATUS, INITIATE_RESET, READ_REQUEST, RELAXED_ORDERING};
use core::fmt;
use extended::{EXTENDED, Extended};
use messages::{Msi, Table};
use space::{EVENTS, Overlay, written};
use types::{AccessSize, Ipa, PAGE_SIZE, Range, RequesterId};
use vdev::{
    AccessFault, AccessSizes, BackendError, Connector, Context, Control, ControlError, Factory, FactoryFlags,
    FunctionFacts, FunctionPart, FunctionSignal, HostFunction, Node, OptionError, Safety, Setup, Vdev, Wake,
    WantedFunction,
};

/// What stands for a passed function among a VM's devices. No configuration names it: `pass loc pci:` does.
pub static PASSED: Factory = Factory {
    name: "pass",
    flags: FactoryFlags::LOC_PCI,
    safety: Safety::Qualified,
    region_size: 0,
    help: "a function of the machine's PCI Express",
    ..Factory::new(|_, _| Err(OptionError::general(String::new())))
};

/// Bits of the command register that are the guest's to decide on; the function's I/O space stays off.
const DECIDED: u32 = 0x407;

/// A function of the machine on a guest's bus.
pub struct Passed {
    name: String,
    connector: Connector,
    facts: FunctionFacts,
    function: Arc<dyn HostFunction>,
    space: ConfigSpace,
    overlay: Overlay,
    /// Where the PCI Express capability is.
    express: Option<u16>,
    extended: Extended,
    msi: Option<Msi>,
    msix: Option<Table>,
    /// What can be mapped, by region.
    parts: Vec<FunctionPart>,
    /// Where it is mapped.
    mapped: [Option<Ipa>; 6],
    /// How large the function's read requests may be, as in Device Control: as the host has found it.
    read_request: u16,
    /// The pin is asserted, as far as the guest is concerned.
    asserted: bool,
    is_resetting: bool,
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passed").field("facts", &self.facts).field("space", &self.space).finish_non_exhaustive()
    }
}

impl Passed {
    /// The function `wanted`, in the slot that `setup` has for it. One that is `without_reset` need not be one that can be reset.
    ///
    /// # Errors
    /// If the VM cannot have it, or the bus has no room for it.
    pub fn attach(
        setup: &mut Setup<'_>,
        wanted: WantedFunction,
        without_reset: bool,
    ) -> Result<Box<dyn Vdev>, OptionError> {
        let Some(connector) = setup.connector.clone() else {
            return Err(OptionError::general("it needs a place on the PCI bus".into()));
        };
        let found = setup.backends.function(setup.id, wanted, without_reset);
        let (facts, function) = found.map_err(|BackendError(message)| OptionError::general(message))?;
        if facts.has_pin && setup.interrupt.is_some() {
            setup.hear_ends();
        }
        let pin = if facts.has_pin && setup.interrupt.is_some() { connector.slot.pin() } else { 0 };
        let name = setup.name.into();
        check_windows(&facts, &connector).map_err(OptionError::general)?;
        let flaw = |flaw: Flaw| OptionError::general(format!("the function {} of the machine: {flaw}", facts.name));
        let made = Self::new(name, connector, (facts.clone(), function), pin).map_err(flaw)?;
        let room = check_room(&made.space, &made.connector);
        room.map_err(|error| OptionError::general(format!("the function {} of the machine: {error}", facts.name)))?;
        Ok(Box::new(made))
    }

    fn new(
        name: String,
        connector: Connector,
        (facts, function): (FunctionFacts, Arc<dyn HostFunction>),
        pin: u8,
    ) -> Result<Self, Flaw> {
        let mut space = ConfigSpace::new(&identity(&facts, &*function), pin, connector.is_one_of_several);
        for bar in &facts.bars {
            let width = if bar.is_64_bit { Width::Bits64 } else { Width::Bits32 };
            space.add_bar(&Bar { index: bar.index, size: bar.size, width, sizes: AccessSizes::all() })?;
        }
        let mut overlay = Overlay::new();
        let most = if connector.has_messages { facts.messages } else { 0 };
        let wanted = capabilities::Messages { most, can_be_reset: facts.can_be_reset };
        let found = capabilities::show(&*function, wanted, &mut space, &mut overlay)?;
        let size_of = |bar| facts.bars.iter().find(|it| it.index == bar).map_or(0, |bar| bar.size);
        let msix = found.msix.map(|found| Table::new(found, most, size_of)).transpose()?.flatten();
        let control = found.express.map(|at| at.saturating_add(DEVICE_CONTROL));
        let control = control.map_or(0, |at| function.configuration(at, AccessSize::Halfword, None));
        let has_extended = found.express.is_some();
        let extended = Extended::new(&*function, has_extended, facts.virtual_functions, connector.slot);
        let mut parts = Vec::new();
        for bar in facts.bars.iter().filter(|bar| bar.size >= PAGE_SIZE) {
            let trapped = msix.as_ref().map_or([(0, 0); 2], |table| table.pages(bar.index));
            let open = open(bar.size, trapped);
            parts.extend(open.map(|(offset, length)| FunctionPart { bar: bar.index, offset, length }));
        }
        Ok(Self {
            name,
            connector,
            facts,
            function,
            space,
            overlay,
            express: found.express,
            extended,
            msi: found.msi,
            msix,
            parts,
            mapped: [None; 6],
            read_request: u16::try_from(control & 0xffff).unwrap_or(0) & READ_REQUEST,
            asserted: false,
            is_resetting: false,
        })
    }

    fn requester(&self) -> RequesterId {
        RequesterId(self.connector.slot.number().into())
    }

    // ---- the configuration space

    fn read_config(&self, at: u16, size: AccessSize) -> u64 {
        if at < EXTENDED {
            return self.overlay.read(&*self.function, at, size, self.space.read(at, size));
        }
        self.extended.read(&*self.function, at, size)
    }

    fn write_config(&mut self, at: u16, size: AccessSize, value: u64, context: &mut Context<'_>) {
        if at >= EXTENDED {
            return self.extended.write(at, size, value);
        }
        self.space.write(at, size, value);
        if ConfigSpace::concerns_bars(at) {
            self.place();
            self.settle_command();
        }
        self.clear(STATUS, EVENTS, (at, size, value));
        if let Some(express) = self.express.filter(|_| at >= FIRST_CAPABILITY) {
            self.clear(express.saturating_add(DEVICE_STATUS), DETECTED, (at, size, value));
            self.write_device_control(express.saturating_add(DEVICE_CONTROL), (at, size, value), context);
        }
        if let Some(msi) = self.msi.filter(|msi| msi.has(at)) {
            msi.write((at, size, value), &self.space, self.requester(), &*self.function);
        }
        if let Some(msix) = &mut self.msix
            && written(at, size, value, msix.control_at).0 != 0
        {
            let control = self.space.read(msix.control_at, AccessSize::Halfword);
            msix.set_control(u16::try_from(control).unwrap_or(0), &*self.function);
        }
        if self.asserted && !self.may_assert() {
            self.release_pin(context);
        }
    }

    /// A store to a register of the function in which ones clear bits, as far as the guest may.
    fn clear(&self, register: u16, clearable: u16, (at, size, value): (u16, AccessSize, u64)) {
        let (_, bits) = written(at, size, value, register);
        if bits & clearable != 0 {
            self.function.configuration(register, AccessSize::Halfword, Some(u32::from(bits & clearable)));
        }
    }

    fn write_device_control(
        &mut self,
        register: u16,
        (at, size, value): (u16, AccessSize, u64),
        context: &mut Context<'_>,
    ) {
        let (mask, bits) = written(at, size, value, register);
        if bits & INITIATE_RESET != 0 && capabilities::shows_reset(&self.space, register) {
            return self.begin_reset(context);
        }
        let counts = mask & (READ_REQUEST | RELAXED_ORDERING);
        if counts == 0 {
            return;
        }
        let now = self.function.configuration(register, AccessSize::Halfword, None) & 0x7fff;
        let mut wanted = u16::try_from(now).unwrap_or(0) & !counts | bits & counts;
        if wanted & READ_REQUEST > self.read_request {
            wanted = wanted & !READ_REQUEST | self.read_request;
        }
        self.function.configuration(register, AccessSize::Halfword, Some(wanted.into()));
    }

    /// The function's command register, after the guest's.
    fn settle_command(&self) {
        let command = self.space.command();
        let mut wanted = command.intersection(Command::BUS_MASTER | Command::INTERRUPT_DISABLE);
        wanted.set(Command::MEMORY_SPACE, !self.facts.bars.is_empty());
        if !self.facts.has_pin {
            wanted |= Command::INTERRUPT_DISABLE;
        }
        let now = self.function.configuration(COMMAND, AccessSize::Halfword, None);
        let wanted = now & !DECIDED & 0xffff | u32::from(wanted.bits());
        self.function.configuration(COMMAND, AccessSize::Halfword, Some(wanted));
    }

    // ---- regions

    /// Tells the bus where the regions are, and has the guest reach them there.
    fn place(&mut self) {
        let Connector { slot, decoder, .. } = &self.connector;
        self.space.bars().for_each(|bar| decoder.place(*slot, bar.index, self.space.placed(bar.index)));
        for bar in self.space.bars() {
            let is_alone = decoder.is_alone(*slot, bar.index);
            let wanted = self.space.placed(bar.index).filter(|_| is_alone).map(|range| range.start());
            let Some(mapped) = self.mapped.get_mut(usize::from(bar.index)) else { continue };
            let old = core::mem::replace(mapped, wanted);
            if old != wanted {
                let parts = || self.parts.iter().filter(|part| part.bar == bar.index);
                for (at, reach) in old.map(|at| (at, false)).into_iter().chain(wanted.map(|at| (at, true))) {
                    for part in parts() {
                        let at = Ipa(at.0.saturating_add(part.offset));
                        // What cannot be mapped comes here.
                        let _ = self.function.map(at, *part, reach);
                    }
                }
            }
        }
    }

    /// Where `offset` is, behind the configuration space, if it is anywhere.
    fn region(&self, offset: u64) -> Option<(u8, u64)> {
        let within = offset & (1_u64 << BAR_SHIFT).wrapping_sub(1);
        let index = (offset >> BAR_SHIFT).checked_sub(1)?;
        let bar = self.space.bar(index).filter(|bar| within < bar.size)?;
        Some((bar.index, within))
    }

    /// Where in the table of messages an access is.
    fn in_table(&self, bar: u8, offset: u64, size: AccessSize) -> Result<Option<u64>, AccessFault> {
        let within = self.msix.as_ref().and_then(|table| table.find(bar, offset));
        // PCI, 6.8.2: aligned dwords or qwords.
        match size {
            AccessSize::Byte | AccessSize::Halfword if within.is_some() => Err(AccessFault::Size),
            _ => Ok(within),
        }
    }

    // ---- pin and reset

    fn has_messages(&self) -> bool {
        self.msi.is_some_and(|msi| msi.is_enabled(&self.space)) || self.msix.as_ref().is_some_and(Table::is_enabled)
    }

    fn may_assert(&self) -> bool {
        !self.has_messages() && !self.space.command().contains(Command::INTERRUPT_DISABLE)
    }

    /// The pin may be asserted: the status register says (PCI, 6.2.3).
    fn look_at_pin(&mut self, context: &mut Context<'_>) {
        let is_asserted = || {
            let status = self.function.configuration(STATUS, AccessSize::Halfword, None);
            status & u32::from(crate::config::INTERRUPT_STATUS) != 0
        };
        if !self.is_resetting && self.may_assert() && is_asserted() {
            if !self.asserted {
                self.asserted = true;
                context.set_line(true);
            }
        } else {
            self.release_pin(context);
        }
    }

    fn release_pin(&mut self, context: &mut Context<'_>) {
        let was_asserted = core::mem::take(&mut self.asserted);
        if was_asserted {
            context.set_line(false);
        }
        self.function.signal(if was_asserted { FunctionSignal::PinEnded } else { FunctionSignal::PinIdle });
    }

    fn begin_reset(&mut self, context: &mut Context<'_>) {
        self.space.reset();
        self.extended.reset();
        self.place();
        self.release_pin(context);
        self.is_resetting = true;
        self.function.signal(FunctionSignal::Reset);
        context.later();
    }

    /// The function is as after a reset, and is brought to where the guest believes it is.
    fn take_over(&mut self) {
        self.is_resetting = false;
        // Registers that have the table answer from here on.
        self.settle_command();
        if let Some(msix) = &mut self.msix {
            msix.reset(&*self.function);
        }
        if let Some(msi) = &self.msi {
            msi.settle(&self.space, self.requester(), &*self.function);
        }
    }

    /// The function has been reset, of which the guest knows nothing, and is brought to where the guest has had it.
    fn restore(&mut self) {
        if self.is_resetting {
            return;
        }
        self.settle_command();
        let from = self.requester();
        if let Some(msix) = &mut self.msix {
            let control = self.space.read(msix.control_at, AccessSize::Halfword);
            msix.restore(from, &*self.function);
            msix.set_control(u16::try_from(control).unwrap_or(0), &*self.function);
        }
        if let Some(msi) = &self.msi {
            msi.settle(&self.space, from, &*self.function);
        }
    }

    fn status(&self, into: &mut dyn fmt::Write) -> fmt::Result {
        let FunctionFacts { name, vendor, device, .. } = &self.facts;
        let interrupts = match self.has_messages() {
            true => "messages",
            false if self.facts.has_pin => "its pin",
            false => "nothing",
        };
        let master = if self.space.command().contains(Command::BUS_MASTER) { ", bus master" } else { "" };
        write!(
            into,
            "{}: {name} of the machine, {vendor:04x}:{device:04x}, interrupts by {interrupts}{master}",
            self.name
        )?;
        match self.extended.served() {
            0 => writeln!(into),
            served => writeln!(into, ", serves {served} virtual functions"),
        }
    }
}

/// Whether each region has a place in one of the windows, at a multiple of its size.
fn check_windows(facts: &FunctionFacts, connector: &Connector) -> Result<(), String> {
    let windows = connector.decoder.windows();
    for bar in &facts.bars {
        let can_be_in = |window: &Range<Ipa>| bar.is_64_bit || window.end().0 <= 1 << 32;
        let holds = |window: &&Range<Ipa>| {
            let place = window.start().align_up(bar.size.max(1)).and_then(|start| Range::new(start, bar.size));
            can_be_in(window) && place.is_some_and(|place| window.contains_range(&place))
        };
        if bar.size.is_power_of_two() && windows.iter().find(holds).is_none() {
            let names: Vec<String> =
                windows.iter().filter(|window| can_be_in(window)).map(ToString::to_string).collect();
            return Err(format!(
                "BAR {} of {} has {:#x} bytes, which no window of the guest's PCI bus has at a multiple of that ({}): name a \
                 larger one, as in `vdev pci-host window 0x10000000,256M`",
                bar.index,
                facts.name,
                bar.size,
                names.join(", ")
            ));
        }
    }
    Ok(())
}

/// Who the function is (PCI, 6.2.1, 6.2.4).
fn identity(facts: &FunctionFacts, function: &dyn HostFunction) -> Identity {
    let class = function.configuration(REVISION, AccessSize::Word, None);
    let [revision, ..] = class.to_le_bytes();
    let subsystem = |at| u16::try_from(function.configuration(at, AccessSize::Halfword, None) & 0xffff).unwrap_or(0);
    Identity {
        vendor: facts.vendor,
        device: facts.device,
        class: class >> 8,
        revision,
        subsystem_vendor: subsystem(SUBSYSTEM_VENDOR),
        subsystem: subsystem(SUBSYSTEM_VENDOR.saturating_add(2)),
    }
}

/// What is left of a region's `size` bytes without two parts of it: offsets and lengths.
fn open(size: u64, mut without: [(u64, u64); 2]) -> impl Iterator<Item = (u64, u64)> {
    without.sort_unstable();
    let [(first, first_end), (second, second_end)] = without;
    let gaps = [(0, first), (first_end, second), (first_end.max(second_end), size)];
    let gaps = gaps.into_iter().map(move |(start, end)| (start, end.min(size).saturating_sub(start)));
    gaps.filter(|(_, length)| *length > 0)
}

impl Vdev for Passed {
    fn read(&mut self, offset: u64, size: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        if offset < CONFIG_SIZE {
            let at = register(offset, size)?;
            return Ok(if self.is_resetting { u64::MAX } else { self.read_config(at, size) });
        }
        let Some((bar, within)) = self.region(offset).filter(|_| !self.is_resetting) else { return Ok(u64::MAX) };
        match (self.in_table(bar, within, size)?, &self.msix) {
            (Some(within), Some(table)) => Ok(table.read(within, size)),
            _ => self.function.registers(bar, within, size, None),
        }
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        if offset < CONFIG_SIZE {
            let at = register(offset, size)?;
            if !self.is_resetting {
                self.write_config(at, size, value, context);
            }
            return Ok(());
        }
        let Some((bar, within)) = self.region(offset).filter(|_| !self.is_resetting) else { return Ok(()) };
        let (in_table, from) = (self.in_table(bar, within, size)?, self.requester());
        match (in_table, &mut self.msix) {
            (Some(within), Some(table)) => table.write((within, size, value), from, &*self.function),
            // PCI, 6.8.2.10: pending bits are not written.
            (None, Some(table)) if table.has_pending(bar, within) => {}
            _ => return self.function.registers(bar, within, size, Some(value)).map(drop),
        }
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::GuestConfigured => self.take_over(),
            Control::Status(into) => {
                self.status(into).map_err(|_| ControlError("its status cannot be told".into()))?;
            }
            Control::Reset => self.begin_reset(context),
            // DMA first, interrupts second; the rest is done from outside, whether this was or not. In a reset nobody looks at it.
            Control::Terminate if !self.is_resetting => {
                self.space.reset();
                self.settle_command();
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        match wake {
            Wake::Backend if self.facts.has_pin => self.look_at_pin(context),
            Wake::Backend => self.restore(),
            Wake::InterruptEnded if self.asserted => self.release_pin(context),
            Wake::Pulse(_) if self.is_resetting => self.take_over(),
            _ => {}
        }
    }

    fn describe(&self, _: &mut Node) {}
}

#[cfg(test)]
mod tests;
