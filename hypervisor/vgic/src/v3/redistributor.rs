//! The redistributors' registers: IHI 0069, "The GIC Redistributor register map" and "Redistributor register descriptions".
//!
//! Two frames of 64 KiB per vCPU, RD_base and SGI_base, one vCPU's behind the other's. Registers for LPIs are `its`'s.

use super::distributor::shows_state;
use super::{IIDR, config_shift, identification};
use crate::Vgic;
use crate::bank::BitRegister;
use crate::private::Private;
use crate::signals::{Cell, RESYNC, SYNC};
use crate::word::{all_if, gather, low, low_byte, spread};
use core::sync::atomic::Ordering;
use types::{AccessSize, Mpidr, VcpuId, VcpuSet};

/// Where the SGI_base frame begins.
const SGI_BASE: u64 = 0x1_0000;
/// `GICR_TYPER.Last`.
const TYPER_LAST: u64 = 1 << 4;
/// `GICR_WAKER.ProcessorSleep`.
const PROCESSOR_SLEEP: u32 = 1 << 1;
/// `GICR_WAKER.ChildrenAsleep`.
const CHILDREN_ASLEEP: u32 = 1 << 2;
/// The redistributor's part number in `GICR_PIDR0`.
const PART: u32 = 0x93;
/// The PPIs: what `GICR_ICFGR1` configures. `GICR_ICFGR0` is read-only.
const PPIS: u32 = 0xffff_0000;

impl Vgic {
    /// The vCPU whose frames `offset` lies in, and the offset in them.
    #[inline]
    pub(crate) fn frame(&self, offset: u64) -> Option<(VcpuId, &Cell, u64)> {
        let vcpu = VcpuId(u16::try_from(offset / Self::REDISTRIBUTOR_SIZE).ok()?);
        Some((vcpu, self.cells.get(vcpu.index())?, offset % Self::REDISTRIBUTOR_SIZE))
    }

    /// A read in the redistributors' window, at `offset` below [`Vgic::REDISTRIBUTOR_SIZE`] times the number of vCPUs. States
    /// of interrupts in list registers are as of the last synchronisation: an exit uses [`Vgic::observe_redistributor`].
    #[must_use]
    pub fn read_redistributor(&self, offset: u64, size: AccessSize) -> u64 {
        let Some((vcpu, cell, offset)) = self.frame(offset) else { return 0 };
        if !size.is_aligned(offset) {
            return 0;
        }
        match size {
            AccessSize::Word => u64::from(self.read_private(vcpu, cell, offset)),
            AccessSize::Byte if matches!(offset, 0x1_0400..0x1_0420) => {
                let word = self.read_private(vcpu, cell, offset & !3);
                u64::from(word.wrapping_shr(low(offset & 3).wrapping_mul(8)) & 0xff)
            }
            AccessSize::Doubleword if offset == 0x0008 => self.redistributor_type(vcpu),
            AccessSize::Doubleword => self.read_lpi_register(vcpu, offset, size),
            _ => 0,
        }
    }

    /// A read by vCPU `by`, loaded on the calling CPU: what [`Vgic::read_redistributor`] returns, after the copies in memory
    /// have followed the list registers; and the vCPUs to kick, because it takes them to know better next time.
    #[inline(always)]
    pub fn observe_redistributor(
        &self,
        by: VcpuId,
        registers: &impl crate::ListRegisters,
        offset: u64,
        size: AccessSize,
    ) -> (u64, VcpuSet) {
        // The lower frame of each pair has no such registers, and is sorted out there.
        if shows_state(offset % SGI_BASE) {
            return self.observe_private_state(by, registers, offset, size);
        }
        (self.read_redistributor(offset, size), VcpuSet::EMPTY)
    }

    /// Out of line: the exits of ordinary reads are not to pay for what this needs.
    #[inline(never)]
    fn observe_private_state(
        &self,
        by: VcpuId,
        registers: &impl crate::ListRegisters,
        offset: u64,
        size: AccessSize,
    ) -> (u64, VcpuSet) {
        if let Some((vcpu, cell, SGI_BASE..)) = self.frame(offset) {
            if vcpu == by {
                self.synchronise(cell, registers);
            } else {
                let value = self.read_redistributor(offset, size);
                let private = cell.private.lock();
                let running = private.interface.loaded && private.bank.resident != 0;
                drop(private);
                let kick = cell.notify(vcpu, if running { SYNC } else { 0 });
                return (value, kick);
            }
        }
        (self.read_redistributor(offset, size), VcpuSet::EMPTY)
    }

