//! Disks behind devices.
//!
//! Answers for: what a device asks of a disk, whatever that is: a file of the boot archive, memory, a part of a real one. Does not
//! answer for: names of disks (`host`), who has which one (the kernel), nor what a guest sees (`vdevs`).

use crate::{Numbers, Place};
use alloc::string::{String, ToString};
use core::fmt;

/// Bytes in a sector: what disks count in, whatever their blocks are (virtio 1.3, 5.2.4).
pub const SECTOR: u64 = 512;

/// A disk. Calls may take their time, and sleep if it says so: they are for workers ([`crate::Worker`]), never for a device's own calls.
/// Offsets and lengths are in bytes, multiples of [`SECTOR`], and checked by the disk.
pub trait BlockDevice: Send {
    /// What it is. Never changes.
    fn geometry(&self) -> &Geometry;

    /// Whether its calls may sleep: as [`crate::Worker::waits`].
    fn waits(&self) -> bool;

    /// Passes `length` bytes from `offset` on to `to`, first to last, in parts as large as they lie in memory; none is empty.
    ///
    /// # Errors
    /// If it has not so many, they cannot be read, or `to` does not want them.
    fn read(&mut self, offset: u64, length: u64, to: &mut Sink<'_>) -> Result<(), BlockError>;

    /// Has `from` fill `length` bytes from `offset` on, first to last, in parts as large as they lie in memory; none is empty. What
    /// has been filled before an error may have been written.
    ///
    /// # Errors
    /// If it has not so many, it is read-only, they cannot be written, or `from` has none.
    fn write(&mut self, offset: u64, length: u64, from: &mut Source<'_>) -> Result<(), BlockError>;

    /// Makes `length` bytes from `offset` on zero, which may give memory back.
    ///
    /// # Errors
    /// As [`BlockDevice::write`].
    fn zero(&mut self, offset: u64, length: u64) -> Result<(), BlockError>;

    /// What has been written will be there after a power cut, as far as anything of the disk will.
    ///
    /// # Errors
    /// If that cannot be had.
    fn flush(&mut self) -> Result<(), BlockError>;
}

/// Takes a part of what is read.
pub type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), BlockError> + 'a;
/// Fills a part of what is written.
pub type Source<'a> = dyn FnMut(&mut [u8]) -> Result<(), BlockError> + 'a;

/// A disk as `hostdev` names it: `[<]NAME`; `<` is read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDisk {
    /// Which one.
    pub name: DiskName,
    /// Whether nothing may be written to it.
    pub read_only: bool,
    /// Where it was written.
    pub place: Option<Place>,
}

/// What can be a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskName {
    /// A file of the boot archive, by its path there. What is written to it stays in memory, and is gone when the VM ends.
    File(String),
    /// Memory, so many bytes, zero at first: `/dev/ram,SIZE`.
    Memory(u64),
    /// A real disk, or a part of one: what follows `/dev/`.
    Real(String),
}

impl HostDisk {
    /// Reads a name: `/dev/ram,SIZE`, another one behind `/dev/`, or a file.
    pub(crate) fn parse(text: &str, place: Option<Place>, numbers: &dyn Numbers) -> Result<Self, String> {
        let (name, read_only) = text.strip_prefix('<').map_or((text, false), |name| (name, true));
        if name.is_empty() || name.starts_with('>') {
            return Err("expected NAME, or <NAME to read only".to_string());
        }
        let name = match name.strip_prefix("/dev/").map(|device| (device, device.split_once(','))) {
            Some((_, Some(("ram", size)))) => DiskName::Memory(numbers.size(size)?),
            Some((device, _)) => DiskName::Real(device.to_string()),
            None => DiskName::File(numbers.path(name, place)?),
        };
        Ok(Self { name, read_only, place })
    }
}

impl fmt::Display for HostDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.read_only {
            f.write_str("<")?;
        }
        match &self.name {
            DiskName::File(path) => write!(f, "/{path}"),
            DiskName::Memory(bytes) => write!(f, "/dev/ram,{bytes}"),
            DiskName::Real(name) => write!(f, "/dev/{name}"),
        }
    }
}

/// What a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// How many sectors of 512 bytes it has.
    pub sectors: u64,
    /// Bytes in a block, the least that can be read or written: a power of two from 512 to 4096.
    pub block_size: u32,
    /// Bytes in what it reads and writes best: a power of two, no less than a block.
    pub physical_block_size: u32,
    /// Whether [`BlockDevice::zero`] is cheaper than writing zeroes.
    pub zeroes: bool,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// What it is called.
    pub name: String,
}

impl Geometry {
    /// Checks that a part of the disk is there, and begins and ends with a sector.
    ///
    /// # Errors
    /// [`BlockError::Beyond`] if not.
    pub fn check(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        let end = offset.checked_add(length).ok_or(BlockError::Beyond)?;
        let is_whole = offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR);
        if is_whole && end / SECTOR <= self.sectors { Ok(()) } else { Err(BlockError::Beyond) }
    }

    /// The same of a part that is to be written.
    ///
    /// # Errors
    /// The same, and [`BlockError::ReadOnly`].
    pub fn check_write(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.check(offset, length)?;
        if self.read_only { Err(BlockError::ReadOnly) } else { Ok(()) }
    }
}

/// Why a disk has not done what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// It has no such part, or that does not begin and end with a sector.
    Beyond,
    /// Nothing can be written.
    ReadOnly,
    /// There is no memory left for what is written.
    Full,
    /// The real disk says that it could not.
    Failed,
    /// Whoever asked does not want any more.
    GivenUp,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Beyond => "it has no such sectors",
            Self::ReadOnly => "it is read-only",
            Self::Full => "there is no memory left for what is written",
            Self::Failed => "the disk could not",
            Self::GivenUp => "the request was given up",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_sectors_of_the_disk() {
        let disk = Geometry {
            sectors: 8,
            block_size: 512,
            physical_block_size: 512,
            zeroes: true,
            read_only: true,
            name: String::new(),
        };
        assert_eq!((disk.check(0, 4096), disk.check(4096, 0)), (Ok(()), Ok(())));
        for (offset, length) in [(0, 4608), (512, 4096), (1, 512), (0, 511), (u64::MAX - 511, 1024), (8192, 0)] {
            assert_eq!(disk.check(offset, length), Err(BlockError::Beyond), "{offset} {length}");
        }
        assert_eq!(disk.check_write(0, 512), Err(BlockError::ReadOnly));
        assert_eq!(disk.check_write(0, 1), Err(BlockError::Beyond));
    }
}
