//! Device accesses that the syndrome describes.
//!
//! Answers for: finding who answers an address (bus, then interrupt controller), moving the value between register and
//! device, stepping the PC. Does not answer for: what is at an address that nobody answers (`unsupported`).

use super::syndrome::DataAbort;
use super::{abort, inject, its, unsupported};
use crate::partition::Vm;
use crate::timer::virtual_timer_asserted;
use crate::vcpu::{Cpu, El1Register, Next, Vcpu};
use types::{AccessSize, IntId, Ipa, RawExit, Ticks, VcpuId, VcpuSet};
use vdev::{AccessFault, Effects, Target};
use vgic::{Version, Vgic};

#[inline(always)]
pub(super) fn handle<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    access: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let at = access.ipa(exit);
    let result = match vm.bus.find(at, access.size()) {
        Ok(target) if access.is_write() => store(vm, vcpu, target, access, cpu.counter(), effects),
        Ok(target) => load(vm, vcpu, target, access, cpu.counter(), effects),
        Err(AccessFault::Nothing) => interrupt_controller(vm, vcpu, at, access, cpu, effects),
        Err(fault) => Err(fault),
    };
    match result {
        Ok(()) if effects.none() || !effects.may_end() => Next::Resume,
        Ok(()) => after_device(vm, vcpu, at, effects),
        Err(fault) => no_answer(vm, vcpu, exit, access, fault, cpu, effects),
    }
}

/// The store of an exit to a register at `at`, which is `target`.
#[inline(always)]
pub(super) fn complete_store<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    (exit, at): (&RawExit, Ipa),
    target: Target<'_>,
    access: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    match store(vm, vcpu, target, access, cpu.counter(), effects) {
        Ok(()) if effects.none() || !effects.may_end() => Next::Resume,
        Ok(()) => after_device(vm, vcpu, at, effects),
        Err(fault) => no_answer(vm, vcpu, exit, access, fault, cpu, effects),
    }
}

// What loads is inlined into the run loop, where no registers have to be saved for it; stores are not, most of them go on
// to do more than that costs.

#[inline(always)]
fn load(
    vm: &Vm,
    vcpu: &mut Vcpu,
    target: Target<'_>,
    access: DataAbort,
    now: Ticks,
    effects: &mut Effects,
) -> Result<(), AccessFault> {
    let value = target.read(&vm.services(now), effects)?;
    complete_load(vcpu, access, value);
    Ok(())
}

#[inline(never)]
fn store(
    vm: &Vm,
    vcpu: &mut Vcpu,
    target: Target<'_>,
    access: DataAbort,
    now: Ticks,
    effects: &mut Effects,
) -> Result<(), AccessFault> {
    target.write(vcpu.context.register(access.register()), &vm.services(now), effects)?;
    vcpu.context.step(access.0.instruction_length());
    Ok(())
}

#[inline(always)]
fn complete_load(vcpu: &mut Vcpu, access: DataAbort, value: u64) {
    vcpu.context.set_register(access.register(), access.loaded(value));
    vcpu.context.step(access.0.instruction_length());
}

/// The interrupt controller's registers, if that is what `at` is.
#[inline(always)]
fn interrupt_controller<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    at: Ipa,
    access: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Result<(), AccessFault> {
    let kick = match (vm.in_distributor(at), access.is_write()) {
        (Some(offset), true) if vm.gic.is_sgi_register(offset, access.size()) => {
            let kick = vm.gic.generate_sgi(vcpu.id, stored(vcpu, access));
            vcpu.context.step(access.0.instruction_length());
            kick
        }
        (Some(offset), true) => distributor_store(vm, vcpu, offset, access, cpu),
        (Some(offset), false) => {
            if vm.gic.version() == Version::V2 {
                before_banked(vm, vcpu.id, offset, cpu);
            }
            let registers = cpu.list_registers();
            let (value, kick) = vm.gic.observe_distributor(vcpu.id, registers, offset, access.size());
            complete_load(vcpu, access, value);
            kick
        }
        (None, is_write) => {
            let Some(offset) = vm.in_interface(at) else {
                return in_window(vm, vcpu, at, access, cpu.counter(), effects);
            };
            if vm.gic.version() == Version::V2 {
                effects.kick(cpu_interface(vm, vcpu, offset, access, cpu));
                return Ok(());
            }
            if shows_or_enables(offset) {
                take_back_timer(vm, vcpu.id, cpu);
            }
            if is_write {
                redistributor_store(vm, vcpu, offset, access, effects)
            } else {
                let registers = cpu.list_registers();
                let (value, kick) = vm.gic.observe_redistributor(vcpu.id, registers, offset, access.size());
                complete_load(vcpu, access, value);
                kick
            }
        }
    };
    effects.kick(kick);
    Ok(())
}

