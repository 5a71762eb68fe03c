//! The virtual SMMU as a whole.
//!
//! Answers for: what follows from a register that has been written, in batches, and when it is acknowledged. Does not answer for:
//! registers (`registers`), commands (`commands`), stream table entries (`streams`), events (`events`).

use crate::host::{Batch, Order, Target};
use crate::registers::{CR0_CMDQEN, CR0_EVENTQEN, CR0_SMMUEN, Registers};
use crate::shape::Shape;
use crate::streams::Wish;
use alloc::vec::Vec;
use core::fmt;
use types::AccessSize;
use vdev::GuestMemory;

/// Which wires there is to be an edge on (3.18.2). All interrupts are edges: what they are about is to be found in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Signals {
    /// There is an event where there was none.
    pub eventq: bool,
    /// A global error is active that was not.
    pub gerror: bool,
    /// A `CMD_SYNC` that wanted an interrupt is complete.
    pub sync: bool,
}

impl Signals {
    /// Whether there is any, for an SMMU with one wire for all.
    #[must_use]
    pub const fn any(self) -> bool {
        self.eventq || self.gerror || self.sync
    }
}

/// A stream with a device behind it.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// The guest's number for it.
    pub(crate) number: u32,
    /// What the guest wanted when it was looked at last.
    pub(crate) wish: Wish,
    /// It is to be looked at again.
    pub(crate) is_stale: bool,
}

/// What becomes of all streams: by the stream table, or else aborted or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Table,
    Abort,
    Pass,
}

/// A virtual SMMU.
#[derive(Clone, Debug)]
pub struct Smmu {
    pub(crate) shape: Shape,
    pub(crate) registers: Registers,
    pub(crate) streams: Vec<Stream>,
    /// What the streams are like, or are becoming.
    mode: Mode,
    /// A batch is being carried out.
    is_busy: bool,
    /// Edges that are due.
    pub(crate) signals: Signals,
    /// Commands that have been taken, and that were none.
    pub(crate) taken: u64,
    pub(crate) refused: u64,
    /// Events that have been recorded, and that could not be.
    pub(crate) recorded: u64,
    pub(crate) lost: u64,
}

/// How it is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The guest has it translate.
    pub enabled: bool,
    /// Streams with a device behind them.
    pub streams: usize,
    /// Those of them that go through a stage 1 of the guest's.
    pub translated: usize,
    /// Commands that have been taken.
    pub commands: u64,
    /// Commands that were none.
    pub refused: u64,
    /// Events that have been recorded.
    pub events: u64,
    /// Events that could not be.
    pub lost: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { enabled, streams, translated, commands, refused, events, lost } = self;
        let on = if *enabled { "on" } else { "off" };
        write!(
            f,
            "{on}; {translated} of {streams} streams translated; {commands} commands, {refused} refused; {events} events, {lost} lost"
        )
    }
}

impl Smmu {
    /// Bytes of its registers: pages 0 and 1.
    pub const SIZE: u64 = smmu::registers::REGISTERS_LENGTH;

    /// One with these streams, by the guest's numbers, which are not more than a few: a command can be about all of them. Their
    /// transactions have the VM's addresses, as [`Target::Stage2`].
    #[must_use]
    pub fn new(shape: Shape, streams: &[u32]) -> Self {
        let stream = |number: &u32| Stream { number: *number, wish: Wish::Pass, is_stale: false };
        Self {
            shape,
            registers: Registers::default(),
            streams: streams.iter().map(stream).collect(),
            mode: Mode::Pass,
            is_busy: false,
            signals: Signals::default(),
            taken: 0,
            refused: 0,
            recorded: 0,
            lost: 0,
        }
    }

    /// A read at `offset` below [`Smmu::SIZE`].
    #[must_use]
    pub fn read(&self, offset: u64, size: AccessSize) -> u64 {
        usize::try_from(offset).map_or(0, |offset| self.registers.read(offset, size, &self.shape))
    }

