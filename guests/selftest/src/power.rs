//! Starting, stopping and suspending CPUs.
//!
//! PSCI (DEN 0022), sections 5.1.3 to 5.1.8 and 6.4 (state at entry).

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use guest_rt::cpus::{self, EntryState};
use guest_rt::gic::{self, Bank, SgiTarget};
use guest_rt::machine::{Machine, machine};
use guest_rt::registers::affinity;
use guest_rt::smccc::{self, code, function};
use guest_rt::tap::{Outcome, Test};
use guest_rt::timer::{self, Timer};
use guest_rt::{check, check_equal};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "power: CPU_ON starts each CPU at EL1h, masked, with the MMU off", run: each_starts },
    Test { name: "power: a CPU that is on cannot be started again", run: already_on },
    Test { name: "power: CPU_ON of a CPU that does not exist is refused", run: no_such_cpu },
    Test { name: "power: CPU_ON at an address that is not memory is refused", run: bad_entry },
    Test { name: "power: AFFINITY_INFO follows CPU_ON and CPU_OFF", run: affinity_info },
    Test { name: "power: a CPU can be started a hundred times", run: again_and_again },
    Test { name: "power: of two who start a CPU at once, one succeeds", run: race },
    Test { name: "power: CPU_SUSPEND into standby wakes on an interrupt", run: standby },
    Test { name: "power: all CPUs run at once", run: all_at_once },
];

static SEEN: AtomicU64 = AtomicU64::new(0);
static HOLD: AtomicBool = AtomicBool::new(false);
static ARRIVED: AtomicUsize = AtomicUsize::new(0);

/// Stays until released, for two seconds at most.
fn stay(_index: usize) {
    SEEN.store(affinity(), Ordering::Relaxed);
    ARRIVED.fetch_add(1, Ordering::Release);
    timer::sleep_until(2_000_000, || !HOLD.load(Ordering::Acquire));
}

fn hold() {
    HOLD.store(true, Ordering::Release);
    ARRIVED.store(0, Ordering::Release);
}

fn release() {
    HOLD.store(false, Ordering::Release);
}

fn info(affinity: u64) -> i32 {
    smccc::psci(function::AFFINITY_INFO, [affinity, 0, 0])
}

fn each_starts(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    release();
    for index in 1..machine.cpus.len() {
        // The context id is the CPU's number: were it wrong, it would sit on another's stack, and not report here.
        stage::run_on(index, stay)?;
        check_equal!(SEEN.load(Ordering::Relaxed), machine.cpus[index], "affinity of the CPU that came");
        let EntryState { current_el, spsel, daif, sctlr } = cpus::entry_state(index);
        check_equal!((current_el, spsel), (1 << 2, 1), "CurrentEL and SPSel");
        check_equal!(daif, 0x3c0, "DAIF");
        // M, C, I.
        check_equal!(sctlr & 0x1005, 0, "SCTLR_EL1.{M,C,I}");
    }
    Ok(())
}

fn already_on(machine: &'static Machine) -> Outcome {
    let start =
        |index: usize| smccc::psci(function::CPU_ON, [machine.cpus[index], cpus::entry_address(), index as u64]);
    check_equal!(start(0), code::ALREADY_ON, "CPU_ON of ourselves");
    stage::needs_cpus(machine, 2)?;
    hold();
    stage::start(1, stay)?;
    let answer = start(1);
    release();
    stage::finish(1)?;
    check_equal!(answer, code::ALREADY_ON, "CPU_ON of a running CPU");
    Ok(())
}

fn no_such_cpu(machine: &'static Machine) -> Outcome {
    let highest = machine.cpus.iter().max().copied().unwrap_or(0);
    for target in [highest + 1, highest | 0x8000_0000_0000_0000, 0xff_00ff_ffff, !0, 0x4000_0000] {
        let answer = smccc::psci(function::CPU_ON, [target, cpus::entry_address(), 0]);
        check!(answer == code::INVALID_PARAMETERS, "CPU_ON of {target:#x} answered {answer}");
    }
    Ok(())
}

