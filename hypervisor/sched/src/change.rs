//! Threads come, change and go.
//!
//! Answers for: creation, removal, and changes of priority and affinity at any moment. Does not answer for: who runs
//! (`scheduler`).

use crate::{
    parameters::{Parameters, Policy, Priority, RemoveError, SpawnError},
    placement::Requests,
    queue::End,
    scheduler::Scheduler,
    shares::ShareId,
    sporadic::NO_SERVER,
    thread::{Index, Stage, ThreadId},
};
use types::{CpuId, CpuSet};

impl Scheduler {
    /// A new thread, blocked, resident nowhere.
    ///
    /// # Errors
    /// When there is no room for it, no CPU it may run on, or its policy or share cannot be.
    pub fn spawn(&mut self, parameters: Parameters) -> Result<ThreadId, SpawnError> {
        let affinity = self.existing(parameters.affinity)?;
        let last = affinity.iter().next().ok_or(SpawnError::NoCpu)?;
        let server = match parameters.policy {
            Policy::Sporadic(server) if !server.is_sound(parameters.priority) => return Err(SpawnError::BadServer),
            Policy::Sporadic(server) => self.servers.open(server).map_err(|_| SpawnError::NoMemory)?,
            Policy::RoundRobin | Policy::Fifo => NO_SERVER,
        };
        let queue = self.join(affinity, parameters.share)?;
        let spawned = self.threads.insert(Parameters { affinity, ..parameters }, (queue, server), last);
        if spawned.is_err() {
            self.queues.leave(queue);
        }
        let index = spawned?;
        if let Some(server) = self.servers.get_mut(server) {
            server.thread = index;
            self.metered = true;
        }
        self.threads.id(index).ok_or(SpawnError::NoThread)
    }

    /// Removes a thread that is blocked and on whose stack no CPU waits. Its identifier names nobody from now on.
    ///
    /// # Errors
    /// When it is not so.
    pub fn remove(&mut self, id: ThreadId) -> Result<(), RemoveError> {
        let index = self.threads.find(id).ok_or(RemoveError::NoThread)?;
        let thread = self.threads.get(index).ok_or(RemoveError::NoThread)?;
        if thread.stage != Stage::Blocked {
            return Err(RemoveError::NotBlocked);
        }
        if thread.resident.is_some() {
            return Err(RemoveError::Resident);
        }
        self.queues.leave(thread.queue);
        self.servers.close(thread.server);
        self.threads.remove(index);
        Ok(())
    }

    /// Has the CPU that waits on a blocked thread's stack leave it, at its next pick. Returns that CPU, which has to
    /// reschedule; `None` if there is none, or if the thread is not blocked.
    #[must_use = "the CPU named has to reschedule"]
    pub fn evict(&mut self, id: ThreadId) -> Option<CpuId> {
        let thread = self.threads.get(self.threads.find(id)?)?;
        if thread.stage != Stage::Blocked {
            return None;
        }
        let cpu = thread.resident?;
        let core = self.cpus.get_mut(cpu)?;
        core.requests |= Requests::EVICT;
        core.kick(0);
        Some(cpu)
    }

    /// Changes how urgent a thread is. It goes behind its new equals unless it is running. Returns the CPU that has to
    /// reschedule, if any.
    #[must_use = "the CPU named has to reschedule"]
    pub fn set_priority(&mut self, id: ThreadId, priority: Priority) -> Option<CpuId> {
        let index = self.threads.find(id)?;
        let thread = self.threads.get(index)?;
        let (stage, resident) = (thread.stage, thread.resident);
        let queued = stage == Stage::Ready && resident.is_none();
        if queued {
            self.queues.remove(index, self.threads.entries());
        }
        let thread = self.threads.get_mut(index)?;
        let is_urgent = thread.is_urgent();
        thread.parameters.priority = priority;
        thread.set_urgent(is_urgent);
        if queued {
            return self.queue(index);
        }
        let rank = self.queues.rank(self.threads.get(index)?);
        let cpu = resident.filter(|_| stage != Stage::Blocked)?;
        self.cpus.get_mut(cpu)?.kick(rank);
        Some(cpu)
    }

    /// Changes where a thread may run. If it runs elsewhere, it goes on there until that CPU has rescheduled. Returns the
    /// CPU that has to, if any.
    ///
    /// # Errors
    /// As [`Scheduler::spawn`]; nothing has changed then.
    pub fn set_affinity(&mut self, id: ThreadId, affinity: CpuSet) -> Result<Option<CpuId>, SpawnError> {
        let index = self.threads.find(id).ok_or(SpawnError::NoThread)?;
        let affinity = self.existing(affinity)?;
        let share = self.threads.get(index).ok_or(SpawnError::NoThread)?.parameters.share;
        let queue = self.join(affinity, share)?;
        let thread = self.threads.get(index).ok_or(SpawnError::NoThread)?;
        let (stage, resident, rank) = (thread.stage, thread.resident, self.queues.rank(thread));
        self.queues.leave(thread.queue);
        let queued = stage == Stage::Ready && resident.is_none();
        if queued {
            self.queues.remove(index, self.threads.entries());
        }
        if let Some(thread) = self.threads.get_mut(index) {
            thread.queue = queue;
            thread.parameters.affinity = affinity;
        }
        if queued {
            return Ok(self.queue(index));
        }
        let stays = |cpu| stage == Stage::Blocked || (stage == Stage::Running && affinity.contains(cpu));
        let cpu = resident.filter(|&cpu| !stays(cpu));
        if let Some(core) = cpu.and_then(|cpu| self.cpus.get_mut(cpu)) {
            core.kick(rank);
        }
        Ok(cpu)
    }

    /// Queues a ready thread again, after a change.
    fn queue(&mut self, index: Index) -> Option<CpuId> {
        self.queues.push(index, End::Back, self.threads.entries());
        let thread = self.threads.get(index)?;
        self.cpus.place(thread, self.queues.rank(thread))
    }

    /// The queue for an affinity in a share, with one more user.
    fn join(&mut self, affinity: CpuSet, share: ShareId) -> Result<u8, SpawnError> {
        if !self.shares.exists(share) {
            return Err(SpawnError::NoShare);
        }
        let queue = self.queues.join(affinity, share, self.shares.has_time(share))?;
        self.queues.connect(queue, self.cpus.queue_sets());
        Ok(queue)
    }

    /// Those of `cpus` that the machine has.
    fn existing(&self, cpus: CpuSet) -> Result<CpuSet, SpawnError> {
        let existing = cpus.intersection(CpuSet::first(self.cpus.count()));
        if existing.is_empty() { Err(SpawnError::NoCpu) } else { Ok(existing) }
    }
}
