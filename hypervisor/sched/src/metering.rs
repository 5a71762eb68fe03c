//! Threads whose time is measured: sporadic servers and shares.
//!
//! Answers for: changes of urgency that the passing of time makes, and when a CPU has to look for the next one. Does not
//! answer for: the accounts themselves (`sporadic`, `shares`). Nothing here runs unless there is a sporadic server or a share.
//!
//! A thread that is out of budget and ready becomes urgent again when time comes back. Some CPU has to see to that: the one
//! that ran it last, or was called for it; that CPU's [`crate::Choice::until`] is no later than the moment.

use crate::{
    parameters::{Policy, ShareError},
    placement::{Cpu, Requests},
    queue::{End, QueueSet},
    scheduler::Scheduler,
    shares::ShareId,
    thread::{Index, Stage, Thread},
};
use types::{CpuId, CpuSet, Ticks};

impl Scheduler {
    /// Guarantees a new share of `percent` of the machine's time, measured over `window`, which is the same for all of them,
    /// to the threads that will be in it. The system's share is what the others leave over.
    ///
    /// # Errors
    /// When less than that is left, or there are too many.
    pub fn define_share(&mut self, percent: u8, window: Ticks) -> Result<ShareId, ShareError> {
        let id = self.shares.define(percent, window, self.cpus.count())?;
        self.metered = true;
        Ok(id)
    }

    /// Changes what a share, which is not the system's, is guaranteed. Takes effect when a CPU picks next.
    ///
    /// # Errors
    /// When less than that is left.
    pub fn redefine_share(&mut self, id: ShareId, percent: u8) -> Result<(), ShareError> {
        self.shares.redefine(id, percent)
    }

    /// What a share is guaranteed in percent, and how much of the last window it has used, with the machine's whole time in
    /// one.
    #[must_use]
    pub fn share(&self, id: ShareId) -> (u8, Ticks, Ticks) {
        let (used, capacity) = self.shares.used(id);
        (self.shares.percent(id), used, capacity)
    }

    /// `cpu` picks at `now`: charges who has run there, and does what is due by then. Returns the CPUs that have to
    /// reschedule.
    #[cold]
    #[inline(never)]
    pub(crate) fn settle(&mut self, cpu: CpuId, now: Ticks) -> CpuSet {
        let mut kick = CpuSet::EMPTY;
        self.spend(cpu, now);
        if self.shares.are_defined() {
            self.charge(now);
            self.shares.advance(now);
            self.review(&mut kick);
        }
        let Some(core) = self.cpus.get_mut(cpu) else { return kick };
        let resident = core.resident;
        if let Some(thread) = self.threads.get_mut(resident)
            && let Some(server) = self.servers.get_mut(thread.server)
            && thread.stage == Stage::Running
            && thread.is_urgent()
        {
            server.replenish(now);
            if !server.is_urgent() {
                server.close(now);
                server.replenish(now);
                server.watch = cpu;
                core.event = core.event.min(server.next());
                thread.set_urgent(server.is_urgent());
                core.requests |= Requests::YIELDED;
            }
        }
        if core.event <= now {
            self.replenish(cpu, now, &mut kick);
        }
        kick.remove(cpu);
        kick
    }

    /// The current thread of `cpu` blocks.
    #[cold]
    #[inline(never)]
    pub(crate) fn settle_blocked(&mut self, cpu: CpuId, now: Ticks) {
        if let Some(number) = self.spend(cpu, now)
            && let Some(server) = self.servers.get_mut(number)
        {
            server.close(now);
        }
        self.charge(now);
    }

    /// A thread becomes ready: it gets what has come back meanwhile.
    #[cold]
    #[inline(never)]
    pub(crate) fn settle_woken(&mut self, index: Index, now: Ticks) {
        if let Some(thread) = self.threads.get_mut(index)
            && let Some(server) = self.servers.get_mut(thread.server)
        {
            server.replenish(now);
            thread.set_urgent(server.is_urgent());
        }
    }

    /// A thread has been woken and `called` has to reschedule, if there is a CPU for it. If the thread has to become urgent
    /// later, some CPU has to be told so: returns it.
    #[cold]
    #[inline(never)]
    pub(crate) fn watch(&mut self, index: Index, called: Option<CpuId>) -> Option<CpuId> {
        let thread = self.threads.get(index)?;
        let server = self.servers.get_mut(thread.server).filter(|_| !thread.is_urgent());
        let Some(server) = server else { return called };
        // A thread that has no budget has run, so the CPU where it ran last is there.
        server.watch = called.unwrap_or(thread.last);
        let core = self.cpus.get_mut(server.watch)?;
        core.event = core.event.min(server.next());
        core.kick(0);
        Some(server.watch)
    }

    /// Until when the choice of `cpu` at `now` holds, if it would hold `until` then.
    #[cold]
    #[inline(never)]
    pub(crate) fn limit(&mut self, cpu: CpuId, now: Ticks, until: Ticks) -> Ticks {
        let until = until.min(self.share_end(cpu, now));
        let Some(core) = self.cpus.get_mut(cpu) else { return until };
        let mut end = Ticks::NEVER;
        if let Some(thread) = self.threads.get(core.resident).filter(|thread| thread.stage == Stage::Running)
            && let Some(server) = self.servers.get_mut(thread.server)
        {
            if thread.is_urgent() {
                end = now.saturating_add(server.capacity());
            } else {
                server.watch = cpu;
                core.event = core.event.min(server.next());
            }
        }
        until.min(end).min(core.event).max(now.saturating_add(Ticks(1)))
    }

