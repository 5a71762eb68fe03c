//! What is wrong with a function.

use alloc::vec::Vec;
use core::fmt;
use pci_types::PciAddress;

/// What is wrong with a function. It is left without what does not work; the others go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Firmware had left Bus Master on: it may have reached memory until now.
    WasMaster,
    /// Bus Master cannot be switched off.
    StaysMaster,
    /// Its header has a type that nobody knows.
    Header(u8),
    /// Its list of capabilities comes back to itself, or leads where none can be.
    Capabilities,
    /// The size of a BAR is no power of two, or the BAR is of no kind.
    BarSize(u8),
    /// There are no addresses left for a BAR of so many bytes: all its BARs are without.
    NoRoom {
        /// Which.
        bar: u8,
        /// Bytes that it wants.
        size: u64,
    },
    /// It does not keep the address that a BAR gets.
    BarStuck(u8),
    /// A bridge for which there is no bus number left: what is behind it is not there.
    NoBus,
    /// A bridge that does not keep the bus numbers it gets: what is behind it is not there.
    BusStuck,
    /// Its table of MSI-X, or that table's pending bits, are in none of its BARs: it has no MSI-X.
    MsixOutside,
    /// More functions than are looked at: this and the rest are not there.
    TooMany,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WasMaster => f.write_str("firmware had left Bus Master on; it is off now"),
            Self::StaysMaster => f.write_str("Bus Master cannot be switched off"),
            Self::Header(kind) => write!(f, "its header is of the unknown type {kind:#x}; it is left alone"),
            Self::Capabilities => f.write_str("its list of capabilities does not end; the rest of it is not used"),
            Self::BarSize(bar) => write!(f, "BAR {bar} has no size that a BAR can have; it is not used"),
            Self::NoRoom { bar, size } => {
                write!(f, "no addresses for BAR {bar} of {size:#x} bytes; the function is left without any")
            }
            Self::BarStuck(bar) => write!(f, "BAR {bar} does not keep its address; the function is left without any"),
            Self::NoBus => f.write_str("no bus number is left for what is behind this bridge, which stays closed"),
            Self::BusStuck => f.write_str("this bridge does not keep its bus numbers, and stays closed"),
            Self::MsixOutside => f.write_str("its MSI-X table is in none of its BARs; its MSI-X is not used"),
            Self::TooMany => f.write_str("there are too many functions; this and the rest are left out"),
        }
    }
}

/// A flaw, and whose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// The function.
    pub function: PciAddress,
    /// What is wrong.
    pub flaw: Flaw,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCI function {}: {}", self.function, self.flaw)
    }
}

/// Most flaws that are told of: a machine has few, a liar has no end of them.
const MAX_TROUBLES: usize = 64;

/// Notes a flaw.
pub(crate) fn note(troubles: &mut Vec<Trouble>, function: PciAddress, flaw: Flaw) {
    if troubles.len() < MAX_TROUBLES {
        troubles.push(Trouble { function, flaw });
    }
}
