//! The inputs of the interrupt controller: lines, messages, and interrupts of the host.
//!
//! Answers for: what a line that rises or falls does, and which messages are for it. Does not answer for: who drives it.

use crate::Vgic;
use crate::signals::PRIVATE;
use crate::word::bit;
use core::sync::atomic::Ordering;
use types::{IntId, Ipa, RequesterId, VcpuId, VcpuSet};

/// The first PPI: SGIs have no line.
const FIRST_PPI: u32 = 16;

impl vdev::InterruptController for Vgic {
    fn set_level(&self, intid: IntId, asserted: bool) -> VcpuSet {
        if !intid.is_spi() {
            return VcpuSet::EMPTY;
        }
        let mut shared = self.shared.lock();
        let mut signals = self.signals(None);
        shared.set_line(intid.0, asserted, &mut signals);
        signals.kick
    }

    fn set_private_level(&self, vcpu: VcpuId, intid: IntId, asserted: bool) -> VcpuSet {
        let Some(cell) = self.cells.get(vcpu.index()) else { return VcpuSet::EMPTY };
        if !intid.is_private() || intid.0 < FIRST_PPI {
            return VcpuSet::EMPTY;
        }
        let mut private = cell.private.lock();
        let change = private.bank.set_line(bit(intid.0), asserted);
        let flags = private.attention(change, self.groups.load(Ordering::Relaxed));
        drop(private);
        cell.notify(vcpu, flags)
    }

    fn message(&self, from: Option<RequesterId>, address: Ipa, data: u32) -> VcpuSet {
        self.translate(from, address, data).unwrap_or_else(|| self.take_message(address, data))
    }
}

impl Vgic {
    /// The same for an SPI of the VM, whichever vCPU takes it, and the host's SPI `physical`. Where the guest makes it inactive without
    /// the hardware, the host's is among those of [`Vgic::take_physical`]. Returns the vCPUs to kick.
    ///
    /// Anything but two SPIs is ignored.
    pub fn inject_hardware_shared(&self, virtual_: IntId, physical: IntId) -> VcpuSet {
        let (true, true, Ok(physical)) = (virtual_.is_spi(), physical.is_spi(), u16::try_from(physical.0)) else {
            return VcpuSet::EMPTY;
        };
        let mut shared = self.shared.lock();
        let mut signals = self.signals(None);
        shared.inject_hardware(virtual_.0, physical, &mut signals);
        signals.kick
    }

    /// The SPI `virtual_` becomes pending once: an edge.
    pub fn inject_edge(&self, virtual_: IntId) -> VcpuSet {
        let mut shared = self.shared.lock();
        let mut signals = self.signals(None);
        shared.pulse(virtual_.0, &mut signals);
        signals.kick
    }

    /// The host's interrupt `physical`, active on the CPU on which the vCPU is loaded (its priority dropped, not
    /// deactivated), is the vCPU's private interrupt `virtual_`: it becomes pending, and when the guest ends it the hardware
    /// ends the host's with it (`ICH_LR<n>_EL2.HW`). Returns whether the vCPU needs a refill.
    ///
    /// `virtual_` is a PPI, `physical` below 1020; anything else is ignored.
    pub fn inject_hardware(&self, vcpu: VcpuId, virtual_: IntId, physical: IntId) -> bool {
        let Some(cell) = self.cells.get(vcpu.index()) else { return false };
        let (true, FIRST_PPI.., Ok(physical @ 0..1020)) =
            (virtual_.is_private(), virtual_.0, u16::try_from(physical.0))
        else {
            return false;
        };
        let mut private = cell.private.lock();
        if let Some(slot) = private.physical.get_mut(virtual_.0 as usize) {
            *slot = physical;
        }
        private.bank.latch |= bit(virtual_.0);
        private.bank.hardware |= bit(virtual_.0);
        cell.attend(PRIVATE);
        true
    }
}
