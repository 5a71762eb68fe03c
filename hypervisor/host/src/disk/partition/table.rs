//! Partition tables: what is on a disk.
//!
//! Answers for: reading both kinds, with extended partitions and the copy that a GUID partition table has at the end of the disk.
//! Does not answer for: names, nor whether a partition that a table speaks of is on the disk ([`Table::check`]).
//!
//! Follows UEFI 2.10, 5.2 (MBR) and 5.3 (GPT), and for extended partitions what Linux does with them (`block/partitions/msdos.c`): a
//! chain of tables, each with a logical partition and the place of the next. What is there may have been written by a guest: all of it
//! is checked, nothing is followed further than there can be sense in.

use super::{Extent, PartitionError};
use alloc::{format, vec::Vec};
use core::fmt;
use crc::Crc;
use vdev::{BlockDevice, BlockError, SECTOR};

/// Partitions that are looked at.
const MOST_ENTRIES: u32 = 128;
/// Logical partitions that are looked at.
const MOST_LOGICAL: u32 = 60;
/// Bytes of a GUID partition table's entries that are looked at: the checksum is over all of them.
const MOST_BYTES: usize = 64 << 10;
/// The type of the one partition of an MBR that stands before a GUID partition table.
const PROTECTIVE: u8 = 0xee;
/// Types of partitions in which there are others.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// The least that a header can be long (5.3.2), in bytes.
const HEADER: u32 = 92;
/// Largest blocks.
const BLOCK: usize = 4096;

/// The checksum of 5.3.1.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// What a partition is said to be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As an MBR has it.
    Type(u8),
    /// As a GUID partition table has it, in the order of its bytes.
    Guid([u8; 16]),
}

/// A partition as its table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1 on.
    pub number: u32,
    /// What it is for.
    pub kind: Kind,
    /// Where it is said to be.
    pub extent: Extent,
}

impl Entry {
    /// As in `p2` or `p2 (type 178)`.
    pub(super) fn short(&self) -> impl fmt::Display {
        fmt::from_fn(move |f| match self.kind {
            Kind::Type(kind) => write!(f, "p{} (type {kind})", self.number),
            Kind::Guid(_) => write!(f, "p{}", self.number),
        })
    }
}

/// The partitions of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Those that are used, by number.
    pub entries: Vec<Entry>,
    /// The first sector that can be one's.
    pub(super) first: u64,
    /// The first that cannot any more, whatever the disk has.
    pub(super) end: u64,
    /// Which kind it is.
    pub form: Form,
}

/// The kinds of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An MBR.
    Master,
    /// A GUID partition table.
    Guids,
    /// Its copy at the end of the disk, because the one in front is no good.
    Copy,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "MBR",
            Self::Guids => "GPT",
            Self::Copy => "GPT, its copy: the table itself is no good",
        })
    }
}

/// Reads the table of a disk.
///
/// # Errors
/// If there is none, it is no good, or cannot be read.
pub fn read(disk: &mut dyn BlockDevice) -> Result<Table, PartitionError> {
    let master = part(disk, 0, 512)?;
    if master.get(510..512) != Some(&[0x55, 0xaa]) {
        return Err(PartitionError("it has no partition table".into()));
    }
    if (0..4).any(|number| primary(&master, number).0 == PROTECTIVE) {
        return guids(disk);
    }
    let mut entries = Vec::new();
    for number in 0..4 {
        let (kind, extent) = primary(&master, number);
        if kind != 0 {
            let number = u32::try_from(number).unwrap_or(0).saturating_add(1);
            entries.push(Entry { number, kind: Kind::Type(kind), extent });
        }
    }
    let outer = entries.iter().find(|entry| EXTENDED.iter().any(|kind| entry.kind == Kind::Type(*kind)));
    if let Some(outer) = outer.map(|entry| entry.extent) {
        logical(disk, outer, &mut entries)?;
    }
    Ok(Table { entries, first: 1, end: u64::MAX, form: Form::Master })
}

/// The partitions inside of an extended one.
fn logical(disk: &mut dyn BlockDevice, outer: Extent, entries: &mut Vec<Entry>) -> Result<(), PartitionError> {
    let mut at = outer.first;
    for number in 0..MOST_LOGICAL {
        let table = part(disk, at.checked_mul(SECTOR).ok_or(BlockError::Beyond)?, 512)?;
        let (kind, own) = primary(&table, 0);
        if table.get(510..512) != Some(&[0x55, 0xaa]) {
            break;
        }
        // Its place counts from its table, that of the next table from the extended partition.
        let extent = Extent { first: at.saturating_add(own.first), count: own.count };
        let end = outer.first.saturating_add(outer.count);
        let is_inside = own.first > 0 && extent.first.saturating_add(extent.count) <= end;
        if kind != 0 && is_inside {
            entries.push(Entry { number: number.saturating_add(5), kind: Kind::Type(kind), extent });
        }
        let (kind, next) = primary(&table, 1);
        let next_at = outer.first.saturating_add(next.first);
        // Backwards it would not end, and nobody writes it so.
        if !EXTENDED.contains(&kind) || next_at <= at || next_at >= end {
            break;
        }
        at = next_at;
    }
    Ok(())
}

