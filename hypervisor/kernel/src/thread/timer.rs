//! EL2's timer: who waits for which moment on each CPU, and what the timer is set to.
//!
//! Answers for: timeouts of blocked threads, the end of a time slice, the moment for which a running vCPU wants the timer.
//! Does not answer for: what a thread does when it is woken, the guests' own timers (`vcpu`, `vm::timer`).

use super::{Core, Thread, current, with_core};
use crate::cpu::{self, PerCpu};
use crate::sync::Masked;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use sched::ThreadId;
use types::{CpuId, MAX_CPUS, Ticks};

struct Timeout {
    at: Ticks,
    thread: ThreadId,
}

/// The timeouts of each CPU. A thread has at most one on each: the earliest of those that it was given.
pub(super) struct Timeouts {
    /// Earliest last.
    lists: [Vec<Timeout>; MAX_CPUS],
}

impl Timeouts {
    pub(super) const fn new() -> Self {
        Self { lists: [const { Vec::new() }; MAX_CPUS] }
    }

    /// Makes room for those of `threads` threads, so that [`Timeouts::add`] never needs memory.
    pub(super) fn reserve(&mut self, threads: usize) -> Result<(), TryReserveError> {
        self.lists.iter_mut().try_for_each(|list| list.try_reserve(threads.saturating_sub(list.len())))
    }

    /// Notes that `thread` is to be woken at `at`. The first timeout that expires drops the others, so a later one than it
    /// has is none.
    pub(super) fn add(&mut self, cpu: CpuId, at: Ticks, thread: ThreadId) {
        let Some(list) = self.lists.get_mut(cpu.index()) else { return };
        if let Some(position) = list.iter().position(|timeout| timeout.thread == thread) {
            if list[position].at <= at {
                return;
            }
            list.remove(position);
        }
        let position = list.partition_point(|timeout| timeout.at > at);
        list.insert(position, Timeout { at, thread });
    }

    /// Forgets those of `thread`: it has been woken, or is no more.
    pub(super) fn remove(&mut self, thread: ThreadId) {
        for list in &mut self.lists {
            list.retain(|timeout| timeout.thread != thread);
        }
    }

    /// Takes the earliest out if its time has come.
    fn take_due(&mut self, cpu: CpuId, now: Ticks) -> Option<ThreadId> {
        let list = self.lists.get_mut(cpu.index())?;
        list.pop_if(|next| next.at <= now).map(|due| due.thread)
    }

    /// When the earliest expires.
    #[inline(always)]
    fn next(&self, cpu: CpuId) -> Ticks {
        self.lists.get(cpu.index()).and_then(|list| list.last()).map_or(Ticks::NEVER, |timeout| timeout.at)
    }
}

impl Core {
    /// Wakes whose time has come on this CPU.
    fn expire(&mut self, cpu: CpuId, now: Ticks) {
        while let Some(id) = self.timeouts.take_due(cpu, now) {
            if let Some(thread) = self.thread(id) {
                thread.presence.leave_token();
            }
            self.wake(id, now);
        }
    }

    /// Sets EL2's timer to the next thing this CPU has to do: a timeout, the end of the slice, or what the running thread
    /// wants of it.
    #[inline(never)]
    #[unsafe(link_section = ".text.exits")]
    pub(super) fn arm(&self, cpu: &PerCpu) {
        self.arm_for(cpu, running(cpu));
    }

    /// The same for who knows that `thread` runs.
    #[inline(always)]
    pub(super) fn arm_for(&self, cpu: &PerCpu, thread: Option<&Thread>) {
        let wanted = thread.map_or(Ticks::NEVER, |thread| thread.deadline.get());
        let deadline = self.timeouts.next(cpu.id).min(cpu.slice_end.get()).min(wanted);
        if cpu.armed.replace(deadline) != deadline {
            el2::state::set_hypervisor_timer(deadline);
        }
    }
}

#[inline(always)]
fn running(cpu: &PerCpu) -> Option<&Thread> {
    // SAFETY: null, or the thread that runs here, which lives.
    unsafe { cpu.current.get().as_ref() }
}

/// The running thread wants EL2's timer at `deadline`, or not any more ([`Ticks::NEVER`]); it notices by itself.
pub(crate) fn set_deadline(deadline: Ticks) {
    let _masked = Masked::new();
    if current().deadline.replace(deadline) != deadline {
        with_core(|core| core.arm(cpu::this()));
    }
}

/// EL2's timer has fired on this CPU.
pub(crate) fn timer_fired() {
    let cpu = cpu::this();
    let now = el2::cpu::counter();
    el2::state::set_hypervisor_timer(Ticks::NEVER);
    cpu.armed.set(Ticks::NEVER);
    if cpu.slice_end.get() <= now {
        cpu.slice_end.set(Ticks::NEVER);
        cpu.need_reschedule.set(true);
    }
    with_core(|core| {
        core.expire(cpu.id, now);
        // What the running thread itself waits for it sees on the way back; it arms the timer anew then.
        if let Some(thread) = running(cpu)
            && thread.deadline.get() <= now
        {
            thread.deadline.set(Ticks::NEVER);
            thread.presence.leave_token();
            if thread.blocked.get()
                && let Some(id) = thread.id.get()
            {
                core.wake(id, now);
            }
        }
        core.arm(cpu);
    });
}
