//! What a driver can do wrong in a virtqueue.

use core::fmt;
use types::Ipa;
use vdev::MemoryFault;

/// One of a queue's three areas (2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The descriptor table, or the descriptor ring.
    Descriptor,
    /// The available ring, or the driver's event suppression.
    Driver,
    /// The used ring, or the device's event suppression.
    Device,
}

/// A mistake of the driver's. After one of them the queue is of no use before a reset (2.1.2, `DEVICE_NEEDS_RESET`).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The queue cannot have so many entries.
    Size(u16),
    /// An area is not aligned as it has to be, or runs over the end of the address space.
    Place(Area, Ipa),
    /// There is something at an address that is not the VM's memory.
    Memory(Ipa),
    /// The available ring's index is further than the queue is long, or goes back.
    AvailableIndex(u16),
    /// More descriptors of a packed queue are available than it has.
    Overrun,
    /// A chain begins at a descriptor beyond the queue.
    Head(u16),
    /// A chain goes on at a descriptor beyond the queue, or the table.
    Next(u16),
    /// A chain has more descriptors than the queue: also what a loop comes to.
    TooLong,
    /// A chain has more than 2^32 bytes (2.7.5).
    TooLarge,
    /// A buffer runs over the end of the address space.
    Wraps(Ipa),
    /// A device-readable buffer comes after a device-writable one (2.7.4.2).
    Order,
    /// There is a table of descriptors, which has not been negotiated.
    IndirectUnwanted,
    /// A descriptor of a table refers to a table.
    IndirectNested,
    /// A descriptor that refers to a table has a next one; or, in a packed queue, is not the only one.
    IndirectLinked,
    /// A table of descriptors is empty, or not made of whole descriptors.
    IndirectLength(u32),
}

impl From<MemoryFault> for RingError {
    fn from(fault: MemoryFault) -> Self {
        Self::Memory(fault.at)
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "a queue of {size} entries"),
            Self::Place(area, at) => write!(f, "the {area:?} area at {at}"),
            Self::Memory(at) => write!(f, "no memory at {at}"),
            Self::AvailableIndex(index) => write!(f, "available index {index}"),
            Self::Overrun => f.write_str("more descriptors available than there are"),
            Self::Head(index) => write!(f, "a chain that begins at descriptor {index}"),
            Self::Next(index) => write!(f, "a chain that goes on at descriptor {index}"),
            Self::TooLong => f.write_str("a chain longer than the queue"),
            Self::TooLarge => f.write_str("a chain of more than 4 GiB"),
            Self::Wraps(at) => write!(f, "a buffer at {at}, over the end of the address space"),
            Self::Order => f.write_str("a readable buffer behind a writable one"),
            Self::IndirectUnwanted => f.write_str("an indirect descriptor, which was not negotiated"),
            Self::IndirectNested => f.write_str("an indirect descriptor within a table"),
            Self::IndirectLinked => f.write_str("an indirect descriptor with others beside it"),
            Self::IndirectLength(length) => write!(f, "an indirect table of {length} bytes"),
        }
    }
}
