//! The physical GICv3: distributor and redistributors (IHI 0069). The CPU interface is system registers: `el2::interface`.
//!
//! One security state as seen from EL2: all our interrupts are in group 1. Affinity routing is on.

use crate::gicv3_its::Frame;
use crate::{GicError, Mmio};
use types::{AccessSize, IntId, Mpidr, Pa};

mod distributor {
    pub(super) const CTLR: usize = 0x0000;
    pub(super) const TYPER: usize = 0x0004;
    pub(super) const IGROUPR: usize = 0x0080;
    pub(super) const ISENABLER: usize = 0x0100;
    pub(super) const ICENABLER: usize = 0x0180;
    pub(super) const ICPENDR: usize = 0x0280;
    pub(super) const ICACTIVER: usize = 0x0380;
    pub(super) const IPRIORITYR: usize = 0x0400;
    pub(super) const ICFGR: usize = 0x0c00;
    pub(super) const IROUTER: usize = 0x6000;
    pub(super) const PIDR2: usize = 0xffe8;

    pub(super) const TYPER_LPIS: u32 = 1 << 17;
    pub(super) const CTLR_RWP: u32 = 1 << 31;
    pub(super) const CTLR_ARE: u32 = 1 << 4;
    pub(super) const CTLR_ENABLE_GROUP1: u32 = 1 << 1;
}

mod redistributor {
    pub(super) const CTLR: usize = 0x0000;
    pub(super) const TYPER: usize = 0x0008;
    pub(super) const WAKER: usize = 0x0014;
    /// The second 64 KiB frame: SGIs and PPIs.
    pub(super) const SGI: usize = 0x1_0000;
    pub(super) const IGROUPR0: usize = SGI + 0x0080;
    pub(super) const ISENABLER0: usize = SGI + 0x0100;
    pub(super) const ICENABLER0: usize = SGI + 0x0180;
    pub(super) const ICPENDR0: usize = SGI + 0x0280;
    pub(super) const ISACTIVER0: usize = SGI + 0x0300;
    pub(super) const ICACTIVER0: usize = SGI + 0x0380;
    pub(super) const IPRIORITYR: usize = SGI + 0x0400;

    pub(super) const CTLR_ENABLE_LPIS: u32 = 1 << 0;
    pub(super) const CTLR_RWP: u32 = 1 << 3;
    pub(super) const TYPER_VLPIS: u64 = 1 << 1;
    pub(super) const TYPER_LAST: u64 = 1 << 4;
    pub(super) const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
    pub(super) const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
}

/// Every interrupt of ours has this priority: the host needs no order, it takes all at once.
const PRIORITY: u32 = 0xa0a0_a0a0;

/// How long a register write may take to be seen, in polls.
const PATIENCE: u32 = 1_000_000;

/// The distributor: shared interrupts.
#[derive(Debug)]
pub struct Distributor {
    registers: Mmio,
    intids: u32,
}

impl Distributor {
    /// Brings the distributor into a known state: every SPI disabled, inactive, not pending, in group 1.
    ///
    /// # Errors
    /// If this is not a GICv3, or it does not answer in time.
    pub fn new(registers: Mmio) -> Result<Self, GicError> {
        if !matches!((registers.read_u32(distributor::PIDR2) >> 4) & 0xf, 3 | 4) {
            return Err(GicError::NotGicv3);
        }
        let lines = (registers.read_u32(distributor::TYPER) & 0x1f) + 1;
        let this = Self { registers, intids: (lines * 32).min(IntId::END_SPI) };
        registers.write_u32(distributor::CTLR, 0);
        this.settle()?;
        for word in 1..lines as usize {
            registers.write_u32(distributor::ICENABLER + 4 * word, u32::MAX);
            registers.write_u32(distributor::ICPENDR + 4 * word, u32::MAX);
            registers.write_u32(distributor::ICACTIVER + 4 * word, u32::MAX);
            registers.write_u32(distributor::IGROUPR + 4 * word, u32::MAX);
            for quarter in 0..8 {
                registers.write_u32(distributor::IPRIORITYR + 32 * word + 4 * quarter, PRIORITY);
            }
        }
        this.settle()?;
        registers.write_u32(distributor::CTLR, distributor::CTLR_ARE | distributor::CTLR_ENABLE_GROUP1);
        this.settle()?;
        Ok(this)
    }

