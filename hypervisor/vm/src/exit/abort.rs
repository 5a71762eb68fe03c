//! Aborts that are not simply a device access.
//!
//! Answers for: stage 2 data aborts that the syndrome does not describe or that are no translation faults, instruction
//! aborts, SErrors (DDI 0487, "ISS encoding for an exception from a Data Abort", "… from an Instruction Abort", "… an
//! SError interrupt"), memory that comes back. Does not answer for: described accesses (`mmio`), those that only the instruction describes
//! (`emulate`), stores to registers that the guest reads without an exit (`shadow`), nor for the policy (`unsupported`).

use super::syndrome::{DataAbort, Syndrome, fault, fault_ipa};
use super::{emulate, inject, shadow, unsupported, walk};
use crate::partition::Vm;
use crate::vcpu::{Cpu, El1Register, Next, Vcpu};
use types::{Pstate, RawExit};
use vdev::{Cause, Effects};

#[inline(never)]
pub(super) fn data<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    abort: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    if let Some(next) = recall(vm, vcpu, exit, abort.0, effects) {
        return next;
    }
    if abort.0.on_stage_1_walk() {
        // The guest's own tables are where there is no memory (or ROM, and hardware was to set a flag in them).
        let level = walk::level_of_fault(vm, cpu, exit);
        return inject::data_abort(vm, vcpu, cpu, exit, fault::EXTERNAL_ON_WALK | level);
    }
    let permission = abort.0.is_fault(fault::PERMISSION);
    let translation = abort.0.is_fault(fault::TRANSLATION);
    if abort.is_cache_maintenance() && (permission || translation) {
        // There is nothing in a cache of what is not memory, and nothing of the guest's in one of ROM.
        vcpu.context.step(4);
        return Next::Resume;
    }
    if let Some(next) = shadow::store(vm, vcpu, exit, abort, cpu, effects) {
        return next;
    }
    if permission {
        return unsupported::store_to_rom(vm, vcpu, exit, abort, cpu, effects);
    }
    if translation {
        return emulate::transfer(vm, vcpu, exit, abort, cpu, effects);
    }
    match abort.0.fault_status() {
        // An exclusive or atomic access to memory of a type that cannot do it: the code is the guest's to see.
        code @ fault::UNSUPPORTED_EXCLUSIVE_OR_ATOMIC => inject::data_abort(vm, vcpu, cpu, exit, code),
        // External aborts and parity errors of the real memory; address size, access flag, alignment and TLB conflict
        // faults at stage 2, which it gives no cause for.
        code => {
            log::warn!(target: vm.origin(), "data abort with status {code:#x} ({}, pc {:#x})", vcpu.id, vcpu.context.pc);
            inject::external_data_abort(vm, vcpu, cpu, exit)
        }
    }
}

#[inline(never)]
pub(super) fn instruction<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    syndrome: Syndrome,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    if let Some(next) = recall(vm, vcpu, exit, syndrome, effects) {
        return next;
    }
    if let Some(next) = hopeless(vm, vcpu, cpu, effects) {
        return next;
    }
    if syndrome.on_stage_1_walk() {
        let level = walk::level_of_fault(vm, cpu, exit);
        return inject::instruction_abort(vm, vcpu, cpu, exit, fault::EXTERNAL_ON_WALK | level);
    }
    if let Some(exit) = shadow::as_if_unmapped(vm, exit, syndrome, cpu) {
        return unsupported::fetch(vm, vcpu, &exit, cpu, effects);
    }
    if !syndrome.is_fault(fault::TRANSLATION) {
        // What the real memory answered.
        let status = syndrome.fault_status();
        log::warn!(target: vm.origin(), "fetch abort with status {status:#x} ({}, pc {:#x})", vcpu.id, vcpu.context.pc);
        return inject::instruction_abort(vm, vcpu, cpu, exit, fault::EXTERNAL);
    }
    unsupported::fetch(vm, vcpu, exit, cpu, effects)
}

/// A page that the guest has given back comes back when it is touched, if the host has one; the guest tries again then. `None` if that
/// is not why it faults.
#[cold]
pub(super) fn recall(vm: &Vm, vcpu: &Vcpu, exit: &RawExit, syndrome: Syndrome, effects: &mut Effects) -> Option<Next> {
    if !syndrome.is_fault(fault::TRANSLATION) {
        return None;
    }
    let at = fault_ipa(exit);
    match vm.memory().recall(at) {
        Ok(false) => None,
        Ok(true) => Some(Next::Resume),
        Err(_) => {
            let what = format_args!("no memory for {at}, which the guest had given back");
            Some(vm.stop(vcpu, effects, Cause::FatalRunning, what))
        }
    }
}

/// A guest whose exception vector cannot be fetched takes the abort of that fetch at the very same vector, for ever. It
/// cannot get out of this by itself: the VM ends. This is what becomes of a guest that jumps to nowhere before it has set
/// up its vectors.
fn hopeless<C: Cpu>(vm: &Vm, vcpu: &Vcpu, cpu: &C, effects: &mut Effects) -> Option<Next> {
    let vector = inject::vector(cpu.system_register(El1Register::Vbar), vcpu.context.pstate);
    // On SP_EL0 the vector differs from where the next one goes, so there is one more round to take.
    if vcpu.context.pstate & Pstate::MODE != Pstate::EL1H || vcpu.context.pc != vector {
        return None;
    }
    let register = |register| cpu.system_register(register);
    let what = format_args!(
        "no memory at the exception vector {vector:#x}; ELR_EL1 {:#x}, ESR_EL1 {:#x}, FAR_EL1 {:#x}, LR {:#x}",
        register(El1Register::Elr),
        register(El1Register::Esr),
        register(El1Register::Far),
        vcpu.context.register(30),
    );
    Some(vm.stop(vcpu, effects, Cause::Unsupported, what))
}

/// An SError while the guest ran. Without RAS nothing says what it was; with RAS (`DFSC` 0b010001) `AET` says how bad:
/// a corrected one is only noted. Everything else ends this VM, the nearest compartment to where it happened.
#[inline(never)]
pub(super) fn system_error(vm: &Vm, vcpu: &mut Vcpu, syndrome: Syndrome, effects: &mut Effects) -> Next {
    const IMPLEMENTATION_DEFINED: u64 = 1 << 24;
    const ASYNCHRONOUS: u64 = 0b01_0001;
    const AET_SHIFT: u32 = 10;
    const AET_CORRECTED: u64 = 0b110;
    let iss = syndrome.iss();
    let described = iss & IMPLEMENTATION_DEFINED == 0 && syndrome.fault_status() == ASYNCHRONOUS;
    if described && (iss >> AET_SHIFT) & 7 == AET_CORRECTED {
        log::warn!(target: vm.origin(), "corrected memory error (SError, syndrome {:#x})", syndrome.0);
        return Next::Resume;
    }
    vm.stop(vcpu, effects, Cause::Unexpected, format_args!("SError, syndrome {:#x}", syndrome.0))
}