/// Type and place of an entry of an MBR (5.2.1).
fn primary(master: &[u8], number: usize) -> (u8, Extent) {
    let at = number.wrapping_mul(16).wrapping_add(446);
    let byte = |offset| master.get(at.wrapping_add(offset)).copied().unwrap_or(0);
    let word = |offset: usize| u64::from(number_32(master, at.wrapping_add(offset)));
    (byte(4), Extent { first: word(8), count: word(12) })
}

/// The GUID partition table (5.3), or its copy in the last block of the disk.
fn guids(disk: &mut dyn BlockDevice) -> Result<Table, PartitionError> {
    let block = u64::from(disk.geometry().block_size);
    let last = disk.geometry().sectors.saturating_mul(SECTOR).checked_div(block).unwrap_or(0).saturating_sub(1);
    match guids_at(disk, 1, block) {
        Ok(table) => Ok(table),
        Err(first) => match guids_at(disk, last, block) {
            Ok(table) => Ok(Table { form: Form::Copy, ..table }),
            Err(_) => Err(first),
        },
    }
}

/// The table whose header is in block `at`.
fn guids_at(disk: &mut dyn BlockDevice, at: u64, block: u64) -> Result<Table, PartitionError> {
    let wrong = |what: &str| PartitionError(format!("its GUID partition table is no good: {what}"));
    let header = part(disk, at.checked_mul(block).ok_or(BlockError::Beyond)?, usize::try_from(block).unwrap_or(BLOCK))?;
    if header.get(..8) != Some(b"EFI PART") {
        return Err(wrong("there is no header where its MBR says that there is one"));
    }
    let length = number_32(&header, 12);
    let whole = usize::try_from(length).ok().filter(|_| length >= HEADER).and_then(|length| header.get(..length));
    let whole = whole.ok_or_else(|| wrong("the header has another length"))?;
    let mut digest = CHECKSUM.digest();
    for (offset, byte) in whole.iter().enumerate() {
        // The checksum itself counts as zero.
        digest.update(&[if (16..20).contains(&offset) { 0 } else { *byte }]);
    }
    if digest.finalize() != number_32(&header, 16) {
        return Err(wrong("the checksum of its header"));
    }
    if number_64(&header, 24) != at {
        return Err(wrong("it is said to be elsewhere"));
    }
    let (count, size) = (number_32(&header, 80), number_32(&header, 84));
    // 128 times a power of two.
    let bytes = count.checked_mul(size).and_then(|bytes| usize::try_from(bytes).ok());
    let is_sound = (128..=4096).contains(&size) && size.is_power_of_two();
    let bytes = bytes.filter(|bytes| is_sound && (1..=MOST_BYTES).contains(bytes));
    let bytes = bytes.ok_or_else(|| wrong(&format!("{count} entries of {size} bytes")))?;
    let place = number_64(&header, 72).checked_mul(block).ok_or(BlockError::Beyond)?;
    let array = part(disk, place, bytes)?;
    if CHECKSUM.checksum(&array) != number_32(&header, 88) {
        return Err(wrong("the checksum of its entries"));
    }
    let to_sectors = block / SECTOR;
    let mut entries = Vec::new();
    for (number, entry) in (1..=MOST_ENTRIES).zip(array.chunks_exact(usize::try_from(size).unwrap_or(BLOCK))) {
        let Some(kind) = entry.first_chunk::<16>().filter(|kind| **kind != [0; 16]) else { continue };
        let (first, last) = (number_64(entry, 32), number_64(entry, 40));
        let count = last.checked_sub(first).and_then(|count| count.checked_add(1)).unwrap_or(0);
        let extent = Extent { first: first.saturating_mul(to_sectors), count: count.saturating_mul(to_sectors) };
        entries.push(Entry { number, kind: Kind::Guid(*kind), extent });
    }
    // Neither table is in there (5.3.2).
    let (first, last) = (number_64(&header, 40).max(2), number_64(&header, 48));
    let end = last.saturating_add(1).saturating_mul(to_sectors);
    Ok(Table { entries, first: first.saturating_mul(to_sectors), end, form: Form::Guids })
}

/// So many bytes from `offset` on; what is read are whole sectors.
fn part(disk: &mut dyn BlockDevice, offset: u64, length: usize) -> Result<Vec<u8>, BlockError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length.next_multiple_of(512)).map_err(|_| BlockError::Full)?;
    let whole = u64::try_from(length.next_multiple_of(512)).map_err(|_| BlockError::Beyond)?;
    disk.read(offset, whole, &mut |part| {
        bytes.extend_from_slice(part);
        Ok(())
    })?;
    bytes.truncate(length);
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
