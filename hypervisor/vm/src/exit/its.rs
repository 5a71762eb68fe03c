//! Accesses to the ITS, and to the redistributors' registers for LPIs.
//!
//! Answers for: what is done about what they come to: vCPUs to kick, work that is left, commands that could not be done. Does not
//! answer for: the registers (`vgic`), finding out that an access is one of these (`mmio`).

use crate::partition::Vm;
use types::{AccessSize, VcpuSet};
use vdev::Effects;
use vgic::Progress;

impl Vm {
    /// Does a piece of what its interrupt controller has left to do. Says whether there is more.
    pub fn go_on(&self, effects: &mut Effects) -> bool {
        let progress = self.gic.go_on(self.memory());
        self.heed(progress, effects)
    }

    /// Says whether there is more to do.
    fn heed(&self, progress: Progress, effects: &mut Effects) -> bool {
        effects.kick(progress.kick);
        if let Some(refused) = progress.refused {
            log::warn!(target: self.origin(), "{refused}");
        }
        progress.more
    }
}

/// An access to the ITS: a store of `store`, or a load. Returns what is loaded.
#[cold]
#[inline(never)]
pub(super) fn access(vm: &Vm, offset: u64, size: AccessSize, store: Option<u64>, effects: &mut Effects) -> u64 {
    let Some(value) = store else { return vm.gic.read_its(offset, size) };
    let progress = vm.gic.write_its(offset, size, value, vm.memory());
    if vm.heed(progress, effects) {
        effects.later();
    }
    0
}

/// A store to a redistributor of a GICv3. Returns whom to kick.
pub(super) fn redistributor_store(
    vm: &Vm,
    offset: u64,
    size: AccessSize,
    value: u64,
    effects: &mut Effects,
) -> VcpuSet {
    match vm.gic.write_lpi_register(offset, size, value, vm.memory()) {
        None => vm.gic.write_redistributor(offset, size, value),
        Some(progress) => {
            if vm.heed(progress, effects) {
                effects.later();
            }
            VcpuSet::EMPTY
        }
    }
}
