//! GICv2's registers.
//!
//! Answers for: the register map of the distributor, in which each vCPU finds its own private interrupts, and the one
//! register of the CPU interface that no hardware has for guests in the way that is needed. Does not answer for: what the
//! registers mean (`shared`, `private`, `bank`, `senders`), the rest of the CPU interface: that is the host's hardware.
//!
//! Follows IHI 0048, "Distributor register descriptions" and GICC_DIR. What a GICv3 has at the same place and means the same is
//! left to `v3`. There are no Security Extensions. Whatever is reserved, or accessed in a size that it does not have, reads
//! as zero and ignores writes.

use crate::bank::{Bank, Change};
use crate::private::Private;
use crate::registers::{ListRegisters, vmcr};
use crate::senders::Senders;
use crate::signals::Cell;
use crate::word::{Ones, low, low_byte};
use crate::{Version, Vgic};
use core::sync::atomic::Ordering;
use types::{AccessSize, IntId, VcpuId, VcpuSet};

/// Most vCPUs: a bit each in a byte of `GICD_ITARGETSR<n>`.
pub(crate) const VCPUS: usize = 8;

/// SGIs, in a bank.
pub(crate) const SGIS: u32 = 0x0000_ffff;

/// Size of the distributor's window.
pub(crate) const DISTRIBUTOR_SIZE: u64 = 0x1000;

/// Behind the last `GICD_ITARGETSR<n>`.
const END_TARGETS: u64 = 0xbfc;
const TARGETS: u64 = 0x800;
const SGIR: u64 = 0xf00;
const CPENDSGIR: u64 = 0xf10;
const SPENDSGIR: u64 = 0xf20;
const END_SENDERS: u64 = 0xf30;

/// `GICC_DIR`: the only register in the second page of the CPU interface.
const DIR: u64 = 0x1000;

/// `GICD_TYPER.CPUNumber`.
const TYPER_CPUS_SHIFT: u32 = 5;

/// The identification registers at 0xfd0 (IHI 0048, "Identification registers"): those of a GIC-400, in which `ICPIDR2.ArchRev`
/// is 2: GICv2.
const fn identification(offset: u64) -> u32 {
    match offset {
        0xfd0 => 0x04,
        0xfe0 => 0x90,
        0xfe4 => 0xb4,
        0xfe8 => 0x2b,
        0xff0 => 0x0d,
        0xff4 => 0xf0,
        0xff8 => 0x05,
        0xffc => 0xb1,
        _ => 0,
    }
}

/// Whether a register is of private interrupts: each vCPU has its own there. They are where a GICv3's redistributor has them
/// in its second frame.
const fn is_banked(offset: u64) -> bool {
    matches!(offset, 0x080..0x400 if offset & 0x7c == 0) || matches!(offset, 0x400..0x420 | 0xc00..0xc08)
}

/// Where a vCPU's private interrupts are among the redistributors of a GICv3.
const fn private_frame(vcpu: VcpuId, offset: u64) -> u64 {
    (vcpu.0 as u64).wrapping_mul(Vgic::REDISTRIBUTOR_SIZE).wrapping_add(0x1_0000).wrapping_add(offset)
}

/// What a register of bytes has for the access of `size` at `offset`: `byte` gives that at an offset.
fn bytes(offset: u64, size: AccessSize, byte: impl Fn(u64) -> u8) -> u64 {
    (0..size.bytes()).rev().fold(0, |value, index| value.wrapping_shl(8) | u64::from(byte(offset.wrapping_add(index))))
}

/// `GICD_TYPER` for so many vCPUs and INTIDs.
pub(crate) fn typer(vcpus: usize, intids: u32) -> u32 {
    let cpus = low(vcpus as u64).wrapping_sub(1);
    cpus.wrapping_shl(TYPER_CPUS_SHIFT) | (intids / 32).wrapping_sub(1)
}

