//! The distributor's registers: IHI 0069, "The GIC Distributor register map" and "Distributor register descriptions".
//!
//! Affinity routing is always on (`GICD_CTLR.ARE`), there is one security state (`GICD_CTLR.DS`), no extended
//! ranges. What belongs to private interrupts is in the redistributors: reserved here.

use super::{IIDR, config_shift, identification};
use crate::bank::{BitRegister, ENABLE_GROUP_0, ENABLE_GROUP_1};
use crate::signals::RESYNC;
use crate::word::{gather, low, low_byte, merge, spread};
use crate::{Version, Vgic};
use core::sync::atomic::Ordering;
use types::{AccessSize, VcpuId, VcpuSet};

/// `GICD_CTLR`: `ARE` and `DS`, both fixed. Nothing takes time: `RWP` is 0.
const CTLR_FIXED: u32 = 1 << 4 | 1 << 6;
/// `GICD_TYPER.IDbits`: 10 bits of INTID.
const TYPER_ID_BITS: u32 = 9 << 19;
/// The same with LPIs: 14 bits. And `GICD_TYPER.LPIS`.
const TYPER_LPIS: u32 = 13 << 19 | 1 << 17;
/// Where `GICD_TYPER.num_LPIs` is: two to the power of one more than it says.
const TYPER_NUM_LPIS_SHIFT: u32 = 11;
/// `GICD_TYPER.MBIS`: message-based SPIs.
const TYPER_MESSAGES: u32 = 1 << 16;
/// `GICD_SETSPI_NSR`.
pub(crate) const SETSPI_NSR: u64 = 0x0040;
/// `GICD_CLRSPI_NSR`.
pub(crate) const CLRSPI_NSR: u64 = 0x0048;
/// `INTID` of both.
const SPI_INTID: u32 = 0x1fff;
/// The distributor's part number in `GICD_PIDR0`.
const PART: u32 = 0x92;
/// `GICD_IROUTER32`.
const FIRST_ROUTER: u64 = 0x6100;
/// Behind `GICD_IROUTER1019`.
const END_ROUTER: u64 = 0x7fe0;

/// `GICD_TYPER` for so many INTIDs: lines, bits of INTID, message-based SPIs, 1-of-N. No LPIs, no security extension, no affinity
/// level 3, no range selector, no extended SPIs.
pub(crate) const fn typer(intids: u32) -> u32 {
    TYPER_ID_BITS | TYPER_MESSAGES | (intids / 32).wrapping_sub(1)
}

/// The same with so many LPIs, a power of two.
pub(crate) const fn typer_with_lpis(typer: u32, lpis: u16) -> u32 {
    let exponent = lpis.trailing_zeros().wrapping_sub(1);
    typer & !TYPER_ID_BITS | TYPER_LPIS | exponent.wrapping_shl(TYPER_NUM_LPIS_SHIFT)
}

/// Whether a register shows states that list registers may know better: `ISPENDR` to `ICACTIVER`.
pub(super) const fn shows_state(offset: u64) -> bool {
    matches!(offset, 0x200..0x400)
}

/// The bank of SPIs for a register of one bit per interrupt; `None` for the first, the private one.
#[inline]
fn bank_of(offset: u64) -> Option<usize> {
    ((low(offset.wrapping_shr(2)) & 31) as usize).checked_sub(1)
}

/// The bank of SPIs for a register of two bits per interrupt, from its offset past 0xc00.
#[inline]
fn config_bank_of(offset: u64) -> Option<usize> {
    ((low(offset.wrapping_shr(3)) & 31) as usize).checked_sub(1)
}

/// The first interrupt of a byte-per-interrupt register, from its offset past 0x400; `None` if it is private.
#[inline]
fn priority_of(offset: u64) -> Option<u32> {
    let intid = low(offset.wrapping_sub(0x400));
    (intid >= 32).then_some(intid)
}

/// The interrupt of a router, from its offset.
#[inline]
fn routed(offset: u64) -> u32 {
    low(offset.wrapping_sub(0x6000).wrapping_shr(3))
}

