//! The interrupt controller: a GICv3 with affinity routing, as one security state sees it, or a GICv2.
//!
//! Answers for: the distributor, this CPU's redistributor and its CPU interface, register by register, by the names of the
//! specification. Does not answer for: LPIs; groups of a GICv2, whose interrupts are all in the first.
//!
//! GIC architecture specification (IHI 0069): chapters 11 (CPU interface) and 12 (distributor, redistributors); for GICv2 IHI 0048
//! ([`v2`]).

mod v2;

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::machine::{MAX_CPUS, Machine};
use crate::mmio::Mmio;
use crate::registers::{affinity, cpu, dsb, isb, relax};
use crate::{mrs, msr};

/// Distributor control.
pub const GICD_CTLR: usize = 0x0000;
/// Interrupt controller type.
pub const GICD_TYPER: usize = 0x0004;
/// First of the group registers; in a redistributor's SGI frame likewise, as are those that follow.
pub const GICD_IGROUPR: usize = 0x0080;
/// First of the set-enable registers.
pub const GICD_ISENABLER: usize = 0x0100;
/// First of the clear-enable registers.
pub const GICD_ICENABLER: usize = 0x0180;
/// First of the set-pending registers.
pub const GICD_ISPENDR: usize = 0x0200;
/// First of the clear-pending registers.
pub const GICD_ICPENDR: usize = 0x0280;
/// First of the set-active registers.
pub const GICD_ISACTIVER: usize = 0x0300;
/// First of the clear-active registers.
pub const GICD_ICACTIVER: usize = 0x0380;
/// First of the priority registers.
pub const GICD_IPRIORITYR: usize = 0x0400;
/// First of the configuration registers.
pub const GICD_ICFGR: usize = 0x0c00;
/// First of the routing registers.
pub const GICD_IROUTER: usize = 0x6000;
/// Peripheral identification 2, of every frame.
pub const PIDR2: usize = 0xffe8;
/// Redistributor type, 64 bits.
pub const GICR_TYPER: usize = 0x0008;
/// Redistributor wake-up.
pub const GICR_WAKER: usize = 0x0014;
/// Where a redistributor's SGI frame starts.
pub const SGI_FRAME: usize = 0x1_0000;
/// `GICD_CTLR`: register write pending.
pub const RWP: u32 = 1 << 31;

/// What the special INTIDs start with: nothing to acknowledge.
const SPECIAL: u32 = 1020;
/// A priority in the middle, valid with as few as four bits.
pub const DEFAULT_PRIORITY: u8 = 0xa0;

/// A bit per interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    /// Forwarded to CPUs.
    Enabled,
    /// Pending.
    Pending,
    /// Active.
    Active,
}

/// In place of an affinity: any CPU (`GICD_IROUTER<n>.Interrupt_Routing_Mode`; all bits of a `GICD_ITARGETSR<n>`).
pub const ANY: u64 = 1 << 31;

/// Where a group-1 software-generated interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgiTarget {
    /// The CPU with this affinity (Aff0 below 16).
    One(u64),
    /// All but the sender.
    Others,
}

/// The controller, as the CPU that holds this value sees it: private interrupts are that CPU's own.
#[derive(Clone, Copy, Debug)]
pub struct Gic {
    /// The distributor.
    pub distributor: Mmio,
    /// This CPU's redistributor.
    pub redistributor: Mmio,
}

static REDISTRIBUTORS: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

