//! Files and memory for the tests of loading.

use super::{BlobKind, Load};
use crate::Files;
use alloc::{collections::BTreeMap, string::String, vec, vec::Vec};
use types::{AccessSize, Ipa, Lock, Range};
use vdev::{GuestMemory, MemoryFault};

pub(super) fn range(start: u64, length: u64) -> Range<Ipa> {
    Range::new(Ipa(start), length).unwrap()
}

/// `contents` as `gzip` would pack them (RFC 1952).
pub(super) fn gzip(contents: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // Finding matches takes Miri minutes.
    file.extend(if cfg!(miri) { stored(contents) } else { miniz_oxide::deflate::compress_to_vec(contents, 6) });
    file.extend(super::gzip::CHECKSUM.checksum(contents).to_le_bytes());
    file.extend(u32::try_from(contents.len()).unwrap().to_le_bytes());
    file
}

/// DEFLATE without compression (RFC 1951, 3.2.4).
fn stored(contents: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::new();
    for block in contents.chunks(u16::MAX.into()) {
        let length = u16::try_from(block.len()).unwrap();
        blocks.push(0);
        blocks.extend(length.to_le_bytes());
        blocks.extend((!length).to_le_bytes());
        blocks.extend(block);
    }
    blocks.extend([1, 0, 0, 0xff, 0xff]);
    blocks
}

/// An arm64 `Image` of `length` bytes whose header says these things.
pub(super) fn image(text_offset: u64, image_size: u64, length: usize) -> Vec<u8> {
    let mut file: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
    file[..64].fill(0);
    file[8..16].copy_from_slice(&text_offset.to_le_bytes());
    file[16..24].copy_from_slice(&image_size.to_le_bytes());
    file[24] = 0b1010;
    file[56..60].copy_from_slice(b"ARM\x64");
    file
}

/// What goes into an ELF file.
pub(super) struct Elf {
    pub(super) kind: u16,
    pub(super) entry: u64,
    segments: Vec<(u64, u64, Vec<u8>, u64)>,
}

impl Elf {
    pub(super) fn exec(entry: u64) -> Self {
        Self { kind: 2, entry, segments: Vec::new() }
    }

    pub(super) fn segment(mut self, virtual_address: u64, address: u64, bytes: &[u8], memory: u64) -> Self {
        self.segments.push((virtual_address, address, bytes.to_vec(), memory));
        self
    }
}

/// The file (System V ABI, "ELF Header" and "Program Header").
pub(super) fn elf(elf: &Elf) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [elf.kind, 183] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for address in [elf.entry, 64, 0] {
        file.extend(address.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64, 56, u16::try_from(elf.segments.len()).unwrap(), 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = u64::try_from(64 + 56 * elf.segments.len()).unwrap();
    for (virtual_address, address, bytes, memory) in &elf.segments {
        let length = u64::try_from(bytes.len()).unwrap();
        file.extend(1_u32.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        for value in [offset, *virtual_address, *address, length, *memory, 4096] {
            file.extend(value.to_le_bytes());
        }
        offset += length;
    }
    for (_, _, bytes, _) in &elf.segments {
        file.extend(bytes);
    }
    file
}

/// An archive.
#[derive(Default)]
pub(super) struct Archive(BTreeMap<String, Vec<u8>>);

impl Archive {
    pub(super) fn with(mut self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.into(), contents.into());
        self
    }
}

impl Files for Archive {
    fn file(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }
}

/// Guest memory, zero at first.
pub(super) struct Memory {
    range: Range<Ipa>,
    bytes: Lock<Vec<u8>>,
}

impl Memory {
    pub(super) fn new(range: Range<Ipa>) -> Self {
        Self { range, bytes: Lock::new(vec![0; usize::try_from(range.length()).unwrap()]) }
    }

    pub(super) fn at(&self, start: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read(Ipa(start), &mut bytes).unwrap();
        bytes
    }

    fn index(&self, at: Ipa, length: usize) -> Result<usize, MemoryFault> {
        let range = Range::new(at, u64::try_from(length).unwrap()).ok_or(MemoryFault { at })?;
        if !self.range.contains_range(&range) {
            return Err(MemoryFault { at });
        }
        Ok(usize::try_from(at.0 - self.range.start().0).unwrap())
    }
}

impl GuestMemory for Memory {
    fn exchange(&self, at: Ipa, _: AccessSize, _: u64, _: u64) -> Result<u64, MemoryFault> {
        Err(MemoryFault { at })
    }
    fn contains(&self, _: Range<Ipa>) -> bool {
        false
    }
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        let start = self.index(from, into.len())?;
        into.copy_from_slice(&self.bytes.lock()[start..start + into.len()]);
        Ok(())
    }

    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        assert!(from.len() <= 64 * 1024, "copied in blocks");
        let start = self.index(to, from.len())?;
        self.bytes.lock()[start..start + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn load(&self, at: Ipa, _: AccessSize) -> Result<u64, MemoryFault> {
        Err(MemoryFault { at })
    }

    fn store(&self, at: Ipa, _: AccessSize, _: u64) -> Result<(), MemoryFault> {
        Err(MemoryFault { at })
    }
}

pub(super) fn load(kind: BlobKind, address: Option<u64>, path: &str) -> Load {
    Load { kind, address: address.map(Ipa), path: path.into() }
}
