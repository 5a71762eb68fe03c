//! Changes as lists of steps.
//!
//! Answers for: what a change consists of, and in which state it is. A change to what the SMMU does is never one write:
//! writes have to be seen before commands that refer to them, and commands to be complete before memory is used again.
//! The lists are made where the specification is cited (`streams`, `invalidate`, `start`); here they are only held. Does not
//! answer for: carrying them out ([`crate::Smmu::advance`]).

use crate::{Command, CommandError, Registers};
use arrayvec::ArrayVec;
use core::fmt;
use types::{Pa, Ticks};

/// Most steps of one procedure; the longest is that of the start.
pub(crate) const MAX_STEPS: usize = 48;

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A word of memory gets a value.
    Store {
        /// Where.
        at: Pa,
        /// The value.
        word: u64,
    },
    /// A command goes into the queue. Stores before it are seen before it is.
    Issue(Command),
    /// `CMD_SYNC`, and a wait until it is consumed: all commands before it are complete.
    Synchronize,
    /// A register gets a value.
    Set {
        /// Its offset.
        register: usize,
        /// The value.
        value: u32,
    },
    /// A register gets the value of another.
    Copy {
        /// Offset of the other.
        from: usize,
        /// Its offset.
        to: usize,
    },
    /// A wait until a register has this value.
    Await {
        /// Its offset.
        register: usize,
        /// Which bits of it.
        mask: u32,
        /// The value of these bits.
        value: u32,
    },
}

impl Step {
    /// Does what a step has to do with registers: all that some do, nothing that others do. Whether that is done, and not
    /// waited for.
    pub(crate) fn touch(&self, registers: &mut impl Registers) -> bool {
        match *self {
            Self::Set { register, value } => registers.set(register, value),
            Self::Copy { from, to } => {
                let value = registers.get(from);
                registers.set(to, value);
            }
            Self::Await { register, mask, value } => return registers.get(register) & mask == value,
            Self::Store { .. } | Self::Issue(_) | Self::Synchronize => {}
        }
        true
    }
}

/// What keeps a change from being made. The SMMU may then still have what there was before, or anything in between: memory
/// that was to be withdrawn from a device is to be treated as if it were still within the device's reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The SMMU did not take a command, which has been skipped.
    Command(CommandError),
    /// A step took too long.
    Late(Step),
    /// `SMMU_CMDQ_CONS` says that commands were consumed which have not been given.
    Nonsense,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => error.fmt(f),
            Self::Late(Step::Synchronize) => f.write_str("CMD_SYNC was not consumed in time"),
            Self::Late(Step::Issue(command)) => write!(f, "no room for {command:?} in time"),
            Self::Late(Step::Await { register, .. }) => {
                write!(f, "the register at {register:#x} did not change in time")
            }
            Self::Late(_) => f.write_str("not done in time"),
            Self::Nonsense => f.write_str("CMDQ_CONS is beyond CMDQ_PROD"),
        }
    }
}

/// How far a procedure has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// All steps are done.
    Done,
    /// The SMMU is being waited for: ask again.
    Waiting,
    /// It has not been carried out, and is not going to be.
    Failed(Trouble),
}

/// A change: its steps, and how far it has come.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing changes unless it is carried out"]
pub struct Procedure {
    pub(crate) steps: ArrayVec<Step, MAX_STEPS>,
    /// The step that is to be done.
    pub(crate) next: usize,
    /// For [`Step::Synchronize`]: what the queue has to have consumed.
    pub(crate) ticket: Option<u64>,
    /// When its next step is to be done, once it has begun, and how many errors the queue had had when it did.
    pub(crate) begun: Option<(Ticks, u32)>,
    pub(crate) trouble: Option<Trouble>,
    /// If it is the change of a stream: of which, and its number ([`crate::Streams::is_current`]).
    pub(crate) change: Option<(u32, u64)>,
}

impl Procedure {
    /// Its steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether all of them have been carried out, and are complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.trouble.is_none() && self.next >= self.steps.len()
    }

    /// Has it carried out from its first step, if a command has not been taken: that may have been somebody else's. Whether there is
    /// anything to be hoped for.
    #[must_use]
    pub fn again(&mut self) -> bool {
        let is_skipped = matches!(self.trouble, Some(Trouble::Command(_)));
        if is_skipped {
            (self.next, self.ticket, self.begun, self.trouble) = (0, None, None, None);
        }
        is_skipped
    }

    /// Adds a step. One too many makes the procedure fail instead of being left out.
    pub(crate) fn then(&mut self, step: Step) {
        if self.steps.try_push(step).is_err() {
            self.trouble = Some(Trouble::Late(step));
        }
    }

    /// Adds several.
    pub(crate) fn then_all<const N: usize>(&mut self, steps: [Step; N]) {
        for step in steps {
            self.then(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_is_too_long_fails_and_is_not_cut() {
        let mut procedure = Procedure::default();
        for _ in 0..MAX_STEPS {
            procedure.then(Step::Issue(Command::CfgiAll));
        }
        assert_eq!(procedure.trouble, None);
        procedure.then(Step::Synchronize);
        assert_eq!(procedure.trouble, Some(Trouble::Late(Step::Synchronize)));
    }
}
