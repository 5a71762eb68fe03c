//! `vdev sp804`: two Arm timers on a guest's bus.
//!
//! Answers for: the registers of DDI 0271 (ARM Dual-Timer Module (SP804) Technical Reference Manual), chapter 3, interrupt
//! line, options, device tree (Linux `arm,sp804` binding). Does not answer for: the integration test registers, which read
//! as zero, nor for the phase of a prescaler, which begins with each count.
//!
//! A timer that goes off more often than its guest takes notice wakes nobody in between.

use crate::plug::{self, Plug};
use crate::time::{Moment, Time};
use alloc::boxed::Box;
use bitflags::bitflags;
use types::AccessSize;
use vdev::{
    AccessFault, Context, Control, ControlError, Factory, Node, OptionError, OptionKind, OptionSpec, Options, Safety,
    Setup, Timer, Trigger, Vdev, Wake,
};

const REGION_SIZE: u64 = 0x1000;

/// `vdev sp804`.
pub(crate) static FACTORY: Factory = Factory {
    name: "sp804",
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    help: "Arm dual timer (SP804)",
    about: "For guests that want it beside the generic timers.\n\n    \
        vdev sp804 loc 0x1c110000 intr gic:34",
    ..Factory::new(create)
};

const FREQUENCY: &str = "frequency";

static OPTIONS: &[OptionSpec] = &[OptionSpec::new(
    FREQUENCY,
    OptionKind::Number { min: 1000, max: 1_000_000_000 },
    "clock of both timers, in hertz",
)
.default("1000000")];

/// TimerXLoad.
const LOAD: u64 = 0x00;
/// TimerXValue.
const VALUE: u64 = 0x04;
/// TimerXControl.
const CONTROL: u64 = 0x08;
/// TimerXIntClr.
const CLEAR: u64 = 0x0c;
/// TimerXRIS.
const RAW: u64 = 0x10;
/// TimerXMIS.
const MASKED: u64 = 0x14;
/// TimerXBGLoad.
const BACKGROUND_LOAD: u64 = 0x18;
/// From the first timer's registers to the second's.
const STRIDE: u64 = 0x20;
/// TimerPeriphID0-3 (part 0x804, designer 0x41, revision 1) and TimerPCellID0-3.
const IDENTIFIERS: [u8; 8] = [0x04, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

bitflags! {
    /// TimerXControl (3.3.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Mode: u32 {
        const ONE_SHOT = 1 << 0;
        /// 32 bits; else 16.
        const WIDE = 1 << 1;
        /// One cycle in 16.
        const BY_16 = 1 << 2;
        /// One cycle in 256.
        const BY_256 = 1 << 3;
        const INTERRUPT = 1 << 5;
        /// Begins at TimerXLoad again; else at all ones.
        const PERIODIC = 1 << 6;
        const ENABLE = 1 << 7;
    }
}

/// One of the two.
#[derive(Debug)]
struct Counter {
    load: u32,
    mode: Mode,
    raw: bool,
    /// What it said at `start`.
    from: u32,
    start: Moment,
    /// It counts: it is enabled, and no one-shot that has come to zero.
    runs: bool,
}

impl Default for Counter {
    /// After a reset (3.2, "Summary of registers").
    fn default() -> Self {
        let (load, from, start) = (0, u32::MAX, Moment::default());
        Self { load, mode: Mode::INTERRUPT, raw: false, from, start, runs: false }
    }
}

impl Counter {
    const fn interrupt(&self) -> bool {
        self.raw && self.mode.contains(Mode::INTERRUPT)
    }

    /// Cycles of the clock for one count.
    const fn prescale(&self) -> u64 {
        if self.mode.contains(Mode::BY_256) {
            256
        } else if self.mode.contains(Mode::BY_16) {
            16
        } else {
            1
        }
    }

