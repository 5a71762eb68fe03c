//! Trapped system registers and instructions.
//!
//! Answers for: which register it is, and who answers. The traps are those that `el2` sets: HCR_EL2 (TID3, TACR, TSW, TIDCP,
//! IMO, FMO, and those of extensions), CNTHCTL_EL2, MDCR_EL2, ICC_SRE_EL2 and the others of `el2/src/traps.rs`. Does not answer for: what the registers mean (`id_registers`, `timers`,
//! `debug`, `vgic`), nor for those of the virtual CPU interface, which do not exit.

use super::syndrome::{SysregAccess, sysreg};
use super::{inject, timers, unsupported};
use crate::partition::Vm;
use crate::vcpu::{Cpu, Next, Vcpu};
use types::IntId;
use vdev::Effects;
use vgic::SgiRegister;

const ACTLR_EL1: u64 = sysreg(3, 0, 1, 0, 1);
const ICC_DIR_EL1: u64 = sysreg(3, 0, 12, 11, 1);
const ICC_SGI1R_EL1: u64 = sysreg(3, 0, 12, 11, 5);
const ICC_ASGI1R_EL1: u64 = sysreg(3, 0, 12, 11, 6);
const ICC_SGI0R_EL1: u64 = sysreg(3, 0, 12, 11, 7);
const ICC_SRE_EL1: u64 = sysreg(3, 0, 12, 12, 5);
const REVIDR_EL1: u64 = sysreg(3, 0, 0, 0, 6);
const AIDR_EL1: u64 = sysreg(3, 1, 0, 0, 7);
const DC_ISW: u64 = sysreg(1, 0, 7, 6, 2);
const DC_CSW: u64 = sysreg(1, 0, 7, 10, 2);
const DC_CISW: u64 = sysreg(1, 0, 7, 14, 2);

/// `S3_0_C0_Cm_op2`: identification registers, but for C0.
const IDENTIFICATION: u64 = sysreg(3, 0, 0, 0, 0);
const IDENTIFICATION_MASK: u64 = sysreg(3, 7, 15, 0, 0);
const OP0_MASK: u64 = sysreg(3, 0, 0, 0, 0);
const OP0_DEBUG: u64 = sysreg(2, 0, 0, 0, 0);

/// What an access comes to.
enum Answer {
    /// MRS: this value.
    Value(u64),
    /// MSR: done.
    Done(Next),
    /// The register does not have that direction.
    Undefined,
    /// There is no such register here.
    Unknown,
}

#[inline(never)]
pub(super) fn handle<C: Cpu>(
    vm: &Vm,
    vcpu: &mut Vcpu,
    access: SysregAccess,
    cpu: &mut C,
    effects: &mut Effects,
) -> Next {
    let answer =
        if access.is_read() { read(vm, vcpu, access, cpu, effects) } else { write(vm, vcpu, access, cpu, effects) };
    match answer {
        Answer::Value(value) => {
            vcpu.context.set_register(access.register(), value);
            vcpu.context.step(4);
            Next::Resume
        }
        Answer::Done(next) => {
            vcpu.context.step(4);
            next
        }
        Answer::Undefined => inject::undefined(vm, vcpu, cpu),
        // The guest's own from now on: once more.
        Answer::Unknown if has_monitor(vm, access) && cpu.use_monitors() => Next::Resume,
        Answer::Unknown => unsupported::register(vm, vcpu, access, cpu, effects),
    }
}

#[inline]
fn read<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, access: SysregAccess, cpu: &C, effects: &mut Effects) -> Answer {
    let name = access.name();
    match name {
        timers::CNTPCT_EL0
        | timers::CNTPCTSS_EL0
        | timers::CNTP_TVAL_EL0
        | timers::CNTP_CTL_EL0
        | timers::CNTP_CVAL_EL0 => Answer::Value(timers::read(vm, vcpu, cpu, name, effects)),
        // Implementation defined controls of the CPU: RAZ/WI, there is nothing for a guest to control.
        ACTLR_EL1 => Answer::Value(0),
        ICC_DIR_EL1 | ICC_SGI1R_EL1 | ICC_ASGI1R_EL1 | ICC_SGI0R_EL1 | DC_ISW | DC_CSW | DC_CISW => Answer::Undefined,
        _ if name & IDENTIFICATION_MASK == IDENTIFICATION => {
            let (_, _, _, crm, op2) = access.encoding();
            vm.id.get(crm, op2).map_or_else(|| read_rare(name), Answer::Value)
        }
        _ if name & OP0_MASK == OP0_DEBUG => read_debug(vm, vcpu, access),
        _ => read_rare(name),
    }
}

