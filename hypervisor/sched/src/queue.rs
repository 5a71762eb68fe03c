//! Ready queues: one for each set of CPUs that threads are bound to, in each share.
//!
//! Answers for: the order of ready threads, in constant time for everything. Does not answer for: which queue's head runs
//! (`scheduler`).
//!
//! One queue for all would have to be searched past threads that may not run on the CPU that asks; one for each CPU could
//! not hold a thread that may run on several. So there is one for each *set*; in practice a handful, each CPU looks into
//! those whose set it is in, and `turn` orders equals across them. Threads of different shares are in different queues, so
//! that a share that has used its time up is put last by one bit for each queue.

use crate::{
    parameters::SpawnError,
    shares::ShareId,
    thread::{Index, NONE, Thread},
};
use alloc::{vec, vec::Vec};
use types::CpuSet;

/// Most different affinities in all shares together: as many as 6 CPUs have non-empty sets, and one more.
const MAX_QUEUES: usize = 64;

const PRIORITIES: usize = 256;

/// Ready threads of one affinity and one share: a list for each priority.
#[derive(Clone, Debug)]
struct Queue {
    /// First and last of each list; `NONE` and anything if it is empty.
    heads: [Index; PRIORITIES],
    tails: [Index; PRIORITIES],
    /// A bit for each list that is not empty.
    occupied: [u64; PRIORITIES / 64],
    cpus: CpuSet,
    share: ShareId,
    /// How many threads have this affinity and share, ready or not.
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
        share: ShareId::SYSTEM,
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

    /// A list that was empty holds this thread.
    #[inline(never)]
    fn occupy(&mut self, index: Index, priority: u8) {
        self.set_head(priority, index);
        self.set_tail(priority, index);
        if let Some(word) = self.occupied.get_mut(usize::from(priority >> 6)) {
            *word |= 1 << (priority & 63);
        }
        self.top = self.top.max(priority);
    }

    #[inline(always)]
    fn push(&mut self, index: Index, priority: u8, end: End, threads: &mut [Thread]) {
        let head = self.head(priority);
        if head == NONE {
            self.occupy(index, priority);
        } else if end == End::Front {
            link(index, head, threads);
            self.set_head(priority, index);
        } else {
            link(self.tail(priority), index, threads);
            self.set_tail(priority, index);
        }
    }

    /// A list is empty from now on.
    fn vacate(&mut self, priority: u8) {
        self.set_head(priority, NONE);
        if let Some(word) = self.occupied.get_mut(usize::from(priority >> 6)) {
            *word &= !(1 << (priority & 63));
        }
        if priority == self.top {
            self.top = self.highest();
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
#[inline(always)]
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
    /// Every one there is.
    pub(crate) const ALL: Self = Self(u64::MAX);

    fn set(&mut self, number: u8, member: bool) {
        self.0 &= !(1 << (number & 63));
        self.0 |= u64::from(member) << (number & 63);
    }
}

/// The first thread of some queue, or none.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) index: Index,
    /// See [`Queues::rank`]; 0 for no thread.
    pub(crate) rank: u16,
    pub(crate) queue: u8,
    /// Another queue has a thread of this rank.
    pub(crate) tie: bool,
}

impl Head {
    pub(crate) const NONE: Self = Self { index: NONE, rank: 0, queue: 0, tie: false };
}

/// All queues.
#[derive(Debug)]
pub(crate) struct Queues {
    queues: Vec<Queue>,
    /// Those that are not empty.
    occupied: QueueSet,
    /// Those of shares that have time left: they go first.
    first: QueueSet,
    /// The last turns taken at the back and at the front.
    back: u64,
    front: u64,
}

impl Queues {
    /// Queues for every set of `cpus` CPUs, as far as there are not too many.
    pub(crate) fn new(cpus: usize) -> Self {
        let count = if cpus > 6 { MAX_QUEUES } else { (1 << cpus.min(6)) as usize };
        Self {
            queues: vec![Queue::EMPTY; count],
            occupied: QueueSet::EMPTY,
            first: QueueSet::ALL,
            back: 1 << 63,
            front: 1 << 63,
        }
    }

