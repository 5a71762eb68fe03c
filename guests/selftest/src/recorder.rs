//! What happens to interrupts in tests that let them in.
//!
//! Answers for: counting each INTID on each CPU, and keeping timers from firing for ever. Does not answer for: tests that
//! keep interrupts masked and acknowledge by themselves; most do.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guest_rt::exceptions;
use guest_rt::machine::{MAX_CPUS, machine};
use guest_rt::registers::cpu;
use guest_rt::timer::Timer;

use crate::monitors;

const INTIDS: usize = 1024;

static COUNTS: [[AtomicU32; INTIDS]; MAX_CPUS] = [const { [const { AtomicU32::new(0) }; INTIDS] }; MAX_CPUS];
/// Virtual count at each CPU's last timer interrupt.
static LAST_TIMER: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// How many timer interrupts a CPU may still take before its timer is stopped.
static ALLOWANCE: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// If not zero, a timer interrupt sets its compare value this much further.
static PERIOD: AtomicU64 = AtomicU64::new(0);

/// Records all interrupts from now on.
pub(crate) fn install() {
    // SAFETY: no CPU takes interrupts yet.
    unsafe { exceptions::on_interrupt(record) };
}

/// Counts from zero again; a timer is stopped at its first interrupt.
pub(crate) fn forget() {
    COUNTS.iter().flatten().for_each(|count| count.store(0, Ordering::Relaxed));
    ALLOWANCE.iter().for_each(|allowance| allowance.store(1, Ordering::Relaxed));
    PERIOD.store(0, Ordering::Relaxed);
}

/// Lets this CPU take `count` timer interrupts, `period` ticks apart (0: again at once, the condition stays met).
pub(crate) fn allow_timer(count: u32, period: u64) {
    ALLOWANCE[cpu()].store(count, Ordering::Relaxed);
    PERIOD.store(period, Ordering::Relaxed);
}

/// How often CPU `index` has taken `intid`.
pub(crate) fn count(index: usize, intid: u32) -> u32 {
    COUNTS[index][intid as usize].load(Ordering::Acquire)
}

/// How many interrupts CPU `index` has taken.
pub(crate) fn total(index: usize) -> u32 {
    COUNTS[index].iter().map(|count| count.load(Ordering::Acquire)).sum()
}

/// When CPU `index` last took a timer interrupt, on that timer's own counter.
pub(crate) fn last_timer(index: usize) -> u64 {
    LAST_TIMER[index].load(Ordering::Acquire)
}

fn record(intid: u32) {
    let timers = machine().timers;
    if intid == timers.virtual_ {
        timer_interrupt(Timer::Virtual);
    } else if intid == timers.physical {
        timer_interrupt(Timer::Physical);
    }
    if intid == monitors::INTID {
        monitors::clear_overflow();
    }
    if let Some(count) = COUNTS[cpu()].get(intid as usize) {
        count.fetch_add(1, Ordering::Release);
    }
}

fn timer_interrupt(timer: Timer) {
    LAST_TIMER[cpu()].store(timer.count(), Ordering::Release);
    let period = PERIOD.load(Ordering::Relaxed);
    if ALLOWANCE[cpu()].fetch_sub(1, Ordering::Relaxed) <= 1 {
        timer.stop();
    } else if period != 0 {
        timer.set_compare(timer.compare() + period);
    }
}
