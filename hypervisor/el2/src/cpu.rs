//! The CPU that runs this: interrupt mask, identity, waiting, its counter.

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, CurrentEL, MPIDR_EL1, Readable};
use types::{Frequency, Mpidr, Ticks};

/// Whether this is EL2; `kernel` refuses to go on at EL1.
#[must_use]
pub fn is_el2() -> bool {
    CurrentEL.matches_all(CurrentEL::EL::EL2)
}

/// Whether EL2 has only the layout of FEAT_VHE (FEAT_E2H0 is not implemented): `HCR_EL2.E2H`, which the boot code cleared,
/// is 1. `kernel` refuses to go on.
#[must_use]
pub fn is_el2_of_vhe_only() -> bool {
    const E2H: u64 = 1 << 34;
    read_register!("hcr_el2") & E2H != 0
}

/// Affinity of this CPU.
#[must_use]
pub fn mpidr() -> Mpidr {
    Mpidr::new(MPIDR_EL1.get())
}

/// MIDR_EL1: which core this is.
#[must_use]
pub fn midr() -> u64 {
    read_register!("midr_el1")
}

/// All identification registers of group 3, `S3_0_C0_C<1 to 7>_<0 to 7>`, in order. Those that are not allocated read as
/// zero (DDI 0487, "Principles of the ID scheme").
#[must_use]
pub fn identification() -> [u64; 56] {
    macro_rules! row {
        ($crm:literal) => {
            [
                read_register!(concat!("s3_0_c0_c", $crm, "_0")),
                read_register!(concat!("s3_0_c0_c", $crm, "_1")),
                read_register!(concat!("s3_0_c0_c", $crm, "_2")),
                read_register!(concat!("s3_0_c0_c", $crm, "_3")),
                read_register!(concat!("s3_0_c0_c", $crm, "_4")),
                read_register!(concat!("s3_0_c0_c", $crm, "_5")),
                read_register!(concat!("s3_0_c0_c", $crm, "_6")),
                read_register!(concat!("s3_0_c0_c", $crm, "_7")),
            ]
        };
    }
    let rows = [row!(1), row!(2), row!(3), row!(4), row!(5), row!(6), row!(7)];
    let mut all = [0; 56];
    for (target, row) in all.chunks_mut(8).zip(rows) {
        target.copy_from_slice(&row);
    }
    all
}

/// The system counter now. The barrier keeps the read from being done early (DDI 0487, "The Generic Timer").
#[must_use]
#[inline]
pub fn counter() -> Ticks {
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
    Ticks(CNTPCT_EL0.get())
}

/// Frequency of the system counter as firmware set it; `None` if firmware forgot.
#[must_use]
pub fn counter_frequency() -> Option<Frequency> {
    Frequency::new(u32::try_from(CNTFRQ_EL0.get()).unwrap_or(0))
}

/// Whether the CPU has random number instructions (FEAT_RNG, `ID_AA64ISAR0_EL1.RNDR`).
#[must_use]
pub fn has_random_numbers() -> bool {
    read_register!("id_aa64isar0_el1") >> 60 != 0
}

/// A random number from a generator that has just been reseeded (`RNDRRS`); `None` if none came in reasonable time. The CPU
/// has FEAT_RNG.
#[must_use]
pub fn random() -> Option<u64> {
    /// The architecture promises no more than that it does not fail for long.
    const ATTEMPTS: u32 = 16;
    (0..ATTEMPTS).find_map(|_| {
        let (value, failed): (u64, u64);
        // SAFETY: reads a register, and sets the condition flags: Z for a failure.
        unsafe {
            core::arch::asm!("mrs {}, s3_3_c2_c4_1", "cset {}, eq", out(reg) value, out(reg) failed, options(nomem, nostack));
        }
        (failed == 0).then_some(value)
    })
}

/// DAIF.I.
const IRQ_MASK: u64 = 1 << 7;

/// Masks IRQs and says whether they were masked before.
#[inline]
pub fn mask_interrupts() -> bool {
    let daif = read_register!("daif");
    // SAFETY: masking interrupts delays them and does nothing else.
    unsafe {
        core::arch::asm!("msr daifset, #2", options(nostack, preserves_flags));
    }
    daif & IRQ_MASK != 0
}

/// Whether IRQs are masked.
#[must_use]
#[inline(always)]
pub fn are_interrupts_masked() -> bool {
    read_register!("daif") & IRQ_MASK != 0
}

/// Lets IRQs in.
///
/// # Safety
/// The caller holds no lock, and is a thread that may be preempted.
#[inline]
pub unsafe fn unmask_interrupts() {
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("msr daifclr, #2", options(nostack, preserves_flags));
    }
}

/// Lets SErrors in: from now on an asynchronous abort of ours is a fault that is reported.
///
/// # Safety
/// The vectors are installed.
pub unsafe fn unmask_serror() {
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("msr daifclr, #4", options(nostack, preserves_flags));
    }
}

/// Waits until an interrupt is pending, masked or not.
#[inline]
pub fn wait_for_interrupt() {
    // The barrier: what was written before is visible to whoever is to wake us (DDI 0487, "WFI").
    aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
    aarch64_cpu::asm::wfi();
}

/// Tells the machine that this CPU only waits for another one. An emulator that runs one CPU at a time goes on with the
/// other; `ISB`, which `core::hint::spin_loop` stands for, tells it nothing.
#[inline]
pub fn relax() {
    // SAFETY: a hint.
    unsafe {
        core::arch::asm!("yield", options(nomem, nostack, preserves_flags));
    }
}

/// Wakes CPUs that wait for an event (`WFE`), when what was written before is visible to them.
pub fn send_event() {
    aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
    aarch64_cpu::asm::sev();
}

/// Stops here for good.
pub fn park() -> ! {
    loop {
        mask_interrupts();
        aarch64_cpu::asm::wfe();
    }
}

/// What `kernel` keeps per CPU: TPIDR_EL2 belongs to nobody else.
#[must_use]
#[inline]
pub fn per_cpu() -> *mut u8 {
    read_register!("tpidr_el2") as usize as *mut u8
}

/// REVIDR_EL1: errata of this revision of the core that are fixed.
#[must_use]
pub fn revidr() -> u64 {
    read_register!("revidr_el1")
}

/// ID_AA64PFR0_EL1: exception levels, and what the CPU keeps apart when it speculates.
#[must_use]
pub fn processor_features() -> u64 {
    read_register!("id_aa64pfr0_el1")
}

/// From now on exits of guests on this CPU go through the vectors that do first what the per-CPU block says (`vectors.S`).
pub fn harden_exits() {
    unsafe extern "C" {
        static el2_hardened_vectors: u8;
    }
    write_register!("vbar_el2", &raw const el2_hardened_vectors as u64);
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// Sets the per-CPU pointer. Its first word is the address of the CPU's emergency stack, its second what the hardened vectors
/// do: a number of branches, and a firmware call; behind it 32 bits that are not 0 if they are to doubt faults of stage 2 (see
/// `vectors.S`).
///
/// # Safety
/// `block` stays valid for as long as this CPU runs, and is this CPU's alone.
pub unsafe fn set_per_cpu(block: *mut u8) {
    write_register!("tpidr_el2", block as u64);
}

/// The frame pointer here, where a backtrace starts.
#[must_use]
#[inline(always)]
pub fn frame_pointer() -> u64 {
    {
        let value: u64;
        // SAFETY: copies a register.
        unsafe { core::arch::asm!("mov {}, x29", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }
}
