//! Exceptions: catching the expected ones, taking interrupts, reporting the rest.
//!
//! Answers for: what happens after `vectors.S` has saved a [`Frame`]. Does not answer for: what an interrupt means; a guest
//! sets a handler with [`on_interrupt`].

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::machine::MAX_CPUS;
use crate::registers::cpu;
use crate::{gic, mrs, sandbox, smccc};

/// What `vectors.S` saves; it knows the layout.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Frame {
    /// `x0` to `x30`.
    pub x: [u64; 31],
    /// `ELR_EL1`.
    pub elr: u64,
    /// `SPSR_EL1`.
    pub spsr: u64,
    /// `ESR_EL1`; of an older exception, if this one is an interrupt.
    pub esr: u64,
    /// `FAR_EL1`, likewise.
    pub far: u64,
    reserved: u64,
}

const _: () = assert!(size_of::<Frame>() == 288);

/// Exception classes, `ESR_EL1.EC` (DDI 0487, section D24.2.40).
pub mod class {
    #![allow(missing_docs, reason = "the manual's table")]

    pub const UNKNOWN: u64 = 0x00;
    pub const WFX: u64 = 0x01;
    pub const FP: u64 = 0x07;
    pub const ILLEGAL_STATE: u64 = 0x0e;
    pub const SVC: u64 = 0x15;
    pub const SYSTEM_REGISTER: u64 = 0x18;
    pub const INSTRUCTION_ABORT_EL0: u64 = 0x20;
    pub const INSTRUCTION_ABORT: u64 = 0x21;
    pub const PC_ALIGNMENT: u64 = 0x22;
    pub const DATA_ABORT_EL0: u64 = 0x24;
    pub const DATA_ABORT: u64 = 0x25;
    pub const SP_ALIGNMENT: u64 = 0x26;
    pub const BRK: u64 = 0x3c;
}

/// A synchronous exception that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// `ESR_EL1`.
    pub syndrome: u64,
    /// `FAR_EL1`.
    pub address: u64,
    /// `ELR_EL1`.
    pub pc: u64,
    /// `SPSR_EL1`.
    pub pstate: u64,
    /// How many exceptions were taken in all; the fields above are those of the first.
    pub count: u64,
}

impl Trap {
    /// `ESR_EL1.EC`, see [`class`].
    #[must_use]
    pub const fn class(&self) -> u64 {
        self.syndrome >> 26 & 0x3f
    }

    /// The fault status code of an abort, `ISS[5:0]`.
    #[must_use]
    pub const fn status(&self) -> u64 {
        self.syndrome & 0x3f
    }

    /// Whether it is an undefined instruction: class 0, a 32-bit instruction (IL), nothing else.
    #[must_use]
    pub const fn is_undefined(&self) -> bool {
        self.syndrome == 1 << 25
    }
}

/// What a CPU expects. Touched by that CPU only, by its handlers and by what they interrupt: single loads and stores.
struct Expectation {
    depth: AtomicU64,
    count: AtomicU64,
    first: [AtomicU64; 4],
}

static EXPECTATIONS: [Expectation; MAX_CPUS] = [const {
    Expectation { depth: AtomicU64::new(0), count: AtomicU64::new(0), first: [const { AtomicU64::new(0) }; 4] }
}; MAX_CPUS];

/// Runs `body` and says which synchronous exception it raised, if any. A raising instruction is stepped over; a branch to
/// where nothing can be fetched returns to its link register. Does not nest.
pub fn catch<R>(body: impl FnOnce() -> R) -> (R, Option<Trap>) {
    let expected = &EXPECTATIONS[cpu()];
    expected.count.store(0, Ordering::Relaxed);
    expected.depth.store(1, Ordering::Relaxed);
    let result = body();
    expected.depth.store(0, Ordering::Relaxed);
    let [syndrome, address, pc, pstate] =
        [0, 1, 2, 3].map(|field: usize| expected.first[field].load(Ordering::Relaxed));
    let count = expected.count.load(Ordering::Relaxed);
    (result, (count > 0).then_some(Trap { syndrome, address, pc, pstate, count }))
}

impl Expectation {
    fn take(&self, frame: &mut Frame) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            for (field, value) in self.first.iter().zip([frame.esr, frame.far, frame.elr, frame.spsr]) {
                field.store(value, Ordering::Relaxed);
            }
        }
        match frame.esr >> 26 & 0x3f {
            // These return behind the instruction by themselves.
            class::SVC => {}
            class::INSTRUCTION_ABORT | class::PC_ALIGNMENT => frame.elr = frame.x[30],
            // The illegal state goes with the saved PSTATE's IL bit.
            class::ILLEGAL_STATE => frame.spsr &= !(1 << 20),
            _ => frame.elr = frame.elr.wrapping_add(4),
        }
    }
}

/// What a guest does with an interrupt, between acknowledge and end: it gets the INTID.
pub type InterruptHandler = fn(u32);

struct Handler(UnsafeCell<InterruptHandler>);

// SAFETY: written by `on_interrupt` only, whose caller keeps interrupts masked everywhere meanwhile.
unsafe impl Sync for Handler {}

static HANDLER: Handler = Handler(UnsafeCell::new(unexpected_interrupt));
static INTERRUPTS: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

/// Sets what is done with interrupts on every CPU.
///
/// # Safety
///
/// No CPU takes interrupts while this runs.
pub unsafe fn on_interrupt(handler: InterruptHandler) {
    // SAFETY: nobody reads it meanwhile, the caller's promise.
    unsafe { *HANDLER.0.get() = handler };
    crate::registers::dsb();
}

/// How many interrupts CPU `index` has taken.
#[must_use]
pub fn interrupts_taken(index: usize) -> usize {
    INTERRUPTS.get(index).map_or(0, |count| count.load(Ordering::Acquire))
}

fn unexpected_interrupt(intid: u32) {
    gic::Gic::of(crate::machine::machine()).disable(intid);
    crate::println!("# unexpected interrupt {intid}");
}

fn interrupt() {
    let Some(intid) = gic::acknowledge() else { return };
    // SAFETY: written only while no CPU takes interrupts.
    let handler = unsafe { *HANDLER.0.get() };
    handler(intid);
    INTERRUPTS[cpu()].fetch_add(1, Ordering::Release);
    gic::end(intid);
}

#[unsafe(no_mangle)]
extern "C" fn guest_exception(frame: &mut Frame, vector: u64) {
    let expected = &EXPECTATIONS[cpu()];
    match vector & 3 {
        1 => interrupt(),
        0 if sandbox::is_active() => {}
        0 if expected.depth.load(Ordering::Relaxed) > 0 => return expected.take(frame),
        _ if sandbox::is_active() => {}
        _ => fatal(frame, vector),
    }
    sandbox::leave(frame, vector);
}

/// The guest's own end, with the registers.
fn fatal(frame: &Frame, vector: u64) -> ! {
    crate::console::print_regardless(format_args!(
        "\nguest: unexpected exception, vector {vector}, cpu {}: ESR {:#x} FAR {:#x} ELR {:#x} SPSR {:#x} SP {:#x} VBAR {:#x}\n",
        cpu(),
        frame.esr,
        frame.far,
        frame.elr,
        frame.spsr,
        core::ptr::from_ref(frame).addr(),
        mrs!("vbar_el1"),
    ));
    for (number, value) in frame.x.iter().enumerate() {
        crate::console::print_regardless(format_args!(
            "x{number}={value:#x}{}",
            if number % 4 == 3 { '\n' } else { ' ' }
        ));
    }
    crate::console::print_regardless(format_args!("\n"));
    smccc::system_off()
}
