//! A function on the bus: what makes a [`vdev::Vdev`] of a [`Function`].
//!
//! Answers for: what is the same of every function: its configuration space, the table of its messages, telling the bus where the
//! guest has put its regions, and telling the rest of an access's offset from all that. Does not answer for: what is in its
//! regions, and its share of capabilities.

use crate::config::{ConfigSpace, Flaw};
use crate::function::{Configuration, Description, Function, Region, Width};
use crate::interrupts::Interrupts;
use crate::{BAR_SHIFT, CONFIG_SIZE};
use alloc::boxed::Box;
use alloc::format;
use core::fmt;
use types::AccessSize;
use vdev::{AccessFault, AccessSizes, Connector, Context, Control, ControlError, Node, OptionError, Setup, Vdev, Wake};

/// A function with everything around it.
pub struct Endpoint {
    connector: Connector,
    space: ConfigSpace,
    interrupts: Interrupts,
    messages: Option<MessageRegisters>,
    function: Box<dyn Function>,
}

/// Where a function's messages are dealt with.
#[derive(Clone, Copy)]
struct MessageRegisters {
    bar: u8,
    /// Message control, in the configuration space.
    control: u16,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("slot", &self.connector.slot)
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The function that is in the slot that `setup` has for it. `make` makes what is its own, and is given its interrupts.
    ///
    /// # Errors
    /// If `setup` has no slot, `make` fails, or the description cannot be.
    pub fn attach<F: Function + 'static>(
        setup: &mut Setup<'_>,
        description: &Description,
        make: impl FnOnce(&mut Setup<'_>, Interrupts) -> Result<F, OptionError>,
    ) -> Result<Box<dyn Vdev>, OptionError> {
        let Some(connector) = setup.connector.clone() else {
            return Err(OptionError::general("it needs a place on the PCI bus, as in `loc pci:3`".into()));
        };
        let flaw = |flaw: Flaw| OptionError::general(format!("as a function of the PCI bus {flaw}"));
        let pin = if setup.interrupt.is_some() { connector.slot.pin() } else { 0 };
        let (space, interrupts, messages) = lay_out(description, &connector, pin).map_err(flaw)?;
        check_room(&space, &connector)?;
        let function = Box::new(make(setup, interrupts.clone())?);
        Ok(Box::new(Self { connector, space, interrupts, messages, function }))
    }

    /// One that is not made of a configuration's option: the host bridge.
    pub(crate) fn internal(
        connector: Connector,
        description: &Description,
        function: Box<dyn Function>,
    ) -> Result<Self, Flaw> {
        let (space, interrupts, messages) = lay_out(description, &connector, 0)?;
        Ok(Self { connector, space, interrupts, messages, function })
    }

    fn read_config(&mut self, at: u16, size: AccessSize, context: &mut Context<'_>) -> u64 {
        self.space.set_interrupt_status(self.interrupts.level());
        if let Some(capability) = self.space.watched(at) {
            self.function.configuration(Configuration::Read { space: &mut self.space, capability, at, size }, context);
        }
        self.space.read(at, size)
    }

    fn write_config(&mut self, at: u16, size: AccessSize, value: u64, context: &mut Context<'_>) {
        let before = (self.space.command(), self.message_control());
        self.space.write(at, size, value);
        if ConfigSpace::concerns_bars(at) {
            self.place();
        }
        let (command, control) = (self.space.command(), self.message_control());
        if (command, control) != before {
            self.interrupts.configure(command, control, context);
        }
        let capability = self.space.watched(at);
        self.function.configuration(Configuration::Written { space: &mut self.space, capability, at, size }, context);
    }

    /// Message control.
    fn message_control(&self) -> u16 {
        let at = self.messages.map(|messages| messages.control);
        at.and_then(|at| u16::try_from(self.space.read(at, AccessSize::Halfword)).ok()).unwrap_or(0)
    }

    fn place(&self) {
        let Connector { slot, decoder, .. } = &self.connector;
        self.space.bars().for_each(|bar| decoder.place(*slot, bar.index, self.space.placed(bar.index)));
    }

