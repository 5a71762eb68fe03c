//! A part of a disk, as a disk.
//!
//! Answers for: that nothing outside of it is reached, nor written if it is for reading only. Does not answer for: which part that
//! is, nor who has it.

use super::Extent;
use alloc::string::String;
use vdev::{BlockDevice, BlockError, Geometry, SECTOR, Sink, Source};

/// Some sectors of a disk.
#[derive(Debug)]
pub struct Part<D> {
    disk: D,
    /// In bytes.
    start: u64,
    geometry: Geometry,
}

impl<D: BlockDevice> Part<D> {
    /// The sectors of `extent`, which are on the disk, called `name`.
    #[must_use]
    pub fn new(disk: D, extent: Extent, read_only: bool, name: String) -> Self {
        let whole = disk.geometry();
        let read_only = read_only || whole.read_only;
        let geometry = Geometry { sectors: extent.count, read_only, name, ..whole.clone() };
        Self { start: extent.first.saturating_mul(SECTOR), geometry, disk }
    }

    fn at(&self, offset: u64) -> Result<u64, BlockError> {
        self.start.checked_add(offset).ok_or(BlockError::Beyond)
    }
}

impl<D: BlockDevice> BlockDevice for Part<D> {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn waits(&self) -> bool {
        self.disk.waits()
    }

    fn read(&mut self, offset: u64, length: u64, to: &mut Sink<'_>) -> Result<(), BlockError> {
        self.geometry.check(offset, length)?;
        self.disk.read(self.at(offset)?, length, to)
    }

    fn write(&mut self, offset: u64, length: u64, from: &mut Source<'_>) -> Result<(), BlockError> {
        self.geometry.check_write(offset, length)?;
        self.disk.write(self.at(offset)?, length, from)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.geometry.check_write(offset, length)?;
        self.disk.zero(self.at(offset)?, length)
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Ram;
    use super::*;

    fn read(disk: &mut dyn BlockDevice, offset: u64, length: u64) -> Result<alloc::vec::Vec<u8>, BlockError> {
        let mut all = alloc::vec::Vec::new();
        disk.read(offset, length, &mut |part| {
            all.extend_from_slice(part);
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn a_part_begins_and_ends_where_it_does() {
        let ram = Ram::new((0..8).flat_map(|sector| [sector; 512]).collect());
        let mut part = Part::new(ram, Extent { first: 2, count: 3 }, false, "part".into());
        assert_eq!((part.geometry().sectors, part.geometry().name.as_str()), (3, "part"));
        assert_eq!(read(&mut part, 0, 1536).unwrap(), [[2; 512], [3; 512], [4; 512]].concat());
        for (offset, length) in [(0, 2048), (1536, 512), (512, 1536), (u64::MAX - 511, 512)] {
            assert_eq!(read(&mut part, offset, length), Err(BlockError::Beyond));
            assert_eq!(part.write(offset, length, &mut |_| Ok(())), Err(BlockError::Beyond));
            assert_eq!(part.zero(offset, length), Err(BlockError::Beyond));
        }
        part.write(512, 512, &mut |into| {
            into.fill(9);
            Ok(())
        })
        .unwrap();
        part.zero(1024, 512).unwrap();
        part.flush().unwrap();
        let sectors: alloc::vec::Vec<u8> = part.disk.bytes.chunks(512).map(|sector| sector[511]).collect();
        assert_eq!(sectors, [0, 1, 2, 9, 0, 5, 6, 7]);
    }

    #[test]
    fn what_is_for_reading_only_is_never_written() {
        for (disk_is, part_is) in [(true, false), (false, true)] {
            let mut ram = Ram::new(alloc::vec![1; 4096]);
            ram.geometry.read_only = disk_is;
            let mut part = Part::new(ram, Extent { first: 0, count: 8 }, part_is, "part".into());
            assert!(part.geometry().read_only);
            assert_eq!(part.write(0, 512, &mut |_| Ok(())), Err(BlockError::ReadOnly));
            assert_eq!(part.zero(0, 512), Err(BlockError::ReadOnly));
            assert_eq!(part.disk.bytes, [1; 4096]);
        }
    }
}
