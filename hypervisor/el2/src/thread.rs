//! Stacks of threads and the switch between them; with what a secondary CPU begins.

use crate::mmu::Translation;
use core::sync::atomic::{AtomicUsize, Ordering};
use types::Mpidr;

/// Prepares the stack whose last word ends at `top` with what [`switch`] needs to start a thread, and returns the SP to
/// switch to. The thread will call `kernel_thread_main(argument)`.
///
/// # Safety
/// The 96 bytes below `top` are mapped, writable and nobody else's; `top` is 16-byte aligned.
pub unsafe fn prepare_stack(top: usize, argument: usize) -> usize {
    let sp = top - 96;
    let mut words = [0usize; 12];
    words[1] = el2_thread_start as *const () as usize; // X30
    words[2] = argument; // X19
    // SAFETY: the caller's promise.
    unsafe { (sp as *mut [usize; 12]).write(words) };
    sp
}

unsafe extern "C" {
    fn el2_switch_thread(from: *mut usize, to: usize);
    fn el2_thread_start();
}

/// Saves the running thread's SP in `from` and goes on with the thread whose SP is `to`. Returns when somebody switches
/// back, perhaps on another CPU.
///
/// # Safety
/// Interrupts are masked; `to` comes from [`prepare_stack`] or from an earlier switch, and nobody else will use it; `from`
/// stays valid until the thread is resumed.
#[inline]
pub unsafe fn switch(from: *mut usize, to: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        el2_switch_thread(from, to);
    }
}

/// The registers of a fault at EL2, as `vectors.S` saves them.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct FaultFrame {
    /// X0 to X30.
    pub x: [u64; 31],
    /// SP at the fault.
    pub sp: u64,
    /// ELR_EL2.
    pub pc: u64,
    /// SPSR_EL2.
    pub pstate: u64,
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
    /// Nothing; `vectors.S` keeps the SP there on its way from a stack that has overflowed.
    spare: u64,
}

static_assertions::const_assert_eq!(size_of::<FaultFrame>(), 304);
static_assertions::const_assert_eq!(core::mem::offset_of!(FaultFrame, sp), 248);
static_assertions::const_assert_eq!(core::mem::offset_of!(FaultFrame, pc), 256);
static_assertions::const_assert_eq!(core::mem::offset_of!(FaultFrame, spare), 296);

/// What a secondary CPU finds behind its X0, or in the list of [`SecondaryBoot::publish`] (layout known to `boot.S`).
#[derive(Debug)]
#[repr(C)]
pub struct SecondaryBoot {
    ttbr0: u64,
    tcr: u64,
    mair: u64,
    sctlr: u64,
    /// Its first stack.
    stack: u64,
    per_cpu: u64,
    /// Whose this is.
    mpidr: u64,
    /// The next of the list.
    next: usize,
}

static_assertions::const_assert_eq!(core::mem::offset_of!(SecondaryBoot, mpidr), 48);

/// The first of the list.
#[unsafe(export_name = "el2_first_secondary")]
static FIRST_SECONDARY: AtomicUsize = AtomicUsize::new(0);

impl SecondaryBoot {
    /// For the CPU `mpidr`: the tables that all use, and a stack and a per-CPU block of its own.
    #[must_use]
    pub fn new(translation: &Translation, stack: usize, per_cpu: u64, mpidr: Mpidr) -> Self {
        let Translation { ttbr0, tcr, mair, sctlr } = *translation;
        Self { ttbr0, tcr, mair, sctlr, stack: stack as u64, per_cpu, mpidr: mpidr.0, next: 0 }
    }

    /// Puts it where CPUs whose caches are off find it: at the address that is returned, and in the list that CPUs of a spin
    /// table search for theirs. One that comes late, or before it is meant to, finds its own and no other's.
    pub fn publish(&'static mut self) -> u64 {
        self.next = FIRST_SECONDARY.load(Ordering::Relaxed);
        let address = core::ptr::from_ref(self) as usize;
        // SAFETY: our own, for good.
        unsafe { crate::cache::clean_and_invalidate(address, size_of::<Self>()) };
        FIRST_SECONDARY.store(address, Ordering::Relaxed);
        // SAFETY: our own.
        unsafe { crate::cache::clean_and_invalidate(&raw const FIRST_SECONDARY as usize, size_of::<usize>()) };
        address as u64
    }
}

unsafe extern "C" {
    fn el2_secondary_entry();
    fn el2_spin_table_entry();
}

/// Where firmware has to start a secondary CPU, with the address of its [`SecondaryBoot`] in X0.
#[must_use]
pub fn secondary_entry() -> u64 {
    el2_secondary_entry as *const () as u64
}

/// Where a CPU goes from a spin table, with nothing in X0.
#[must_use]
pub fn spin_table_entry() -> u64 {
    el2_spin_table_entry as *const () as u64
}
