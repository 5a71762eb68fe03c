//! `vdev pl011`: the Arm PrimeCell UART on a guest's bus.
//!
//! Answers for: the plug around the [`chip`]: back end, interrupt line, options, device tree (Linux `arm,pl011` binding).
//! Does not answer for: registers and FIFOs (the chip's), nor for what a back end does with the bytes.

mod chip;
mod fifo;
mod registers;

use crate::character;
use alloc::{
    boxed::Box,
    string::{String, ToString},
};
use chip::Chip;
use types::{AccessSize, IntId, Ipa, Range};
use vdev::{
    AccessFault, AccessSizes, CharDevice, Context, Control, ControlError, Factory, Node, OptionError, OptionKind,
    OptionSpec, Options, Safety, Setup, Trigger, Vdev, Wake,
};

/// DDI 0183, "Summary of registers": one 4 KiB page.
const REGION_SIZE: u64 = 0x1000;

/// `vdev pl011`.
pub(crate) static FACTORY: Factory = Factory {
    name: "pl011",
    access_sizes: AccessSizes::BYTE.union(AccessSizes::HALFWORD).union(AccessSizes::WORD),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    help: "Arm PrimeCell UART (PL011 r1p5)",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[
    character::HOSTDEV,
    OptionSpec::new(
        "batch",
        OptionKind::Number { min: 0, max: u64::MAX },
        "microseconds of silence after which output is passed on as a block",
    )
    .not_yet(),
    OptionSpec::new("delayed", OptionKind::Text, "open the back end at the first access: SECONDS or `forever`")
        .not_yet(),
];

struct Pl011 {
    chip: Chip,
    wire: Box<dyn CharDevice>,
    /// What the interrupt line was last told.
    asserted: bool,
    name: String,
    location: Ipa,
    interrupt: Option<IntId>,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let Some(location) = setup.location else {
        return Err(OptionError::general("`vdev pl011` needs `loc ADDRESS`".to_string()));
    };
    Ok(Box::new(Pl011 {
        chip: Chip::default(),
        wire: character::open(options, setup)?,
        asserted: false,
        name: setup.name.to_string(),
        location,
        interrupt: setup.interrupt,
    }))
}

impl Pl011 {
    /// Brings the interrupt line to what the chip says, if that has changed.
    #[inline]
    fn settle(&mut self, context: &mut Context<'_>) {
        let asserted = self.chip.interrupt();
        if asserted != self.asserted {
            self.asserted = asserted;
            context.set_line(asserted);
        }
    }

    #[inline(never)]
    fn take(&mut self, context: &mut Context<'_>) -> u16 {
        let value = self.chip.take(&mut *self.wire);
        self.settle(context);
        value
    }

    fn service(&mut self, context: &mut Context<'_>) {
        if self.chip.service(&mut *self.wire) {
            context.output();
        }
        self.settle(context);
    }
}

impl Vdev for Pl011 {
    #[inline]
    fn read(&mut self, offset: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        // Only the data register does anything when it is read.
        let value = if Chip::is_data(offset) { self.take(context) } else { self.chip.read(offset) };
        Ok(u64::from(value))
    }

    #[inline]
    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        if self.chip.write(offset, value, &mut *self.wire) {
            context.output();
        }
        self.settle(context);
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            // First what came before the device could be woken, last what was held back, as far as there is space.
            Control::GuestStarting | Control::Terminate => self.service(context),
            Control::Reset => self.chip = Chip::default(),
            Control::Status(report) => {
                return writeln!(report, "{}: {}", self.name, self.chip)
                    .map_err(|_| ControlError("the report is full".to_string()));
            }
            _ => {}
        }
        self.settle(context);
        Ok(())
    }

    fn wake(&mut self, _: Wake, context: &mut Context<'_>) {
        self.service(context);
    }

    fn describe(&self, parent: &mut Node) {
        let mut node = Node::at("serial", self.location)
            .compatible(&["arm,pl011", "arm,primecell"])
            .reg(&[Range::between(self.location, Ipa(self.location.0.saturating_add(REGION_SIZE)))])
            .numbers("clocks", &[Node::APB_CLOCK, Node::APB_CLOCK])
            .texts("clock-names", &["uartclk", "apb_pclk"]);
        if let Some(interrupt) = self.interrupt {
            node = node.interrupt(interrupt, Trigger::Level);
        }
        parent.add(node);
    }
}

#[cfg(test)]
mod tests;
