//! Files in RAM: what they are called, how they are packed, and how they are sent over the console.
//!
//! Answers for: names that are harmless wherever they go; the packed form ([`Packer`], [`unpack`]); lines that carry a file
//! over a console which others print to as well ([`transfer`]). Does not answer for: the memory that files are in (the
//! kernel's), what is in them.
//!
//! # The packed form
//!
//! Records in the order of their offsets: the offset in the file (64 bits), the size there and the size packed (32 bits each),
//! all little-endian, then the packed bytes: an LZ4 block, or, if both sizes are the same, the bytes themselves. What no record
//! covers is zero. A record unpacks to at most [`CHUNK`] bytes.

pub mod transfer;

use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use vm::dump::Sink;

/// Most bytes of the file in one record, and as far back as LZ4 looks.
pub const CHUNK: usize = 64 << 10;
/// In front of each record's bytes.
const HEADER: usize = 16;
/// So many zeroes are packed with what is around them; more are left out.
const GAP: u64 = 16 << 10;
/// Longest name.
const NAME: usize = 64;
/// How many files of one VM there can be: as in the original, one without a number and `-1` to `-9`.
const NUMBERS: u8 = 10;

/// What a file about `subject`, a VM for example, may be called, in the order in which names are tried:
/// `FOLDER/SUBJECT.EXTENSION`, then `-1` to `-9` before the last dot. QNX: date and time, which nobody knows here.
pub fn names(folder: &str, subject: &str, extension: &'static str) -> impl Iterator<Item = String> {
    let folder = folder.trim_matches('/');
    let slash = if folder.is_empty() { "" } else { "/" };
    let start = harmless(&format!("{folder}{slash}{subject}"));
    (0..NUMBERS).map(move |number| match number {
        0 => format!("{start}.{extension}"),
        number => format!("{start}-{number}.{extension}"),
    })
}

/// The nearest name to `name` that a file can have: letters, digits, `.`, `_`, `-` and `/`, not too many.
#[must_use]
pub fn harmless(name: &str) -> String {
    let keep = |character: char| if is_harmless(character) { character } else { '_' };
    name.trim_start_matches('/').chars().map(keep).take(NAME.saturating_sub(8)).collect()
}

const fn is_harmless(character: char) -> bool {
    matches!(character, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | '/')
}

/// What packed bytes are appended to.
pub trait Store {
    /// Why there is no more room.
    type Error;
    /// Takes the next packed bytes.
    ///
    /// # Errors
    /// If they have no room.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// Packs what is written to it.
pub struct Packer<S> {
    store: S,
    /// The bytes of the next record, and where in the file they begin.
    chunk: Vec<u8>,
    start: u64,
    /// Zeroes behind them.
    zeroes: u64,
    packed: Vec<u8>,
    table: Box<CompressTable>,
}

impl<S: Store> Packer<S> {
    /// An empty file, to be kept in `store`.
    #[must_use]
    pub fn new(store: S) -> Self {
        let packed = vec![0; HEADER.saturating_add(get_maximum_output_size(CHUNK))];
        Self { store, chunk: Vec::with_capacity(CHUNK), start: 0, zeroes: 0, packed, table: Box::default() }
    }

    /// The end of the file; its size.
    ///
    /// # Errors
    /// If the rest has no room.
    pub fn finish(mut self) -> Result<u64, S::Error> {
        self.flush()?;
        Ok(self.start)
    }

    /// Makes a record of what has come.
    fn flush(&mut self) -> Result<(), S::Error> {
        let length = self.chunk.len();
        if length > 0 {
            let (header, body) = self.packed.split_at_mut(HEADER);
            let packed = compress_into_with_table(&self.chunk, body, &mut self.table);
            let size = packed.ok().filter(|size| *size < length).unwrap_or(length);
            if size == length {
                body.iter_mut().zip(&self.chunk).for_each(|(to, from)| *to = *from);
            }
            let words = self.start.to_le_bytes().into_iter().chain(word(length)).chain(word(size));
            header.iter_mut().zip(words).for_each(|(to, from)| *to = from);
            self.store.append(self.packed.get(..HEADER.saturating_add(size)).unwrap_or_default())?;
            self.chunk.clear();
        }
        self.start = self.start.saturating_add(length as u64).saturating_add(self.zeroes);
        self.zeroes = 0;
        Ok(())
    }
}

impl<S: Store> Sink for Packer<S> {
    type Error = S::Error;

    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), S::Error> {
        let gap = usize::try_from(self.zeroes).unwrap_or(usize::MAX);
        let with_gap = self.chunk.len().saturating_add(gap);
        if self.zeroes > 0 && !self.chunk.is_empty() && self.zeroes <= GAP && with_gap < CHUNK {
            self.chunk.resize(with_gap, 0);
            self.zeroes = 0;
        }
        while !bytes.is_empty() {
            if self.zeroes > 0 || self.chunk.len() >= CHUNK {
                self.flush()?;
            }
            let room = CHUNK.saturating_sub(self.chunk.len()).min(bytes.len());
            let (first, rest) = bytes.split_at_checked(room).unwrap_or_default();
            self.chunk.extend_from_slice(first);
            bytes = rest;
        }
        Ok(())
    }

    fn zeroes(&mut self, count: u64) -> Result<(), S::Error> {
        self.zeroes = self.zeroes.saturating_add(count);
        Ok(())
    }
}

impl<S> core::fmt::Debug for Packer<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Packer").field("start", &self.start).finish_non_exhaustive()
    }
}

fn word(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

/// The packed form is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// The first record of `packed`, unpacked: its offset, its bytes, and what is behind it. `None` behind the last.
///
/// # Errors
/// If that is no record, or would end behind `size`.
#[expect(clippy::type_complexity, reason = "three things that have no other use together")]
pub fn unpack(packed: &[u8], size: u64) -> Result<Option<(u64, Vec<u8>, &[u8])>, Damaged> {
    if packed.is_empty() {
        return Ok(None);
    }
    let (offset, rest) = packed.split_first_chunk().ok_or(Damaged)?;
    let (length, rest) = rest.split_first_chunk().ok_or(Damaged)?;
    let (stored, rest) = rest.split_first_chunk().ok_or(Damaged)?;
    let (offset, length) = (u64::from_le_bytes(*offset), u32::from_le_bytes(*length));
    let stored = usize::try_from(u32::from_le_bytes(*stored)).map_err(|_| Damaged)?;
    let (body, rest) = rest.split_at_checked(stored).ok_or(Damaged)?;
    let within = offset.checked_add(u64::from(length)).is_some_and(|end| end <= size);
    let length = usize::try_from(length).ok().filter(|length| within && *length <= CHUNK).ok_or(Damaged)?;
    let mut bytes = vec![0; length];
    if stored == length {
        bytes.copy_from_slice(body);
    } else if decompress_into(body, &mut bytes).ok() != Some(length) {
        return Err(Damaged);
    }
    Ok(Some((offset, bytes, rest)))
}

#[cfg(test)]
mod tests;