    /// The bits that it counts with: of the others it takes no notice.
    const fn mask(&self) -> u32 {
        if self.mode.contains(Mode::WIDE) { u32::MAX } else { 0xffff }
    }

    /// When it comes to zero.
    fn zero(&self, time: Time) -> Moment {
        time.after(self.start, u64::from(self.from & self.mask()).saturating_mul(self.prescale()))
    }

    /// When that interrupts, if it does.
    fn next(&self, time: Time) -> Option<Moment> {
        (self.runs && !self.raw && self.mode.contains(Mode::INTERRUPT)).then(|| self.zero(time))
    }

    /// Does what it has done meanwhile.
    fn advance(&mut self, time: Time) {
        let zero = self.zero(time);
        if !self.runs || zero > time.now() {
            return;
        }
        self.raw = true;
        if self.mode.contains(Mode::ONE_SHOT) {
            (self.runs, self.from) = (false, 0);
            return;
        }
        // A periodic one is at its load when it would be at zero: the period is the load (3.3.1). From zero to all ones is
        // a count of its own.
        let periodic = self.mode.contains(Mode::PERIODIC);
        let (again, count) = if periodic { (self.load & self.mask(), 0) } else { (self.mask(), 1) };
        let begin = time.after(zero, self.prescale().saturating_mul(count));
        let period = u64::from(again).saturating_add(count).max(1).saturating_mul(self.prescale());
        let rounds = time.since(begin).checked_div(period).unwrap_or_default();
        (self.start, self.from) = (time.after(begin, rounds.saturating_mul(period)), again);
    }

    fn value(&self, time: Time) -> u32 {
        match time.since(self.start).checked_div(self.prescale()) {
            _ if !self.runs => self.from,
            // It stays at zero for a count.
            _ if self.start > time.now() => 0,
            counts => {
                let gone = counts.and_then(|counts| u32::try_from(counts).ok()).unwrap_or(u32::MAX);
                (self.from & self.mask()).saturating_sub(gone)
            }
        }
    }

    fn read(&self, at: u64, time: Time) -> u32 {
        match at {
            LOAD | BACKGROUND_LOAD => self.load,
            VALUE => self.value(time),
            CONTROL => self.mode.bits(),
            RAW => u32::from(self.raw),
            MASKED => u32::from(self.interrupt()),
            _ => 0,
        }
    }

    fn write(&mut self, at: u64, value: u32, time: Time) {
        match at {
            LOAD => {
                self.load = value;
                (self.from, self.start) = (value, time.now());
                self.runs = self.mode.contains(Mode::ENABLE);
            }
            BACKGROUND_LOAD => self.load = value,
            CONTROL => {
                // It goes on from where it is, in its new width and with its new prescaler.
                let (value_now, before) = (self.value(time), self.mode);
                self.mode = Mode::from_bits_truncate(value);
                (self.from, self.start) = (value_now, time.now());
                let halted = before.contains(Mode::ENABLE | Mode::ONE_SHOT) && !self.runs;
                let still = halted && self.mode.contains(Mode::ONE_SHOT);
                self.runs = self.mode.contains(Mode::ENABLE) && !still;
            }
            CLEAR => self.raw = false,
            _ => {}
        }
    }
}

struct Sp804 {
    plug: Plug,
    counters: [Counter; 2],
    timer: Timer,
    hertz: u32,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let hertz = options.number(FREQUENCY).and_then(|hertz| u32::try_from(hertz).ok()).unwrap_or(1_000_000);
    let plug = Plug::new(setup)?;
    Ok(Box::new(Sp804 { plug, counters: Default::default(), timer: Timer::new(0), hertz }))
}

impl Sp804 {
    fn advance(&mut self, context: &Context<'_>) -> Time {
        let time = Time::new(self.hertz, context);
        self.counters.iter_mut().for_each(|counter| counter.advance(time));
        time
    }