impl Gic {
    /// The controller as this CPU sees it.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        if let Some(interface) = machine.cpu_interface {
            v2::find(interface, machine.distributor.start);
            // SAFETY: the tree says that a distributor is there; all that is not RAM is mapped as device memory.
            let distributor = unsafe { Mmio::new(machine.distributor.start as usize) };
            return Self { distributor, redistributor: distributor };
        }
        let known = REDISTRIBUTORS[cpu()].load(Ordering::Relaxed);
        let address = if known != 0 { known } else { find_redistributor(machine) };
        REDISTRIBUTORS[cpu()].store(address, Ordering::Relaxed);
        Self {
            // SAFETY: the tree says that a distributor is there; all that is not RAM is mapped as device memory.
            distributor: unsafe { Mmio::new(machine.distributor.start as usize) },
            // SAFETY: likewise, found by its affinity.
            redistributor: unsafe { Mmio::new(address) },
        }
    }

    /// Distributor on, affinity routing, both groups; every SPI off, in group 1, to CPU 0. Once, by the boot CPU.
    pub fn start_distributor(self) {
        if v2::is_there() {
            return v2::start_distributor(self);
        }
        self.distributor.write(GICD_CTLR, 0);
        self.wait_for_writes();
        // ARE (NS) and both groups: with one security state (DS = 1) bits 0, 1 and 4.
        self.distributor.write(GICD_CTLR, 1 << 4);
        self.wait_for_writes();
        self.distributor.write(GICD_CTLR, 1 << 4 | 0b11);
        self.wait_for_writes();
        for word in 1..self.words() {
            self.distributor.write(GICD_ICENABLER + 4 * word, !0);
            self.distributor.write(GICD_ICPENDR + 4 * word, !0);
            self.distributor.write(GICD_ICACTIVER + 4 * word, !0);
            self.distributor.write(GICD_IGROUPR + 4 * word, !0);
        }
        for intid in 32..self.intids() {
            self.set_priority(intid, DEFAULT_PRIORITY);
            self.route(intid, affinity());
        }
        self.wait_for_writes();
    }

    /// This CPU's redistributor awake, its private interrupts in group 1, edge-triggered SGIs enabled; its CPU interface
    /// open for all priorities, priority drop and deactivation in one.
    pub fn start_cpu(self) {
        if v2::is_there() {
            return v2::start_cpu(self);
        }
        self.redistributor.write(GICR_WAKER, 0);
        while self.redistributor.read(GICR_WAKER) & 1 << 2 != 0 {
            relax();
        }
        let private = self.private();
        private.write(GICD_ICENABLER, 0xffff_0000);
        private.write(GICD_ICPENDR, !0);
        private.write(GICD_ICACTIVER, !0);
        private.write(GICD_IGROUPR, !0);
        for intid in 0..32 {
            self.set_priority(intid, DEFAULT_PRIORITY);
        }
        private.write(GICD_ISENABLER, 0x0000_ffff);
        self.wait_for_writes();
        // SAFETY: the CPU interface touches no memory. Its system registers on, then all of it in a known state.
        unsafe { msr!("S3_0_C12_C12_5", 0b111) }; // ICC_SRE_EL1
        isb();
        set_priority_mask(0xff);
        set_binary_point(0);
        set_split_end(false);
        // SAFETY: as above.
        unsafe { msr!("S3_0_C12_C12_6", 1) }; // ICC_IGRPEN0_EL1
        // SAFETY: as above.
        unsafe { msr!("S3_0_C12_C12_7", 1) }; // ICC_IGRPEN1_EL1
        isb();
    }

    /// The SGI and PPI frame.
    #[must_use]
    pub fn private(self) -> Mmio {
        if v2::is_there() {
            return self.distributor;
        }
        // SAFETY: the second frame of the same redistributor.
        unsafe { Mmio::new(self.redistributor.address() + SGI_FRAME) }
    }

    /// How many INTIDs there are: SGIs, PPIs and SPIs.
    #[must_use]
    pub fn intids(self) -> u32 {
        (32 * ((self.distributor.read(GICD_TYPER) & 0x1f) + 1)).min(1020)
    }

    /// How many 32-bit registers have a bit for each of them.
    #[must_use]
    pub fn words(self) -> usize {
        self.intids().div_ceil(32) as usize
    }

    /// Waits until writes have taken effect everywhere.
    pub fn wait_for_writes(self) {
        while !v2::is_there() && (self.distributor.read(GICD_CTLR) & RWP) | (self.redistributor.read(0) & 1 << 3) != 0 {
            relax();
        }
        dsb();
    }

    /// The frame that `intid` lives in.
    #[must_use]
    pub fn frame(self, intid: u32) -> Mmio {
        if intid < 32 { self.private() } else { self.distributor }
    }

    /// Sets a bit of `intid`.
    pub fn set(self, bank: Bank, intid: u32) {
        if v2::is_there() && bank == Bank::Pending && intid < 16 {
            return v2::set_pending(self, intid, true);
        }
        self.frame(intid).write(bank.set_offset() + 4 * (intid as usize / 32), 1 << (intid % 32));
        self.wait_for_writes();
    }

    /// Clears a bit of `intid`.
    pub fn clear(self, bank: Bank, intid: u32) {
        if v2::is_there() && bank == Bank::Pending && intid < 16 {
            return v2::set_pending(self, intid, false);
        }
        self.frame(intid).write(bank.set_offset() + 0x80 + 4 * (intid as usize / 32), 1 << (intid % 32));
        self.wait_for_writes();
    }

    /// Reads a bit of `intid`.
    #[must_use]
    pub fn is(self, bank: Bank, intid: u32) -> bool {
        self.frame(intid).read(bank.set_offset() + 4 * (intid as usize / 32)) & 1 << (intid % 32) != 0
    }

    /// Forwards `intid`.
    pub fn enable(self, intid: u32) {
        self.set(Bank::Enabled, intid);
    }

    /// Stops forwarding `intid`.
    pub fn disable(self, intid: u32) {
        self.clear(Bank::Enabled, intid);
    }

    /// Lower numbers come first.
    pub fn set_priority(self, intid: u32, priority: u8) {
        let width = crate::mmio::Width::Byte;
        self.frame(intid).write_width(GICD_IPRIORITYR + intid as usize, width, u64::from(priority));
    }

    /// The priority of `intid`.
    #[must_use]
    pub fn priority(self, intid: u32) -> u8 {
        self.frame(intid).read_width(GICD_IPRIORITYR + intid as usize, crate::mmio::Width::Byte) as u8
    }

    /// Puts `intid` into group 1 or group 0.
    pub fn set_group1(self, intid: u32, group1: bool) {
        self.change(GICD_IGROUPR + 4 * (intid as usize / 32), intid, 1 << (intid % 32), group1);
    }

    /// Makes `intid` edge-triggered or level-sensitive.
    pub fn set_edge(self, intid: u32, edge: bool) {
        self.change(GICD_ICFGR + 4 * (intid as usize / 16), intid, 2 << (2 * (intid % 16)), edge);
    }

    /// Whether `intid` is edge-triggered.
    #[must_use]
    pub fn is_edge(self, intid: u32) -> bool {
        self.frame(intid).read(GICD_ICFGR + 4 * (intid as usize / 16)) & 2 << (2 * (intid % 16)) != 0
    }

    fn change(self, offset: usize, intid: u32, bits: u32, on: bool) {
        let frame = self.frame(intid);
        let old = frame.read(offset);
        frame.write(offset, if on { old | bits } else { old & !bits });
        self.wait_for_writes();
    }

    /// Sends the SPI `intid` to the CPU with this affinity, or to [`ANY`].
    pub fn route(self, intid: u32, affinity: u64) {
        if v2::is_there() {
            return v2::route(self, intid, affinity);
        }
        self.distributor.write64(GICD_IROUTER + 8 * intid as usize, affinity);
    }
}

