//! What the plugs of all devices have in common.
//!
//! Answers for: a device's name, place and line, the line's level as it was last told, and its node in the guest's device
//! tree as far as every device has that. Does not answer for: registers, options, and what else is in the node.

use alloc::{
    format,
    string::{String, ToString},
};
use core::fmt;
use types::{IntId, Ipa, Range};
use vdev::{Context, ControlError, Node, OptionError, Setup, Trigger};

/// The phandle of the clock of the first device; above those that [`Node`] names.
const FIRST_CLOCK: u32 = 0x8100;

/// A device's place in its VM.
pub(crate) struct Plug {
    name: String,
    location: Ipa,
    interrupt: Option<IntId>,
    /// What the interrupt line was last told.
    asserted: bool,
    /// The phandle of the clock of its own, if it describes one.
    clock: u32,
}

impl Plug {
    /// Of a device that has registers.
    pub(crate) fn new(setup: &Setup<'_>) -> Result<Self, OptionError> {
        let Some(location) = setup.location else {
            return Err(OptionError::general("it needs `loc ADDRESS`".to_string()));
        };
        let clock = FIRST_CLOCK.saturating_add(u32::from(setup.id.0));
        Ok(Self { name: setup.name.to_string(), location, interrupt: setup.interrupt, asserted: false, clock })
    }

    /// Whether the configuration gives it an interrupt.
    pub(crate) const fn has_line(&self) -> bool {
        self.interrupt.is_some()
    }

    /// Brings the interrupt line to the level that the chip wants, if that has changed.
    #[inline(always)]
    pub(crate) fn settle(&mut self, asserted: bool, context: &mut Context<'_>) {
        if asserted != self.asserted {
            self.asserted = asserted;
            context.set_line(asserted);
        }
    }

    /// A rising edge, whatever the line's level is, and was.
    pub(crate) fn edge(&mut self, context: &mut Context<'_>) {
        context.set_line(false);
        context.set_line(true);
        if !self.asserted {
            context.set_line(false);
        }
    }

    /// Its node: `kind` at its place, with `size` bytes of registers and its interrupt.
    pub(crate) fn node(&self, kind: &str, compatible: &[&str], size: u64, trigger: Trigger) -> Node {
        let node = Node::at(kind, self.location)
            .compatible(compatible)
            .reg(&[Range::between(self.location, Ipa(self.location.0.saturating_add(size)))]);
        match self.interrupt {
            Some(interrupt) => node.interrupt(interrupt, trigger),
            None => node,
        }
    }

    /// Adds a clock of so many hertz, which is the device's own, and returns its phandle (Linux `fixed-clock` binding).
    pub(crate) fn clock(&self, hertz: u32, parent: &mut Node) -> u32 {
        parent.add(
            Node::new(format!("clock-{:x}", self.location.0))
                .compatible(&["fixed-clock"])
                .number("#clock-cells", 0)
                .number("clock-frequency", hertz)
                .number("phandle", self.clock),
        );
        self.clock
    }

    /// A line of the status report.
    pub(crate) fn report(&self, into: &mut dyn fmt::Write, what: fmt::Arguments<'_>) -> Result<(), ControlError> {
        report(into, &self.name, what)
    }
}

/// A line of the status report, of the device `name`.
pub(crate) fn report(into: &mut dyn fmt::Write, name: &str, what: fmt::Arguments<'_>) -> Result<(), ControlError> {
    writeln!(into, "{name}: {what}").map_err(|_| ControlError("the report is full".to_string()))
}

/// What a PrimeCell says at `offset` if that is one of its identification registers, the last eight of its page; zero
/// elsewhere. `bytes` are PeriphID0-3 and PCellID0-3.
#[inline(never)]
pub(crate) fn identification(offset: u64, bytes: &[u8; 8]) -> u32 {
    let index = usize::try_from(offset.wrapping_sub(0xfe0) / 4).ok().filter(|_| offset.is_multiple_of(4));
    index.and_then(|index| bytes.get(index)).map_or(0, |byte| u32::from(*byte))
}
