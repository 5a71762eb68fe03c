//! What goes into the list registers.
//!
//! Answers for: which interrupts do, when there are more than list registers, and which maintenance interrupts are asked
//! for then. The rules are in the parent module. Does not answer for: taking them out again.

use crate::Vgic;
use crate::bank::{ENABLE_GROUP_0, ENABLE_GROUP_1, ENABLE_GROUPS};
use crate::best::{Best, Key};
use crate::private::{Interface, Private};
use crate::registers::{ListRegisters, hcr, vmcr};
use crate::shared::Shared;
use crate::word::{Ones, all_if, allot};
use core::sync::atomic::Ordering;
use types::VcpuId;

/// Free list registers, filled one after the other.
struct Filler<'a, R> {
    registers: &'a mut R,
    free: Ones,
}

impl<R: ListRegisters> Filler<'_, R> {
    /// The next free one holds `intid`, as `value` says. There is one.
    #[inline(always)]
    fn put(&mut self, interface: &mut Interface, intid: u32, value: u64) {
        if let Some(slot) = self.free.next() {
            self.registers.write(slot as usize, value);
            interface.occupy(slot, intid);
        }
    }
}

impl Vgic {
    /// The groups from which anything can be delivered to a vCPU.
    #[inline(always)]
    fn open_groups(&self, private: &Private) -> u32 {
        self.groups.load(Ordering::Relaxed) & !all_if(private.asleep)
    }

    /// Puts private interrupts that are pending in memory into free list registers; nothing else has changed. Returns
    /// `false`, having done nothing, if they do not fit or one that is in use would have to be changed.
    #[inline(always)]
    pub(super) fn place_private(&self, private: &mut Private, registers: &mut impl ListRegisters) -> bool {
        let waiting = private.bank.deliverable(self.open_groups(private));
        let free = !private.interface.used & self.all_list_registers;
        if private.bank.repeated() != 0 || allot(free, waiting).is_none() {
            return false;
        }
        let mut filler = Filler { registers, free: Ones(free) };
        for index in Ones(waiting) {
            let value = private.take_pending(index, private.physical_of(index));
            filler.put(&mut private.interface, index, value);
        }
        true
    }

    /// Puts everything that is pending or active in memory into free list registers. Returns `false`, having done nothing, if
    /// it does not fit or one that is in use would have to be changed.
    pub(super) fn place<R: ListRegisters>(
        &self,
        vcpu: VcpuId,
        private: &mut Private,
        shared: &mut Shared,
        registers: &mut R,
    ) -> bool {
        let groups = self.open_groups(private);
        let bank = &private.bank;
        let (waiting, stranded, repeated) = (bank.deliverable(groups), bank.stranded(), bank.repeated());
        if waiting | stranded | repeated == 0 && shared.is_quiet(vcpu) {
            return true;
        }
        let free = !private.interface.used & self.all_list_registers;
        if repeated != 0 {
            return false;
        }
        let Some(rest) = allot(free, waiting).and_then(|rest| allot(rest, stranded)) else { return false };
        let Some(last) = shared.allot(vcpu, groups, rest) else { return false };
        let mut filler = Filler { registers, free: Ones(free) };
        for index in Ones(waiting) {
            let value = private.take_pending(index, private.physical_of(index));
            filler.put(&mut private.interface, index, value);
        }
        for index in Ones(stranded) {
            let value = private.take_active(index, private.physical_of(index), groups, false);
            filler.put(&mut private.interface, index, value);
        }
        if last != rest {
            shared.take_all(vcpu, groups, |intid, value| filler.put(&mut private.interface, intid, value));
        }
        true
    }

    /// Fills the empty list registers from memory, and asks for the maintenance interrupts that the rest needs.
    pub(super) fn fill(
        &self,
        vcpu: VcpuId,
        private: &mut Private,
        shared: &mut Shared,
        registers: &mut impl ListRegisters,
    ) {
        let control = if self.place(vcpu, private, shared, registers) {
            hcr::EN
        } else {
            self.crowd(vcpu, private, shared, registers)
        };
        // The write also clears EOIcount, which has been taken account of.
        if control != hcr::EN || private.interface.control != hcr::EN {
            private.interface.control = control;
            registers.set_hcr(control);
        }
    }

    /// Fills the empty list registers with the most urgent of more than fit. Returns what `ICH_HCR_EL2` has to be.
    fn crowd(
        &self,
        vcpu: VcpuId,
        private: &mut Private,
        shared: &mut Shared,
        registers: &mut impl ListRegisters,
    ) -> u64 {
        let state = registers.vmcr();
        let groups = self.open_groups(private);
        let mut pending = Best::new(self.list_registers);
        let masked = disabled_groups(state);
        for index in Ones(private.bank.deliverable(groups)) {
            pending.push(Key::of(&private.bank, index, index, masked));
        }
        shared.collect_pending(vcpu, groups, masked, &mut pending);
        let mut active = Best::new(self.list_registers);
        for index in Ones(private.bank.stranded()) {
            active.push(Key::of(&private.bank, index, index, 0));
        }
        shared.collect_stranded(vcpu, &mut active);
        // Active ones come first, but for one place: their ends cost an exit each if they are left out.
        active.truncate(self.list_registers.saturating_sub(pending.len().min(1)));
        pending.truncate(self.list_registers.saturating_sub(active.len()));

        let mut filler = Filler { registers, free: Ones(self.all_list_registers) };
        for intid in pending.iter().map(Key::intid) {
            let value = match intid {
                0..32 => private.take_pending(intid, private.physical_of(intid)),
                _ => shared.take_pending(intid, vcpu),
            };
            filler.put(&mut private.interface, intid, value);
        }
        for intid in active.iter().map(Key::intid) {
            let value = match intid {
                0..32 => private.take_active(intid, private.physical_of(intid), groups, true),
                _ => shared.take_active(intid, vcpu, groups, true),
            };
            filler.put(&mut private.interface, intid, value);
        }
        overflow_control(&pending, &active, state)
    }
}

/// The groups that the guest has disabled in its CPU interface.
pub(crate) fn disabled_groups(state: u64) -> u32 {
    (ENABLE_GROUP_0 & !all_if(state & vmcr::VENG0 != 0)) | (ENABLE_GROUP_1 & !all_if(state & vmcr::VENG1 != 0))
}

/// `ICH_HCR_EL2` with the maintenance interrupts that are needed for what did not fit.
fn overflow_control(pending: &Best, active: &Best, state: u64) -> u64 {
    let mut control = hcr::EN;
    let left_over = pending.left_over();
    if left_over != 0 {
        // There is one that is pending, so this is not asserted already.
        control |= hcr::NPIE;
        if pending.iter().fold(left_over, |groups, key| groups | key.group()) == ENABLE_GROUPS {
            // An enable that changes may turn the order round.
            control |= if state & vmcr::VENG0 != 0 { hcr::VGRP0DIE } else { hcr::VGRP0EIE };
            control |= if state & vmcr::VENG1 != 0 { hcr::VGRP1DIE } else { hcr::VGRP1EIE };
        }
    }
    if active.left_over() != 0 {
        control |= hcr::LRENPIE;
        if state & vmcr::VEOIM != 0 {
            control |= hcr::TDIR;
        }
    }
    control
}
