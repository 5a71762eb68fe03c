//! A vCPU's thread: enter the guest, answer its exit, obey what follows.
//!
//! Answers for: the run loop, and what a vCPU does that does not run. Does not answer for: which state is in the CPU when
//! ([`loaded`]), what an exit means (`vm`), interrupts of the guest (`vgic`), when threads run (`thread`).

mod interface;
mod loaded;

pub(crate) use interface::Interface as VirtualInterface;
pub(crate) use loaded::{LoadedVcpu, discard, hand_on, is_counting, maintenance, put};

use crate::partition::Partition;
use crate::sync::Masked;
use crate::trace::{Follower, Nobody, Onlooker};
use crate::{interrupt, thread};
use alloc::boxed::Box;
use core::ops::ControlFlow;
use el2::guest;
use interface::Interface;
use loaded::{unload, unload_paused};
use types::{IntId, RawExit, RawExitKind, Ticks, VcpuId};
use vdev::Effects;
use vm::{Next, Vcpu};

/// ESR_EL2.EC of a trapped access to the vector registers (DDI 0487, ESR_ELx).
const EC_FP: u64 = 0x07;

/// The life of a vCPU's thread.
pub(crate) fn run(partition: &'static Partition, mut vcpu: Vcpu) {
    let _masked = Masked::new();
    let mut loaded = Box::new(LoadedVcpu::new(partition, vcpu.id));
    while let Some((entry, argument)) = wait_for_power(partition, vcpu.id) {
        loaded.reset();
        vcpu.reset(&partition.vm, entry, argument);
        while !partition.is_out() || stay_out(partition, &vcpu, &mut loaded).is_continue() {
            let ended = if partition.is_traced() {
                run_until_off(partition, &mut vcpu, &mut loaded, &mut Follower::new())
            } else {
                run_until_off(partition, &mut vcpu, &mut loaded, &mut Nobody)
            };
            if ended.is_break() {
                break;
            }
        }
        unload(&mut loaded);
    }
}

/// Blocks until this vCPU is switched on. `None`: its VM ends.
fn wait_for_power(partition: &Partition, id: VcpuId) -> Option<(u64, u64)> {
    loop {
        if partition.is_stopping() {
            return None;
        }
        partition.answer_call(id);
        if partition.is_complete()
            && let Some(start) = partition.vm.take_power_on(id)
        {
            return Some(start);
        }
        thread::sleep_until(Ticks::NEVER);
    }
}

/// The run loop. Breaks when the vCPU is off or its VM ends; returns when it is to go on with somebody else looking on.
///
/// A function of its own, so that nothing around it takes registers away from it, and in a section of its own, because from there
/// the compiler takes nothing out to share it with other functions (what exits pass is fast first,
/// docs/design/010-small-image.md).
#[inline(never)]
#[unsafe(link_section = ".text.exits")]
fn run_until_off<O: Onlooker>(
    partition: &'static Partition,
    vcpu: &mut Vcpu,
    loaded: &mut LoadedVcpu,
    onlooker: &mut O,
) -> ControlFlow<()> {
    let vm = &partition.vm;
    loop {
        loaded.load();
        if vm.gic.needs_refill(vcpu.id) {
            let kick = interface::refill(&vm.gic, vcpu.id);
            if !kick.is_empty() {
                partition.kick(kick, vcpu.id);
                // Devices are to hear of an end, and may have something to say to that.
                if partition.is_out() {
                    stay_out(partition, vcpu, loaded)?;
                    continue;
                }
            }
        }
        onlooker.enters(vcpu, vm);
        // SAFETY: interrupts are masked, and `load` has put the vCPU's state into the CPU.
        let exit = unsafe { guest::enter_guest(&mut vcpu.context) };
        onlooker.leaves(vcpu, &exit);
        let mut effects = Effects::default();
        let next = if is_fp_trap(&exit, loaded) {
            loaded.use_fp();
            Next::Resume
        } else {
            vm::handle(vm, vcpu, &exit, loaded, &mut effects)
        };
        if loaded.set_way_open {
            loaded.trap_set_way(true);
        }
        if !effects.none() {
            if effects.tells() {
                lend_a_hand(partition, vcpu);
            }
            partition.apply(&effects, Some(vcpu.id));
            if effects.takes_long() {
                take_long(&effects, partition, vcpu, loaded);
            }
        }
        if matches!(next, Next::Yield) {
            thread::give_way();
        } else if !matches!(next, Next::Resume) && obey(next, partition, vcpu, loaded).is_break() {
            return ControlFlow::Break(());
        }
        thread::preempt_if_needed();
        // Last: while others ran, another vCPU may have ended the VM, and nothing would bring this one back from its guest.
        if partition.is_held(O::IS_THERE) {
            stay_out(partition, vcpu, loaded)?;
            if partition.is_traced() != O::IS_THERE {
                return ControlFlow::Continue(());
            }
        }
    }
}

