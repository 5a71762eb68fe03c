//! Disks for VMs: what they are called, and disks that are made of memory.
//!
//! Answers for: names of real disks and of their partitions ([`RealName`], [`partitions`]), and a disk that keeps what is written
//! to it in memory ([`Overlay`]): over a file of the boot archive, or over nothing. Does not answer for: the memory itself and real
//! disks (the kernel's), what a guest sees (`vdevs`).

mod overlay;
mod partition;

pub use overlay::{Base, Overlay, PAGE, PageStore};
pub use partition::{Extent, PartitionError, RealName, Which, partition};
