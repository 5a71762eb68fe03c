//! The machine's interrupt controller, of whichever architecture.
//!
//! Answers for: which it is, and what is done in another way for each. Does not answer for: the registers (`drivers`,
//! `el2::interface`), what interrupts are for (`interrupt`).

use crate::cpu::PerCpu;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use drivers::gicv2::{self, CpuInterface, HypervisorInterface};
use drivers::gicv3::{self, Redistributor};
use drivers::gicv3_its::Frame;
use drivers::{GicError, Mmio};
use el2::interface;
use machine::{Gic, Machine};
use spin::Once;
use types::{IntId, PAGE_SIZE, Pa, Range};
use vgic::Version;

/// Whether it is a GICv2. Asked on every interrupt and every switch: not more than a load and a branch.
static IS_V2: AtomicBool = AtomicBool::new(false);

/// Whether a list register can be linked to the host's interrupt that it stands for.
static LINKS: AtomicBool = AtomicBool::new(true);

/// The addresses of a GICv2's CPU interface; zeros if there is none. Asked for as often as [`IS_V2`].
static CPU_INTERFACE: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// The first page of what guests get for their CPU interface.
static GUESTS_INTERFACE: Once<Pa> = Once::new();

#[inline(always)]
pub(crate) fn is_v2() -> bool {
    IS_V2.load(Ordering::Relaxed)
}

/// Whether a list register can be linked to the host's interrupt: everywhere but in an emulator.
#[inline(always)]
pub(crate) fn links() -> bool {
    LINKS.load(Ordering::Relaxed)
}

pub(crate) fn version() -> Version {
    if is_v2() { Version::V2 } else { Version::V3 }
}

/// The CPU interface of a GICv2.
#[inline(always)]
pub(crate) fn cpu_interface() -> Option<CpuInterface> {
    let [distributor, registers, lists] = &CPU_INTERFACE;
    let [distributor, registers, lists] =
        [distributor.load(Ordering::Relaxed), registers.load(Ordering::Relaxed), lists.load(Ordering::Relaxed)];
    // SAFETY: they are not zero once `Distributor::new` has stored those of one, on the boot CPU, before any other runs.
    (lists != 0).then(|| unsafe { CpuInterface::at([distributor, registers, lists]) })
}

/// The part of it that is for guests, where nothing else is wanted.
#[inline(always)]
pub(crate) fn lists() -> Option<HypervisorInterface> {
    let [_, _, lists] = &CPU_INTERFACE;
    let lists = lists.load(Ordering::Relaxed);
    // SAFETY: as above.
    (lists != 0).then(|| unsafe { HypervisorInterface::at(lists) })
}

/// Where a guest's CPU interface is in a GICv2: one page.
pub(crate) fn guests_interface() -> Option<Pa> {
    GUESTS_INTERFACE.get().copied()
}

/// How many list registers there are, and priority bits.
pub(crate) fn list_registers() -> (usize, u8) {
    match cpu_interface() {
        Some(interface) => interface.lists.list_registers(),
        None => {
            let vtr = interface::vtr();
            ((vtr & 0x1f) as usize + 1, ((vtr >> 29) & 7) as u8 + 1)
        }
    }
}

/// The part for shared interrupts.
pub(crate) enum Distributor {
    V2(gicv2::Distributor),
    V3(gicv3::Distributor),
}

impl Distributor {
    /// Brings it up. The registers are mapped.
    ///
    /// # Errors
    /// If it does not answer as it should, or its windows are too small.
    pub(crate) fn new(gic: &Gic) -> Result<Self, GicError> {
        match gic {
            Gic::V2 { distributor, cpu_interface, hypervisor_interface, virtual_cpu_interface, .. } => {
                let guests = virtual_cpu_interface;
                if guests.length() < 2 * PAGE_SIZE || !guests.start().is_aligned(PAGE_SIZE) {
                    return Err(GicError::TooSmall);
                }
                // SAFETY: what the device tree says of a GICv2, mapped by the caller.
                let interface = unsafe { CpuInterface::new(distributor, cpu_interface, hypervisor_interface) };
                let interface = interface.ok_or(GicError::TooSmall)?;
                for (slot, address) in CPU_INTERFACE.iter().zip(interface.addresses()) {
                    slot.store(address, Ordering::Relaxed);
                }
                GUESTS_INTERFACE.call_once(|| guests.start());
                LINKS.store(!interface.forgets_levels(), Ordering::Relaxed);
                IS_V2.store(true, Ordering::Relaxed);
                // SAFETY: as above, and this is its only driver.
                gicv2::Distributor::new(unsafe { Mmio::of(distributor) }).map(Self::V2)
            }
            Gic::V3 { .. } if el2::cpu::processor_features() >> 24 & 0xf == 0 => Err(GicError::NoSystemRegisters),
            Gic::V3 { distributor, .. } => {
                // SAFETY: the window is a GICv3 distributor by the device tree, mapped by the caller, and this is its only
                // driver.
                gicv3::Distributor::new(unsafe { Mmio::of(distributor) }).map(Self::V3)
            }
        }
    }

    /// How many LPIs there are.
    pub(crate) fn lpis(&self) -> u32 {
        match self {
            Self::V2(_) => 0,
            Self::V3(distributor) => distributor.lpis(),
        }
    }

    /// Lets an SPI come to a CPU.
    pub(crate) fn enable(&mut self, intid: IntId, cpu: &PerCpu) {
        match self {
            Self::V2(distributor) => distributor.enable(intid, cpu.interface.load(Ordering::Relaxed)),
            Self::V3(distributor) => distributor.enable(intid, cpu.mpidr),
        }
    }

