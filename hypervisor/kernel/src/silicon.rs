//! What each CPU needs because of the core that it is.
//!
//! Answers for: asking, on each CPU and before it runs a guest, and having it done. Does not answer for: which core needs what
//! (`machine::errata`), nor for what all cores get (docs/errata.md).

use crate::cpu::PerCpu;
use crate::{stage2, start};
use machine::Conduit;
use machine::errata::{Branches, Hardening, Identity, Measures};
use spin::Once;
use vm::smccc::SMCCC_ARCH_WORKAROUND_2;

/// Those of the boot CPU. Another one says what it needs only if that is something else.
static FIRST: Once<Measures> = Once::new();

/// What this CPU's firmware says of an architectural call; `None` where there is nobody to ask.
pub(crate) fn firmware_feature(function: u32) -> Option<u32> {
    start::MACHINE.get().filter(|machine| machine.psci == Some(Conduit::Smc))?;
    el2::firmware::architecture_feature(function)
}

/// On each CPU, after its block has been installed.
pub(crate) fn initialise_cpu(this: &PerCpu) {
    stage2::initialise_cpu();
    let identity = Identity {
        midr: el2::cpu::midr(),
        revidr: el2::cpu::revidr(),
        pfr0: el2::cpu::processor_features(),
        mmfr1: el2::mmu::memory_model_features_1(),
    };
    let measures = Measures::of(identity, firmware_feature);
    if measures.repeat_tlbi {
        el2::tlb::repeat();
    }
    match measures.branches {
        Branches::Hardened(hardening) => this.harden(hardening, measures.doubt_stage_2),
        _ if measures.doubt_stage_2 => this.harden(Hardening::default(), true),
        _ => {}
    }
    // Loads do not pass stores whose addresses are unknown (CVE-2018-3639), neither ours nor guests'. It is so from reset on,
    // unless somebody before us wanted otherwise.
    if firmware_feature(SMCCC_ARCH_WORKAROUND_2) == Some(0) {
        el2::firmware::call_workaround(SMCCC_ARCH_WORKAROUND_2, 1);
    }
    if FIRST.get() != Some(&measures) {
        FIRST.call_once(|| measures);
        log::info!("{}: {measures}", this.id);
    }
}
