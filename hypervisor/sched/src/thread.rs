//! The table of threads.
//!
//! Answers for: identifiers that stop working when their thread is gone, and room for a fixed number of threads. Does not
//! answer for: what a state means (`scheduler`).

use crate::parameters::{Parameters, SpawnError};
use alloc::vec::Vec;
use types::{CpuId, Ticks};

/// Names a thread for as long as it exists; never another one after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ThreadId {
    index: u16,
    generation: u32,
}

impl ThreadId {
    /// Its place in a table with as many entries as the scheduler has capacity: unique among living threads.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// Index of a thread that is known to exist.
pub(crate) type Index = u16;

/// No thread.
pub(crate) const NONE: Index = Index::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Nobody: a free entry.
    Free,
    Blocked,
    /// In a ready queue; or not in one, if it has been woken on the CPU where it is resident.
    Ready,
    Running,
}

#[derive(Debug)]
pub(crate) struct Thread {
    generation: u32,
    pub(crate) stage: Stage,
    /// It has been woken while it was not blocked.
    pub(crate) woken: bool,
    /// The ready queue for its affinity.
    pub(crate) queue: u8,
    pub(crate) parameters: Parameters,
    /// The account of a sporadic server, or `NO_SERVER`.
    pub(crate) server: u16,
    /// Its priority now: its own, or the low one of a sporadic server without budget.
    pub(crate) priority: u8,
    /// Neighbours in the ready queue, meaningless at its ends; `next` also links free entries.
    pub(crate) next: Index,
    pub(crate) previous: Index,
    /// Order among its equals in different queues: lower goes first.
    pub(crate) turn: u64,
    /// The CPU on whose stack it is.
    pub(crate) resident: Option<CpuId>,
    /// Where it ran last.
    pub(crate) last: CpuId,
    /// What is left of its slice.
    pub(crate) slice: Ticks,
    /// Time on a CPU.
    pub(crate) run_time: Ticks,
    /// Time ready without a CPU.
    pub(crate) waiting_time: Ticks,
    /// Since when it is ready.
    pub(crate) ready_since: Ticks,
}

impl Thread {
    /// Its identifier, it being at `index`.
    pub(crate) fn id(&self, index: Index) -> ThreadId {
        ThreadId { index, generation: self.generation }
    }

    /// It gets a CPU, or keeps the one whose stack it is on.
    pub(crate) fn start(&mut self, cpu: CpuId, now: Ticks) {
        if self.stage == Stage::Ready {
            self.waiting_time = self.waiting_time.saturating_add(now.saturating_sub(self.ready_since));
        }
        self.stage = Stage::Running;
        self.resident = Some(cpu);
        self.last = cpu;
    }

    /// Accounts for time on a CPU.
    pub(crate) fn charge(&mut self, used: Ticks) {
        self.run_time = self.run_time.saturating_add(used);
        self.slice = self.slice.saturating_sub(used);
    }
}

/// All threads, living and free entries.
#[derive(Debug)]
pub(crate) struct Threads {
    entries: Vec<Thread>,
    free: Index,
}

impl Threads {
    /// Room for `capacity` threads, at most 65,535.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.min(usize::from(NONE));
        Self { entries: Vec::with_capacity(capacity), free: NONE }
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Thread> {
        self.entries.get(usize::from(index))
    }

    pub(crate) fn get_mut(&mut self, index: Index) -> Option<&mut Thread> {
        self.entries.get_mut(usize::from(index))
    }

    /// All entries, by index.
    pub(crate) fn entries(&mut self) -> &mut [Thread] {
        &mut self.entries
    }

    /// The index behind `id`, if its thread still exists.
    pub(crate) fn find(&self, id: ThreadId) -> Option<Index> {
        let thread = self.get(id.index)?;
        (thread.generation == id.generation && thread.stage != Stage::Free).then_some(id.index)
    }

    /// The identifier of the thread at `index`.
    pub(crate) fn id(&self, index: Index) -> Option<ThreadId> {
        Some(self.get(index)?.id(index))
    }

    /// A new, blocked thread.
    pub(crate) fn insert(
        &mut self,
        parameters: Parameters,
        (queue, server): (u8, u16),
        last: CpuId,
    ) -> Result<Index, SpawnError> {
        let thread = Thread {
            generation: 0,
            stage: Stage::Blocked,
            woken: false,
            queue,
            parameters,
            server,
            priority: parameters.priority.get(),
            next: NONE,
            previous: NONE,
            turn: 0,
            resident: None,
            last,
            slice: Ticks(0),
            run_time: Ticks(0),
            waiting_time: Ticks(0),
            ready_since: Ticks(0),
        };
        let index = self.free;
        if let Some(entry) = self.entries.get_mut(usize::from(index)) {
            self.free = entry.next;
            *entry = Thread { generation: entry.generation.wrapping_add(1), ..thread };
            return Ok(index);
        }
        if self.entries.len() == self.entries.capacity() {
            return Err(SpawnError::TooManyThreads);
        }
        let index = Index::try_from(self.entries.len()).map_err(|_| SpawnError::TooManyThreads)?;
        self.entries.push(thread);
        Ok(index)
    }

    /// Makes the entry free.
    pub(crate) fn remove(&mut self, index: Index) {
        let free = self.free;
        if let Some(thread) = self.get_mut(index) {
            thread.stage = Stage::Free;
            thread.next = free;
            self.free = index;
        }
    }

    /// Identifiers of all that exist.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ThreadId> {
        (0..NONE)
            .zip(&self.entries)
            .filter(|(_, thread)| thread.stage != Stage::Free)
            .map(|(index, thread)| ThreadId { index, generation: thread.generation })
    }
}
