//! Turning counter ticks into instructions.
//!
//! Answers for: loops, sums, and lines of output. Does not answer for: what is measured.

use guest_rt::{mrs, println, timer};

/// How often a cheap thing is repeated.
pub(crate) const REPETITIONS: u64 = 2000;

/// Lets what was printed before arrive: until then a hypervisor's console is busy with it, on this very CPU.
pub(crate) fn settle() {
    timer::delay(2_000);
}

/// Times `operation` in a loop of [`REPETITIONS`] rounds between two reads of the counter, and prints the mean. The loop's
/// own two or three instructions are in it.
#[inline(always)]
pub(crate) fn repeat(name: &str, mut operation: impl FnMut()) {
    operation();
    let start = timer::now();
    for _ in 0..REPETITIONS {
        operation();
    }
    report(name, timer::now() - start, REPETITIONS);
}

/// Ticks, at the start and end of what is measured: no barrier, nothing but the register.
#[inline(always)]
pub(crate) fn stamp() -> u64 {
    mrs!("cntvct_el0")
}

/// The counter ticks once in 16 instructions. Things shorter than a tick average out right only if they start at every
/// phase of it equally often: `round` instructions of delay, modulo 16.
#[inline(always)]
pub(crate) fn shift_phase(round: u64) {
    for _ in 0..round % 16 {
        guest_rt::instruction!("nop");
    }
}

/// Prints `ticks / count` as instructions, with one decimal.
pub(crate) fn report(name: &str, ticks: u64, count: u64) {
    let tenths =
        (u128::from(ticks) * 10_000_000_000 / u128::from(timer::frequency()) / u128::from(count.max(1))) as u64;
    println!("bench: {name} {}.{} instructions", tenths / 10, tenths % 10);
}
