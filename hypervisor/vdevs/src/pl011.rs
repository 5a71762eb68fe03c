//! `vdev pl011`: the Arm PrimeCell UART on a guest's bus.
//!
//! Answers for: the plug around the [`chip`]: back end, interrupt line, options, device tree (Linux `arm,pl011` binding).
//! Does not answer for: registers and FIFOs (the chip's), nor for what a back end does with the bytes.

mod chip;
mod registers;

use crate::character::{self, BackEnd};
use crate::plug::Plug;
use alloc::boxed::Box;
use chip::Chip;
use types::AccessSize;
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, Node, OptionError, OptionSpec, Options, Safety,
    Setup, Trigger, Vdev, Wake,
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
    about: "The usual console, Linux's ttyAMA0. Of several `hostdev` output goes to all, and\n\
        input comes from all. Every character is an exit of the guest.\n\n    \
        vdev pl011 loc 0x1c090000 intr gic:37",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[character::HOSTDEV, character::BATCH, character::DELAYED];

struct Pl011 {
    chip: Chip,
    end: BackEnd,
    plug: Plug,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let plug = Plug::new(setup)?;
    Ok(Box::new(Pl011 { chip: Chip::default(), end: BackEnd::open(options, setup)?, plug }))
}

impl Pl011 {
    /// Brings the interrupt line to what the chip says, if that has changed.
    #[inline]
    fn settle(&mut self, context: &mut Context<'_>) {
        self.plug.settle(self.chip.interrupt(), context);
    }

    #[inline(never)]
    fn take(&mut self, context: &mut Context<'_>) -> u16 {
        let value = self.chip.take(&mut *self.end.wire);
        self.settle(context);
        value
    }

    fn service(&mut self, context: &mut Context<'_>) {
        if self.chip.service(&mut *self.end.wire) {
            self.end.ring(context);
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
        if self.chip.write(offset, value, &mut *self.end.wire) {
            self.end.ring(context);
        }
        self.settle(context);
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            // First what came before the device could be woken, last what was held back, as far as there is space.
            Control::GuestStarting => self.service(context),
            Control::Terminate => {
                self.service(context);
                self.end.flush(context);
            }
            Control::Reset => self.chip = Chip::default(),
            Control::Status(report) => return self.plug.report(report, format_args!("{}", self.chip)),
            _ => {}
        }
        self.settle(context);
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.end.wake(wake, context);
        self.service(context);
    }

    fn describe(&self, parent: &mut Node) {
        parent.add(
            self.plug
                .node("serial", &["arm,pl011", "arm,primecell"], REGION_SIZE, Trigger::Level)
                .numbers("clocks", &[Node::APB_CLOCK, Node::APB_CLOCK])
                .texts("clock-names", &["uartclk", "apb_pclk"]),
        );
    }
}

#[cfg(test)]
mod tests;
