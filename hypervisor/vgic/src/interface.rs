//! Filling and folding list registers.
//!
//! Answers for: which interrupts are in the list registers of a loaded vCPU, what happens when there are more than list
//! registers, and which maintenance interrupts are asked for then. Does not answer for: the states themselves (`bank`).
//!
//! Follows IHI 0069, "Interrupt virtualization" and "Maintenance interrupts". What holds whenever a vCPU is entered:
//!
//! 1. If anything can be delivered, the most urgent of it is in a list register; list registers never hold something less
//!    urgent than what waits in memory. So the guest always takes the right one, with a single list register too.
//! 2. If something pending is left in memory, `NPIE` reports when the last pending one in the list registers has been
//!    acknowledged. (An underflow interrupt would come too late: with all list registers but one active it would let the
//!    more urgent ones in memory wait for their ends.)
//! 3. Active interrupts that do not fit are the least urgent ones. Their ends come after those of all others, and are
//!    counted in `EOIcount`, which `LRENPIE` reports: so the count names the most urgent active one in memory. A guest that
//!    separates priority drop from deactivation ends them in any order: then writes of `ICC_DIR_EL1` trap ([`Vgic::deactivate`]).
//! 4. If what is left belongs to another group than what went in, a change of the group enables is reported as well.
//! 5. A level-sensitive interrupt is marked for a maintenance interrupt at its end as long as its line is high, so that it
//!    is taken again; a line that goes low meanwhile withdraws the mark, and the guest's end of interrupt costs no exit.

use crate::Vgic;
use crate::bank::{Bank, ENABLE_GROUP_0, ENABLE_GROUP_1, Folded};
use crate::best::{Best, Key};
use crate::private::Private;
use crate::registers::{ListRegisters, hcr, lr, vmcr};
use crate::shared::Shared;
use crate::signals::{Cell, RESYNC, SHARED, SYNC, Signals};
use crate::word::{Ones, all_if, bit, low};
use core::sync::atomic::Ordering;
use types::{IntId, VcpuId, VcpuSet};

impl Vgic {
    /// The vCPU is switched in on the calling CPU, whose list registers hold nothing.
    ///
    /// The virtual interface is on from here to [`Vgic::save`].
    pub fn load(&self, vcpu: VcpuId, registers: &mut impl ListRegisters) {
        let Some(cell) = self.cells.get(vcpu.index()) else { return };
        cell.attention.swap(0, Ordering::Acquire);
        let mut private = cell.private.lock();
        private.on = true;
        self.take_part(vcpu, &private);
        private.interface.loaded = true;
        private.interface.restore(registers, self.active_priorities);
        // The kernel has given the host's interrupts their state back as they are now.
        private.to_deactivate = 0;
        let mut shared = self.shared.lock();
        self.fill(vcpu, &mut private, &mut shared, registers, true);
    }

    /// The vCPU is switched out of the calling CPU: everything goes back to memory, the virtual interface is off. Returns
    /// the vCPUs that now have something to take.
    pub fn save(&self, vcpu: VcpuId, registers: &mut impl ListRegisters) -> VcpuSet {
        let Some(cell) = self.cells.get(vcpu.index()) else { return VcpuSet::EMPTY };
        let mut private = cell.private.lock();
        if !private.interface.loaded {
            return VcpuSet::EMPTY;
        }
        let mut signals = self.signals(Some(vcpu));
        if private.interface.used_shared != 0 || private.interface.control != hcr::EN {
            let mut shared = self.shared.lock();
            self.unload(vcpu, &mut private, Some(&mut shared), registers, &mut signals);
        } else {
            self.unload(vcpu, &mut private, None, registers, &mut signals);
        }
        private.interface.save(registers, self.active_priorities);
        private.interface.loaded = false;
        private.interface.control = 0;
        registers.set_hcr(0);
        signals.kick
    }

