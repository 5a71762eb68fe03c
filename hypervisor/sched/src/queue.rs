//! Ready queues: one for each set of CPUs that threads are bound to.
//!
//! Answers for: the order of ready threads, in constant time for everything. Does not answer for: which queue's head runs
//! (`scheduler`).
//!
//! One queue for all would have to be searched past threads that may not run on the CPU that asks; one for each CPU could
//! not hold a thread that may run on several. So there is one for each *set*; in practice a handful, each CPU looks into
//! those whose set it is in, and `turn` orders equals across them.

use crate::thread::{Index, NONE, Threads};
use alloc::{vec, vec::Vec};
use types::{CpuId, CpuSet};

/// Most different affinities: as many as 6 CPUs have non-empty sets, and one more.
const MAX_QUEUES: usize = 64;

const PRIORITIES: usize = 256;

/// Ready threads that share an affinity: a ring for each priority.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    cpus: CpuSet,
    /// How many threads have this affinity, ready or not.
    users: u16,
    /// Highest priority with a thread in it; 0 if there is none.
    top: u8,
    occupied: [u64; PRIORITIES / 64],
    /// First of each ring; its `previous` is the last.
    heads: [Index; PRIORITIES],
}

/// At which end of its equals a thread is queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Preempted: it is next.
    Front,
    /// Woken, or its slice is over.
    Back,
}

impl Queue {
    fn head(&self, priority: u8) -> Index {
        self.heads.get(usize::from(priority)).copied().unwrap_or(NONE)
    }

    fn set_head(&mut self, priority: u8, head: Index) {
        if let Some(entry) = self.heads.get_mut(usize::from(priority)) {
            *entry = head;
        }
    }

    fn push(&mut self, index: Index, end: End, threads: &mut Threads) {
        let Some(priority) = threads.get(index).map(|thread| thread.parameters.priority.get()) else { return };
        let head = self.head(priority);
        let tail = threads.get(head).map_or(NONE, |head| head.previous);
        if head == NONE {
            link(index, index, threads);
            if let Some(word) = self.occupied.get_mut(usize::from(priority >> 6)) {
                *word |= 1 << (priority & 63);
            }
            self.top = self.top.max(priority);
        } else {
            link(tail, index, threads);
            link(index, head, threads);
        }
        if head == NONE || end == End::Front {
            self.set_head(priority, index);
        }
    }

    fn remove(&mut self, index: Index, threads: &mut Threads) {
        let Some(thread) = threads.get(index) else { return };
        let (priority, next, previous) = (thread.parameters.priority.get(), thread.next, thread.previous);
        if next == index {
            self.set_head(priority, NONE);
            if let Some(word) = self.occupied.get_mut(usize::from(priority >> 6)) {
                *word &= !(1 << (priority & 63));
            }
            if priority == self.top {
                self.top = self.highest();
            }
        } else {
            link(previous, next, threads);
            if self.head(priority) == index {
                self.set_head(priority, next);
            }
        }
    }

    /// The highest occupied priority; 0 if there is none (bit 0 is never set).
    fn highest(&self) -> u8 {
        let mut base = 192_u8;
        for word in self.occupied.iter().rev() {
            if let Some(bit) = word.checked_ilog2() {
                return base | (bit & 63) as u8;
            }
            base = base.saturating_sub(64);
        }
        0
    }
}

/// Makes `next` follow `previous`.
fn link(previous: Index, next: Index, threads: &mut Threads) {
    if let Some(thread) = threads.get_mut(previous) {
        thread.next = next;
    }
    if let Some(thread) = threads.get_mut(next) {
        thread.previous = previous;
    }
}

/// The head of some queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) index: Index,
    pub(crate) priority: u8,
}

/// All queues.
#[derive(Debug)]
pub(crate) struct Queues {
    queues: Vec<Queue>,
    /// Which of them are not empty.
    occupied: u64,
    /// For each CPU, those it looks into.
    of_cpu: Vec<u64>,
    /// The next turn at the back, and the last one taken at the front.
    back: u64,
    front: u64,
}

