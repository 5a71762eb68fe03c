//! A disk that remembers what happened to it.

use crate::{BlockDevice, BlockError, Geometry, HostDisk, SECTOR, Sink, Source};
use alloc::{format, sync::Arc, vec, vec::Vec};
use types::Lock;

/// Bytes that lie together: more than are copied at once, and not a multiple of that.
const PART: usize = 9 * 4096;

/// A disk; clones are handles of the same one.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Lock<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    bytes: Vec<u8>,
    flushes: usize,
    error: Option<BlockError>,
}

impl Disk {
    /// From now on it has these bytes, whole sectors.
    pub fn fill(&self, bytes: &[u8]) {
        self.0.lock().bytes = bytes.to_vec();
    }

    /// What it has.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }

    /// How often it was flushed.
    #[must_use]
    pub fn flushes(&self) -> usize {
        self.0.lock().flushes
    }

    /// From now on all that it is asked for ends like this.
    pub fn fail(&self, error: Option<BlockError>) {
        self.0.lock().error = error;
    }

    pub(super) fn open(&self, disk: &HostDisk) -> Opened {
        let sectors = self.0.lock().bytes.len() as u64 / SECTOR;
        let (read_only, name) = (disk.read_only, format!("{disk}"));
        let geometry = Geometry { sectors, block_size: 512, physical_block_size: 4096, zeroes: true, read_only, name };
        Opened { geometry, disk: self.clone() }
    }
}

/// The disk as a device has it.
pub(super) struct Opened {
    geometry: Geometry,
    disk: Disk,
}

impl Opened {
    fn part(&self, offset: u64, length: u64, work: &mut dyn FnMut(&mut [u8])) -> Result<(), BlockError> {
        let mut state = self.disk.0.lock();
        if let Some(error) = state.error {
            return Err(error);
        }
        let at = |value| usize::try_from(value).map_err(|_| BlockError::Beyond);
        let part = state.bytes.get_mut(at(offset)?..at(offset.saturating_add(length))?);
        work(part.ok_or(BlockError::Beyond)?);
        Ok(())
    }
}

impl BlockDevice for Opened {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn waits(&self) -> bool {
        false
    }

    fn read(&mut self, offset: u64, length: u64, to: &mut Sink<'_>) -> Result<(), BlockError> {
        self.geometry.check(offset, length)?;
        let mut copy = vec![];
        self.part(offset, length, &mut |part| copy = part.to_vec())?;
        copy.chunks(PART).try_for_each(to)
    }

    fn write(&mut self, offset: u64, length: u64, from: &mut Source<'_>) -> Result<(), BlockError> {
        self.geometry.check_write(offset, length)?;
        let mut copy = vec![0; usize::try_from(length).map_err(|_| BlockError::Beyond)?];
        let taken = copy.chunks_mut(PART).try_for_each(from);
        self.part(offset, length, &mut |part| part.copy_from_slice(&copy))?;
        taken
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.geometry.check_write(offset, length)?;
        self.part(offset, length, &mut |part| part.fill(0))
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let mut state = self.disk.0.lock();
        state.flushes = state.flushes.saturating_add(1);
        state.error.map_or(Ok(()), Err)
    }
}
