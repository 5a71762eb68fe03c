//! The boot archive: the files that came with the hypervisor.
//!
//! Answers for: finding files by name in a tar archive (POSIX.1-2017, `pax`: ustar, and the `path` record of extended
//! headers), and for saying what is wrong with a damaged one. Does not answer for: where the archive comes from (the boot
//! loader's initial RAM disk), or what is in the files. The archive is looked through once; after that a name costs a
//! binary search, and contents are never copied.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;
use tar_no_std::{CorruptDataError, PosixHeader, TarArchiveRef, TypeFlag};

/// Size of a block, of which everything in an archive is made.
const BLOCK: usize = 512;
/// Most directories that a message names.
const MOST_SHOWN: usize = 6;
/// Where in a header block the type of the entry is.
const TYPE_FLAG: usize = 156;

/// What is wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// It is not an archive, or damaged: in which block (of 512 bytes), and what.
    Damaged {
        /// Counted from 0.
        block: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// An entry is of a kind that only GNU tar's own format has.
    Gnu {
        /// In which block its header is.
        block: usize,
    },
    /// A name is not UTF-8, is empty, or leads out of the archive.
    Name {
        /// In which block its header is.
        block: usize,
        /// The name as far as it can be shown.
        name: String,
    },
    /// Two files have the same name.
    Twice(String),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { block, what } => write!(f, "block {block}: {what}"),
            Self::Gnu { block } => write!(
                f,
                "block {block}: a long name in GNU tar's own format; make the archive with `tar --format=ustar` or \
                 `--format=pax`"
            ),
            Self::Name { block, name } => write!(f, "block {block}: `{name}` cannot be a file's name"),
            Self::Twice(name) => write!(f, "`{name}` is there twice"),
        }
    }
}

/// The files of an archive by name.
pub struct Archive<'a> {
    /// Sorted by name.
    files: Vec<(String, &'a [u8])>,
    skipped: Vec<String>,
}

impl fmt::Debug for Archive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.files.iter().map(|(name, data)| (name, data.len()))).finish()
    }
}

impl<'a> Archive<'a> {
    /// Looks through an archive. What follows its end is ignored.
    ///
    /// # Errors
    /// If it is damaged, or a file in it could not be named.
    pub fn new(data: &'a [u8]) -> Result<Self, ArchiveError> {
        // A boot loader may hand over more than the file: only whole blocks can belong to it.
        let data = data.get(..data.len() & !(BLOCK - 1)).unwrap_or_default();
        let archive = TarArchiveRef::new(data).map_err(|error| explain(&error, data))?;
        let mut found = Self { files: Vec::new(), skipped: Vec::new() };
        let mut long_name = None;
        for (block, header) in archive.headers() {
            match header.typeflag.try_to_type_flag() {
                Ok(TypeFlag::XHDTYPE) => {
                    let what = "an extended header is malformed";
                    long_name = path_record(contents(data, block, header)?)
                        .map_err(|Malformed| ArchiveError::Damaged { block, what })?;
                }
                Ok(TypeFlag::XGLTYPE) => {}
                Ok(TypeFlag::DIRTYPE) => long_name = None,
                Ok(kind) => {
                    let name = match long_name.take() {
                        Some(name) => normal(name, block)?,
                        None => name(header, block)?,
                    };
                    if kind.is_regular_file() {
                        found.files.push((name, contents(data, block, header)?));
                    } else {
                        found.skipped.push(name);
                    }
                }
                Err(_) => return Err(ArchiveError::Gnu { block }),
            }
        }
        types::sort_by(&mut found.files, |(a, _), (b, _)| a.cmp(b));
        let twice = found.files.windows(2).find_map(|pair| match pair {
            [(a, _), (b, _)] if a == b => Some(a.clone()),
            _ => None,
        });
        match twice {
            Some(name) => Err(ArchiveError::Twice(name)),
            None => Ok(found),
        }
    }

    /// The contents of a file, by its name without leading slash.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        let place = self.files.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
        self.files.get(place).map(|(_, data)| *data)
    }

    /// All files by name, in order, with their contents.
    pub fn files(&self) -> impl Iterator<Item = (&str, &'a [u8])> {
        self.files.iter().map(|(name, data)| (name.as_str(), *data))
    }

    /// All files below a directory, by their paths from there, in order.
    ///
    /// # Errors
    /// If there is no file below it: says so, and which directories there are where it was looked for.
    pub fn directory(&self, path: &str) -> Result<Vec<(&str, &'a [u8])>, String> {
        let found: Vec<_> = self.below(path).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let what = if self.get(path).is_some() { "is a file, not a directory" } else { "is no directory" };
        // Of the deepest directory on the way to it that there is.
        let parents = path.match_indices('/').rev().filter_map(|(at, _)| path.get(..at));
        let place = parents.into_iter().find(|parent| self.below(parent).next().is_some()).unwrap_or_default();
        let mut others: Vec<&str> =
            self.below(place).filter_map(|(rest, _)| rest.split_once('/')).map(|(name, _)| name).collect();
        others.dedup();
        let mut message = format!("`{path}` {what} of the boot archive");
        let slash = if place.is_empty() { "" } else { "/" };
        for (number, name) in others.iter().take(MOST_SHOWN).enumerate() {
            message.push_str(if number == 0 { "; there are " } else { ", " });
            message.push_str(&format!("`{place}{slash}{name}`"));
        }
        match others.len() {
            0 if place.is_empty() => message.push_str("; there are none"),
            0 => message.push_str(&format!("; `{place}` has none")),
            count if count > MOST_SHOWN => message.push_str(&format!(" and {} more", count.saturating_sub(MOST_SHOWN))),
            _ => {}
        }
        Err(message)
    }

    /// Files below a directory, the root if it is empty, by their paths from there, in order.
    fn below(&self, path: &str) -> impl Iterator<Item = (&str, &'a [u8])> {
        // In the order of names all that begin alike are together, and `/` is behind them.
        let first = self.files.partition_point(|(name, _)| name.as_str() < path);
        let candidates = self.files.get(first..).unwrap_or_default().iter();
        let candidates = candidates.map_while(move |(name, data)| Some((name.strip_prefix(path)?, *data)));
        candidates.filter_map(move |(rest, data)| {
            let rest = if path.is_empty() { rest } else { rest.strip_prefix('/')? };
            Some((rest, data))
        })
    }

    /// What is there but is no file: links, devices, pipes. Not an error as long as nobody asks for it.
    pub fn skipped(&self) -> impl Iterator<Item = &str> {
        self.skipped.iter().map(String::as_str)
    }
}

