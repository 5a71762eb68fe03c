//! Accesses that exit where a guest reads a device's registers without an exit.
//!
//! Answers for: making them what they would be if nothing were mapped there, and handing them on: a store to a register is the device's,
//! one beside its registers is nobody's, and there is nothing to execute. Does not answer for: the page (`kernel`), what is in it (the
//! device), nor for what becomes of such accesses (`mmio`, `emulate`, `unsupported`).
//!
//! The page is mapped read-only, so these are permission faults, and of those `HPFAR_EL2` does not say the address (DDI 0487,
//! "HPFAR_EL2"): the guest's stage 1 is asked again. Another vCPU may have changed that meanwhile; then the guest meets what it says now.

use super::syndrome::{DataAbort, Syndrome, fault};
use super::{Rare, emulate, handle_rare, mmio};
use crate::partition::Vm;
use crate::vcpu::{Cpu, Next, Reason, Vcpu};
use types::{Ipa, RawExit};
use vdev::Effects;

/// A store that the syndrome describes, where the guest may not write.
#[inline(never)]
pub(super) fn described_store<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    access: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    if !vm.has_shadows() {
        return handle_rare(vm, vcpu, exit, Rare::DataAbort(access), cpu, effects);
    }
    let Some(at) = cpu.translate(exit.far) else { return Next::Resume };
    // No memory is where a device's registers are, but such a page.
    let Ok(target) = vm.bus.find(at, access.size()) else {
        return beside_registers(vm, vcpu, exit, (access, at), cpu, effects);
    };
    vcpu.count(Reason::Mmio);
    mmio::complete_store(vm, vcpu, (&unmapped(exit, at), at), target, access, cpu, effects)
}

/// It may be one to ROM.
#[cold]
#[inline(never)]
fn beside_registers<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    (access, at): (DataAbort, Ipa),
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    if !vm.is_shadowed(at) {
        return handle_rare(vm, vcpu, exit, Rare::DataAbort(access), cpu, effects);
    }
    vcpu.count(Reason::Mmio);
    mmio::handle(vm, vcpu, &unmapped(exit, at), access, cpu, effects)
}

/// A store that only the instruction describes. `None` if it is not one to such a page.
pub(super) fn store<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    exit: &RawExit,
    abort: DataAbort,
    cpu: &mut C,
    effects: &mut Effects,
) -> Option<Next> {
    if abort.is_described() || abort.is_cache_maintenance() {
        return None;
    }
    let exit = as_if_unmapped(vm, exit, abort.0, cpu)?;
    Some(emulate::transfer(vm, vcpu, &exit, abort, cpu, effects))
}

/// The same exit as a translation fault would have it, of a fetch from such a page or a store there. `None` if it is neither.
pub(super) fn as_if_unmapped<C: Cpu>(vm: &Vm, exit: &RawExit, syndrome: Syndrome, cpu: &mut C) -> Option<RawExit> {
    if !vm.has_shadows() || !syndrome.is_fault(fault::PERMISSION) || syndrome.on_stage_1_walk() {
        return None;
    }
    let at = cpu.translate(exit.far)?;
    vm.is_shadowed(at).then(|| unmapped(exit, at))
}

/// With the address that a translation fault would have.
const fn unmapped(exit: &RawExit, at: Ipa) -> RawExit {
    /// `HPFAR_EL2.FIPA` begins at bit 4, and with bit 12 of the address.
    const FIPA_SHIFT: u32 = 8;
    RawExit { hpfar: at.0 >> FIPA_SHIFT & !0xf, ..*exit }
}
