//! The command queue (IHI 0069, "The ITS command queue", `GITS_CBASER`, `GITS_CWRITER`, `GITS_CREADR`).
//!
//! Answers for: places, room, knowing what has been consumed, and that the ITS has stalled. Does not answer for: which commands, and
//! waiting ([`crate::Its`]).

use crate::registers::{
    CBASER, CBASER_OFFSET, CREADR, CREADR_OFFSET, CWRITER_OFFSET, INNER_SHAREABLE, NON_CACHEABLE, WRITE_BACK,
};
use crate::{Command, Memory, Registers, Trouble};
use tock_registers::LocalRegisterCopy;
use types::Pa;

/// How much memory it has: a page, the least there can be.
pub const QUEUE_BYTES: u64 = 0x1000;
const COMMAND_BYTES: u64 = 32;
const PLACES: u64 = QUEUE_BYTES / COMMAND_BYTES;

/// The queue. Counts go up for ever.
#[derive(Clone, Debug)]
pub(crate) struct CommandQueue {
    base: Pa,
    /// Written to memory.
    produced: u64,
    /// Made known to the ITS.
    published: u64,
    /// Known to be consumed.
    consumed: u64,
}

impl CommandQueue {
    pub(crate) const fn new(base: Pa) -> Self {
        Self { base, produced: 0, published: 0, consumed: 0 }
    }

    /// Sets the ITS, which is off, to an empty queue. Says whether commands are read through the CPUs' caches.
    pub(crate) fn install(&self, io: &mut impl Registers) -> bool {
        let value = |shareability, cache| {
            let fields = CBASER::Valid::SET.value | CBASER::Size.val(0).value;
            let way = CBASER::Shareability.val(shareability).value | CBASER::InnerCache.val(cache).value;
            fields | way | self.base.0
        };
        io.set_wide(CBASER_OFFSET, value(INNER_SHAREABLE, WRITE_BACK));
        let kept = LocalRegisterCopy::<u64, CBASER::Register>::new(io.get_wide(CBASER_OFFSET));
        let is_coherent = kept.read(CBASER::Shareability) == INNER_SHAREABLE;
        if !is_coherent {
            io.set_wide(CBASER_OFFSET, value(0, NON_CACHEABLE));
        }
        // A write of `GITS_CBASER` has set `GITS_CREADR` to zero.
        io.set_wide(CWRITER_OFFSET, 0);
        is_coherent
    }

    /// Whether there is room for a command, as far as is known.
    pub(crate) const fn has_room(&self) -> bool {
        // One place stays empty: a full queue would look like an empty one.
        self.produced.wrapping_sub(self.consumed) < PLACES - 1
    }

    /// Adds a command; the ITS does not know yet. `None` if there is no room now. What comes back is what
    /// [`CommandQueue::has_consumed`] takes.
    pub(crate) fn push(&mut self, command: &Command, io: &mut impl Memory) -> Option<u64> {
        if !self.has_room() {
            return None;
        }
        let at = self.base.0.saturating_add(place(self.produced));
        for (word, offset) in command.encode().into_iter().zip([0, 8, 16, 24]) {
            io.store(Pa(at.saturating_add(offset)), word);
        }
        self.produced = self.produced.wrapping_add(1);
        Some(self.produced)
    }

    /// Makes known what has been added.
    pub(crate) fn ring(&mut self, io: &mut (impl Registers + Memory)) {
        if self.published != self.produced {
            io.publish();
            io.set_wide(CWRITER_OFFSET, place(self.produced));
            self.published = self.produced;
        }
    }

    /// How many commands are known to be consumed.
    pub(crate) const fn consumed(&self) -> u64 {
        self.consumed
    }

    pub(crate) const fn has_consumed(&self, number: u64) -> bool {
        self.consumed >= number
    }

    /// Looks how far the ITS is.
    ///
    /// # Errors
    /// If it has stalled at a command, or says what cannot be.
    pub(crate) fn look(&mut self, io: &mut impl Registers) -> Result<(), Trouble> {
        let state = LocalRegisterCopy::<u64, CREADR::Register>::new(io.get_wide(CREADR_OFFSET));
        let offset = state.read(CREADR::Offset).saturating_mul(COMMAND_BYTES);
        let step = offset.wrapping_sub(place(self.consumed)).wrapping_rem(QUEUE_BYTES) / COMMAND_BYTES;
        if offset >= QUEUE_BYTES || step > self.published.wrapping_sub(self.consumed) {
            return Err(Trouble::Nonsense);
        }
        self.consumed = self.consumed.wrapping_add(step);
        if state.is_set(CREADR::Stalled) { Err(Trouble::Stalled) } else { Ok(()) }
    }
}

/// Where command `number` is in the queue.
const fn place(number: u64) -> u64 {
    (number % PLACES).wrapping_mul(COMMAND_BYTES)
}
