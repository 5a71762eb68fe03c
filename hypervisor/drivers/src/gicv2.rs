//! The physical GICv2 with the Virtualization Extensions (IHI 0048): distributor, CPU interface, virtual interface control.
//!
//! Whether EL2 is Secure or not, and whether there are Security Extensions at all, it sees one group of interrupts and one
//! enable for it, in bit 0: where there are, firmware has made our interrupts Non-secure.

use crate::{GicError, Mmio, Window};
use types::{IntId, Pa, Range};

mod distributor {
    pub(super) const CTLR: usize = 0x000;
    pub(super) const TYPER: usize = 0x004;
    pub(super) const IIDR: usize = 0x008;
    pub(super) const ISENABLER: usize = 0x100;
    pub(super) const ICENABLER: usize = 0x180;
    pub(super) const ICPENDR: usize = 0x280;
    pub(super) const ISACTIVER: usize = 0x300;
    pub(super) const ICACTIVER: usize = 0x380;
    pub(super) const IPRIORITYR: usize = 0x400;
    pub(super) const ICFGR: usize = 0xc00;
    pub(super) const ITARGETSR: usize = 0x800;
    pub(super) const SGIR: usize = 0xf00;
    pub(super) const CPENDSGIR: usize = 0xf10;
    pub(super) const ICPIDR2: usize = 0xfe8;

    pub(super) const CTLR_ENABLE: u32 = 1;
}

mod cpu {
    pub(super) const CTLR: usize = 0x0000;
    pub(super) const PMR: usize = 0x0004;
    pub(super) const BPR: usize = 0x0008;
    pub(super) const IAR: usize = 0x000c;
    pub(super) const EOIR: usize = 0x0010;
    pub(super) const HPPIR: usize = 0x0018;
    pub(super) const APR: usize = 0x00d0;
    pub(super) const NSAPR: usize = 0x00e0;
    pub(super) const DIR: usize = 0x1000;

    pub(super) const CTLR_ENABLE: u32 = 1 << 0;
    /// Priority drop and deactivation are separate.
    pub(super) const CTLR_EOI_MODE: u32 = 1 << 9;
}

mod hypervisor {
    pub(super) const HCR: usize = 0x000;
    pub(super) const VTR: usize = 0x004;
    pub(super) const VMCR: usize = 0x008;
    pub(super) const EISR: usize = 0x020;
    pub(super) const ELRSR: usize = 0x030;
    pub(super) const APR: usize = 0x0f0;
    pub(super) const LR: usize = 0x100;
}

/// Every interrupt of ours has this priority: the host needs no order, it takes all at once.
const PRIORITY: u32 = 0xa0a0_a0a0;

/// `GICD_IIDR` of QEMU's GICv2: Arm's, of no product.
const IIDR_QEMU: u32 = 0x0000_043b;

/// `ICH_LR<n>_EL2.HW`: the interrupt stands for a physical one, which ends with it.
pub const LINKED: u64 = 1 << 61;
/// `ICH_LR<n>_EL2.EOI`, without `HW`: a maintenance interrupt at its end.
const REPORTED: u64 = 1 << 41;

/// The INTID in what [`CpuInterface::acknowledge`] returns.
const INTID: u32 = 0x3ff;

/// The distributor: shared interrupts.
#[derive(Debug)]
pub struct Distributor {
    registers: Mmio,
    intids: u32,
}

impl Distributor {
    /// Brings the distributor into a known state: every SPI disabled, inactive, not pending.
    ///
    /// # Errors
    /// If this is not a GICv2.
    pub fn new(registers: Mmio) -> Result<Self, GicError> {
        if (registers.read_u32(distributor::ICPIDR2) >> 4) & 0xf != 2 {
            return Err(GicError::NotGicv2);
        }
        let lines = (registers.read_u32(distributor::TYPER) & 0x1f) + 1;
        registers.write_u32(distributor::CTLR, 0);
        for word in 1..lines as usize {
            registers.write_u32(distributor::ICENABLER + 4 * word, u32::MAX);
            registers.write_u32(distributor::ICPENDR + 4 * word, u32::MAX);
            registers.write_u32(distributor::ICACTIVER + 4 * word, u32::MAX);
            for quarter in 0..8 {
                registers.write_u32(distributor::IPRIORITYR + 32 * word + 4 * quarter, PRIORITY);
            }
        }
        registers.write_u32(distributor::CTLR, distributor::CTLR_ENABLE);
        Ok(Self { registers, intids: (lines * 32).min(IntId::END_SPI) })
    }

