//! The hypervisor's side of this CPU's virtual interface, of whichever architecture.
//!
//! Answers for: reaching it in system registers or in memory, chosen once for each thing that is done with many of them. Does not
//! answer for: what is in the registers (`vgic`).

use crate::{controller, cpu};
use drivers::gicv2::HypervisorInterface;
use el2::interface;
use types::{IntId, VcpuId, VcpuSet};
use vgic::{ListRegisters, Saved, Vgic};

/// That of a GICv3.
pub(crate) struct SystemRegisters;

impl ListRegisters for SystemRegisters {
    #[inline(always)]
    fn read(&self, index: usize) -> u64 {
        interface::list_register(index)
    }
    #[inline(always)]
    fn write(&mut self, index: usize, value: u64) {
        interface::set_list_register(index, value);
    }
    #[inline(always)]
    fn empty_mask(&self) -> u64 {
        interface::elrsr()
    }
    #[inline(always)]
    fn eoi_mask(&self) -> u64 {
        interface::eisr()
    }
    #[inline(always)]
    fn hcr(&self) -> u64 {
        interface::hcr()
    }
    #[inline(always)]
    fn set_hcr(&mut self, value: u64) {
        interface::set_hcr(value);
    }
    #[inline(always)]
    fn vmcr(&self) -> u64 {
        interface::vmcr()
    }
    #[inline(always)]
    fn set_vmcr(&mut self, value: u64) {
        interface::set_vmcr(value);
    }
    #[inline(always)]
    fn ap0r(&self, index: usize) -> u64 {
        interface::active_priorities_0(index)
    }
    #[inline(always)]
    fn set_ap0r(&mut self, index: usize, value: u64) {
        interface::set_active_priorities_0(index, value);
    }
    #[inline(always)]
    fn ap1r(&self, index: usize) -> u64 {
        interface::active_priorities_1(index)
    }
    #[inline(always)]
    fn set_ap1r(&mut self, index: usize, value: u64) {
        interface::set_active_priorities_1(index, value);
    }
    #[inline(always)]
    fn deactivate(&mut self, physical: IntId) {
        interface::physical::deactivate(physical.0);
    }
}

/// That of a GICv2. It has one set of active priorities for both groups.
#[derive(Clone, Copy)]
pub(crate) struct InMemory(HypervisorInterface);

impl InMemory {
    /// In place of a hardware-linked interrupt one that reports its end, which then is the physical one's, too: see
    /// [`drivers::gicv2::CpuInterface::forgets_levels`].
    #[cold]
    fn write_unlinked(&mut self, index: usize, value: u64) {
        let Some(slot) = cpu::this().unlinked.get(index) else { return self.0.set_list_register(index, value) };
        let before = slot.take();
        // Neither pending nor active: the guest has ended it.
        let has_ended = before.is_some() && self.0.list_register(index) >> 62 == 0;
        slot.set(self.0.set_unlinked(index, value));
        if let (Some(physical), true) = (before, has_ended) {
            self.deactivate(physical);
        }
    }
}

impl ListRegisters for InMemory {
    #[inline(always)]
    fn read(&self, index: usize) -> u64 {
        self.0.list_register(index)
    }
    #[inline(always)]
    fn write(&mut self, index: usize, value: u64) {
        if controller::links() || !is_unlinked(index, value) {
            self.0.set_list_register(index, value);
        } else {
            self.write_unlinked(index, value);
        }
    }
    #[inline(always)]
    fn empty_mask(&self) -> u64 {
        self.0.elrsr()
    }
    #[inline(always)]
    fn eoi_mask(&self) -> u64 {
        self.0.eisr()
    }
    #[inline(always)]
    fn hcr(&self) -> u64 {
        self.0.hcr()
    }
    #[inline(always)]
    fn set_hcr(&mut self, value: u64) {
        self.0.set_hcr(value);
    }
    #[inline(always)]
    fn vmcr(&self) -> u64 {
        self.0.vmcr()
    }
    #[inline(always)]
    fn set_vmcr(&mut self, value: u64) {
        self.0.set_vmcr(value);
    }
    #[inline(always)]
    fn ap0r(&self, index: usize) -> u64 {
        if index == 0 { self.0.active_priorities() } else { 0 }
    }
    #[inline(always)]
    fn set_ap0r(&mut self, index: usize, value: u64) {
        if index == 0 {
            self.0.set_active_priorities(value);
        }
    }
    #[inline(always)]
    fn ap1r(&self, _: usize) -> u64 {
        0
    }
    #[inline(always)]
    fn set_ap1r(&mut self, _: usize, _: u64) {}
    #[inline(always)]
    fn deactivate(&mut self, physical: IntId) {
        let Some(interface) = controller::cpu_interface() else { return };
        if physical.is_spi() {
            // The vCPU may have been elsewhere when it came.
            interface.deactivate_shared(physical);
        } else {
            interface.deactivate(physical.0);
        }
    }
}

/// Whether a list register stands for a host's interrupt, or is to.
#[inline(always)]
fn is_unlinked(index: usize, value: u64) -> bool {
    value & drivers::gicv2::LINKED != 0 || cpu::this().unlinked.get(index).is_some_and(|slot| slot.get().is_some())
}

