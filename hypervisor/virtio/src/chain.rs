//! One request: the buffers of a descriptor chain, copied and checked.
//!
//! Answers for: what may be in a chain at all, and copying out of its readable buffers and into its writable ones, never beyond
//! them. Does not answer for: where descriptors come from ([`crate::Queue`]), nor for whether buffers are memory of the VM: that
//! is checked when they are used.

use crate::RingError;
use crate::queue::Descriptor;
use alloc::vec::Vec;
use types::{Ipa, Range};
use vdev::GuestMemory;

/// Most bytes that are copied at once: who copies does so with interrupts masked.
pub const STEP_BYTES: usize = 16 << 10;
/// Most buffers that are copied from, or to, at once, however short they are.
pub const STEP_BUFFERS: usize = 32;

/// Most bytes of a chain (2.7.5, "Drivers MUST NOT add a descriptor chain longer than 2^32 bytes in total").
const MOST_BYTES: u64 = 1 << 32;

#[derive(Clone, Copy, Debug)]
struct Buffer {
    address: Ipa,
    /// Never 0, and not over the end of the address space.
    length: u32,
}

/// Which byte is next.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// Its buffer.
    index: usize,
    /// Where in that.
    offset: u32,
    /// How many there are from it on, all buffers together.
    left: u64,
}

impl Cursor {
    /// Address and length of what comes next without a gap, `most` bytes at most.
    fn piece(&self, buffers: &[Buffer], most: usize) -> Option<(Ipa, u32)> {
        let buffer = buffers.get(self.index)?;
        let length = buffer.length.saturating_sub(self.offset).min(u32::try_from(most).unwrap_or(u32::MAX));
        Some((buffer.address.checked_add(self.offset.into())?, length))
    }

    /// Goes on by `length` bytes, which are all of the same buffer.
    fn advance(&mut self, buffers: &[Buffer], length: u32) {
        self.left = self.left.saturating_sub(length.into());
        self.offset = self.offset.saturating_add(length);
        if buffers.get(self.index).is_some_and(|buffer| self.offset >= buffer.length) {
            (self.index, self.offset) = (self.index.saturating_add(1), 0);
        }
    }

    /// Copies the next bytes by `copy`, which gets their addresses and how many there are, as many as a step may. Says how many
    /// those were.
    fn copy(
        &mut self,
        buffers: &[Buffer],
        length: usize,
        mut copy: impl FnMut(Ipa, core::ops::Range<usize>) -> Result<(), RingError>,
    ) -> Result<usize, RingError> {
        let (mut done, length) = (0_usize, length.min(STEP_BYTES));
        for _ in 0..STEP_BUFFERS {
            let left = length.saturating_sub(done);
            let Some((address, piece)) = self.piece(buffers, left).filter(|_| left > 0) else { break };
            let end = done.saturating_add(usize::try_from(piece).unwrap_or(left));
            copy(address, done..end)?;
            self.advance(buffers, piece);
            done = end;
        }
        Ok(done)
    }

    fn skip(&mut self, buffers: &[Buffer], mut bytes: u64) {
        while let Some((_, piece)) = self.piece(buffers, usize::try_from(bytes).unwrap_or(usize::MAX)) {
            if bytes == 0 {
                break;
            }
            self.advance(buffers, piece);
            bytes = bytes.saturating_sub(piece.into());
        }
    }
}

/// A request's buffers. It is storage for one request after the other: what it takes is allocated once.
#[derive(Debug)]
pub struct Chain {
    /// What the driver knows it by: the first descriptor's index in a split queue, the buffer ID in a packed one.
    id: u16,
    /// How many places of the ring it takes.
    slots: u16,
    /// Descriptors that may still come.
    room: u16,
    /// Readable ones, then writable ones; as many as there is room for from the beginning.
    buffers: Vec<Buffer>,
    /// How many of them are readable.
    readable: usize,
    /// In the readable ones, and in the others.
    reader: Cursor,
    writer: Cursor,
    /// There is a writable descriptor, so there can be no readable one any more.
    writes: bool,
    /// Bytes from the first writable one on that have been written, up to a gap.
    written: u32,
    gap: bool,
}

impl Chain {
    /// An empty one with room for the chains of queues with up to so many entries.
    #[must_use]
    pub fn new(queue_size: u16) -> Self {
        Self {
            id: 0,
            slots: 0,
            room: 0,
            buffers: Vec::with_capacity(queue_size.into()),
            readable: 0,
            reader: Cursor::default(),
            writer: Cursor::default(),
            writes: false,
            written: 0,
            gap: false,
        }
    }

    /// Forgets what was in it. A chain of at most `longest` descriptors comes in.
    pub(crate) fn begin(&mut self, longest: u16) {
        self.buffers.clear();
        self.room = longest.min(u16::try_from(self.buffers.capacity()).unwrap_or(u16::MAX));
        (self.id, self.slots, self.readable) = (0, 0, 0);
        (self.reader, self.writer) = (Cursor::default(), Cursor::default());
        (self.writes, self.written, self.gap) = (false, 0, false);
    }

