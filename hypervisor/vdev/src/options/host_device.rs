//! What an option with a back end names.
//!
//! Answers for: the name, and which way bytes go. Does not answer for: what there is under the name ([`crate::Backends`]).

use super::Place;
use alloc::{
    format,
    string::{String, ToString},
};
use core::fmt;

/// A back end as `hostdev` names it: `[<|>]NAME`. `<` is input only, `>` output only, neither is both; the name `-` is the
/// VM's console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Which way bytes go.
    pub direction: Direction,
    /// The name, without the sign. Never empty.
    pub name: String,
    /// Where it was written; `None` if it is a default.
    pub place: Option<Place>,
}

/// Which way bytes go through a back end, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest reads.
    Input,
    /// The guest writes.
    Output,
    /// Both.
    Both,
}

impl Direction {
    /// Whether the guest reads from it.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Input | Self::Both)
    }

    /// Whether the guest writes to it.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Output | Self::Both)
    }
}

impl HostDevice {
    /// The VM's own console, both ways.
    #[must_use]
    pub fn console() -> Self {
        Self { direction: Direction::Both, name: "-".to_string(), place: None }
    }

    /// Whether it is the VM's own console.
    #[must_use]
    pub fn is_console(&self) -> bool {
        self.name == "-"
    }

    /// What `[<|>]NAME` names, which was written at `place`.
    ///
    /// # Errors
    /// If there is no name: what is wrong, in words.
    pub fn parse(text: &str, place: Option<Place>) -> Result<Self, String> {
        let (direction, name) = match text.as_bytes().first() {
            Some(b'<') => (Direction::Input, text.get(1..)),
            Some(b'>') => (Direction::Output, text.get(1..)),
            _ => (Direction::Both, Some(text)),
        };
        match name {
            Some(name) if !name.is_empty() => Ok(Self { direction, name: name.to_string(), place }),
            _ => Err(format!("`{text}` names no back end: expected NAME, <NAME or >NAME")),
        }
    }
}

impl fmt::Display for HostDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.direction {
            Direction::Input => "<",
            Direction::Output => ">",
            Direction::Both => "",
        };
        write!(f, "{sign}{}", self.name)
    }
}