/// The one that there is, where it does not matter what choosing costs.
pub(crate) enum Interface {
    V2(InMemory),
    V3(SystemRegisters),
}

impl Interface {
    pub(crate) fn here() -> Self {
        in_memory().map_or(Self::V3(SystemRegisters), Self::V2)
    }
}

impl ListRegisters for Interface {
    fn read(&self, index: usize) -> u64 {
        match self {
            Self::V2(registers) => registers.read(index),
            Self::V3(registers) => registers.read(index),
        }
    }
    fn write(&mut self, index: usize, value: u64) {
        match self {
            Self::V2(registers) => registers.write(index, value),
            Self::V3(registers) => registers.write(index, value),
        }
    }
    fn empty_mask(&self) -> u64 {
        match self {
            Self::V2(registers) => registers.empty_mask(),
            Self::V3(registers) => registers.empty_mask(),
        }
    }
    fn eoi_mask(&self) -> u64 {
        match self {
            Self::V2(registers) => registers.eoi_mask(),
            Self::V3(registers) => registers.eoi_mask(),
        }
    }
    fn hcr(&self) -> u64 {
        match self {
            Self::V2(registers) => registers.hcr(),
            Self::V3(registers) => registers.hcr(),
        }
    }
    fn set_hcr(&mut self, value: u64) {
        match self {
            Self::V2(registers) => registers.set_hcr(value),
            Self::V3(registers) => registers.set_hcr(value),
        }
    }
    fn vmcr(&self) -> u64 {
        match self {
            Self::V2(registers) => registers.vmcr(),
            Self::V3(registers) => registers.vmcr(),
        }
    }
    fn set_vmcr(&mut self, value: u64) {
        match self {
            Self::V2(registers) => registers.set_vmcr(value),
            Self::V3(registers) => registers.set_vmcr(value),
        }
    }
    fn ap0r(&self, index: usize) -> u64 {
        match self {
            Self::V2(registers) => registers.ap0r(index),
            Self::V3(registers) => registers.ap0r(index),
        }
    }
    fn set_ap0r(&mut self, index: usize, value: u64) {
        match self {
            Self::V2(registers) => registers.set_ap0r(index, value),
            Self::V3(registers) => registers.set_ap0r(index, value),
        }
    }
    fn ap1r(&self, index: usize) -> u64 {
        match self {
            Self::V2(registers) => registers.ap1r(index),
            Self::V3(registers) => registers.ap1r(index),
        }
    }
    fn set_ap1r(&mut self, index: usize, value: u64) {
        match self {
            Self::V2(registers) => registers.set_ap1r(index, value),
            Self::V3(registers) => registers.set_ap1r(index, value),
        }
    }
    fn deactivate(&mut self, physical: IntId) {
        match self {
            Self::V2(registers) => registers.deactivate(physical),
            Self::V3(registers) => registers.deactivate(physical),
        }
    }
}

#[inline(always)]
fn in_memory() -> Option<InMemory> {
    controller::lists().map(InMemory)
}

/// [`Vgic::load`]; `is_v2` is [`controller::is_v2`].
#[inline(always)]
pub(super) fn load(gic: &Vgic, vcpu: VcpuId, is_v2: bool) {
    #[inline(never)]
    #[unsafe(link_section = ".text.exits")]
    fn load_v2(gic: &Vgic, vcpu: VcpuId) {
        if let Some(mut registers) = in_memory() {
            gic.load(vcpu, &mut registers);
        }
    }
    if is_v2 {
        return load_v2(gic, vcpu);
    }
    gic.load(vcpu, &mut SystemRegisters);
}

/// [`Vgic::save`]; likewise.
#[inline(always)]
pub(super) fn save(gic: &Vgic, vcpu: VcpuId, is_v2: bool) -> Saved {
    #[inline(never)]
    #[unsafe(link_section = ".text.exits")]
    fn save_v2(gic: &Vgic, vcpu: VcpuId) -> Saved {
        in_memory().map_or_else(Saved::default, |mut registers| gic.save(vcpu, &mut registers))
    }
    if is_v2 {
        return save_v2(gic, vcpu);
    }
    gic.save(vcpu, &mut SystemRegisters)
}

/// [`Vgic::refill`].
#[inline(always)]
pub(super) fn refill(gic: &Vgic, vcpu: VcpuId) -> VcpuSet {
    #[inline(never)]
    #[unsafe(link_section = ".text.exits")]
    fn refill_v2(gic: &Vgic, vcpu: VcpuId) -> VcpuSet {
        in_memory().map_or(VcpuSet::EMPTY, |mut registers| gic.refill(vcpu, &mut registers))
    }
    if controller::is_v2() {
        return refill_v2(gic, vcpu);
    }
    gic.refill(vcpu, &mut SystemRegisters)
}

/// Switches the interface off, with nothing in its list registers.
pub(super) fn clear() {
    let mut registers = Interface::here();
    registers.set_hcr(0);
    (0..controller::list_registers().0).for_each(|index| registers.write(index, 0));
}
