//! Things that need other VMs on the same CPU: taking turns, being preempted, being late.
//!
//! Answers for: what one VM sees of it. Does not answer for: which VMs there are, and what their numbers together mean (`cargo
//! xtask bench`, `cargo xtask test`).
//!
//! The VMs agree on when by the machine's own counter: `set counter-offset 0` shows it to all of them. Times among the
//! arguments are milliseconds of it.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gic::{DEFAULT_PRIORITY, Gic};
use guest_rt::machine::{MAX_CPUS, Machine};
use guest_rt::timer::{self, Timer};
use guest_rt::{cpus, println};

use crate::interrupts::{self, Seen};
use crate::measure::{report, stamp};

/// An interruption that is longer was somebody else's turn.
const TURN_MICROSECONDS: u64 = 500;
const PERIOD_MICROSECONDS: u64 = 1000;

/// The `index`th number among the arguments as a moment; one that is missing, or past when it has to be in the future, is said.
fn moment(machine: &Machine, index: usize, future: bool) -> Option<u64> {
    let mut numbers = machine.selection().filter_map(|word| word.parse::<u64>().ok());
    let moment = numbers.nth(index).map(|milliseconds| timer::ticks(milliseconds * 1000));
    match moment {
        Some(moment) if !future || moment > timer::now() => return Some(moment),
        Some(_) => println!("bench: # moment {index} is over: {} us", timer::now() * 1_000_000 / timer::frequency()),
        None => println!("bench: # moment {index} is missing"),
    }
    None
}

/// The hypervisor's call that lets others run: `HVC #1`.
#[inline(always)]
fn yield_to_others() {
    // SAFETY: changes no register and no memory.
    unsafe { asm!("hvc #1", options(nostack)) };
}

/// What a VM had of a stretch of time, in ticks, how often it got the CPU back, and how much it did.
struct Had {
    own: u64,
    turns: u64,
    work: u64,
}

/// Is busy until `end`, and looks from `start` on.
fn had(start: u64, end: u64) -> Had {
    let longest = timer::ticks(TURN_MICROSECONDS);
    let (mut last, mut had) = (start, Had { own: 0, turns: 0, work: 0 });
    loop {
        let now = stamp();
        if now >= end {
            return had;
        }
        if now >= start {
            if now - last > longest {
                had.turns += 1;
            } else {
                had.own += now - last;
            }
            last = now;
            had.work += 1;
        }
    }
}

/// Two VMs, each with this: from the first moment to the second they hand the CPU to each other, then to the third they are
/// busy.
pub(crate) fn switch(machine: &'static Machine) {
    let moments = (moment(machine, 0, true), moment(machine, 1, true), moment(machine, 2, true));
    let (Some(start), Some(middle), Some(end)) = moments else { return };
    while stamp() < start {
        yield_to_others();
    }
    let mut yields = 0_u64;
    while stamp() < middle {
        yield_to_others();
        yields += 1;
    }
    let had = had(middle + timer::ticks(PERIOD_MICROSECONDS), end);
    println!("bench: yields {yields}");
    println!("bench: own-ticks {}", had.own);
    println!("bench: turns {}", had.turns);
    println!("bench: ticks-per-second {}", timer::frequency());
}

/// When the other CPUs of [`busy`] go home, and what they had.
static WINDOW: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static OWN: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static WORK: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

fn be_busy(index: usize) {
    let [start, end] = [&WINDOW[0], &WINDOW[1]].map(|moment| moment.load(Ordering::Relaxed));
    let had = had(start, end);
    WORK[index].store(had.work, Ordering::Release);
    OWN[index].store(had.own, Ordering::Release);
}

/// All CPUs are busy; what part of the time between the two moments each of them had, in thousandths, and how much it did.
pub(crate) fn busy(machine: &'static Machine) {
    // One that comes only when it is over has had nothing.
    let (Some(start), Some(end)) = (moment(machine, 0, false), moment(machine, 1, false)) else { return };
    WINDOW[0].store(start, Ordering::Relaxed);
    WINDOW[1].store(end, Ordering::Relaxed);
    for index in 1..machine.cpus.len() {
        if let Err(error) = cpus::start(index, be_busy) {
            println!("bench: # busy: CPU_ON answered {error}");
        }
    }
    be_busy(0);
    for index in 0..machine.cpus.len() {
        if index > 0 && !cpus::wait_off(index) {
            println!("bench: # busy: CPU {index} did not go home");
        }
        println!("bench: busy-{index} {}", OWN[index].load(Ordering::Acquire) * 1000 / (end - start));
        println!("bench: work-{index} {}", WORK[index].load(Ordering::Acquire));
    }
}

/// A timer of 1 kHz from the first moment to the second, and how late its interrupts are. Sleeps in between.
pub(crate) fn periodic(machine: &'static Machine) {
    let (Some(start), Some(end)) = (moment(machine, 0, true), moment(machine, 1, true)) else { return };
    let gic = Gic::of(machine);
    let seen = Seen::here();
    gic.set_priority(Timer::Virtual.intid(), DEFAULT_PRIORITY);
    gic.enable(Timer::Virtual.intid());
    let (mut due, mut total, mut worst, mut count) = (start, 0, 0, 0);
    while due < end {
        seen.forget();
        Timer::Virtual.arm(due);
        while seen.is_nothing() {
            interrupts::sleep();
        }
        let late = seen.at() - due;
        total += late;
        worst = worst.max(late);
        count += 1;
        due += timer::ticks(PERIOD_MICROSECONDS);
    }
    Timer::Virtual.stop();
    gic.disable(Timer::Virtual.intid());
    report("periodic-mean", total, count);
    report("periodic-worst", worst, 1);
}
