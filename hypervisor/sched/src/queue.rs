//! Ready queues: one for each set of CPUs that threads are bound to.
//!
//! Answers for: the order of ready threads, in constant time for everything. Does not answer for: which queue's head runs
//! (`scheduler`).
//!
//! One queue for all would have to be searched past threads that may not run on the CPU that asks; one for each CPU could
//! not hold a thread that may run on several. So there is one for each *set*; in practice a handful, each CPU looks into
//! those whose set it is in, and `turn` orders equals across them.

use crate::thread::{Index, NONE, Thread};
use alloc::{vec, vec::Vec};
use types::CpuSet;

/// Most different affinities: as many as 6 CPUs have non-empty sets, and one more.
const MAX_QUEUES: usize = 64;

const PRIORITIES: usize = 256;

/// Ready threads that share an affinity: a list for each priority.
#[derive(Clone, Debug)]
struct Queue {
    /// First and last of each list; `NONE` and anything if it is empty.
    heads: [Index; PRIORITIES],
    tails: [Index; PRIORITIES],
    /// A bit for each list that is not empty.
    occupied: [u64; PRIORITIES / 64],
    cpus: CpuSet,
    /// How many threads have this affinity, ready or not.
    users: u16,
    /// Highest priority with a thread in it; 0 if there is none.
    top: u8,
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
    const EMPTY: Self = Self {
        heads: [NONE; PRIORITIES],
        tails: [NONE; PRIORITIES],
        occupied: [0; PRIORITIES / 64],
        cpus: CpuSet::EMPTY,
        users: 0,
        top: 0,
    };

    fn head(&self, priority: u8) -> Index {
        self.heads.get(usize::from(priority)).copied().unwrap_or(NONE)
    }

    fn set_head(&mut self, priority: u8, index: Index) {
        if let Some(head) = self.heads.get_mut(usize::from(priority)) {
            *head = index;
        }
    }

    fn tail(&self, priority: u8) -> Index {
        self.tails.get(usize::from(priority)).copied().unwrap_or(NONE)
    }

    fn set_tail(&mut self, priority: u8, index: Index) {
        if let Some(tail) = self.tails.get_mut(usize::from(priority)) {
            *tail = index;
        }
    }

    fn push(&mut self, index: Index, priority: u8, end: End, threads: &mut [Thread]) {
        let head = self.head(priority);
        if head == NONE {
            self.set_head(priority, index);
            self.set_tail(priority, index);
            if let Some(word) = self.occupied.get_mut(usize::from(priority >> 6)) {
                *word |= 1 << (priority & 63);
            }
            self.top = self.top.max(priority);
        } else if end == End::Front {
            link(index, head, threads);
            self.set_head(priority, index);
        } else {
            link(self.tail(priority), index, threads);
            self.set_tail(priority, index);
        }
    }

    /// Takes the first of a list out, `next` being its successor if it has one. Says whether it has one.
    #[inline]
    fn remove_first(&mut self, index: Index, priority: u8, next: Index) -> bool {
        let more = self.tail(priority) != index;
        self.set_head(priority, if more { next } else { NONE });
        if !more {
            if let Some(word) = self.occupied.get_mut(usize::from(priority >> 6)) {
                *word &= !(1 << (priority & 63));
            }
            if priority == self.top {
                self.top = self.highest();
            }
        }
        more
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
fn link(previous: Index, next: Index, threads: &mut [Thread]) {
    if let Some(thread) = threads.get_mut(usize::from(previous)) {
        thread.next = next;
    }
    if let Some(thread) = threads.get_mut(usize::from(next)) {
        thread.previous = previous;
    }
}

/// A set of queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueSet(u64);

impl QueueSet {
    /// None.
    pub(crate) const EMPTY: Self = Self(0);

    fn set(&mut self, number: u8, member: bool) {
        self.0 &= !(1 << (number & 63));
        self.0 |= u64::from(member) << (number & 63);
    }
}

/// The first thread of some queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) index: Index,
    pub(crate) priority: u8,
    queue: u8,
    /// Another queue has a thread of this priority.
    pub(crate) tie: bool,
}

/// All queues.
#[derive(Debug)]
pub(crate) struct Queues {
    queues: Vec<Queue>,
    /// Those that are not empty.
    occupied: QueueSet,
    /// The last turns taken at the back and at the front.
    back: u64,
    front: u64,
}

impl Queues {
    /// Queues for every set of `cpus` CPUs, as far as there are not too many.
    pub(crate) fn new(cpus: usize) -> Self {
        let count = if cpus > 6 { MAX_QUEUES } else { (1 << cpus.min(6)) as usize };
        Self { queues: vec![Queue::EMPTY; count], occupied: QueueSet::EMPTY, back: 1 << 63, front: 1 << 63 }
    }

