//! What a guest gets for what is not there: the `unsupported` policy of its configuration.
//!
//! Answers for: the three types of the original (`reference`, `instruction`, `register`), each with `abort`, `fail` or
//! `ignore`, and the log line. Does not answer for: recognising the case.

use super::inject;
use super::syndrome::{DataAbort, SysregAccess, fault, fault_ipa};
use crate::partition::Vm;
use crate::policy::Action;
use crate::vcpu::{Cpu, Next, Vcpu};
use core::fmt;
use types::RawExit;
use vdev::{Cause, Effects};

/// A described load or store that nobody answers. Ignored, a load reads ones and a store vanishes.
#[cold]
pub(super) fn reference<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    access: DataAbort,
    why: impl fmt::Display,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let kind = if access.is_write() { "store" } else { "load" };
    let (bytes, at) = (access.size().bytes(), access.ipa(exit));
    log::warn!(target: vm.origin(), "{kind} of {bytes} bytes at {at}: {why} ({}, pc {:#x})", vcpu.id, vcpu.context.pc);
    match vm.policy.reference {
        Action::Ignore => {
            if !access.is_write() {
                vcpu.context.set_register(access.register(), access.loaded(u64::MAX));
            }
            vcpu.context.step(access.0.instruction_length());
            Next::Resume
        }
        Action::Fail => inject::external_data_abort(vm, vcpu, cpu, exit),
        Action::Abort => {
            let what = format_args!("{kind} of {bytes} bytes at {at}: {why}");
            vm.stop(vcpu, effects, Cause::Unsupported, what)
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
        // A store with writeback has a second effect that would be lost: not so simple.
        Action::Ignore if abort.is_described() => {
            vcpu.context.step(abort.0.instruction_length());
            Next::Resume
        }
        Action::Ignore => instruction(vm, vcpu, exit, abort, cpu, effects),
        Action::Fail => inject::external_data_abort(vm, vcpu, cpu, exit),
        Action::Abort => vm.stop(vcpu, effects, Cause::Unsupported, format_args!("store to ROM at virtual {at:#x}")),
    }
}

/// A load or store outside memory by an instruction that the syndrome does not describe: pairs, vectors, writeback,
/// atomics. Emulating it is what is not supported. Failing is an external abort: the instruction exists, the access does
/// not work.
#[cold]
pub(super) fn instruction<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    abort: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let at = exit.far;
    log::warn!(
        target: vm.origin(),
        "access at virtual {at:#x} outside memory by an instruction that is not emulated ({}, pc {:#x})",
        vcpu.id,
        vcpu.context.pc
    );
    match vm.policy.instruction {
        Action::Ignore => {
            vcpu.context.step(abort.0.instruction_length());
            Next::Resume
        }
        Action::Fail => inject::external_data_abort(vm, vcpu, cpu, exit),
        Action::Abort => {
            let what = format_args!("access at virtual {at:#x} by an instruction that is not emulated");
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
