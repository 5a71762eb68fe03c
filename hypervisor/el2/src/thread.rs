//! Stacks of threads and the switch between them.

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
/// Interrupts are masked; `to` comes from [`Prepared::new`] or from an earlier switch, and nobody else will use it; `from`
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

/// What a secondary CPU finds behind its X0 (layout known to `boot.S`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SecondaryBoot {
    /// TTBR0_EL2.
    pub ttbr0: u64,
    /// TCR_EL2.
    pub tcr: u64,
    /// MAIR_EL2.
    pub mair: u64,
    /// SCTLR_EL2.
    pub sctlr: u64,
    /// Its first stack.
    pub stack: u64,
    /// Its per-CPU block.
    pub per_cpu: u64,
}

unsafe extern "C" {
    fn el2_secondary_entry();
}

/// Where firmware has to start a secondary CPU.
#[must_use]
pub fn secondary_entry() -> u64 {
    el2_secondary_entry as *const () as u64
}