    /// When the share of the thread that runs on `cpu` has used up its time, if it goes on as it does, or gets some back.
    fn share_end(&self, cpu: CpuId, now: Ticks) -> Ticks {
        let share = |core: &Cpu| {
            let thread = self.threads.get(core.resident).filter(|thread| thread.stage == Stage::Running)?;
            Some(thread.parameters.share)
        };
        let Some(own) = self.cpus.get(cpu).and_then(share).filter(|_| self.shares.are_defined()) else {
            return Ticks::NEVER;
        };
        let running = self.cpus.iter().filter(|core| share(core) == Some(own)).count();
        let each = self.shares.left(own).0.div_ceil(u64::try_from(running).unwrap_or(1).max(1));
        let end = if each == 0 { Ticks::NEVER } else { now.saturating_add(Ticks(each)) };
        end.min(self.shares.next())
    }

    /// Charges the server that runs on `cpu`, if it is one and urgent, for what it has had since the last time. Its number.
    fn spend(&mut self, cpu: CpuId, now: Ticks) -> Option<u16> {
        let core = self.cpus.get(cpu)?;
        let thread = self.threads.get(core.resident).filter(|thread| thread.stage == Stage::Running)?;
        let server = self.servers.get_mut(thread.server).filter(|_| thread.is_urgent())?;
        server.spend(now.saturating_sub(core.since));
        Some(thread.server)
    }

    /// Charges the shares of all threads that run, wherever: each of them may come to its end by what happens on other CPUs.
    fn charge(&mut self, now: Ticks) {
        for core in self.cpus.iter_mut() {
            let since = core.charged.max(core.since);
            core.charged = now;
            if let Some(thread) = self.threads.get(core.resident).filter(|thread| thread.stage == Stage::Running) {
                self.shares.charge(thread.parameters.share, now.saturating_sub(since));
            }
        }
    }

    /// Time has come back to threads that `cpu` watches: they are urgent again, behind their equals.
    fn replenish(&mut self, cpu: CpuId, now: Ticks, kick: &mut CpuSet) {
        let mut next = Ticks::NEVER;
        for number in 0..self.servers.len() {
            let Some(server) = self.servers.get_mut(number) else { continue };
            let index = server.thread;
            let Some(thread) = self.threads.get(index) else { continue };
            // A thread that waits for a wake gets what is due when that comes.
            let is_asleep = matches!(thread.stage, Stage::Blocked | Stage::Free);
            if server.watch != cpu || thread.is_urgent() || is_asleep {
                continue;
            }
            server.replenish(now);
            if server.is_urgent() {
                self.raise(index, kick);
            } else {
                next = next.min(server.next());
            }
        }
        if let Some(core) = self.cpus.get_mut(cpu) {
            core.event = next;
        }
    }

    /// A ready or running thread is urgent from now on.
    fn raise(&mut self, index: Index, kick: &mut CpuSet) {
        let Some(thread) = self.threads.get(index) else { return };
        let (stage, resident) = (thread.stage, thread.resident);
        if stage == Stage::Ready && resident.is_none() {
            self.queues.remove(index, self.threads.entries());
        }
        let Some(thread) = self.threads.get_mut(index) else { return };
        thread.set_urgent(true);
        let rank = self.queues.rank(thread);
        match resident {
            Some(cpu) => {
                if let Some(core) = self.cpus.get_mut(cpu) {
                    core.kick(rank);
                    if stage == Stage::Running {
                        core.requests |= Requests::YIELDED;
                    }
                }
                kick.insert(cpu);
            }
            None => {
                self.queues.push(index, End::Back, self.threads.entries());
                self.place_into(index, kick);
            }
        }
    }

    /// Looks which shares have time left, and has threads and CPUs change places where that has changed.
    fn review(&mut self, kick: &mut CpuSet) {
        let mut changed = false;
        for id in self.shares.ids() {
            if let Some(has_time) = self.shares.change(id) {
                self.queues.set_first(id, has_time);
                changed = true;
            }
        }
        if !changed {
            return;
        }
        for core in self.cpus.iter_mut().filter(|core| !core.requests.contains(Requests::KICKED)) {
            let running = self.threads.get(core.resident).filter(|thread| thread.stage == Stage::Running);
            if let Some(thread) = running {
                core.level = self.queues.rank(thread);
            }
        }
        let heads: arrayvec::ArrayVec<Index, 64> = self.queues.heads(QueueSet::ALL).map(|head| head.index).collect();
        heads.into_iter().for_each(|index| self.place_into(index, kick));
    }

    fn place_into(&mut self, index: Index, kick: &mut CpuSet) {
        let Some(thread) = self.threads.get(index) else { return };
        if let Some(cpu) = self.cpus.place(thread, self.queues.rank(thread)) {
            kick.insert(cpu);
        }
    }
}

impl Thread {
    /// Whether it has its own priority, not the low one of a server without budget.
    pub(crate) fn is_urgent(&self) -> bool {
        self.priority == self.parameters.priority.get()
    }

    /// Gives it its own priority, or the low one.
    pub(crate) fn set_urgent(&mut self, is_urgent: bool) {
        self.priority = match self.parameters.policy {
            Policy::Sporadic(server) if !is_urgent => server.low.get(),
            _ => self.parameters.priority.get(),
        };
    }
}
