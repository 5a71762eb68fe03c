//! The file protocol 9P2000.L: a server of files that nobody writes to.
//!
//! Answers for: a tree of directories made of paths ([`Tree`]), and what a client is told of it ([`Server`]): the messages that a
//! read-only mount takes; all that would write is `EROFS`. Does not answer for: how messages come and go (`vdevs`), where files come
//! from (`host`).
//!
//! Follows section 5 of the Plan 9 Programmer's Manual, Fourth Edition ("intro", "version", "walk" and so on), and for what `.L`
//! adds to it "9P2000.L Protocol" of the diod project (`protocol.md`), which writes down what Linux says. Numbers of errors, modes
//! and flags are Linux's generic ones.
//!
//! A message is an allegation: it is copied before it comes here, no length in it is believed, and no answer takes longer than one
//! of [`ANSWER`] bytes, or than what is read of a file.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod fids;
mod message;
mod server;
mod tree;

pub use fids::MOST_FIDS;
pub use message::{ANSWER, Answer, Errno, REQUEST, kind};
pub use server::{LEAST_MSIZE, MOST_MSIZE, Server};
pub use tree::{LONGEST_NAME, NodeId, Tree, TreeError};
