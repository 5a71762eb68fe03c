//! Virtio devices with registers in memory.
//!
//! Answers for: where there could be one. What is there, if anything, its registers say (`drivers`). Follows the binding
//! `virtio/mmio.yaml`.

use crate::{
    index::Index,
    interrupts::Found,
    node::{self, Properties},
};
use alloc::vec::Vec;
use types::{IntId, Pa, Range};

/// A window in which a virtio device may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioWindow {
    /// Its registers.
    pub registers: Range<Pa>,
    /// Its interrupt, if it has one at the GIC.
    pub intid: Option<IntId>,
    /// Whether what it reads and writes goes through the CPUs' caches (`dma-coherent`, DTSpec 2.3.10; said of a device or of a bus
    /// above it).
    pub is_coherent: bool,
}

/// All of them, lowest address first.
pub(crate) fn windows(index: &Index<'_>, gic: &Found) -> Vec<VirtioWindow> {
    let window = |id| {
        let lineage = index.lineage(id);
        Some(VirtioWindow {
            registers: node::registers(&lineage, 0).ok()?,
            intid: gic.interrupt_of(index, id, 0),
            is_coherent: lineage.iter().any(|node| node.value("dma-coherent").is_some()),
        })
    };
    let mut windows: Vec<_> = index.compatible(&["virtio,mmio"]).filter_map(|(id, _)| window(id)).collect();
    types::sort_by(&mut windows, |a, b| a.registers.start().cmp(&b.registers.start()));
    windows
}
