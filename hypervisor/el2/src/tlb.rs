//! Maintenance of the translation caches, for all CPUs (Inner Shareable).
//!
//! DDI 0487, "TLB maintenance instructions" and the break-before-make sequence of "Using break-before-make when updating
//! translation table entries". Stage 2 invalidations act on the VMID in VTTBR_EL2: the caller names the VTTBR value and it
//! is installed for the moment.

use types::Ipa;

/// Descriptors written so far are visible to every table walk before anything that follows.
#[inline]
pub fn publish() {
    instructions!("dsb ishst", "isb");
}

/// Drops every EL2 translation of this and the other CPUs.
pub fn invalidate_el2() {
    instructions!("dsb ishst", "tlbi alle2is", "dsb ish", "isb");
}

/// Drops the EL2 translation of one page.
pub fn invalidate_el2_page(address: u64) {
    let page = address >> 12;
    instructions!("dsb ishst", "tlbi vae2is, {page}", "dsb ish", "isb", page = page);
}

/// Drops everything of all VMIDs, stages 1 and 2: when the VMIDs start anew.
pub fn invalidate_all_guests() {
    instructions!("dsb ishst", "tlbi alle1is", "dsb ish", "ic ialluis", "dsb ish", "isb");
}

/// With `vttbr` installed, runs `operation`; then puts the former value back.
fn with_vttbr(vttbr: u64, operation: impl FnOnce()) {
    let saved = read_register!("vttbr_el2");
    write_register!("vttbr_el2", vttbr);
    instructions!("isb");
    operation();
    write_register!("vttbr_el2", saved);
    instructions!("isb");
}

/// Drops all of one VMID's translations, both stages. Interrupts are masked by the caller, so that the borrowed VTTBR is
/// not seen by anybody else.
pub fn invalidate_guest(vttbr: u64) {
    with_vttbr(vttbr, || {
        instructions!("dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb");
    });
}

/// Drops `pages` pages of one VMID from `start` on: first the stage 2 entries, then, because combined entries of both
/// stages may have been cached, everything of stage 1 of that VMID. Interrupts are masked by the caller.
pub fn invalidate_guest_pages(vttbr: u64, start: Ipa, pages: u64) {
    with_vttbr(vttbr, || {
        instructions!("dsb ishst");
        for page in 0..pages {
            let operand = ((start.0 >> 12) + page) & 0xf_ffff_ffff;
            instructions!("tlbi ipas2e1is, {operand}", operand = operand);
        }
        instructions!("dsb ish", "tlbi vmalle1is", "dsb ish", "isb");
    });
}
