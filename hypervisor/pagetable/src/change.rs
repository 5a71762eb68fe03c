//! What a change to a tree answers.
//!
//! Answers for: errors, and how far a bounded piece of work has come.

use core::fmt;
use types::{Address, Range};

/// Why nothing has been changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError<A> {
    /// Start, length or destination is not a multiple of 4 KiB.
    Misaligned,
    /// The range does not lie inside the input address space.
    InputOutOfRange,
    /// The destination does not lie inside the physical address space.
    OutputOutOfRange,
    /// Something is already mapped at this address.
    Overlap(A),
    /// The pool has no memory for the tables this needs.
    OutOfTables,
}

impl<A: Address> fmt::Display for MapError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned => f.write_str("addresses and length must be multiples of 4 KiB"),
            Self::InputOutOfRange => f.write_str("beyond the end of the address space"),
            Self::OutputOutOfRange => f.write_str("beyond the end of the physical address space"),
            Self::Overlap(at) => write!(f, "{at} is already mapped"),
            Self::OutOfTables => f.write_str("no memory for translation tables"),
        }
    }
}

impl<A: Address + fmt::Debug> core::error::Error for MapError<A> {}

/// How far a change has come. It is complete up to `rest`, maintenance included; what `rest` names has not been touched,
/// except that a block at its end may have been split, so that going on cannot run out of tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a change that is not told to go on stays incomplete"]
pub struct Progress<A> {
    /// How many bytes have been mapped, unmapped or given other attributes by this call. Holes do not count.
    pub changed: u64,
    /// What is left to do, or `None`.
    pub rest: Option<Range<A>>,
}

impl<A> Progress<A> {
    /// Whether nothing is left.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.rest.is_none()
    }
}