impl Vgic {
    /// A read in the distributor's window by vCPU `by`, loaded on the calling CPU. Returns the value, and the vCPUs to kick,
    /// because it takes them to know better next time.
    #[inline(always)]
    pub(crate) fn observe_banked(
        &self,
        by: VcpuId,
        registers: &impl ListRegisters,
        offset: u64,
        size: AccessSize,
    ) -> (u64, VcpuSet) {
        match offset {
            0x000..0x010 if size == AccessSize::Word => (self.read_banked(offset), VcpuSet::EMPTY),
            _ => self.observe_states(by, registers, offset, size),
        }
    }

    /// The same of a register of many interrupts.
    #[cold]
    #[inline(never)]
    fn observe_states(
        &self,
        by: VcpuId,
        registers: &impl ListRegisters,
        offset: u64,
        size: AccessSize,
    ) -> (u64, VcpuSet) {
        if !size.is_aligned(offset) {
            return (0, VcpuSet::EMPTY);
        }
        if is_banked(offset) {
            return self.observe_redistributor(by, registers, private_frame(by, offset), size);
        }
        let value = match offset {
            0x080..0x800 | 0xc00..0xd00 => return self.observe_shared(by, registers, offset, size),
            TARGETS..END_TARGETS if size <= AccessSize::Word => {
                let shared = self.shared.lock();
                bytes(offset, size, |offset| match low(offset.wrapping_sub(TARGETS)) {
                    // One vCPU has no choice, and sees none (IHI 0048, GICD_ITARGETSR<n>, "uniprocessor").
                    _ if self.cells.len() == 1 => 0,
                    0..32 => low_byte(VcpuSet::of(by).0),
                    intid => shared.targets(intid),
                })
            }
            CPENDSGIR..END_SENDERS if size <= AccessSize::Word => {
                let Some(cell) = self.cells.get(by.index()) else { return (0, VcpuSet::EMPTY) };
                self.synchronise(cell, registers);
                let private = cell.private.lock();
                bytes(offset, size, |offset| {
                    private.senders.as_ref().map_or(0, |senders| senders.read(low(offset & 15), &private.bank))
                })
            }
            0xfd0..DISTRIBUTOR_SIZE if size == AccessSize::Word => identification(offset).into(),
            // GICD_NSACR<n> (no Security Extensions), GICD_SGIR (write-only), all that is reserved.
            _ => 0,
        };
        (value, VcpuSet::EMPTY)
    }

    /// `GICD_CTLR`, `GICD_TYPER` and `GICD_IIDR`.
    fn read_banked(&self, offset: u64) -> u64 {
        match offset {
            0x000 => self.groups.load(Ordering::Relaxed).into(),
            0x004 => self.typer.into(),
            0x008 => crate::v3::IIDR.into(),
            _ => 0,
        }
    }

    /// A write in the distributor's window by vCPU `by`. Returns the vCPUs to kick, the writer perhaps among them.
    #[cold]
    #[inline(never)]
    pub(crate) fn write_banked(&self, by: VcpuId, offset: u64, size: AccessSize, value: u64) -> VcpuSet {
        if !size.is_aligned(offset) {
            return VcpuSet::EMPTY;
        }
        if is_banked(offset) {
            return self.write_redistributor(private_frame(by, offset), size, keep_sgis(offset, value));
        }
        let count = usize::try_from(size.bytes()).unwrap_or(0);
        match offset {
            0x000 | 0x080..0x800 | 0xc00..0xd00 => self.write_shared(offset, size, value),
            TARGETS..END_TARGETS if size <= AccessSize::Word && self.cells.len() > 1 => {
                let mut signals = self.signals(None);
                let mut shared = self.shared.lock();
                let existing = low_byte(VcpuSet::first(self.cells.len()).0);
                let first = low(offset.wrapping_sub(TARGETS));
                for (targets, intid) in value.to_le_bytes().into_iter().zip(first..).take(count) {
                    shared.set_targets(intid, targets & existing, &mut signals);
                }
                signals.kick
            }
            _ if self.is_sgi_register(offset, size) => self.generate_sgi(by, value),
            CPENDSGIR..END_SENDERS if size <= AccessSize::Word => {
                self.cells.get(by.index()).map_or(VcpuSet::EMPTY, |cell| {
                    let sgis = low(offset & 15)..;
                    let change = if offset < SPENDSGIR { Senders::remove } else { Senders::add };
                    self.change_senders(by, cell, sgis.zip(value.to_le_bytes()).take(count), change)
                })
            }
            _ => VcpuSet::EMPTY,
        }
    }

