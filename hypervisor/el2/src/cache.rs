//! Maintenance of the caches by address, to the point of coherency.
//!
//! DDI 0487, "Cache maintenance operations". Set/way operations are not used anywhere: they do not reach other CPUs'
//! caches or system caches.

use aarch64_cpu::asm::barrier;

/// Smallest data cache line in the system, in bytes: `CTR_EL0.DminLine`.
#[must_use]
#[inline]
pub fn line_size() -> usize {
    4 << ((read_register!("ctr_el0") >> 16) & 0xf)
}

/// Writes dirty lines back and drops them: for memory that others use with their caches off, and before memory that was
/// written with ours off is read with them on. There is no operation that only writes back: on a Cortex-A53 up to r0p2 it may
/// corrupt data (errata 819472, 824069, 826319, 827319), and what has been written back here is seldom read again.
///
/// # Safety
/// The range is mapped as Normal memory and belongs to the caller.
pub unsafe fn clean_and_invalidate(start: usize, length: usize) {
    let line = line_size();
    let end = start.saturating_add(length);
    let mut at = start & !(line - 1);
    while at < end {
        instructions!("dc civac, {at}", at = at);
        at = at.saturating_add(line);
    }
    barrier::dsb(barrier::SY);
}

/// The same for a word, which is in one line.
///
/// # Safety
/// As there; it is aligned.
#[inline]
pub unsafe fn clean_and_invalidate_word(at: usize) {
    instructions!("dc civac, {at}", at = at);
    barrier::dsb(barrier::SY);
}

/// Zeroes memory and cleans it to the point of coherency, so that a guest whose caches are off sees the zeroes as well.
///
/// Line by line, so that a line is written back while it is at hand; this is most of what a VM's start costs.
///
/// # Safety
/// The range is mapped as Normal Write-Back memory, page aligned, and belongs to the caller alone.
pub unsafe fn zero_and_clean(start: usize, length: usize) {
    let dczid = read_register!("dczid_el0");
    let block = 4usize << (dczid & 0xf);
    if dczid & 0x10 != 0 || block != line_size() || block > types::PAGE_SIZE as usize / 32 {
        // SAFETY: the caller's promise.
        unsafe { core::ptr::write_bytes(start as *mut u8, 0, length) };
        // SAFETY: the caller's promise.
        unsafe { clean_and_invalidate(start, length) };
        return;
    }
    if length != 0 {
        // SAFETY: the blocks lie within the caller's memory: start and length are multiples of a page, and that of 32
        // blocks.
        unsafe {
            core::arch::asm!(
                "2:",
                ".rept 32",
                "dc zva, {at}",
                "dc civac, {at}",
                "add {at}, {at}, {block}",
                ".endr",
                "cmp {at}, {end}",
                "b.lo 2b",
                at = inout(reg) start => _, block = in(reg) block, end = in(reg) start.saturating_add(length),
                options(nostack)
            );
        }
    }
    barrier::dsb(barrier::SY);
}

/// Makes instructions that were just written visible to instruction fetches of all CPUs.
pub fn invalidate_instructions() {
    // SAFETY: instruction caches hold nothing that cannot be fetched again.
    unsafe {
        core::arch::asm!("dsb ish", "ic ialluis", "dsb ish", "isb", options(nostack, preserves_flags));
    }
}
