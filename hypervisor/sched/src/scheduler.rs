//! The scheduler.
//!
//! Answers for: waking, blocking, and picking who runs. Does not answer for: which CPU is told of a ready thread
//! (`placement`), the order of ready threads (`queue`), creation and changes (`change`), budgets (`metering`).
//!
//! # What holds
//!
//! Once every CPU that was named in an answer has picked: no CPU runs a thread, or nothing, while a more urgent one that may
//! run there is ready. (More urgent: of a share that has time left when the other has not, else of a higher priority.)
//! Between, a CPU that has been told to come counts as busy with what it was called for, so that two
//! threads woken in a row call two idle CPUs; and having come, it looks after those that it was called for and did not
//! take.

use crate::{
    parameters::Policy,
    placement::{Cpu, Cpus, Requests},
    queue::{End, Head, Queues},
    shares::Shares,
    sporadic::Servers,
    thread::{Index, NONE, Stage, Thread, ThreadId, Threads},
};
use types::{CpuId, CpuSet, MAX_CPUS, Ticks};

/// Who runs on a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a pick is to be carried out"]
pub struct Choice {
    /// The thread that is to run; `None`: nothing, wait for an interrupt.
    pub thread: Option<ThreadId>,
    /// When to pick again at the latest, whether a thread runs or not: the slice or the budget of the thread is over, or time
    /// comes back to another one. [`Ticks::NEVER`] if nothing of the kind is to be expected.
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
struct Own {
    /// 0: it could not.
    rank: u16,
    /// Where it goes if it does not stay.
    end: End,
    /// Whether it may run here.
    allowed: bool,
    /// Its ready queue.
    queue: u8,
}

impl Own {
    const NONE: Self = Self { rank: 0, end: End::Back, allowed: false, queue: 0 };

    /// Whether it goes on rather than `best`: it is more urgent, or as urgent and its turn is not over.
    #[inline(always)]
    fn stays(&self, best: &Head) -> bool {
        let claim = self.rank.wrapping_add(u16::from(self.end == End::Front));
        self.allowed && claim > best.rank
    }
}

/// The state of all threads and CPUs. Its owner calls it with a lock held and interrupts masked.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) threads: Threads,
    pub(crate) queues: Queues,
    pub(crate) cpus: Cpus,
    pub(crate) servers: Servers,
    pub(crate) shares: Shares,
    /// There is a sporadic server or a share: the passing of time changes who goes first.
    pub(crate) metered: bool,
    slice: Ticks,
}

impl Scheduler {
    /// For so many CPUs (at most 16), a round-robin slice, and room for so many threads (at most 65,535). Takes all the
    /// memory that it will ever need, but for shares and sporadic servers. A CPU takes part from its first
    /// [`Scheduler::pick`] on.
    #[must_use]
    pub fn new(cpus: usize, slice: Ticks, capacity: usize) -> Self {
        let cpus = cpus.min(MAX_CPUS);
        let (threads, queues) = (Threads::new(capacity), Queues::new(cpus));
        let (servers, shares) = (Servers::new(), Shares::new());
        Self { threads, queues, cpus: Cpus::new(cpus), servers, shares, metered: false, slice: Ticks(slice.0.max(1)) }
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
        if self.metered {
            self.settle_woken(index, now);
        }
        let thread = self.threads.get(index)?;
        let rank = self.queues.rank(thread);
        let called = if let Some(cpu) = thread.resident {
            self.cpus.get_mut(cpu)?.kick(rank);
            Some(cpu)
        } else {
            self.queues.push(index, End::Back, self.threads.entries());
            self.cpus.place(self.threads.get(index)?, rank)
        };
        if self.metered { self.watch(index, called) } else { called }
    }

    /// The current thread of `cpu` waits from now on, unless it has been woken since it last came back from here. It stays
    /// resident. A [`Scheduler::pick`] has to follow.
    pub fn block(&mut self, cpu: CpuId, now: Ticks) {
        let Some(core) = self.cpus.get_mut(cpu) else { return };
        let Some(thread) = self.threads.get_mut(core.resident) else { return };
        if thread.stage != Stage::Running {
            return;
        }
        if thread.woken {
            thread.woken = false;
            return;
        }
        if self.metered {
            self.settle_blocked(cpu, now);
        }
        let Some(core) = self.cpus.get_mut(cpu) else { return };
        let Some(thread) = self.threads.get_mut(core.resident) else { return };
        thread.charge(now.saturating_sub(core.since));
        thread.stage = Stage::Blocked;
        core.level = 0;
    }