impl Bank {
    const fn set_offset(self) -> usize {
        match self {
            Self::Enabled => GICD_ISENABLER,
            Self::Pending => GICD_ISPENDR,
            Self::Active => GICD_ISACTIVER,
        }
    }
}

/// Looks for the redistributor with this CPU's affinity; the last one says so.
fn find_redistributor(machine: &Machine) -> usize {
    let wanted = affinity();
    let wanted = (wanted >> 8 & 0xff00_0000) | (wanted & 0xff_ffff);
    let mut address = machine.redistributors.start as usize;
    while (address as u64) < machine.redistributors.end {
        // SAFETY: within what the tree calls redistributors.
        let registers = unsafe { Mmio::new(address) };
        let kind = registers.read64(GICR_TYPER);
        if kind >> 32 == wanted || kind & 1 << 4 != 0 {
            break;
        }
        // VLPIS: two more frames.
        address += if kind & 1 << 1 != 0 { 0x4_0000 } else { 0x2_0000 };
    }
    address
}

/// Takes the highest-priority pending group-1 interrupt; none if nothing (enough) is pending.
#[inline(always)]
pub fn acknowledge() -> Option<u32> {
    if let Some(interface) = v2::interface() {
        return interface.acknowledge();
    }
    let intid = mrs!("S3_0_C12_C12_0") as u32; // ICC_IAR1_EL1
    dsb();
    (!(SPECIAL..=SPECIAL + 3).contains(&intid)).then_some(intid)
}

/// The same for group 0.
#[inline(always)]
pub fn acknowledge_group0() -> Option<u32> {
    let intid = mrs!("S3_0_C12_C8_0") as u32; // ICC_IAR0_EL1
    dsb();
    (!(SPECIAL..=SPECIAL + 3).contains(&intid)).then_some(intid)
}

/// Drops the priority of `intid` and, unless that is split off, deactivates it.
#[inline(always)]
pub fn end(intid: u32) {
    if let Some(interface) = v2::interface() {
        return interface.end(intid);
    }
    // SAFETY: the CPU interface touches no memory.
    unsafe { msr!("S3_0_C12_C12_1", u64::from(intid)) }; // ICC_EOIR1_EL1
    isb();
}

/// The same for group 0.
pub fn end_group0(intid: u32) {
    // SAFETY: the CPU interface touches no memory.
    unsafe { msr!("S3_0_C12_C8_1", u64::from(intid)) }; // ICC_EOIR0_EL1
    isb();
}

