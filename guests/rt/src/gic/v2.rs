//! What a GICv2 has in another way (IHI 0048): no redistributors, targets in place of routers, a CPU interface in memory.
//!
//! Answers for: that. All interrupts stay in group 0, which is the only one of a system without Security Extensions.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::{
    DEFAULT_PRIORITY, GICD_CTLR, GICD_ICACTIVER, GICD_ICENABLER, GICD_ICPENDR, GICD_ISENABLER, Gic, SgiTarget,
};
use crate::machine::MAX_CPUS;
use crate::mmio::{Mmio, Width};
use crate::registers::{affinity, cpu, dsb};

const GICD_ITARGETSR: usize = 0x800;
const GICD_SGIR: usize = 0xf00;
const GICD_CPENDSGIR: usize = 0xf10;
const GICD_SPENDSGIR: usize = 0xf20;

const GICC_CTLR: usize = 0x0000;
const GICC_PMR: usize = 0x0004;
const GICC_BPR: usize = 0x0008;
const GICC_IAR: usize = 0x000c;
const GICC_EOIR: usize = 0x0010;
const GICC_RPR: usize = 0x0014;
const GICC_HPPIR: usize = 0x0018;
const GICC_DIR: usize = 0x1000;

/// `GICC_CTLR`: priority drop and deactivation are separate.
const EOI_MODE: u32 = 1 << 9;
/// Where a sender is in what is acknowledged and ended.
const SENDER_SHIFT: u32 = 10;

/// Its address; zero if there is none. And that of the distributor.
static INTERFACE: AtomicUsize = AtomicUsize::new(0);
static DISTRIBUTOR: AtomicUsize = AtomicUsize::new(0);

/// Who has sent the SGIs that a CPU has acknowledged.
static SENDERS: [[AtomicU8; 16]; MAX_CPUS] = [const { [const { AtomicU8::new(0) }; 16] }; MAX_CPUS];

pub(super) fn find(interface: u64, distributor: u64) {
    DISTRIBUTOR.store(distributor as usize, Ordering::Relaxed);
    INTERFACE.store(interface as usize, Ordering::Relaxed);
}

/// Whether the controller is one.
#[inline(always)]
pub(super) fn is_there() -> bool {
    INTERFACE.load(Ordering::Relaxed) != 0
}

/// The CPU interface, if the controller is one.
#[inline(always)]
pub(super) fn interface() -> Option<Interface> {
    let address = INTERFACE.load(Ordering::Relaxed);
    // SAFETY: the tree says that it is there; all that is not RAM is mapped as device memory.
    (address != 0).then(|| Interface(unsafe { Mmio::new(address) }))
}

/// On; every SPI off, to CPU 0.
pub(super) fn start_distributor(gic: Gic) {
    let registers = gic.distributor;
    registers.write(GICD_CTLR, 0);
    for word in 1..gic.words() {
        registers.write(GICD_ICENABLER + 4 * word, !0);
        registers.write(GICD_ICPENDR + 4 * word, !0);
        registers.write(GICD_ICACTIVER + 4 * word, !0);
    }
    for intid in 32..gic.intids() {
        gic.set_priority(intid, DEFAULT_PRIORITY);
        route(gic, intid, affinity());
    }
    registers.write(GICD_CTLR, 1);
}

/// This CPU's private interrupts off but for SGIs; its interface open for all priorities.
pub(super) fn start_cpu(gic: Gic) {
    let registers = gic.distributor;
    registers.write(GICD_ICENABLER, 0xffff_0000);
    registers.write(GICD_ICPENDR, !0);
    registers.write(GICD_ICACTIVER, !0);
    for intid in 0..32 {
        gic.set_priority(intid, DEFAULT_PRIORITY);
    }
    registers.write(GICD_ISENABLER, 0x0000_ffff);
    if let Some(Interface(registers)) = interface() {
        registers.write(GICC_PMR, 0xff);
        registers.write(GICC_BPR, 0);
        registers.write(GICC_CTLR, 1);
    }
    dsb();
}

