//! A vCPU: what belongs to its thread alone, and what it needs of the CPU that it runs on.
//!
//! Answers for: the state that is neither in the CPU (EL1's registers, list registers, virtual timer) nor shared with
//! other vCPUs. Does not answer for: how exits change it (`exit`), nor for running it (the kernel's).

use crate::exit::debug::DebugRegisters;
use crate::partition::Vm;
use crate::smccc::Workaround;
use crate::timer::{PhysicalTimer, to_physical, virtual_deadline};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use types::{DebugState, EL1_RESET_PSTATE, IntId, Ipa, Ticks, VcpuContext, VcpuId};
use vdev::{Effects, InterruptController};
use vgic::ListRegisters;

/// What stays in the CPU between an exit and the next entry, given by the kernel. A fake in tests. The vCPU is loaded
/// whenever this is used.
pub trait Cpu: Operands {
    /// Its list registers.
    type ListRegisters: ListRegisters;
    /// Reads a register of the guest's EL1.
    fn system_register(&self, register: El1Register) -> u64;
    /// Writes one. It takes effect no later than at the next entry.
    fn set_system_register(&mut self, register: El1Register, value: u64);
    /// The physical count.
    fn counter(&self) -> Ticks;
    /// The virtual CPU interface.
    fn list_registers(&mut self) -> &mut Self::ListRegisters;
    /// Calls the firmware's workaround on this CPU.
    fn call_workaround(&mut self, workaround: Workaround);
}

/// What an instruction of the guest works with beyond what an exit saves. The vCPU is loaded whenever this is used.
pub trait Operands {
    /// Where the guest's own stage 1 takes `address` for EL1; `None` if nowhere.
    fn translate(&mut self, address: u64) -> Option<Ipa>;
    /// Vector register `index`, 0 to 31.
    fn vector(&mut self, index: u8) -> u128;
    /// Writes one.
    fn set_vector(&mut self, index: u8, value: u128);
    /// Lets the CPU compare and step as `state` says, now and whenever the vCPU is loaded; `None` is not at all.
    fn set_debug(&mut self, state: Option<&DebugState>);
    /// Hands the performance monitors over; `false` if the guest has them already.
    fn use_monitors(&mut self) -> bool;
}

/// The EL1 registers that exits read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum El1Register {
    /// `SP_EL0`.
    SpEl0,
    /// `SP_EL1`.
    SpEl1,
    /// `SCTLR_EL1`.
    Sctlr,
    /// `TCR_EL1`.
    Tcr,
    /// `TTBR0_EL1`.
    Ttbr0,
    /// `TTBR1_EL1`.
    Ttbr1,
    /// `VBAR_EL1`.
    Vbar,
    /// `ELR_EL1`.
    Elr,
    /// `SPSR_EL1`.
    Spsr,
    /// `ESR_EL1`.
    Esr,
    /// `FAR_EL1`.
    Far,
    /// `CNTV_CTL_EL0`.
    CntvCtl,
}

/// What the run loop does next with this vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Enters the guest again.
    Resume,
    /// As `Resume`; besides, [`Vcpu::timer_deadline`] has changed.
    ArmTimer,
    /// Takes the physical interrupt that ended the guest's turn.
    HostInterrupt,
    /// Lets others of the same priority run first (WFE).
    Yield,
    /// Blocks until an interrupt for this vCPU is pending, or [`Vcpu::wake_deadline`] has come.
    WaitForInterrupt,
    /// Blocks until [`Vm::take_power_on`] gives a start.
    Off,
    /// Never enters again: the VM ends ([`Effects::stop`], [`crate::lifecycle::Lifecycle::end`]).
    Stop,
}

/// One vCPU, owned by its thread.
#[derive(Debug)]
pub struct Vcpu {
    /// Which one.
    pub id: VcpuId,
    /// The registers that an exit saves.
    pub context: VcpuContext,
    /// Its EL1 physical timer.
    pub(crate) physical_timer: PhysicalTimer,
    /// What the timer's line was last set to.
    timer_line: bool,
    /// When the line rises by itself, as a physical count.
    timer_deadline: Ticks,
    /// When a WFIT gives up, as a physical count.
    pub(crate) wait_until: Ticks,
    pub(crate) debug: DebugRegisters,
    counters: Arc<ExitCounters>,
}

