//! Is this blob a device tree that can be read without fear?
//!
//! Answers for: everything about a blob that has to hold before `fdt` may touch it. That package checks little and
//! panics on the rest, so a blob goes through three gates here: `dtoolkit` validates header, reservation block, structure
//! and names (DTSpec sections 5.2 to 5.5); [`scan`] then makes sure of what `fdt` takes for granted beyond that; and if
//! there are FDT_NOP tokens (5.4.1), which it does not understand in all places, it gets a copy without them.
//! Does not answer for: what the properties say.

use crate::MachineError;
use alloc::{borrow::Cow, format, vec::Vec};
use dtoolkit::fdt::Fdt as Validated;

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
#[derive(Debug)]
pub(crate) struct Sound<'a> {
    blob: Cow<'a, [u8]>,
    depths: Vec<u8>,
    properties: usize,
}

impl<'a> Sound<'a> {
    pub(crate) fn check(blob: &'a [u8]) -> Result<Self, MachineError> {
        let (validated, scanned) = validate_and_scan(blob)?;
        Self::of(validated.data(), scanned)
    }

    /// The same for one that has been validated.
    pub(crate) fn check_rest(validated: Validated<'a>) -> Result<Self, MachineError> {
        Self::of(validated.data(), scan(validated.data())?)
    }

    fn of(blob: &'a [u8], scanned: Scan) -> Result<Self, MachineError> {
        let Scan { nops, depths, properties } = scanned;
        let blob = if nops { Cow::Owned(without_nops(used(blob)?)?) } else { Cow::Borrowed(blob) };
        Ok(Self { blob, depths, properties })
    }

    /// The tree's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.blob
    }

    /// How many properties there are in all nodes together.
    pub(crate) fn properties(&self) -> usize {
        self.properties
    }

    /// A copy without what it does not need.
    pub(crate) fn compact(&self) -> Result<Vec<u8>, MachineError> {
        without_nops(used(&self.blob)?)
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
    properties: usize,
}

fn inconsistent() -> MachineError {
    MachineError::Malformed("structure block: inconsistent sizes".into())
}

/// A field of the header that is an offset or a size (DTSpec 5.2).
fn field(blob: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(word(blob, offset)?).ok()
}

const TOTAL_SIZE: usize = 4;
const STRUCTURE_OFFSET: usize = 8;
const STRINGS_OFFSET: usize = 12;
const RESERVATIONS_OFFSET: usize = 16;
const STRINGS_SIZE: usize = 32;
const STRUCTURE_SIZE: usize = 36;

/// The token at `offset` of the structure block, and where the next one is.
fn token(structure: &[u8], offset: usize) -> Option<(u32, usize)> {
    let (token, behind) = (word(structure, offset)?, offset.saturating_add(4));
    let end = match token {
        BEGIN_NODE => {
            behind.saturating_add(structure.get(behind..)?.iter().position(|&byte| byte == 0)?).saturating_add(1)
        }
        PROPERTY => behind.saturating_add(8).saturating_add(field(structure, behind)?),
        _ => behind,
    };
    Some((token, align(end)))
}

/// Walks the structure block once, without recursion: its end lies within `size_dt_struct`, nesting stays within
/// [`MAX_DEPTH`] and the number of nodes within [`MAX_NODES`], and every `#address-cells` and `#size-cells` is one cell.
fn scan(blob: &[u8]) -> Result<Scan, MachineError> {
    let field = |offset| field(blob, offset).ok_or_else(inconsistent);
    let structure = blob.get(field(STRUCTURE_OFFSET)?..).and_then(|rest| rest.get(..field(STRUCTURE_SIZE).ok()?));
    let structure = structure.ok_or_else(inconsistent)?;
    let strings = blob.get(field(STRINGS_OFFSET)?..).ok_or_else(inconsistent)?;
    let (mut offset, mut depth, mut found) = (0_usize, 0_u8, Scan { nops: false, depths: Vec::new(), properties: 0 });
    while let Some((token, next)) = token(structure, offset) {
        match token {
            BEGIN_NODE => {
                depth = depth.saturating_add(1);
                found.depths.push(depth);
                if usize::from(depth) > MAX_DEPTH || found.depths.len() > MAX_NODES {
                    return Err(MachineError::TooLarge);
                }
            }
            END_NODE => depth = depth.checked_sub(1).ok_or_else(inconsistent)?,
            PROPERTY => {
                let cell =
                    |position: usize| self::field(structure, offset.saturating_add(position)).ok_or_else(inconsistent);
                let name = strings.get(cell(8)?..).ok_or_else(inconsistent)?;
                if cell(4)? != 4 && (name.starts_with(b"#address-cells\0") || name.starts_with(b"#size-cells\0")) {
                    return Err(MachineError::Malformed("`#address-cells` or `#size-cells` is not one cell".into()));
                }
                found.properties = found.properties.saturating_add(1);
            }
            NOP => found.nops = true,
            END if depth == 0 => return Ok(found),
            _ => return Err(inconsistent()),
        }
        offset = next;
    }
    Err(inconsistent())
}

/// The tree without the room behind it: QEMU's ends in a megabyte of nothing.
fn used(blob: &[u8]) -> Result<&[u8], MachineError> {
    let end = |offset, size| Some(field(blob, offset)?.saturating_add(field(blob, size)?));
    let end = end(STRUCTURE_OFFSET, STRUCTURE_SIZE).max(end(STRINGS_OFFSET, STRINGS_SIZE));
    let used = end.and_then(|end| blob.get(..end)).ok_or_else(inconsistent)?;
    // The third block has no size. It stands first, in all trees that we know.
    Ok(if field(blob, RESERVATIONS_OFFSET) < end { used } else { blob })
}

/// A copy without FDT_NOP tokens, which has been scanned: everything is where it was, but what follows a token in the
/// structure block has moved up. (A rewriting of the tree from a model of it takes more memory than early boot has.)
///
/// # Errors
/// [`MachineError::TooLarge`] if there is no memory for the copy.
fn without_nops(blob: &[u8]) -> Result<Vec<u8>, MachineError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(blob.len()).map_err(|_| MachineError::TooLarge)?;
    copy.extend_from_slice(blob);
    move_up(blob, &mut copy).ok_or_else(inconsistent)?;
    Ok(copy)
}

fn move_up(blob: &[u8], copy: &mut [u8]) -> Option<()> {
    let total = u32::try_from(blob.len()).ok()?;
    copy.get_mut(TOTAL_SIZE..)?.first_chunk_mut().map(|field| *field = total.to_be_bytes())?;
    let start = field(blob, STRUCTURE_OFFSET)?;
    let structure = blob.get(start..)?.get(..field(blob, STRUCTURE_SIZE)?)?;
    let (mut offset, mut to) = (0_usize, start);
    loop {
        let (token, next) = token(structure, offset)?;
        if token != NOP {
            let piece = structure.get(offset..next)?;
            let end = to.saturating_add(piece.len());
            copy.get_mut(to..end)?.copy_from_slice(piece);
            to = end;
        }
        if token == END {
            let size = u32::try_from(to.saturating_sub(start)).ok()?;
            return copy.get_mut(STRUCTURE_SIZE..)?.first_chunk_mut().map(|field| *field = size.to_be_bytes());
        }
        offset = next;
    }
}

fn align(offset: usize) -> usize {
    offset.saturating_add(3) & !3
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}