fn bad_entry(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    stage::needs_cpus(machine, 2)?;
    let end = machine.memory.iter().map(|range| range.end).max().unwrap_or(0);
    for entry in [stage::nowhere(machine), end, !0 << 12, 1 << 60] {
        let answer = smccc::psci(function::CPU_ON, [machine.cpus[1], entry, 0]);
        check!(answer == code::INVALID_ADDRESS, "CPU_ON at {entry:#x} answered {answer}");
        check_equal!(info(machine.cpus[1]), 1, "AFFINITY_INFO afterwards");
    }
    Ok(())
}

fn affinity_info(machine: &'static Machine) -> Outcome {
    check_equal!(info(machine.cpus[0]), 0, "ourselves");
    check_equal!(info(0xff_00ff_ffff), code::INVALID_PARAMETERS, "nobody");
    stage::needs_cpus(machine, 2)?;
    hold();
    check_equal!(info(machine.cpus[1]), 1, "before CPU_ON");
    stage::start(1, stay)?;
    let while_on = info(machine.cpus[1]);
    release();
    stage::finish(1)?;
    check_equal!(while_on, 0, "after CPU_ON");
    check_equal!(info(machine.cpus[1]), 1, "after CPU_OFF");
    Ok(())
}

fn again_and_again(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    release();
    for round in 0..100 {
        stage::run_on(1 + round % (machine.cpus.len() - 1), stay)?;
    }
    Ok(())
}

static RACER: AtomicI32 = AtomicI32::new(0);
static GO: AtomicBool = AtomicBool::new(false);

fn start_cpu_2() -> i32 {
    smccc::psci(function::CPU_ON, [machine().cpus[2], cpus::entry_address(), 2])
}

fn race(machine: &'static Machine) -> Outcome {
    // The emulator's own firmware lets both succeed now and then.
    stage::needs_hypervisor(machine)?;
    stage::needs_cpus(machine, 3)?;
    for _ in 0..20 {
        hold();
        GO.store(false, Ordering::Release);
        cpus::prepare(2, stay);
        stage::start(1, |_| {
            timer::wait_until(1_000_000, || GO.load(Ordering::Acquire));
            RACER.store(start_cpu_2(), Ordering::Release);
        })?;
        GO.store(true, Ordering::Release);
        let ours = start_cpu_2();
        stage::finish(1)?;
        let theirs = RACER.load(Ordering::Acquire);
        let is_up = cpus::wait_up(2);
        release();
        stage::finish(2)?;
        check!(is_up, "nobody started it: {ours} and {theirs}");
        let lost = |answer| answer == code::ALREADY_ON || answer == code::ON_PENDING;
        check!((ours == 0 && lost(theirs)) || (lost(ours) && theirs == 0), "answers {ours} and {theirs}");
        check_equal!(ARRIVED.load(Ordering::Acquire), 1, "arrivals");
    }
    Ok(())
}

fn standby(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    gic.enable(Timer::Virtual.intid());
    let due = timer::now() + timer::ticks(2000);
    Timer::Virtual.arm(due);
    // Power state 0: standby of this CPU; interrupts stay masked and wake it nevertheless.
    let answer = smccc::psci(function::CPU_SUSPEND, [0, 0, 0]);
    let woke = timer::now();
    Timer::Virtual.stop();
    gic.disable(Timer::Virtual.intid());
    check_equal!(answer, code::SUCCESS, "answer");
    // It may wake early for its own reasons; not late.
    check!(woke < due + timer::ticks(500_000), "it woke {} ticks late", woke.wrapping_sub(due));
    // An interrupt that is pending already does not let it sleep.
    gic::send_sgi(3, SgiTarget::One(affinity()));
    check_equal!(smccc::psci(function::CPU_SUSPEND, [0, 0, 0]), code::SUCCESS, "answer with an interrupt pending");
    check!(gic.is(Bank::Pending, 3) || gic::highest_pending() == 3, "the interrupt is gone");
    gic.clear(Bank::Pending, 3);
    Ok(())
}

fn all_at_once(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    hold();
    for index in 1..machine.cpus.len() {
        stage::start(index, stay)?;
    }
    let others = machine.cpus.len() - 1;
    let all_came = timer::sleep_until(2_000_000, || ARRIVED.load(Ordering::Acquire) == others);
    release();
    for index in 1..machine.cpus.len() {
        stage::finish(index)?;
    }
    check!(all_came, "only {} of {others} came", ARRIVED.load(Ordering::Acquire));
    Ok(())
}