    /// Decides what `cpu` runs from `now` on, and makes it current. `yields`: its current thread lets its equals go first.
    pub fn pick(&mut self, cpu: CpuId, yields: bool, now: Ticks) -> Choice {
        let mut kick = if self.metered { self.settle(cpu, now) } else { CpuSet::EMPTY };
        let threads = self.threads.entries();
        let Some(core) = self.cpus.get_mut(cpu) else { return Choice::NOTHING };
        let requests = core::mem::replace(&mut core.requests, Requests::empty());
        let yields = yields || requests.contains(Requests::YIELDED);
        let mut best = Head::NONE;
        self.queues.find_best(core.queues, threads, &mut best);
        let resident = core.resident;
        let mut own = Own::NONE;
        if let Some(thread) = threads.get_mut(usize::from(resident))
            && let Some(end) = contend(thread, core.since, yields, self.slice, now)
        {
            own.rank = self.queues.rank(thread);
            own.end = end;
            own.allowed = thread.parameters.affinity.contains(cpu);
            own.queue = thread.queue;
        }
        core.since = now;

        let (mut thread, mut until, mut vacate) = (None, Ticks::NEVER, false);
        if own.stays(&best) {
            (thread, until) = run(core, threads, (own.rank, own.rank == best.rank), cpu, now);
        } else if best.rank != 0 {
            let takes_turns = own.rank == best.rank && own.queue == best.queue && own.end == End::Back;
            let equals = if takes_turns {
                // The usual case: equals share a CPU.
                leave(resident, threads, now);
                self.queues.rotate(&best, resident, threads);
                true
            } else {
                leave_into(resident, threads, &own, &mut self.queues, now);
                let more = self.queues.remove_head(&best, threads);
                more || best.tie || (own.allowed && own.rank == best.rank)
            };
            core.resident = best.index;
            (thread, until) = run(core, threads, (best.rank, equals), cpu, now);
        } else {
            // Nothing to run; nor to stay where it is, if `own` is there, for then that may not run here.
            vacate = resident != NONE && (own.rank != 0 || requests.contains(Requests::EVICT));
            if vacate {
                leave_into(resident, threads, &own, &mut self.queues, now);
                core.resident = NONE;
            }
            (core.level, core.lonely) = (0, false);
        }
        if own.rank != 0
            && resident != core.resident
            && let Some(thread) = threads.get(usize::from(resident))
            && thread.parameters.affinity != CpuSet::of(cpu)
            && let Some(other) = self.cpus.place(thread, self.queues.rank(thread))
        {
            kick.insert(other);
        }
        if requests.contains(Requests::KICKED) {
            self.look_after_others(cpu, &mut kick);
        }
        if self.metered {
            until = self.limit(cpu, now, until);
        }
        Choice { thread, until, vacate, kick }
    }

    /// The CPU was called, perhaps for several threads, and has taken one: calls others for the rest. They do the same in
    /// turn, so the best of each queue is enough.
    #[cold]
    #[inline(never)]
    fn look_after_others(&mut self, cpu: CpuId, kick: &mut CpuSet) {
        let Some(set) = self.cpus.get(cpu).map(|core| core.queues) else { return };
        for head in self.queues.heads(set) {
            if let Some(thread) = self.threads.get(head.index)
                && let Some(other) = self.cpus.place(thread, head.rank)
            {
                kick.insert(other);
            }
        }
    }
}

/// How the resident thread of a CPU takes part in its pick, having been charged for the time it had: where it goes if it does
/// not stay. `None` if it is blocked.
#[inline(always)]
fn contend(thread: &mut Thread, since: Ticks, yields: bool, slice: Ticks, now: Ticks) -> Option<End> {
    let end = match thread.stage {
        Stage::Running => {
            thread.charge(now.saturating_sub(since));
            let expired = thread.parameters.policy == Policy::RoundRobin && thread.slice == Ticks(0);
            if expired || yields { End::Back } else { End::Front }
        }
        Stage::Ready => End::Back,
        Stage::Blocked | Stage::Free => return None,
    };
    if end == End::Back {
        thread.slice = slice;
    }
    Some(end)
}

/// A CPU leaves the stack of `resident`, which waits for a CPU if it could run.
#[inline(always)]
fn leave(resident: Index, threads: &mut [Thread], now: Ticks) {
    let Some(thread) = threads.get_mut(usize::from(resident)) else { return };
    thread.resident = None;
    if thread.stage == Stage::Running {
        thread.stage = Stage::Ready;
        thread.ready_since = now;
    }
}

/// The same, and it is queued.
#[inline(never)]
fn leave_into(resident: Index, threads: &mut [Thread], own: &Own, queues: &mut Queues, now: Ticks) {
    leave(resident, threads, now);
    if own.rank != 0 {
        queues.push(resident, own.end, threads);
    }
}

/// Makes the resident thread of a CPU current, and says until when; `equals` is whether others of its rank wait for a turn
/// there.
#[inline]
fn run(
    core: &mut Cpu,
    threads: &mut [Thread],
    (rank, equals): (u16, bool),
    cpu: CpuId,
    now: Ticks,
) -> (Option<ThreadId>, Ticks) {
    let Some(thread) = threads.get_mut(usize::from(core.resident)) else { return (None, Ticks::NEVER) };
    thread.start(cpu, now);
    let robin = thread.parameters.policy == Policy::RoundRobin;
    core.level = rank;
    core.lonely = robin && !equals;
    let until = if robin && equals { now.saturating_add(thread.slice) } else { Ticks::NEVER };
    (Some(thread.id(core.resident)), until)
}

#[cfg(test)]
mod tests;
