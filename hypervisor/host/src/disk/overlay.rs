//! A disk in memory.
//!
//! Answers for: what is read where nothing has been written, and keeping what has. A page of memory is taken when something other
//! than zeroes is written to it for the first time, so a disk costs what is on it. Does not answer for: where pages come from.

use alloc::{format, string::String, vec::Vec};
use vdev::{BackendError, BlockDevice, BlockError, Geometry, HostDisk, SECTOR, Sink, Source};

/// Bytes in a page.
pub const PAGE: usize = 4096;
/// The same, as offsets count.
const PAGE_BYTES: u64 = PAGE as u64;

/// Where pages come from, by numbers from 1 on.
pub trait PageStore: Send {
    /// One page more, with anything in it; `None` if there is no memory.
    fn add(&mut self) -> Option<u32>;
    /// That page, and those with the next numbers, as far as they are behind it in memory.
    fn pages(&mut self, first: u32) -> Option<&mut [u8]>;
    /// It is not needed any more: [`PageStore::add`] may return it.
    fn free(&mut self, number: u32);
}

/// What is read where nothing has been written.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// Zeroes, so many bytes.
    Zeroes(u64),
    /// These bytes, and zeroes up to a whole sector.
    Bytes(&'a [u8]),
}

impl Base<'_> {
    /// Whether there can be a disk of it, which is called `disk`.
    ///
    /// # Errors
    /// If it has no sector.
    pub fn check(self, disk: &HostDisk) -> Result<(), BackendError> {
        match self.length() {
            0..SECTOR => {
                let length = self.length();
                Err(BackendError(format!("`{disk}` is too small for a disk: {length} bytes of at least {SECTOR}")))
            }
            _ => Ok(()),
        }
    }

    const fn length(self) -> u64 {
        match self {
            Self::Zeroes(length) => length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

impl<'a> Base<'a> {
    /// Its bytes from `offset` on, `most` at most: none where there are zeroes.
    fn bytes(self, offset: u64, most: u64) -> &'a [u8] {
        let Self::Bytes(bytes) = self else { return &[] };
        let rest = usize::try_from(offset).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
        usize::try_from(most).ok().and_then(|most| rest.get(..most)).unwrap_or(rest)
    }
}

/// A disk that keeps what is written to it in memory.
#[derive(Debug)]
pub struct Overlay<'a, S> {
    base: Base<'a>,
    geometry: Geometry,
    /// For each page of the disk that of the store, 0 for none.
    pages: Vec<u32>,
    store: S,
}

impl<'a, S: PageStore> Overlay<'a, S> {
    /// Nothing has been written yet. `None` if there is no memory for so large a disk.
    #[must_use]
    pub fn new(name: String, base: Base<'a>, read_only: bool, store: S) -> Option<Self> {
        let sectors = base.length().div_ceil(SECTOR);
        let mut pages = Vec::new();
        if !read_only {
            let count = usize::try_from(base.length().div_ceil(PAGE_BYTES)).ok()?;
            pages.try_reserve_exact(count).ok()?;
            pages.resize(count, 0);
        }
        let physical_block_size = 4096;
        let geometry = Geometry { sectors, block_size: 512, physical_block_size, zeroes: true, read_only, name };
        Some(Self { base, geometry, pages, store })
    }

    fn kept(&self, page: u64) -> u32 {
        usize::try_from(page).ok().and_then(|page| self.pages.get(page)).copied().unwrap_or(0)
    }

    /// Where what is kept of the disk from `offset` on is, up to `end`, which is behind it: the page of the store, 0 for none, and up
    /// to where all is in those with the next numbers, or in none.
    fn run(&self, offset: u64, end: u64) -> (u32, u64) {
        let mut page = offset / PAGE_BYTES;
        let number = self.kept(page);
        let (step, mut expected) = (u32::from(number != 0), number);
        loop {
            (page, expected) = (page.saturating_add(1), expected.saturating_add(step));
            let start = page.saturating_mul(PAGE_BYTES);
            if start >= end || self.kept(page) != expected {
                return (number, start.min(end));
            }
        }
    }

