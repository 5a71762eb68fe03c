//! The partition, what the original calls `qvm`: one virtual machine from its configuration to its end.
//!
//! Answers for: turning a configuration into a machine ([`config`], [`load`], [`tree`]), answering the exits of its
//! vCPUs, and saying how it ended. Does not answer for: memory, threads, physical interrupts (the kernel's), device
//! models (`vdevs`, handed in as factories), and when anything happens. Nothing here touches hardware: what has to be
//! done to the world is returned.
//!
//! Exits follow the Arm Architecture Reference Manual for A-profile (DDI 0487), firmware calls PSCI 1.1 (DEN 0022) and
//! SMCCC 1.x (DEN 0028).

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

pub mod assemble;
pub mod config;
pub mod controller;
pub mod dump;
pub mod exit;
pub mod id_registers;
pub mod lifecycle;
pub mod load;
mod partition;
pub mod policy;
pub mod psci;
pub mod smccc;
mod stolen_time;
#[cfg(test)]
mod testing;
pub mod timer;
pub mod tree;
pub mod trng;
mod vcpu;

pub use assemble::{Assembled, Description, Host, VdevDescription, assemble};
pub use exit::handle;
pub use partition::{DeviceError, Parts, Vm};
pub use vcpu::{Cpu, El1Register, ExitCounters, Next, Operands, Reason, Vcpu};
pub use vdev::Files;
