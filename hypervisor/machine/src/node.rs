//! Reading the properties that all nodes share.
//!
//! Answers for: cells, strings, `reg` with its way through the `ranges` of the buses above, `compatible`, `status` (DTSpec
//! section 2.3), the same for both readers of the tree: `fdt`, and `dtoolkit` while there is no heap. Does not answer for:
//! what any particular node means.

use crate::{Flaw, MAX_DEPTH};
use arrayvec::ArrayVec;
use types::{Pa, Range};

/// A node of either reader: [`crate::index::Node`], or that of `dtoolkit`.
pub(crate) trait Properties<'a>: Copy {
    /// The value of property `name`.
    fn value(&self, name: &str) -> Option<&'a [u8]>;
}

impl<'a> Properties<'a> for dtoolkit::fdt::FdtNode<'a> {
    fn value(&self, name: &str) -> Option<&'a [u8]> {
        use dtoolkit::{Node as _, Property as _};
        self.property(name)?.value_as().ok()
    }
}

/// A node with all its ancestors: the root first, the node itself last.
pub(crate) type Lineage<N> = ArrayVec<N, MAX_DEPTH>;

/// Splits off a number of `cells` cells, at most two.
pub(crate) fn number(value: &[u8], cells: u32) -> Option<(u64, &[u8])> {
    match cells {
        0 => Some((0, value)),
        1 => value.split_first_chunk().map(|(cell, rest)| (u64::from(u32::from_be_bytes(*cell)), rest)),
        2 => value.split_first_chunk().map(|(cells, rest)| (u64::from_be_bytes(*cells), rest)),
        _ => None,
    }
}

/// Splits off a number of one cell.
pub(crate) fn cell(value: &[u8]) -> Option<(u32, &[u8])> {
    let (cell, rest) = value.split_first_chunk()?;
    Some((u32::from_be_bytes(*cell), rest))
}

/// A property that is one cell.
pub(crate) fn exact_cell(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// A property that is one number of one or two cells.
pub(crate) fn whole_number(value: &[u8]) -> Option<u64> {
    match value.len() {
        4 => number(value, 1),
        8 => number(value, 2),
        _ => None,
    }
    .map(|(number, _)| number)
}

/// A property that is one string.
pub(crate) fn string(value: &[u8]) -> Option<&str> {
    core::str::from_utf8(value.strip_suffix(b"\0")?).ok()
}

/// A property that is a list of strings.
pub(crate) fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    value.split(|&byte| byte == 0).filter_map(|text| core::str::from_utf8(text).ok()).filter(|text| !text.is_empty())
}

/// Whether the node's `compatible` names one of `wanted`.
pub(crate) fn is_compatible<'a>(node: &impl Properties<'a>, wanted: &[&str]) -> bool {
    is_one_of(node.value("compatible").unwrap_or_default(), wanted)
}

/// The same for the value of its `compatible`.
pub(crate) fn is_one_of(compatible: &[u8], wanted: &[&str]) -> bool {
    compatible.split(|&byte| byte == 0).any(|name| wanted.iter().any(|wanted| wanted.as_bytes() == name))
}

/// Whether the node is there to be used (DTSpec 2.3.4; "ok" is an old spelling).
pub(crate) fn is_enabled<'a>(node: &impl Properties<'a>) -> bool {
    node.value("status").is_none_or(|value| matches!(string(value), Some("okay" | "ok")))
}

fn cells<'a>(node: &impl Properties<'a>) -> Option<(u32, u32)> {
    // The defaults are those of DTSpec 2.3.5.
    let cell = |name, default| match node.value(name) {
        None => Some(default),
        Some(value) => exact_cell(value),
    };
    Some((cell("#address-cells", 2)?, cell("#size-cells", 1)?))
}

/// `reg` cut into (address, size) pairs as the parent's cells say, not yet translated. A `cells` property of more than two
/// cells is no memory-mapped bus: [`Flaw::Length`].
pub(crate) fn raw_registers<'a, N: Properties<'a>>(
    lineage: &[N],
) -> Result<impl Iterator<Item = (u64, u64)> + use<'a, N>, Flaw> {
    let [.., parent, node] = lineage else { return Err(Flaw::Missing) };
    let value = node.value("reg").ok_or(Flaw::Missing)?;
    let (address_cells, size_cells) = cells(parent).ok_or(Flaw::Length)?;
    let bytes = entry_size([address_cells, size_cells]).ok_or(Flaw::Length)?;
    let chunks = value.chunks_exact(bytes);
    if !chunks.remainder().is_empty() {
        return Err(Flaw::Length);
    }
    Ok(chunks.filter_map(move |entry| {
        let (address, rest) = number(entry, address_cells)?;
        Some((address, number(rest, size_cells)?.0))
    }))
}

/// Bytes of an entry of these cells, none of which may be more than two; `None` also for an empty entry.
fn entry_size<const N: usize>(cells: [u32; N]) -> Option<usize> {
    let total = cells.iter().try_fold(0_usize, |sum, &cells| {
        (cells <= 2).then(|| sum.saturating_add(usize::try_from(cells).unwrap_or_default().saturating_mul(4)))
    })?;
    (total != 0).then_some(total)
}

/// The `n`-th entry of `reg` as the CPUs see it.
pub(crate) fn registers<'a, N: Properties<'a>>(lineage: &[N], n: usize) -> Result<Range<Pa>, Flaw> {
    let (address, size) = raw_registers(lineage)?.nth(n).ok_or(Flaw::TooFew)?;
    translate(lineage, address, size)
}

/// Takes a range in the address space of the node's parent up to the root's, bus by bus (DTSpec 2.3.8).
pub(crate) fn translate<'a, N: Properties<'a>>(lineage: &[N], mut address: u64, size: u64) -> Result<Range<Pa>, Flaw> {
    let buses = lineage.split_last().map_or(lineage, |(_, buses)| buses);
    for pair in buses.windows(2).rev() {
        let [above, bus] = pair else { continue };
        // No `ranges`: nothing behind this bus is visible from above. Empty: the same addresses on both sides.
        let ranges = bus.value("ranges").ok_or(Flaw::NotMapped)?;
        if !ranges.is_empty() {
            address = through(ranges, *above, *bus, address, size).ok_or(Flaw::NotMapped)?;
        }
    }
    Range::new(Pa(address), size).ok_or(Flaw::Wraps)
}

fn through<'a, N: Properties<'a>>(ranges: &[u8], above: N, bus: N, address: u64, size: u64) -> Option<u64> {
    let (child_cells, size_cells) = cells(&bus)?;
    let (parent_cells, _) = cells(&above)?;
    ranges.chunks_exact(entry_size([child_cells, parent_cells, size_cells])?).find_map(|entry| {
        let (child, rest) = number(entry, child_cells)?;
        let (parent, rest) = number(rest, parent_cells)?;
        let (length, _) = number(rest, size_cells)?;
        let into = address.checked_sub(child)?;
        (into.checked_add(size)? <= length).then(|| parent.checked_add(into))?
    })
}
