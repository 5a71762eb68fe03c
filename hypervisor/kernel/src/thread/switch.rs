//! From one thread to another.
//!
//! Answers for: carrying out what the scheduler chooses, and waiting where there is nothing to choose. The scheduler's lock is
//! taken by the thread that leaves and released by the one that comes. Does not answer for: who runs (`sched`), why a thread
//! leaves (`thread`).

use super::{CORE, Core, Thread, abandon};
use crate::cpu::{self, PerCpu};
use crate::{console, interrupt, trace, vcpu};
use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::Ordering;
use types::Ticks;

/// Completes a switch on the side of the thread that comes: from here the one we came from may be resumed elsewhere.
#[inline(always)]
pub(super) fn finish_switch() {
    let cpu = cpu::this();
    if cpu.after_switch.load(Ordering::Relaxed) != 0 {
        after_switch(cpu);
    }
    CORE.release(cpu);
}

/// What is not done after every switch. The scheduler's lock is held.
#[cold]
#[inline(never)]
fn after_switch(cpu: &PerCpu) {
    if cpu.is_traced() {
        trace::running(cpu);
    }
    if cpu.after_switch.fetch_and(!cpu::ENDED, Ordering::Relaxed) & cpu::ENDED != 0 {
        bury(cpu);
    }
}

/// The thread we came from has left its stack for good: tells who waits for that. The scheduler's lock is held.
fn bury(cpu: &PerCpu) {
    // SAFETY: null, or a thread that the list keeps alive until `ended` has been seen.
    let Some(ended) = (unsafe { cpu.ended.replace(ptr::null()).as_ref() }) else { return };
    ended.ended.store(true, Ordering::Release);
    // SAFETY: the lock is held: the thread that left took it, and the caller releases it.
    if let (Some(joiner), Some(core)) = (ended.joiner.get(), unsafe { CORE.held() }.as_mut())
        && let Some(thread) = core.thread(joiner).cloned()
    {
        core.notify(&thread);
    }
}

/// Takes the vCPU of the current thread out of this CPU, if it has one, and watches its timer should the thread be blocked.
#[inline(always)]
fn unload(core: &mut Core, cpu: &PerCpu, current: Option<&Thread>) {
    let loaded = cpu.loaded.replace(ptr::null_mut());
    // SAFETY: null, or the vCPU of the thread that runs here, which does not touch it meanwhile.
    let Some(loaded) = (unsafe { loaded.as_mut() }) else { return };
    let put = vcpu::put(loaded, cpu);
    if !put.kick.is_empty() {
        put.partition().note_ended_interrupts();
        let others = put.kick.iter().filter_map(|vcpu| put.partition().thread(vcpu));
        others.for_each(|thread| core.notify(thread));
    }
    if let Some(thread) = current
        && thread.blocked.get()
        && let Some(id) = thread.id.get()
    {
        let wake_at = put.wake_at();
        if wake_at != Ticks::NEVER {
            core.timeouts.add(cpu.id, wake_at, id);
        }
    }
}

/// Lets the most important ready thread run; waits if there is none. Returns when the calling thread is to run.
/// Interrupts are masked, no kernel lock is held.
#[inline(always)]
pub(crate) fn reschedule() {
    run_others(false);
}

/// The same; `yields`: the calling thread lets its equals run first.
#[inline(never)]
#[unsafe(link_section = ".text.exits")]
fn run_others(yields: bool) {
    // Whatever was logged since: this is where every thread comes by sooner or later.
    console::answer_bell();
    loop {
        let cpu = cpu::this();
        let Some(core) = CORE.acquire(cpu) else { return CORE.release(cpu) };
        cpu.need_reschedule.set(false);
        let choice = core.policy.pick(cpu.id, yields, el2::cpu::counter());
        cpu.slice_end.set(choice.until);
        if !choice.kick.is_empty() {
            choice.kick.iter().for_each(interrupt::request_reschedule);
        }
        let current = cpu.current.get();
        let next = match choice.thread.and_then(|id| core.thread(id)) {
            Some(next) => Arc::as_ptr(next),
            None if choice.vacate && !current.is_null() => ptr::null(),
            None => {
                core.arm(cpu);
                CORE.release(cpu);
                wait_for_work(cpu);
                continue;
            }
        };
        // SAFETY: null, or listed in `core`, hence alive.
        let to = unsafe { next.as_ref() };
        if let Some(to) = to {
            to.presence.arrive(cpu.id);
        }
        if ptr::eq(next, current) {
            core.arm(cpu);
            CORE.release(cpu);
        } else {
            switch_to(core, cpu, to);
        }
        // SAFETY: null on the CPU's first stack, or the calling thread.
        if let Some(thread) = unsafe { current.as_ref() } {
            end_if_given_up(thread);
        }
        return;
    }
}

/// Leaves the running thread for `next`, or for the CPU's first stack if that is none. The scheduler's lock is held. Returns
/// when the calling thread is resumed, perhaps on another CPU, with the lock released.
#[inline(always)]
fn switch_to(core: &mut Core, cpu: &PerCpu, next: Option<&Thread>) {
    // SAFETY: null, or the thread that runs here, which lives.
    let current = unsafe { cpu.current.get().as_ref() };
    unload(core, cpu, current);
    let from = match current {
        Some(current) => {
            current.presence.depart();
            current.sp.as_ptr()
        }
        None => cpu.idle_sp.as_ptr(),
    };
    let to = next.map_or(&cpu.idle_sp, |next| &next.sp).get();
    cpu.current.set(next.map_or(ptr::null(), ptr::from_ref));
    core.arm_for(cpu, next);
    // SAFETY: the policy picked `next`, so it runs nowhere else and its SP is that of its last switch or its start; the
    // first stack's was stored when the idle loop left it.
    unsafe { el2::thread::switch(from, to) };
    finish_switch();
}

/// Whoever comes back here and has been given up comes no further.
#[inline(always)]
fn end_if_given_up(thread: &Thread) {
    if thread.doomed.load(Ordering::Relaxed) && thread.kernel_work.get() == 0 {
        abandon();
    }
}

fn wait_for_work(cpu: &PerCpu) {
    if cpu.is_traced() {
        return trace::wait_for_work(cpu);
    }
    while !cpu.need_reschedule.get() {
        el2::cpu::wait_for_interrupt();
        interrupt::handle();
    }
}

/// What a CPU does on its first stack, for ever: runs threads, and waits when there are none.
pub(crate) fn idle_loop() -> ! {
    el2::cpu::mask_interrupts();
    loop {
        reschedule();
    }
}

/// Gives way if something more important has become ready. Called with interrupts masked where a thread may be switched.
#[inline(always)]
pub(crate) fn preempt_if_needed() {
    if cpu::this().need_reschedule.get() && !cpu::this().current.get().is_null() {
        reschedule();
    }
}

/// To the back of the threads of equal priority. Interrupts are masked, no kernel lock is held.
#[inline(always)]
pub(crate) fn give_way() {
    run_others(true);
}