impl vm::Files for Archive<'_> {
    fn file(&self, path: &str) -> Option<&[u8]> {
        self.get(path)
    }
}

/// What a header's blocks hold. The archive's structure has been checked, so they are there.
fn contents<'a>(data: &'a [u8], block: usize, header: &PosixHeader) -> Result<&'a [u8], ArchiveError> {
    let length = header.size.as_number::<usize>().ok();
    let start = block.checked_add(1).and_then(|block| block.checked_mul(BLOCK));
    let bytes = start.zip(length).and_then(|(start, length)| data.get(start..start.checked_add(length)?));
    bytes.ok_or(ArchiveError::Damaged { block, what: "a file runs over the end" })
}

/// The name in a header: `prefix/name`, the prefix in ustar headers only.
fn name(header: &PosixHeader, block: usize) -> Result<String, ArchiveError> {
    let part = |part: Result<&str, _>| match part {
        Ok(part) => Ok(part.to_string()),
        Err(_) => Err(ArchiveError::Name { block, name: "not UTF-8".to_string() }),
    };
    let mut full = String::new();
    if header.magic.as_str() == Ok("ustar") && !header.prefix.is_empty() {
        full.push_str(&part(header.prefix.as_str())?);
        full.push('/');
    }
    full.push_str(&part(header.name.as_str())?);
    normal(&full, block)
}

/// A name without leading slash, empty parts and `.`.
fn normal(name: &str, block: usize) -> Result<String, ArchiveError> {
    let error = || ArchiveError::Name { block, name: name.chars().filter(|c| !c.is_control()).collect() };
    let mut normal = String::new();
    for part in name.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." || part.chars().any(char::is_control) {
            return Err(error());
        }
        if !normal.is_empty() {
            normal.push('/');
        }
        normal.push_str(part);
    }
    if normal.is_empty() { Err(error()) } else { Ok(normal) }
}

/// An extended header's records are not what they should be.
struct Malformed;

/// The `path` of an extended header: records `LENGTH KEY=VALUE\n`, the length counting all of the record.
fn path_record(mut records: &[u8]) -> Result<Option<&str>, Malformed> {
    let mut path = None;
    while !records.is_empty() {
        let (record, rest) = split_record(records).ok_or(Malformed)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(core::str::from_utf8(value).map_err(|_| Malformed)?);
        }
        records = rest;
    }
    Ok(path)
}

/// The first record's `KEY=VALUE`, and the other records.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let digits = core::str::from_utf8(records.get(..space)?).ok()?;
    let (record, rest) = records.split_at_checked(digits.parse().ok()?)?;
    Some((record.get(space.checked_add(1)?..)?.strip_suffix(b"\n")?, rest))
}

fn explain(error: &CorruptDataError, data: &[u8]) -> ArchiveError {
    let blocks = data.len() / BLOCK;
    let (block, what) = match *error {
        CorruptDataError::EmptyArchive | CorruptDataError::TooShort { .. } | CorruptDataError::InvalidBlockSize => {
            (0, "too short to be an archive")
        }
        CorruptDataError::MissingTerminator => {
            (blocks, "it ends too early: the two empty blocks of its end are missing")
        }
        CorruptDataError::InvalidChecksum { block_index: 0 } => (0, "this is not a tar archive"),
        CorruptDataError::InvalidChecksum { block_index } => (block_index, "a header's checksum is wrong"),
        CorruptDataError::InvalidTypeFlag { block_index } => {
            let at = block_index.checked_mul(BLOCK).and_then(|start| start.checked_add(TYPE_FLAG));
            if matches!(at.and_then(|at| data.get(at)), Some(b'K' | b'L')) {
                return ArchiveError::Gnu { block: block_index };
            }
            (block_index, "an entry is of an unknown kind")
        }
        CorruptDataError::InvalidPayloadSize { block_index } => (block_index, "a file's size is not a number"),
        CorruptDataError::PayloadExtendsBeyondArchive { block_index } => {
            (block_index, "a file runs over the end; was the archive cut off?")
        }
    };
    ArchiveError::Damaged { block, what }
}

#[cfg(test)]
mod tests;
