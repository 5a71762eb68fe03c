//! Why a VM cannot be put together.
//!
//! Answers for: what is at odds with what, in the terms of the description. Does not answer for: where in the configuration that
//! was written (`config`).

use crate::load::{self, LoadError};
use alloc::string::{String, ToString};
use core::fmt;
use vdev::Place;

/// What an error is about: an index in one of the description's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The VM as a whole.
    Vm,
    /// One of [`super::Description::ram`].
    Ram(usize),
    /// One of [`super::Description::rom`].
    Rom(usize),
    /// One of [`super::Description::loads`].
    Load(usize),
    /// [`super::Description::entry`].
    Entry,
    /// [`super::Description::tree_at`].
    Tree,
    /// One of [`super::Description::vdevs`].
    Vdev(usize),
    /// The interrupt controller.
    InterruptController,
}

/// Why a VM cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembleError {
    /// What it is about.
    pub subject: Subject,
    /// The other party, where two are at odds.
    pub other: Option<Subject>,
    /// Where in the configuration, if the thing itself knows more exactly than the subject.
    pub place: Option<Place>,
    /// One sentence.
    pub message: String,
    /// What to do about it, where there is something to say.
    pub hint: Option<&'static str>,
}

impl AssembleError {
    pub(super) fn new(subject: Subject, message: impl fmt::Display) -> Self {
        Self { subject, other: None, place: None, message: message.to_string(), hint: None }
    }
}

impl fmt::Display for AssembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for AssembleError {}

impl From<LoadError> for AssembleError {
    fn from(error: LoadError) -> Self {
        let subject = match (error.load, &error.problem) {
            (Some(load), _) => Subject::Load(load),
            (None, load::Problem::BadEntry(_)) => Subject::Entry,
            // Of what has no `load` only the tree is put where the configuration says.
            (None, load::Problem::TreeAddress(_) | load::Problem::Outside(..) | load::Problem::Overlap { .. }) => {
                Subject::Tree
            }
            (None, _) => Subject::Vm,
        };
        let hint = error.problem.hint();
        Self { other: error.other.map(Subject::Load), hint, ..Self::new(subject, error) }
    }
}
