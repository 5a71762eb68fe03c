//! A virtio disk of the machine (virtio 1.3, 5.2).
//!
//! Answers for: requests, several at a time, each in a slot with memory of its own that outlives whoever has asked; what becomes of a
//! device that lies. Does not answer for: who waits, and how long (the kernel), which part of the disk is whose (`host::disk`).
//!
//! A slot is taken, filled, sent, found done, read and released. Who has sent something and is no more has the slot given up: it is
//! free once the device has answered. A slot that is taken holds what it held for somebody else: who reads clears it before, so that a
//! device that claims to have written it shows nobody what was another's. That is not done here, where a lock is held.
//!
//! A device that answers what nobody has asked, or does not answer, is given up for good: it is reset, and all there is of requests
//! fails. Its memory is never used for anything else.

#[cfg(test)]
mod tests;

use crate::virtio::{Features, Identity, Memory, VirtioError, negotiate, publish, zeroed};
use core::fmt;
use core::ptr::NonNull;
use types::{PAGE_SIZE, VmId};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};

/// Requests at a time.
pub const SLOTS: usize = 4;
/// Bytes that a request can move.
pub const MOST: usize = 64 << 10;
/// Bytes in a sector, whatever the blocks are (5.2.4).
const SECTOR: u64 = 512;

/// The only queue.
const QUEUE: u16 = 0;
/// A power of two; a request takes three entries.
const ENTRIES: usize = 16;
const _: () = assert!(3 * SLOTS <= ENTRIES);

/// Where in the memory of a slot things are: what the device reads of a request, what it says of it, and the data.
const HEADER: usize = 0;
const HEADER_LENGTH: usize = 16;
const STATUS: usize = 64;
const DATA: usize = PAGE_SIZE as usize;
const PAGES: usize = 1 + MOST / PAGE_SIZE as usize;

/// VIRTIO_BLK_S_OK
const OK: u8 = 0;
/// What no device says.
const UNANSWERED: u8 = 0xff;

/// The configuration space (5.2.4).
const CAPACITY: usize = 0;
const BLK_SIZE: usize = 20;
/// How often it is read before it is taken to change all the time.
const READS: usize = 8;

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

impl Operation {
    /// VIRTIO_BLK_T_IN, OUT, FLUSH (5.2.6).
    const fn kind(self) -> u32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 4,
        }
    }
}

/// The disk could not do it, or the request was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// A slot that somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// Somebody has it, the device does not.
    Held,
    /// The device has it; what it is known by there, what is wanted, and bytes of data.
    Sent(u16, Operation, usize),
    /// The device has answered.
    Done(Result<(), Failed>),
}

struct Slot {
    state: State,
    /// The VM that it was taken for; `None` is the host.
    owner: Option<VmId>,
    /// Whoever has sent it does not wait any more.
    is_given_up: bool,
    /// [`PAGES`] pages.
    memory: NonNull<u8>,
}

// SAFETY: the memory is the slot's.
unsafe impl Send for Slot {}

/// A disk.
pub struct Disk<M: Memory, T: Transport> {
    transport: T,
    queue: VirtQueue<Identity<M>, ENTRIES>,
    slots: [Slot; SLOTS],
    sectors: u64,
    block_size: u32,
    features: Features,
    /// Why nothing is asked of it any more.
    broken: Option<VirtioError>,
}

impl<M: Memory, T: Transport> fmt::Debug for Disk<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("sectors", &self.sectors).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl<M: Memory, T: Transport> Disk<M, T> {
    /// Begins with the disk that is there.
    ///
    /// # Errors
    /// If it is of no use.
    pub fn new(mut transport: T) -> Result<Self, VirtioError> {
        let wanted = Features::BLK_RO | Features::BLK_BLK_SIZE | Features::BLK_FLUSH;
        let features = negotiate(&mut transport, wanted)?;
        let (sectors, block_size) = configuration(&transport, features).ok_or(VirtioError::Configuration)?;
        let queue = VirtQueue::new(&mut transport, QUEUE, false, false).map_err(|error| match error {
            virtio_drivers::Error::DmaError => VirtioError::Memory,
            _ => VirtioError::Queue,
        })?;
        let mut memory = [NonNull::dangling(); SLOTS];
        for slot in &mut memory {
            *slot = zeroed::<M>(PAGES).ok_or(VirtioError::Memory)?;
        }
        let slots = memory.map(|memory| Slot { state: State::Free, owner: None, is_given_up: false, memory });
        transport.finish_init();
        Ok(Self { transport, queue, slots, sectors, block_size, features, broken: None })
    }