    /// Number of INTIDs below the special ones that exist.
    #[must_use]
    pub fn intids(&self) -> u32 {
        self.intids
    }

    /// Number of LPIs that exist, which are 8192 and those behind it.
    #[must_use]
    pub fn lpis(&self) -> u32 {
        let typer = self.registers.read_u32(distributor::TYPER);
        // `IDbits` and `num_LPIs`, both minus one; the latter counts if it is not 0.
        let (bits, number) = (typer >> 19 & 0x1f, typer >> 11 & 0x1f);
        let all = 1_u32.checked_shl(bits + 1).unwrap_or(u32::MAX).saturating_sub(8192);
        match (typer & distributor::TYPER_LPIS, number) {
            (0, _) => 0,
            (_, 0) => all,
            (_, number) => all.min(1_u32.checked_shl(number + 1).unwrap_or(u32::MAX)),
        }
    }

    /// Routes an SPI to a CPU and enables it. Anything but an implemented SPI is ignored.
    pub fn enable(&mut self, intid: IntId, target: Mpidr) {
        if intid.is_spi() && intid.0 < self.intids {
            let n = intid.0 as usize;
            self.registers.write_u64(distributor::IROUTER + 8 * n, target.0);
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

    /// Disables an SPI: it does not come any more when this returns.
    ///
    /// # Errors
    /// If it is not an implemented SPI, or the distributor does not answer in time.
    pub fn disable(&mut self, intid: IntId) -> Result<(), GicError> {
        if !intid.is_spi() || intid.0 >= self.intids {
            return Err(GicError::NoSuchInterrupt);
        }
        let n = intid.0 as usize;
        self.registers.write_u32(distributor::ICENABLER + 4 * (n / 32), 1 << (n % 32));
        self.settle()
    }

    fn settle(&self) -> Result<(), GicError> {
        let is_done = || self.registers.read_u32(distributor::CTLR) & distributor::CTLR_RWP == 0;
        if (0..PATIENCE).any(|_| is_done()) { Ok(()) } else { Err(GicError::DoesNotSettle) }
    }
}

/// One CPU's redistributor: its private interrupts.
#[derive(Debug)]
pub struct Redistributor {
    registers: Mmio,
}

impl Redistributor {
    /// Finds the redistributor of the CPU with this affinity in one region of them, wakes it, and brings the private
    /// interrupts into a known state: all disabled, inactive, not pending, in group 1. `window(offset)` is the frame pair
    /// at that offset of the region; `None` behind its end.
    ///
    /// # Errors
    /// If there is none, or it does not wake or answer in time.
    pub fn find(
        affinity: Mpidr,
        stride: Option<u64>,
        window: impl FnMut(u64) -> Option<Mmio>,
    ) -> Result<Self, GicError> {
        Self::initialise(Self::locate(affinity, stride, window)?)
    }

    /// The same one's registers for LPIs, and where it is. It has been found before.
    ///
    /// # Errors
    /// If there is none.
    pub fn lpis(
        affinity: Mpidr,
        stride: Option<u64>,
        window: impl FnMut(u64) -> Option<Mmio>,
    ) -> Result<(Frame, Pa), GicError> {
        let registers = Self::locate(affinity, stride, window)?;
        Ok((Frame(registers), registers.start()))
    }

    fn locate(
        affinity: Mpidr,
        stride: Option<u64>,
        mut window: impl FnMut(u64) -> Option<Mmio>,
    ) -> Result<Mmio, GicError> {
        let wanted = (affinity.0 >> 32) << 24 | affinity.0 & 0xff_ffff;
        let mut offset = 0;
        while let Some(registers) = window(offset) {
            // What does not answer is not that of the CPU whose affinity is 0.
            let Some(typer) = registers.load(redistributor::TYPER, AccessSize::Doubleword) else { break };
            if typer >> 32 == wanted {
                return Ok(registers);
            }
            if typer & redistributor::TYPER_LAST != 0 {
                break;
            }
            // GICv4 has two more frames for virtual LPIs.
            offset += stride.unwrap_or(if typer & redistributor::TYPER_VLPIS != 0 { 0x4_0000 } else { 0x2_0000 });
        }
        Err(GicError::NoRedistributor)
    }

    fn initialise(registers: Mmio) -> Result<Self, GicError> {
        let waker = registers.read_u32(redistributor::WAKER);
        registers.write_u32(redistributor::WAKER, waker & !redistributor::WAKER_PROCESSOR_SLEEP);
        let awake = || registers.read_u32(redistributor::WAKER) & redistributor::WAKER_CHILDREN_ASLEEP == 0;
        if !(0..PATIENCE).any(|_| awake()) {
            return Err(GicError::DoesNotWake);
        }
        let this = Self { registers };
        // Message-based interrupts that a boot loader has left on come to nobody, and their tables are in RAM that is ours.
        let control = registers.read_u32(redistributor::CTLR);
        if control & redistributor::CTLR_ENABLE_LPIS != 0 {
            registers.write_u32(redistributor::CTLR, control & !redistributor::CTLR_ENABLE_LPIS);
            this.settle()?;
            if registers.read_u32(redistributor::CTLR) & redistributor::CTLR_ENABLE_LPIS != 0 {
                log::warn!("GICR_CTLR.EnableLPIs cannot be cleared: the boot loader's LPI tables stay in use");
            }
        }
        registers.write_u32(redistributor::ICENABLER0, u32::MAX);
        registers.write_u32(redistributor::ICPENDR0, u32::MAX);
        registers.write_u32(redistributor::ICACTIVER0, u32::MAX);
        registers.write_u32(redistributor::IGROUPR0, u32::MAX);
        for word in 0..8 {
            registers.write_u32(redistributor::IPRIORITYR + 4 * word, PRIORITY);
        }
        this.settle()?;
        Ok(this)
    }

    /// Enables a private interrupt.
    pub fn enable(&mut self, intid: IntId) {
        if intid.is_private() {
            self.registers.write_u32(redistributor::ISENABLER0, 1 << intid.0);
        }
    }

    /// Sets or clears the active state of a private interrupt: that of a guest's timer moves with its vCPU.
    pub fn set_active(&mut self, intid: IntId, active: bool) {
        if intid.is_private() {
            let register = if active { redistributor::ISACTIVER0 } else { redistributor::ICACTIVER0 };
            self.registers.write_u32(register, 1 << intid.0);
            // Read back, and wait for the answer: the change has taken effect before the guest's timer may fire.
            let _ = self.registers.read_u32(register);
            self.registers.complete();
        }
    }

    /// Disables a private interrupt: it does not come any more when this returns.
    ///
    /// # Errors
    /// If it is not a private interrupt, or the redistributor does not answer in time.
    pub fn disable(&mut self, intid: IntId) -> Result<(), GicError> {
        if !intid.is_private() {
            return Err(GicError::NoSuchInterrupt);
        }
        self.registers.write_u32(redistributor::ICENABLER0, 1 << intid.0);
        self.settle()
    }

    fn settle(&self) -> Result<(), GicError> {
        let is_done = || self.registers.read_u32(redistributor::CTLR) & redistributor::CTLR_RWP == 0;
        if (0..PATIENCE).any(|_| is_done()) { Ok(()) } else { Err(GicError::DoesNotSettle) }
    }
}