    /// The queue for an affinity in a share, with one more user. `has_time`: whether that share goes first.
    pub(crate) fn join(&mut self, cpus: CpuSet, share: ShareId, has_time: bool) -> Result<u8, SpawnError> {
        let is_same = |queue: &Queue| queue.users > 0 && queue.cpus == cpus && queue.share == share;
        let same = self.queues.iter().position(is_same);
        let position = match same.or_else(|| self.queues.iter().position(|queue| queue.users == 0)) {
            Some(position) => position,
            None if self.queues.len() < MAX_QUEUES => {
                self.queues.try_reserve(1).map_err(|_| SpawnError::NoMemory)?;
                self.queues.push(Queue::EMPTY);
                self.queues.len().saturating_sub(1)
            }
            None => return Err(SpawnError::TooManyAffinities),
        };
        let number = u8::try_from(position).map_err(|_| SpawnError::TooManyAffinities)?;
        if let Some(queue) = self.queues.get_mut(position) {
            queue.users = queue.users.saturating_add(1);
            (queue.cpus, queue.share) = (cpus, share);
        }
        self.first.set(number, has_time);
        Ok(number)
    }

    /// Puts the queues of a share first, or last.
    pub(crate) fn set_first(&mut self, share: ShareId, is_first: bool) {
        for (number, queue) in (0..).zip(&self.queues) {
            if queue.users > 0 && queue.share == share {
                self.first.set(number, is_first);
            }
        }
    }

    /// What decides between threads: first whether their share has time left, then their priority. Never 0.
    #[inline]
    pub(crate) fn rank(&self, thread: &Thread) -> u16 {
        u16::from(thread.priority) | u16::from(self.is_first(thread.queue)) << 8
    }

    #[inline]
    fn is_first(&self, number: u8) -> bool {
        self.first.0 >> (number & 63) & 1 != 0
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
        let (number, priority) = (thread.queue, thread.priority);
        if let Some(queue) = self.queues.get_mut(usize::from(number)) {
            queue.push(index, priority, end, threads);
            self.occupied.0 |= 1 << (number & 63);
        }
    }

    /// Takes any queued thread out.
    pub(crate) fn remove(&mut self, index: Index, threads: &mut [Thread]) {
        let Some(thread) = threads.get(usize::from(index)) else { return };
        let (queue, priority, next, previous) = (thread.queue, thread.priority, thread.next, thread.previous);
        let rank = self.rank(thread);
        let Some(list) = self.queues.get_mut(usize::from(queue)) else { return };
        if list.head(priority) == index {
            self.remove_head(&Head { index, rank, queue, tie: false }, threads);
        } else if list.tail(priority) == index {
            list.set_tail(priority, previous);
        } else {
            link(previous, next, threads);
        }
    }

    /// Takes the first thread of its priority in some queue out. Says whether there are others of its priority in it.
    #[inline(always)]
    pub(crate) fn remove_head(&mut self, head: &Head, threads: &[Thread]) -> bool {
        let next = threads.get(usize::from(head.index)).map_or(NONE, |thread| thread.next);
        let Some(queue) = self.queues.get_mut(usize::from(head.queue)) else { return false };
        let priority = (head.rank & 0xff) as u8;
        let more = queue.tail(priority) != head.index;
        if more {
            queue.set_head(priority, next);
        } else {
            queue.vacate(priority);
            if queue.top == 0 {
                self.occupied.0 &= !(1 << (head.queue & 63));
            }
        }
        more
    }

    /// The first thread of each queue of the set that is not empty. At most 64, and seldom more than two.
    pub(crate) fn heads(&self, set: QueueSet) -> impl Iterator<Item = Head> {
        let mut rest = set.0 & self.occupied.0;
        core::iter::from_fn(move || {
            let mut head = Head::NONE;
            self.head_of(rest.trailing_zeros(), &mut head);
            rest &= rest.wrapping_sub(1);
            (head.rank != 0).then_some(head)
        })
    }

    /// Which of the threads in these queues is to run next: makes it `best`, which is none yet. Field by field, for a small
    /// structure as a whole would be packed into a register and unpacked again.
    #[inline(always)]
    pub(crate) fn find_best(&self, set: QueueSet, threads: &[Thread], best: &mut Head) {
        let mut rest = set.0 & self.occupied.0;
        if rest != 0 {
            self.head_of(rest.trailing_zeros(), best);
            rest &= rest.wrapping_sub(1);
        }
        if rest != 0 {
            let mut other = Head { ..*best };
            self.contest(QueueSet(rest), threads, &mut other);
            (best.index, best.rank, best.queue, best.tie) = (other.index, other.rank, other.queue, other.tie);
        }
    }

