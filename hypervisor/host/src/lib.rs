//! Host services: what the original leaves to the operating system around it.
//!
//! Answers for: the boot archive ([`archive`]), the shell and its start-up script ([`shell`]), the console that VMs and host share
//! ([`console`]), files in RAM ([`mod@file`]), disks ([`disk`]), networks ([`switch`]), sockets ([`vsock`]), who may have how much RAM
//! ([`ledger`]), and who has which device of the machine ([`ownership`]), the log ([`log`]), whether VMs are started again ([`restart`]), and the line that reports a VM's end ([`end_line`]).
//! Does not answer for: running anything. The kernel's host threads call in here, and do what is returned.

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

pub mod archive;
pub mod console;
pub mod disk;
mod end;
pub mod file;
pub mod ledger;
pub mod log;
pub mod ownership;
pub mod restart;
pub mod shared;
pub mod shell;
pub mod switch;
pub mod vsock;

pub use end::{ALL_ENDED, end_line};
