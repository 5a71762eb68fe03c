//! The virtual and the physical timer of EL1.
//!
//! DDI 0487, chapter D12.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gic::{self, Bank, Gic};
use guest_rt::machine::Machine;
use guest_rt::registers::{mask_irq, unmask_irq, wfi, with_irq};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::timer::{self, ENABLE, IMASK, Timer};
use guest_rt::{check, check_equal, mrs};

use crate::{recorder, stage};

/// Each for both timers: they are to behave alike, though one may be emulated.
macro_rules! tests {
    ($($name:literal => $run:ident),* $(,)?) => {
        &[
            Test { name: "timers: the counters start near zero", run: starts_near_zero },
            Test { name: "timers: the counters are the same on all CPUs", run: same_on_all_cpus },
            Test { name: "timers: the virtual timer of each CPU is its own", run: each_cpu_has_its_own },
            $(
                Test { name: concat!("timers: virtual: ", $name), run: |machine| $run(machine, Timer::Virtual) },
                Test { name: concat!("timers: physical: ", $name), run: |machine| $run(machine, Timer::Physical) },
            )*
        ]
    };
}

pub(crate) const TESTS: &[Test] = tests! {
    "the counter never goes back" => monotonic,
    "a one-shot fires once and not early" => one_shot,
    "a compare value in the past fires at once" => in_the_past,
    "a masked timer is due and silent" => masked,
    "a stopped timer does not fire" => stopped,
    "a compare value moved away takes the interrupt back" => moved_away,
    "the downwards view agrees with the compare value" => downwards_view,
    "an unmasked condition comes again after its end" => comes_again,
    "fifty periods give fifty interrupts" => periodic,
    "wakes from WFI with interrupts masked" => wakes,
    "waits at the controller until it is enabled there" => not_forwarded,
};

/// A second is for ever, in a guest that waits for microseconds, even on a busy host.
const LONG: u64 = 1_000_000;

fn prepare(machine: &Machine, timer: Timer) -> Gic {
    timer.stop();
    let gic = stage::clean_gic(machine);
    gic.enable(timer.intid());
    gic
}

fn in_ticks(microseconds: u64) -> u64 {
    timer::ticks(microseconds)
}

/// Lets interrupts in for a while, or until there are `wanted` of them.
fn take(timer: Timer, wanted: u32, microseconds: u64) -> u32 {
    with_irq(|| timer::wait_until(microseconds, || recorder::count(0, timer.intid()) >= wanted));
    recorder::count(0, timer.intid())
}

fn starts_near_zero(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let expected = machine.numeric_argument("counter").unwrap_or(0);
    let seconds = stage::start_of_day().wrapping_sub(expected) / timer::frequency();
    check!(seconds < 60, "the virtual counter said {seconds} s more than {expected:#x} when we started");
    let (physical, virtual_) = (Timer::Physical.count(), Timer::Virtual.count());
    check!(virtual_.abs_diff(physical) < timer::frequency(), "physical {physical:#x}, virtual {virtual_:#x}");
    Ok(())
}

static THERE: AtomicU64 = AtomicU64::new(0);
static FREQUENCY: AtomicU64 = AtomicU64::new(0);

fn same_on_all_cpus(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    for index in 1..machine.cpus.len() {
        let before = timer::now();
        stage::run_on(index, |_| {
            THERE.store(timer::now(), Ordering::Relaxed);
            FREQUENCY.store(timer::frequency(), Ordering::Relaxed);
        })?;
        let (there, after) = (THERE.load(Ordering::Relaxed), timer::now());
        check!(before <= there && there <= after, "CPU {index} reads {there:#x} between {before:#x} and {after:#x}");
        check_equal!(FREQUENCY.load(Ordering::Relaxed), mrs!("cntfrq_el0"), "CNTFRQ_EL0");
    }
    Ok(())
}

fn monotonic(_machine: &'static Machine, timer: Timer) -> Outcome {
    let first = timer.count();
    let mut last = first;
    for _ in 0..2000 {
        let now = timer.count();
        check!(now >= last, "{now:#x} after {last:#x}");
        last = now;
    }
    check!(timer::wait_until(LONG, || timer.count() > first), "it stands still");
    Ok(())
}

fn one_shot(machine: &'static Machine, timer: Timer) -> Outcome {
    prepare(machine, timer);
    for microseconds in [0, 50, 1000, 10_000] {
        recorder::forget();
        let due = timer.count() + in_ticks(microseconds);
        timer.arm(due);
        check_equal!(take(timer, 1, microseconds + LONG), 1, "interrupts");
        let late = recorder::last_timer(0) as i64 - due as i64;
        check!(late >= 0, "{} ticks early", -late);
        check_equal!(take(timer, 2, 2000), 1, "interrupts a while later");
    }
    Ok(())
}

fn in_the_past(machine: &'static Machine, timer: Timer) -> Outcome {
    prepare(machine, timer);
    for compare in [0, 1, timer.count() - 1] {
        recorder::forget();
        timer.arm(compare);
        check!(timer.is_due(), "it is not due");
        check_equal!(take(timer, 1, LONG), 1, "interrupts");
    }
    Ok(())
}

fn masked(machine: &'static Machine, timer: Timer) -> Outcome {
    let gic = prepare(machine, timer);
    let due = timer.count() + in_ticks(200);
    timer.set_compare(due);
    timer.set_control(ENABLE | IMASK);
    let is_early = timer.is_due() && timer.count() < due;
    check!(!is_early, "it is due before its time");
    check_equal!(take(timer, 1, 2000), 0, "interrupts");
    check!(timer::wait_until(LONG, || timer.is_due()), "it is not due after its time");
    check!(!gic.is(Bank::Pending, timer.intid()), "its interrupt is pending");
    // The condition was there all the time: unmasked, it shows.
    timer.set_control(ENABLE);
    check_equal!(take(timer, 1, LONG), 1, "interrupts when unmasked");
    timer.set_control(0);
    Ok(())
}