impl Vcpu {
    /// A vCPU that has not been started; its exits are counted in `counters`.
    pub(crate) fn new(id: VcpuId, counters: Arc<ExitCounters>) -> Self {
        Self {
            id,
            context: VcpuContext::default(),
            physical_timer: PhysicalTimer::default(),
            timer_line: false,
            timer_deadline: Ticks::NEVER,
            wait_until: Ticks::NEVER,
            debug: DebugRegisters::default(),
            counters,
        }
    }

    /// Puts everything in here into the state of a core that PSCI has just started (DEN 0022, "Initial core
    /// configuration"): at `entry`, `argument` in X0. The kernel does the same with what is in the CPU.
    pub fn reset(&mut self, vm: &Vm, entry: u64, argument: u64) {
        let mut context = VcpuContext { pc: entry, pstate: EL1_RESET_PSTATE, ..VcpuContext::default() };
        context.set_register(0, argument);
        if self.timer_line {
            // Nobody has to be kicked for a line that falls.
            let _ = vm.gic.set_private_level(self.id, IntId::PHYSICAL_TIMER, false);
        }
        *self = Self { context, ..Self::new(self.id, Arc::clone(&self.counters)) };
    }

    /// When the line of the physical timer rises by itself, as a physical count: the kernel sets an alarm and then calls
    /// [`Vcpu::update_timer`]. Changes only with [`Next::ArmTimer`] and in `update_timer`.
    #[inline(always)]
    #[must_use]
    pub fn timer_deadline(&self) -> Ticks {
        self.timer_deadline
    }

    /// Brings the physical timer's line and deadline up to date.
    pub fn update_timer(&mut self, vm: &Vm, now: Ticks, effects: &mut Effects) {
        let guest_now = vm.guest_time(now);
        let asserted = self.physical_timer.asserted(guest_now);
        if asserted != self.timer_line {
            self.timer_line = asserted;
            let kicked = vm.gic.set_private_level(self.id, IntId::PHYSICAL_TIMER, asserted);
            effects.kick(kicked);
        }
        self.timer_deadline = match self.physical_timer.deadline(guest_now) {
            Some(compare) => to_physical(compare, vm.counter_offset()),
            None => Ticks::NEVER,
        };
    }

    /// When this vCPU has to be woken from [`Next::WaitForInterrupt`] at the latest: for its virtual timer, whose
    /// registers the kernel reads out of the CPU, for its physical timer, or because a WFIT gives up.
    #[must_use]
    pub fn wake_deadline(&self, vm: &Vm, cntv_ctl: u64, cntv_cval: u64) -> Ticks {
        let timers = self.timer_deadline.min(virtual_deadline(cntv_ctl, cntv_cval, vm.counter_offset()));
        timers.min(self.wait_until)
    }

    /// The answer of a firmware call.
    #[inline(always)]
    pub(crate) fn answer(&mut self, value: i64) {
        self.context.set_register(0, value.cast_unsigned());
    }

    #[inline(always)]
    pub(crate) fn count(&self, reason: Reason) {
        self.counters.count(reason);
    }
}

/// Why a guest came out, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A physical interrupt.
    Interrupt,
    /// HVC, SMC.
    Call,
    /// A device access.
    Mmio,
    /// A system register.
    Sysreg,
    /// WFI, WFE.
    Wait,
    /// Any other abort.
    Abort,
    /// An SError.
    SystemError,
    /// An instruction that the guest does not have, and everything else.
    Undefined,
}

impl Reason {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Interrupt,
        Self::Call,
        Self::Mmio,
        Self::Sysreg,
        Self::Wait,
        Self::Abort,
        Self::SystemError,
        Self::Undefined,
    ];

    /// What it is called in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "irq",
            Self::Call => "call",
            Self::Mmio => "mmio",
            Self::Sysreg => "sysreg",
            Self::Wait => "wait",
            Self::Abort => "abort",
            Self::SystemError => "serror",
            Self::Undefined => "other",
        }
    }
}

/// How often a vCPU came out, by reason. Written by its own thread only, read by anybody.
#[derive(Debug, Default)]
pub struct ExitCounters([AtomicU64; Reason::ALL.len()]);

impl ExitCounters {
    /// One writer, so that a load and a store do; a read-modify-write would cost a retry loop on every exit.
    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// How often for this reason.
    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let counters = ExitCounters::default();
        for (times, reason) in (1..).zip(Reason::ALL) {
            for _ in 0..times {
                counters.count(reason);
            }
        }
        for (times, reason) in (1..).zip(Reason::ALL) {
            assert_eq!(counters.get(reason), times, "{reason:?}");
        }
    }
}
