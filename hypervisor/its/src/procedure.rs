//! Changes as lists of steps.
//!
//! Answers for: what a change consists of, and in which state it is. The lists are made where the specification is cited
//! ([`crate::Its`]); here they are only held. Does not answer for: carrying them out ([`crate::Its::advance`]).

use crate::Command;
use alloc::vec::Vec;
use core::fmt;
use types::{Pa, Ticks};

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A byte of memory gets a value.
    StoreByte {
        /// Where.
        at: Pa,
        /// The value.
        byte: u8,
    },
    /// A command goes into the queue. Stores before it are seen before it is.
    Issue(Command),
    /// A wait until all commands so far are consumed.
    Await,
}

/// What keeps a change from being made. The ITS may then still have what there was before, or anything in between, and is not to
/// be used any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It has stopped at a command (`GITS_CREADR.Stalled`).
    Stalled,
    /// It did nothing for too long.
    Late,
    /// `GITS_CREADR` says that commands were consumed which have not been given.
    Nonsense,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "it has stopped at a command (GITS_CREADR.Stalled)",
            Self::Late => "it does not do its commands in time",
            Self::Nonsense => "GITS_CREADR is beyond GITS_CWRITER",
        })
    }
}

/// How far a procedure has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// All steps are done.
    Done,
    /// The ITS is being waited for: ask again.
    Waiting,
    /// It has not been carried out, and is not going to be.
    Failed(Trouble),
}

/// A change: its steps, and how far it has come.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing changes unless it is carried out"]
pub struct Procedure {
    pub(crate) steps: Vec<Step>,
    /// The step that is to be done.
    pub(crate) next: usize,
    /// For [`Step::Await`]: what the queue has to have consumed.
    pub(crate) last: u64,
    /// When the ITS is to have done something, once it has begun.
    pub(crate) deadline: Option<Ticks>,
    pub(crate) trouble: Option<Trouble>,
}

impl Procedure {
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        Self { steps, ..Self::default() }
    }

    /// Its steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}