    /// A write there. Says whether there is work to do now.
    pub fn write(&mut self, offset: u64, size: AccessSize, value: u64) -> bool {
        if let Ok(offset) = usize::try_from(offset) {
            self.registers.write(offset, size, value);
            self.acknowledge();
        }
        self.has_work()
    }

    /// Registers are as after a reset. What becomes of the streams is work to do.
    pub fn reset(&mut self) {
        self.registers = Registers::default();
        self.acknowledge();
    }

    /// Whether there is work to do: a batch to be begun.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let is_settled =
            self.wanted() == self.mode && !self.registers.is_updating && self.registers.cr0 == self.registers.cr0ack;
        !is_settled || self.is_any_stale() || self.has_commands()
    }

    /// Begins a batch: a bounded piece of work. What is in it is to be carried out, and then [`Smmu::finish`] called. `memory` is the VM's.
    pub fn begin(&mut self, memory: &dyn GuestMemory) -> Batch {
        let mut batch = Batch::default();
        if core::mem::replace(&mut self.is_busy, true) {
            return batch;
        }
        let wanted = self.wanted();
        if core::mem::replace(&mut self.mode, wanted) != wanted {
            self.streams.iter_mut().for_each(|stream| stream.is_stale = true);
        }
        self.take_commands(&mut batch, memory);
        self.look(&mut batch, memory);
        batch
    }

    /// The batch has been carried out. Says which edges are due.
    #[must_use]
    pub fn finish(&mut self) -> Signals {
        self.is_busy = false;
        self.acknowledge();
        self.take_signals()
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            enabled: self.registers.is_on(CR0_SMMUEN),
            streams: self.streams.len(),
            translated: self.streams.iter().filter(|stream| matches!(stream.wish, Wish::Translate(_))).count(),
            commands: self.taken,
            refused: self.refused,
            events: self.recorded,
            lost: self.lost,
        }
    }

    /// Looks at streams anew, as many as there is room for.
    fn look(&mut self, batch: &mut Batch, memory: &dyn GuestMemory) {
        for stream in self.streams.iter_mut().filter(|stream| stream.is_stale) {
            if !batch.has_room() {
                return;
            }
            let wish = match self.mode {
                Mode::Table => Wish::of(stream.number, &self.registers, &self.shape, memory),
                Mode::Abort => Wish::Abort(None),
                Mode::Pass => Wish::Pass,
            };
            stream.is_stale = false;
            let (old, new) = (stream.wish.target(), wish.target());
            stream.wish = wish;
            if old != new {
                batch.push(Order::Set { stream: stream.number, target: new });
            } else if matches!(new, Target::Nested(_)) {
                // 4.3.1: with an entry go all the context descriptors behind it.
                batch.push(Order::ForgetContexts { stream: stream.number });
            }
        }
    }

    /// What has taken effect is said to have (6.3.10, 6.3.14).
    fn acknowledge(&mut self) {
        let (wanted, mode) = (self.wanted(), self.mode);
        let is_any_stale = self.is_any_stale();
        let registers = &mut self.registers;
        // Records are made at once or not at all.
        let mut effective = registers.cr0 & CR0_EVENTQEN;
        // Commands that are being carried out are to be over before the queue is.
        let commands = if self.is_busy { registers.cr0 | registers.cr0ack } else { registers.cr0 };
        effective |= commands & CR0_CMDQEN;
        let is_settled = !self.is_busy && wanted == mode && !is_any_stale;
        effective |= if is_settled { registers.cr0 } else { registers.cr0ack } & CR0_SMMUEN;
        registers.cr0ack = effective;
        registers.is_updating &= !is_settled;
    }

    fn wanted(&self) -> Mode {
        match (self.registers.cr0 & CR0_SMMUEN != 0, self.registers.aborts) {
            (true, _) => Mode::Table,
            (false, true) => Mode::Abort,
            (false, false) => Mode::Pass,
        }
    }

    pub(crate) fn is_any_stale(&self) -> bool {
        self.streams.iter().any(|stream| stream.is_stale)
    }

    pub(crate) fn take_signals(&mut self) -> Signals {
        core::mem::take(&mut self.signals)
    }
}