    /// As much as lies together of what is kept from `offset` to `end`, which is in the page `number` of the store and those behind it.
    fn part(&mut self, number: u32, offset: u64, end: u64) -> Result<&mut [u8], BlockError> {
        let pages = self.store.pages(number).ok_or(BlockError::Failed)?;
        let start = usize::try_from(offset % PAGE_BYTES).unwrap_or(PAGE);
        let part = pages.get_mut(start..).filter(|part| !part.is_empty()).ok_or(BlockError::Failed)?;
        let length = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(part.len());
        part.get_mut(..length).ok_or(BlockError::Failed)
    }

    /// The page of the store for `page` of the disk, with what is read there.
    fn keep(&mut self, page: u64) -> Result<u32, BlockError> {
        let number = self.kept(page);
        if number != 0 {
            return Ok(number);
        }
        let number = self.store.add().ok_or(BlockError::Full)?;
        let below = self.base.bytes(page.saturating_mul(PAGE_BYTES), PAGE_BYTES);
        let into = self.store.pages(number).and_then(|pages| pages.get_mut(..PAGE)).ok_or(BlockError::Full)?;
        let (copied, rest) = into.split_at_mut_checked(below.len()).ok_or(BlockError::Full)?;
        copied.copy_from_slice(below);
        rest.fill(0);
        self.set(page, number);
        Ok(number)
    }

    fn set(&mut self, page: u64, number: u32) {
        if let Some(slot) = usize::try_from(page).ok().and_then(|page| self.pages.get_mut(page)) {
            *slot = number;
        }
    }
}

