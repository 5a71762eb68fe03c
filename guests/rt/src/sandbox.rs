//! Running code that nobody trusts, such as random instructions.
//!
//! Answers for: entering any code with any registers at EL1 or EL0 and coming back whatever it does, by way of the first
//! exception that it raises or of an interrupt. Does not answer for: what that code may write to (it has our memory in its
//! reach), nor for system registers that it changes.
//!
//! At EL1 such code runs with `SP_EL0` as its stack pointer (`EL1t`), so that the handlers' stack is out of its reach.

use core::sync::atomic::{AtomicPtr, Ordering};

use crate::exceptions::Frame;
use crate::machine::MAX_CPUS;
use crate::registers::cpu;

/// The exception level and stack pointer to run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// EL0.
    El0t,
    /// EL0, for one instruction, if `MDSCR_EL1.SS` is set.
    El0tStepping,
    /// EL1 with `SP_EL0`.
    El1t,
}

/// Registers to enter with, and what was found on leaving. `vectors.S` knows the layout up to `x`.
#[repr(C)]
#[derive(Clone, Debug)]
struct Sandbox {
    /// x19 to x30, SP and DAIF of the one who called.
    caller: [u64; 14],
    elr: u64,
    spsr: u64,
    sp: u64,
    x: [u64; 31],
    outcome: Outcome,
}

const _: () = assert!(core::mem::offset_of!(Sandbox, x) == 136);

/// How a sandbox ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Which vector: 0 to 3 from EL1t (synchronous, IRQ, FIQ, SError), 4 to 7 from EL1h, 8 to 11 from EL0.
    pub vector: u64,
    /// `ESR_EL1`.
    pub syndrome: u64,
    /// `FAR_EL1`.
    pub address: u64,
    /// `ELR_EL1`.
    pub pc: u64,
    /// `SPSR_EL1`.
    pub pstate: u64,
    /// `x0`.
    pub x0: u64,
}

static ACTIVE: [AtomicPtr<Sandbox>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

unsafe extern "C" {
    fn guest_sandbox(state: *mut Sandbox);
    fn guest_sandbox_exit();
}

/// Runs the code at `pc` with `x` and `sp` until its first exception.
///
/// # Safety
///
/// The code harms nothing that the compiler relies on, and an exception or an interrupt ends it.
pub unsafe fn run(mode: Mode, pc: usize, sp: u64, x: &[u64; 31]) -> Outcome {
    // IRQs in, SError, FIQ and debug exceptions out.
    let spsr = 0x340
        | match mode {
            Mode::El0t => 0,
            Mode::El0tStepping => 1 << 21,
            Mode::El1t => 0b0100,
        };
    let mut state = Sandbox { caller: [0; 14], elr: pc as u64, spsr, sp, x: *x, outcome: Outcome::default() };
    ACTIVE[cpu()].store(&raw mut state, Ordering::Relaxed);
    // SAFETY: the caller vouches for the code; `state` outlives the call.
    unsafe { guest_sandbox(&raw mut state) };
    state.outcome
}

pub(crate) fn is_active() -> bool {
    !ACTIVE[cpu()].load(Ordering::Relaxed).is_null()
}

/// If a sandbox is what the exception came from: makes the exception return to the one who started it.
pub(crate) fn leave(frame: &mut Frame, vector: u64) {
    let state = ACTIVE[cpu()].swap(core::ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: `run` stored a pointer to a live `Sandbox`, and only while it waits in `guest_sandbox`.
    let Some(sandbox) = (unsafe { state.as_mut() }) else { return };
    sandbox.outcome =
        Outcome { vector, syndrome: frame.esr, address: frame.far, pc: frame.elr, pstate: frame.spsr, x0: frame.x[0] };
    frame.x[0] = state as u64;
    frame.elr = guest_sandbox_exit as *const () as u64;
    frame.spsr = 0x3c5;
}