    /// How many sectors of 512 bytes it has.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Bytes in a block, the least that it reads and writes: a power of two from 512 to 4096.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Whether nothing can be written.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.features.contains(Features::BLK_RO)
    }

    /// Why nothing is asked of it any more, if that is so.
    #[must_use]
    pub const fn broken(&self) -> Option<VirtioError> {
        self.broken
    }

    /// Acknowledges its interrupt. Says whether it was one.
    pub fn acknowledge(&mut self) -> bool {
        self.transport.ack_interrupt() != InterruptStatus::empty()
    }

    /// A slot for a VM, or for the host. `None` if all are in use.
    pub fn take(&mut self, owner: Option<VmId>) -> Option<Ticket> {
        let index = self.slots.iter().position(|slot| slot.state == State::Free)?;
        let slot = self.slots.get_mut(index)?;
        (slot.state, slot.owner, slot.is_given_up) = (State::Held, owner, false);
        Some(Ticket(index))
    }

    /// Where its data is, [`MOST`] bytes, which are its holder's from [`Disk::take`] to [`Disk::send`], and from the answer to
    /// [`Disk::release`]. They may hold what others have written and read.
    #[must_use]
    pub fn data(&self, ticket: Ticket) -> Option<NonNull<u8>> {
        let slot = self.slots.get(ticket.0).filter(|slot| matches!(slot.state, State::Held | State::Done(_)))?;
        NonNull::new(slot.memory.as_ptr().wrapping_add(DATA))
    }

    /// Asks the device for something: `length` bytes from `sector` on.
    ///
    /// # Errors
    /// If the slot is not held, the disk has no such sectors or cannot do it, or is broken. The slot is held as before.
    pub fn send(&mut self, ticket: Ticket, operation: Operation, sector: u64, length: usize) -> Result<(), Failed> {
        let held = self.slots.get_mut(ticket.0).filter(|slot| slot.state == State::Held);
        let Some(slot) = held.filter(|_| self.broken.is_none()) else { return Err(Failed) };
        let end = sector.checked_add(length as u64 / SECTOR);
        let is_whole = end.is_some_and(|end| end <= self.sectors)
            && length <= MOST
            && length.is_multiple_of(self.block_size as usize)
            && (sector * SECTOR).is_multiple_of(self.block_size.into());
        let is_possible = match operation {
            Operation::Flush => length == 0,
            Operation::Read => length > 0,
            Operation::Write => length > 0 && !self.features.contains(Features::BLK_RO),
        };
        if !is_whole || !is_possible {
            return Err(Failed);
        }
        if operation == Operation::Flush && !self.features.contains(Features::BLK_FLUSH) {
            // 5.2.6.2: without the feature all that is written is there at once.
            slot.state = State::Done(Ok(()));
            return Ok(());
        }
        slot.prepare(operation, sector);
        let queue = &mut self.queue;
        let token = slot.with_buffers(operation, length, |inputs, outputs| {
            // SAFETY: they are the slot's for good, and nobody reaches them until `take_answers` has found it answered.
            unsafe { queue.add(inputs, outputs) }
        });
        slot.state = State::Sent(token.map_err(|_| Failed)?, operation, length);
        publish();
        self.transport.notify(QUEUE);
        Ok(())
    }

    /// Takes what the device has answered.
    pub fn take_answers(&mut self) {
        // Each turn has one request less in the device's hands.
        while self.broken.is_none()
            && let Some(token) = self.queue.peek_used()
        {
            let is_it = |slot: &&mut Slot| matches!(slot.state, State::Sent(own, ..) if own == token);
            let Some(slot) = self.slots.iter_mut().find(is_it) else {
                return self.give_up(VirtioError::WrongRequest);
            };
            let State::Sent(_, operation, length) = slot.state else { return };
            let queue = &mut self.queue;
            let written = slot.with_buffers(operation, length, |inputs, outputs| {
                // SAFETY: the same that were added for this token.
                unsafe { queue.pop_used(token, inputs, outputs) }
            });
            let Ok(written) = written else { return self.give_up(VirtioError::WrongRequest) };
            // Less than the data and the status have not been written, whatever is there (2.7.8.2).
            let wanted = if operation == Operation::Read { length + 1 } else { 1 };
            let is_ok = written as usize >= wanted && slot.status() == OK;
            slot.answer(if is_ok { Ok(()) } else { Err(Failed) });
        }
    }

    /// What has become of a request; `None` while the device has it.
    #[must_use]
    pub fn result(&self, ticket: Ticket) -> Option<Result<(), Failed>> {
        match self.slots.get(ticket.0)?.state {
            State::Done(result) => Some(result),
            _ => None,
        }
    }

    /// The slot is not needed any more; one that the device has is free when that has answered.
    pub fn release(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slots.get_mut(ticket.0) {
            slot.let_go();
        }
    }

    /// The same for all slots of a VM that is no more.
    pub fn release_all(&mut self, owner: VmId) {
        self.slots.iter_mut().filter(|slot| slot.owner == Some(owner)).for_each(Slot::let_go);
    }

    /// Never uses the device again. All that it has been asked for has failed.
    pub fn give_up(&mut self, why: VirtioError) {
        if self.broken.is_none() {
            self.broken = Some(why);
            self.transport.set_status(DeviceStatus::empty());
            let sent = |slot: &&mut Slot| matches!(slot.state, State::Sent(..));
            self.slots.iter_mut().filter(sent).for_each(|slot| slot.answer(Err(Failed)));
        }
    }
}