/// The frame for messages, the ITS, or the window of a device, if `at` is in one.
#[cold]
#[inline(never)]
fn in_window(
    vm: &Vm,
    vcpu: &mut Vcpu,
    at: Ipa,
    access: DataAbort,
    now: Ticks,
    effects: &mut Effects,
) -> Result<(), AccessFault> {
    if let Some((frame, offset)) = vm.gic.message_frame(at) {
        if access.is_write() {
            effects.kick(frame.write(&vm.gic, offset, access.size(), stored(vcpu, access)));
            vcpu.context.step(access.0.instruction_length());
        } else {
            complete_load(vcpu, access, frame.read(offset, access.size()));
        }
        return Ok(());
    }
    if let Some(offset) = vm.gic.in_its(at) {
        let store = access.is_write().then(|| stored(vcpu, access));
        let loaded = its::access(vm, offset, access.size(), store, effects);
        match store {
            Some(_) => vcpu.context.step(access.0.instruction_length()),
            None => complete_load(vcpu, access, loaded),
        }
        return Ok(());
    }
    let target = vm.bus.find_in_windows(at, access.size())?;
    if access.is_write() {
        store(vm, vcpu, target, access, now, effects)
    } else {
        load(vm, vcpu, target, access, now, effects)
    }
}

/// One access of a vCPU on behalf of an instruction that makes several: a store of `store`, or a load, whose bits above the
/// access size are undefined. The same as above with nothing around it, and out of the way of what happens often.
///
/// # Errors
/// If nobody takes it.
#[cold]
#[inline(never)]
pub(super) fn access<C: Cpu>(
    vm: &Vm,
    vcpu: VcpuId,
    (at, size): (Ipa, AccessSize),
    store: Option<u64>,
    cpu: &mut C,
    effects: &mut Effects,
) -> Result<u64, AccessFault> {
    match vm.bus.access(at, size, store, &vm.services(cpu.counter()), effects) {
        Err(AccessFault::Nothing) => {}
        answer => return answer,
    }
    let value = store.map(|value| value & size.mask());
    let (loaded, kick) = match (vm.in_distributor(at), vm.in_interface(at)) {
        (Some(offset), _) => {
            before_banked(vm, vcpu, offset, cpu);
            match value {
                Some(value) => (0, write_distributor(vm, vcpu, offset, size, value)),
                None => vm.gic.observe_distributor(vcpu, cpu.list_registers(), offset, size),
            }
        }
        (None, Some(offset)) if vm.gic.version() == Version::V2 => match value {
            Some(value) => (0, vm.gic.write_cpu_interface(vcpu, cpu.list_registers(), offset, size, value)),
            None => (0, VcpuSet::EMPTY),
        },
        (None, Some(offset)) => {
            take_back_timer(vm, vcpu, cpu);
            match value {
                Some(value) => (0, its::redistributor_store(vm, offset, size, value, effects)),
                None => vm.gic.observe_redistributor(vcpu, cpu.list_registers(), offset, size),
            }
        }
        (None, None) => {
            if let Some(offset) = vm.gic.in_its(at) {
                return Ok(its::access(vm, offset, size, value, effects));
            }
            let (frame, offset) = vm.gic.message_frame(at).ok_or(AccessFault::Nothing)?;
            match value {
                Some(value) => (0, frame.write(&vm.gic, offset, size, value)),
                None => (frame.read(offset, size), VcpuSet::EMPTY),
            }
        }
    };
    effects.kick(kick);
    Ok(loaded)
}

/// Whether a redistributor has its enable, pending or active registers at `offset`: GICR_ISENABLER0 to GICR_ICACTIVER0.
const fn shows_or_enables(offset: u64) -> bool {
    matches!(offset & (Vgic::REDISTRIBUTOR_SIZE - 1), 0x1_0100..0x1_0400)
}

/// Before an access to the distributor: that of a GICv2 has the registers of private interrupts.
#[inline(always)]
fn before_banked<C: Cpu>(vm: &Vm, vcpu: VcpuId, offset: u64, cpu: &mut C) {
    if vm.gic.version() == Version::V2 && matches!(offset, 0x100..0x400) && offset & 0x7c == 0 {
        take_back_timer(vm, vcpu, cpu);
    }
}

