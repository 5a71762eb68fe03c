//! Where a ready thread goes.
//!
//! Answers for: which CPU has to be told that there is something for it. Does not answer for: what that CPU then runs: it
//! picks the best there is, perhaps another thread by then (`scheduler`).

use crate::{
    queue::QueueSet,
    thread::{Index, NONE, Thread},
};
use bitflags::bitflags;
use types::{CpuId, MAX_CPUS, Ticks};

bitflags! {
    /// What a CPU is to take into account at its next pick.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Requests: u8 {
        /// It has been told to come: there was something for it.
        const KICKED = 1 << 0;
        /// It is to leave the stack it is on.
        const EVICT = 1 << 1;
        /// Its thread has given up its turn.
        const YIELDED = 1 << 2;
    }
}

/// What is known of a CPU.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    /// The queues it looks into.
    pub(crate) queues: QueueSet,
    /// Since when the thread that it runs has not been charged.
    pub(crate) since: Ticks,
    /// Until when the share of that thread has been charged, if that is later.
    pub(crate) charged: Ticks,
    /// When a thread that it watches becomes urgent again, at the earliest.
    pub(crate) event: Ticks,
    /// On whose stack it is, running or waiting; `NONE` for its own.
    pub(crate) resident: Index,
    /// Rank of what it runs or has been called for, whichever is higher; 0 when idle.
    pub(crate) level: u16,
    pub(crate) requests: Requests,
    /// It runs a round-robin thread without time limit.
    pub(crate) lonely: bool,
}

impl Cpu {
    /// A CPU that has not picked yet: as busy as can be, so that nobody waits for it. Its first pick counts as asked for.
    const OFFLINE: Self = Self {
        queues: QueueSet::EMPTY,
        since: Ticks(0),
        charged: Ticks(0),
        event: Ticks::NEVER,
        resident: NONE,
        level: u16::MAX,
        requests: Requests::KICKED,
        lonely: false,
    };

    /// Notes that it is asked to pick, for something of this rank: it counts as that busy until it has.
    pub(crate) fn kick(&mut self, rank: u16) {
        self.requests |= Requests::KICKED;
        self.level = self.level.max(rank);
    }
}

/// All CPUs.
#[derive(Debug)]
pub(crate) struct Cpus {
    cpus: [Cpu; MAX_CPUS],
    count: usize,
}

impl Cpus {
    /// At most [`MAX_CPUS`].
    pub(crate) fn new(count: usize) -> Self {
        Self { cpus: [const { Cpu::OFFLINE }; MAX_CPUS], count: count.min(MAX_CPUS) }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.get(id.index())
    }

    pub(crate) fn get_mut(&mut self, id: CpuId) -> Option<&mut Cpu> {
        self.cpus.get_mut(id.index())
    }

    /// All that the machine has.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().take(self.count)
    }

    /// The same.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Cpu> {
        self.cpus.iter_mut().take(self.count)
    }

    /// The queue sets of all CPUs, in their order.
    pub(crate) fn queue_sets(&mut self) -> impl Iterator<Item = &mut QueueSet> {
        self.cpus.iter_mut().map(|cpu| &mut cpu.queues)
    }

    /// The CPU that is to come for a queued thread of this rank: where it ran last if that is idle, else the one with the least urgent
    /// to do, if that is less urgent than the thread. If all are as urgent, one that runs without a time limit because it
    /// knew of no equal. `None` if the thread has to wait for its turn.
    #[inline(never)]
    pub(crate) fn place(&mut self, thread: &Thread, rank: u16) -> Option<CpuId> {
        let mut least: Option<(u16, CpuId)> = None;
        let mut lonely = None;
        for id in thread.parameters.affinity.iter() {
            let cpu = self.get(id)?;
            if cpu.level < rank {
                if least.is_none_or(|(level, _)| cpu.level < level || (cpu.level == level && id == thread.last)) {
                    least = Some((cpu.level, id));
                }
            } else if cpu.level == rank && cpu.lonely && !cpu.requests.contains(Requests::KICKED) {
                lonely = Some(id);
            }
        }
        let chosen = least.map(|(_, id)| id).or(lonely)?;
        self.get_mut(chosen)?.kick(rank);
        Some(chosen)
    }
}
