//! What a guest gets for what is not there: the `unsupported` policy of its configuration.
//!
//! Answers for: the three types of the original (`reference`, `instruction`, `register`), each with `abort`, `fail` or
//! `ignore`, and the log line. Does not answer for: recognising the case.

use super::syndrome::{DataAbort, Syndrome, SysregAccess, fault, fault_ipa};
use super::{emulate, inject};
use crate::partition::Vm;
use crate::policy::Action;
use crate::vcpu::{Cpu, Next, Vcpu};
use core::fmt;
use types::{AccessSize, Ipa, RawExit};
use vdev::{Cause, Effects};

/// A load or store that nobody answers. Ignored, a store vanishes, and a load reads ones: `Ok`.
#[cold]
pub(super) fn reference<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    (at, size): (Ipa, AccessSize),
    why: impl fmt::Display,
    cpu: &mut C,
    effects: &mut Effects,
) -> Result<u64, Next> {
    let kind = if DataAbort(Syndrome(exit.esr)).is_write() { "store" } else { "load" };
    let bytes = size.bytes();
    log::warn!(target: vm.origin(), "{kind} of {bytes} bytes at {at}: {why} ({}, pc {:#x})", vcpu.id, vcpu.context.pc);
    match vm.policy.reference {
        Action::Ignore => Ok(u64::MAX),
        Action::Fail => Err(inject::external_data_abort(vm, vcpu, cpu, exit)),
        Action::Abort => {
            let what = format_args!("{kind} of {bytes} bytes at {at}: {why}");
            Err(vm.stop(vcpu, effects, Cause::Unsupported, what))
        }
    }
}

/// A store to ROM. The hardware does not say the address in guest-physical terms, only the virtual one. Ignored, it
/// vanishes.
#[cold]
pub(super) fn store_to_rom<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    abort: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let at = exit.far;
    log::warn!(target: vm.origin(), "store to ROM at virtual {at:#x} ({}, pc {:#x})", vcpu.id, vcpu.context.pc);
    match vm.policy.reference {
        Action::Ignore if abort.is_described() => {
            vcpu.context.step(abort.0.instruction_length());
            Next::Resume
        }
        // What it writes back to its base register is not lost with what it stores.
        Action::Ignore => emulate::ignored_store(vm, vcpu, exit, abort, cpu, effects),
        Action::Fail => inject::external_data_abort(vm, vcpu, cpu, exit),
        Action::Abort => vm.stop(vcpu, effects, Cause::Unsupported, format_args!("store to ROM at virtual {at:#x}")),
    }
}

/// A load or store outside memory by an instruction that cannot be emulated, `word` if it could be read: exclusives and
/// atomics, structures of vectors, DC ZVA, what crosses a page, all of AArch32. Failing is the abort with the status
/// `status`: the instruction exists, the access does not work.
#[cold]
pub(super) fn instruction<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    (word, status): (Option<u32>, u64),
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let (at, word) = (exit.far, word.unwrap_or(0));
    log::warn!(
        target: vm.origin(),
        "access at virtual {at:#x} outside memory by an instruction that is not emulated ({word:#010x}, {}, pc {:#x})",
        vcpu.id,
        vcpu.context.pc
    );
    match vm.policy.instruction {
        Action::Ignore => {
            vcpu.context.step(Syndrome(exit.esr).instruction_length());
            Next::Resume
        }
        Action::Fail => inject::data_abort(vm, vcpu, cpu, exit, status),
        Action::Abort => {
            let what = format_args!("access at virtual {at:#x} by an instruction that is not emulated ({word:#010x})");
            vm.stop(vcpu, effects, Cause::Unsupported, what)
        }
    }
}

/// A system register or instruction that this machine does not have. Ignored, it reads as zero.
#[cold]
pub(super) fn register<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    access: SysregAccess,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let (op0, op1, crn, crm, op2) = access.encoding();
    let kind = if access.is_read() { "read" } else { "write" };
    log::warn!(
        target: vm.origin(),
        "{kind} of unknown register S{op0}_{op1}_C{crn}_C{crm}_{op2} ({}, pc {:#x})",
        vcpu.id,
        vcpu.context.pc
    );
    match vm.policy.register {
        Action::Ignore => {
            if access.is_read() {
                vcpu.context.set_register(access.register(), 0);
            }
            vcpu.context.step(4);
            Next::Resume
        }
        Action::Fail => inject::undefined(vm, vcpu, cpu),
        Action::Abort => {
            let what = format_args!("{kind} of unknown register S{op0}_{op1}_C{crn}_C{crm}_{op2}");
            vm.stop(vcpu, effects, Cause::Unsupported, what)
        }
    }
}

/// An instruction fetch from where there is no memory. There is nothing that could be ignored: `ignore` is `fail`.
#[cold]
pub(super) fn fetch<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, exit: &RawExit, cpu: &mut C, effects: &mut Effects) -> Next {
    let at = fault_ipa(exit);
    let pc = vcpu.context.pc;
    log::warn!(target: vm.origin(), "instruction fetch at {at}: no memory there ({}, pc {pc:#x})", vcpu.id);
    match vm.policy.reference {
        Action::Ignore | Action::Fail => inject::instruction_abort(vm, vcpu, cpu, exit, fault::EXTERNAL),
        Action::Abort => {
            vm.stop(vcpu, effects, Cause::Unsupported, format_args!("instruction fetch at {at}: no memory there"))
        }
    }
}
