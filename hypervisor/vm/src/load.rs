//! Where images go in guest memory, and how they get there.
//!
//! Answers for: recognising what a configuration loads (arm64 `Image`, ELF64, either of them packed with gzip, device
//! trees, anything else), finding a place for each, for the initrd and for the device tree, the address of the first
//! instruction, and copying it all ([`plan`], then [`LoadPlan::execute`]). Does not answer for: the memory itself, which
//! has to be zero before (what an image wants zeroed is not written), and the contents of the device tree
//! ([`crate::tree`]).
//!
//! Everything is checked before anything is copied, with one exception: damage in the middle of gzip data shows only when
//! they are unpacked. The guest has not started then either.
//!
//! Follows Linux' `Documentation/arch/arm64/booting.rst` (sections 2 to 4) for images, initrd and device tree, and the
//! original's `load` option for what is recognised and where the guest starts.

mod error;
mod executable;
mod format;
mod gzip;
mod image;
mod place;
mod planner;

pub use error::{LoadError, Problem};
pub use format::FormatError;
pub use gzip::GzipError;

use crate::Files;
use alloc::{string::String, vec::Vec};
use format::Contents;
use types::{Ipa, Range};
use vdev::GuestMemory;

/// All that decides where things go.
#[derive(Clone, Copy, Debug)]
pub struct LoadInput<'a> {
    /// RAM, in the order of the configuration: the first is for the initrd.
    pub ram: &'a [Range<Ipa>],
    /// ROM: only for what has an address.
    pub rom: &'a [Range<Ipa>],
    /// Not to be given to anything that has no address.
    pub reserved: &'a [Range<Ipa>],
    /// The `load` options, in their order.
    pub loads: &'a [Load],
    /// The `entry` option.
    pub entry: Option<Ipa>,
    /// Where the device tree is to go, whatever the `load` of one says.
    pub tree_at: Option<Ipa>,
}

/// One `load` option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The word before `load`.
    pub kind: BlobKind,
    /// Where the file's first byte goes, if that is given.
    pub address: Option<Ipa>,
    /// The file.
    pub path: String,
}

/// What a file is, as far as the configuration says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// Whatever it looks like.
    Detect,
    /// What the guest runs.
    Guest,
    /// Bytes.
    Data,
    /// The initial RAM disk.
    Initrd,
    /// A device tree to be merged over the generated one. One with an address says where the merged tree goes.
    Fdt,
}

/// Where everything goes. Nothing of it has happened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// Where vCPU 0 starts.
    pub entry: Ipa,
    /// Where the device tree goes: vCPU 0 gets this in x0.
    pub device_tree_at: Ipa,
    /// Most bytes that the device tree may have there.
    pub device_tree_space: u64,
    /// Where the initrd goes, for `/chosen`.
    pub initrd: Option<Range<Ipa>>,
    /// Device trees to be merged over the generated one, in this order.
    pub user_trees: Vec<UserTree>,
    items: Vec<Item>,
}

/// A device tree that the configuration loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTree {
    /// Index in [`LoadInput::loads`].
    pub load: usize,
    /// The file.
    pub path: String,
}

/// A file that is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    load: usize,
    path: String,
    /// Packed with gzip, and to be unpacked on the way.
    packed: bool,
    /// Bytes of the contents, as planned.
    length: u64,
    pieces: Vec<Piece>,
}

/// Some bytes of a file's contents and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from: u64,
    length: u64,
    to: Ipa,
}

/// Finds a place for everything that is loaded, and for the device tree.
///
/// # Errors
/// All that is wrong, in one go: files that are not there, damaged or not usable; images that overlap or do not fit the
/// memory; nothing to start.
pub fn plan(input: &LoadInput<'_>, files: &dyn Files) -> Result<LoadPlan, Vec<LoadError>> {
    planner::Planner::new(input).plan(files)
}

impl LoadPlan {
    /// Bytes that [`LoadPlan::execute`] will copy, without the device tree.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.items.iter().flat_map(|item| &item.pieces).fold(0, |sum, piece| sum.saturating_add(piece.length))
    }

    /// Copies everything into `memory`, which is zero where nothing is copied to; `tree` goes to
    /// [`LoadPlan::device_tree_at`]. `progress` hears the number of bytes copied so far, at least every 64 KiB.
    ///
    /// # Errors
    /// If a file is not the one that was planned for, gzip data are damaged, the tree is too large, or memory is not there.
    /// What has been copied by then is of no use.
    pub fn execute(
        &self,
        files: &dyn Files,
        tree: &[u8],
        memory: &dyn GuestMemory,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LoadError> {
        let size = u64::try_from(tree.len()).unwrap_or(u64::MAX);
        if size > self.device_tree_space {
            let problem = Problem::TreeTooLarge { size, space: self.device_tree_space };
            return Err(LoadError { load: None, other: None, problem });
        }
        let mut done = 0;
        for item in &self.items {
            item.copy(files, memory, &mut done, progress).map_err(|problem| LoadError {
                load: Some(item.load),
                other: None,
                problem,
            })?;
        }
        memory.write(self.device_tree_at, tree).map_err(|fault| LoadError {
            load: None,
            other: None,
            problem: Problem::Memory("the device tree".into(), fault.at),
        })
    }
}

/// Why the copying stops.
enum Stop {
    Gzip(GzipError),
    Fault(Ipa),
}

impl From<GzipError> for Stop {
    fn from(error: GzipError) -> Self {
        Self::Gzip(error)
    }
}

impl Item {
    fn copy(
        &self,
        files: &dyn Files,
        memory: &dyn GuestMemory,
        done: &mut u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Problem> {
        let file = files.file(&self.path).ok_or_else(|| Problem::NoFile(self.path.clone()))?;
        let contents = if self.packed { Contents::unpacked(file) } else { Ok(Contents::plain(file)) };
        let contents = contents.map_err(|error| Problem::Format(self.path.clone(), error))?;
        if contents.length() != self.length {
            return Err(Problem::Changed(self.path.clone()));
        }
        let copied = contents.stream(|offset, bytes| {
            for piece in &self.pieces {
                let (to, bytes) = piece.part_of(offset, bytes);
                if !bytes.is_empty() {
                    memory.write(to, bytes).map_err(|fault| Stop::Fault(fault.at))?;
                    *done = done.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                }
            }
            progress(*done);
            Ok::<(), Stop>(())
        });
        copied.map_err(|stop| match stop {
            Stop::Gzip(error) => Problem::Format(self.path.clone(), error.into()),
            Stop::Fault(at) => Problem::Memory(self.path.clone(), at),
        })
    }
}

impl Piece {
    /// Which of `bytes`, which begin at `offset` of the contents, belong to this piece, and where they go.
    fn part_of<'a>(&self, offset: u64, bytes: &'a [u8]) -> (Ipa, &'a [u8]) {
        let none = (self.to, bytes.get(..0).unwrap_or_default());
        // Counted from the start of `bytes`, which cannot be longer than memory.
        let start = usize::try_from(self.from.saturating_sub(offset)).unwrap_or(usize::MAX);
        let end = usize::try_from(self.from.saturating_add(self.length).saturating_sub(offset)).unwrap_or(usize::MAX);
        let into = offset.saturating_sub(self.from);
        match (self.to.checked_add(into), bytes.get(start..end.min(bytes.len()))) {
            (Some(to), Some(bytes)) => (to, bytes),
            _ => none,
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
