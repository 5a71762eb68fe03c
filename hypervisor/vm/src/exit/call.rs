//! HVC and SMC: the SMC Calling Convention (DEN 0028) from both conduits.
//!
//! Answers for: finding the service. Does not answer for: the services (`psci`, `smccc`). The immediate of a call under
//! the convention is zero; others are the hypervisor's to give. This one gives 1 (`HVC #1`): let other threads of this
//! priority run first, with no arguments and no result. The rest is NOT_SUPPORTED, as an unknown identifier is.

use super::syndrome::Call;
use crate::partition::Vm;
use crate::vcpu::{Cpu, Next, Vcpu};
use crate::{psci, smccc};
use vdev::Effects;

/// The immediate of the HVC that lets others run.
const YIELD: u64 = 1;

#[inline(never)]
pub(super) fn handle<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, call: Call, cpu: &mut C, effects: &mut Effects) -> Next {
    if call.is_smc() {
        // A trapped SMC has not been executed; an HVC has.
        vcpu.context.step(4);
    }
    if call.immediate() != 0 {
        return outside_the_convention(vcpu, call);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the identifier is W0")]
    let identifier = vcpu.context.register(0) as u32;
    if psci::is_psci(identifier) {
        return psci::call(vm, vcpu, identifier, effects);
    }
    match smccc::call(&vm.mitigations, identifier, vcpu.context.register(1)) {
        smccc::Answer::Value(value) => vcpu.answer(value),
        smccc::Answer::Workaround(workaround) => {
            cpu.call_workaround(workaround);
            vcpu.answer(smccc::SUCCESS);
        }
    }
    Next::Resume
}

/// A call with an immediate.
#[cold]
#[inline(never)]
fn outside_the_convention(vcpu: &mut Vcpu, call: Call) -> Next {
    if call.immediate() == YIELD && !call.is_smc() {
        return Next::Yield;
    }
    vcpu.answer(smccc::NOT_SUPPORTED);
    Next::Resume
}