    /// Whether something has changed since the last [`Vgic::refill`] that list registers have to show: ask before each
    /// entry. One load.
    #[inline]
    #[must_use]
    pub fn needs_refill(&self, vcpu: VcpuId) -> bool {
        self.cells.get(vcpu.index()).is_some_and(|cell| cell.attention.load(Ordering::Relaxed) != 0)
    }

    /// Makes the list registers of the calling CPU, on which the vCPU is loaded, show what they should. Returns the other
    /// vCPUs that now have something to take (an SPI that was routed elsewhere while it was active).
    pub fn refill(&self, vcpu: VcpuId, registers: &mut impl ListRegisters) -> VcpuSet {
        let Some(cell) = self.cells.get(vcpu.index()) else { return VcpuSet::EMPTY };
        let flags = cell.attention.swap(0, Ordering::Acquire);
        let mut private = cell.private.lock();
        let private = &mut *private;
        if !private.interface.loaded {
            return VcpuSet::EMPTY;
        }
        let overflow = private.interface.control != hcr::EN;
        if flags & (RESYNC | SYNC) == 0 && !overflow {
            let finished = finished(private, registers);
            if flags & SHARED == 0 && finished & private.interface.used_shared == 0 {
                private.release(finished);
                private.interface.vacate(finished);
                if self.add_private(private, registers) {
                    return VcpuSet::EMPTY;
                }
            } else {
                let mut signals = self.signals(Some(vcpu));
                let mut shared = self.shared.lock();
                release(private, &mut shared, finished, &mut signals);
                if !self.add(vcpu, private, &mut shared, registers) {
                    self.rewrite(vcpu, private, &mut shared, registers, &mut signals);
                }
                return signals.kick;
            }
        }
        let mut signals = self.signals(Some(vcpu));
        let mut shared = self.shared.lock();
        self.rewrite(vcpu, private, &mut shared, registers, &mut signals);
        signals.kick
    }

    /// The maintenance interrupt came in on the calling CPU, on which the vCPU is loaded. Afterwards it is not asserted
    /// any more. Returns what [`Vgic::refill`] does.
    pub fn maintenance(&self, vcpu: VcpuId, registers: &mut impl ListRegisters) -> VcpuSet {
        self.refill(vcpu, registers)
    }

    /// A trapped write of `ICC_DIR_EL1` by the loaded vCPU (IHI 0069, ICC_DIR_EL1). Traps only while more interrupts are
    /// active than there are list registers.
    pub fn deactivate(&self, vcpu: VcpuId, intid: IntId, registers: &mut impl ListRegisters) -> VcpuSet {
        let Some(cell) = self.cells.get(vcpu.index()) else { return VcpuSet::EMPTY };
        cell.attention.swap(0, Ordering::Acquire);
        let mut private = cell.private.lock();
        let private = &mut *private;
        if !private.interface.loaded {
            return VcpuSet::EMPTY;
        }
        let mut signals = self.signals(Some(vcpu));
        let mut shared = self.shared.lock();
        self.unload(vcpu, private, Some(&mut shared), registers, &mut signals);
        end(private, &mut shared, intid.0, &mut signals);
        private.deactivate_physical(registers);
        self.fill(vcpu, private, &mut shared, registers, false);
        signals.kick
    }

    /// Brings the copies in memory up to date with the list registers of the loaded vCPU.
    pub(crate) fn synchronise(&self, cell: &Cell, registers: &impl ListRegisters) {
        let mut private = cell.private.lock();
        if !private.interface.loaded || private.interface.used == 0 {
            return;
        }
        let private = &mut *private;
        let mut shared = None;
        for slot in Ones(private.interface.used) {
            let value = registers.read(slot as usize);
            let intid = private.interface.intid(slot);
            if intid < 32 {
                private.bank.synchronise(bit(intid), value);
            } else {
                shared.get_or_insert_with(|| self.shared.lock()).synchronise(intid, value);
            }
        }
    }

