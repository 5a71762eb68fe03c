//! Failures on command, for images that test what is left of the machine afterwards. No product image calls this.

use crate::sync::{Lock, Rank};

/// An EL2 data abort: reads where nothing is mapped.
pub fn data_abort() {
    // The last page of the lower half: no machine has RAM or devices there, and no stack or heap is above.
    let nowhere = core::hint::black_box((1_u64 << 47) - 8) as *const u64;
    // SAFETY: it is not mapped, so nothing is read: the exception is what is wanted.
    core::hint::black_box(unsafe { nowhere.read_volatile() });
}

/// A failure of the hypervisor itself: a panic with a lock of the kernel held.
pub fn failure() {
    static HELD: Lock<()> = Lock::new(Rank::Frames, ());
    let _held = HELD.lock();
    panic!("the hypervisor was told to fail");
}
