//! Interrupts between CPUs, and shared ones that choose a CPU.
//!
//! IHI 0069, sections 3.3 (affinity routing) and 12.1.10 (software-generated interrupts).

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use guest_rt::gic::{self, Bank, Gic, SgiTarget};
use guest_rt::machine::{Machine, machine};
use guest_rt::registers::{relax, wfi, with_irq};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal, cpus, timer};

use super::{LONG, an_spi};
use crate::{recorder, stage};

pub(crate) const TESTS: &[Test] = &[
    Test { name: "gic: an SGI reaches the one CPU it names", run: sgi_to_one },
    Test { name: "gic: an SGI to all others reaches all others", run: sgi_to_others },
    Test { name: "gic: an SPI comes to the CPU that it is routed to", run: spi_to_each },
    Test { name: "gic: an SPI for any CPU comes to one", run: spi_to_any },
    Test { name: "gic: an SPI set pending by another CPU comes", run: pending_from_elsewhere },
    Test { name: "gic: four hundred SGIs in turn between running CPUs lose none", run: ping_pong },
    Test { name: "gic: two thousand SGIs in turn, one CPU asleep in between, lose none", run: ping_pong_asleep },
    Test { name: "gic: an SGI wakes a CPU that sleeps", run: wakes_sleeper },
    Test { name: "gic: SGIs from all CPUs at once are merged, never lost", run: all_to_one },
];

static OVER: AtomicBool = AtomicBool::new(false);
static READY: AtomicUsize = AtomicUsize::new(0);

/// Takes interrupts until told to stop; at most ten seconds.
fn listen(_index: usize) {
    READY.fetch_add(1, Ordering::Release);
    with_irq(|| timer::wait_until(10_000_000, || OVER.load(Ordering::Acquire)));
}

/// The same asleep.
fn sleep(_index: usize) {
    READY.fetch_add(1, Ordering::Release);
    while !OVER.load(Ordering::Acquire) {
        wfi();
        with_irq(|| ());
    }
}

/// Runs `body` while all other CPUs do `main`.
fn with_others(machine: &'static Machine, main: cpus::Main, body: impl FnOnce(Gic) -> Outcome) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    let gic = stage::clean_gic(machine);
    OVER.store(false, Ordering::Release);
    READY.store(0, Ordering::Release);
    for index in 1..machine.cpus.len() {
        stage::start(index, main)?;
    }
    let others = machine.cpus.len() - 1;
    timer::sleep_until(2 * LONG, || READY.load(Ordering::Acquire) == others);
    let outcome = body(gic);
    OVER.store(true, Ordering::Release);
    gic::send_sgi(15, SgiTarget::Others);
    for index in 1..machine.cpus.len() {
        stage::finish(index)?;
    }
    outcome
}

/// Waits until CPU `index` has taken `intid` `times` times.
fn wait_for(index: usize, intid: u32, times: u32) -> Outcome {
    timer::sleep_until(2 * LONG, || recorder::count(index, intid) >= times);
    let count = recorder::count(index, intid);
    if count == times { Ok(()) } else { Err(Verdict::fail(format_args!("CPU {index} took {intid} {count} times"))) }
}

/// Of all CPUs, `expected` only has taken `intid`, once.
fn only(machine: &Machine, expected: usize, intid: u32) -> Outcome {
    wait_for(expected, intid, 1)?;
    timer::delay(super::SHORT);
    for index in 0..machine.cpus.len() {
        let count = recorder::count(index, intid);
        check!(count == u32::from(index == expected), "CPU {index} took {intid} {count} times, CPU {expected} should");
    }
    Ok(())
}

fn sgi_to_one(machine: &'static Machine) -> Outcome {
    with_others(machine, listen, |_| {
        for index in 1..machine.cpus.len() {
            recorder::forget();
            gic::send_sgi(index as u32, SgiTarget::One(machine.cpus[index]));
            with_irq(|| only(machine, index, index as u32))?;
        }
        // A CPU that does not exist: nobody, and nothing breaks.
        gic::send_sgi(9, SgiTarget::One(0xff_00ff_ff0f));
        timer::delay(super::SHORT);
        check!((0..machine.cpus.len()).all(|index| recorder::count(index, 9) == 0), "an SGI to nobody came");
        Ok(())
    })
}

fn sgi_to_others(machine: &'static Machine) -> Outcome {
    with_others(machine, listen, |_| {
        gic::send_sgi(6, SgiTarget::Others);
        for index in 1..machine.cpus.len() {
            wait_for(index, 6, 1)?;
        }
        with_irq(|| timer::delay(super::SHORT));
        check_equal!(recorder::count(0, 6), 0, "interrupts at the sender");
        Ok(())
    })
}