impl Vgic {
    /// A read in the distributor's window, at `offset` below [`Vgic::DISTRIBUTOR_SIZE`]. States of interrupts in list
    /// registers are as of the last synchronisation: an exit uses [`Vgic::observe_distributor`].
    #[inline]
    #[must_use]
    pub fn read_distributor(&self, offset: u64, size: AccessSize) -> u64 {
        match size {
            AccessSize::Word if offset & 3 == 0 => self.read_word(offset),
            _ => self.read_part(offset, size),
        }
    }

    /// What is not read by words, or not only.
    #[inline(never)]
    fn read_part(&self, offset: u64, size: AccessSize) -> u64 {
        match size {
            AccessSize::Byte if matches!(offset, 0x400..0x800) => {
                let word = priority_of(offset & !3).map_or(0, |intid| self.read_priorities(intid));
                u64::from(word.wrapping_shr(low(offset & 3).wrapping_mul(8)) & 0xff)
            }
            AccessSize::Doubleword if offset & 7 == 0 && matches!(offset, FIRST_ROUTER..END_ROUTER) => {
                self.shared.lock().router(routed(offset))
            }
            _ => 0,
        }
    }

    /// A read by vCPU `by`, loaded on the calling CPU: what [`Vgic::read_distributor`] returns, after the copies in memory
    /// have followed the list registers; and the vCPUs to kick, because it takes them to know better next time.
    #[inline(always)]
    pub fn observe_distributor(
        &self,
        by: VcpuId,
        registers: &impl crate::ListRegisters,
        offset: u64,
        size: AccessSize,
    ) -> (u64, VcpuSet) {
        if self.version == Version::V2 {
            return self.observe_banked(by, registers, offset, size);
        }
        self.observe_shared(by, registers, offset, size)
    }

    /// The same of a register that is not private to a vCPU.
    #[inline(always)]
    pub(crate) fn observe_shared(
        &self,
        by: VcpuId,
        registers: &impl crate::ListRegisters,
        offset: u64,
        size: AccessSize,
    ) -> (u64, VcpuSet) {
        if shows_state(offset) {
            return self.observe_state(by, registers, offset, size);
        }
        (self.read_distributor(offset, size), VcpuSet::EMPTY)
    }

    /// Out of line: the exits of ordinary reads are not to pay for what this needs.
    #[inline(never)]
    fn observe_state(
        &self,
        by: VcpuId,
        registers: &impl crate::ListRegisters,
        offset: u64,
        size: AccessSize,
    ) -> (u64, VcpuSet) {
        if let Some(cell) = self.cells.get(by.index()) {
            self.synchronise(cell, registers);
        }
        let value = self.read_distributor(offset, size);
        let mut signals = self.signals(Some(by));
        if let Some(bank) = bank_of(offset) {
            self.shared.lock().request_synchronisation(bank, &mut signals);
        }
        (value, signals.kick)
    }

    /// A write in the distributor's window by vCPU `by`, at `offset` below [`Version::distributor_size`]. Returns the vCPUs to
    /// kick, the writer perhaps among them.
    pub fn write_distributor(&self, by: VcpuId, offset: u64, size: AccessSize, value: u64) -> VcpuSet {
        match self.version {
            Version::V2 => self.write_banked(by, offset, size, value),
            Version::V3 => self.write_shared(offset, size, value),
        }
    }

    /// The same of a register that is not private to a vCPU.
    pub(crate) fn write_shared(&self, offset: u64, size: AccessSize, value: u64) -> VcpuSet {
        if !size.is_aligned(offset) {
            return VcpuSet::EMPTY;
        }
        let mut signals = self.signals(None);
        match size {
            AccessSize::Word => return self.write_word(offset, low(value)),
            AccessSize::Byte => {
                if let (0x400..0x800, Some(intid)) = (offset, priority_of(offset)) {
                    let priority = low_byte(value) & self.priority_mask;
                    self.shared.lock().set_priority(intid, priority, &mut signals);
                }
            }
            AccessSize::Doubleword => {
                if matches!(offset, FIRST_ROUTER..END_ROUTER) {
                    self.shared.lock().set_router(routed(offset), value, &mut signals);
                }
            }
            // "16-bit accesses to bits [15:0] of this register must be supported."
            AccessSize::Halfword if matches!(offset, SETSPI_NSR | CLRSPI_NSR) => {
                return self.write_word(offset, low(value & 0xffff));
            }
            AccessSize::Halfword => {}
        }
        signals.kick
    }

