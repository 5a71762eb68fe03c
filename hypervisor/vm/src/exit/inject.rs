//! Exceptions that the hypervisor takes to EL1 on the guest's behalf.
//!
//! Answers for: `AArch64.TakeException` to EL1 from the guest's EL1 or EL0 (DDI 0487, "shared/exceptions" pseudocode and
//! "Exception entry"), and the syndromes. Does not answer for: interrupts, which the virtual interface delivers.

use super::syndrome::{DataAbort, Syndrome, class, fault};
use crate::partition::Vm;
use crate::vcpu::{Cpu, El1Register, Next, Vcpu};
use types::{Pstate, RawExit};

const IL: u64 = 1 << 25;
const EC_SHIFT: u32 = 26;
/// The exception class of an abort or breakpoint at the same level is that from a lower level, plus one.
const SAME_LEVEL: u64 = 1;

/// `SCTLR_EL1.SPAN`: PSTATE.PAN is left alone.
const SPAN: u64 = 1 << 23;
/// `SCTLR_EL1.DSSBS`: the value of PSTATE.SSBS on exception entry.
const DSSBS: u64 = 1 << 44;

/// Where a synchronous exception goes that is taken to EL1 from the state `pstate`.
pub(super) const fn vector(vbar: u64, pstate: u64) -> u64 {
    const NRW: u64 = 1 << 4;
    let offset = if pstate & NRW != 0 {
        0x600 // a lower level, in AArch32
    } else {
        match pstate & Pstate::MODE {
            Pstate::EL0T => 0x400,
            Pstate::EL1T => 0x000,
            _ => 0x200,
        }
    };
    // VBAR_EL1 bits 10:0 are RES0.
    (vbar & !0x7ff).wrapping_add(offset)
}

/// Takes a synchronous exception. The preferred return address is the instruction that the guest stands on.
fn synchronous<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &mut C, esr: u64, far: Option<u64>) -> Next {
    let old = vcpu.context.pstate;
    let sctlr = cpu.system_register(El1Register::Sctlr);
    let target = vector(cpu.system_register(El1Register::Vbar), old);
    cpu.set_system_register(El1Register::Elr, vcpu.context.pc);
    cpu.set_system_register(El1Register::Spsr, old);
    cpu.set_system_register(El1Register::Esr, esr);
    if let Some(far) = far {
        cpu.set_system_register(El1Register::Far, far);
    }
    // SS, IL, BTYPE and UAO become zero.
    let mut new = old & (Pstate::NZCV | Pstate::DIT | Pstate::PAN);
    new |= Pstate::D | Pstate::A | Pstate::I | Pstate::F | Pstate::EL1H;
    let features = vm.pstate;
    if features.pan && sctlr & SPAN == 0 {
        new |= Pstate::PAN;
    }
    if features.ssbs && sctlr & DSSBS != 0 {
        new |= Pstate::SSBS;
    }
    if features.tco {
        new |= Pstate::TCO;
    }
    vcpu.context.pstate = new;
    vcpu.context.pc = target;
    Next::Resume
}

/// Whether the guest was at EL0 (in either state).
const fn at_el0(vcpu: &Vcpu) -> bool {
    // M[3:2] is the exception level; AArch32 modes other than User do not occur with EL1 in AArch64.
    vcpu.context.pstate & 0b1100 == 0
}

/// `class_lower` as it is for where the guest was.
const fn class_for(vcpu: &Vcpu, class_lower: u64) -> u64 {
    if at_el0(vcpu) { class_lower } else { class_lower | SAME_LEVEL }
}

/// The guest executed an instruction that it does not have.
#[cold]
pub(super) fn undefined<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &mut C) -> Next {
    synchronous(vm, vcpu, cpu, class::UNKNOWN << EC_SHIFT | IL, None)
}

/// The guest had `PSTATE.IL` set.
#[cold]
pub(super) fn illegal_state<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &mut C) -> Next {
    synchronous(vm, vcpu, cpu, class::ILLEGAL_STATE << EC_SHIFT | IL, None)
}

/// A debug exception that was routed here: passed on.
#[cold]
pub(super) fn debug<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &mut C, syndrome: Syndrome, far: u64) -> Next {
    let class = match syndrome.class() {
        // Breakpoint, software step, watchpoint: two classes each.
        class @ class::BREAKPOINT_LOWER..=class::WATCHPOINT_SAME => class_for(vcpu, class & !SAME_LEVEL),
        class => class,
    };
    let watchpoint = class & !SAME_LEVEL == class::WATCHPOINT_SAME & !SAME_LEVEL;
    let esr = class << EC_SHIFT | syndrome.0 & (IL | 0x1ff_ffff);
    synchronous(vm, vcpu, cpu, esr, watchpoint.then_some(far))
}

/// A synchronous external abort for the load or store of `exit`.
pub(super) fn external_data_abort<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &mut C, exit: &RawExit) -> Next {
    data_abort(vm, vcpu, cpu, exit, fault::EXTERNAL)
}

/// A data abort with this status code for the load or store of `exit`.
pub(super) fn data_abort<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &mut C, exit: &RawExit, status: u64) -> Next {
    const WNR: u64 = 1 << 6;
    const CM: u64 = 1 << 8;
    const { assert!(DataAbort(Syndrome(WNR)).is_write() && DataAbort(Syndrome(CM)).is_cache_maintenance()) };
    // ISV is 0 for anything but stage 2 faults; FAR_EL1 is valid (FnV 0).
    let iss = exit.esr & (WNR | CM) | status;
    let esr = class_for(vcpu, class::DATA_ABORT_LOWER) << EC_SHIFT | exit.esr & IL | iss;
    synchronous(vm, vcpu, cpu, esr, Some(exit.far))
}

/// An instruction abort with this status code.
pub(super) fn instruction_abort<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &mut C, exit: &RawExit, status: u64) -> Next {
    let esr = class_for(vcpu, class::INSTRUCTION_ABORT_LOWER) << EC_SHIFT | IL | status;
    synchronous(vm, vcpu, cpu, esr, Some(exit.far))
}

#[cfg(test)]
mod tests {
    use super::vector;
    use types::Pstate;

    #[test]
    fn vectors_depend_on_where_the_guest_was() {
        for (pstate, offset) in [
            (Pstate::EL1T, 0x000),
            (Pstate::EL1H, 0x200),
            (Pstate::EL1H | Pstate::NZCV | Pstate::D, 0x200),
            (Pstate::EL0T, 0x400),
            (0b1_0000, 0x600),
        ] {
            assert_eq!(vector(0xffff_8000_0001_0000, pstate), 0xffff_8000_0001_0000 + offset, "{pstate:#x}");
        }
        assert_eq!(vector(u64::MAX, Pstate::EL1H), 0xffff_ffff_ffff_fa00);
    }
}
