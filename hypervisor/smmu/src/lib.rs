//! Arm's SMMUv3, seen from the side that programs it.
//!
//! Answers for: the formats of its structures, commands and event records, its registers by name and bit; which
//! writes, commands and waits make which change ([`Procedure`]), and carrying them out with a limit in time ([`Smmu`]); who
//! owns which stream ([`Streams`]), how many events each has had ([`Tally`]); the configuration of `smmuman`
//! ([`configuration`]). Does not answer for: how a register or a table is reached ([`Registers`], [`Memory`]: the driver's),
//! translation tables (`pagetable`), locks, and what becomes of a VM whose device has faulted.
//!
//! Follows the Arm System Memory Management Unit Architecture Specification, version 3 (IHI 0070); sections have the numbers
//! of an issue that covers SMMUv3.4. Only the Non-secure programming interface; no PRI queue, no ATS: a device that comes
//! with addresses already translated is refused (`ATSCHK` with `EATS` 0), because such an address is nobody's word but the
//! device's own.

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
mod bits;
mod command;
mod command_queue;
pub mod configuration;
mod context_descriptor;
mod event;
mod event_queue;
mod features;
mod geometry;
mod invalidate;
mod procedure;
pub mod registers;
mod smmu;
mod start;
mod stream_table_entry;
mod streams;
mod tally;
#[cfg(test)]
mod testing;

pub use access::{Memory, Registers};
pub use command::{Action, Command, Illegal, PageResponse, Range, Reach, Signal};
pub use command_queue::CommandError;
pub use context_descriptor::{ContextDescriptor, Half};
pub use event::{Class, Event, Fault, Kind};
pub use event_queue::EventQueue;
pub use features::{Features, Unfit};
pub use geometry::Geometry;
pub use invalidate::{MAX_COMMANDS, Walks};
pub use procedure::{Procedure, Progress, Step, Trouble};
pub use registers::REGISTERS_LENGTH;
pub use smmu::{GlobalErrors, Layout, Smmu};
pub use start::{close, turn_off};
pub use stream_table_entry::{NestedFlaw, Stage1, Stage2, Stage2Flaw, StreamTableEntry};
pub use streams::{Owner, Refusal, Streams};
pub use tally::{Count, MAX_STREAMS, Tally};