    /// Has an SPI come to the CPUs with these bits ([`Banked::mask`]), and enables it. Anything but an implemented SPI is ignored.
    pub fn enable(&mut self, intid: IntId, mask: u8) {
        if intid.is_spi() && intid.0 < self.intids {
            let (n, shift) = (intid.0 as usize, intid.0 % 4 * 8);
            let register = distributor::ITARGETSR + n / 4 * 4;
            let others = self.registers.read_u32(register) & !(0xff << shift);
            self.registers.write_u32(register, others | u32::from(mask) << shift);
            self.registers.write_u32(distributor::ISENABLER + 4 * (n / 32), 1 << (n % 32));
        }
    }

    /// Makes a disabled SPI edge-triggered, or level-sensitive. Anything but an implemented SPI is ignored.
    pub fn configure(&mut self, intid: IntId, edge: bool) {
        if intid.is_spi() && intid.0 < self.intids {
            let (register, shift) = (distributor::ICFGR + intid.0 as usize / 16 * 4, intid.0 % 16 * 2);
            let others = self.registers.read_u32(register) & !(0b11 << shift);
            self.registers.write_u32(register, others | u32::from(edge) << (shift + 1));
        }
    }

    /// Makes an SPI inactive, whoever has acknowledged it. Anything but an implemented SPI is ignored.
    pub fn deactivate(&mut self, intid: IntId) {
        if intid.is_spi() && intid.0 < self.intids {
            let n = intid.0 as usize;
            self.registers.write_u32(distributor::ICACTIVER + 4 * (n / 32), 1 << (n % 32));
        }
    }

    /// Forgets that an edge-triggered SPI is pending. Anything but an implemented SPI is ignored.
    pub fn forget(&mut self, intid: IntId) {
        if intid.is_spi() && intid.0 < self.intids {
            let n = intid.0 as usize;
            self.registers.write_u32(distributor::ICPENDR + 4 * (n / 32), 1 << (n % 32));
        }
    }

    /// Disables an SPI.
    ///
    /// # Errors
    /// If it is not an implemented SPI.
    pub fn disable(&mut self, intid: IntId) -> Result<(), GicError> {
        if !intid.is_spi() || intid.0 >= self.intids {
            return Err(GicError::NoSuchInterrupt);
        }
        let n = intid.0 as usize;
        self.registers.write_u32(distributor::ICENABLER + 4 * (n / 32), 1 << (n % 32));
        self.registers.complete();
        Ok(())
    }
}

/// The distributor's registers of which each CPU has its own: its private interrupts.
#[derive(Debug)]
pub struct Banked {
    registers: Mmio,
}

impl Banked {
    /// Brings the calling CPU's private interrupts into a known state: all disabled, inactive, not pending.
    ///
    /// # Safety
    /// `registers` are those of the [`Distributor`]; only the calling CPU uses this value.
    #[must_use]
    pub unsafe fn new(registers: Mmio) -> Self {
        registers.write_u32(distributor::ICENABLER, u32::MAX);
        registers.write_u32(distributor::ICPENDR, u32::MAX);
        registers.write_u32(distributor::ICACTIVER, u32::MAX);
        for word in 0..8 {
            registers.write_u32(distributor::IPRIORITYR + 4 * word, PRIORITY);
        }
        for word in 0..4 {
            registers.write_u32(distributor::CPENDSGIR + 4 * word, u32::MAX);
        }
        Self { registers }
    }

    /// The calling CPU's bit in lists of CPUs. A machine with one CPU need not say, and ignores it.
    #[must_use]
    pub fn mask(&self) -> u8 {
        let targets = (0..8).map(|word| self.registers.read_u32(distributor::ITARGETSR + 4 * word));
        let bytes = targets.fold(0, |all, word| all | word | word >> 16);
        match (bytes | bytes >> 8) as u8 {
            0 => 1,
            mask => mask,
        }
    }

    /// Enables a private interrupt.
    pub fn enable(&mut self, intid: IntId) {
        if intid.is_private() {
            self.registers.write_u32(distributor::ISENABLER, 1 << intid.0);
        }
    }

    /// Sets or clears the active state of a private interrupt: that of a guest's timer moves with its vCPU.
    pub fn set_active(&mut self, intid: IntId, active: bool) {
        if intid.is_private() {
            let register = if active { distributor::ISACTIVER } else { distributor::ICACTIVER };
            self.registers.write_u32(register, 1 << intid.0);
            // Read back, and wait for the answer: the change has taken effect before the guest's timer may fire.
            let _ = self.registers.read_u32(register);
            self.registers.complete();
        }
    }

    /// Disables a private interrupt.
    ///
    /// # Errors
    /// If it is not a private interrupt.
    pub fn disable(&mut self, intid: IntId) -> Result<(), GicError> {
        if !intid.is_private() {
            return Err(GicError::NoSuchInterrupt);
        }
        self.registers.write_u32(distributor::ICENABLER, 1 << intid.0);
        self.registers.complete();
        Ok(())
    }
}

