//! Why devices cannot share a bus.

use crate::Line;
use alloc::string::String;
use core::fmt;
use types::{IntId, Ipa};

/// Why devices cannot share a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusError {
    /// Two devices want the same address.
    Overlap {
        /// The one that comes first in the configuration.
        first: String,
        /// The other one.
        second: String,
        /// The first address that both want.
        at: Ipa,
    },
    /// A device does not begin at a multiple of eight, or runs over the end of the address space.
    Location {
        /// Which.
        name: String,
        /// Where it should begin.
        at: Ipa,
    },
    /// There are more devices than 65,535.
    TooMany,
    /// An interrupt has more devices than [`Line::SHARERS`].
    Shared {
        /// Which.
        intid: IntId,
        /// How many.
        count: usize,
    },
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { first, second, at } => write!(f, "`{first}` and `{second}` are both at {at}"),
            Self::Location { name, at } => {
                write!(f, "`{name}` cannot be at {at}: a device begins at a multiple of 8 and ends below 2^64")
            }
            Self::TooMany => f.write_str("more than 65535 devices"),
            Self::Shared { intid, count } => {
                write!(f, "{count} devices share interrupt {}: {} are possible", intid.0, Line::SHARERS)
            }
        }
    }
}