/// The pages that a part of the disk is on, each with the first of its bytes that is part of that, and the first that is not.
fn pages(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = if length == 0 { 0 } else { offset.saturating_add(length) };
    let within = |at: u64| usize::try_from(at).unwrap_or(PAGE).min(PAGE);
    (offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(move |page| {
        let start = page.saturating_mul(PAGE_BYTES);
        (page, within(offset.saturating_sub(start)), within(end.saturating_sub(start)))
    })
}

impl<S: PageStore> BlockDevice for Overlay<'_, S> {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn waits(&self) -> bool {
        false
    }

    fn read(&mut self, offset: u64, length: u64, to: &mut Sink<'_>) -> Result<(), BlockError> {
        const ZEROES: [u8; PAGE] = [0; PAGE];
        self.geometry.check(offset, length)?;
        let (mut at, end) = (offset, offset.saturating_add(length));
        while at < end {
            let (number, until) = self.run(at, end);
            let part = match number {
                0 => match self.base.bytes(at, until.saturating_sub(at)) {
                    [] => Base::Bytes(&ZEROES).bytes(0, until.saturating_sub(at)),
                    below => below,
                },
                number => self.part(number, at, until)?,
            };
            to(part)?;
            at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, length: u64, from: &mut Source<'_>) -> Result<(), BlockError> {
        self.geometry.check_write(offset, length)?;
        for (page, ..) in pages(offset, length) {
            self.keep(page)?;
        }
        let (mut at, end) = (offset, offset.saturating_add(length));
        while at < end {
            let (number, until) = self.run(at, end);
            let part = self.part(number, at, until)?;
            from(part)?;
            at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.geometry.check_write(offset, length)?;
        for (page, start, end) in pages(offset, length) {
            let has_base = !self.base.bytes(page.saturating_mul(PAGE_BYTES), PAGE_BYTES).is_empty();
            match self.kept(page) {
                0 if !has_base => {}
                number if number != 0 && start == 0 && end == PAGE && !has_base => {
                    self.store.free(number);
                    self.set(page, 0);
                }
                _ => {
                    let number = self.keep(page)?;
                    let page = self.store.pages(number).ok_or(BlockError::Failed)?;
                    page.get_mut(start..end).unwrap_or_default().fill(0);
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{boxed::Box, vec};
    use proptest::prelude::*;

    /// Pages in a piece of a [`Store`].
    const TOGETHER: usize = 3;

    /// Pages of a PC's memory, so many at most, some of which lie together.
    #[derive(Default)]
    struct Store {
        pieces: Vec<Box<[u8; TOGETHER * PAGE]>>,
        used: usize,
        free: Vec<u32>,
        most: usize,
    }

    impl PageStore for Store {
        fn add(&mut self) -> Option<u32> {
            if let Some(number) = self.free.pop() {
                return Some(number);
            }
            if self.used == self.pieces.len() * TOGETHER {
                self.pieces.push(Box::new([0xee; TOGETHER * PAGE]));
            }
            (self.used < self.most).then(|| self.used += 1)?;
            u32::try_from(self.used).ok()
        }
        fn pages(&mut self, first: u32) -> Option<&mut [u8]> {
            assert!(!self.free.contains(&first));
            let index = first as usize - 1;
            self.pieces.get_mut(index / TOGETHER).map(|piece| &mut piece[index % TOGETHER * PAGE..])
        }
        fn free(&mut self, number: u32) {
            self.free.push(number);
        }
    }

    fn overlay(base: Base<'_>, read_only: bool, most: usize) -> Overlay<'_, Store> {
        Overlay::new("test".into(), base, read_only, Store { most, ..Store::default() }).unwrap()
    }

    fn read(disk: &mut dyn BlockDevice, offset: u64, length: u64) -> Result<Vec<u8>, BlockError> {
        let mut bytes = Vec::new();
        disk.read(offset, length, &mut |part| {
            assert!(!part.is_empty());
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn write(disk: &mut dyn BlockDevice, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let mut rest = bytes;
        disk.write(offset, bytes.len() as u64, &mut |part| {
            assert!(!part.is_empty());
            let (now, later) = rest.split_at(part.len());
            part.copy_from_slice(now);
            rest = later;
            Ok(())
        })
    }

    #[test]
    fn a_file_is_padded_to_a_sector_and_never_changes_itself() {
        let file = vec![7; 5000];
        let mut disk = overlay(Base::Bytes(&file), false, 8);
        assert_eq!(disk.geometry().sectors, 10);
        let all = read(&mut disk, 0, 5120).unwrap();
        assert!(all[..5000] == file && all[5000..] == [0; 120]);
        write(&mut disk, 4608, &[9; 512]).unwrap();
        let all = read(&mut disk, 0, 5120).unwrap();
        assert!(all[..4608] == file[..4608] && all[4608..] == [9; 512]);
        assert_eq!((disk.store.used, file), (1, vec![7; 5000]));
    }

    #[test]
    fn only_what_is_written_takes_memory_and_zeroing_gives_it_back() {
        let mut disk = overlay(Base::Zeroes(1 << 24), false, 2);
        assert_eq!(read(&mut disk, (1 << 24) - 512, 512).unwrap(), [0; 512]);
        write(&mut disk, 4096, &[1; 8192]).unwrap();
        assert_eq!(write(&mut disk, 0, &[1; 512]), Err(BlockError::Full));
        disk.zero(0, 8192).unwrap();
        assert_eq!(disk.store.free.len(), 1);
        write(&mut disk, 0, &[2; 512]).unwrap();
        assert_eq!(read(&mut disk, 0, 1024).unwrap(), [[2; 512], [0; 512]].concat());
        assert_eq!(read(&mut disk, 8192, 512).unwrap(), [1; 512]);
    }

    #[test]
    fn where_a_file_is_below_zeroes_are_written() {
        let file = vec![7; 8192];
        let mut disk = overlay(Base::Bytes(&file), false, 8);
        disk.zero(512, 4096).unwrap();
        assert_eq!(read(&mut disk, 0, 5120).unwrap(), [[7; 512].as_slice(), &[0; 4096], &[7; 512]].concat());
    }

    #[test]
    fn parts_are_as_large_as_they_lie_in_memory() {
        const SIZE: usize = PAGE;
        let lengths = |disk: &mut Overlay<'_, Store>, offset: usize, length: usize| {
            let mut read = Vec::new();
            let mut count = |part: &[u8]| {
                read.push(part.len());
                Ok(())
            };
            disk.read(offset as u64, length as u64, &mut count).unwrap();
            read
        };
        let file = vec![7; 6 * SIZE + 100];
        let mut disk = overlay(Base::Bytes(&file), false, 8);
        assert_eq!(lengths(&mut disk, 512, 6 * SIZE), [6 * SIZE - 412, 412], "the file, and zeroes behind it");
        // Two pieces of the store, in the order of the disk's pages; then one page in the wrong place.
        let mut written = Vec::new();
        let mut count = |part: &mut [u8]| {
            written.push(part.len());
            Ok(())
        };
        disk.write(512, 4 * SIZE as u64, &mut count).unwrap();
        disk.write(6 * PAGE_BYTES, 512, &mut count).unwrap();
        disk.write(5 * PAGE_BYTES, 512, &mut count).unwrap();
        assert_eq!(written, [3 * SIZE - 512, SIZE + 512, 512, 512]);
        assert_eq!(lengths(&mut disk, 0, 6 * SIZE + 512), [3 * SIZE, 2 * SIZE, SIZE, 512]);
        let mut zeroes = overlay(Base::Zeroes(1 << 20), false, 8);
        assert_eq!(lengths(&mut zeroes, 0, 2 * SIZE + 512), [SIZE, SIZE, 512], "there is a page of them");
    }

    #[test]
    fn what_is_refused_is_refused_before_anything_is_done() {
        let file = vec![7; 4096];
        let mut disk = overlay(Base::Bytes(&file), true, 8);
        assert_eq!(write(&mut disk, 0, &[1; 512]), Err(BlockError::ReadOnly));
        assert_eq!(disk.zero(0, 512), Err(BlockError::ReadOnly));
        assert_eq!(read(&mut disk, 4096, 512), Err(BlockError::Beyond));
        assert_eq!(read(&mut disk, 0, 4096).unwrap(), file);
        assert_eq!(disk.read(0, 4096, &mut |_| Err(BlockError::GivenUp)), Err(BlockError::GivenUp));
        assert_eq!(disk.flush(), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
        fn it_is_what_an_array_is(file in 0_usize..20_000, steps in prop::collection::vec((0_u64..48, 0_u64..24, 0_u8..3, any::<u8>()), 0..40)) {
            let mut model: Vec<u8> = (0..file).map(|at| at as u8).collect();
            let original = model.clone();
            let mut disk = overlay(Base::Bytes(&original), false, 64);
            model.resize(file.next_multiple_of(512), 0);
            for (sector, count, what, byte) in steps {
                let (offset, length) = (sector * 512, count * 512);
                let range = offset as usize..(offset + length) as usize;
                let is_there = model.get(range.clone()).is_some();
                let done = match what {
                    0 => read(&mut disk, offset, length).map(|bytes| prop_assert_eq_ok(&bytes, model.get(range.clone()))),
                    1 => write(&mut disk, offset, &vec![byte; length as usize]).map(|()| model[range.clone()].fill(byte)),
                    _ => disk.zero(offset, length).map(|()| model[range.clone()].fill(0)),
                };
                prop_assert_eq!(done.is_ok(), is_there);
            }
            prop_assert_eq!(read(&mut disk, 0, model.len() as u64).unwrap(), model);
        }
    }

    fn prop_assert_eq_ok(bytes: &[u8], model: Option<&[u8]>) {
        assert_eq!(Some(bytes), model);
    }
}
