//! What an ITS can do (IHI 0069, `GITS_TYPER`, `GITS_PIDR2`).

use crate::Registers;
use crate::registers::{PIDR2, PIDR2_OFFSET, TYPER, TYPER_OFFSET};
use core::fmt;
use tock_registers::LocalRegisterCopy;

/// What an ITS can do, as far as anything here asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Bits of a DeviceID: 1 to 32.
    pub device_bits: u8,
    /// Bits of an EventID: 1 to 32.
    pub event_bits: u8,
    /// Bytes of an entry of a device's table of events: 1 to 16.
    pub event_bytes: u8,
    /// A redistributor is named by its address (`PTA`), not by its processor number.
    pub by_address: bool,
    /// Collections that it keeps itself, without a table (`HCC`).
    pub own_collections: u8,
    /// Bits of a collection's number.
    pub collection_bits: u8,
}

/// Why something cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// It is no GICv3's or GICv4's (`GITS_PIDR2.ArchRev`).
    Architecture(u8),
    /// It knows no physical LPIs (`GITS_TYPER.Physical`, `GICR_TYPER.PLPIS`).
    NoLpis,
    /// It has room for fewer collections than there are CPUs.
    FewCollections,
    /// A table is not kept where it was put.
    Table,
    /// Somebody has enabled LPIs before, and they cannot be disabled (`GICR_CTLR.EnableLPIs`).
    LeftEnabled,
    /// It is not off in time (`GITS_CTLR.Quiescent`, `GICR_CTLR.RWP`).
    Late,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Architecture(revision) => write!(f, "GITS_PIDR2.ArchRev is {revision}: it is no GICv3's ITS"),
            Self::NoLpis => f.write_str("it has no physical LPIs"),
            Self::FewCollections => f.write_str("it has fewer collections than there are CPUs"),
            Self::Table => f.write_str("it does not take a table at the address that it is given"),
            Self::LeftEnabled => {
                f.write_str("firmware has enabled LPIs, and they cannot be disabled (GICR_CTLR.EnableLPIs)")
            }
            Self::Late => f.write_str("it cannot be turned off in time"),
        }
    }
}

impl Features {
    /// What its registers say.
    ///
    /// # Errors
    /// If it is not an ITS with physical LPIs.
    pub fn of(registers: &mut impl Registers) -> Result<Self, Unfit> {
        let pidr2 = LocalRegisterCopy::<u32, PIDR2::Register>::new(registers.get(PIDR2_OFFSET));
        let revision = u8::try_from(pidr2.read(PIDR2::ArchRev)).unwrap_or(0);
        if !matches!(revision, 3 | 4) {
            return Err(Unfit::Architecture(revision));
        }
        let typer = LocalRegisterCopy::<u64, TYPER::Register>::new(registers.get_wide(TYPER_OFFSET));
        if !typer.is_set(TYPER::Physical) {
            return Err(Unfit::NoLpis);
        }
        let field = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
        // "Minus one" in all of them.
        let more = |value| field(value).saturating_add(1);
        Ok(Self {
            device_bits: more(typer.read(TYPER::Devbits)),
            event_bits: more(typer.read(TYPER::ID_bits)),
            event_bytes: more(typer.read(TYPER::ITT_entry_size)),
            by_address: typer.is_set(TYPER::PTA),
            own_collections: field(typer.read(TYPER::HCC)),
            // `CIDbits` counts only where `CIL` says so.
            collection_bits: if typer.is_set(TYPER::CIL) { more(typer.read(TYPER::CIDbits)) } else { 16 },
        })
    }
}
