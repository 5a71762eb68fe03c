//! Disks of the machine: what their drivers have in common.
//!
//! Answers for: what is asked of a disk and what it answers ([`Driver`]), and the slots that requests are in, each with memory of its own
//! that outlives whoever has asked. Does not answer for: how a device is told ([`crate::virtio_blk`], [`crate::sd_disk`]), who waits, and
//! how long (the kernel), which part of the disk is whose (`host::disk`).
//!
//! A slot is taken, filled, sent, found done, read and released. Who has sent something and is no more has the slot given up: it is
//! free once the device has answered. A slot that is taken holds what it held for somebody else: who reads clears it before, so that a
//! device that claims to have written it shows nobody what was another's. That is not done here, where a lock is held.

use crate::virtio::{Memory, zeroed};
use core::fmt;
use core::ptr::NonNull;
use types::VmId;

/// Requests at a time.
pub const SLOTS: usize = 4;
/// Bytes that a request can move.
pub const MOST: usize = 64 << 10;
/// Bytes in a sector, whatever the blocks are.
pub const SECTOR: u64 = 512;

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The data is read.
    Read,
    /// The data is written.
    Write,
    /// What has been written will be there after a power cut. There is no data.
    Flush,
}

/// The disk could not do it, or the request was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// A slot that somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(crate) usize);

/// What the driver of a disk gets from the kernel.
#[derive(Debug)]
pub struct Host {
    /// So many pages of zeroes, for good; `None` if there are none.
    pub(crate) pages: fn(usize) -> Option<NonNull<u8>>,
    /// Microseconds since some moment.
    pub now: fn() -> u64,
}

impl Host {
    /// Memory of this kind, and a clock that counts microseconds.
    #[must_use]
    pub fn new<M: Memory>(now: fn() -> u64) -> Self {
        Self { pages: zeroed::<M>, now }
    }
}

/// A disk, whatever it is. Nothing here waits.
pub trait Driver: Send {
    /// How many sectors of 512 bytes it has.
    fn sectors(&self) -> u64;

    /// Bytes in a block, the least that it reads and writes: a power of two from 512 to 4096.
    fn block_size(&self) -> u32;

    /// Whether nothing can be written.
    fn is_read_only(&self) -> bool;

    /// Why nothing is asked of it any more, if that is so.
    fn why_broken(&self) -> Option<&'static str>;

    /// Whether its interrupt is raised; acknowledges it, here or with [`Driver::take_answers`].
    fn acknowledge(&mut self) -> bool;

    /// Takes what the device has answered, and goes on with what it has not. Says whether some request has been answered.
    fn take_answers(&mut self) -> bool;

    /// A slot for a VM, or for the host. `None` if all are in use.
    fn take(&mut self, owner: Option<VmId>) -> Option<Ticket>;

    /// Where its data is, [`MOST`] bytes, which are its holder's from [`Driver::take`] to [`Driver::send`], and from the answer to
    /// [`Driver::release`]. They may hold what others have written and read.
    fn data(&self, ticket: Ticket) -> Option<NonNull<u8>>;

    /// Asks the device for something: `length` bytes from `sector` on.
    ///
    /// # Errors
    /// If the slot is not held, the disk has no such sectors or cannot do it, or is broken. The slot is held as before.
    fn send(&mut self, ticket: Ticket, operation: Operation, sector: u64, length: usize) -> Result<(), Failed>;

    /// What has become of a request; `None` while the device has it.
    fn result(&self, ticket: Ticket) -> Option<Result<(), Failed>>;

    /// The slot is not needed any more; one that the device has is free when that has answered.
    fn release(&mut self, ticket: Ticket);

    /// The same for all slots of a VM that is no more.
    fn release_all(&mut self, owner: VmId);

    /// It has not answered in time: never uses the device again. All that it has been asked for has failed.
    fn abandon(&mut self);
}

