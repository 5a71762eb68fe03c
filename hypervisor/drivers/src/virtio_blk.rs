//! A virtio disk of the machine (virtio 1.3, 5.2).
//!
//! Answers for: requests, several at a time; what becomes of a device that lies. Does not answer for: the slots that requests are in
//! ([`crate::disk`]), who waits, and how long (the kernel), which part of the disk is whose (`host::disk`).
//!
//! A device that answers what nobody has asked, or does not answer, is given up for good: it is reset, and all there is of requests
//! fails. Its memory is never used for anything else.

#[cfg(test)]
mod tests;

use crate::disk::{Driver, Failed, MOST, Operation, SECTOR, SLOTS, Slot, Slots, State, Ticket, is_possible};
use crate::virtio::{Features, Identity, Memory, VirtioError, negotiate, publish, zeroed};
use core::fmt;
use core::ptr::NonNull;
use types::{PAGE_SIZE, VmId};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};

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

/// VIRTIO_BLK_T_IN, OUT, FLUSH (5.2.6).
const fn kind(operation: Operation) -> u32 {
    match operation {
        Operation::Read => 0,
        Operation::Write => 1,
        Operation::Flush => 4,
    }
}

/// A request that the device has: what it is known by there, what is wanted, and bytes of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent(u16, Operation, usize);

/// A disk.
pub struct Disk<M: Memory, T: Transport> {
    transport: T,
    queue: VirtQueue<Identity<M>, ENTRIES>,
    slots: Slots<Sent>,
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
        let slots = Slots::new(DATA, || zeroed::<M>(PAGES)).ok_or(VirtioError::Memory)?;
        transport.finish_init();
        Ok(Self { transport, queue, slots, sectors, block_size, features, broken: None })
    }

    /// Why nothing is asked of it any more, if that is so.
    #[must_use]
    pub const fn broken(&self) -> Option<VirtioError> {
        self.broken
    }

    /// Never uses the device again. All that it has been asked for has failed.
    pub fn give_up(&mut self, why: VirtioError) {
        if self.broken.is_none() {
            self.broken = Some(why);
            self.transport.set_status(DeviceStatus::empty());
            self.slots.fail();
        }
    }
}

impl<M: Memory, T: Transport + Send> Driver for Disk<M, T> {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn is_read_only(&self) -> bool {
        self.features.contains(Features::BLK_RO)
    }

    fn why_broken(&self) -> Option<&'static str> {
        self.broken.map(VirtioError::why)
    }

    fn acknowledge(&mut self) -> bool {
        self.transport.ack_interrupt() != InterruptStatus::empty()
    }

    fn take_answers(&mut self) -> bool {
        let mut some = false;
        // Each turn has one request less in the device's hands.
        while self.broken.is_none()
            && let Some(token) = self.queue.peek_used()
        {
            some = true;
            let is_it = |slot: &&mut Slot<Sent>| matches!(slot.state, State::Sent(Sent(own, ..)) if own == token);
            let found = self.slots.sent().find(is_it);
            let Some((slot, Sent(_, operation, length))) = found.and_then(Slot::request) else {
                self.give_up(VirtioError::WrongRequest);
                break;
            };
            let queue = &mut self.queue;
            let written = slot.with_buffers(operation, length, |inputs, outputs| {
                // SAFETY: the same that were added for this token.
                unsafe { queue.pop_used(token, inputs, outputs) }
            });
            let Ok(written) = written else {
                self.give_up(VirtioError::WrongRequest);
                break;
            };
            // Less than the data and the status have not been written, whatever is there (2.7.8.2).
            let wanted = if operation == Operation::Read { length + 1 } else { 1 };
            let is_ok = written as usize >= wanted && slot.status() == OK;
            slot.answer(if is_ok { Ok(()) } else { Err(Failed) });
        }
        some
    }

    fn take(&mut self, owner: Option<VmId>) -> Option<Ticket> {
        self.slots.take(owner)
    }

    fn data(&self, ticket: Ticket) -> Option<NonNull<u8>> {
        self.slots.data(ticket)
    }

    fn send(&mut self, ticket: Ticket, operation: Operation, sector: u64, length: usize) -> Result<(), Failed> {
        let is_possible = self.broken.is_none() && is_possible(self, operation, sector, length);
        let Some(slot) = self.slots.held(ticket).filter(|_| is_possible) else { return Err(Failed) };
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
        slot.state = State::Sent(Sent(token.map_err(|_| Failed)?, operation, length));
        publish();
        self.transport.notify(QUEUE);
        Ok(())
    }

    fn result(&self, ticket: Ticket) -> Option<Result<(), Failed>> {
        self.slots.result(ticket)
    }

    fn release(&mut self, ticket: Ticket) {
        self.slots.release(ticket);
    }

    fn release_all(&mut self, owner: VmId) {
        self.slots.release_all(owner);
    }

    fn abandon(&mut self) {
        self.give_up(VirtioError::Silent);
    }
}

impl Slot<Sent> {
    /// The slot with what the device has of it.
    fn request(&mut self) -> Option<(&mut Self, Sent)> {
        match self.state {
            State::Sent(sent) => Some((self, sent)),
            _ => None,
        }
    }

    /// Writes what the device is to read of the request, and clears its answer.
    fn prepare(&mut self, operation: Operation, sector: u64) {
        let mut header = [0; HEADER_LENGTH];
        let fields = kind(operation).to_le_bytes().into_iter().chain([0; 4]).chain(sector.to_le_bytes());
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
