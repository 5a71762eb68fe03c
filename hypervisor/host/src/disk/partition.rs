//! Real disks and their partitions, as they are called and as their tables say.
//!
//! Answers for: names as the original has them (`hd0`, `hd0t178`, `hd0t178.1` for the next of the same type), and of our own
//! (`hd0p2`) for partitions by number, which a GUID partition table has no types for in a byte; finding a partition in a table
//! ([`table`]). Does not answer for: who may have which ([`super::Claims`]).

pub mod table;

#[cfg(test)]
mod tests;

use alloc::{format, string::String};
use core::fmt;
use table::{Entry, Kind, Table};
use vdev::{BlockDevice, BlockError};

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
    /// The partition with this number, from 1 on: its place in the table, and from 5 on the logical ones of an MBR.
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
            Which::Number(plain(number).filter(|number| *number != 0)?)
        } else {
            let kind = rest.strip_prefix('t')?;
            let (kind, further) = kind.split_once('.').unwrap_or((kind, "0"));
            Which::Type(u8::try_from(plain(kind)?).ok().filter(|kind| *kind != 0)?, plain(further)?)
        };
        Some(Self { disk: plain(disk)?, which })
    }
}

/// A number of digits only: there is one name for each thing.
fn plain(digits: &str) -> Option<u32> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| is_plain)
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

/// Where the part of `disk` is that is meant.
///
/// # Errors
/// If it has no partition table, or no such partition that is on the disk and has sectors.
pub fn partition(disk: &mut dyn BlockDevice, which: Which) -> Result<Extent, PartitionError> {
    let sectors = disk.geometry().sectors;
    if which == Which::Whole {
        return Ok(Extent { first: 0, count: sectors });
    }
    let table = table::read(disk)?;
    let entry = table.find(which).ok_or_else(|| missing(&table))?;
    table.check(entry, sectors).map(|()| entry.extent)
}

/// There is none: but there are others.
fn missing(table: &Table) -> PartitionError {
    let mut text = String::from("it has no such partition");
    for (place, entry) in table.entries.iter().enumerate() {
        text.push_str(if place == 0 { "; there is " } else { ", " });
        text.push_str(&format!("{}", entry.short()));
    }
    PartitionError(text)
}

impl Table {
    /// The entry that is meant.
    #[must_use]
    pub fn find(&self, which: Which) -> Option<&Entry> {
        match which {
            Which::Whole => None,
            Which::Number(number) => self.entries.iter().find(|entry| entry.number == number),
            Which::Type(kind, further) => {
                let further = usize::try_from(further).unwrap_or(usize::MAX);
                self.entries.iter().filter(|entry| entry.kind == Kind::Type(kind)).nth(further)
            }
        }
    }

    /// What a partition of it is called first of all: by its type if it has one, or else by its number.
    #[must_use]
    pub fn which(&self, entry: &Entry) -> Which {
        let Kind::Type(kind) = entry.kind else { return Which::Number(entry.number) };
        let before = self.entries.iter().take_while(|other| other.number != entry.number);
        let further = before.filter(|other| other.kind == entry.kind).count();
        Which::Type(kind, u32::try_from(further).unwrap_or(u32::MAX))
    }

    /// Whether a partition is there on a disk with so many sectors.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, entry: &Entry, sectors: u64) -> Result<(), PartitionError> {
        let Extent { first, count } = entry.extent;
        if count == 0 {
            return Err(PartitionError("that partition is empty".into()));
        }
        let end = first.checked_add(count).filter(|end| first >= self.first && *end <= sectors.min(self.end));
        match end {
            Some(_) => Ok(()),
            None => {
                Err(PartitionError(format!("that partition, {count} sectors from {first} on, is not where one can be")))
            }
        }
    }
}
