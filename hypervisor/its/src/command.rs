//! Commands: 32 bytes each, as four little-endian words (IHI 0069, "ITS commands").
//!
//! Answers for: the commands that anything here gives. Does not answer for: queues, and when which is due.

use types::{IntId, Pa};

const MOVI: u64 = 0x01;
const INT: u64 = 0x03;
const SYNC: u64 = 0x05;
const MAPD: u64 = 0x08;
const MAPC: u64 = 0x09;
const MAPTI: u64 = 0x0a;
const INV: u64 = 0x0c;
const INVALL: u64 = 0x0d;
const DISCARD: u64 = 0x0f;

/// Bit `V` of the third word: what is named is mapped.
const VALID: u64 = 1 << 63;
/// Alignment of a device's table of events: the command has no bits below (IHI 0069, "MAPD").
pub(crate) const ITT_ALIGNMENT: u64 = 256;
/// Where a redistributor is in a word: bits 51 to 16 of its address, or its processor number in their place (`GITS_TYPER.PTA`).
const RDBASE: u64 = 0x000f_ffff_ffff_0000;

/// An event of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// DeviceID.
    pub device: u32,
    /// EventID.
    pub event: u32,
}

/// A command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// MAPD with V 1: the device's events are in a table of so many bits' entries, at a multiple of 256.
    MapDevice {
        /// DeviceID.
        device: u32,
        /// Its table of events.
        table: Pa,
        /// Bits of its EventIDs, at least 1.
        bits: u8,
    },
    /// MAPD with V 0: the device has no events any more.
    UnmapDevice {
        /// DeviceID.
        device: u32,
    },
    /// MAPC with V 1: a collection's LPIs go to this redistributor.
    MapCollection {
        /// Its number.
        collection: u16,
        /// The redistributor, in the form of a command's `RDbase`.
        target: u64,
    },
    /// MAPTI: an event becomes an LPI of a collection.
    MapEvent {
        /// The event.
        event: Event,
        /// The LPI.
        lpi: IntId,
        /// The collection.
        collection: u16,
    },
    /// MOVI: the event's LPI goes to another collection, also if it is pending.
    MoveEvent {
        /// The event.
        event: Event,
        /// The collection.
        collection: u16,
    },
    /// DISCARD: the event is mapped no more, and its LPI not pending.
    Discard(Event),
    /// INV: the configuration of the event's LPI is read anew.
    Invalidate(Event),
    /// INVALL: that of all LPIs of a collection.
    InvalidateAll {
        /// Its number.
        collection: u16,
    },
    /// INT: the event happens.
    Raise(Event),
    /// SYNC: what came before has happened, as far as this redistributor sees.
    Synchronize {
        /// The redistributor, as for MAPC.
        target: u64,
    },
}

impl Command {
    /// As the ITS reads it.
    #[must_use]
    pub fn encode(&self) -> [u64; 4] {
        let of = |number: u64, device: u32| number | u64::from(device) << 32;
        let event = |number, Event { device, event }| [of(number, device), event.into(), 0, 0];
        match *self {
            Self::MapDevice { device, table, bits } => {
                [of(MAPD, device), u64::from(bits).saturating_sub(1) & 0x1f, VALID | table.0, 0]
            }
            Self::UnmapDevice { device } => [of(MAPD, device), 0, 0, 0],
            Self::MapCollection { collection, target } => [MAPC, 0, VALID | target & RDBASE | u64::from(collection), 0],
            Self::MapEvent { event: Event { device, event }, lpi, collection } => {
                [of(MAPTI, device), u64::from(event) | u64::from(lpi.0) << 32, collection.into(), 0]
            }
            Self::MoveEvent { event: Event { device, event }, collection } => {
                [of(MOVI, device), event.into(), collection.into(), 0]
            }
            Self::Discard(it) => event(DISCARD, it),
            Self::Invalidate(it) => event(INV, it),
            Self::InvalidateAll { collection } => [INVALL, 0, collection.into(), 0],
            Self::Raise(it) => event(INT, it),
            Self::Synchronize { target } => [SYNC, 0, target & RDBASE, 0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Event = Event { device: 0x1_2345, event: 6 };

    #[test]
    fn commands_have_the_words_of_the_specification() {
        let device = 0x1_2345 << 32;
        let table = Pa(0x000f_ffff_ffff_ff00);
        let map = Command::MapDevice { device: 0x1_2345, table, bits: 5 };
        assert_eq!(map.encode(), [device | 8, 4, 1 << 63 | 0x000f_ffff_ffff_ff00, 0]);
        assert_eq!(Command::UnmapDevice { device: 0x1_2345 }.encode(), [device | 8, 0, 0, 0]);
        let map = Command::MapCollection { collection: 3, target: 0x8_0000_0000_0000 | 2 << 16 };
        assert_eq!(map.encode(), [9, 0, 0x8008_0000_0002_0003, 0]);
        let map = Command::MapEvent { event: EVENT, lpi: IntId(8200), collection: 3 };
        assert_eq!(map.encode(), [device | 10, 8200 << 32 | 6, 3, 0]);
        assert_eq!(Command::MoveEvent { event: EVENT, collection: 1 }.encode(), [device | 1, 6, 1, 0]);
        assert_eq!(Command::Discard(EVENT).encode(), [device | 15, 6, 0, 0]);
        assert_eq!(Command::Invalidate(EVENT).encode(), [device | 12, 6, 0, 0]);
        assert_eq!(Command::Raise(EVENT).encode(), [device | 3, 6, 0, 0]);
        assert_eq!(Command::InvalidateAll { collection: 9 }.encode(), [13, 0, 9, 0]);
        assert_eq!(Command::Synchronize { target: 7 << 16 }.encode(), [5, 0, 7 << 16, 0]);
    }
}