    /// Makes a disabled SPI edge-triggered, or level-sensitive.
    pub(crate) fn configure(&mut self, intid: IntId, edge: bool) {
        match self {
            Self::V2(distributor) => distributor.configure(intid, edge),
            Self::V3(distributor) => distributor.configure(intid, edge),
        }
    }

    /// Makes an SPI inactive.
    pub(crate) fn deactivate(&mut self, intid: IntId) {
        match self {
            Self::V2(distributor) => distributor.deactivate(intid),
            Self::V3(distributor) => distributor.deactivate(intid),
        }
    }

    /// Forgets that an SPI is pending.
    pub(crate) fn forget(&mut self, intid: IntId) {
        match self {
            Self::V2(distributor) => distributor.forget(intid),
            Self::V3(distributor) => distributor.forget(intid),
        }
    }

    /// # Errors
    /// As the drivers'.
    pub(crate) fn disable(&mut self, intid: IntId) -> Result<(), GicError> {
        match self {
            Self::V2(distributor) => distributor.disable(intid),
            Self::V3(distributor) => distributor.disable(intid),
        }
    }
}

/// A CPU's part, for its private interrupts.
pub(crate) enum Private {
    V2(gicv2::Banked),
    V3(Redistributor),
}

impl Private {
    /// Brings the calling CPU's part up, but for its CPU interface.
    ///
    /// # Errors
    /// If there is none, or it does not answer as it should.
    pub(crate) fn new(machine: &Machine, cpu: &PerCpu) -> Result<Self, GicError> {
        match &machine.gic {
            Gic::V2 { distributor, .. } => {
                // SAFETY: as in `Distributor::new`.
                let registers = unsafe { Mmio::of(distributor) };
                // SAFETY: each CPU calls this once for itself.
                let banked = unsafe { gicv2::Banked::new(registers) };
                cpu.interface.store(banked.mask(), Ordering::Relaxed);
                Ok(Self::V2(banked))
            }
            Gic::V3 { redistributors, stride, .. } => {
                first_of(redistributors, |window| Redistributor::find(cpu.mpidr, *stride, window)).map(Self::V3)
            }
        }
    }

    pub(crate) fn enable(&mut self, intid: IntId) {
        match self {
            Self::V2(banked) => banked.enable(intid),
            Self::V3(redistributor) => redistributor.enable(intid),
        }
    }

    /// Sets or clears the active state of a private interrupt.
    pub(crate) fn set_active(&mut self, intid: IntId, active: bool) {
        match self {
            Self::V2(banked) => banked.set_active(intid, active),
            Self::V3(redistributor) => redistributor.set_active(intid, active),
        }
    }

    /// # Errors
    /// As the drivers'.
    pub(crate) fn disable(&mut self, intid: IntId) -> Result<(), GicError> {
        match self {
            Self::V2(banked) => banked.disable(intid),
            Self::V3(redistributor) => redistributor.disable(intid),
        }
    }
}

/// What is found in the first region of redistributors that has it.
fn first_of<T>(
    regions: &[Range<Pa>],
    mut find: impl FnMut(&mut dyn FnMut(u64) -> Option<Mmio>) -> Result<T, GicError>,
) -> Result<T, GicError> {
    let mut found = Err(GicError::NoRedistributor);
    for region in regions {
        found = find(&mut |offset| {
            let frame = region.start().checked_add(offset)?;
            // SAFETY: two frames of a redistributor region of the device tree, mapped by the boot CPU; each CPU keeps the one with
            // its own affinity, but for the registers that LPIs have.
            (offset + 0x2_0000 <= region.length()).then(|| unsafe { Mmio::new(frame, 0x2_0000) })
        });
        if !matches!(found, Err(GicError::NoRedistributor)) {
            break;
        }
    }
    found
}

/// A CPU's registers for LPIs, and where its redistributor is. It has come up ([`Private::new`]).
///
/// # Errors
/// If there are none.
pub(crate) fn lpis_of(machine: &Machine, cpu: &PerCpu) -> Result<(Frame, Pa), GicError> {
    match &machine.gic {
        Gic::V2 { .. } => Err(GicError::NoRedistributor),
        Gic::V3 { redistributors, stride, .. } => {
            first_of(redistributors, |window| Redistributor::lpis(cpu.mpidr, *stride, window))
        }
    }
}

/// Turns the calling CPU's interface on.
pub(crate) fn initialise_interface() {
    match cpu_interface() {
        Some(interface) => interface.initialise(),
        None => interface::physical::initialise(),
    }
}

/// The interrupt that would be taken now, or a special number if there is none.
pub(crate) fn highest_pending() -> u32 {
    match cpu_interface() {
        Some(interface) => interface.highest_pending(),
        None => interface::physical::highest_pending(),
    }
}

/// Every page of its registers that the drivers touch.
pub(crate) fn windows(machine: &Machine) -> impl Iterator<Item = Range<Pa>> {
    let windows = match &machine.gic {
        Gic::V2 { distributor, cpu_interface, hypervisor_interface, .. } => {
            alloc::vec![*distributor, *cpu_interface, *hypervisor_interface]
        }
        Gic::V3 { distributor, redistributors, .. } => {
            let mut windows = alloc::vec![*distributor];
            windows.extend(redistributors);
            windows
        }
    };
    windows.into_iter()
}
