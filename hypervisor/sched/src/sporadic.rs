//! Sporadic servers: threads that may be urgent for so much time in each period, and no more.
//!
//! Answers for: how much a thread may still run at its own priority, and when what it has used comes back. Does not answer
//! for: what follows from that for who runs (`metering`).
//!
//! Follows POSIX.1-2017, 2.8.4 "Process Scheduling", `SCHED_SPORADIC`. What a thread uses between two points at which it
//! stops being urgent is one replenishment, due one period after the *activation*. Two rules are stricter than the
//! standard's, so that the time used at the high priority never exceeds the budget, whatever period one looks at:
//!
//! - POSIX: the activation is when the thread became ready. Here it is that moment, moved on by the time for which the thread
//!   was ready and did not run. A thread that runs as soon as it is ready sees no difference. One that is kept waiting would
//!   otherwise get back early what it has used late, and could use two budgets in a row.
//! - POSIX: a capacity that would fall below zero is set to zero. Here what was used beyond the budget, because an interrupt
//!   came late, is a debt that the next replenishment pays.
//!
//! The defects are those of Stanovich, Baker, Wang and González Harbour, "Defects of the POSIX Sporadic Server and How to
//! Correct Them", RTAS 2010: premature replenishments and budget amplification.

use crate::{
    parameters::Priority,
    thread::{Index, NONE},
};
use alloc::{collections::TryReserveError, vec::Vec};
use arrayvec::ArrayVec;
use types::{CpuId, Ticks};

/// What a sporadic server is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sporadic {
    /// Its priority while it has no budget; lower than its own.
    pub low: Priority,
    /// Most replenishments that can be due at once; while there are as many, the priority is the low one.
    pub max_replenishments: u8,
    /// How long after its use time comes back.
    pub period: Ticks,
    /// How much time there is in a period.
    pub budget: Ticks,
}

impl Sporadic {
    /// Most of [`Sporadic::max_replenishments`].
    pub const MAX_REPLENISHMENTS: u8 = 16;

    /// Whether a thread of priority `high` can be such a server.
    #[must_use]
    pub fn is_sound(&self, high: Priority) -> bool {
        let replenishments = 1..=Self::MAX_REPLENISHMENTS;
        let times = Ticks(1)..=self.period;
        self.low < high
            && replenishments.contains(&self.max_replenishments)
            && times.contains(&self.budget)
            && i64::try_from(self.period.0).is_ok()
    }
}

/// Time that comes back.
#[derive(Clone, Copy, Debug)]
struct Replenishment {
    at: Ticks,
    amount: i64,
}

/// The account of one thread. What it has, what it has used since its activation and what is due to come back add up to
/// its budget, always.
#[derive(Debug)]
pub(crate) struct Server {
    /// Whose it is; `NONE` if nobody's.
    pub(crate) thread: Index,
    parameters: Sporadic,
    /// How much it may still use; a debt if it is below zero.
    capacity: i64,
    /// How much it has used since its activation.
    used: i64,
    /// Earliest first.
    pending: ArrayVec<Replenishment, { Sporadic::MAX_REPLENISHMENTS as usize }>,
    /// The CPU that sees to its next replenishment, should that make the thread urgent.
    pub(crate) watch: CpuId,
}

impl Server {
    fn new(thread: Index, parameters: Sporadic) -> Self {
        let capacity = i64::try_from(parameters.budget.0).unwrap_or(i64::MAX);
        Self { thread, parameters, capacity, used: 0, pending: ArrayVec::new(), watch: CpuId(0) }
    }

    /// Its thread has run at the high priority for so long.
    pub(crate) fn spend(&mut self, time: Ticks) {
        let time = i64::try_from(time.0).unwrap_or(i64::MAX);
        self.capacity = self.capacity.saturating_sub(time);
        self.used = self.used.saturating_add(time);
    }

    /// Its thread stops being urgent: it blocks, or has used all it had. What it has used comes back a period after its
    /// activation.
    pub(crate) fn close(&mut self, now: Ticks) {
        let used = core::mem::take(&mut self.used);
        if used <= 0 {
            return;
        }
        let activation = now.saturating_sub(Ticks(used.unsigned_abs()));
        let due = Replenishment { at: activation.saturating_add(self.parameters.period), amount: used };
        // Never full: at the high priority there are fewer than the most that the parameters allow.
        let _ = self.pending.try_push(due);
    }

    /// Gives back what is due.
    pub(crate) fn replenish(&mut self, now: Ticks) {
        while let Some(due) = self.pending.first().filter(|first| first.at <= now).copied() {
            self.pending.remove(0);
            self.capacity = self.capacity.saturating_add(due.amount);
        }
    }

    /// Whether its thread has its own priority, not the low one.
    pub(crate) fn is_urgent(&self) -> bool {
        self.capacity > 0 && self.pending.len() < usize::from(self.parameters.max_replenishments)
    }

    /// How long it may still be urgent if nothing comes back.
    pub(crate) fn capacity(&self) -> Ticks {
        Ticks(u64::try_from(self.capacity).unwrap_or(0))
    }

    /// When something comes back next.
    pub(crate) fn next(&self) -> Ticks {
        self.pending.first().map_or(Ticks::NEVER, |first| first.at)
    }
}

/// The accounts of all threads that have one.
#[derive(Debug)]
pub(crate) struct Servers(Vec<Server>);

/// No account.
pub(crate) const NO_SERVER: u16 = u16::MAX;

impl Servers {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// An account with a full budget. Whose it is [`Server::thread`] is to say.
    pub(crate) fn open(&mut self, parameters: Sporadic) -> Result<u16, TryReserveError> {
        let free = self.0.iter().position(|server| server.thread == NONE);
        let number = match free {
            Some(number) => number,
            None => {
                self.0.try_reserve(1)?;
                self.0.push(Server::new(NONE, parameters));
                self.0.len().saturating_sub(1)
            }
        };
        if let Some(server) = self.0.get_mut(number) {
            *server = Server::new(NONE, parameters);
        }
        // There are fewer servers than threads.
        Ok(u16::try_from(number).unwrap_or(NO_SERVER))
    }

    /// The account is nobody's any more.
    pub(crate) fn close(&mut self, number: u16) {
        if let Some(server) = self.get_mut(number) {
            server.thread = NONE;
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u16) -> Option<&mut Server> {
        self.0.get_mut(usize::from(number))
    }

    pub(crate) fn len(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(NO_SERVER)
    }
}
