//! Descriptors, and tables of them (2.7.5, 2.8.13).

use crate::{Chain, RingError};
use types::Ipa;
use vdev::GuestMemory;
use zerocopy::IntoBytes;

/// The two words of a descriptor as they are in memory, little-endian.
type Words = [u64; 2];
/// Descriptors of a table that are read at once.
const WINDOW: u16 = 8;

const NEXT: u16 = 1 << 0;
const WRITE: u16 = 1 << 1;
const INDIRECT: u16 = 1 << 2;

/// A descriptor, copied out of memory; nothing of it has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: Ipa,
    pub(crate) length: u32,
    pub(super) flags: u16,
    /// The next descriptor of a split queue's chain; the buffer ID in a packed queue.
    pub(super) link: u16,
}

impl Descriptor {
    /// A split queue's.
    pub(super) fn read(memory: &dyn GuestMemory, at: Ipa) -> Result<Self, RingError> {
        let mut words = Words::default();
        memory.read(at, words.as_mut_bytes())?;
        Ok(Self::split(&words))
    }

    fn split(words: &Words) -> Self {
        let [address, rest] = words.map(u64::from_le);
        Self { address: Ipa(address), length: low(rest), flags: half(rest >> 32), link: half(rest >> 48) }
    }

    /// A packed queue's: its first word, and its second, which has the flags.
    pub(super) fn packed(address: u64, rest: u64) -> Self {
        Self { address: Ipa(address), length: low(rest), flags: half(rest >> 48), link: half(rest >> 32) }
    }

    pub(crate) const fn is_writable(&self) -> bool {
        self.flags & WRITE != 0
    }

    pub(super) const fn is_indirect(&self) -> bool {
        self.flags & INDIRECT != 0
    }

    pub(super) const fn has_next(&self) -> bool {
        self.flags & NEXT != 0
    }

    /// The next one's index, if there is one, in a split queue or table.
    pub(super) const fn next(&self) -> Option<u16> {
        if self.has_next() { Some(self.link) } else { None }
    }
}

/// A table of descriptors, somewhere in memory, of which each is read once for each time it is asked for.
pub(super) struct Table {
    start: Ipa,
    count: u16,
    /// What is in a [`Window`]: the first one, and how many.
    first: u16,
    held: u16,
}

/// Some of a table's descriptors.
type Window = [Words; WINDOW as usize];

impl Table {
    /// The one that `descriptor` refers to, which has been found to be allowed.
    fn new(descriptor: &Descriptor) -> Result<Self, RingError> {
        let Descriptor { address: start, length, .. } = *descriptor;
        start.checked_add(length.into()).ok_or(RingError::Wraps(start))?;
        let count = u16::try_from(length >> 4).ok().filter(|count| *count > 0 && length.is_multiple_of(16));
        let count = count.ok_or(RingError::IndirectLength(length))?;
        Ok(Self { start, count, first: 0, held: 0 })
    }

    /// Reads the descriptor `index` and those behind it, as many as there are and the window has room for.
    fn read<'a>(&self, window: &'a mut Window, memory: &dyn GuestMemory, index: u16) -> Result<&'a [Words], RingError> {
        let left = self.count.checked_sub(index).filter(|left| *left > 0).ok_or(RingError::Next(index))?;
        let some = window.get_mut(..left.min(WINDOW).into()).unwrap_or_default();
        memory.read(Ipa(self.start.0.wrapping_add(u64::from(index) << 4)), some.as_mut_bytes())?;
        Ok(some)
    }

    /// One of its descriptors, which are in the window then, with those that follow.
    fn get<'a>(
        &mut self,
        window: &'a mut Window,
        memory: &dyn GuestMemory,
        index: u16,
    ) -> Result<&'a Words, RingError> {
        let mut place = usize::from(index.wrapping_sub(self.first));
        if place >= self.held.into() {
            let some = self.read(window, memory, index)?;
            (self.first, self.held, place) = (index, u16::try_from(some.len()).unwrap_or(WINDOW), 0);
        }
        window.get(place).ok_or(RingError::Next(index))
    }

    /// Adds a split queue's table to a chain: one after the other as their links say (2.7.5.3).
    pub(super) fn walk_links(
        descriptor: &Descriptor,
        memory: &dyn GuestMemory,
        chain: &mut Chain,
    ) -> Result<(), RingError> {
        let (mut table, mut window) = (Self::new(descriptor)?, Window::default());
        let mut next = Some(0);
        while let Some(index) = next {
            let descriptor = Descriptor::split(table.get(&mut window, memory, index)?);
            if descriptor.is_indirect() {
                return Err(RingError::IndirectNested);
            }
            chain.add(&descriptor)?;
            next = descriptor.next();
        }
        Ok(())
    }

    /// Adds a packed queue's table to a chain: one after the other, and no flag but the write flag has a meaning (2.8.7).
    pub(super) fn walk_all(
        descriptor: &Descriptor,
        memory: &dyn GuestMemory,
        chain: &mut Chain,
    ) -> Result<(), RingError> {
        let (table, mut window) = (Self::new(descriptor)?, Window::default());
        for index in (0..table.count).step_by(WINDOW.into()) {
            for words in table.read(&mut window, memory, index)? {
                let [address, rest] = words.map(u64::from_le);
                chain.add(&Descriptor::packed(address, rest))?;
            }
        }
        Ok(())
    }
}

/// Bits 31 to 0.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
const fn low(value: u64) -> u32 {
    value as u32
}

/// Bits 15 to 0.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
pub(super) const fn half(value: u64) -> u16 {
    value as u16
}
