//! LPIs at the redistributors: their configuration, and what waits (IHI 0069, "LPIs", `GICR_PROPBASER`, `GICR_PENDBASER`).
//!
//! Answers for: the tables' sizes, what a byte of the configuration says, and turning the LPIs of a redistributor on. Does not answer
//! for: memory, and how an LPI comes to be pending ([`crate::Its`]).

use crate::registers::{
    GICR_CTLR, GICR_CTLR_OFFSET, GICR_PENDBASER, GICR_PENDBASER_OFFSET, GICR_PROPBASER, GICR_PROPBASER_OFFSET,
    GICR_TYPER, GICR_TYPER_OFFSET, INNER_SHAREABLE, NON_CACHEABLE, WRITE_BACK,
};
use crate::{Memory, Registers, Unfit};
use tock_registers::LocalRegisterCopy;
use types::{IntId, Pa, Ticks};

/// The first LPI.
pub const FIRST: u32 = 8192;
/// How many there are: as few as `GICR_PROPBASER.IDbits` can say, so that the tables are small.
pub const COUNT: u32 = 8192;
/// Bits of an INTID then, minus one.
const ID_BITS: u64 = 13;

/// Bytes of the configuration of all LPIs, one each; aligned to 4 KiB.
pub const CONFIGURATION_BYTES: u64 = COUNT as u64;
/// Bytes of a redistributor's table of pending LPIs: a bit for each INTID.
pub const PENDING_BYTES: u64 = (FIRST as u64 + COUNT as u64) / 8;
/// Alignment of that.
pub const PENDING_ALIGNMENT: u64 = 0x1_0000;

/// Every interrupt of the hypervisor's has this priority.
const PRIORITY: u8 = 0xa0;
/// Bit 0 of the configuration: the LPI is enabled. Bit 1 is RES1.
const ENABLED: u8 = 1 << 0;
const RES1: u8 = 1 << 1;

/// What the configuration says of an LPI. One that is not enabled becomes pending, and waits.
#[must_use]
pub const fn configuration(is_enabled: bool) -> u8 {
    PRIORITY | RES1 | if is_enabled { ENABLED } else { 0 }
}

/// Where that of `lpi` is in the table at `table`; `None` if there is no such LPI.
#[must_use]
pub fn configuration_at(table: Pa, lpi: IntId) -> Option<Pa> {
    let index = lpi.0.checked_sub(FIRST).filter(|index| *index < COUNT)?;
    table.0.checked_add(index.into()).map(Pa)
}

/// Turns the LPIs of a redistributor on, which are off ([`prepare`]), with these tables, all zero and published: the configuration,
/// which is the same for all, and its own for what is pending. If they are not read through the CPUs' caches, `memory` is told.
///
/// # Errors
/// If it does not take the tables.
pub fn enable(
    redistributor: &mut impl Registers,
    memory: &mut impl Memory,
    [configuration, pending]: [Pa; 2],
) -> Result<(), Unfit> {
    let properties = |shareability, cache| {
        let way = GICR_PROPBASER::Shareability.val(shareability).value | GICR_PROPBASER::InnerCache.val(cache).value;
        way | GICR_PROPBASER::IDbits.val(ID_BITS).value | configuration.0
    };
    redistributor.set_wide(GICR_PROPBASER_OFFSET, properties(INNER_SHAREABLE, WRITE_BACK));
    let kept = redistributor.get_wide(GICR_PROPBASER_OFFSET);
    if LocalRegisterCopy::<u64, GICR_PROPBASER::Register>::new(kept).read(GICR_PROPBASER::Shareability)
        != INNER_SHAREABLE
    {
        redistributor.set_wide(GICR_PROPBASER_OFFSET, properties(0, NON_CACHEABLE));
        memory.reads_past_caches();
    }
    let waiting = |shareability, cache| {
        let way = GICR_PENDBASER::Shareability.val(shareability).value | GICR_PENDBASER::InnerCache.val(cache).value;
        way | GICR_PENDBASER::PTZ::SET.value | pending.0
    };
    redistributor.set_wide(GICR_PENDBASER_OFFSET, waiting(INNER_SHAREABLE, WRITE_BACK));
    let kept = redistributor.get_wide(GICR_PENDBASER_OFFSET);
    if LocalRegisterCopy::<u64, GICR_PENDBASER::Register>::new(kept).read(GICR_PENDBASER::Shareability)
        != INNER_SHAREABLE
    {
        redistributor.set_wide(GICR_PENDBASER_OFFSET, waiting(0, NON_CACHEABLE));
        memory.reads_past_caches();
    }
    let at_rest = redistributor.get_wide(GICR_PROPBASER_OFFSET);
    if at_rest & 0x000f_ffff_ffff_f01f != configuration.0 | ID_BITS {
        return Err(Unfit::Table);
    }
    memory.publish();
    let control = redistributor.get(GICR_CTLR_OFFSET);
    redistributor.set(GICR_CTLR_OFFSET, control | GICR_CTLR::EnableLPIs::SET.value);
    // The tables are the redistributor's from now on.
    memory.publish();
    Ok(())
}

/// Makes sure that the LPIs of a redistributor are off, so that tables can be given to it, and says how the commands of an ITS name
/// it: by the address of its first frame, `at`, or by its number (`GITS_TYPER.PTA`).
///
/// # Errors
/// If it has none, or they are on and stay so.
pub fn prepare(
    redistributor: &mut impl Registers,
    at: Pa,
    now: impl Fn() -> Ticks,
    deadline: Ticks,
) -> Result<Target, Unfit> {
    let typer = LocalRegisterCopy::<u64, GICR_TYPER::Register>::new(redistributor.get_wide(GICR_TYPER_OFFSET));
    if !typer.is_set(GICR_TYPER::PLPIS) {
        return Err(Unfit::NoLpis);
    }
    let control = redistributor.get(GICR_CTLR_OFFSET);
    let on = GICR_CTLR::EnableLPIs::SET.value;
    if control & on != 0 {
        redistributor.set(GICR_CTLR_OFFSET, control & !on);
        // `RWP` counts for this change (`GICR_CTLR.RWP`), where it is possible at all (`CES`).
        while redistributor.get(GICR_CTLR_OFFSET) & GICR_CTLR::RWP::SET.value != 0 {
            if now() > deadline {
                return Err(Unfit::Late);
            }
        }
        if redistributor.get(GICR_CTLR_OFFSET) & on != 0 {
            return Err(Unfit::LeftEnabled);
        }
    }
    let number = typer.read(GICR_TYPER::Processor_Number);
    Ok(Target { address: at, number })
}

/// A redistributor as commands name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    address: Pa,
    number: u64,
}

impl Target {
    /// In the form of a command's `RDbase`.
    #[must_use]
    pub const fn rdbase(&self, by_address: bool) -> u64 {
        if by_address { self.address.0 } else { self.number << 16 }
    }
}
