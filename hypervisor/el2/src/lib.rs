//! The CPU at EL2.
//!
//! Answers for: how we get in (boot, vectors), the switch to a guest and between threads, the system registers that
//! belong to a vCPU, translation and cache maintenance, calls to the firmware. Does not answer for: any decision. What
//! needs an `if` about guests, threads or devices is elsewhere.
//!
//! Follows the Arm Architecture Reference Manual for A-profile (DDI 0487).

#![no_std]

#[macro_use]
mod registers;

pub mod cache;
pub mod cpu;
pub mod debug;
pub mod firmware;
pub mod guest;
pub mod interface;
pub mod memory;
pub mod mmu;
pub mod monitors;
pub mod state;
pub mod thread;
pub mod tlb;
pub mod traps;

core::arch::global_asm!(
    include_str!("frame.S"),
    include_str!("vectors.S"),
    include_str!("switch.S"),
    include_str!("fp.S"),
    include_str!("memory.S"),
    include_str!("boot.S"),
);
