//! `vdev pl011`: the Arm PrimeCell UART on a guest's bus.
//!
//! Answers for: options and device tree (Linux `arm,pl011` binding). Does not answer for: registers and FIFOs ([`chip`]), what is
//! around them (`serial`).

mod chip;
mod registers;

use crate::character;
use crate::serial::Serial;
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

struct Pl011(Serial<Chip>);

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    Ok(Box::new(Pl011(Serial::open(options, setup)?)))
}

impl Pl011 {
    #[inline(never)]
    fn take(&mut self, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(u64::from(self.0.receive(context, Chip::take)))
    }

    /// Any register but the data register. Out of line, as all that is rare on the way of a byte.
    #[inline(never)]
    fn configure(&mut self, offset: u64, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        self.0.send(context, |chip, wire| chip.write(offset, value, wire));
        Ok(())
    }
}

impl Vdev for Pl011 {
    #[inline]
    fn read(&mut self, offset: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        // Only the data register does anything when it is read.
        if Chip::is_data(offset) { self.take(context) } else { Ok(u64::from(self.0.chip.read(offset))) }
    }

    #[inline]
    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        if !Chip::is_data(offset) {
            return self.configure(offset, value, context);
        }
        let [byte, ..] = value.to_le_bytes();
        self.0.send(context, |chip, wire| chip.send(byte, wire));
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        self.0.control(event, context)
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.0.wake(wake, context);
    }

    fn describe(&self, parent: &mut Node) {
        parent.add(
            self.0
                .plug
                .node("serial", &["arm,pl011", "arm,primecell"], REGION_SIZE, Trigger::Level)
                .numbers("clocks", &[Node::APB_CLOCK, Node::APB_CLOCK])
                .texts("clock-names", &["uartclk", "apb_pclk"]),
        );
    }
}

#[cfg(test)]
mod tests;