/// What all CPUs reach at the same addresses, each its own: the CPU interface (GICC), the virtual interface control (GICH), and
/// the one register of the distributor (GICD) that sends SGIs.
#[derive(Clone, Copy, Debug)]
pub struct CpuInterface {
    distributor: Window<0x1000>,
    registers: Window<0x2000>,
    /// GICH.
    pub lists: HypervisorInterface,
}

impl CpuInterface {
    /// GICD, GICC and GICH as the device tree has them. `None` if one of them is too small.
    ///
    /// # Safety
    /// They are that, mapped as Device memory for as long as the value is used.
    #[must_use]
    pub unsafe fn new(distributor: &Range<Pa>, registers: &Range<Pa>, lists: &Range<Pa>) -> Option<Self> {
        // SAFETY: the caller's promise.
        let distributor = unsafe { Window::of(distributor)? };
        // SAFETY: the caller's promise.
        let registers = unsafe { Window::of(registers)? };
        // SAFETY: the caller's promise.
        let lists = HypervisorInterface(unsafe { Window::of(lists)? });
        Some(Self { distributor, registers, lists })
    }

    /// Where its registers are, for whoever keeps that in place of the value.
    #[must_use]
    pub const fn addresses(self) -> [usize; 3] {
        [self.distributor.base(), self.registers.base(), self.lists.0.base()]
    }

    /// The same value again.
    ///
    /// # Safety
    /// The addresses are those of [`CpuInterface::addresses`].
    #[inline(always)]
    #[must_use]
    pub const unsafe fn at([distributor, registers, lists]: [usize; 3]) -> Self {
        // SAFETY: the caller's promise.
        let distributor = unsafe { Window::at(distributor) };
        // SAFETY: the caller's promise.
        let registers = unsafe { Window::at(registers) };
        // SAFETY: the caller's promise.
        let lists = unsafe { HypervisorInterface::at(lists) };
        Self { distributor, registers, lists }
    }

    /// Turns the calling CPU's interface on for all priorities, with split end of interrupt.
    pub fn initialise(self) {
        // An interrupt that firmware or a boot loader took and never ended would keep ours back.
        for word in 0..4 {
            self.registers.write_u32(cpu::APR + 4 * word, 0);
            self.registers.write_u32(cpu::NSAPR + 4 * word, 0);
        }
        self.lists.set_hcr(0);
        self.registers.write_u32(cpu::PMR, 0xff);
        self.registers.write_u32(cpu::BPR, 0);
        self.registers.write_u32(cpu::CTLR, cpu::CTLR_ENABLE | cpu::CTLR_EOI_MODE);
    }

    /// Whether this is QEMU's model, in which a physical interrupt that a guest's end of interrupt deactivates
    /// (`GICH_LR<n>.HW`) is not looked at again: if its line is asserted then, it stays unnoticed until another changes.
    #[must_use]
    pub fn forgets_levels(self) -> bool {
        self.distributor.read_u32(distributor::IIDR) == IIDR_QEMU
    }

    /// Acknowledges the highest-priority pending interrupt: what the two below want to be told, with its INTID in the lower ten
    /// bits, which are 1020–1023 if there is none.
    #[inline]
    #[must_use]
    pub fn acknowledge(self) -> u32 {
        let acknowledged = self.registers.read_u32(cpu::IAR);
        // What the device wrote before it raised the interrupt is visible after this.
        self.registers.complete();
        acknowledged
    }

    /// The INTID of what was acknowledged.
    #[inline]
    #[must_use]
    pub const fn intid(acknowledged: u32) -> u32 {
        acknowledged & INTID
    }

    /// The interrupt that [`CpuInterface::acknowledge`] would take now, or 1020–1023 if there is none.
    #[must_use]
    pub fn highest_pending(self) -> u32 {
        self.registers.read_u32(cpu::HPPIR) & INTID
    }

    /// Drops the running priority.
    #[inline]
    pub fn drop_priority(self, acknowledged: u32) {
        self.registers.write_u32(cpu::EOIR, acknowledged);
    }

    /// Deactivates: the interrupt may be taken again.
    #[inline]
    pub fn deactivate(self, acknowledged: u32) {
        self.registers.write_u32(cpu::DIR, acknowledged);
    }

    /// Makes an SPI inactive, whichever CPU has acknowledged it: the other one works by the CPU.
    #[inline]
    pub fn deactivate_shared(self, intid: IntId) {
        if intid.is_spi() {
            let n = intid.0 as usize;
            // A bit that is 0 changes nothing, so this needs no lock (IHI 0048, GICD_ICACTIVER<n>).
            self.distributor.write_u32(distributor::ICACTIVER + 4 * (n / 32), 1 << (n % 32));
        }
    }

