//! Arm's Interrupt Translation Service (ITS), seen from the side that programs it.
//!
//! Answers for: the registers of an ITS, and of a redistributor as far as LPIs go, by name and bit; the shape of their tables
//! ([`Table`], [`lpis`]); commands; which stores, commands and waits make which change ([`Procedure`]), and carrying them out with a
//! limit in time ([`Its`]). Does not answer for: how a register or a table is reached ([`Registers`], [`Memory`]: the driver's), whose an
//! LPI is, and locks. The ITS that a guest sees is another one (`vgic`).
//!
//! Follows the Arm Generic Interrupt Controller Architecture Specification, GICv3 and GICv4 (IHI 0069): what it says of
//! LPIs, of the ITS, and of their registers. Sections are named, not numbered. Only physical LPIs.

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

mod access;
mod command;
mod command_queue;
mod features;
mod its;
pub mod lpis;
mod procedure;
mod registers;
mod table;
#[cfg(test)]
mod testing;

pub use access::{Memory, Registers};
pub use command::{Command, Event};
pub use command_queue::QUEUE_BYTES;
pub use features::{Features, Unfit};
pub use its::{Its, Layout, close, turn_off};
pub use procedure::{Procedure, Progress, Step, Trouble};
pub use registers::{REGISTERS_LENGTH, TRANSLATER_OFFSET};
pub use table::{Kind, Place, Table};