    /// A private interrupt of the vCPU, hardware-linked and not acknowledged by the guest yet, is not asserted by its
    /// source any more (a timer that was set anew while its interrupt was masked): takes it back, and deactivates the
    /// host's. Returns whether there was one. The vCPU is loaded on the calling CPU.
    pub fn retract_hardware(&self, vcpu: VcpuId, virtual_: IntId, registers: &mut impl ListRegisters) -> bool {
        let Some(cell) = self.cells.get(vcpu.index()) else { return false };
        let mut private = cell.private.lock();
        let private = &mut *private;
        let bit = bit(virtual_.0);
        if !virtual_.is_private() || (private.bank.hardware | private.bank.linked) & bit == 0 {
            return false;
        }
        if private.bank.linked & bit != 0 {
            let Some(slot) = Ones(private.interface.used).find(|slot| private.interface.intid(*slot) == virtual_.0)
            else {
                return false;
            };
            let value = registers.read(slot as usize);
            if value & lr::ACTIVE != 0 || value & lr::PENDING == 0 {
                return false;
            }
            registers.write(slot as usize, 0);
            private.interface.vacate(crate::word::bit(slot));
            private.bank.fold(bit, value);
            if private.interface.control != hcr::EN {
                // The list register is free for what was left over.
                cell.attend(RESYNC);
            }
        } else if private.bank.active & bit != 0 {
            return false;
        }
        private.bank.hardware &= !bit;
        private.bank.latch &= !bit;
        registers.deactivate(IntId(u32::from(private.physical_of(virtual_.0))));
        true
    }

    /// Adds waiting private interrupts to the free list registers. Returns `false`, having added nothing, if that is not
    /// enough to make them right.
    #[inline]
    fn add_private(&self, private: &mut Private, registers: &mut impl ListRegisters) -> bool {
        if private.bank.repeated() != 0 {
            return false;
        }
        let groups = self.groups.load(Ordering::Relaxed);
        let waiting = private.bank.deliverable(groups) & !all_if(private.asleep);
        let free = !private.interface.used & self.all_list_registers;
        if waiting.count_ones() > free.count_ones() {
            return false;
        }
        for (index, slot) in Ones(waiting).zip(Ones(free)) {
            let physical = private.physical_of(index);
            let value = private.bank.take_pending(index, index, physical);
            registers.write(slot as usize, value);
            private.interface.occupy(slot, index);
        }
        true
    }

    /// The same with shared ones.
    fn add(
        &self,
        vcpu: VcpuId,
        private: &mut Private,
        shared: &mut Shared,
        registers: &mut impl ListRegisters,
    ) -> bool {
        if private.bank.repeated() != 0 {
            return false;
        }
        let free = !private.interface.used & self.all_list_registers;
        let mut best = Best::new(free.count_ones() as usize);
        if self.collect(vcpu, private, shared, &mut best, 0) || best.left_over() != 0 {
            return false;
        }
        for (key, slot) in best.iter().zip(Ones(free)) {
            put_pending(vcpu, private, shared, key.intid(), slot, registers);
        }
        true
    }

    /// Collects what can be delivered; `masked` are groups that the guest has disabled in its CPU interface. Returns
    /// whether a list register holds what has become pending once more.
    fn collect(&self, vcpu: VcpuId, private: &Private, shared: &mut Shared, best: &mut Best, masked: u32) -> bool {
        let groups = self.groups.load(Ordering::Relaxed) & !all_if(private.asleep);
        for index in Ones(private.bank.deliverable(groups)) {
            best.push(key(&private.bank, index, index, masked));
        }
        shared.collect_pending(vcpu, groups, |bank, index, intid| key(bank, index, intid, masked), best)
    }

