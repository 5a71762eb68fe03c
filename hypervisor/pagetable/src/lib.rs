//! VMSAv8-64 translation tables.
//!
//! Answers for: the tables of a guest's stage 2 ([`Stage2`]), the same as devices see them ([`DeviceView`]), and of the hypervisor's own stage 1 at EL2 ([`El2Stage1`]),
//! 4 KiB granule; largest blocks that fit, splitting, break-before-make, and the register values that go with them. Does
//! not answer for: where tables live ([`TablePool`]), barriers, TLB and SMMU invalidation ([`Maintenance`]), VMIDs, locks:
//! those are the kernel's. It neither allocates nor locks, so it works before there is a heap and with the MMU off.
//!
//! Follows the Arm Architecture Reference Manual for A-profile (DDI 0487), chapter D8 "The AArch64 Virtual Memory System
//! Architecture".
//!
//! Not done, on purpose: the contiguous hint, hardware update of access flag and dirty state, 52-bit addresses
//! (FEAT_LPA2), and merging: tables that a split has made stay until everything below them is unmapped.

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

#[cfg(test)]
extern crate std;

mod change;
mod descriptor;
mod device_view;
mod el2_stage1;
mod map;
mod pool;
mod range;
mod split;
mod stage2;
mod tree;
mod unmap;

#[cfg(test)]
mod comparison;
#[cfg(test)]
mod testing;

pub use change::{MapError, Progress};
pub use device_view::{DeviceView, DeviceWalkers, Mirrored, Walkers};
pub use el2_stage1::{El2Attributes, El2Stage1};
pub use pool::{Idle, Maintenance, Stale, TablePool};
pub use range::PaRange;
pub use stage2::{Access, Memory, Stage2, Stage2Attributes, Stage2Layout, VmidSize};
pub use tree::Mapping;