    /// Line and timer as the counters want them.
    fn settle(&mut self, time: Time, context: &mut Context<'_>) {
        self.plug.settle(self.counters.iter().any(Counter::interrupt), context);
        let next = self.counters.iter().filter_map(|counter| counter.next(time)).min();
        time.arm(&mut self.timer, next, context);
    }

    /// The counter that has a register at `offset`, and which of its registers that is.
    fn counter(&mut self, offset: u64) -> Option<(&mut Counter, u64)> {
        let index = usize::try_from(offset / STRIDE).ok()?;
        Some((self.counters.get_mut(index)?, offset % STRIDE))
    }
}

impl Vdev for Sp804 {
    fn read(&mut self, offset: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        let time = self.advance(context);
        self.settle(time, context);
        Ok(u64::from(match self.counter(offset) {
            Some((counter, register)) => counter.read(register, time),
            None => plug::identification(offset, &IDENTIFIERS),
        }))
    }

    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        let time = self.advance(context);
        if let Some((counter, register)) = self.counter(offset) {
            counter.write(register, u32::try_from(value).unwrap_or(u32::MAX), time);
        }
        // A load of zero is there at once.
        self.advance(context);
        self.settle(time, context);
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Status(report) => {
                let [first, second] = self.counters.each_ref().map(|counter| counter.mode.bits());
                let what = format_args!("control {first:#x} and {second:#x}; {} Hz", self.hertz);
                return self.plug.report(report, what);
            }
            Control::Reset => {
                self.counters = Default::default();
                self.settle(Time::new(self.hertz, context), context);
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, _: Wake, context: &mut Context<'_>) {
        if self.timer.expired(context) > 0 {
            let time = self.advance(context);
            self.settle(time, context);
        }
    }

