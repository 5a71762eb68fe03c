//! Confining a failure in any of a VM's threads to that VM.
//!
//! A thread of a VM that panics, faults or overflows its stack is abandoned: it stops where it is, with whatever it holds,
//! and its VM ends. That is safe if nothing outside of the VM can wait for it, or miss what it has: it holds no lock of the
//! kernel, it is not in an interrupt, it does no work of the kernel's ([`kernel_work`]), and the VM's interrupt controller,
//! which the scheduler enters on the VM's behalf, is not locked. Everything else is a failure of the hypervisor
//! (`panic`). See docs/design/012-compartments.md.

use super::{Compartment, Phase};
use crate::cpu;
use crate::thread::{self, Thread};
use core::fmt;
use core::sync::atomic::Ordering;
use vdev::Cause;
use vm::lifecycle::EndRecord;

/// Looks at a lock of the interrupt controller before it is taken to be held for good.
const LOOKS: usize = 10_000;

/// Whether the kernel's own memory is allocated here, and nothing is confined: see [`kernel_work`].
struct KernelWork(&'static Thread);

impl Drop for KernelWork {
    fn drop(&mut self) {
        self.0.kernel_work.set(self.0.kernel_work.get() - 1);
    }
}

/// Does, in a thread of a VM, something that outlives the VM or changes what others have: what is allocated is the kernel's,
/// and a failure is the hypervisor's.
pub(crate) fn kernel_work<R>(work: impl FnOnce() -> R) -> R {
    let thread = thread::current();
    thread.kernel_work.set(thread.kernel_work.get() + 1);
    let _working = KernelWork(thread);
    work()
}

/// The compartment in which this CPU works right now, if it does nothing for the kernel: where it allocates, and whose end a
/// failure is.
#[inline]
pub(crate) fn here() -> Option<&'static Compartment> {
    let cpu = cpu::this();
    // SAFETY: null, or the thread that runs here.
    let thread = unsafe { cpu.current.get().as_ref() }?;
    let confined = !cpu.in_interrupt.get() && !cpu.locks.are_kernel() && thread.kernel_work.get() == 0;
    thread.compartment().filter(|_| confined)
}

/// Something on this CPU has failed, and `what` says what. If it can be confined to a VM, the VM ends, and this does not
/// return.
pub(crate) fn confine(what: fmt::Arguments<'_>) {
    let Some(compartment) = here() else { return };
    let controller = || compartment.partition.get().is_none_or(|partition| partition.vm.gic.can_be_entered(LOOKS));
    if !controller() {
        return;
    }
    // Printing what was to be said may fail in turn; what fails once more is not to be confined.
    let again = match thread::current().deaths.replace(thread::current().deaths.get() + 1) {
        0 => false,
        1 => true,
        _ => return,
    };
    // Locks of the VM's own: nobody but the VM's threads waits for them, and those give up.
    cpu::this().locks.clear();
    let cause = match (compartment.phase(), compartment.out_of_memory.load(Ordering::Relaxed)) {
        (Phase::Building, _) => Cause::Fatal,
        (_, true) => Cause::FatalRunning,
        (_, false) => Cause::Unexpected,
    };
    let record = match again {
        false => EndRecord::new(cause, None, None, what),
        true => EndRecord::new(cause, None, None, format_args!("failed, and failed to say why")),
    };
    if let Some(device) = thread::current().device.get() {
        compartment.blamed.call_once(|| device);
    }
    compartment.end.call_once(|| record);
    compartment.failed.store(true, Ordering::SeqCst);
    compartment.qvm.notify();
    thread::abandon()
}

/// What a CPU does while it waits for a portable lock. A thread of a VM that has failed may wait for ever: it is given up.
pub(crate) fn wait() {
    el2::cpu::relax();
    if here().is_some_and(|compartment| compartment.failed.load(Ordering::Relaxed)) {
        el2::cpu::mask_interrupts();
        thread::abandon();
    }
}