    /// Whether a write in the distributor's window is one of `GICD_SGIR`, the only one that is made often.
    #[inline(always)]
    #[must_use]
    pub fn is_sgi_register(&self, offset: u64, size: AccessSize) -> bool {
        offset == SGIR && size == AccessSize::Word && self.version == Version::V2
    }

    /// That write by vCPU `by`. Returns the vCPUs to kick.
    #[inline(never)]
    pub fn generate_sgi(&self, by: VcpuId, value: u64) -> VcpuSet {
        let value = low(value);
        let (own, existing) = (VcpuSet::of(by).0, VcpuSet::first(self.cells.len()).0);
        let targets = match value.wrapping_shr(24) & 3 {
            0 => u64::from(value.wrapping_shr(16) & 0xff),
            1 => !own,
            2 => own,
            _ => 0,
        };
        let groups = self.groups.load(Ordering::Relaxed);
        let mut kick = VcpuSet::EMPTY;
        for target in Ones(low(targets & existing)) {
            let Some(cell) = self.cells.get(target as usize) else { continue };
            let flags = {
                let mut private = cell.private.lock();
                let Private { senders: Some(senders), bank, .. } = &mut *private else { continue };
                let change = senders.add(value & 15, low_byte(own), bank);
                private.attention_to(change.pending, groups)
            };
            kick = kick.union(cell.notify(VcpuId(low_byte(target.into()).into()), flags));
        }
        kick
    }

    /// Changes who has sent SGIs to a vCPU: `sgis` are each with its senders.
    fn change_senders(
        &self,
        vcpu: VcpuId,
        cell: &Cell,
        sgis: impl Iterator<Item = (u32, u8)>,
        change: fn(&mut Senders, u32, u8, &mut Bank) -> Change,
    ) -> VcpuSet {
        let mut flags = 0;
        {
            let mut private = cell.private.lock();
            for (sgi, senders) in sgis {
                let Private { senders: Some(all), bank, .. } = &mut *private else { break };
                let change = change(all, sgi, senders, bank);
                flags |= private.attention(change, self.groups.load(Ordering::Relaxed));
            }
        }
        cell.notify(vcpu, flags)
    }

    /// A write in the CPU interface's window by vCPU `by`, loaded on the calling CPU: of `GICC_DIR`, as far as the guest separates
    /// priority drop from deactivation. All the rest is hardware. Returns the vCPUs to kick.
    // An active interrupt may be in no list register, and GICV_DIR cannot be trapped when it is: so it always is.
    #[cold]
    pub fn write_cpu_interface(
        &self,
        by: VcpuId,
        registers: &mut impl ListRegisters,
        offset: u64,
        size: AccessSize,
        value: u64,
    ) -> VcpuSet {
        if offset != DIR || size != AccessSize::Word || registers.vmcr() & vmcr::VEOIM == 0 {
            return VcpuSet::EMPTY;
        }
        self.deactivate(by, IntId(low(value) & 0x3ff), registers)
    }
}

/// A value for a register of private interrupts without what it cannot do to SGIs: they are always enabled, and pending by
/// registers of their own (IHI 0048, GICD_ICENABLER<n>, GICD_ISPENDR<n>).
const fn keep_sgis(offset: u64, value: u64) -> u64 {
    match offset {
        0x180 | 0x200 | 0x280 => value & !(SGIS as u64),
        _ => value,
    }
}

#[cfg(test)]
mod tests;