/// Whether a disk can do that at all.
pub(crate) fn is_possible(disk: &impl Driver, operation: Operation, sector: u64, length: usize) -> bool {
    let end = sector.checked_add(length as u64 / SECTOR);
    let is_whole = end.is_some_and(|end| end <= disk.sectors())
        && length <= MOST
        && length.is_multiple_of(disk.block_size() as usize)
        && (sector * SECTOR).is_multiple_of(disk.block_size().into());
    is_whole
        && match operation {
            Operation::Flush => length == 0,
            Operation::Read => length > 0,
            Operation::Write => length > 0 && !disk.is_read_only(),
        }
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State<S> {
    Free,
    /// Somebody has it, the device does not.
    Held,
    /// The device has it, or it waits for the device.
    Sent(S),
    /// The device has answered.
    Done(Result<(), Failed>),
}

/// A slot; `S` is what a driver knows of one that has been sent.
pub(crate) struct Slot<S> {
    pub(crate) state: State<S>,
    /// The VM that it was taken for; `None` is the host.
    owner: Option<VmId>,
    /// Whoever has sent it does not wait any more.
    is_given_up: bool,
    /// The driver's, and the data behind it.
    pub(crate) memory: NonNull<u8>,
}

// SAFETY: the memory is the slot's.
unsafe impl<S: Send> Send for Slot<S> {}

/// All slots of a disk.
pub(crate) struct Slots<S> {
    all: [Slot<S>; SLOTS],
    /// How far behind the beginning of a slot's memory its data is.
    data: usize,
}

impl<S> fmt::Debug for Slots<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

impl<S> Slots<S> {
    /// Slots with memory from `memory`: `data` bytes of the driver's, and [`MOST`] bytes behind them. `None` if there is none.
    pub(crate) fn new(data: usize, mut memory: impl FnMut() -> Option<NonNull<u8>>) -> Option<Self> {
        let mut starts = [NonNull::dangling(); SLOTS];
        for start in &mut starts {
            *start = memory()?;
        }
        let all = starts.map(|memory| Slot { state: State::Free, owner: None, is_given_up: false, memory });
        Some(Self { all, data })
    }

    /// See [`Driver::take`].
    pub(crate) fn take(&mut self, owner: Option<VmId>) -> Option<Ticket> {
        let index = self.all.iter().position(|slot| matches!(slot.state, State::Free))?;
        let slot = self.all.get_mut(index)?;
        (slot.state, slot.owner, slot.is_given_up) = (State::Held, owner, false);
        Some(Ticket(index))
    }

    /// See [`Driver::data`].
    pub(crate) fn data(&self, ticket: Ticket) -> Option<NonNull<u8>> {
        let slot = self.all.get(ticket.0).filter(|slot| matches!(slot.state, State::Held | State::Done(_)))?;
        NonNull::new(slot.memory.as_ptr().wrapping_add(self.data))
    }

    /// The slot, if its holder may send it.
    pub(crate) fn held(&mut self, ticket: Ticket) -> Option<&mut Slot<S>> {
        self.all.get_mut(ticket.0).filter(|slot| matches!(slot.state, State::Held))
    }

    /// Those that have been sent.
    pub(crate) fn sent(&mut self) -> impl Iterator<Item = &mut Slot<S>> {
        self.all.iter_mut().filter(|slot| matches!(slot.state, State::Sent(_)))
    }

    /// See [`Driver::result`].
    pub(crate) fn result(&self, ticket: Ticket) -> Option<Result<(), Failed>> {
        match self.all.get(ticket.0)?.state {
            State::Done(result) => Some(result),
            _ => None,
        }
    }

    /// See [`Driver::release`].
    pub(crate) fn release(&mut self, ticket: Ticket) {
        if let Some(slot) = self.all.get_mut(ticket.0) {
            slot.let_go();
        }
    }

    /// See [`Driver::release_all`].
    pub(crate) fn release_all(&mut self, owner: VmId) {
        self.all.iter_mut().filter(|slot| slot.owner == Some(owner)).for_each(Slot::let_go);
    }

    /// All that has been sent has failed.
    pub(crate) fn fail(&mut self) {
        self.sent().for_each(|slot| slot.answer(Err(Failed)));
    }
}

impl<S> Slot<S> {
    /// The device has answered.
    pub(crate) fn answer(&mut self, result: Result<(), Failed>) {
        self.state = if self.is_given_up { State::Free } else { State::Done(result) };
    }

    fn let_go(&mut self) {
        match self.state {
            State::Sent(_) => self.is_given_up = true,
            _ => self.state = State::Free,
        }
    }
}
