//! The words every other crate uses.
//!
//! Answers for: addresses and ranges of the address spaces a hypervisor handles, identifiers, time, access sizes,
//! the frame that an exit saves and the raw syndrome that comes with it. Does not answer for: behaviour. Nothing here
//! decides anything.
//!
//! Names and formats follow the Arm Architecture Reference Manual for A-profile (DDI 0487).

#![no_std]
#![forbid(unsafe_code)]

mod access;
mod address;
mod context;
mod debug;
mod id;
mod sort;
mod time;

pub use access::AccessSize;
pub use address::{Address, Ipa, PAGE_SIZE, Pa, Range, Va};
pub use context::{EL1_RESET_PSTATE, Pstate, RawExit, RawExitKind, VcpuContext};
pub use debug::{Comparator, DebugState, MAX_COMPARATORS};
pub use id::{CpuId, CpuSet, IntId, MAX_CPUS, MAX_VCPUS, Mpidr, RequesterId, VcpuId, VcpuSet, VmId};
pub use sort::sort_by;
pub use time::{Frequency, Ticks};

/// The lock of the portable crates: a spin lock without policy.
///
/// Every holder runs with interrupts masked (guest exits always do; host threads enter portable code through the
/// kernel's gate, which masks them), so a holder is never preempted by another that spins on the same CPU.
///
/// The order in which portable locks may nest is: device (`vdev::Bus`) → what it shares
/// with its workers (`vdev::Shared`), or a function's interrupts (`pci::Interrupts`) → interrupt controller (`vgic`: one vCPU's or the
/// ITS's, then the shared one) → back end (`host::console`) → log (`host::log`). A kernel lock may be held around portable code (`kernel::sync`
/// says where); while a portable lock is held, no kernel lock but the allocator's is taken, and that
/// of the guest's memory.
pub type Lock<T> = spin::mutex::SpinMutex<T, Waiting>;

/// What a CPU does while somebody else holds the [`Lock`] that it wants.
#[derive(Debug)]
pub struct Waiting;

static WAIT: spin::Once<fn()> = spin::Once::new();

impl Waiting {
    /// From now on `wait` is called again and again by whoever waits. It may never return: then the lock is not waited for
    /// any more. The kernel gives up a thread this way whose VM has failed with the lock held.
    pub fn set(wait: fn()) {
        WAIT.call_once(|| wait);
    }
}

impl spin::RelaxStrategy for Waiting {
    #[inline(never)]
    #[cold]
    fn relax() {
        match WAIT.get() {
            Some(wait) => wait(),
            None => core::hint::spin_loop(),
        }
    }
}