/// What nobody reads often.
#[cold]
fn read_rare(name: u64) -> Answer {
    match name {
        // Trapped where SMIDR_EL1 is, on CPUs with SME: no more is known of the implementation than MIDR_EL1 tells.
        REVIDR_EL1 | AIDR_EL1 => Answer::Value(0),
        // System registers are the only way to the interrupt controller: SRE, DFB and DIB are RAO/WI.
        ICC_SRE_EL1 => Answer::Value(7),
        _ => Answer::Unknown,
    }
}

#[inline]
fn write<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, access: SysregAccess, cpu: &mut C, effects: &mut Effects) -> Answer {
    let value = vcpu.context.register(access.register());
    let name = access.name();
    // First what happens often, in one place, into which it is inlined.
    let generates = match name {
        ICC_SGI1R_EL1 => Some(SgiRegister::Sgi1r),
        ICC_ASGI1R_EL1 => Some(SgiRegister::Asgi1r),
        ICC_SGI0R_EL1 => Some(SgiRegister::Sgi0r),
        _ => None,
    };
    if let Some(register) = generates {
        effects.kick(vm.gic.send_sgi(vcpu.id, register, value));
        return Answer::Done(Next::Resume);
    }
    match name {
        timers::CNTP_TVAL_EL0 | timers::CNTP_CTL_EL0 | timers::CNTP_CVAL_EL0 => {
            Answer::Done(timers::write(vm, vcpu, cpu, name, value, effects))
        }
        // Traps only while more interrupts are active than there are list registers.
        ICC_DIR_EL1 => {
            let kick = vm.gic.deactivate(vcpu.id, intid(value), cpu.list_registers());
            effects.kick(kick);
            Answer::Done(Next::Resume)
        }
        ACTLR_EL1 => Answer::Done(Next::Resume),
        // By set and way a guest reaches the caches of the CPU that it happens to be on, and those of others not at all:
        // what it means is "everything of mine".
        DC_ISW | DC_CSW | DC_CISW => {
            effects.clean_caches();
            Answer::Done(Next::Resume)
        }
        timers::CNTPCT_EL0 | timers::CNTPCTSS_EL0 => Answer::Undefined,
        _ if name & IDENTIFICATION_MASK == IDENTIFICATION => Answer::Undefined,
        _ if name & OP0_MASK == OP0_DEBUG => write_debug(vm, vcpu, access, cpu, value),
        _ if name == ICC_SRE_EL1 => Answer::Done(Next::Resume),
        _ => Answer::Unknown,
    }
}

/// Whether it is a register of performance monitors that this guest has (DDI 0487, `MDCR_EL2.TPM`).
#[cold]
fn has_monitor(vm: &Vm, access: SysregAccess) -> bool {
    let there = matches!(
        access.encoding(),
        // PMCR_EL0 to PMCEID1_EL0, PMCCNTR_EL0, PMX*_EL0, PMUSERENR_EL0, PMOVSSET_EL0
        (3, 3, 9, 12, _) | (3, 3, 9, 13, 0..=2) | (3, 3, 9, 14, 0 | 3)
        // PMINTENSET_EL1, PMINTENCLR_EL1, PMMIR_EL1
        | (3, 0, 9, 14, 1 | 2 | 6)
        // PMEVCNTR<n>_EL0, PMEVTYPER<n>_EL0, PMCCFILTR_EL0
        | (3, 3, 14, 8..=15, _)
    );
    there && vm.id.has_monitors()
}

#[cold]
#[inline(never)]
fn read_debug(vm: &Vm, vcpu: &mut Vcpu, access: SysregAccess) -> Answer {
    match vcpu.debug.read(access, &vm.id) {
        Some(Some(value)) => Answer::Value(value),
        Some(None) => Answer::Undefined,
        None => Answer::Unknown,
    }
}

/// The CPU follows if debug exceptions are on, or were.
#[cold]
#[inline(never)]
fn write_debug<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, access: SysregAccess, cpu: &mut C, value: u64) -> Answer {
    let was_in_force = vcpu.debug.in_force().is_some();
    match vcpu.debug.write(access, &vm.id, value) {
        Some(true) => {
            let state = vcpu.debug.in_force();
            if was_in_force || state.is_some() {
                cpu.set_debug(state);
            }
            Answer::Done(Next::Resume)
        }
        Some(false) => Answer::Undefined,
        None => Answer::Unknown,
    }
}

/// `INTID`, bits 23:0.
const fn intid(value: u64) -> IntId {
    IntId((value & 0xff_ffff) as u32)
}