/// The CPU interface of a GICv2, as far as it is not hardware: one register, for stores.
#[cold]
#[inline(never)]
fn cpu_interface<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, offset: u64, access: DataAbort, cpu: &mut C) -> VcpuSet {
    if !access.is_write() {
        complete_load(vcpu, access, 0);
        return VcpuSet::EMPTY;
    }
    let value = stored(vcpu, access);
    let kick = vm.gic.write_cpu_interface(vcpu.id, cpu.list_registers(), offset, access.size(), value);
    vcpu.context.step(access.0.instruction_length());
    kick
}

/// A level-sensitive interrupt is pending as long as its source asserts it (IHI 0069, "Interrupt handling state machine").
/// The virtual timer says only that it has risen: if the guest has lowered it since, which it can without an exit, its
/// interrupt is not pending any more by the time the guest looks, or enables it.
#[inline(never)]
fn take_back_timer<C: Cpu>(vm: &Vm, vcpu: VcpuId, cpu: &mut C) {
    if !virtual_timer_asserted(cpu.system_register(El1Register::CntvCtl)) {
        vm.gic.retract_hardware(vcpu, IntId::VIRTUAL_TIMER, cpu.list_registers());
    }
}

#[inline(never)]
fn distributor_store<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, offset: u64, access: DataAbort, cpu: &mut C) -> VcpuSet {
    if vm.gic.version() == Version::V2 {
        before_banked(vm, vcpu.id, offset, cpu);
    }
    let kick = write_distributor(vm, vcpu.id, offset, access.size(), stored(vcpu, access));
    vcpu.context.step(access.0.instruction_length());
    kick
}

/// The writer itself is to look too, if it has ended an interrupt whose device wants to hear of it.
#[inline(always)]
fn write_distributor(vm: &Vm, by: VcpuId, offset: u64, size: AccessSize, value: u64) -> VcpuSet {
    let mut kick = vm.gic.write_distributor(by, offset, size, value);
    if vm.gic.has_ended() {
        kick.insert(by);
    }
    kick
}

#[inline(never)]
fn redistributor_store(vm: &Vm, vcpu: &mut Vcpu, offset: u64, access: DataAbort, effects: &mut Effects) -> VcpuSet {
    let kick = its::redistributor_store(vm, offset, access.size(), stored(vcpu, access), effects);
    vcpu.context.step(access.0.instruction_length());
    kick
}

#[inline(always)]
fn stored(vcpu: &Vcpu, access: DataAbort) -> u64 {
    vcpu.context.register(access.register()) & access.size().mask()
}

/// Nobody takes a described access: it is given up, or what an ignored one comes to is done.
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
    if fault == AccessFault::Nothing
        && let Some(next) = abort::recall(vm, vcpu, exit, access.0, effects)
    {
        return next;
    }
    match refused(vm, vcpu, exit, (access.ipa(exit), access.size()), fault, cpu, effects) {
        Ok(_) if access.is_write() => vcpu.context.step(access.0.instruction_length()),
        Ok(ones) => complete_load(vcpu, access, ones),
        Err(next) => return next,
    }
    Next::Resume
}

/// What becomes of an access that nobody takes. `Ok` is what a load reads if it is ignored.
#[cold]
pub(super) fn refused<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    access: (Ipa, AccessSize),
    fault: AccessFault,
    cpu: &mut C,
    effects: &mut Effects,
) -> Result<u64, Next> {
    match fault {
        // The device's own answer, not a gap: no policy applies.
        AccessFault::Bus => Err(inject::external_data_abort(vm, vcpu, cpu, exit)),
        _ => unsupported::reference(vm, vcpu, exit, access, fault, cpu, effects),
    }
}

/// The device at `at` has asked for something, perhaps for the VM's end.
#[inline(never)]
pub(super) fn after_device(vm: &Vm, vcpu: &Vcpu, at: Ipa, effects: &mut Effects) -> Next {
    if effects.stop_after_dump().is_some() {
        vm.end_when_dumped(at, effects);
    }
    match effects.stop() {
        Some(cause) => vm.stop(vcpu, effects, cause, format_args!("ended by vdev `{}`", vm.device_at(at))),
        None => Next::Resume,
    }
}
