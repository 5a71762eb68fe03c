//! SPIs that are linked to the host's.
//!
//! Answers for: which of the host's stands behind which, and what of them the kernel has to deactivate because the hardware does not:
//! the guest made it inactive by a register of the distributor, or while it was in no list register. Does not answer for: the link in a
//! list register ([`crate::bank`]).

use super::{Shared, SharedBank, place};
use crate::signals::Signals;
use crate::word::{Ones, bit};

impl SharedBank {
    /// The host's INTID behind interrupt `index`, if it is linked.
    pub(super) fn physical_of(&self, index: u32) -> u16 {
        self.physical.get(index as usize).copied().unwrap_or(0)
    }

    /// [`Bank::take_pending`].
    pub(super) fn take_pending(&mut self, index: u32, intid: u32) -> u64 {
        self.bank.take_pending(index, intid, self.physical_of(index)) | self.report(index)
    }
}

impl Shared {
    /// The host's interrupts behind `bits` of bank `number` are to be deactivated: whoever is told of ends sees to it.
    pub(super) fn deactivate_physical(&mut self, number: usize, bits: u32, signals: &mut Signals<'_>) {
        if let Some(shared) = self.banks.get_mut(number).filter(|_| bits != 0) {
            shared.to_deactivate |= bits;
            self.any_ended.raise();
            if let Some(current) = signals.current {
                signals.kick.insert(current);
            }
        }
    }

    /// The host's interrupts that are to be deactivated since this was last asked.
    pub(crate) fn take_physical(&mut self, mut each: impl FnMut(u16)) {
        for shared in &mut self.banks {
            for index in Ones(core::mem::take(&mut shared.to_deactivate)) {
                each(shared.physical_of(index));
            }
        }
    }

    /// SPI `intid` becomes pending by the host's interrupt `physical`, which is active; see [`crate::Vgic::inject_hardware_shared`].
    pub(crate) fn inject_hardware(&mut self, intid: u32, physical: u16, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        let Some(shared) = self.banks.get_mut(number) else { return };
        if let Some(slot) = shared.physical.get_mut(index as usize) {
            *slot = physical;
        }
        shared.bank.hardware |= bit(index) & shared.implemented;
        self.pulse(intid, signals);
    }
}
