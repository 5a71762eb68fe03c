//! What can be seen of threads: the rows of `pidin`.

use crate::{
    parameters::{Parameters, Priority},
    scheduler::Scheduler,
    thread::{Stage, ThreadId},
};
use types::{CpuId, Ticks};

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It waits for a wake.
    Blocked,
    /// It waits for a CPU.
    Ready,
    /// It runs.
    Running(CpuId),
}

/// A thread as it is at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Priority, policy, affinity and share.
    pub parameters: Parameters,
    /// Its priority now: another one than its own if it is a sporadic server without budget.
    pub priority: Priority,
    /// The CPU on whose stack it is, running or not.
    pub resident: Option<CpuId>,
    /// Where it ran last.
    pub last: CpuId,
    /// How long it has had a CPU.
    pub run_time: Ticks,
    /// How long it has been ready without a CPU.
    pub waiting_time: Ticks,
}

impl Scheduler {
    /// What a thread is doing at `now`; `None` if it does not exist (any more).
    #[must_use]
    pub fn status(&self, id: ThreadId, now: Ticks) -> Option<Status> {
        let thread = self.threads.get(self.threads.find(id)?)?;
        let (mut run_time, mut waiting_time) = (thread.run_time, thread.waiting_time);
        let state = match (thread.stage, thread.resident) {
            (Stage::Running, Some(cpu)) => {
                let since = self.cpus.get(cpu).map_or(now, |cpu| cpu.since);
                run_time = run_time.saturating_add(now.saturating_sub(since));
                State::Running(cpu)
            }
            (Stage::Ready, _) => {
                waiting_time = waiting_time.saturating_add(now.saturating_sub(thread.ready_since));
                State::Ready
            }
            _ => State::Blocked,
        };
        let (parameters, resident, last) = (thread.parameters, thread.resident, thread.last);
        let priority = Priority::new(thread.priority).unwrap_or(parameters.priority);
        Some(Status { state, parameters, priority, resident, last, run_time, waiting_time })
    }

    /// All threads, in no particular order.
    pub fn threads(&self) -> impl Iterator<Item = ThreadId> {
        self.threads.ids()
    }

    /// Who runs on `cpu`.
    #[must_use]
    pub fn current(&self, cpu: CpuId) -> Option<ThreadId> {
        let resident = self.cpus.get(cpu)?.resident;
        let thread = self.threads.get(resident).filter(|thread| thread.stage == Stage::Running)?;
        Some(thread.id(resident))
    }
}
