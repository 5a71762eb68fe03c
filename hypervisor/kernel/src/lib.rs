//! The EL2 microkernel.
//!
//! Answers for: memory, CPUs, threads, interrupts, time, the run loop of vCPUs, the life of partitions, and the safe states.
//! It acts; what to do is decided in portable crates. Does not answer for: any of their decisions, nor for registers of
//! the CPU (`el2`) and of devices (`drivers`).

#![no_std]

extern crate alloc;

mod address_space;
mod board;
mod compartment;
mod console;
mod controller;
mod cpu;
mod disk;
mod dump;
mod files;
mod frames;
mod function;
mod groups;
mod guest_memory;
mod heap;
mod interrupt;
mod messages;
mod net;
mod panic;
mod partition;
mod passed;
mod pcie;
mod qvm;
mod report;
mod services;
mod shared;
mod shell;
mod silicon;
mod smmuman;
mod stage2;
mod start;
mod startup;
mod sync;
mod thread;
mod trace;
mod uplink;
mod vcpu;
mod virtio;
mod vsock;

pub mod provoke;

pub use board::{Board, FirstConsole};
pub use machine::ConsoleKind;
pub use start::start;
/// For a [`Board`]'s addresses.
pub use types::Pa;
pub use vdev::factories;
