//! Where a ready thread goes.
//!
//! Answers for: which CPU has to be told that there is something for it. Does not answer for: what that CPU then runs: it
//! picks the best there is, perhaps another thread by then (`scheduler`).

use crate::thread::{Index, NONE, Threads};
use alloc::{vec, vec::Vec};
use types::{CpuId, Ticks};

/// What is known of a CPU.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    /// Who runs, or `NONE`.
    pub(crate) current: Index,
    /// On whose stack it is, or `NONE` for its own.
    pub(crate) resident: Index,
    /// Since when `current` has not been charged.
    pub(crate) since: Ticks,
    /// Priority of what it runs or has been called for, whichever is higher; 0 when idle.
    pub(crate) level: u8,
    /// It has been told to pick.
    pub(crate) kicked: bool,
    /// It runs a round-robin thread without time limit.
    pub(crate) lonely: bool,
    /// `current` has given up its turn.
    pub(crate) yielded: bool,
    /// It is to leave the stack it is on.
    pub(crate) evict: bool,
}

impl Cpu {
    /// A CPU that has not picked yet: as busy as can be, so that nobody waits for it. Its first pick counts as asked for.
    const OFFLINE: Self = Self {
        current: NONE,
        resident: NONE,
        since: Ticks(0),
        level: u8::MAX,
        kicked: true,
        lonely: false,
        yielded: false,
        evict: false,
    };
}

/// All CPUs.
#[derive(Debug)]
pub(crate) struct Cpus {
    cpus: Vec<Cpu>,
}

impl Cpus {
    pub(crate) fn new(count: usize) -> Self {
        Self { cpus: vec![Cpu::OFFLINE; count] }
    }

    pub(crate) fn count(&self) -> usize {
        self.cpus.len()
    }

    pub(crate) fn get(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.get(id.index())
    }

    pub(crate) fn get_mut(&mut self, id: CpuId) -> Option<&mut Cpu> {
        self.cpus.get_mut(id.index())
    }

    /// The CPU that is to come for a queued thread: where it ran last if that is idle, else the one with the least urgent
    /// to do, if that is less urgent than the thread. If all are as urgent, one that runs without a time limit because it
    /// knew of no equal. `None` if the thread has to wait for its turn.
    pub(crate) fn place(&mut self, index: Index, threads: &Threads) -> Option<CpuId> {
        let thread = threads.get(index)?;
        let (priority, last) = (thread.parameters.priority.get(), thread.last);
        let mut least: Option<(u8, CpuId)> = None;
        let mut lonely = None;
        for id in thread.parameters.affinity.iter() {
            let cpu = self.get(id)?;
            if cpu.level < priority {
                if least.is_none_or(|(level, _)| cpu.level < level || (cpu.level == level && id == last)) {
                    least = Some((cpu.level, id));
                }
            } else if cpu.level == priority && cpu.lonely && !cpu.kicked {
                lonely = Some(id);
            }
        }
        let chosen = least.map(|(_, id)| id).or(lonely)?;
        Some(self.kick(chosen, priority))
    }

    /// Notes that `id` is asked to pick, for something of this priority: it counts as that busy until it has.
    pub(crate) fn kick(&mut self, id: CpuId, priority: u8) -> CpuId {
        if let Some(cpu) = self.get_mut(id) {
            cpu.kicked = true;
            cpu.level = cpu.level.max(priority);
        }
        id
    }
}
