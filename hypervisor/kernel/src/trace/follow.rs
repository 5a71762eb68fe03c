//! What of a vCPU is recorded.
//!
//! Answers for: entries, exits, interrupts and timers of the guest, seen from between an exit and the next entry. Does not
//! answer for: the run loop, which calls this twice in a round ([`crate::vcpu`]), or what has changed since the last round
//! (`trace::Watch`).

use crate::vcpu::VirtualInterface;
use crate::{controller, thread};
use ::trace::{HOST, Watch, What};
use el2::state::VirtualTimer;
use host::console::VmNumber;
use types::{RawExit, RawExitKind, Ticks, VcpuId};
use vgic::ListRegisters;
use vm::exit::syndrome::{DataAbort, Syndrome, fault_ipa};
use vm::{Vcpu, Vm, timer};

/// `ESR_ELx.EC` (DDI 0487): aborts from a lower exception level.
const INSTRUCTION_ABORT: u64 = 0x20;
const DATA_ABORT: u64 = 0x24;

/// Somebody who looks on while a vCPU runs.
pub(crate) trait Onlooker {
    /// Whether it is anybody.
    const IS_THERE: bool;
    /// The guest is about to be entered. The vCPU is loaded.
    fn enters(&mut self, vcpu: &Vcpu, vm: &Vm);
    /// The guest has just been left.
    fn leaves(&mut self, vcpu: &Vcpu, exit: &RawExit);
}

/// Nobody looks on.
pub(crate) struct Nobody;

impl Onlooker for Nobody {
    const IS_THERE: bool = false;
    #[inline(always)]
    fn enters(&mut self, _: &Vcpu, _: &Vm) {}
    #[inline(always)]
    fn leaves(&mut self, _: &Vcpu, _: &RawExit) {}
}

/// Records what it sees.
pub(crate) struct Follower {
    vm: u8,
    watch: Watch,
    /// Where the guest was entered, and when: the last thing that was done before.
    pc: u64,
    entered: Ticks,
}

impl Follower {
    /// Of a vCPU of the calling thread's VM.
    pub(crate) fn new() -> Self {
        let vm = thread::current().vm.map_or(HOST, VmNumber::get);
        Self { vm, watch: Watch::default(), pc: 0, entered: Ticks(0) }
    }

    fn look_at_lines(&mut self, now: Ticks, vcpu: VcpuId) {
        let (count, _) = controller::list_registers();
        let interface = VirtualInterface::here();
        let used = !interface.empty_mask() & ((1 << count) - 1);
        // Mostly there is none, and there was none.
        if used == 0 && !self.watch.is_any_pending() {
            return;
        }
        let vm = self.vm;
        let registers = (0..count).filter(|index| used >> index & 1 == 1).map(|index| interface.read(index));
        self.watch.lines(registers, |what| super::record_at(now, vm, vcpu, what));
    }
}

impl Onlooker for Follower {
    const IS_THERE: bool = true;

    #[inline(never)]
    fn enters(&mut self, vcpu: &Vcpu, vm: &Vm) {
        let now = el2::cpu::counter();
        self.look_at_lines(now, vcpu.id);
        let VirtualTimer { control, compare } = VirtualTimer::now();
        let deadlines = [timer::virtual_deadline(control, compare, vm.counter_offset()), vcpu.timer_deadline()];
        let number = self.vm;
        self.watch.timers(deadlines, |what| super::record_at(now, number, vcpu.id, what));
        self.pc = vcpu.context.pc;
        self.entered = el2::cpu::counter();
    }

    #[inline(never)]
    fn leaves(&mut self, vcpu: &Vcpu, exit: &RawExit) {
        let now = el2::cpu::counter();
        // Only now: recording it before would be in the guest's time.
        super::record_at(self.entered, self.vm, vcpu.id, What::Entry { pc: self.pc });
        let (syndrome, payload) = match (exit.kind, Syndrome(exit.esr).class()) {
            (RawExitKind::Irq | RawExitKind::Fiq, _) => (0, 0),
            (_, DATA_ABORT) if DataAbort(Syndrome(exit.esr)).is_forbidden_store() => (exit.esr as u32, exit.far),
            (_, INSTRUCTION_ABORT | DATA_ABORT) => (exit.esr as u32, fault_ipa(exit).0),
            (..) => (exit.esr as u32, vcpu.context.register(0)),
        };
        let what = What::Exit { kind: exit.kind, syndrome, pc: vcpu.context.pc, payload };
        super::record_at(now, self.vm, vcpu.id, what);
        self.look_at_lines(now, vcpu.id);
        if exit.kind == RawExitKind::Irq {
            super::interrupt();
        }
    }
}
