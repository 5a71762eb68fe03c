//! Memory in which every byte is what its address says.
//!
//! Answers for: which RAM is nobody's, filling it, and each byte of it that is not as it was filled. Does not answer for: who changed it.

use core::ops::Range;

use arrayvec::ArrayVec;

use crate::machine::Machine;

/// Bytes of the words that are looked at.
pub const WORD: u64 = 8;
const PAGE: u64 = 4096;

unsafe extern "C" {
    // Of the linker's script: where the image is, with its stacks.
    static __image_start: u8;
    static __image_end: u8;
}

/// All RAM, in whole pages, but for the image, the device tree and the initial RAM disk.
#[must_use]
pub fn spare(machine: &Machine) -> ArrayVec<Range<u64>, 12> {
    let image = (&raw const __image_start) as u64..(&raw const __image_end) as u64;
    let mut spare: ArrayVec<Range<u64>, 12> = machine.memory.iter().cloned().collect();
    for taken in [Some(image), Some(machine.tree.clone()), machine.initrd.clone()].into_iter().flatten() {
        let taken = taken.start & !(PAGE - 1)..taken.end.next_multiple_of(PAGE);
        let halves = |range: &Range<u64>| {
            let before = range.start..range.end.min(taken.start.max(range.start));
            let behind = range.start.max(taken.end.min(range.end))..range.end;
            [before, behind]
        };
        spare = spare.iter().flat_map(halves).filter(|range| !range.is_empty()).take(12).collect();
    }
    spare
}

/// What is in the word at `address`.
#[must_use]
pub const fn word(address: u64) -> u64 {
    (address ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0x5851_f42d_4c95_7f2d).rotate_right(23)
}

/// Fills it; `range` is whole words.
///
/// # Safety
///
/// RAM of which nothing else is used, as [`spare`] says.
pub unsafe fn fill(range: Range<u64>) {
    for address in range.step_by(WORD as usize) {
        // SAFETY: the caller's promise; RAM is mapped one to one.
        unsafe { (address as *mut u64).write_volatile(word(address)) };
    }
}

/// Looks at all of it, tells `changed` of each byte that is not as it was filled, by its address, its value and what it was, and makes it
/// that again. How many these were.
///
/// # Safety
///
/// As for [`fill`], which has been called for all of it.
pub unsafe fn check(range: Range<u64>, mut changed: impl FnMut(u64, u8, u8)) -> u64 {
    let mut count = 0;
    for address in range.step_by(WORD as usize) {
        // SAFETY: the caller's promise; RAM is mapped one to one.
        let found = unsafe { (address as *const u64).read_volatile() };
        let wanted = word(address);
        if found == wanted {
            continue;
        }
        for (at, (found, wanted)) in (address..).zip(found.to_le_bytes().into_iter().zip(wanted.to_le_bytes())) {
            if found != wanted {
                changed(at, found, wanted);
                count += 1;
            }
        }
        // SAFETY: as above.
        unsafe { (address as *mut u64).write_volatile(wanted) };
    }
    count
}
