//! The performance monitors: they count, they overflow, and they are each CPU's own.
//!
//! DDI 0487, chapter D13 ("The Performance Monitors Extension").

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::machine::Machine;
use guest_rt::registers::{cpu, isb};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::timer::{self, Timer};
use guest_rt::{check, check_equal, mrs, msr};

use crate::{recorder, stage};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "monitors: cycles are counted, also across a sleep, and stop when told", run: cycles },
    Test { name: "monitors: an overflow interrupts once", run: overflow },
    Test { name: "monitors: event counters keep what is written, and count software's events", run: events },
    Test { name: "monitors: those of CPUs are their own", run: apart },
];

const E: u64 = 1;
/// The cycle counter, in `PMCNTENSET_EL0` and its kin.
const CYCLES: u64 = 1 << 31;
/// `PMCR_EL0.LC`: it overflows at 64 bits, not at 32.
const LC: u64 = 1 << 6;
const SW_INCR: u64 = 0;
pub(crate) const INTID: u32 = 23;
const ALL: u64 = 0xffff_ffff;

fn needed() -> Outcome {
    match mrs!("id_aa64dfr0_el1") >> 8 & 0xf {
        0 | 0xf => Err(Verdict::Skip("not implemented")),
        _ => Ok(()),
    }
}

/// Writes a register of the monitors.
macro_rules! set {
    ($name:literal, $value:expr) => {
        // SAFETY: only this module uses the monitors.
        unsafe { msr!($name, $value) }
    };
}

fn stop() {
    set!("pmcntenclr_el0", ALL);
    set!("pmintenclr_el1", ALL);
    set!("pmovsclr_el0", ALL);
    set!("pmcr_el0", 0_u64);
    isb();
}

/// What a handler does with an overflow.
pub(crate) fn clear_overflow() {
    set!("pmovsclr_el0", ALL);
    isb();
}

fn start(counters: u64) {
    set!("pmcntenset_el0", counters);
    set!("pmcr_el0", E | LC);
    isb();
}

fn sleep(machine: &Machine, microseconds: u64) {
    let gic = stage::clean_gic(machine);
    gic.enable(Timer::Virtual.intid());
    Timer::Virtual.arm(timer::now() + timer::ticks(microseconds));
    guest_rt::registers::wfi();
    Timer::Virtual.stop();
    gic.disable(Timer::Virtual.intid());
}

fn cycles(machine: &'static Machine) -> Outcome {
    needed()?;
    stop();
    set!("pmccfiltr_el0", 0_u64);
    set!("pmccntr_el0", 0_u64);
    start(CYCLES);
    timer::wait_until(100, || false);
    let awake = mrs!("pmccntr_el0");
    sleep(machine, 300);
    let after = mrs!("pmccntr_el0");
    set!("pmcntenclr_el0", CYCLES);
    isb();
    let stopped = mrs!("pmccntr_el0");
    timer::wait_until(100, || false);
    let still = mrs!("pmccntr_el0");
    stop();
    check!(awake > 1000, "{awake} cycles in 100 us");
    check!(after > awake, "{awake} cycles before a sleep, {after} after it");
    check_equal!(still, stopped, "cycles of a counter that is stopped");
    Ok(())
}

fn overflow(machine: &'static Machine) -> Outcome {
    needed()?;
    let gic = stage::clean_gic(machine);
    gic.enable(INTID);
    stop();
    set!("pmccntr_el0", !0_u64 - 1000);
    set!("pmintenset_el1", CYCLES);
    start(CYCLES);
    guest_rt::registers::with_irq(|| timer::wait_until(100_000, || recorder::count(cpu(), INTID) > 0));
    let (count, left) = (recorder::count(cpu(), INTID), mrs!("pmovsset_el0"));
    stop();
    gic.disable(INTID);
    check_equal!(count, 1, "interrupts");
    check_equal!(left & CYCLES, 0, "overflow after its handler");
    Ok(())
}

fn events(_machine: &'static Machine) -> Outcome {
    needed()?;
    stop();
    let counters = mrs!("pmcr_el0") >> 11 & 0x1f;
    if counters == 0 {
        return Err(Verdict::Skip("no event counters"));
    }
    for counter in 0..counters {
        set!("pmselr_el0", counter);
        isb();
        set!("pmxevtyper_el0", SW_INCR);
        set!("pmxevcntr_el0", counter << 8);
    }
    isb();
    start((1 << counters) - 1);
    for _ in 0..3 {
        set!("pmswinc_el0", 1_u64);
        isb();
    }
    stop();
    for counter in 0..counters {
        set!("pmselr_el0", counter);
        isb();
        let expected = counter << 8 | if counter == 0 { 3 } else { 0 };
        check_equal!(mrs!("pmxevcntr_el0"), expected, "events");
    }
    Ok(())
}

static THERE: AtomicU64 = AtomicU64::new(0);
const PATTERN: u64 = 0x1234_5678;

fn apart(machine: &'static Machine) -> Outcome {
    needed()?;
    stage::needs_hypervisor(machine)?;
    stage::needs_cpus(machine, 2)?;
    stop();
    set!("pmccntr_el0", PATTERN);
    set!("pmuserenr_el0", 0b1101_u64);
    isb();
    stage::run_on(1, |_| {
        THERE.store(mrs!("pmccntr_el0") | mrs!("pmuserenr_el0") | mrs!("pmcntenset_el0"), Ordering::Release);
        set!("pmccntr_el0", !0_u64);
        set!("pmcr_el0", E);
        set!("pmcntenset_el0", CYCLES);
    })?;
    let (cycles, user) = (mrs!("pmccntr_el0"), mrs!("pmuserenr_el0"));
    set!("pmuserenr_el0", 0_u64);
    check_equal!(THERE.load(Ordering::Acquire), 0, "what a CPU finds in its own");
    check_equal!((cycles, user), (PATTERN, 0b1101), "ours afterwards");
    Ok(())
}
