//! Is this blob a device tree that can be read without fear?
//!
//! Answers for: everything about a blob that has to hold before `fdt` may touch it. That package checks little and
//! panics on the rest, so a blob goes through three gates here: `dtoolkit` validates header, reservation block, structure
//! and names (DTSpec sections 5.2 to 5.5); [`scan`] then makes sure of what `fdt` takes for granted beyond that; and if
//! there are FDT_NOP tokens (5.4.1), which it does not understand in all places, the tree is written anew without them.
//! Does not answer for: what the properties say.

use crate::MachineError;
use alloc::{borrow::Cow, format, vec::Vec};
use dtoolkit::{fdt::Fdt as Validated, model::DeviceTree};

/// Deepest nesting of nodes that is read, the root counting as one. Real trees stay below ten. What reads and writes trees
/// is in part recursive, on stacks of an EL2 thread's size.
pub const MAX_DEPTH: usize = 16;

/// More nodes than any machine has: a bound for the memory that a tree takes.
const MAX_NODES: usize = 8192;

const MAGIC: u32 = 0xd00d_feed;
const HEADER_SIZE: u32 = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The size of the blob that begins with `header` (DTSpec 5.2, `totalsize`), of which eight bytes are enough. `None` if it
/// is no device tree.
#[must_use]
pub fn total_size(header: &[u8]) -> Option<u32> {
    let size = word(header, 4)?;
    (word(header, 0)? == MAGIC && size >= HEADER_SIZE).then_some(size)
}

/// The bytes of the tree at the start of `blob`, without what may follow.
pub(crate) fn trim(blob: &[u8]) -> Option<&[u8]> {
    blob.get(..usize::try_from(total_size(blob)?).ok()?)
}

/// The tree at the start of `blob`, if it is well formed from end to end and not nested deeper than [`MAX_DEPTH`]. For
/// trees of any origin.
///
/// # Errors
/// [`MachineError::Malformed`] or [`MachineError::TooLarge`].
pub fn validate(blob: &[u8]) -> Result<Validated<'_>, MachineError> {
    Ok(validate_and_scan(blob)?.0)
}

fn validate_and_scan(blob: &[u8]) -> Result<(Validated<'_>, Scan), MachineError> {
    let blob = trim(blob).ok_or_else(|| MachineError::Malformed("no device tree there, or cut off".into()))?;
    let validated = Validated::new(blob).map_err(|error| MachineError::Malformed(format!("{error}")))?;
    Ok((validated, scan(blob)?))
}

/// A blob that `fdt` can read.
pub(crate) struct Sound<'a> {
    blob: Cow<'a, [u8]>,
    depths: Vec<u8>,
}

impl<'a> Sound<'a> {
    pub(crate) fn check(blob: &'a [u8]) -> Result<Self, MachineError> {
        let (validated, scanned) = validate_and_scan(blob)?;
        if !scanned.nops {
            return Ok(Self { blob: Cow::Borrowed(validated.data()), depths: scanned.depths });
        }
        // The depth is known to be bounded, so the recursion of the model is, too.
        let rewritten: Vec<u8> = DeviceTree::from_fdt(&validated).to_dtb();
        let depths = scan(&rewritten)?.depths;
        Ok(Self { blob: Cow::Owned(rewritten), depths })
    }

    pub(crate) fn reader(&self) -> Result<fdt::Fdt<'_>, MachineError> {
        fdt::Fdt::new(&self.blob).map_err(|error| MachineError::Malformed(format!("{error}")))
    }

    /// How deep each node is nested, the root being 1, in the order in which they begin.
    pub(crate) fn depths(&self) -> &[u8] {
        &self.depths
    }
}

struct Scan {
    nops: bool,
    depths: Vec<u8>,
}

/// Walks the structure block once, without recursion: its end lies within `size_dt_struct`, nesting stays within
/// [`MAX_DEPTH`] and the number of nodes within [`MAX_NODES`], and every `#address-cells` and `#size-cells` is one cell.
fn scan(blob: &[u8]) -> Result<Scan, MachineError> {
    let broken = || MachineError::Malformed("structure block: inconsistent sizes".into());
    let field = |offset| word(blob, offset).and_then(|value| usize::try_from(value).ok()).ok_or_else(broken);
    let (structure, strings) = (field(8)?, field(12)?);
    let structure = blob.get(structure..).and_then(|rest| rest.get(..field(36).ok()?)).ok_or_else(broken)?;
    let strings = blob.get(strings..).ok_or_else(broken)?;
    let (mut offset, mut depth, mut depths, mut nops) = (0_usize, 0_u8, Vec::new(), false);
    while let Some(token) = word(structure, offset) {
        offset = offset.saturating_add(4);
        match token {
            BEGIN_NODE => {
                depth = depth.saturating_add(1);
                depths.push(depth);
                if usize::from(depth) > MAX_DEPTH || depths.len() > MAX_NODES {
                    return Err(MachineError::TooLarge);
                }
                let name = structure.get(offset..).and_then(|rest| rest.iter().position(|&byte| byte == 0));
                offset = align(offset.saturating_add(name.ok_or_else(broken)?).saturating_add(1));
            }
            END_NODE => depth = depth.checked_sub(1).ok_or_else(broken)?,
            PROPERTY => {
                let cell = |offset| word(structure, offset).and_then(|value| usize::try_from(value).ok());
                let length = cell(offset).ok_or_else(broken)?;
                let name = cell(offset.saturating_add(4)).and_then(|name| strings.get(name..)).ok_or_else(broken)?;
                if length != 4 && (name.starts_with(b"#address-cells\0") || name.starts_with(b"#size-cells\0")) {
                    return Err(MachineError::Malformed("`#address-cells` or `#size-cells` is not one cell".into()));
                }
                offset = align(offset.saturating_add(8).saturating_add(length));
            }
            NOP => nops = true,
            END => return if depth == 0 { Ok(Scan { nops, depths }) } else { Err(broken()) },
            _ => return Err(broken()),
        }
    }
    Err(broken())
}

fn align(offset: usize) -> usize {
    offset.saturating_add(3) & !3
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}
