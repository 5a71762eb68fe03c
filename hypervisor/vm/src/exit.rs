//! The exits of a guest: one `match`, one call for each kind.
//!
//! Answers for: what a guest gets for each reason to leave it (hypervisor/README.md, "The life of a guest exit"). Does not
//! answer for: entering it, physical interrupts, loading and saving it (the kernel's). Every exit has an answer: what
//! nobody understands is the guest's problem, and it gets what the architecture says, subject to the VM's `unsupported`
//! policy.
//! What happens rarely is out of line, so that a hypercall does not pay for what others need saved.

mod abort;
mod call;
pub(crate) mod debug;
pub mod decode;
mod emulate;
mod inject;
pub mod instruction;
mod its;
mod mmio;
mod shadow;
pub mod syndrome;
mod sysreg;
mod timers;
mod unsupported;
mod walk;
mod wfx;

use crate::partition::Vm;
use crate::vcpu::{Cpu, Next, Reason, Vcpu};
use decode::{Exit, Rare};
use types::RawExit;
use vdev::Effects;

/// Handles one exit of `vcpu`, which is loaded on `cpu`. What others have to do is added to `effects`.
#[inline(always)]
pub fn handle<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, exit: &RawExit, cpu: &mut C, effects: &mut Effects) -> Next {
    match Exit::decode(exit) {
        Exit::Mmio(access) => {
            vcpu.count(Reason::Mmio);
            mmio::handle(vm, vcpu, exit, access, cpu, effects)
        }
        Exit::Store(access) => shadow::described_store(vm, vcpu, exit, access, cpu, effects),
        Exit::Call(call) => {
            vcpu.count(Reason::Call);
            call::handle(vm, vcpu, call, cpu, effects)
        }
        Exit::Irq => {
            vcpu.count(Reason::Interrupt);
            Next::HostInterrupt
        }
        Exit::Sysreg(access) => {
            vcpu.count(Reason::Sysreg);
            sysreg::handle(vm, vcpu, access, cpu, effects)
        }
        Exit::Wfx(wfx) => {
            vcpu.count(Reason::Wait);
            wfx::handle(vm, vcpu, wfx)
        }
        Exit::Rare(rare) => handle_rare(vm, vcpu, exit, rare, cpu, effects),
    }
}

#[inline(never)]
fn handle_rare<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    rare: Rare,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    vcpu.count(match rare {
        Rare::DataAbort(_) | Rare::InstructionAbort(_) => Reason::Abort,
        Rare::SystemError(_) => Reason::SystemError,
        Rare::Debug(_) | Rare::IllegalState | Rare::Undefined => Reason::Undefined,
    });
    match rare {
        Rare::DataAbort(abort) => abort::data(vm, vcpu, exit, abort, cpu, effects),
        Rare::InstructionAbort(syndrome) => abort::instruction(vm, vcpu, exit, syndrome, cpu, effects),
        Rare::SystemError(syndrome) => abort::system_error(vm, vcpu, syndrome, effects),
        Rare::Debug(syndrome) => inject::debug(vm, vcpu, cpu, syndrome, exit.far),
        Rare::IllegalState => inject::illegal_state(vm, vcpu, cpu),
        Rare::Undefined => inject::undefined(vm, vcpu, cpu),
    }
}

#[cfg(test)]
mod tests;
