//! The EL1 physical timer and counter as trapped registers (`CNTHCTL_EL2.EL1PCTEN` and `.EL1PCEN` are 0).

use super::syndrome::sysreg;
use crate::partition::Vm;
use crate::vcpu::{Cpu, Next, Vcpu};
use vdev::Effects;

pub(super) const CNTPCT_EL0: u64 = sysreg(3, 3, 14, 0, 1);
pub(super) const CNTPCTSS_EL0: u64 = sysreg(3, 3, 14, 0, 5);
pub(super) const CNTP_TVAL_EL0: u64 = sysreg(3, 3, 14, 2, 0);
pub(super) const CNTP_CTL_EL0: u64 = sysreg(3, 3, 14, 2, 1);
pub(super) const CNTP_CVAL_EL0: u64 = sysreg(3, 3, 14, 2, 2);

/// Reads one of the above.
#[inline]
pub(super) fn read<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &C, name: u64, effects: &mut Effects) -> u64 {
    let counter = cpu.counter();
    let now = vm.guest_time(counter);
    match name {
        CNTP_TVAL_EL0 => vcpu.physical_timer.value(now),
        CNTP_CTL_EL0 => {
            // Who sees that the condition is met has its interrupt pending, even if the host's own timer is late.
            vcpu.update_timer(vm, counter, effects);
            vcpu.physical_timer.control(now)
        }
        CNTP_CVAL_EL0 => vcpu.physical_timer.compare(),
        _ => now,
    }
}

/// Writes one of the timer's three.
#[inline]
pub(super) fn write<C: Cpu>(vm: &Vm, vcpu: &mut Vcpu, cpu: &C, name: u64, value: u64, effects: &mut Effects) -> Next {
    let now = cpu.counter();
    match name {
        CNTP_TVAL_EL0 => vcpu.physical_timer.set_value(vm.guest_time(now), value),
        CNTP_CTL_EL0 => vcpu.physical_timer.set_control(value),
        _ => vcpu.physical_timer.set_compare(value),
    }
    vcpu.update_timer(vm, now, effects);
    Next::ArmTimer
}
