//! `vdev ser8250`: the PC's UART, a 16550A, on a guest's bus.
//!
//! Answers for: options, how far apart the registers are, device tree (Linux `ns16550a` binding). Does not answer for: registers
//! and FIFOs ([`chip`]), what is around them (`serial`).
//!
//! QNX: `loc io:` is for PCs; the registers are in memory here.

mod chip;
mod registers;

use crate::character;
use crate::serial::Serial;
use alloc::boxed::Box;
use chip::Chip;
use types::AccessSize;
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, Node, OptionError, OptionKind, OptionSpec,
    Options, Safety, Setup, Trigger, Vdev, Wake,
};

/// Eight registers, four bytes apart; of those that are closer together the rest is not there.
const REGION_SIZE: u64 = 0x20;

/// What a PC's UART has at its input: with it the divisor of 115,200 baud is 1.
const CLOCK: u32 = 1_843_200;

/// `vdev ser8250`.
pub(crate) static FACTORY: Factory = Factory {
    name: "ser8250",
    access_sizes: AccessSizes::BYTE.union(AccessSizes::WORD),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    help: "the PC's UART (16550A)",
    about: "A console for guests without a driver for `pl011`; Linux's ttyS0.\n\n    \
        vdev ser8250 loc 0x1c0a0000 intr gic:38",
    ..Factory::new(create)
};

const SHIFT: &str = "reg-shift";

static OPTIONS: &[OptionSpec] = &[
    character::HOSTDEV,
    character::BATCH,
    character::DELAYED,
    OptionSpec::new(
        SHIFT,
        OptionKind::Choice(&["0", "2"]),
        "2: registers are 4 bytes apart and may be accessed as words; an extension",
    )
    .default("0"),
];

struct Ser8250 {
    serial: Serial<Chip>,
    /// Registers are so many bytes apart, as a power of two.
    shift: u32,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let shift = if options.text(SHIFT) == Some("2") { 2 } else { 0 };
    Ok(Box::new(Ser8250 { serial: Serial::open(options, setup)?, shift }))
}

impl Ser8250 {
    /// The number of the register at `offset`. Between registers there is nothing, and it reads as zero.
    fn register(&self, offset: u64, size: AccessSize) -> Result<Option<u64>, AccessFault> {
        if self.shift == 0 {
            return match (offset, size) {
                (0..=7, AccessSize::Byte) => Ok(Some(offset)),
                (0..=7, _) => Err(AccessFault::Size),
                _ => Err(AccessFault::Unsupported),
            };
        }
        Ok(offset.is_multiple_of(4).then_some(offset / 4))
    }
}

impl Vdev for Ser8250 {
    fn read(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        let Some(register) = self.register(offset, size)? else { return Ok(0) };
        Ok(u64::from(self.serial.receive(context, |chip, wire| chip.read(register, wire))))
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        let Some(register) = self.register(offset, size)? else { return Ok(()) };
        let [low, ..] = value.to_le_bytes();
        self.serial.send(context, |chip, wire| chip.write(register, low, wire));
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        self.serial.control(event, context)
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.serial.wake(wake, context);
    }

    fn describe(&self, parent: &mut Node) {
        let (size, width) = if self.shift == 0 { (8, 1) } else { (REGION_SIZE, 4) };
        parent.add(
            self.serial
                .plug
                .node("serial", &["ns16550a"], size, Trigger::Level)
                .number("clock-frequency", CLOCK)
                .number("reg-shift", self.shift)
                .number("reg-io-width", width),
        );
    }
}

#[cfg(test)]
mod tests;
