//! The virtual CPU interface's control registers as this crate reaches them: the list registers and what goes with them.
//!
//! Answers for: the trait that the kernel implements on system registers and tests on arrays, and the fields of those
//! registers. Does not answer for: what is put into them (`interface`).
//!
//! Follows IHI 0069, "AArch64 System Register descriptions of the virtual registers": `ICH_LR<n>_EL2`, `ICH_HCR_EL2`,
//! `ICH_VMCR_EL2`, `ICH_AP0R<n>_EL2`, `ICH_AP1R<n>_EL2`, `ICH_ELRSR_EL2`, `ICH_EISR_EL2`.

use types::IntId;

/// The hypervisor's side of one CPU's virtual interface. Only the CPU itself can reach it, so every call of this crate
/// that takes one is made by the CPU on which the vCPU is, or is being, loaded.
///
/// An index of a list register is below [`crate::VgicConfig::list_registers`]; an `index` of an active-priorities
/// register is below `1 << (priority_bits - 5)`.
pub trait ListRegisters {
    /// `ICH_LR<index>_EL2`.
    fn read(&self, index: usize) -> u64;
    /// Writes `ICH_LR<index>_EL2`.
    fn write(&mut self, index: usize, value: u64);
    /// `ICH_ELRSR_EL2`: list registers that hold nothing.
    fn empty_mask(&self) -> u64;
    /// `ICH_EISR_EL2`: list registers whose interrupt is finished and asked for a maintenance interrupt then.
    fn eoi_mask(&self) -> u64;
    /// `ICH_HCR_EL2`.
    fn hcr(&self) -> u64;
    /// Writes `ICH_HCR_EL2`. This crate decides all its bits while a vCPU is loaded; the kernel adds those it needs of
    /// its own (none today).
    fn set_hcr(&mut self, value: u64);
    /// `ICH_VMCR_EL2`.
    fn vmcr(&self) -> u64;
    /// Writes `ICH_VMCR_EL2`.
    fn set_vmcr(&mut self, value: u64);
    /// `ICH_AP0R<index>_EL2`: active priorities of group 0.
    fn ap0r(&self, index: usize) -> u64;
    /// Writes `ICH_AP0R<index>_EL2`.
    fn set_ap0r(&mut self, index: usize, value: u64);
    /// `ICH_AP1R<index>_EL2`: active priorities of group 1.
    fn ap1r(&self, index: usize) -> u64;
    /// Writes `ICH_AP1R<index>_EL2`.
    fn set_ap1r(&mut self, index: usize, value: u64);
    /// Deactivates the host's own interrupt `physical` on this CPU (`ICC_DIR_EL1`): the guest has made a hardware-linked
    /// interrupt inactive in a way that the hardware does not see.
    fn deactivate(&mut self, physical: IntId);
}

/// Fields of `ICH_LR<n>_EL2`.
pub(crate) mod lr {
    /// State: pending.
    pub(crate) const PENDING: u64 = 1 << 62;
    /// State: active.
    pub(crate) const ACTIVE: u64 = 1 << 63;
    /// The virtual interrupt stands for a physical one, which is deactivated with it.
    pub(crate) const HW: u64 = 1 << 61;
    /// Group 1.
    pub(crate) const GROUP: u64 = 1 << 60;
    /// Where the priority is, 8 bits.
    pub(crate) const PRIORITY_SHIFT: u32 = 48;
    /// Where the physical INTID is, 13 bits, if `HW`.
    pub(crate) const PHYSICAL_SHIFT: u32 = 32;
    /// Maintenance interrupt at the end of the interrupt, if not `HW`.
    pub(crate) const EOI: u64 = 1 << 41;
}

/// Fields of `ICH_HCR_EL2`.
pub(crate) mod hcr {
    /// The virtual CPU interface is on.
    pub(crate) const EN: u64 = 1 << 0;
    /// Maintenance interrupt while `EOICOUNT` is not zero.
    pub(crate) const LRENPIE: u64 = 1 << 2;
    /// Maintenance interrupt while no list register is pending.
    pub(crate) const NPIE: u64 = 1 << 3;
    /// Maintenance interrupt while group 0 is enabled.
    pub(crate) const VGRP0EIE: u64 = 1 << 4;
    /// Maintenance interrupt while group 0 is disabled.
    pub(crate) const VGRP0DIE: u64 = 1 << 5;
    /// Maintenance interrupt while group 1 is enabled.
    pub(crate) const VGRP1EIE: u64 = 1 << 6;
    /// Maintenance interrupt while group 1 is disabled.
    pub(crate) const VGRP1DIE: u64 = 1 << 7;
    /// Writes of `ICC_DIR_EL1` trap, where `ICH_VTR_EL2.TDS` says so; elsewhere reserved and ignored.
    pub(crate) const TDIR: u64 = 1 << 14;
    /// Where the number of ends without a list register is, 5 bits.
    pub(crate) const EOICOUNT_SHIFT: u32 = 27;
    /// Mask of that field, shifted down.
    pub(crate) const EOICOUNT_MASK: u64 = 0x1f;
}

/// Fields of `ICH_VMCR_EL2`.
pub(crate) mod vmcr {
    /// Group 0 enabled (`ICC_IGRPEN0_EL1`).
    pub(crate) const VENG0: u64 = 1 << 0;
    /// Group 1 enabled (`ICC_IGRPEN1_EL1`).
    pub(crate) const VENG1: u64 = 1 << 1;
    /// Group 0 is signalled as FIQ: always so with system registers.
    pub(crate) const VFIQEN: u64 = 1 << 3;
    /// `ICC_BPR0_EL1` serves both groups (`ICC_CTLR_EL1.CBPR`).
    pub(crate) const VCBPR: u64 = 1 << 4;
    /// Priority drop and deactivation are separate (`ICC_CTLR_EL1.EOImode`).
    pub(crate) const VEOIM: u64 = 1 << 9;
    /// Where `ICC_BPR1_EL1` is, 3 bits.
    pub(crate) const VBPR1_SHIFT: u32 = 18;
    /// Where `ICC_BPR0_EL1` is, 3 bits.
    pub(crate) const VBPR0_SHIFT: u32 = 21;
    /// Where `ICC_PMR_EL1` is, 8 bits.
    pub(crate) const VPMR_SHIFT: u32 = 24;
    /// After a reset: groups disabled, everything masked. The binary points are raised by the hardware to the least that
    /// it supports.
    pub(crate) const RESET: u64 = VFIQEN;
}