impl Slot {
    /// Writes what the device is to read of the request, and clears its answer.
    fn prepare(&mut self, operation: Operation, sector: u64) {
        let mut header = [0; HEADER_LENGTH];
        let fields = operation.kind().to_le_bytes().into_iter().chain([0; 4]).chain(sector.to_le_bytes());
        header.iter_mut().zip(fields).for_each(|(into, byte)| *into = byte);
        let at = |offset| self.memory.as_ptr().wrapping_add(offset);
        // SAFETY: the slot's memory, which the device does not have yet.
        unsafe { at(HEADER).copy_from_nonoverlapping(header.as_ptr(), HEADER_LENGTH) };
        // SAFETY: as above.
        unsafe { at(STATUS).write_volatile(UNANSWERED) };
    }

    /// Calls `work` with what the device reads of a request, and what it writes.
    fn with_buffers<R>(
        &self,
        operation: Operation,
        length: usize,
        work: impl for<'a> FnOnce(&'a [&'a [u8]], &'a mut [&'a mut [u8]]) -> R,
    ) -> R {
        let at = |offset| self.memory.as_ptr().wrapping_add(offset);
        // SAFETY: the slot's memory. Whatever the device does to it, these are not looked into: only their addresses are used.
        let header: &[u8] = unsafe { core::slice::from_raw_parts(at(HEADER), HEADER_LENGTH) };
        // SAFETY: as above.
        let status: &mut [u8] = unsafe { core::slice::from_raw_parts_mut(at(STATUS), 1) };
        // SAFETY: as above.
        let data: &mut [u8] = unsafe { core::slice::from_raw_parts_mut(at(DATA), length) };
        match operation {
            Operation::Read => work(&[header], &mut [data, status]),
            Operation::Write => work(&[header, data], &mut [status]),
            Operation::Flush => work(&[header], &mut [status]),
        }
    }

    fn status(&self) -> u8 {
        // SAFETY: the slot's memory; read once.
        unsafe { self.memory.as_ptr().wrapping_add(STATUS).read_volatile() }
    }

    fn answer(&mut self, result: Result<(), Failed>) {
        self.state = if self.is_given_up { State::Free } else { State::Done(result) };
    }

    fn let_go(&mut self) {
        match self.state {
            State::Sent(..) => self.is_given_up = true,
            _ => self.state = State::Free,
        }
    }
}

/// How many sectors there are, and how large blocks are. `None` if that makes no sense, or does not hold still.
fn configuration(transport: &impl Transport, features: Features) -> Option<(u64, u32)> {
    let word = |offset| transport.read_config_space::<u32>(offset).ok();
    let both = || {
        let sectors = u64::from(word(CAPACITY)?) | u64::from(word(CAPACITY + 4)?) << 32;
        let block_size = if features.contains(Features::BLK_BLK_SIZE) { word(BLK_SIZE)? } else { 512 };
        Some((sectors, block_size))
    };
    let (sectors, block_size) = (0..READS).find_map(|_| {
        let before = transport.read_config_generation();
        both().filter(|_| transport.read_config_generation() == before)
    })?;
    let is_sound = (512..=4096).contains(&block_size)
        && block_size.is_power_of_two()
        && (1..=u64::MAX / SECTOR).contains(&sectors)
        && (sectors * SECTOR).is_multiple_of(block_size.into());
    is_sound.then_some((sectors, block_size))
}