/// The bit of the CPU with this affinity; of all CPUs for [`super::ANY`].
fn mask(affinity: u64) -> u64 {
    if affinity == super::ANY { 0xff } else { 1 << (affinity & 7) }
}

/// Makes an SGI pending here as if we had sent it, or takes that back.
pub(super) fn set_pending(gic: Gic, sgi: u32, pending: bool) {
    let register = if pending { GICD_SPENDSGIR } else { GICD_CPENDSGIR };
    gic.distributor.write_width(register + sgi as usize, Width::Byte, mask(affinity()));
}

/// Who sent the SGI that this CPU has acknowledged last.
pub(super) fn sender(sgi: u32) -> Option<u8> {
    SENDERS[cpu()].get(sgi as usize).map(|sender| sender.load(Ordering::Relaxed))
}

pub(super) fn route(gic: Gic, intid: u32, affinity: u64) {
    gic.distributor.write_width(GICD_ITARGETSR + intid as usize, Width::Byte, mask(affinity));
}

/// The CPU interface.
pub(super) struct Interface(Mmio);

impl Interface {
    #[inline(always)]
    pub(super) fn acknowledge(self) -> Option<u32> {
        let acknowledged = self.0.read(GICC_IAR);
        dsb();
        let intid = acknowledged & 0x3ff;
        if let Some(sender) = SENDERS[cpu()].get(intid as usize) {
            sender.store((acknowledged >> SENDER_SHIFT & 7) as u8, Ordering::Relaxed);
        }
        (intid < 1020).then_some(intid)
    }

    fn with_sender(intid: u32) -> u32 {
        let sender = SENDERS[cpu()].get(intid as usize).map_or(0, |sender| sender.load(Ordering::Relaxed));
        u32::from(sender) << SENDER_SHIFT | intid
    }

    #[inline(always)]
    pub(super) fn end(self, intid: u32) {
        self.0.write(GICC_EOIR, Self::with_sender(intid));
    }

    pub(super) fn deactivate(self, intid: u32) {
        self.0.write(GICC_DIR, Self::with_sender(intid));
    }

    pub(super) fn set_priority_mask(self, mask: u8) {
        self.0.write(GICC_PMR, mask.into());
        dsb();
    }

    pub(super) fn priority_mask(self) -> u8 {
        self.0.read(GICC_PMR) as u8
    }

    /// There is one group: its binary point is a bit less than that of the second of two.
    pub(super) fn set_binary_point(self, value: u8) {
        self.0.write(GICC_BPR, value.saturating_sub(1).into());
        dsb();
    }

    pub(super) fn binary_point(self) -> u8 {
        self.0.read(GICC_BPR) as u8 + 1
    }

    pub(super) fn set_enabled(self, enabled: bool) {
        self.0.write(GICC_CTLR, enabled.into());
        dsb();
    }

    pub(super) fn set_split_end(self, split: bool) {
        self.0.write(GICC_CTLR, 1 | if split { EOI_MODE } else { 0 });
        dsb();
    }

    pub(super) fn running_priority(self) -> u8 {
        self.0.read(GICC_RPR) as u8
    }

    pub(super) fn highest_pending(self) -> u32 {
        self.0.read(GICC_HPPIR) & 0x3ff
    }

    #[inline(always)]
    pub(super) fn send_sgi(self, sgi: u32, target: SgiTarget) {
        dsb();
        // SAFETY: the tree says that a distributor is there.
        let distributor = unsafe { Mmio::new(DISTRIBUTOR.load(Ordering::Relaxed)) };
        let targets = match target {
            SgiTarget::One(affinity) => (mask(affinity) as u32) << 16,
            SgiTarget::Others => 1 << 24,
        };
        distributor.write(GICD_SGIR, targets | sgi & 15);
    }
}