    /// Writes all list registers anew.
    fn rewrite(
        &self,
        vcpu: VcpuId,
        private: &mut Private,
        shared: &mut Shared,
        registers: &mut impl ListRegisters,
        signals: &mut Signals<'_>,
    ) {
        self.unload(vcpu, private, Some(shared), registers, signals);
        self.fill(vcpu, private, shared, registers, false);
    }

    /// Empties all list registers into memory. `shared` may be left out if nothing shared is in them, and nothing that
    /// is active is left in memory.
    fn unload(
        &self,
        vcpu: VcpuId,
        private: &mut Private,
        mut shared: Option<&mut Shared>,
        registers: &mut impl ListRegisters,
        signals: &mut Signals<'_>,
    ) {
        if private.interface.control & hcr::LRENPIE != 0
            && let Some(shared) = shared.as_deref_mut()
        {
            end_counted(vcpu, private, shared, registers.hcr(), signals);
        }
        for slot in Ones(private.interface.used) {
            let value = registers.read(slot as usize);
            registers.write(slot as usize, 0);
            let intid = private.interface.intid(slot);
            if intid < 32 {
                if private.bank.fold(bit(intid), value) == Folded::DeactivatePhysical {
                    private.to_deactivate |= bit(intid);
                }
            } else if let Some(shared) = shared.as_deref_mut() {
                shared.fold(intid, value, signals);
            }
        }
        private.interface.vacate(u32::MAX);
        private.deactivate_physical(registers);
    }

    /// Fills the empty list registers from memory, and asks for the maintenance interrupts that the rest needs.
    fn fill(
        &self,
        vcpu: VcpuId,
        private: &mut Private,
        shared: &mut Shared,
        registers: &mut impl ListRegisters,
        fresh: bool,
    ) {
        let mut pending = Best::new(self.list_registers);
        self.collect(vcpu, private, shared, &mut pending, 0);
        let mut active = Best::new(self.list_registers);
        for index in Ones(private.bank.stranded()) {
            active.push(key(&private.bank, index, index, 0));
        }
        shared.collect_stranded(vcpu, |bank, index, intid| key(bank, index, intid, 0), &mut active);

        let mut control = hcr::EN;
        let wanted = pending.len().saturating_add(active.len());
        if wanted > self.list_registers || (pending.left_over() | active.left_over()) != 0 {
            let state = registers.vmcr();
            pending = Best::new(self.list_registers);
            self.collect(vcpu, private, shared, &mut pending, disabled_groups(state));
            // Active ones come first, but for one place: their ends cost an exit each if they are left out.
            active.truncate(self.list_registers.saturating_sub(pending.len().min(1)));
            pending.truncate(self.list_registers.saturating_sub(active.len()));
            control |= overflow_control(&pending, &active, state);
        }
        for (key, slot) in pending.iter().zip(0..) {
            put_pending(vcpu, private, shared, key.intid(), slot, registers);
        }
        for (key, slot) in active.iter().zip(u32::try_from(pending.len()).unwrap_or(0)..) {
            put_active(vcpu, private, shared, key.intid(), slot, registers);
        }
        // The write also clears EOIcount, which has been taken account of.
        if fresh || control != hcr::EN || private.interface.control != hcr::EN {
            private.interface.control = control;
            registers.set_hcr(control);
        }
    }
}

/// What orders interrupt `index` of `bank`.
#[inline]
fn key(bank: &Bank, index: u32, intid: u32, masked: u32) -> Key {
    let group = bank.group.wrapping_shr(index) & 1;
    let group_bit = if group == 0 { ENABLE_GROUP_0 } else { ENABLE_GROUP_1 };
    Key::new(masked & group_bit != 0, bank.priority_of(index), intid, group)
}

/// The groups that the guest has disabled in its CPU interface.
pub(crate) fn disabled_groups(state: u64) -> u32 {
    (ENABLE_GROUP_0 & !all_if(state & vmcr::VENG0 != 0)) | (ENABLE_GROUP_1 & !all_if(state & vmcr::VENG1 != 0))
}

