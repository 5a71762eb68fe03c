//! The command queue (IHI 0070, 3.5.1, 3.21.2, 4.1, 7.1).
//!
//! Answers for: indices with their wrap bits, room, knowing what has been consumed, and going on after a command that the
//! SMMU did not take. Does not answer for: which commands (`streams`, `invalidate`), and waiting ([`crate::Smmu`]).

use crate::command::{BYTES_LOG2, entry_at};
use crate::registers::{
    BASE_ALLOCATE, CMDQ_CONS, CMDQ_CONS_OFFSET, CMDQ_PROD_OFFSET, GERROR, GERROR_OFFSET, GERRORN_OFFSET,
};
use crate::{Command, Memory, Registers, Signal, Trouble};
use core::fmt;
use tock_registers::LocalRegisterCopy;
use types::Pa;

/// Why the SMMU stopped at a command (7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// `CERROR_ILL`: it does not have this command, or not with these parameters. `None` if it is none of ours.
    Ill(Option<Command>),
    /// `CERROR_ABT`: it could not read it. It has been told to try again.
    Abt,
    /// `CERROR_ATC_INV_SYNC`: a device did not answer an invalidation.
    AtcInvSync,
    /// Another reason, by its number.
    Other(u32),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ill(Some(command)) => write!(f, "the SMMU does not take {command:?} (CERROR_ILL)"),
            Self::Ill(None) => f.write_str("the SMMU found a command that nobody gave (CERROR_ILL)"),
            Self::Abt => f.write_str("the SMMU cannot read its command queue (CERROR_ABT)"),
            Self::AtcInvSync => f.write_str("a device did not answer an invalidation (CERROR_ATC_INV_SYNC)"),
            Self::Other(code) => write!(f, "the command queue has stopped for reason {code:#x}"),
        }
    }
}

/// The queue. Counts go up for ever; their low bits are index and wrap bit.
#[derive(Clone, Debug)]
pub(crate) struct CommandQueue {
    base: Pa,
    bits: u8,
    /// Written to memory.
    produced: u64,
    /// Made known to the SMMU.
    published: u64,
    /// Known to be consumed.
    consumed: u64,
    /// How often the SMMU has stopped, and why the last time.
    pub(crate) errors: u32,
    pub(crate) last_error: Option<CommandError>,
}

impl CommandQueue {
    pub(crate) const fn new(base: Pa, bits: u8) -> Self {
        Self { base, bits, produced: 0, published: 0, consumed: 0, errors: 0, last_error: None }
    }

    /// `SMMU_CMDQ_BASE`.
    pub(crate) fn base_register(&self) -> u64 {
        self.base.0 | BASE_ALLOCATE | u64::from(self.bits)
    }

    /// Adds a command; the SMMU does not know yet. `None` if there is no room now. What comes back is what
    /// [`CommandQueue::has_consumed`] takes.
    pub(crate) fn push(&mut self, command: &Command, io: &mut (impl Registers + Memory)) -> Option<u64> {
        if self.produced.wrapping_sub(self.consumed) >= 1 << self.bits {
            // Whoever waits for room waits for the SMMU: it has to know of what is there.
            self.ring(io);
            return None;
        }
        self.write(self.produced, command, io);
        self.produced = self.produced.wrapping_add(1);
        Some(self.produced)
    }

    /// Makes the SMMU know of all commands.
    pub(crate) fn ring(&mut self, io: &mut (impl Registers + Memory)) {
        if self.published != self.produced {
            io.publish();
            io.set(CMDQ_PROD_OFFSET, self.index(self.produced));
            self.published = self.produced;
        }
    }

    /// Whether the command that had this number has been consumed, as of the last [`CommandQueue::look`].
    pub(crate) const fn has_consumed(&self, number: u64) -> bool {
        self.consumed >= number
    }

    /// Asks the SMMU how far it is, and helps it on if it has stopped.
    pub(crate) fn look(&mut self, io: &mut (impl Registers + Memory)) -> Result<(), Trouble> {
        // In this order: once an error is seen, the other register says where and why (7.1).
        let (gerror, gerrorn) = (io.get(GERROR_OFFSET), io.get(GERRORN_OFFSET));
        let active = LocalRegisterCopy::<u32, GERROR::Register>::new(gerror ^ gerrorn);
        let state = LocalRegisterCopy::<u32, CMDQ_CONS::Register>::new(io.get(CMDQ_CONS_OFFSET));
        let mask = self.index(u64::MAX);
        let step = state.read(CMDQ_CONS::RD).wrapping_sub(self.index(self.consumed)) & mask;
        if u64::from(step) > self.published.wrapping_sub(self.consumed) {
            return Err(Trouble::Nonsense);
        }
        self.consumed = self.consumed.wrapping_add(u64::from(step));
        if active.is_set(GERROR::CMDQ_ERR) {
            self.go_on(state.read(CMDQ_CONS::ERR), io);
            let acknowledged = gerrorn ^ GERROR::CMDQ_ERR::SET.value;
            io.set(GERRORN_OFFSET, acknowledged);
        }
        Ok(())
    }

    /// The SMMU has stopped at the first command that is not consumed. What it does not take becomes a `CMD_SYNC`, which
    /// does no harm there; while the error is active, commands may be changed (3.21.2, 7.1).
    fn go_on(&mut self, code: u32, io: &mut (impl Registers + Memory)) {
        let error = match code {
            1 => {
                let at = self.place(self.consumed);
                let words = [io.load(at), io.load(Pa(at.0.saturating_add(8)))];
                self.write(self.consumed, &Command::Sync(Signal::None), io);
                io.publish();
                CommandError::Ill(Command::decode(words).ok())
            }
            2 => CommandError::Abt,
            3 => CommandError::AtcInvSync,
            other => CommandError::Other(other),
        };
        self.errors = self.errors.saturating_add(1);
        self.last_error = Some(error);
    }

    fn write(&self, number: u64, command: &Command, io: &mut impl Memory) {
        let at = self.place(number);
        let [word0, word1] = command.encode();
        io.store(at, word0);
        io.store(Pa(at.0.saturating_add(8)), word1);
    }

    fn place(&self, number: u64) -> Pa {
        entry_at(self.base, self.index(number) & !(1 << self.bits), BYTES_LOG2)
    }

    /// Index and wrap bit of a count: at most 20 bits.
    fn index(&self, number: u64) -> u32 {
        let mask = (2_u64 << self.bits).wrapping_sub(1);
        u32::try_from(number & mask).unwrap_or(0)
    }
}