    /// A write in the redistributors' window, but of [`Vgic::write_lpi_register`]'s, at `offset` below [`Vgic::REDISTRIBUTOR_SIZE`] times the number of vCPUs.
    /// Returns the vCPUs to kick, the writer perhaps among them.
    pub fn write_redistributor(&self, offset: u64, size: AccessSize, value: u64) -> VcpuSet {
        let Some((vcpu, cell, offset)) = self.frame(offset) else { return VcpuSet::EMPTY };
        if !size.is_aligned(offset) {
            return VcpuSet::EMPTY;
        }
        if offset == 0x0014 && size == AccessSize::Word {
            return self.write_waker(vcpu, cell, low(value));
        }
        let mut private = cell.private.lock();
        let flags = match size {
            AccessSize::Word => self.write_private(&mut private, offset, low(value)),
            AccessSize::Byte if matches!(offset, 0x1_0400..0x1_0420) => {
                let change = private.bank.set_priority(low(offset & 31), low_byte(value) & self.priority_mask);
                private.attention(change, self.groups.load(Ordering::Relaxed))
            }
            _ => 0,
        };
        drop(private);
        cell.notify(vcpu, flags)
    }

    fn read_private(&self, vcpu: VcpuId, cell: &Cell, offset: u64) -> u32 {
        match offset {
            0x0004 => IIDR,
            0x0008 => low(self.redistributor_type(vcpu)),
            0x000c => low(self.redistributor_type(vcpu).wrapping_shr(32)),
            0x0014 => (PROCESSOR_SLEEP | CHILDREN_ASLEEP) & all_if(cell.private.lock().asleep),
            0xffd0..0x1_0000 => identification(offset, PART),
            SGI_BASE.. => self.read_sgi_frame(cell, offset % SGI_BASE),
            // GICR_STATUSR (optional), GICR_MPAMIDR; all that is reserved: nothing.
            _ => low(self.read_lpi_register(vcpu, offset, AccessSize::Word)),
        }
    }

    fn read_sgi_frame(&self, cell: &Cell, offset: u64) -> u32 {
        let private = cell.private.lock();
        let bank = &private.bank;
        match offset {
            0x0080..0x0400 if offset & 0x7c == 0 => BitRegister::at(offset).map_or(0, |register| {
                let mut value = bank.read(register);
                if matches!(register, BitRegister::SetActive | BitRegister::ClearActive)
                    && private.interface.loaded
                    && cell.is_out_of_date()
                {
                    value |= bank.resident;
                }
                value
            }),
            0x0400..0x0420 => bank.priorities(low(offset & 28)),
            0x0c00 | 0x0c04 => spread(bank.edge.wrapping_shr(config_shift(offset))),
            // GICR_IGRPMODR0, GICR_NSACR: one security state.
            _ => 0,
        }
    }

    fn write_private(&self, private: &mut Private, offset: u64, value: u32) -> u32 {
        let groups = self.groups.load(Ordering::Relaxed);
        let Some(offset) = offset.checked_sub(SGI_BASE) else { return 0 };
        match offset {
            0x0080..0x0400 if offset & 0x7c == 0 => {
                BitRegister::at(offset).map_or(0, |register| private.write(register, value, groups))
            }
            0x0400..0x0420 => {
                let mut flags = 0;
                for (priority, index) in value.to_le_bytes().into_iter().zip(low(offset & 28)..) {
                    let change = private.bank.set_priority(index, priority & self.priority_mask);
                    flags |= private.attention(change, groups);
                }
                flags
            }
            0x0c04 => {
                let change = private.bank.configure(PPIS, gather(value).wrapping_shl(16));
                private.attention(change, groups)
            }
            _ => 0,
        }
    }

    /// `GICR_TYPER`: affinity, processor number, whether this is the last, `PLPIS`. All share one configuration table
    /// (`CommonLPIAff`), and LPIs come from the ITS only (`DirectLPI`). No `GICR_CTLR.DPG*`, no extended PPIs.
    fn redistributor_type(&self, vcpu: VcpuId) -> u64 {
        let affinity = Mpidr::of_vcpu(vcpu).0;
        // Affinity levels 3 to 0 as four bytes; level 3 is zero.
        let last = if vcpu.index().wrapping_add(1) == self.cells.len() { TYPER_LAST } else { 0 };
        let lpis = u64::from(self.unit.is_some());
        (affinity & 0x00ff_ffff).wrapping_shl(32) | u64::from(vcpu.0).wrapping_shl(8) | last | lpis
    }

    /// `GICR_WAKER`: the redistributor is quiet as soon as it is told to be.
    fn write_waker(&self, vcpu: VcpuId, cell: &Cell, value: u32) -> VcpuSet {
        let asleep = value & PROCESSOR_SLEEP != 0;
        let others = {
            let mut private = cell.private.lock();
            if private.asleep == asleep {
                return VcpuSet::EMPTY;
            }
            private.asleep = asleep;
            private.interface.undisturbed = false;
            if asleep {
                self.leave(vcpu)
            } else {
                self.take_part(vcpu, &private);
                VcpuSet::EMPTY
            }
        };
        others.union(cell.notify(vcpu, RESYNC))
    }
}
