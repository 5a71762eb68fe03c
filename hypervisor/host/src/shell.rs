//! The shell: what the hypervisor is told to do, by its start-up script or by somebody at the console.
//!
//! Answers for: cutting lines into words ([`Word`]), the one table of commands with their arguments and help
//! ([`Command`]), the script ([`parse`]), the line that is being typed ([`Editor`]), and what reports look like
//! ([`report`]). Does not answer for: carrying anything out, what a configuration says (`qvm` hands its words on as they
//! are written), or whether there is a VM of some name: the kernel looks when a command's turn has come.

mod argument;
mod command;
mod editor;
mod pci;
pub mod report;
mod script;
mod shm;
mod signal;
mod uplink;
mod words;

pub use command::{Command, Part, Pidin, Qvm, Read, Record, help, read};
pub use editor::{Completions, Editor, Named, PROMPT};
pub use pci::{Location, Pci};
pub use script::{FILE, Step, parse};
pub use shm::{MOST_SHOWN, Shm};
pub use signal::Signal;
pub use uplink::Uplink;
pub use words::Word;

use alloc::string::String;
use core::fmt;

/// The line of what was typed and not read from a script.
pub const TYPED: usize = 0;

/// What is wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// Line of the script, from 1, or [`TYPED`].
    pub line: usize,
    /// Character in it, from 1.
    pub column: usize,
    /// What.
    pub message: String,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            TYPED => write!(f, "shell: {}", self.message),
            line => write!(f, "{FILE}:{line}:{}: error: {}", self.column, self.message),
        }
    }
}