    /// The queue for an affinity, with one more user. `None` if there are too many different ones.
    pub(crate) fn join(&mut self, cpus: CpuSet) -> Option<u8> {
        let same = self.queues.iter().position(|queue| queue.users > 0 && queue.cpus == cpus);
        let position = same.or_else(|| self.queues.iter().position(|queue| queue.users == 0))?;
        let queue = self.queues.get_mut(position)?;
        queue.users = queue.users.saturating_add(1);
        queue.cpus = cpus;
        u8::try_from(position).ok()
    }

    /// One user less.
    pub(crate) fn leave(&mut self, number: u8) {
        if let Some(queue) = self.queues.get_mut(usize::from(number)) {
            queue.users = queue.users.saturating_sub(1);
        }
    }

    /// Adds queue `number` to the sets of the CPUs that it is for, and takes it out of the others.
    pub(crate) fn connect<'a>(&self, number: u8, sets: impl Iterator<Item = &'a mut QueueSet>) {
        let Some(queue) = self.queues.get(usize::from(number)) else { return };
        for (cpu, set) in (0..).zip(sets) {
            set.set(number, queue.cpus.contains(types::CpuId(cpu)));
        }
    }

    /// Queues a ready thread.
    pub(crate) fn push(&mut self, index: Index, end: End, threads: &mut [Thread]) {
        let Some(thread) = threads.get_mut(usize::from(index)) else { return };
        thread.turn = match end {
            End::Front => {
                self.front = self.front.wrapping_sub(1);
                self.front
            }
            End::Back => {
                self.back = self.back.wrapping_add(1);
                self.back
            }
        };
        let (number, priority) = (thread.queue, thread.priority());
        if let Some(queue) = self.queues.get_mut(usize::from(number)) {
            queue.push(index, priority, end, threads);
            self.occupied.0 |= 1 << (number & 63);
        }
    }

    /// Takes any queued thread out.
    pub(crate) fn remove(&mut self, index: Index, threads: &mut [Thread]) {
        let Some(thread) = threads.get(usize::from(index)) else { return };
        let (queue, priority, next, previous) = (thread.queue, thread.priority(), thread.next, thread.previous);
        let Some(list) = self.queues.get_mut(usize::from(queue)) else { return };
        if list.head(priority) == index {
            self.remove_head(Head { index, priority, queue, tie: false }, threads);
        } else if list.tail(priority) == index {
            list.set_tail(priority, previous);
        } else {
            link(previous, next, threads);
        }
    }

    /// Takes the first thread of its priority in some queue out. Says whether there are others of its priority in it.
    #[inline]
    pub(crate) fn remove_head(&mut self, head: Head, threads: &[Thread]) -> bool {
        let next = threads.get(usize::from(head.index)).map_or(NONE, |thread| thread.next);
        let Some(queue) = self.queues.get_mut(usize::from(head.queue)) else { return false };
        let more = queue.remove_first(head.index, head.priority, next);
        if queue.top == 0 {
            self.occupied.0 &= !(1 << (head.queue & 63));
        }
        more
    }

    /// The first thread of each queue of the set that is not empty. At most 64, and seldom more than two.
    pub(crate) fn heads(&self, set: QueueSet) -> impl Iterator<Item = Head> {
        let mut rest = set.0 & self.occupied.0;
        core::iter::from_fn(move || {
            let number = rest.trailing_zeros();
            let queue = self.queues.get(number as usize)?;
            rest &= rest.wrapping_sub(1);
            let (index, priority) = (queue.head(queue.top), queue.top);
            Some(Head { index, priority, queue: (number & 63) as u8, tie: false })
        })
    }

    /// Which of the threads in these queues is to run next.
    #[inline]
    pub(crate) fn best(&self, set: QueueSet, threads: &[Thread]) -> Option<Head> {
        let mut heads = self.heads(set);
        let mut best = heads.next()?;
        for head in heads {
            if head.priority > best.priority {
                best = head;
            } else if head.priority == best.priority {
                let turn = |index: Index| threads.get(usize::from(index)).map_or(u64::MAX, |thread| thread.turn);
                if turn(head.index) < turn(best.index) {
                    best = head;
                }
                best.tie = true;
            }
        }
        Some(best)
    }
}