    /// Where `offset` is, behind the configuration space, if it is anywhere.
    fn region(&self, offset: u64, size: AccessSize) -> Result<Option<(Region, u64)>, AccessFault> {
        let within = offset & (1_u64 << BAR_SHIFT).wrapping_sub(1);
        let Some(index) = (offset >> BAR_SHIFT).checked_sub(1) else { return Ok(Some((Region::Window, offset))) };
        let Some(bar) = self.space.bar(index).filter(|bar| within < bar.size) else { return Ok(None) };
        if bar.sizes.allows(size) { Ok(Some((Region::Bar(bar.index), within))) } else { Err(AccessFault::Size) }
    }

    fn is_of_messages(&self, region: Region) -> bool {
        self.messages.is_some_and(|messages| region == Region::Bar(messages.bar))
    }
}

/// Whether there is room on the bus for all regions.
pub(crate) fn check_room(space: &ConfigSpace, connector: &Connector) -> Result<(), OptionError> {
    let bytes = |width: Width| {
        let of_width = space.bars().filter(|bar| bar.width == width);
        of_width.fold(0_u64, |bytes, bar| bytes.saturating_add(bar.size))
    };
    let (below_4g, anywhere) = (bytes(Width::Bits32), bytes(Width::Bits64));
    if connector.decoder.has_room(below_4g, anywhere) {
        return Ok(());
    }
    let message = format!(
        "the windows of the PCI bus have no room for its {} bytes beside those of the others: name larger ones, as in \
         `vdev pci-host window 0x10000000,256M`",
        below_4g.saturating_add(anywhere)
    );
    Err(OptionError::general(message))
}

/// The register that an access to the configuration space is to.
pub(crate) fn register(offset: u64, size: AccessSize) -> Result<u16, AccessFault> {
    // PCI Express, 7.2.2: up to a dword.
    let allowed = AccessSizes::BYTE.union(AccessSizes::HALFWORD).union(AccessSizes::WORD).allows(size);
    u16::try_from(offset).ok().filter(|_| allowed).ok_or(AccessFault::Size)
}

fn lay_out(
    description: &Description,
    connector: &Connector,
    pin: u8,
) -> Result<(ConfigSpace, Interrupts, Option<MessageRegisters>), Flaw> {
    let mut space = ConfigSpace::new(&description.identity, pin, connector.is_one_of_several);
    description.bars.iter().try_for_each(|bar| space.add_bar(bar))?;
    // Where messages reach nobody, none are offered: a driver that is content with the capability would wait for ever.
    let offered = description.messages.filter(|_| connector.has_messages);
    let interrupts = Interrupts::new(offered, connector.slot)?;
    let mut messages = None;
    if let Some((offered, (bar, capability))) = offered.and_then(|it| Some((it, interrupts.bar(it.bar)?))) {
        space.add_bar(&bar)?;
        let control = space.add_capability(&capability)?.saturating_add(2);
        messages = Some(MessageRegisters { bar: offered.bar, control });
    }
    for capability in &description.capabilities {
        space.add_capability(capability)?;
    }
    Ok((space, interrupts, messages))
}

impl Vdev for Endpoint {
    fn read(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        if offset < CONFIG_SIZE {
            return Ok(self.read_config(register(offset, size)?, size, context));
        }
        match self.region(offset, size)? {
            Some((region, offset)) if self.is_of_messages(region) => Ok(self.interrupts.read(offset, size)),
            Some((region, offset)) => self.function.read(region, offset, size, context),
            None => Ok(u64::MAX),
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
            self.write_config(register(offset, size)?, size, value, context);
            return Ok(());
        }
        match self.region(offset, size)? {
            Some((region, offset)) if self.is_of_messages(region) => {
                self.interrupts.write(offset, size, value, context);
                Ok(())
            }
            Some((region, offset)) => self.function.write(region, offset, size, value, context),
            None => Ok(()),
        }
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        if matches!(event, Control::Reset) {
            self.space.reset();
            self.place();
            self.interrupts.reset(context);
        }
        self.function.control(event, context)
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.function.wake(wake, context);
    }

    fn describe(&self, _: &mut Node) {}
}
