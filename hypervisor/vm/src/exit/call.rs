//! HVC and SMC: the SMC Calling Convention (DEN 0028) from both conduits.
//!
//! Answers for: finding the service. Does not answer for: the services (`psci`, `smccc`, `trng`, `stolen_time`). The immediate
//! of a call under the convention is zero; others are the hypervisor's to give. This one gives 1 (`HVC #1`): let other threads
//! of this priority run first, with no arguments and no result. The rest is NOT_SUPPORTED, as an unknown identifier is.

use super::syndrome::Call;
use crate::partition::Vm;
use crate::vcpu::{Cpu, Next, Vcpu};
use crate::{psci, smccc, trng};
use vdev::Effects;

/// The immediate of the HVC that lets others run.
const YIELD: u64 = 1;

#[inline(never)]
pub(super) fn handle<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, call: Call, cpu: &mut C, effects: &mut Effects) -> Next {
    if call.is_smc() {
        // A trapped SMC has not been executed; an HVC has.
        vcpu.context.step(4);
    }
    match call.immediate() {
        0 => {}
        YIELD if !call.is_smc() => return Next::Yield,
        _ => {
            vcpu.answer(smccc::NOT_SUPPORTED);
            return Next::Resume;
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "the identifier is W0")]
    let identifier = vcpu.context.register(0) as u32;
    if psci::is_psci(identifier) {
        return psci::call(vm, vcpu, identifier, effects);
    }
    if may_be_known(identifier) {
        other(vm, vcpu, identifier, cpu);
    } else {
        vcpu.answer(smccc::NOT_SUPPORTED);
    }
    Next::Resume
}

/// Whether it is a fast call to one of those who have services here: the architecture (owner 0), standard services (4), the
/// hypervisor (5); 1 passes, too. Whatever else a guest tries costs it no more than that.
const fn may_be_known(identifier: u32) -> bool {
    identifier & 0xbaff_0000 == 0x8000_0000
}

/// All but PSCI: out of line, so that PSCI does not pay for the registers that this needs.
#[inline(never)]
fn other<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, identifier: u32, cpu: &mut C) {
    let argument = vcpu.context.register(1);
    match smccc::call(&vm.mitigations, vm.stolen_time.feature(), identifier, argument) {
        smccc::Answer::Value(value) => vcpu.answer(value),
        smccc::Answer::Workaround(workaround) => {
            cpu.call_workaround(workaround);
            vcpu.answer(smccc::SUCCESS);
        }
        smccc::Answer::NotOurs if trng::is_trng(identifier) => match trng::call(vm.entropy, identifier, argument) {
            Ok(values) => (0..).zip(values).for_each(|(register, value)| vcpu.context.set_register(register, value)),
            Err(code) => vcpu.answer(code),
        },
        smccc::Answer::NotOurs => vcpu.answer(vm.stolen_time.call(vcpu.id, identifier, argument)),
    }
}
