//! `vdev wdt-sp805`: the Arm watchdog on a guest's bus.
//!
//! Answers for: the plug around the [`chip`]: what a reset does, the clock, interrupt line, options, device tree (Linux
//! `arm,sp805` binding). Does not answer for: registers and counting (the chip's), nor for what becomes of a VM that has
//! ended (`on-exit`).
//!
//! The watchdog watches by the host's counter: it also counts while the guest's vCPUs wait for a CPU. While the VM is paused
//! or dumped it does not bite; `hypervisor/docs/qvmconf.md`, "Watchdog", says what happens then.

mod chip;
mod registers;

use crate::plug::Plug;
use crate::time::Time;
use alloc::{boxed::Box, string::ToString};
use chip::Chip;
use types::{AccessSize, Ipa};
use vdev::{
    AccessFault, Cause, Context, Control, ControlError, Factory, Node, OptionError, OptionKind, OptionSpec, Options,
    Safety, Setup, Timer, Trigger, Vdev, Wake,
};

/// DDI 0270, 3.2, "Summary of registers": one 4 KiB page.
const REGION_SIZE: u64 = 0x1000;

/// `vdev wdt-sp805`.
pub(crate) static FACTORY: Factory = Factory {
    name: "wdt-sp805",
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    default_location: Some(Ipa(0x1c0f_0000)),
    help: "Arm watchdog (SP805)",
    about: "Ends a VM whose guest hangs or gets no CPU; not while it is paused or dumped.\n\
        It counts down twice before it bites: a period of 3 s is 6 s.\n\n    \
        vdev wdt-sp805",
    ..Factory::new(create)
};

const ACTION: &str = "action";
const FREQUENCY: &str = "frequency";
const INTERRUPT: &str = "fiq";
/// QNX: not there.
const RESTART: &str = "restart";
/// `dump,` in front of the others.
const DUMP: &str = "dump,";

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        ACTION,
        OptionKind::Choice(&["terminate", INTERRUPT, RESTART, "dump,terminate", "dump,fiq", "dump,restart"]),
        "a bite ends the VM with code 4, makes an edge on `intr`, or starts it again",
    )
    .default("terminate"),
    OptionSpec::new(FREQUENCY, OptionKind::Number { min: 1000, max: 1_000_000_000 }, "clock of its counter, in hertz")
        .default("25000000"),
];

struct Watchdog {
    plug: Plug,
    chip: Chip,
    timer: Timer,
    /// Of the counter.
    hertz: u32,
    /// How a bite ends the VM; `None`: it is an edge on the line.
    ends: Option<Cause>,
    /// It dumps the guest before that.
    dumps: bool,
    bites: u32,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let plug = Plug::new(setup)?;
    let action = options.text(ACTION).unwrap_or_default();
    let (dumps, action) = action.strip_prefix(DUMP).map_or((false, action), |action| (true, action));
    let ends = match action {
        INTERRUPT => None,
        RESTART => Some(Cause::WatchdogRestart),
        _ => Some(Cause::Watchdog),
    };
    if ends.is_none() && !plug.has_line() {
        return Err(options.error(ACTION, "`action fiq` needs an `intr`".to_string()));
    }
    let hertz = options.number(FREQUENCY).and_then(|hertz| u32::try_from(hertz).ok()).unwrap_or(25_000_000);
    Ok(Box::new(Watchdog { plug, chip: Chip::default(), timer: Timer::new(0), hertz, ends, dumps, bites: 0 }))
}

impl Watchdog {
    /// Lets the chip see what time it is, and returns that.
    fn advance(&mut self, context: &mut Context<'_>) -> Time {
        let time = Time::new(self.hertz, context);
        if self.chip.advance(time) {
            self.bite(context);
        }
        time
    }

    /// WDOGRES is asserted.
    fn bite(&mut self, context: &mut Context<'_>) {
        self.bites = self.bites.saturating_add(1);
        context.log(log::Level::Error, format_args!("the watchdog bites: the guest has let it run out twice"));
        match (self.dumps, self.ends) {
            (true, ends) => context.dump(ends),
            (false, Some(cause)) => context.terminate(cause),
            (false, None) => {}
        }
        if self.ends.is_none() {
            self.plug.settle(self.chip.interrupt(), context);
            self.plug.edge(context);
        }
    }

    /// Line and timer as the chip wants them.
    fn settle(&mut self, time: Time, context: &mut Context<'_>) {
        self.plug.settle(self.chip.interrupt(), context);
        time.arm(&mut self.timer, self.chip.next(time), context);
    }
}

impl Vdev for Watchdog {
    fn read(&mut self, offset: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        let time = self.advance(context);
        self.settle(time, context);
        Ok(u64::from(self.chip.read(offset, time)))
    }

    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        let time = self.advance(context);
        if self.chip.write(offset, u32::try_from(value).unwrap_or(u32::MAX), time) {
            self.bite(context);
        }
        self.settle(time, context);
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Status(report) => {
                let (chip, hertz, bites) = (&self.chip, self.hertz, self.bites);
                return self.plug.report(report, format_args!("{chip}; {hertz} Hz, {bites} bites"));
            }
            Control::Reset => {
                self.chip = Chip::default();
                self.settle(Time::new(self.hertz, context), context);
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        if self.timer.is(wake) && self.timer.expired(context) > 0 {
            let time = self.advance(context);
            self.settle(time, context);
        }
    }

    fn describe(&self, parent: &mut Node) {
        let trigger = if self.ends.is_none() { Trigger::Edge } else { Trigger::Level };
        let clock = self.plug.clock(self.hertz, parent);
        // The first is the one that Linux takes the rate of.
        let node = self
            .plug
            .node("watchdog", &["arm,sp805", "arm,primecell"], REGION_SIZE, trigger)
            .numbers("clocks", &[clock, Node::APB_CLOCK])
            .texts("clock-names", &["wdog_clk", "apb_pclk"]);
        parent.add(node);
    }
}

#[cfg(test)]
mod tests;