    fn describe(&self, parent: &mut Node) {
        let clock = self.plug.clock(self.hertz, parent);
        parent.add(
            self.plug
                .node("timer", &["arm,sp804", "arm,primecell"], REGION_SIZE, Trigger::Level)
                .numbers("clocks", &[clock, clock, Node::APB_CLOCK])
                .texts("clock-names", &["timer1", "timer2", "apb_pclk"]),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use vdev::testkit::{Rig, Wires};

    const MILLISECOND: u64 = 1_000_000;
    const MICROSECOND: u64 = 1000;

    fn timers() -> Rig {
        Rig::new(&FACTORY, &[], &mut Wires::default()).unwrap()
    }

    #[test]
    fn linux_has_a_periodic_tick_a_one_shot_and_a_clock() {
        let mut rig = timers();
        // The clock: timer 2, free-running, no interrupt.
        for (offset, value) in [(CONTROL, 0), (LOAD, 0xffff_ffff), (VALUE, 0xffff_ffff), (CONTROL, 0xc2)] {
            rig.write(STRIDE + offset, value);
        }
        // The tick: timer 1, 100 Hz.
        rig.write(CONTROL, 0);
        rig.write(LOAD, 10_000);
        rig.write(CONTROL, 0xe2);
        for tick in 1..=10 {
            rig.pass(10 * MILLISECOND);
            assert!(rig.line(), "tick {tick}");
            assert_eq!(rig.read(MASKED), 1);
            rig.write(CLEAR, 1);
            assert!(!rig.line());
            assert_eq!(0xffff_ffff - rig.read(STRIDE + VALUE), tick * 10_000);
        }
        // The one-shot.
        rig.write(CONTROL, 0);
        rig.write(LOAD, 5_000);
        rig.write(CONTROL, 0xa3);
        assert_eq!(rig.pass(100 * MILLISECOND), 1);
        assert_eq!((rig.line(), rig.read(VALUE)), (true, 0));
        rig.write(CLEAR, 1);
        rig.write(CONTROL, 0xa3);
        assert_eq!(rig.pass(100 * MILLISECOND), 0, "it halts");
        rig.write(LOAD, 1_000);
        assert_eq!(rig.pass(MILLISECOND), 1);
    }

    #[test]
    fn nobody_is_woken_for_what_the_guest_does_not_look_at() {
        let mut rig = timers();
        rig.write(LOAD, 1);
        rig.write(CONTROL, 0xe2);
        assert_eq!(rig.pass(10_000 * MILLISECOND), 1);
        rig.write(CONTROL, 0xc2);
        rig.write(CLEAR, 0);
        assert_eq!((rig.pass(10_000 * MILLISECOND), rig.read(RAW), rig.line()), (0, 1, false));
    }

    #[test]
    fn a_period_is_the_load_and_neither_drifts_nor_is_made_up_for() {
        let mut rig = timers();
        rig.write(LOAD, 1000);
        rig.write(CONTROL, 0xe2);
        rig.pass(3500 * MICROSECOND);
        assert_eq!((rig.read(VALUE), rig.read(RAW)), (500, 1));
        rig.write(CLEAR, 0);
        assert_eq!(rig.read(RAW), 0);
        rig.pass(500 * MICROSECOND);
        assert_eq!((rig.read(RAW), rig.read(VALUE)), (1, 1000));
        // The background load is for the next round.
        rig.write(BACKGROUND_LOAD, 300);
        rig.pass(900 * MICROSECOND);
        assert_eq!([rig.read(VALUE), rig.read(LOAD)], [100, 300]);
        rig.pass(200 * MICROSECOND);
        assert_eq!(rig.read(VALUE), 200);
    }

    #[test]
    fn prescalers_and_sixteen_bits() {
        let mut rig = timers();
        rig.write(CONTROL, 0x80 | 1 << 2);
        rig.write(LOAD, 0x1_0002);
        rig.pass(16 * MICROSECOND);
        assert_eq!(rig.read(VALUE), 1, "of the load there are 16 bits");
        rig.pass(16 * MICROSECOND);
        assert_eq!((rig.read(VALUE), rig.read(RAW)), (0, 1));
        rig.pass(16 * MICROSECOND);
        assert_eq!(rig.read(VALUE), 0xffff, "free-running: all ones come after zero");
        rig.write(CONTROL, 0x82 | 2 << 2);
        rig.pass(256 * 15 * MICROSECOND);
        assert_eq!(rig.read(VALUE), 0xfff0, "it goes on from where it was");
        rig.write(CONTROL, 0);
        rig.pass(MILLISECOND);
        assert_eq!(rig.read(VALUE), 0xfff0, "disabled, it stands still");
    }

    #[test]
    fn reset_values_and_identification_are_the_manuals() {
        let mut rig = timers();
        rig.write(STRIDE + LOAD, 0);
        rig.write(STRIDE + CONTROL, 0xe2);
        assert!(rig.line(), "a load of zero is there at once");
        rig.control(Control::Reset).unwrap();
        assert!(!rig.line());
        for timer in [0, STRIDE] {
            let values = [LOAD, VALUE, CONTROL, CLEAR, RAW, MASKED, BACKGROUND_LOAD].map(|at| rig.read(timer + at));
            assert_eq!(values, [0, 0xffff_ffff, 0x20, 0, 0, 0, 0]);
        }
        let ids: Vec<u64> = (0..8).map(|n| rig.read(0xfe0 + 4 * n)).collect();
        assert_eq!(ids, [0x04, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
        assert_eq!(rig.try_read(0, AccessSize::Byte), Err(AccessFault::Size));
        assert!(rig.status().contains("control 0x20 and 0x20; 1000000 Hz"), "{}", rig.status());
        let tree = rig.describe();
        for line in [
            "timer@1c090000 {",
            r#"compatible = "arm,sp804", "arm,primecell";"#,
            "clock-frequency = <0xf4240>;",
            "clocks = <0x8100 0x8100 0x8002>;",
        ] {
            assert!(tree.contains(line), "{line} is not in {tree}");
        }
    }
}