fn spi_to_each(machine: &'static Machine) -> Outcome {
    with_others(machine, listen, |gic| {
        let intid = an_spi(machine, gic)?;
        for (index, target) in machine.cpus.iter().enumerate() {
            recorder::forget();
            gic.route(intid, *target);
            gic.wait_for_writes();
            with_irq(|| {
                gic.set(Bank::Pending, intid);
                only(machine, index, intid)
            })?;
        }
        Ok(())
    })
}

fn spi_to_any(machine: &'static Machine) -> Outcome {
    with_others(machine, listen, |gic| {
        let intid = an_spi(machine, gic)?;
        gic.route(intid, gic::ANY);
        gic.wait_for_writes();
        for round in 1..=20 {
            let taken = || (0..machine.cpus.len()).map(|index| recorder::count(index, intid)).sum::<u32>();
            gic.set(Bank::Pending, intid);
            with_irq(|| timer::wait_until(LONG, || taken() >= round));
            check_equal!(taken(), round, "interrupts on all CPUs");
        }
        Ok(())
    })
}

static LINE: AtomicUsize = AtomicUsize::new(0);

fn pending_from_elsewhere(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    LINE.store(intid as usize, Ordering::Relaxed);
    stage::run_on(1, |_| {
        Gic::of(guest_rt::machine::machine()).set(Bank::Pending, LINE.load(Ordering::Relaxed) as u32);
    })?;
    check_equal!(super::next(), Some(intid), "acknowledged");
    gic::end(intid);
    super::silence()
}

/// Answers each SGI 1 with an SGI 2 until told to stop, running all the while.
fn answer(index: usize) {
    with_irq(|| {
        let mut answered = 0;
        timer::wait_until(10_000_000, || {
            answer_all(index, &mut answered);
            OVER.load(Ordering::Acquire)
        })
    });
}

/// The same, asleep between them.
fn answer_sleepily(index: usize) {
    let mut answered = 0;
    while !OVER.load(Ordering::Acquire) {
        answer_all(index, &mut answered);
        wfi();
        with_irq(|| ());
    }
}

fn answer_all(index: usize, answered: &mut u32) {
    while *answered < recorder::count(index, 1) {
        *answered += 1;
        gic::send_sgi(2, SgiTarget::One(machine().cpus[0]));
    }
}

/// Sends SGI 1 to CPU 1, which does `main`, and waits for SGI 2 in return, so many times.
fn play(machine: &'static Machine, main: cpus::Main, rounds: u32) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    stage::clean_gic(machine);
    OVER.store(false, Ordering::Release);
    stage::start(1, main)?;
    let outcome = (1..=rounds).try_for_each(|round| {
        gic::send_sgi(1, SgiTarget::One(machine.cpus[1]));
        with_irq(|| wait_for(0, 2, round))
    });
    OVER.store(true, Ordering::Release);
    gic::send_sgi(15, SgiTarget::One(machine.cpus[1]));
    stage::finish(1)?;
    outcome?;
    check_equal!(recorder::count(1, 1), rounds, "interrupts at the other end");
    Ok(())
}

fn ping_pong(machine: &'static Machine) -> Outcome {
    play(machine, answer, 200)
}

fn ping_pong_asleep(machine: &'static Machine) -> Outcome {
    play(machine, answer_sleepily, 1000)
}

fn wakes_sleeper(machine: &'static Machine) -> Outcome {
    with_others(machine, sleep, |_| {
        for round in 1..=20 {
            for index in 1..machine.cpus.len() {
                timer::doze(200);
                gic::send_sgi(8, SgiTarget::One(machine.cpus[index]));
                wait_for(index, 8, round)?;
            }
        }
        Ok(())
    })
}

/// Sends SGI 10 to the boot CPU a hundred times.
fn pester(_index: usize) {
    for _ in 0..100 {
        gic::send_sgi(10, SgiTarget::One(machine().cpus[0]));
        relax();
    }
    READY.fetch_add(1, Ordering::Release);
}

fn all_to_one(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    stage::clean_gic(machine);
    READY.store(0, Ordering::Release);
    let others = machine.cpus.len() - 1;
    for index in 1..=others {
        cpus::start(index, pester).map_err(|code| Verdict::fail(format_args!("CPU_ON answered {code}")))?;
    }
    with_irq(|| timer::sleep_until(2 * LONG, || READY.load(Ordering::Acquire) == others));
    for index in 1..=others {
        stage::finish(index)?;
    }
    // Several that are pending at once are one (edge-triggered); the last one sent is always seen.
    let before = recorder::count(0, 10);
    with_irq(|| timer::delay(super::SHORT));
    check!((1..=100 * others as u32).contains(&before), "{before} interrupts for {others} times a hundred SGIs");
    check_equal!(recorder::count(0, 10), before, "interrupts a while later");
    Ok(())
}
