//! WFI, WFE, WFIT, WFET (DDI 0487, "Wait for Event and Send Event", "Wait for Interrupt").
//!
//! Both are hints, and completing them early is always right. WFI blocks the vCPU's thread; WFE only lets others run,
//! because events (SEV, the exclusive monitor, the event stream) are not seen by the hypervisor.

use super::syndrome::Wfx;
use crate::partition::Vm;
use crate::timer::to_physical;
use crate::vcpu::{Next, Vcpu};
use types::Ticks;

#[inline(never)]
pub(super) fn handle(vm: &Vm, vcpu: &mut Vcpu, wfx: Wfx) -> Next {
    vcpu.context.step(4);
    if wfx.for_event() {
        return Next::Yield;
    }
    vcpu.wait_until = match wfx.timeout_register() {
        None => Ticks::NEVER,
        // Both counters show the same time.
        Some(register) => to_physical(vcpu.context.register(register), vm.counter_offset()),
    };
    Next::WaitForInterrupt
}