    /// Who wins against `best`, the first of another queue: becomes `best`. Out of line: it is seldom that there are two queues.
    #[inline(never)]
    fn contest(&self, set: QueueSet, threads: &[Thread], best: &mut Head) {
        for head in self.heads(set) {
            if head.rank < best.rank {
                continue;
            }
            best.tie = head.rank == best.rank;
            let turn = |index: Index| threads.get(usize::from(index)).map_or(u64::MAX, |thread| thread.turn);
            if !best.tie || turn(head.index) < turn(best.index) {
                (best.index, best.rank, best.queue) = (head.index, head.rank, head.queue);
            }
        }
    }

    /// Makes the first thread of queue `number`, which is not empty, `head`.
    #[inline(always)]
    fn head_of(&self, number: u32, head: &mut Head) {
        if let Some(queue) = self.queues.get(number as usize) {
            head.queue = (number & 63) as u8;
            head.index = queue.head(queue.top);
            head.rank = u16::from(queue.top) | u16::from(self.is_first(head.queue)) << 8;
        }
    }

    /// As if the thread at `index` were queued last among its equals, and `best`, the first of them, taken out: they are in the
    /// same queue.
    #[inline(always)]
    pub(crate) fn rotate(&mut self, best: &Head, index: Index, threads: &mut [Thread]) {
        self.back = self.back.wrapping_add(1);
        let priority = (best.rank & 0xff) as u8;
        let Some(queue) = self.queues.get_mut(usize::from(best.queue)) else { return };
        link(queue.tail(priority), index, threads);
        queue.set_tail(priority, index);
        if let Some(thread) = threads.get_mut(usize::from(index)) {
            thread.turn = self.back;
        }
        // If it was alone, that is the thread that has just come behind it.
        if let Some(first) = threads.get(usize::from(best.index)) {
            queue.set_head(priority, first.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        parameters::{Parameters, Policy, Priority},
        sporadic::NO_SERVER,
        thread::Threads,
    };
    use types::CpuId;

    /// A resident thread, number 0, and so many of its equals in the queue.
    fn resident_and(equals: u16) -> (Queues, Threads, Head) {
        let (mut queues, mut threads) = (Queues::new(1), Threads::new(8));
        let affinity = CpuSet::of(CpuId(0));
        let priority = Priority::new(10).unwrap();
        let parameters = Parameters { priority, policy: Policy::RoundRobin, affinity, share: ShareId::SYSTEM };
        for index in 0..=equals {
            let queue = queues.join(affinity, ShareId::SYSTEM, true).unwrap();
            assert_eq!(threads.insert(parameters, (queue, NO_SERVER), CpuId(0)), Ok(index));
            if index > 0 {
                queues.push(index, End::Back, threads.entries());
            }
        }
        let mut best = Head::NONE;
        queues.find_best(QueueSet::ALL, threads.entries(), &mut best);
        assert_eq!(best.index, 1);
        (queues, threads, best)
    }

    /// Who follows, each with its turn.
    fn drained((mut queues, mut threads, _): (Queues, Threads, Head)) -> Vec<(Index, u64)> {
        core::iter::from_fn(|| {
            let mut head = Head::NONE;
            queues.find_best(QueueSet::ALL, threads.entries(), &mut head);
            let turn = threads.get(head.index)?.turn;
            queues.remove_head(&head, threads.entries());
            Some((head.index, turn))
        })
        .collect()
    }

    #[test]
    fn a_rotation_is_queueing_one_and_taking_the_first_out() {
        for equals in 1..5 {
            let mut rotated = resident_and(equals);
            rotated.0.rotate(&rotated.2, 0, rotated.1.entries());
            let mut pushed = resident_and(equals);
            pushed.0.push(0, End::Back, pushed.1.entries());
            assert!(pushed.0.remove_head(&pushed.2, pushed.1.entries()));
            let order = drained(rotated);
            assert_eq!(order, drained(pushed));
            assert_eq!(
                order.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
                (2..=equals).chain([0]).collect::<Vec<_>>()
            );
        }
    }
}