    /// The next descriptor, which is not an indirect one.
    pub(crate) fn add(&mut self, descriptor: &Descriptor) -> Result<(), RingError> {
        self.room = self.room.checked_sub(1).ok_or(RingError::TooLong)?;
        let Descriptor { address, length, .. } = *descriptor;
        address.checked_add(length.into()).ok_or(RingError::Wraps(address))?;
        let cursor = if descriptor.is_writable() {
            self.writes = true;
            &mut self.writer
        } else if self.writes {
            return Err(RingError::Order);
        } else {
            &mut self.reader
        };
        cursor.left = cursor.left.saturating_add(length.into());
        if self.reader.left.saturating_add(self.writer.left) > MOST_BYTES {
            return Err(RingError::TooLarge);
        }
        // Nothing can be copied from or to an empty one.
        if length > 0 {
            self.buffers.push(Buffer { address, length });
            if !self.writes {
                self.readable = self.buffers.len();
            }
        }
        Ok(())
    }

    /// It is complete.
    pub(crate) const fn end(&mut self, id: u16, slots: u16) {
        (self.id, self.slots) = (id, slots);
    }

    pub(crate) const fn id(&self) -> u16 {
        self.id
    }

    pub(crate) const fn slots(&self) -> u16 {
        self.slots
    }

    /// What the device has to read, from where it has come to.
    pub fn reader(&mut self) -> Reader<'_> {
        Reader { buffers: self.buffers.get(..self.readable).unwrap_or_default(), cursor: &mut self.reader }
    }

    /// What the device can write, likewise.
    pub fn writer(&mut self) -> Writer<'_> {
        let buffers = self.buffers.get(self.readable..).unwrap_or_default();
        Writer { buffers, cursor: &mut self.writer, written: &mut self.written, gap: &mut self.gap }
    }

    /// How many bytes have been written from the first writable one on, without a gap: what the driver is told (2.7.8.2).
    #[must_use]
    pub const fn written(&self) -> u32 {
        self.written
    }
}

/// Reads a chain's readable bytes, one after the other.
#[derive(Debug)]
pub struct Reader<'a> {
    buffers: &'a [Buffer],
    cursor: &'a mut Cursor,
}

impl Reader<'_> {
    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.cursor.left
    }

    /// Copies the next bytes into `into` and says how many: as many as there are, and as a step may copy ([`STEP_BYTES`],
    /// [`STEP_BUFFERS`]); so 0 says that there are no more, or that `into` is empty.
    ///
    /// # Errors
    /// If they are not in the VM's memory.
    pub fn read(&mut self, memory: &dyn GuestMemory, into: &mut [u8]) -> Result<usize, RingError> {
        self.cursor.copy(self.buffers, into.len(), |address, range| {
            Ok(memory.read(address, into.get_mut(range).unwrap_or_default())?)
        })
    }

    /// Goes on by so many bytes, to the end at most.
    pub fn skip(&mut self, bytes: u64) {
        self.cursor.skip(self.buffers, bytes);
    }
}

/// Writes a chain's writable bytes, one after the other.
#[derive(Debug)]
pub struct Writer<'a> {
    buffers: &'a [Buffer],
    cursor: &'a mut Cursor,
    written: &'a mut u32,
    gap: &'a mut bool,
}

impl Writer<'_> {
    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.cursor.left
    }

    /// Copies bytes from `from` and says how many: as [`Reader::read`], the other way round.
    ///
    /// # Errors
    /// If they do not go to the VM's memory.
    pub fn write(&mut self, memory: &dyn GuestMemory, from: &[u8]) -> Result<usize, RingError> {
        let done = self.cursor.copy(self.buffers, from.len(), |address, range| {
            Ok(memory.write(address, from.get(range).unwrap_or_default())?)
        })?;
        if !*self.gap {
            *self.written = self.written.saturating_add(u32::try_from(done).unwrap_or(u32::MAX));
        }
        Ok(done)
    }

    /// Where the next bytes go, up to the end of the buffer that they are in; `None` at the end. For a device that deals with the
    /// memory itself, not with what is in it.
    #[must_use]
    pub fn area(&self) -> Option<Range<Ipa>> {
        let (address, length) = self.cursor.piece(self.buffers, usize::MAX)?;
        Range::new(address, length.into())
    }

    /// Goes on by so many bytes, to the end at most. What is written behind them is written, but not counted: the driver may be
    /// told of what comes before a gap only (2.7.8.2).
    pub fn skip(&mut self, bytes: u64) {
        *self.gap |= bytes > 0;
        self.cursor.skip(self.buffers, bytes);
    }
}

#[cfg(test)]
impl Chain {
    /// Its buffers as a driver offered them.
    pub(crate) fn offered(&self) -> Vec<(u64, u32, bool)> {
        let places = self.buffers.iter().enumerate();
        places.map(|(place, buffer)| (buffer.address.0, buffer.length, place >= self.readable)).collect()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.buffers.capacity()
    }
}
