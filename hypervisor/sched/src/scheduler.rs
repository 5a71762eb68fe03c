//! The scheduler.
//!
//! Answers for: waking, blocking, and picking who runs. Does not answer for: which CPU is told of a ready thread
//! (`placement`), the order of ready threads (`queue`), creation and changes (`change`).
//!
//! # What holds
//!
//! Once every CPU that was named in an answer has picked: no CPU runs a thread, or nothing, while a more urgent one that may
//! run there is ready. Between, a CPU that has been told to come counts as busy with what it was called for, so that two
//! threads woken in a row call two idle CPUs; and having come, it looks after those that it was called for and did not
//! take.

use crate::{
    parameters::Policy,
    placement::Cpus,
    queue::{End, Queues},
    thread::{Index, NONE, Stage, ThreadId, Threads},
};
use types::{CpuId, CpuSet, MAX_CPUS, Ticks};

/// Who runs on a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a pick is to be carried out"]
pub struct Choice {
    /// The thread that is to run; `None`: nothing, wait for an interrupt.
    pub thread: Option<ThreadId>,
    /// When to pick again at the latest; [`Ticks::NEVER`] if the thread has no equal that waits for its turn.
    pub until: Ticks,
    /// With `thread` `None`: wait on the CPU's own boot stack, not on that of the resident thread, which is saved first
    /// and free to run elsewhere or to be removed.
    pub vacate: bool,
    /// Other CPUs that have to reschedule.
    pub kick: CpuSet,
}

impl Choice {
    const NOTHING: Self = Self { thread: None, until: Ticks::NEVER, vacate: false, kick: CpuSet::EMPTY };
}

/// The resident thread of a CPU that picks, if it could run.
#[derive(Clone, Copy)]
struct Own {
    index: Index,
    priority: u8,
    /// Where it goes if it does not stay.
    end: End,
    /// Whether it may run here.
    allowed: bool,
}

/// The state of all threads and CPUs. Its owner calls it with a lock held and interrupts masked.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) threads: Threads,
    pub(crate) queues: Queues,
    pub(crate) cpus: Cpus,
    slice: Ticks,
}

impl Scheduler {
    /// For so many CPUs (at most 16), a round-robin slice, and room for so many threads (at most 65,535). Takes all the
    /// memory that it will ever need. A CPU takes part from its first [`Scheduler::pick`] on.
    #[must_use]
    pub fn new(cpus: usize, slice: Ticks, capacity: usize) -> Self {
        let cpus = cpus.min(MAX_CPUS);
        let (threads, queues) = (Threads::new(capacity), Queues::new(cpus));
        Self { threads, queues, cpus: Cpus::new(cpus), slice: Ticks(slice.0.max(1)) }
    }

    /// The thread no longer waits. Returns the CPU that has to reschedule, if any, perhaps the caller's own. A thread that
    /// was not blocked will not block the next time it wants to.
    #[must_use = "the CPU named has to reschedule"]
    pub fn wake(&mut self, id: ThreadId, now: Ticks) -> Option<CpuId> {
        let index = self.threads.find(id)?;
        let slice = self.slice;
        let thread = self.threads.get_mut(index)?;
        if thread.stage != Stage::Blocked {
            thread.woken = true;
            return None;
        }
        thread.stage = Stage::Ready;
        thread.slice = slice;
        thread.ready_since = now;
        if let Some(cpu) = thread.resident {
            let priority = thread.parameters.priority.get();
            return Some(self.cpus.kick(cpu, priority));
        }
        self.queues.push(index, End::Back, &mut self.threads);
        self.cpus.place(index, &self.threads)
    }

    /// The current thread of `cpu` waits from now on, unless it has been woken since it last came back from here. It stays
    /// resident. A [`Scheduler::pick`] has to follow.
    pub fn block(&mut self, cpu: CpuId, now: Ticks) {
        self.charge(cpu, now);
        let Some(core) = self.cpus.get_mut(cpu) else { return };
        let Some(thread) = self.threads.get_mut(core.current) else { return };
        if thread.woken {
            thread.woken = false;
            return;
        }
        thread.stage = Stage::Blocked;
        core.current = NONE;
        core.level = 0;
        core.lonely = false;
    }

    /// The current thread of `cpu` lets its equals go first. A [`Scheduler::pick`] has to follow.
    pub fn yield_now(&mut self, cpu: CpuId) {
        if let Some(core) = self.cpus.get_mut(cpu) {
            core.yielded = true;
        }
    }