/// Deactivates `intid`.
pub fn deactivate(intid: u32) {
    if let Some(interface) = v2::interface() {
        return interface.deactivate(intid);
    }
    // SAFETY: the CPU interface touches no memory.
    unsafe { msr!("S3_0_C12_C11_1", u64::from(intid)) }; // ICC_DIR_EL1
    isb();
}

/// Interrupts of this priority number and above are held back.
pub fn set_priority_mask(mask: u8) {
    if let Some(interface) = v2::interface() {
        return interface.set_priority_mask(mask);
    }
    // SAFETY: the CPU interface touches no memory.
    unsafe { msr!("S3_0_C4_C6_0", u64::from(mask)) }; // ICC_PMR_EL1
    isb();
}

/// What the priority mask reads as.
#[must_use]
pub fn priority_mask() -> u8 {
    if let Some(interface) = v2::interface() {
        return interface.priority_mask();
    }
    mrs!("S3_0_C4_C6_0") as u8
}

/// Splits priorities of group 1 into those that preempt and those that only order.
pub fn set_binary_point(value: u8) {
    if let Some(interface) = v2::interface() {
        return interface.set_binary_point(value);
    }
    // SAFETY: the CPU interface touches no memory.
    unsafe { msr!("S3_0_C12_C12_3", u64::from(value)) }; // ICC_BPR1_EL1
    isb();
}

/// The smallest binary point that took.
#[must_use]
pub fn binary_point() -> u8 {
    if let Some(interface) = v2::interface() {
        return interface.binary_point();
    }
    mrs!("S3_0_C12_C12_3") as u8
}

/// Whether anything comes at all: the second group, or a GICv2's only one.
pub fn set_enabled(enabled: bool) {
    if let Some(interface) = v2::interface() {
        return interface.set_enabled(enabled);
    }
    // SAFETY: the CPU interface touches no memory.
    unsafe { msr!("S3_0_C12_C12_7", u64::from(enabled)) }; // ICC_IGRPEN1_EL1
    isb();
}

/// Who sent the SGI that this CPU has acknowledged last; none on a GICv3, which does not say.
#[must_use]
pub fn sender(sgi: u32) -> Option<u8> {
    if v2::is_there() { v2::sender(sgi) } else { None }
}

/// Whether `end` only drops the priority, leaving the rest to `deactivate` (`ICC_CTLR_EL1.EOImode`).
pub fn set_split_end(split: bool) {
    if let Some(interface) = v2::interface() {
        return interface.set_split_end(split);
    }
    // SAFETY: the CPU interface touches no memory.
    unsafe { msr!("S3_0_C12_C12_4", u64::from(split) << 1) }; // ICC_CTLR_EL1
    isb();
}

/// `ICC_CTLR_EL1`.
#[must_use]
pub fn control() -> u64 {
    mrs!("S3_0_C12_C12_4")
}

/// The priority of what is active; 0xff if nothing is.
#[must_use]
pub fn running_priority() -> u8 {
    if let Some(interface) = v2::interface() {
        return interface.running_priority();
    }
    mrs!("S3_0_C12_C11_3") as u8 // ICC_RPR_EL1
}

/// What `acknowledge` would return, special numbers included.
#[must_use]
pub fn highest_pending() -> u32 {
    if let Some(interface) = v2::interface() {
        return interface.highest_pending();
    }
    mrs!("S3_0_C12_C12_2") as u32 // ICC_HPPIR1_EL1
}

/// The value of `ICC_SGI1R_EL1` that sends `sgi` to `target`.
#[must_use]
pub fn sgi_value(sgi: u32, target: SgiTarget) -> u64 {
    let sgi = u64::from(sgi & 15) << 24;
    match target {
        SgiTarget::Others => sgi | 1 << 40,
        SgiTarget::One(affinity) => {
            let [aff0, aff1, aff2, aff3] = [0, 8, 16, 32].map(|shift| affinity >> shift & 0xff);
            // RS: which sixteen of the 256 values of Aff0 the list stands for.
            sgi | 1 << (aff0 & 15) | aff1 << 16 | aff2 << 32 | (aff0 >> 4) << 44 | aff3 << 48
        }
    }
}

/// Sends a group-1 software-generated interrupt.
#[inline(always)]
pub fn send_sgi(sgi: u32, target: SgiTarget) {
    if let Some(interface) = v2::interface() {
        return interface.send_sgi(sgi, target);
    }
    dsb();
    // SAFETY: the CPU interface touches no memory.
    unsafe { msr!("S3_0_C12_C11_5", sgi_value(sgi, target)) }; // ICC_SGI1R_EL1
    isb();
}
