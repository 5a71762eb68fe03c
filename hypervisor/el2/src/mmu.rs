//! EL2's own stage 1 translation.

use types::Pa;

/// SCTLR_EL2 with MMU, caches, stack-alignment check and write-execute-never on; everything else at its reset or RES1
/// value (DDI 0487, SCTLR_EL2, for HCR_EL2.E2H = 0).
pub const SCTLR_ON: u64 = SCTLR_RES1 | (1 << 0) /* M */ | (1 << 2) /* C */ | (1 << 3) /* SA */ | (1 << 12) /* I */ | (1 << 19) /* WXN */;
const SCTLR_RES1: u64 = (3 << 4) | (1 << 11) | (1 << 16) | (1 << 18) | (3 << 22) | (3 << 28);

/// The parameters that every CPU uses.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Translation {
    /// Root table.
    pub ttbr0: u64,
    /// TCR_EL2.
    pub tcr: u64,
    /// MAIR_EL2.
    pub mair: u64,
    /// SCTLR_EL2.
    pub sctlr: u64,
}

impl Translation {
    /// With this root, attributes as `pagetable` computed them.
    #[must_use]
    pub const fn new(root: Pa, tcr: u64, mair: u64) -> Self {
        Self { ttbr0: root.0, tcr, mair, sctlr: SCTLR_ON }
    }
}

unsafe extern "C" {
    fn el2_enable_mmu(ttbr0: u64, tcr: u64, mair: u64, sctlr: u64);
}

/// Turns the MMU on for this CPU.
///
/// # Safety
/// The tables map all code, data and stacks in use at the addresses where they are, with the right permissions, and have
/// reached memory.
pub unsafe fn enable(translation: &Translation) {
    // SAFETY: the caller's promise.
    unsafe {
        el2_enable_mmu(translation.ttbr0, translation.tcr, translation.mair, translation.sctlr);
    }
}

/// Whether this CPU's EL2 translates addresses: `SCTLR_EL2.M`.
#[must_use]
pub fn is_on() -> bool {
    read_register!("sctlr_el2") & 1 != 0
}

/// ID_AA64MMFR0_EL1: size of physical addresses among others.
#[must_use]
pub fn memory_model_features() -> u64 {
    read_register!("id_aa64mmfr0_el1")
}

/// ID_AA64MMFR1_EL1: size of VMIDs among others.
#[must_use]
pub fn memory_model_features_1() -> u64 {
    read_register!("id_aa64mmfr1_el1")
}

/// Whether VMIDs have 16 bits: `ID_AA64MMFR1_EL1.VMIDBits`.
#[must_use]
pub fn has_16_bit_vmids() -> bool {
    (memory_model_features_1() >> 4) & 0xf == 2
}
