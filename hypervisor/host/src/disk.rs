//! Disks for VMs: what they are called, who has them, and disks that are made of memory.
//!
//! Answers for: names of real disks and of their partitions ([`RealName`], [`partition()`]), who has which of them ([`Claims`]), a part
//! of a disk as a disk ([`Part`]), and a disk that keeps what is written to it in memory ([`Overlay`]): over a file of the boot
//! archive, or over nothing. Does not answer for: the memory itself and real disks (the kernel's), what a guest sees (`vdevs`).

mod claims;
mod overlay;
mod part;
mod partition;

pub use claims::{Claim, Claims, Holder};
pub use overlay::{Base, Overlay, PAGE, PageStore};
pub use part::Part;
pub use partition::{Extent, PartitionError, RealName, Which, partition, table};

#[cfg(test)]
mod tests {
    //! A disk of a test's.

    use alloc::vec::Vec;
    use vdev::{BlockDevice, BlockError, Geometry, SECTOR, Sink, Source};

    /// A disk in a PC's memory, that reads and writes whole blocks only.
    pub(super) struct Ram {
        pub(super) bytes: Vec<u8>,
        pub(super) geometry: Geometry,
    }

    impl Ram {
        pub(super) fn new(bytes: Vec<u8>) -> Self {
            Self::with_blocks(bytes, 512)
        }

        pub(super) fn with_blocks(bytes: Vec<u8>, block_size: u32) -> Self {
            let sectors = bytes.len() as u64 / SECTOR;
            let geometry = Geometry {
                sectors,
                block_size,
                physical_block_size: 4096,
                zeroes: false,
                read_only: false,
                name: "ram".into(),
            };
            Self { bytes, geometry }
        }
    }

    impl BlockDevice for Ram {
        fn geometry(&self) -> &Geometry {
            &self.geometry
        }

        fn waits(&self) -> bool {
            false
        }

        fn read(&mut self, offset: u64, length: u64, to: &mut Sink<'_>) -> Result<(), BlockError> {
            self.geometry.check(offset, length)?;
            self.bytes[offset as usize..(offset + length) as usize].chunks(4096).try_for_each(to)
        }

        fn write(&mut self, offset: u64, length: u64, from: &mut Source<'_>) -> Result<(), BlockError> {
            self.geometry.check_write(offset, length)?;
            self.bytes[offset as usize..(offset + length) as usize].chunks_mut(4096).try_for_each(from)
        }

        fn zero(&mut self, offset: u64, length: u64) -> Result<(), BlockError> {
            self.write(offset, length, &mut |part| {
                part.fill(0);
                Ok(())
            })
        }

        fn flush(&mut self) -> Result<(), BlockError> {
            Ok(())
        }
    }
}
