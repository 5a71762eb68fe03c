//! The event queue (IHI 0070, 3.5.3, 7.2, 7.4).
//!
//! Answers for: taking records out, each copied once, and noticing that some are lost. Does not answer for: what becomes of
//! an event.

use crate::command::entry_at;
use crate::event::BYTES_LOG2;
use crate::registers::{BASE_ALLOCATE, EVENTQ_CONS_OFFSET, EVENTQ_PROD, EVENTQ_PROD_OFFSET};
use crate::{Event, Memory, Registers};
use tock_registers::LocalRegisterCopy;
use types::Pa;

/// The queue.
#[derive(Clone, Debug)]
pub struct EventQueue {
    base: Pa,
    bits: u8,
    /// Index and wrap bit of the next record.
    next: u32,
    /// `OVACKFLG`: the last `OVFLG` that was seen.
    overflow: bool,
    recorded: u64,
    overflows: u64,
}

impl EventQueue {
    pub(crate) const fn new(base: Pa, bits: u8) -> Self {
        Self { base, bits, next: 0, overflow: false, recorded: 0, overflows: 0 }
    }

    /// `SMMU_EVENTQ_BASE`.
    pub(crate) fn base_register(&self) -> u64 {
        self.base.0 | BASE_ALLOCATE | u64::from(self.bits)
    }

    /// Takes out the oldest record, if there is one. A device can make new ones as fast as they are taken: whoever calls this
    /// in a loop counts.
    pub fn take(&mut self, io: &mut (impl Registers + Memory)) -> Option<Event> {
        let state = LocalRegisterCopy::<u32, EVENTQ_PROD::Register>::new(io.get(EVENTQ_PROD_OFFSET));
        let mask = (2_u32 << self.bits).wrapping_sub(1);
        let end = state.read(EVENTQ_PROD::WR) & mask;
        let overflow = state.is_set(EVENTQ_PROD::OVFLG);
        let acknowledge = overflow != self.overflow;
        if acknowledge {
            self.overflow = overflow;
            self.overflows = self.overflows.saturating_add(1);
        }
        let there = end.wrapping_sub(self.next) & mask;
        if there == 0 || there > 1 << self.bits {
            if there != 0 {
                // More than the queue holds: none of it can be believed.
                self.next = end;
                self.overflows = self.overflows.saturating_add(1);
            }
            if acknowledge || there != 0 {
                self.consume(io);
            }
            return None;
        }
        let at = entry_at(self.base, self.next & !(1 << self.bits), BYTES_LOG2);
        let record = [0, 8, 16, 24].map(|offset| io.load(Pa(at.0.saturating_add(offset))));
        self.next = self.next.wrapping_add(1) & mask;
        self.recorded = self.recorded.saturating_add(1);
        self.consume(io);
        Some(Event::decode(record))
    }

    /// How many records have been taken out.
    #[must_use]
    pub const fn recorded(&self) -> u64 {
        self.recorded
    }

    /// How often records have been lost because the queue was full; how many each time, nobody knows.
    #[must_use]
    pub const fn overflows(&self) -> u64 {
        self.overflows
    }

    fn consume(&self, io: &mut impl Registers) {
        let flag = EVENTQ_PROD::OVFLG.val(u32::from(self.overflow));
        io.set(EVENTQ_CONS_OFFSET, flag.value | EVENTQ_PROD::WR.val(self.next).value);
    }
}
