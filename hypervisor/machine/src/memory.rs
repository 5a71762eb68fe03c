//! RAM, and what of it is taken.
//!
//! Follows DTSpec sections 3.4 (`/memory`), 3.5 (`/reserved-memory`) and 5.3 (the memory reservation block).

use crate::{
    MachineError, cpus,
    index::Index,
    node::{self, Properties},
};
use alloc::vec::Vec;
use types::{Pa, Range};

/// Whether a child of the root describes RAM that this side of the machine may use. Secure memory has `status =
/// "disabled"`.
pub(crate) fn is_memory<'a>(node: &impl Properties<'a>) -> bool {
    node.value("device_type").and_then(node::string) == Some("memory") && node::is_enabled(node)
}

pub(crate) fn banks(index: &Index<'_>) -> Result<Vec<Range<Pa>>, MachineError> {
    let mut banks = Vec::new();
    for (id, _) in index.children(0).filter(|(_, node)| is_memory(node)) {
        banks.extend(all_registers(index, id)?);
    }
    let banks = join(banks);
    if banks.is_empty() { Err(MachineError::NoNode("memory")) } else { Ok(banks) }
}

pub(crate) fn reserved(index: &Index<'_>, tree: &fdt::Fdt<'_>) -> Result<Vec<Range<Pa>>, MachineError> {
    let mut reserved: Vec<Range<Pa>> = tree
        .memory_reservations()
        .filter_map(|entry| {
            Range::new(Pa(u64::try_from(entry.address().addr()).ok()?), u64::try_from(entry.size()).ok()?)
        })
        .collect();
    if let Some(parent) = index.at("/reserved-memory") {
        // A child without `reg` asks the operating system to choose a place: nothing is there yet.
        for (id, _) in index.children(parent).filter(|(_, node)| node.value("reg").is_some() && node::is_enabled(node))
        {
            reserved.extend(all_registers(index, id)?);
        }
    }
    reserved.extend(cpus::release_pages(index));
    Ok(join(reserved))
}

fn all_registers(index: &Index<'_>, id: usize) -> Result<Vec<Range<Pa>>, MachineError> {
    let lineage = index.lineage(id);
    let entries = node::raw_registers(&lineage).map_err(index.flawed(id, "reg"))?;
    entries.map(|(address, size)| node::translate(&lineage, address, size).map_err(index.flawed(id, "reg"))).collect()
}

/// Sorted, without empty ones, touching and overlapping ones made one.
fn join(mut ranges: Vec<Range<Pa>>) -> Vec<Range<Pa>> {
    ranges.retain(|range| !range.is_empty());
    types::sort_by(&mut ranges, |a, b| a.start().cmp(&b.start()));
    let mut joined: Vec<Range<Pa>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start() <= last.end() => {
                *last = Range::between(last.start(), last.end().max(range.end()));
            }
            _ => joined.push(range),
        }
    }
    joined
}