    /// Sends SGI `intid` (0–15) to the CPUs with these bits ([`Banked::mask`]).
    #[inline]
    pub fn send_sgi(self, intid: u32, mask: u8) {
        // What we wrote for the other CPU is visible to it before the interrupt is.
        self.distributor.publish();
        self.distributor.write_u32(distributor::SGIR, u32::from(mask) << 16 | intid & 0xf);
    }
}

/// The virtual interface control registers of the calling CPU, GICH (IHI 0048, "The virtual interface control registers"). Values
/// are those of the GICv3 registers of the same meaning, which differ in the list registers only.
#[derive(Clone, Copy, Debug)]
pub struct HypervisorInterface(Window<0x1000>);

impl HypervisorInterface {
    /// The same value again, of which the address is kept.
    ///
    /// # Safety
    /// The address is the last of [`CpuInterface::addresses`].
    #[inline(always)]
    #[must_use]
    pub const unsafe fn at(lists: usize) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Window::at(lists) })
    }

    /// How many list registers there are, and priority bits: `GICH_VTR`.
    #[must_use]
    pub fn list_registers(self) -> (usize, u8) {
        let vtr = self.0.read_u32(hypervisor::VTR);
        ((vtr & 0x3f) as usize + 1, (vtr >> 29 & 7) as u8 + 1)
    }

    /// `GICH_LR<index>`, as an `ICH_LR<n>_EL2`.
    #[inline]
    #[must_use]
    pub fn list_register(self, index: usize) -> u64 {
        let value = u64::from(self.0.read_u32(hypervisor::LR + 4 * index));
        // VirtualID; PhysicalID, or its likes; priority; state, group, HW.
        let states = value >> 28 & 3;
        value & 0x3ff
            | (value >> 10 & 0x3ff) << 32
            | (value >> 23 & 0x1f) << 51
            | (value >> 30 & 1) << 60
            | (value >> 31) << 61
            | states << 62
    }

    /// Writes `GICH_LR<index>`, given as an `ICH_LR<n>_EL2`.
    #[inline(always)]
    pub fn set_list_register(self, index: usize, value: u64) {
        let register = value & 0x3ff
            | (value >> 32 & 0x3ff) << 10
            | (value >> 51 & 0x1f) << 23
            | (value >> 62) << 28
            | (value >> 60 & 1) << 30
            | (value >> 61 & 1) << 31;
        self.0.write_u32(hypervisor::LR + 4 * index, register as u32);
    }

    /// Writes `GICH_LR<index>` as [`HypervisorInterface::set_list_register`], but a hardware-linked interrupt without the link:
    /// in its place a maintenance interrupt is asked for at the end. Returns the physical one's INTID then.
    #[inline]
    pub fn set_unlinked(self, index: usize, value: u64) -> Option<IntId> {
        if value & LINKED == 0 {
            self.set_list_register(index, value);
            return None;
        }
        let physical = value >> 32 & 0x3ff;
        self.set_list_register(index, value & !(LINKED | physical << 32) | REPORTED);
        Some(IntId(physical as u32))
    }

    /// `GICH_HCR`.
    #[inline]
    #[must_use]
    pub fn hcr(self) -> u64 {
        self.0.read_u32(hypervisor::HCR).into()
    }

    /// Writes `GICH_HCR`.
    #[inline]
    pub fn set_hcr(self, value: u64) {
        self.0.write_u32(hypervisor::HCR, value as u32);
    }

    /// `GICH_VMCR`: what the guest wrote to its CPU interface's control registers.
    #[inline]
    #[must_use]
    pub fn vmcr(self) -> u64 {
        self.0.read_u32(hypervisor::VMCR).into()
    }

    /// Writes `GICH_VMCR`.
    #[inline]
    pub fn set_vmcr(self, value: u64) {
        self.0.write_u32(hypervisor::VMCR, value as u32);
    }

    /// `GICH_APR`: active priorities of both groups.
    #[inline]
    #[must_use]
    pub fn active_priorities(self) -> u64 {
        self.0.read_u32(hypervisor::APR).into()
    }

    /// Writes `GICH_APR`.
    #[inline]
    pub fn set_active_priorities(self, value: u64) {
        self.0.write_u32(hypervisor::APR, value as u32);
    }

    /// `GICH_EISR0`: list registers with an end of interrupt to report.
    #[inline]
    #[must_use]
    pub fn eisr(self) -> u64 {
        self.0.read_u32(hypervisor::EISR).into()
    }

    /// `GICH_ELRSR0`: empty list registers.
    #[inline]
    #[must_use]
    pub fn elrsr(self) -> u64 {
        self.0.read_u32(hypervisor::ELRSR).into()
    }
}