impl Queues {
    /// Queues for every set of `cpus` CPUs, as far as there are not too many.
    pub(crate) fn new(cpus: usize) -> Self {
        let sets = CpuSet::first(cpus.min(6)).0;
        let count = usize::try_from(sets).unwrap_or(MAX_QUEUES).min(MAX_QUEUES);
        let count = if cpus > 6 { MAX_QUEUES } else { count };
        let empty =
            Queue { cpus: CpuSet::EMPTY, users: 0, top: 0, occupied: [0; PRIORITIES / 64], heads: [NONE; PRIORITIES] };
        Self { queues: vec![empty; count], occupied: 0, of_cpu: vec![0; cpus], back: 1 << 63, front: 1 << 63 }
    }

    /// The queue for an affinity, with one more user. `None` if there are too many different ones.
    pub(crate) fn join(&mut self, cpus: CpuSet) -> Option<u8> {
        let same = self.queues.iter().position(|queue| queue.users > 0 && queue.cpus == cpus);
        let position = same.or_else(|| self.queues.iter().position(|queue| queue.users == 0))?;
        let number = u8::try_from(position).ok()?;
        let queue = self.queues.get_mut(position)?;
        queue.users = queue.users.saturating_add(1);
        if same.is_none() {
            queue.cpus = cpus;
            self.connect(number, cpus);
        }
        Some(number)
    }

    /// One user less.
    pub(crate) fn leave(&mut self, number: u8) {
        let Some(queue) = self.queues.get_mut(usize::from(number)) else { return };
        queue.users = queue.users.saturating_sub(1);
        if queue.users == 0 {
            self.connect(number, CpuSet::EMPTY);
        }
    }

    /// Makes exactly `cpus` look into a queue.
    fn connect(&mut self, number: u8, cpus: CpuSet) {
        for (cpu, mask) in (0..).zip(&mut self.of_cpu) {
            *mask &= !(1 << (number & 63));
            *mask |= u64::from(cpus.contains(CpuId(cpu))) << (number & 63);
        }
    }

    /// Queues a ready thread.
    pub(crate) fn push(&mut self, index: Index, end: End, threads: &mut Threads) {
        let turn = match end {
            End::Front => {
                self.front = self.front.wrapping_sub(1);
                self.front
            }
            End::Back => {
                self.back = self.back.wrapping_add(1);
                self.back
            }
        };
        let Some(thread) = threads.get_mut(index) else { return };
        thread.turn = turn;
        let number = thread.queue;
        if let Some(queue) = self.queues.get_mut(usize::from(number)) {
            queue.push(index, end, threads);
            self.occupied |= 1 << (number & 63);
        }
    }

    /// Takes a queued thread out.
    pub(crate) fn remove(&mut self, index: Index, threads: &mut Threads) {
        let Some(number) = threads.get(index).map(|thread| thread.queue) else { return };
        if let Some(queue) = self.queues.get_mut(usize::from(number)) {
            queue.remove(index, threads);
            if queue.top == 0 {
                self.occupied &= !(1 << (number & 63));
            }
        }
    }

    /// The heads of the highest priority in each queue that `cpu` looks into. At most 64, and seldom more than two.
    pub(crate) fn heads(&self, cpu: CpuId) -> impl Iterator<Item = Head> {
        let mut rest = self.of_cpu.get(cpu.index()).copied().unwrap_or(0) & self.occupied;
        core::iter::from_fn(move || {
            let queue = self.queues.get(rest.trailing_zeros() as usize)?;
            rest &= rest.wrapping_sub(1);
            Some(Head { index: queue.head(queue.top), priority: queue.top })
        })
    }

    /// Who is to run next on `cpu`, of those that are queued.
    pub(crate) fn best(&self, cpu: CpuId, threads: &Threads) -> Option<Head> {
        let turn = |head: &Head| threads.get(head.index).map_or(u64::MAX, |thread| thread.turn);
        self.heads(cpu).reduce(|best, head| {
            let first = head.priority > best.priority || (head.priority == best.priority && turn(&head) < turn(&best));
            if first { head } else { best }
        })
    }
}
