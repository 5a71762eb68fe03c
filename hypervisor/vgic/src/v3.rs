//! GICv3's registers.
//!
//! Answers for: the register maps of the distributor and the redistributors, and the system registers that generate SGIs.
//! Does not answer for: what the registers mean (`shared`, `private`, `bank`).
//!
//! Every offset and every size answers. What is reserved, not implemented, of the wrong size or not aligned reads as zero
//! and ignores writes.

mod distributor;
mod redistributor;
pub(crate) mod sgi;

pub(crate) use distributor::{CLRSPI_NSR, SETSPI_NSR, typer, typer_with_lpis};

/// `GICD_IIDR` and `GICR_IIDR`: designed by Arm, as the programmers' model is; product `B`, revision 0.
pub(crate) const IIDR: u32 = 0x4200_043b;

/// `ICFGR<n>` is two bits for each of 16 interrupts: the position of the first of them in its bank of 32.
const fn config_shift(offset: u64) -> u32 {
    if offset & 4 == 0 { 0 } else { 16 }
}

/// The identification registers at 0xffd0 of the distributor's and the RD_base frame (IHI 0069, "Identification
/// registers"): `PIDR4` to `PIDR7`, `PIDR0` to `PIDR3`, `CIDR0` to `CIDR3`. `PIDR2.ArchRev` is 3: GICv3.
pub(crate) const fn identification(offset: u64, part: u32) -> u32 {
    match offset {
        0xffd0 => 0x44,
        0xffe0 => part,
        0xffe4 => 0xb4,
        0xffe8 => 0x3b,
        0xfff0 => 0x0d,
        0xfff4 => 0xf0,
        0xfff8 => 0x05,
        0xfffc => 0xb1,
        _ => 0,
    }
}
