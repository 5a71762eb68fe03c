//! Maintenance of the translation caches, for all CPUs (Inner Shareable).
//!
//! DDI 0487, "TLB maintenance instructions" and the break-before-make sequence of "Using break-before-make when updating
//! translation table entries". Stage 2 invalidations act on the VMID in VTTBR_EL2: the caller names a VTTBR value, which is
//! installed for the moment.

use core::sync::atomic::{AtomicBool, Ordering};
use types::Ipa;

/// Some CPU of the machine may say too early that others have invalidated.
static IS_REPEATED: AtomicBool = AtomicBool::new(false);

/// From now on each invalidation on all CPUs is followed by a second one, of whatever: on the cores of
/// `machine::errata::Measures::repeat_tlbi` only that proves that the accesses through the first are complete.
pub fn repeat() {
    IS_REPEATED.store(true, Ordering::Relaxed);
}

/// Waits until the invalidations so far are complete on all CPUs, with the accesses that have used what they dropped.
fn complete() {
    instructions!("dsb ish");
    if IS_REPEATED.load(Ordering::Relaxed) {
        instructions!("tlbi vale2is, xzr", "dsb ish");
    }
    instructions!("isb");
}

/// Descriptors written so far are visible to every table walk before anything that follows.
#[inline]
pub fn publish() {
    instructions!("dsb ishst", "isb");
}

/// Drops every EL2 translation of this and the other CPUs.
pub fn invalidate_el2() {
    instructions!("dsb ishst", "tlbi alle2is");
    complete();
}

/// Drops the EL2 translation of one page.
pub fn invalidate_el2_page(address: u64) {
    let page = address >> 12;
    instructions!("dsb ishst", "tlbi vae2is, {page}", page = page);
    complete();
}

/// With `vttbr` installed, runs `operation`; then puts the former value back. The first barrier is for the descriptors that the
/// caller has written, and for walks that a guest has begun before it left: they end before the register changes (DDI 0487,
/// "Out-of-context translation regimes").
fn with_vttbr(vttbr: u64, operation: impl FnOnce()) {
    let saved = read_register!("vttbr_el2");
    instructions!("dsb ish");
    write_register!("vttbr_el2", vttbr);
    instructions!("isb");
    operation();
    complete();
    write_register!("vttbr_el2", saved);
    instructions!("isb");
}

/// Drops all of one VMID's translations, both stages. `vttbr` has that VMID, and a root that maps nothing: the registers of
/// EL1 are another guest's, or none's, and nothing may be translated by that mixture. Interrupts are masked by the caller, so
/// that the borrowed VTTBR is not seen by anybody else.
pub fn invalidate_guest(vttbr: u64) {
    with_vttbr(vttbr, || instructions!("tlbi vmalls12e1is"));
}

/// Drops `pages` pages of one VMID from `start` on: first the stage 2 entries, then, because combined entries of both
/// stages may have been cached, everything of stage 1 of that VMID. The rest as for [`invalidate_guest`].
pub fn invalidate_guest_pages(vttbr: u64, start: Ipa, pages: u64) {
    with_vttbr(vttbr, || {
        for page in 0..pages {
            let operand = ((start.0 >> 12) + page) & 0xf_ffff_ffff;
            instructions!("tlbi ipas2e1is, {operand}", operand = operand);
        }
        instructions!("dsb ish", "tlbi vmalle1is");
    });
}

/// Drops what this CPU has of stage 1 of the loaded vCPU's VMID: another vCPU of that VM has run here since. Both may use the
/// same ASID for different tables, and an entry is not shared by CPUs unless they say so (DDI 0487, "Common not Private
/// translations"): it would be, if one CPU is two of the guest's.
pub fn forget_other_vcpu() {
    instructions!("isb", "tlbi vmalle1", "dsb nsh", "isb");
}