    /// Decides what `cpu` runs from `now` on, and makes it current.
    pub fn pick(&mut self, cpu: CpuId, now: Ticks) -> Choice {
        self.charge(cpu, now);
        let own = self.own(cpu);
        let best = self.queues.best(cpu, &self.threads);
        let Some(core) = self.cpus.get_mut(cpu) else { return Choice::NOTHING };
        let (kicked, evict, resident) = (core.kicked, core.evict, core.resident);
        (core.kicked, core.evict, core.yielded) = (false, false, false);

        let stays = own.filter(|own| {
            let first = |priority| own.priority > priority || (own.priority == priority && own.end == End::Front);
            own.allowed && best.is_none_or(|best| first(best.priority))
        });
        let chosen = match (stays, best) {
            (Some(own), _) => own.index,
            (None, Some(best)) => best.index,
            (None, None) => NONE,
        };
        // Nothing to run, and not to stay where it is: `own`, if any, may not run here.
        let vacate = chosen == NONE && resident != NONE && (evict || own.is_some());
        if own.is_some_and(|own| own.end == End::Back) {
            self.refill(resident);
        }
        if chosen != resident && (chosen != NONE || vacate) {
            if chosen != NONE {
                self.queues.remove(chosen, &mut self.threads);
            }
            self.displace(resident, own, now);
        }
        let until = self.run(cpu, chosen, vacate, now);

        let mut kick = CpuSet::EMPTY;
        if stays.is_none()
            && let Some(own) = own
            && let Some(other) = self.cpus.place(own.index, &self.threads)
        {
            kick.insert(other);
        }
        if kicked {
            self.look_after_others(cpu, &mut kick);
        }
        let thread = self.threads.id(chosen);
        Choice { thread, until, vacate, kick }
    }

    /// Accounts for the time that the current thread of `cpu` has had. What else is paid for in time is charged here.
    fn charge(&mut self, cpu: CpuId, now: Ticks) {
        let Some(core) = self.cpus.get_mut(cpu) else { return };
        let used = now.saturating_sub(core.since);
        core.since = now;
        if let Some(thread) = self.threads.get_mut(core.current) {
            thread.run_time = thread.run_time.saturating_add(used);
            thread.slice = thread.slice.saturating_sub(used);
        }
    }

    /// The resident thread of `cpu`, if it runs or has been woken.
    fn own(&self, cpu: CpuId) -> Option<Own> {
        let core = self.cpus.get(cpu)?;
        let thread = self.threads.get(core.resident)?;
        let expired = thread.parameters.policy == Policy::RoundRobin && thread.slice == Ticks(0);
        let end = match thread.stage {
            Stage::Running if !expired && !core.yielded => End::Front,
            Stage::Running | Stage::Ready => End::Back,
            Stage::Blocked | Stage::Free => return None,
        };
        let (priority, allowed) = (thread.parameters.priority.get(), thread.parameters.affinity.contains(cpu));
        Some(Own { index: core.resident, priority, end, allowed })
    }

    /// A whole slice for a thread at the back.
    fn refill(&mut self, index: Index) {
        let slice = self.slice;
        if let Some(thread) = self.threads.get_mut(index) {
            thread.slice = slice;
        }
    }

    /// The CPU leaves the stack of `resident`, which is queued if it could run.
    fn displace(&mut self, resident: Index, own: Option<Own>, now: Ticks) {
        let Some(thread) = self.threads.get_mut(resident) else { return };
        thread.resident = None;
        let Some(own) = own else { return };
        if thread.stage == Stage::Running {
            thread.stage = Stage::Ready;
            thread.ready_since = now;
        }
        self.queues.push(resident, own.end, &mut self.threads);
    }

    /// Makes `chosen` (or nobody) current on `cpu`; says until when.
    fn run(&mut self, cpu: CpuId, chosen: Index, vacate: bool, now: Ticks) -> Ticks {
        let (mut level, mut until, mut lonely) = (0, Ticks::NEVER, false);
        if let Some(thread) = self.threads.get_mut(chosen) {
            if thread.stage == Stage::Ready {
                thread.waiting_time = thread.waiting_time.saturating_add(now.saturating_sub(thread.ready_since));
            }
            thread.stage = Stage::Running;
            thread.resident = Some(cpu);
            thread.last = cpu;
            level = thread.parameters.priority.get();
            if thread.parameters.policy == Policy::RoundRobin {
                lonely = !self.queues.heads(cpu).any(|head| head.priority == level);
                until = if lonely { Ticks::NEVER } else { now.saturating_add(thread.slice) };
            }
        }
        if let Some(core) = self.cpus.get_mut(cpu) {
            core.current = chosen;
            core.level = level;
            core.lonely = lonely;
            if chosen != NONE || vacate {
                core.resident = chosen;
            }
        }
        until
    }

    /// The CPU was called, perhaps for several threads, and has taken one: calls others for the rest. They do the same in
    /// turn, so the best of each queue is enough.
    fn look_after_others(&mut self, cpu: CpuId, kick: &mut CpuSet) {
        for head in self.queues.heads(cpu) {
            if let Some(other) = self.cpus.place(head.index, &self.threads) {
                kick.insert(other);
            }
        }
    }
}

#[cfg(test)]
mod tests;
