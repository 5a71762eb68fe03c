//! What can be wrong with what a configuration loads.

use super::format::FormatError;
use alloc::string::String;
use core::fmt;
use types::{Ipa, Range};

/// One thing that is wrong, and the `load` it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Index in [`super::LoadInput::loads`]; `None` if it is about no single one.
    pub load: Option<usize>,
    /// The other one, where two are at odds.
    pub other: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no such file.
    NoFile(String),
    /// The file is there but empty.
    Empty(String),
    /// The file is not what it says it is, or cannot be used.
    Format(String, FormatError),
    /// A range that is not in the VM's memory.
    Outside(String, Range<Ipa>),
    /// Two things in one place.
    Overlap {
        /// Who comes second.
        what: String,
        /// Where it would be.
        at: Range<Ipa>,
        /// Who is there already.
        other: String,
        /// Where that is.
        other_at: Range<Ipa>,
    },
    /// Nowhere enough free RAM.
    NoRoom {
        /// For what.
        what: String,
        /// How many bytes it needs.
        size: u64,
    },
    /// An arm64 `Image` at an address that its header does not allow.
    Misaligned {
        /// The file.
        path: String,
        /// Where it was to go.
        address: Ipa,
        /// What its header says.
        text_offset: u64,
    },
    /// An address for an executable that is linked to fixed addresses.
    FixedAddress(String),
    /// A device tree that cannot start at this address: it has to be a multiple of 8.
    TreeAddress(Ipa),
    /// A second initrd.
    SecondInitrd,
    /// Nothing was loaded that could be started, and there is no `entry`.
    NoEntry,
    /// The first instruction is not in the VM's memory, or not at a multiple of 4.
    BadEntry(Ipa),
    /// The device tree turned out larger than the place kept for it.
    TreeTooLarge {
        /// Its size in bytes.
        size: u64,
        /// The place's.
        space: u64,
    },
    /// The file is not the one that was planned for.
    Changed(String),
    /// Guest memory that was there in the plan is not there.
    Memory(String, Ipa),
}

impl Problem {
    /// What to do about it, if there is something to be said.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoFile(_) => Some("paths are relative to the folder of the configuration file"),
            Self::Outside(..) => {
                Some("`ram` or `rom` has to come before what is loaded into it, and to be large enough")
            }
            Self::NoRoom { .. } => Some("give the VM more `ram`, or say where things go"),
            Self::Misaligned { .. } => {
                Some("leave the address out, or load the bytes as they are: `data load`, with an `entry`")
            }
            Self::FixedAddress(_) => Some("leave the address out: the file says where it goes"),
            Self::NoEntry => Some("load a guest image, or say where to start with `entry`"),
            _ => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile(path) => write!(f, "{path}: no such file"),
            Self::Empty(path) => write!(f, "{path}: the file is empty"),
            Self::Format(path, error) => write!(f, "{path}: {error}"),
            Self::Outside(what, range) => write!(f, "{what} would be at {range}, which is not all the VM's memory"),
            Self::Overlap { what, at, other, other_at } => write!(f, "{what} at {at} overlaps {other} at {other_at}"),
            Self::NoRoom { what, size } => write!(f, "no free place in RAM for the {size} bytes of {what}"),
            Self::Misaligned { path, address, text_offset } => {
                write!(
                    f,
                    "{path}: its header wants it {text_offset:#x} bytes above a multiple of 2 MiB, not at {address}"
                )
            }
            Self::FixedAddress(path) => write!(f, "{path}: an executable linked to fixed addresses, but given another"),
            Self::TreeAddress(address) => write!(f, "a device tree at {address}, which is not a multiple of 8"),
            Self::SecondInitrd => f.write_str("a second initrd"),
            Self::NoEntry => f.write_str("nothing to start: no guest image and no `entry`"),
            Self::BadEntry(entry) => {
                write!(f, "the entry point {entry} is not in the VM's memory, or not a multiple of 4")
            }
            Self::TreeTooLarge { size, space } => {
                write!(f, "the device tree has {size} bytes, the place for it only {space}")
            }
            Self::Changed(path) => write!(f, "{path}: not the file that it was before"),
            Self::Memory(what, at) => write!(f, "{what}: guest memory at {at} cannot be written"),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl core::error::Error for LoadError {}
