//! The SIMD and floating-point registers.
//!
//! Answers for: letting a CPU use them, filling and comparing all of them. Images are compiled without them: what is in them is what
//! is put there. Does not answer for: who may change them meanwhile.

use core::arch::global_asm;

use crate::msr;
use crate::registers::isb;

global_asm!(include_str!("floating_point.S"));

unsafe extern "C" {
    safe fn guest_fill_vectors(seed: u64);
    safe fn guest_compare_vectors(seed: u64) -> u64;
}

const FPEN: u64 = 0b11 << 20;

/// Lets this CPU use the registers, or traps their use.
pub fn switch(on: bool) {
    // SAFETY: compiled code uses none of these registers.
    unsafe { msr!("cpacr_el1", if on { FPEN } else { 0 }) };
    isb();
}

/// Fills V0 to V31: register n has `seed` + n in both halves. Their use is not trapped.
pub fn fill(seed: u64) {
    guest_fill_vectors(seed);
}

/// How many of them do not have what [`fill`] puts there. Their use is not trapped.
#[must_use]
pub fn changed(seed: u64) -> u64 {
    guest_compare_vectors(seed)
}
