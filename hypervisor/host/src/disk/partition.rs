//! Real disks and their partitions, as they are called and as their tables say.
//!
//! Answers for: names as the original has them (`hd0`, `hd0t178`, `hd0t178.1` for the next of the same type), and of our own
//! (`hd0p2`) for partitions by number, which a GUID partition table has no types for in a byte; reading both kinds of table. Does
//! not answer for: who may have which.
//!
//! Follows UEFI 2.10, 5.2 (MBR) and 5.3 (GPT). What the tables say is checked against the disk: a partition that is not on it is
//! none. Extended partitions are not looked into.

use alloc::{format, string::String};
use core::fmt;
use vdev::{BlockDevice, BlockError, SECTOR};

/// The name of a real disk, or of a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealName {
    /// Which disk, in the order in which they were found.
    pub disk: u32,
    /// What of it.
    pub which: Which,
}

/// What of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of it.
    Whole,
    /// The partition with this number, from 1 on, in the order of its table.
    Number(u32),
    /// That of this type, as an MBR has it: the first, or as many further on as the second number says.
    Type(u8, u32),
}

impl RealName {
    /// Reads a name without `/dev/`. `None` if it is none.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix("hd")?;
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let (disk, rest) = name.split_at_checked(digits)?;
        let which = if rest.is_empty() {
            Which::Whole
        } else if let Some(number) = rest.strip_prefix('p') {
            Which::Number(number.parse().ok().filter(|number| *number > 0)?)
        } else {
            let kind = rest.strip_prefix('t')?;
            let (kind, further) = kind.split_once('.').unwrap_or((kind, "0"));
            Which::Type(kind.parse().ok().filter(|kind| *kind != 0)?, further.parse().ok()?)
        };
        Some(Self { disk: disk.parse().ok()?, which })
    }
}

impl fmt::Display for RealName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hd{}", self.disk)?;
        match self.which {
            Which::Whole => Ok(()),
            Which::Number(number) => write!(f, "p{number}"),
            Which::Type(kind, 0) => write!(f, "t{kind}"),
            Which::Type(kind, further) => write!(f, "t{kind}.{further}"),
        }
    }
}

/// Where on its disk something is, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Extent {
    /// Whether the two share a sector.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.first < other.first.saturating_add(other.count) && other.first < self.first.saturating_add(self.count)
    }
}

/// Why a disk has no such partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionError(pub String);

impl From<BlockError> for PartitionError {
    fn from(error: BlockError) -> Self {
        Self(format!("its partition table cannot be read: {error}"))
    }
}

/// Entries of a table that are looked at.
const MOST_ENTRIES: u32 = 128;
/// The type of the one partition of an MBR that stands before a GUID partition table.
const PROTECTIVE: u8 = 0xee;

/// Where the part of `disk` is that is meant.
///
/// # Errors
/// If it has no partition table, or no such partition that is on the disk.
pub fn partition(disk: &mut dyn BlockDevice, which: Which) -> Result<Extent, PartitionError> {
    let sectors = disk.geometry().sectors;
    if which == Which::Whole {
        return Ok(Extent { first: 0, count: sectors });
    }
    let master = sector(disk, 0)?;
    if master.get(510..) != Some(&[0x55, 0xaa]) {
        return Err(PartitionError("it has no partition table".into()));
    }
    let entries = (0..4_usize).map(|number| primary(&master, number));
    let has_guids = entries.clone().any(|(kind, _)| kind == PROTECTIVE);
    let found = match which {
        Which::Whole => None,
        Which::Type(kind, further) => {
            let further = usize::try_from(further).unwrap_or(usize::MAX);
            entries.filter(|(own, _)| *own == kind).nth(further).map(|(_, extent)| extent)
        }
        Which::Number(number) if has_guids => entry(disk, number)?,
        Which::Number(number) => {
            let index = usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1);
            entries.into_iter().nth(index).filter(|(kind, _)| *kind != 0).map(|(_, extent)| extent)
        }
    };
    let extent = found.ok_or_else(|| PartitionError("it has no such partition".into()))?;
    let end = extent.first.checked_add(extent.count);
    if extent.count == 0 || extent.first == 0 || end.is_none_or(|end| end > sectors) {
        let message = format!("that partition, {} sectors from {} on, is not on it", extent.count, extent.first);
        return Err(PartitionError(message));
    }
    Ok(extent)
}

/// Type and place of a primary partition (UEFI 2.10, 5.2.1).
fn primary(master: &[u8], number: usize) -> (u8, Extent) {
    let at = number.wrapping_mul(16).wrapping_add(446);
    let byte = |offset| master.get(at.wrapping_add(offset)).copied().unwrap_or(0);
    let word = |offset: usize| u64::from(number_32(master, at.wrapping_add(offset)));
    (byte(4), Extent { first: word(8), count: word(12) })
}

/// Where the partition with this number is by the GUID partition table (UEFI 2.10, 5.3.2 and 5.3.3).
fn entry(disk: &mut dyn BlockDevice, number: u32) -> Result<Option<Extent>, PartitionError> {
    // Its blocks are those of the disk.
    let block = u64::from(disk.geometry().block_size) / SECTOR;
    let header = sector(disk, block)?;
    if header.get(..8) != Some(b"EFI PART") {
        return Err(PartitionError("it has no GUID partition table where its MBR says that there is one".into()));
    }
    let (table, count, size) = (number_64(&header, 72), number_32(&header, 80), number_32(&header, 84));
    // 128 times a power of two.
    if !(128..=4096).contains(&size) || !size.is_power_of_two() {
        return Err(PartitionError(format!("its partition table has entries of {size} bytes")));
    }
    let index = number.wrapping_sub(1);
    if index >= count.min(MOST_ENTRIES) {
        return Ok(None);
    }
    let offset = u64::from(index).wrapping_mul(u64::from(size));
    let at = table.checked_mul(block).and_then(|start| start.checked_add(offset / SECTOR));
    let content = sector(disk, at.ok_or(BlockError::Beyond)?)?;
    let within = usize::try_from(offset % SECTOR).unwrap_or(0);
    let entry = content.get(within..).unwrap_or_default();
    let is_used = entry.iter().take(16).any(|byte| *byte != 0);
    let (first, last) = (number_64(entry, 32), number_64(entry, 40));
    let count = last.checked_sub(first).and_then(|count| count.checked_add(1)).unwrap_or(0);
    let extent = Extent { first: first.saturating_mul(block), count: count.saturating_mul(block) };
    Ok(is_used.then_some(extent))
}

fn sector(disk: &mut dyn BlockDevice, number: u64) -> Result<[u8; 512], BlockError> {
    let mut bytes = [0; 512];
    let offset = number.checked_mul(SECTOR).ok_or(BlockError::Beyond)?;
    disk.read(offset, SECTOR, &mut |part| {
        if part.len() == bytes.len() {
            bytes.copy_from_slice(part);
        }
        Ok(())
    })?;
    Ok(bytes)
}

fn number_32(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn number_64(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    found.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
