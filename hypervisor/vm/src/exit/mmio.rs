//! Device accesses that the syndrome describes.
//!
//! Answers for: finding who answers an address (interrupt controller, then bus), moving the value between register and
//! device, stepping the PC. Does not answer for: what is at an address that nobody answers (`unsupported`).

use super::syndrome::DataAbort;
use super::{inject, unsupported};
use crate::partition::{GicWindow, Vm};
use crate::vcpu::{Cpu, Next, Vcpu};
use types::{Ipa, RawExit};
use vdev::{AccessFault, Cause, Effects};

#[inline(never)]
pub(super) fn handle<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    access: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let at = access.ipa(exit);
    if access.is_write() {
        let value = vcpu.context.register(access.register());
        match write(vm, at, access, value, cpu, effects) {
            Ok(()) => {}
            Err(fault) => return no_answer(vm, vcpu, exit, access, fault, cpu, effects),
        }
    } else {
        match read(vm, vcpu, at, access, cpu, effects) {
            Ok(value) => vcpu.context.set_register(access.register(), access.loaded(value)),
            Err(fault) => return no_answer(vm, vcpu, exit, access, fault, cpu, effects),
        }
    }
    vcpu.context.step(access.0.instruction_length());
    match effects.stop {
        None => Next::Resume,
        Some(cause) => ended_by_device(vm, vcpu, cause, effects),
    }
}

#[inline]
fn read<C: Cpu>(
    vm: &Vm,
    vcpu: &Vcpu,
    at: Ipa,
    access: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Result<u64, AccessFault> {
    let size = access.size();
    let (value, kick) = match vm.gic_window(at) {
        Some(GicWindow::Distributor(offset)) => vm.gic.observe_distributor(vcpu.id, cpu.list_registers(), offset, size),
        Some(GicWindow::Redistributors(offset)) => {
            vm.gic.observe_redistributor(vcpu.id, cpu.list_registers(), offset, size)
        }
        None => return vm.bus.read(at, size, &vm.services(cpu.counter()), effects),
    };
    effects.kick = effects.kick.union(kick);
    Ok(value)
}

#[inline]
fn write<C: Cpu>(
    vm: &Vm,
    at: Ipa,
    access: DataAbort,
    value: u64,
    cpu: &C,
    effects: &mut Effects,
) -> Result<(), AccessFault> {
    let size = access.size();
    let value = value & size.mask();
    let kick = match vm.gic_window(at) {
        Some(GicWindow::Distributor(offset)) => vm.gic.write_distributor(offset, size, value),
        Some(GicWindow::Redistributors(offset)) => vm.gic.write_redistributor(offset, size, value),
        None => return vm.bus.write(at, size, value, &vm.services(cpu.counter()), effects),
    };
    effects.kick = effects.kick.union(kick);
    Ok(())
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