fn stopped(machine: &'static Machine, timer: Timer) -> Outcome {
    prepare(machine, timer);
    timer.arm(timer.count() + in_ticks(10_000));
    timer.set_control(0);
    check_equal!(take(timer, 1, 20_000), 0, "interrupts");
    Ok(())
}

fn moved_away(machine: &'static Machine, timer: Timer) -> Outcome {
    let gic = prepare(machine, timer);
    timer.arm(0);
    check!(timer::wait_until(LONG, || gic.is(Bank::Pending, timer.intid())), "it never became pending");
    timer.set_compare(!0);
    check!(!timer.is_due(), "it is still due");
    // A level that falls takes the pending state with it; a hypervisor that did not see the write to the virtual timer
    // sees to it when the state is read.
    let is_gone = timer::wait_until(LONG, || !gic.is(Bank::Pending, timer.intid()));
    let taken = take(timer, 1, 2000);
    timer.stop();
    check!(is_gone, "its interrupt is still pending");
    check_equal!(taken, 0, "interrupts");
    Ok(())
}

fn downwards_view(_machine: &'static Machine, timer: Timer) -> Outcome {
    timer.set_control(IMASK);
    for ticks in [1_000_000_000, 5, 0, -5, i32::MIN] {
        let before = timer.count();
        timer.set_remaining(ticks);
        let after = timer.count();
        let base = timer.compare().wrapping_sub(i64::from(ticks) as u64);
        check!((before..=after).contains(&base), "{ticks}: compare value {:#x} at {before:#x}", timer.compare());
    }
    timer.set_compare(timer.count() + 1_000_000);
    let (first, second) = (timer.remaining(), timer.remaining());
    check!(first <= 1_000_000 && second <= first, "it does not count down: {first}, then {second}");
    timer.set_compare(timer.count().wrapping_sub(1000));
    check!(timer.remaining() <= -1000, "it does not go negative");
    timer.stop();
    Ok(())
}

fn comes_again(machine: &'static Machine, timer: Timer) -> Outcome {
    prepare(machine, timer);
    recorder::allow_timer(5, 0);
    timer.arm(timer.count());
    check_equal!(take(timer, 5, LONG), 5, "interrupts");
    check_equal!(take(timer, 6, 2000), 5, "interrupts after it was stopped");
    Ok(())
}

fn periodic(machine: &'static Machine, timer: Timer) -> Outcome {
    prepare(machine, timer);
    let start = timer.count();
    recorder::allow_timer(50, in_ticks(1000));
    timer.arm(start + in_ticks(1000));
    check_equal!(take(timer, 50, 2 * LONG), 50, "interrupts");
    check!(recorder::last_timer(0) >= start + 50 * (timer::frequency() / 1000), "the last one was early");
    Ok(())
}

fn wakes(machine: &'static Machine, timer: Timer) -> Outcome {
    prepare(machine, timer);
    for _ in 0..5 {
        timer.arm(timer.count() + in_ticks(1000));
        mask_irq();
        while !timer.is_due() {
            wfi();
        }
        check_equal!(gic::acknowledge(), Some(timer.intid()), "acknowledged");
        timer.stop();
        gic::end(timer.intid());
    }
    Ok(())
}

fn not_forwarded(machine: &'static Machine, timer: Timer) -> Outcome {
    let gic = prepare(machine, timer);
    gic.disable(timer.intid());
    timer.arm(timer.count());
    check_equal!(take(timer, 1, 1000), 0, "interrupts while disabled at the controller");
    check!(gic.is(Bank::Pending, timer.intid()), "it is not pending meanwhile");
    gic.enable(timer.intid());
    check_equal!(take(timer, 1, LONG), 1, "interrupts when enabled");
    // Level-sensitive: what has gone by the time it is enabled does not come.
    recorder::forget();
    gic.disable(timer.intid());
    timer.arm(timer.count());
    check!(timer::wait_until(LONG, || gic.is(Bank::Pending, timer.intid())), "it never became pending again");
    timer.stop();
    gic.enable(timer.intid());
    check_equal!(take(timer, 1, 1000), 0, "interrupts of a timer that was stopped before");
    Ok(())
}

static FIRED_AT: AtomicU64 = AtomicU64::new(0);

fn each_cpu_has_its_own(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    let timer = Timer::Virtual;
    prepare(machine, timer);
    // Ours is far away, theirs is near.
    timer.arm(timer.count() + in_ticks(10_000_000));
    for index in 1..machine.cpus.len() {
        FIRED_AT.store(0, Ordering::Relaxed);
        stage::run_on(index, |index| {
            let timer = Timer::Virtual;
            Gic::of(guest_rt::machine::machine()).enable(timer.intid());
            let due = timer.count() + in_ticks(1000);
            timer.arm(due);
            unmask_irq();
            timer::wait_until(LONG, || recorder::count(index, timer.intid()) > 0);
            mask_irq();
            FIRED_AT.store(recorder::last_timer(index).saturating_sub(due) + 1, Ordering::Relaxed);
        })?;
        check_equal!(recorder::count(index, timer.intid()), 1, "interrupts on another CPU");
        if FIRED_AT.load(Ordering::Relaxed) == 0 {
            return Err(Verdict::fail(format_args!("CPU {index} gave no time")));
        }
    }
    check_equal!(recorder::count(0, timer.intid()), 0, "interrupts here");
    timer.stop();
    Ok(())
}
