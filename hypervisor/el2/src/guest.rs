//! Entering a guest.

use types::{RawExit, RawExitKind, VcpuContext};

unsafe extern "C" {
    fn el2_enter_guest(context: *mut VcpuContext, exit: *mut RawExit);
}

/// Runs the guest until it exits. The only way in.
///
/// # Safety
/// Interrupts are masked, and the rest of this vCPU's state is in the CPU: its EL1 registers, its stage 2, its list
/// registers, HCR_EL2 and the other controls.
#[inline]
pub unsafe fn enter_guest(context: &mut VcpuContext) -> RawExit {
    let mut exit = core::mem::MaybeUninit::<RawExit>::uninit();
    // SAFETY: both pointers are valid for writes; the rest is the caller's promise.
    unsafe {
        el2_enter_guest(context, exit.as_mut_ptr());
    }
    const { assert!(RawExitKind::SError as u64 == 3) };
    // SAFETY: written in full on every exit.
    unsafe { exit.assume_init() }
}
