//! Other CPUs: started wrongly, started at once by everybody, and left in states that nothing leads out of.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest_rt::machine::{Machine, machine};
use guest_rt::registers::{dsb, isb, wfi};
use guest_rt::smccc::{self, function};
use guest_rt::{cpus, instruction, msr, timer};

use crate::Abuse;
use crate::random::Random;

static CALLS: AtomicU64 = AtomicU64::new(0);
static FINISHED: AtomicUsize = AtomicUsize::new(0);
/// How many CPUs the last cases have left behind.
static LOST: AtomicUsize = AtomicUsize::new(0);

/// Calls CPU_ON for everybody, ourselves included, and for nobody.
fn start_everybody(machine: &Machine, random: &mut Random, rounds: u64) {
    for _ in 0..rounds {
        let target = random.below(machine.cpus.len() as u64) as usize;
        // Each is given its own number as context: it may come any time, but it comes to its own stack.
        let valid = [machine.cpus[target], cpus::entry_address(), target as u64];
        let arguments = match random.below(4) {
            0 => [random.next() | 1 << 40, valid[1], valid[2]],
            // A bad entry point; the bare emulator would go there.
            1 if machine.is_bulkhead => [valid[0], random.next() | 1 << 50, valid[2]],
            2 => [machine.cpus[0], random.next(), 0],
            _ => valid,
        };
        let id = if random.below(2) == 0 { function::CPU_ON } else { function::AFFINITY_INFO };
        smccc::psci(id, arguments);
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

/// What each that comes does: the same for a short while, then it switches itself off.
fn join(index: usize) {
    start_everybody(machine(), &mut Random::new(timer::now() + index as u64), 20);
    FINISHED.fetch_add(1, Ordering::Relaxed);
}

/// Bad arguments, twice, and from all sides at once.
pub(crate) fn cpu_on(abuse: &mut Abuse) -> u64 {
    let machine = abuse.machine;
    for index in 1..machine.cpus.len() {
        cpus::prepare(index, join);
    }
    start_everybody(machine, &mut abuse.random, 300);
    // Each that runs may start another: they die out only when nobody happens to start anybody. Have them find nothing to
    // do, then wait until all are off.
    for index in 1..machine.cpus.len() {
        cpus::prepare(index, |_| {});
    }
    for index in 1..machine.cpus.len() {
        if !cpus::wait_off(index) {
            guest_rt::println!("abuser: CPU {index} is still on");
        }
    }
    CALLS.load(Ordering::Relaxed) + FINISHED.load(Ordering::Relaxed) as u64
}

/// Starts `main` on a CPU that is then lost, and goes on regardless. Returns 0 if there is none left.
fn lose(abuse: &Abuse, main: cpus::Main) -> u64 {
    let index = abuse.machine.cpus.len() - 1 - LOST.load(Ordering::Relaxed);
    if index == 0 || cpus::start(index, main).is_err() {
        return 0;
    }
    LOST.fetch_add(1, Ordering::Relaxed);
    // It does its worst while we count to a hundred milliseconds.
    timer::delay(100_000);
    1
}

/// Exceptions whose vectors are not mapped: for ever from one into the next.
pub(crate) fn vector_loop(abuse: &mut Abuse) -> u64 {
    lose(abuse, |_| {
        // SAFETY: this CPU has no future.
        unsafe { msr!("vbar_el1", 0x8000_0000_0000) };
        isb();
        instruction!("svc #0");
    })
}

/// Asleep, with everything masked and nothing enabled.
pub(crate) fn sleep_for_ever(abuse: &mut Abuse) -> u64 {
    lose(abuse, |_| {
        // SAFETY: the CPU interface touches no memory.
        unsafe { msr!("S3_0_C12_C12_7", 0) }; // ICC_IGRPEN1_EL1
        guest_rt::gic::set_priority_mask(0);
        dsb();
        loop {
            wfi();
        }
    })
}