    /// What needs no lock here, the rest by a function of its own: this one saves no registers.
    #[inline(never)]
    fn read_word(&self, offset: u64) -> u64 {
        match offset {
            0x0000 => (CTLR_FIXED | self.groups.load(Ordering::Relaxed)).into(),
            0x0004 => self.typer.into(),
            0x0008 => IIDR.into(),
            _ => self.read_table(offset),
        }
    }

    #[inline(never)]
    fn read_table(&self, offset: u64) -> u64 {
        let word = match offset {
            0x0080..0x0400 => match (BitRegister::at(offset), bank_of(offset)) {
                (Some(register), Some(bank)) => self.shared.lock().read(bank, register, &self.signals(None)),
                _ => 0,
            },
            0x0400..0x0800 => priority_of(offset).map_or(0, |intid| self.read_priorities(intid)),
            0x0c00..0x0d00 => config_bank_of(offset).map_or(0, |bank| {
                let edge = self.shared.lock().bank(bank).map_or(0, |bank| bank.edge);
                spread(edge.wrapping_shr(config_shift(offset)))
            }),
            FIRST_ROUTER..END_ROUTER => {
                let router = self.shared.lock().router(routed(offset));
                if offset & 4 == 0 { low(router) } else { low(router.wrapping_shr(32)) }
            }
            0xffd0..0x1_0000 => identification(offset, PART),
            // GICD_TYPER2, GICD_STATUSR (optional); GICD_SETSPI_*, GICD_CLRSPI_* (write-only); GICD_ITARGETSR<n>, GICD_SGIR,
            // GICD_CPENDSGIR<n>, GICD_SPENDSGIR<n> (affinity routing); GICD_IGRPMODR<n>, GICD_NSACR<n> (one security state); all
            // that is reserved.
            _ => 0,
        };
        word.into()
    }

    fn read_priorities(&self, intid: u32) -> u32 {
        let shared = self.shared.lock();
        shared.bank((intid / 32).wrapping_sub(1) as usize).map_or(0, |bank| bank.priorities(intid & 28))
    }

    fn write_word(&self, offset: u64, value: u32) -> VcpuSet {
        let mut signals = self.signals(None);
        match offset {
            0x0000 => return self.write_control(value),
            // Their secure aliases ignore writes: there is one security state.
            SETSPI_NSR | CLRSPI_NSR => {
                self.shared.lock().message(value & SPI_INTID, offset == SETSPI_NSR, &mut signals);
            }
            0x0080..0x0400 => {
                if let (Some(register), Some(bank)) = (BitRegister::at(offset), bank_of(offset)) {
                    self.shared.lock().write(bank, register, value, &mut signals);
                }
            }
            0x0400..0x0800 => {
                if let Some(intid) = priority_of(offset) {
                    let mut shared = self.shared.lock();
                    for (priority, intid) in value.to_le_bytes().into_iter().zip(intid..) {
                        shared.set_priority(intid, priority & self.priority_mask, &mut signals);
                    }
                }
            }
            0x0c00..0x0d00 => {
                if let Some(bank) = config_bank_of(offset) {
                    let shift = config_shift(offset);
                    let (mask, edge) = (0xffff_u32.wrapping_shl(shift), gather(value).wrapping_shl(shift));
                    self.shared.lock().configure(bank, mask, edge, &mut signals);
                }
            }
            FIRST_ROUTER..END_ROUTER => {
                let mut shared = self.shared.lock();
                let intid = routed(offset);
                let router = merge(shared.router(intid), offset, AccessSize::Word, value.into());
                shared.set_router(intid, router, &mut signals);
            }
            _ => {}
        }
        signals.kick
    }

    /// `GICD_CTLR`: only the group enables can change. Then everybody has to look at everything.
    fn write_control(&self, value: u32) -> VcpuSet {
        let groups = value & (ENABLE_GROUP_0 | ENABLE_GROUP_1);
        let mut shared = self.shared.lock();
        if self.groups.swap(groups, Ordering::Relaxed) == groups {
            return VcpuSet::EMPTY;
        }
        let mut signals = self.signals(None);
        shared.reconsider(&mut signals);
        for cell in &self.cells {
            cell.attend(RESYNC);
        }
        VcpuSet::first(self.cells.len())
    }
}