/// Which maintenance interrupts are needed for what did not fit.
fn overflow_control(pending: &Best, active: &Best, state: u64) -> u64 {
    let mut control = 0;
    let left_over = pending.left_over();
    if left_over != 0 {
        // There is one that is pending, so this is not asserted already.
        control |= hcr::NPIE;
        // An enable that changes may turn the order round.
        let of_group_0 = if state & vmcr::VENG0 != 0 { hcr::VGRP0DIE } else { hcr::VGRP0EIE };
        let of_group_1 = if state & vmcr::VENG1 != 0 { hcr::VGRP1DIE } else { hcr::VGRP1EIE };
        let all = pending.iter().fold(left_over, |groups, key| groups | key.group());
        if all == ENABLE_GROUP_0 | ENABLE_GROUP_1 {
            control |= of_group_0 | of_group_1;
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

/// The list registers in use that the guest has finished with. Those that report their end are cleared.
#[inline]
fn finished(private: &Private, registers: &mut impl ListRegisters) -> u32 {
    let used = private.interface.used;
    if used == 0 {
        return 0;
    }
    let reported = used & low(registers.eoi_mask());
    for slot in Ones(reported) {
        registers.write(slot as usize, 0);
    }
    reported | (used & low(registers.empty_mask()))
}

/// List registers `finished` hold nothing any more.
fn release(private: &mut Private, shared: &mut Shared, finished: u32, signals: &mut Signals<'_>) {
    private.release(finished & !private.interface.used_shared);
    for slot in Ones(finished & private.interface.used_shared) {
        shared.release(private.interface.intid(slot), signals);
    }
    private.interface.vacate(finished);
}

/// Ends interrupt `intid`, which is active in memory.
fn end(private: &mut Private, shared: &mut Shared, intid: u32, signals: &mut Signals<'_>) {
    if intid < 32 {
        let change = private.bank.write(crate::bank::BitRegister::ClearActive, bit(intid));
        private.to_deactivate |= change.physical;
    } else {
        shared.deactivate(intid, signals);
    }
}

/// Ends as many of the active interrupts in memory as `EOIcount` of `control` says, the most urgent first.
fn end_counted(vcpu: VcpuId, private: &mut Private, shared: &mut Shared, control: u64, signals: &mut Signals<'_>) {
    let count = control.wrapping_shr(hcr::EOICOUNT_SHIFT) & hcr::EOICOUNT_MASK;
    for _ in 0..count {
        let mut first = Best::new(1);
        for index in Ones(private.bank.stranded()) {
            first.push(key(&private.bank, index, index, 0));
        }
        shared.collect_stranded(vcpu, |bank, index, intid| key(bank, index, intid, 0), &mut first);
        let Some(key) = first.iter().next() else { return };
        end(private, shared, key.intid(), signals);
    }
}

/// Puts pending interrupt `intid` into list register `slot`.
fn put_pending(
    vcpu: VcpuId,
    private: &mut Private,
    shared: &mut Shared,
    intid: u32,
    slot: u32,
    registers: &mut impl ListRegisters,
) {
    let value = if intid < 32 {
        let physical = private.physical_of(intid);
        private.bank.take_pending(intid, intid, physical)
    } else {
        shared.take_pending(intid, vcpu)
    };
    registers.write(slot as usize, value);
    private.interface.occupy(slot, intid);
}

/// Puts active interrupt `intid` into list register `slot`.
fn put_active(
    vcpu: VcpuId,
    private: &mut Private,
    shared: &mut Shared,
    intid: u32,
    slot: u32,
    registers: &mut impl ListRegisters,
) {
    let value = if intid < 32 {
        let physical = private.physical_of(intid);
        private.bank.take_active(intid, intid, physical)
    } else {
        shared.take_active(intid, vcpu)
    };
    registers.write(slot as usize, value);
    private.interface.occupy(slot, intid);
}
