//! A guest that notices when its neighbours disturb it.
//!
//! Answers for: a periodic timer, with every tick that came a whole period late or not at all; sums over memory that nobody
//! else may touch, a part at each tick; a line on both from time to time. Does not answer for: who the neighbours are.
//!
//! `period=MICROSECONDS` (1000), `report=TICKS` (1000) between two lines, `reports=NUMBER` after which it powers off; without
//! that it stays. `watch=ADDRESS` and `intid=NUMBER`: of a `vdev watch`, on which there is a line as well. `busy`: it does not wait between two ticks, but goes on summing.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gic::Gic;
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::mmu::{self, Kind};
use guest_rt::registers::{unmask_irq, wfi};
use guest_rt::timer::{self, Timer};
use guest_rt::{entry, exceptions, println};

entry!(main);

const PERIOD_MICROSECONDS: u64 = 1000;
const REPORT_TICKS: u64 = 1000;

/// Words of the memory that is watched: 64 KiB, in parts that are summed one at a time.
const WORDS: usize = 8192;
const PART: usize = 256;
static WATCHED: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

static PERIOD: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);
static MISSED: AtomicU64 = AtomicU64::new(0);
static LATEST: AtomicU64 = AtomicU64::new(0);

fn main(machine: &'static Machine) {
    let argument = |name, default| machine.numeric_argument(name).unwrap_or(default);
    let report = argument("report", REPORT_TICKS).max(1);
    let reports = argument("reports", u64::MAX);
    PERIOD.store(timer::ticks(argument("period", PERIOD_MICROSECONDS)).max(1), Ordering::Relaxed);
    let busy = machine.has_argument("busy");
    let expected = fill();

    // SAFETY: interrupts are still masked on this CPU, and no other runs.
    unsafe { exceptions::on_interrupt(tick) };
    Gic::of(machine).enable(Timer::Virtual.intid());
    Timer::Virtual.arm(timer::now() + PERIOD.load(Ordering::Relaxed));
    let watch = machine.numeric_argument("watch").map(|address| Watch::at(machine, address));
    unmask_irq();

    let (mut sums, mut wrong, mut told) = (0_u64, 0_u64, 0_u64);
    while told < reports {
        for (part, expected) in WATCHED.chunks(PART).zip(&expected) {
            if !busy {
                wfi();
            }
            sums += 1;
            wrong += u64::from(sum(part) != *expected);
            let ticks = TICKS.load(Ordering::Relaxed);
            if ticks >= (told + 1) * report {
                told += 1;
                if let Some(watch) = &watch {
                    watch.report();
                }
                let late = LATEST.load(Ordering::Relaxed) * 1_000_000 / timer::frequency().max(1);
                let missed = MISSED.load(Ordering::Relaxed);
                println!("witness: {ticks} ticks, {missed} missed, late {late} us at most; {sums} sums, {wrong} wrong");
            }
        }
    }
    Timer::Virtual.stop();
}

/// A `vdev watch` (hypervisor/vdevs/src/watch.rs).
struct Watch(Mmio);

/// Its interrupt, and how often it came.
static WATCH_INTID: AtomicU64 = AtomicU64::new(u64::MAX);
static WATCH_AT: AtomicU64 = AtomicU64::new(0);
static NEWS: AtomicU64 = AtomicU64::new(0);

const ENDS: usize = 0x08;
const CODE: usize = 0x0c;
const INTERRUPT: usize = 0x10;

impl Watch {
    fn at(machine: &Machine, address: u64) -> Self {
        let mapped = mmu::reach(address, Kind::Device);
        WATCH_AT.store(mapped as u64, Ordering::Relaxed);
        if let Some(intid) = machine.numeric_argument("intid") {
            WATCH_INTID.store(intid, Ordering::Relaxed);
            Gic::of(machine).enable(intid as u32);
        }
        // SAFETY: mapped just now; the configuration says that the device is there.
        Self(unsafe { Mmio::new(mapped) })
    }

    fn report(&self) {
        let (ends, code, news) = (self.0.read(ENDS), self.0.read(CODE), NEWS.load(Ordering::Relaxed));
        println!("witness: the other has ended {ends} times, last with code {code}; {news} interrupts");
    }
}

/// Fills the memory with what nobody would write there, and says what the sums of its parts are.
fn fill() -> [u64; WORDS / PART] {
    let mut value = 0x9e37_79b9_7f4a_7c15_u64;
    for word in &WATCHED {
        value = value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        word.store(value, Ordering::Relaxed);
    }
    core::array::from_fn(|part| WATCHED.chunks(PART).nth(part).map_or(0, sum))
}

fn sum(part: &[AtomicU64]) -> u64 {
    part.iter().fold(0, |sum, word| sum.rotate_left(1) ^ word.load(Ordering::Relaxed))
}

/// The watch's interrupt, or the timer's. The next tick is a period after this one was due, unless that has passed as well.
fn tick(intid: u32) {
    if u64::from(intid) == WATCH_INTID.load(Ordering::Relaxed) {
        NEWS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `Watch::at` has mapped it before it let the interrupt come.
        unsafe { Mmio::new(WATCH_AT.load(Ordering::Relaxed) as usize) }.write(INTERRUPT, 1);
        return;
    }
    let period = PERIOD.load(Ordering::Relaxed);
    let due = Timer::Virtual.compare();
    let late = timer::now().saturating_sub(due);
    let missed = late / period;
    MISSED.fetch_add(missed, Ordering::Relaxed);
    LATEST.fetch_max(late, Ordering::Relaxed);
    TICKS.fetch_add(1 + missed, Ordering::Relaxed);
    Timer::Virtual.set_compare(due + (1 + missed) * period);
}
