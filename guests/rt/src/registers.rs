//! System registers and the instructions that Rust has no word for.
//!
//! Answers for: one instruction per call, never reordered with other such calls. Does not answer for: what a value means.

/// Reads a system register by name or encoding (`mrs!("cntvct_el0")`, `mrs!("S3_0_C0_C0_5")`). A read changes nothing that
/// the compiler knows of; one that the machine refuses raises an exception, see [`crate::exceptions::catch`].
#[macro_export]
macro_rules! mrs {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a system register touches no memory.
        unsafe { core::arch::asm!(concat!("mrs {0}, ", $name), out(reg) value, options(nostack)) };
        value
    }};
}

/// Writes a system register by name or encoding. Belongs in an `unsafe` block: some registers hold the world together.
#[macro_export]
macro_rules! msr {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", $name, ", {0:x}"), in(reg) value, options(nostack));
    }};
}

/// Runs one or more instructions without operands, such as barriers (`instruction!("dsb sy")`). For an instruction that
/// changes what the compiler relies on, write the `asm!` and its reasons.
#[macro_export]
macro_rules! instruction {
    ($text:literal) => {{
        // SAFETY: callers pass barriers, hints and exception-raising instructions; none changes registers or memory.
        unsafe { core::arch::asm!($text, options(nostack)) };
    }};
}

/// Synchronises the context.
#[inline(always)]
pub fn isb() {
    instruction!("isb");
}

/// Completes all earlier memory accesses.
#[inline(always)]
pub fn dsb() {
    instruction!("dsb sy");
}

/// Waits for an interrupt, masked or not.
#[inline(always)]
pub fn wfi() {
    instruction!("wfi");
}

/// Tells an emulator with one host thread that another CPU has to move first. Every spin loop here has it in.
#[inline(always)]
pub fn relax() {
    instruction!("yield");
}

/// Lets IRQs in.
#[inline(always)]
pub fn unmask_irq() {
    instruction!("msr daifclr, #2");
}

/// Keeps IRQs out.
#[inline(always)]
pub fn mask_irq() {
    instruction!("msr daifset, #2");
}

/// Runs `body` with IRQs let in, then masks them.
pub fn with_irq<R>(body: impl FnOnce() -> R) -> R {
    unmask_irq();
    isb();
    let result = body();
    mask_irq();
    result
}

/// The affinity fields of `MPIDR_EL1`: bits 39:32 and 23:0.
#[must_use]
pub fn affinity() -> u64 {
    mrs!("mpidr_el1") & 0xff_00ff_ffff
}

/// The number of the CPU that runs this, as `cpus` gave it out; the entry code keeps it in `TPIDR_EL1`.
#[must_use]
#[inline(always)]
pub fn cpu() -> usize {
    (mrs!("tpidr_el1") as usize) % crate::machine::MAX_CPUS
}
