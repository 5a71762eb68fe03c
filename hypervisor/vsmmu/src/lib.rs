//! An SMMUv3 as a guest sees it: stage 1 of its devices' translation, before the host's stage 2.
//!
//! Answers for: the registers, the command queue and what its commands come to, what a guest wants of each stream by its stream
//! table, and records in its event queue. Does not answer for: carrying any of that out ([`Host`]: whoever has the machine's SMMU),
//! translating (the machine's SMMU does, by the guest's own tables), and where the registers are (`vdevs`).
//!
//! Follows IHI 0070, sections as in the crate [`smmu`], whose formats it uses. Why it is made as it is: docs/design/044-vsmmu.md.
//!
//! # Who believes what
//!
//! A guest says for each stream: abort, let pass, or translate by a context descriptor of mine. The first is done for it, the second is
//! stage 2 alone, and the third is stage 1 with stage 2 behind it: the machine's SMMU reads the guest's descriptors and tables
//! through stage 2. So nothing that the guest writes makes a stream reach more than stage 2 lets it, and none of it but stream table
//! entries and commands is read here, each copied once and then checked. VMIDs are the host's; a guest has none to name.
//!
//! # What takes how long
//!
//! A register access only notes what it asks for. The work is done in batches ([`Smmu::begin`]), of at most [`COMMANDS`] commands and
//! [`ORDERS`] orders to the host, which are carried out with no lock held ([`Batch::carry_out`]). `CMD_SYNC` is consumed
//! when all orders from before it have been.

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

mod behind;
mod commands;
mod events;
mod host;
mod queue;
mod registers;
mod shape;
mod streams;
mod unit;

pub use behind::Behind;
pub use commands::COMMANDS;
pub use host::{Batch, Host, Invalidation, NoStreams, ORDERS, Order, Target};
pub use shape::Shape;
pub use unit::{Signals, Smmu, Status};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
