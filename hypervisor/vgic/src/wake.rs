//! What ends a WFI.
//!
//! Answers for: whether a vCPU has an interrupt that its CPU interface would signal. Does not answer for: blocking it.
//!
//! Follows IHI 0069, "Interrupt prioritization" (priority masking, preemption, priority grouping), and DDI 0487, "Wait for
//! Interrupt": `PSTATE.I` and `PSTATE.F` do not count.

use crate::Vgic;
use crate::bank::{ENABLE_GROUP_0, ENABLE_GROUP_1};
use crate::best::{Best, Key};
use crate::interface::disabled_groups;
use crate::private::Private;
use crate::registers::{ListRegisters, lr, vmcr};
use crate::word::{Ones, all_if, low, low_byte};
use core::sync::atomic::Ordering;
use types::VcpuId;

/// Lower than every priority.
const IDLE: u32 = 0x100;

impl Vgic {
    /// Whether a vCPU that waits for an interrupt has one: enabled, pending, of an enabled group, above the priority mask
    /// and the running priority. `registers` are those of the calling CPU; they count only if the vCPU is loaded there.
    ///
    /// If it is loaded, call [`Vgic::refill`] first when [`Vgic::needs_refill`] says so: as long as it does, or an end of
    /// interrupt has not been looked at, the answer is yes. That wakes too often, never too late.
    ///
    /// A vCPU whose redistributor sleeps (`GICR_WAKER`) is woken by all that would be delivered if it did not: that is the
    /// wake request to its power controller.
    pub fn wants_attention(&self, vcpu: VcpuId, registers: &impl ListRegisters) -> bool {
        let Some(cell) = self.cells.get(vcpu.index()) else { return false };
        let private = cell.private.lock();
        let loaded = private.interface.loaded.then_some(registers);
        if loaded.is_some_and(|registers| registers.eoi_mask() != 0 || cell.attention.load(Ordering::Acquire) != 0) {
            return true;
        }
        let state = loaded.map_or(private.interface.vmcr, ListRegisters::vmcr);
        let disabled = if private.asleep { 0 } else { disabled_groups(state) };
        let first = [ENABLE_GROUP_0, ENABLE_GROUP_1]
            .into_iter()
            .filter(|group| disabled & group == 0)
            .filter_map(|group| self.most_urgent(vcpu, &private, loaded, group).map(|priority| (group, priority)));
        if private.asleep {
            return first.count() != 0;
        }
        let running = self.running_priority(&private, loaded);
        let mask = state.wrapping_shr(vmcr::VPMR_SHIFT) & 0xff;
        first
            .filter(|(_, priority)| u64::from(*priority) < mask)
            .any(|(group, priority)| u32::from(priority & preemption_mask(group, state)) < running)
    }

    /// The priority of the most urgent pending interrupt of `group`, in list registers and in memory.
    fn most_urgent<L: ListRegisters>(
        &self,
        vcpu: VcpuId,
        private: &Private,
        loaded: Option<&L>,
        group: u32,
    ) -> Option<u8> {
        let groups = self.groups.load(Ordering::Relaxed) & group;
        let mut first = Best::new(1);
        for index in Ones(private.bank.deliverable(groups)) {
            first.push(Key::of(&private.bank, index, index, 0));
        }
        self.shared.lock().collect_pending(vcpu, groups, 0, &mut first);
        let in_memory = first.iter().next().map(Key::priority);
        let Some(registers) = loaded else { return in_memory };
        let wanted = if group == ENABLE_GROUP_1 { lr::GROUP } else { 0 };
        let in_list = Ones(private.interface.used)
            .map(|slot| registers.read(slot as usize))
            .filter(|value| value & (lr::PENDING | lr::ACTIVE | lr::GROUP) == lr::PENDING | wanted)
            .map(|value| low_byte(value.wrapping_shr(lr::PRIORITY_SHIFT)))
            .min();
        in_memory.into_iter().chain(in_list).min()
    }

    /// `ICC_RPR_EL1` as the guest would read it, or [`IDLE`].
    fn running_priority<L: ListRegisters>(&self, private: &Private, loaded: Option<&L>) -> u32 {
        let saved = private.interface.active_priorities();
        for (index, saved) in saved.into_iter().enumerate().take(self.active_priorities) {
            let active = low(loaded.map_or(saved, |registers| registers.ap0r(index) | registers.ap1r(index)));
            if active != 0 {
                let level = u32::try_from(index).unwrap_or(0).wrapping_mul(32).wrapping_add(active.trailing_zeros());
                return level.wrapping_shl(self.preemption_shift);
            }
        }
        IDLE
    }
}

/// The bits of a priority that decide preemption in `group` (IHI 0069, ICC_BPR0_EL1, ICC_BPR1_EL1: for group 1 the
/// binary point is one further to the right, unless it shares the other's).
fn preemption_mask(group: u32, state: u64) -> u8 {
    let shared = state & vmcr::VCBPR != 0;
    let shift = if group == ENABLE_GROUP_0 || shared {
        (low(state.wrapping_shr(vmcr::VBPR0_SHIFT)) & 7).wrapping_add(1)
    } else {
        low(state.wrapping_shr(vmcr::VBPR1_SHIFT)) & 7
    };
    low_byte(u64::from(all_if(true)).wrapping_shl(shift))
}