/// The VM is paused or dumped, or ends: waits until it goes on, if it does.
#[cold]
#[inline(never)]
fn stay_out(partition: &Partition, vcpu: &Vcpu, loaded: &mut LoadedVcpu) -> ControlFlow<()> {
    loop {
        if partition.is_stopping() {
            return ControlFlow::Break(());
        }
        partition.answer_call(vcpu.id);
        if !partition.is_kept_out() {
            // A call that has come meanwhile is answered here: who was told of it may have done so already, and then nobody
            // would wake this one.
            if partition.is_out() {
                continue;
            }
            return ControlFlow::Continue(());
        }
        // Out of the CPU: what the guest's timer says meanwhile is for later.
        unload_paused(loaded);
        partition.show_registers(vcpu.id, || loaded.registers(vcpu));
        thread::sleep_until(Ticks::NEVER);
    }
}

/// Does what is to be done before the guest is entered again, if it is.
#[inline(never)]
#[unsafe(link_section = ".text.exits")]
fn obey(next: Next, partition: &Partition, vcpu: &mut Vcpu, loaded: &mut LoadedVcpu) -> ControlFlow<()> {
    match next {
        Next::Resume | Next::Yield => {}
        Next::HostInterrupt => {
            interrupt::handle();
            after_interrupt(partition, vcpu);
        }
        Next::ArmTimer => thread::set_deadline(vcpu.timer_deadline()),
        Next::WaitForInterrupt => wait_for_interrupt(partition, vcpu, loaded),
        Next::Off | Next::Stop => return ControlFlow::Break(()),
    }
    ControlFlow::Continue(())
}

fn is_fp_trap(exit: &RawExit, loaded: &LoadedVcpu) -> bool {
    exit.kind == RawExitKind::Synchronous && exit.esr >> 26 == EC_FP && !loaded.fp_in_cpu
}

/// What may take long, while exits run with interrupts masked: between steps interrupts are taken and other threads run.
#[cold]
#[inline(never)]
fn take_long(effects: &Effects, partition: &Partition, vcpu: &mut Vcpu, loaded: &mut LoadedVcpu) {
    let mut go_on = || {
        interrupt::handle();
        thread::preempt_if_needed();
        !partition.is_stopping()
    };
    // An operation by set and way.
    if effects.cleans_caches() {
        loaded.trap_set_way(false);
        partition.clean_caches(&mut go_on);
    }
    if effects.has_later() {
        partition.do_later(Some(vcpu.id), &mut go_on);
    }
    after_interrupt(partition, vcpu);
}

/// The guest has asked devices for something: what of it is soon done is done at once, with interrupts on, and other threads run if it
/// is their turn.
#[inline(never)]
#[unsafe(link_section = ".text.exits")]
fn lend_a_hand(partition: &Partition, vcpu: &mut Vcpu) {
    // SAFETY: no lock is held, and this thread may give way here as it does between two runs of its guest.
    unsafe { el2::cpu::unmask_interrupts() };
    partition.services.lend_a_hand(partition);
    el2::cpu::mask_interrupts();
    after_interrupt(partition, vcpu);
}

/// EL2's timer may have fired for the guest's physical timer.
#[inline(always)]
fn after_interrupt(partition: &Partition, vcpu: &mut Vcpu) {
    thread::take_notification(thread::current());
    if vcpu.timer_deadline() != Ticks::NEVER {
        update_timer(partition, vcpu);
    }
}

#[inline(never)]
fn update_timer(partition: &Partition, vcpu: &mut Vcpu) {
    let mut effects = Effects::default();
    vcpu.update_timer(&partition.vm, el2::cpu::counter(), &mut effects);
    thread::set_deadline(vcpu.timer_deadline());
    if !effects.none() {
        partition.apply(&effects, Some(vcpu.id));
    }
}

/// Blocks until something is pending for the guest (DDI 0487, "Wait for Interrupt": masked or not).
#[inline(never)]
#[unsafe(link_section = ".text.exits")]
fn wait_for_interrupt(partition: &Partition, vcpu: &mut Vcpu, loaded: &mut LoadedVcpu) {
    let vm = &partition.vm;
    loop {
        thread::take_notification(thread::current());
        // One that is to stay out does so elsewhere: a guest may be woken for no reason (DDI 0487, "Wait for Interrupt").
        if partition.is_out() {
            return;
        }
        // Loaded anew if another vCPU ran meanwhile: then the timer, if it is due, raises its interrupt by itself.
        loaded.load();
        interrupt::handle();
        if !el2::state::virtual_timer_is_due() {
            // A timer that was set anew while its interrupt was masked has nothing to say any more.
            vm.gic.retract_hardware(vcpu.id, IntId::VIRTUAL_TIMER, &mut Interface::here());
        }
        if vm.gic.wants_attention(vcpu.id, &Interface::here()) {
            return;
        }
        let now = el2::cpu::counter();
        let deadline = vcpu.wake_deadline(vm, 0, 0);
        if deadline <= now {
            return update_timer(partition, vcpu);
        }
        thread::sleep_until(deadline);
    }
}
