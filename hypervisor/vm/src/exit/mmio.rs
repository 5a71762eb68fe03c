//! Device accesses that the syndrome describes.
//!
//! Answers for: finding who answers an address (interrupt controller, then bus), moving the value between register and
//! device, stepping the PC. Does not answer for: what is at an address that nobody answers (`unsupported`).

use super::syndrome::DataAbort;
use super::{inject, unsupported};
use crate::partition::{GicWindow, Vm};
use crate::vcpu::{Cpu, Next, Vcpu};
use types::{Ipa, RawExit, Ticks};
use vdev::{AccessFault, Cause, Effects};
use vgic::ListRegisters;

#[inline]
pub(super) fn handle<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    access: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let at = access.ipa(exit);
    // Four functions of their own, so that none saves registers for another.
    let result = match (vm.gic_window(at), access.is_write()) {
        (None, false) => load(vm, vcpu, at, access, cpu.counter(), effects),
        (None, true) => store(vm, vcpu, at, access, cpu.counter(), effects),
        (Some(window), false) => {
            gic_load(vm, vcpu, window, access, cpu.list_registers(), effects);
            return Next::Resume;
        }
        (Some(window), true) => {
            gic_store(vm, vcpu, window, access, effects);
            return Next::Resume;
        }
    };
    match (result, effects.stop) {
        (Ok(()), None) => Next::Resume,
        (Ok(()), Some(cause)) => ended_by_device(vm, vcpu, cause, effects),
        (Err(fault), _) => no_answer(vm, vcpu, exit, access, fault, cpu, effects),
    }
}

#[inline(never)]
fn load(
    vm: &Vm,
    vcpu: &mut Vcpu,
    at: Ipa,
    access: DataAbort,
    now: Ticks,
    effects: &mut Effects,
) -> Result<(), AccessFault> {
    let value = vm.bus.read(at, access.size(), &vm.services(now), effects)?;
    complete_load(vcpu, access, value);
    Ok(())
}

#[inline(never)]
fn store(
    vm: &Vm,
    vcpu: &mut Vcpu,
    at: Ipa,
    access: DataAbort,
    now: Ticks,
    effects: &mut Effects,
) -> Result<(), AccessFault> {
    let value = vcpu.context.register(access.register());
    vm.bus.write(at, access.size(), value, &vm.services(now), effects)?;
    vcpu.context.step(access.0.instruction_length());
    Ok(())
}

#[inline(never)]
fn gic_load(
    vm: &Vm,
    vcpu: &mut Vcpu,
    window: GicWindow,
    access: DataAbort,
    registers: &mut impl ListRegisters,
    effects: &mut Effects,
) {
    let size = access.size();
    let (value, kick) = match window {
        GicWindow::Distributor(offset) => vm.gic.observe_distributor(vcpu.id, registers, offset, size),
        GicWindow::Redistributors(offset) => vm.gic.observe_redistributor(vcpu.id, registers, offset, size),
    };
    if !kick.is_empty() {
        effects.kick = effects.kick.union(kick);
    }
    complete_load(vcpu, access, value);
}

#[inline(never)]
fn gic_store(vm: &Vm, vcpu: &mut Vcpu, window: GicWindow, access: DataAbort, effects: &mut Effects) {
    let size = access.size();
    let value = vcpu.context.register(access.register()) & size.mask();
    let kick = match window {
        GicWindow::Distributor(offset) => vm.gic.write_distributor(offset, size, value),
        GicWindow::Redistributors(offset) => vm.gic.write_redistributor(offset, size, value),
    };
    effects.kick = effects.kick.union(kick);
    vcpu.context.step(access.0.instruction_length());
}

#[inline]
fn complete_load(vcpu: &mut Vcpu, access: DataAbort, value: u64) {
    vcpu.context.set_register(access.register(), access.loaded(value));
    vcpu.context.step(access.0.instruction_length());
}

#[cold]
fn no_answer<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    access: DataAbort,
    fault: AccessFault,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    match fault {
        // The device's own answer, not a gap: no policy applies.
        AccessFault::Bus => inject::external_data_abort(vm, vcpu, cpu, exit),
        _ => unsupported::reference(vm, vcpu, exit, access, fault, cpu, effects),
    }
}

#[cold]
fn ended_by_device(vm: &Vm, vcpu: &Vcpu, cause: Cause, effects: &mut Effects) -> Next {
    vm.stop(vcpu, effects, cause, format_args!("a device ended the VM"))
}
