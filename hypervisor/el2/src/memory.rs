//! Copying to and from memory that a guest has as well.
//!
//! Answers for: copies that are fast, and right while the guest writes: Rust's own assume that nobody does, and are compiled for
//! memory that has to be accessed aligned, as all of it is before the MMU is on.

unsafe extern "C" {
    fn el2_copy(to: *mut u8, from: *const u8, length: usize);
    fn el2_copy_wide(to: *mut u8, from: *const u8, length: usize);
}

/// From so many bytes on a copy goes through vector registers, which have to be made free for it and synchronised with that.
const WIDE: usize = 2048;

/// Copies `length` bytes, each read once. What somebody else writes meanwhile arrives or does not, byte by byte.
///
/// # Safety
/// The MMU is on. Both ranges are mapped as Normal memory, `from` for reading and `to` for writing, and do not overlap. What is in `to`
/// and in Rust's hands is the caller's alone.
#[inline]
pub unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    // Where another thread may come in between it would find the registers in use.
    if length >= WIDE && crate::cpu::are_interrupts_masked() {
        // SAFETY: the caller's promise; nobody but us has the CPU before the registers are as they were.
        unsafe { el2_copy_wide(to, from, length) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { el2_copy(to, from, length) };
    }
}
