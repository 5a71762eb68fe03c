//! Filling and folding list registers.
//!
//! Answers for: when the list registers of a loaded vCPU are written, and for taking interrupts out of them. Does not
//! answer for: which go in (`placement`), or the states themselves (`bank`).
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

mod placement;

pub(crate) use placement::disabled_groups;

use crate::Vgic;
use crate::bank::{BitRegister, Folded};
use crate::best::{Best, Key};
use crate::private::Private;
use crate::registers::{ListRegisters, hcr, lr};
use crate::shared::{FIRST_LPI, Shared};
use crate::signals::{Cell, RESYNC, SHARED, SYNC, Signals};
use crate::word::{Ones, bit, low};
use core::sync::atomic::Ordering;
use types::{IntId, VcpuId, VcpuSet};

/// What is left of a vCPU's interface when it has been switched out.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Saved {
    /// The vCPUs that now have something to take.
    pub kick: VcpuSet,
    hardware: u32,
}

impl Saved {
    /// Whether the host's interrupt behind private interrupt `intid` is still active on the guest's behalf: injected, and
    /// not ended. For the kernel, which has to keep the host's state with a vCPU that moves.
    #[inline]
    #[must_use]
    pub fn is_in_flight(self, intid: IntId) -> bool {
        intid.is_private() && self.hardware & bit(intid.0) != 0
    }

    /// Whether any interrupt of the host is.
    #[inline]
    #[must_use]
    pub fn is_any_in_flight(self) -> bool {
        self.hardware != 0
    }
}

impl Vgic {
    /// The vCPU is switched in on the calling CPU, whose list registers hold nothing.
    ///
    /// The virtual interface is on from here to [`Vgic::save`].
    // The usual case calls nothing, so that whoever inlines this has no registers to save for it.
    #[inline(always)]
    pub fn load(&self, vcpu: VcpuId, registers: &mut impl ListRegisters) {
        let Some(cell) = self.cells.get(vcpu.index()) else { return };
        if cell.attention.load(Ordering::Relaxed) == 0
            && let Some(mut private) = cell.private.try_lock()
            && private.interface.undisturbed
        {
            private.interface.loaded = true;
            private.interface.restore(registers);
            private.interface.switch_on(registers);
            return;
        }
        self.load_anew(vcpu, cell, registers);
    }

    /// The same if something has happened to the vCPU since it was loaded last.
    #[inline(never)]
    fn load_anew(&self, vcpu: VcpuId, cell: &Cell, registers: &mut impl ListRegisters) {
        cell.attention.swap(0, Ordering::Acquire);
        let mut private = cell.private.lock();
        private.on = true;
        self.take_part(vcpu, &private);
        private.interface.loaded = true;
        private.interface.restore(registers);
        private.interface.restore_others(registers, self.active_priorities);
        // The kernel has given the host's interrupts their state back as they are now.
        private.to_deactivate = 0;
        let mut shared = self.shared.lock();
        if private.bank.is_quiet() && shared.is_quiet(vcpu) {
            private.interface.undisturbed = self.active_priorities == 1;
            private.interface.switch_on(registers);
        } else {
            private.interface.undisturbed = false;
            private.interface.control = 0;
            self.fill(vcpu, &mut private, &mut shared, registers);
        }
    }

    /// The vCPU is switched out of the calling CPU: everything goes back to memory, the virtual interface is off.
    #[inline(always)]
    pub fn save(&self, vcpu: VcpuId, registers: &mut impl ListRegisters) -> Saved {
        let Some(cell) = self.cells.get(vcpu.index()) else { return Saved::default() };
        if let Some(mut private) = cell.private.try_lock()
            && private.interface.undisturbed
            && private.interface.loaded
        {
            // Nothing is in the list registers, and nothing was asked of them.
            private.interface.save(registers);
            private.interface.loaded = false;
            registers.set_hcr(0);
            return Saved { kick: VcpuSet::EMPTY, hardware: private.bank.hardware };
        }
        self.save_all(vcpu, cell, registers)
    }

    /// The same if something has happened to the vCPU since it was loaded.
    #[inline(never)]
    fn save_all(&self, vcpu: VcpuId, cell: &Cell, registers: &mut impl ListRegisters) -> Saved {
        let mut saved = Saved { kick: VcpuSet::EMPTY, hardware: 0 };
        let mut private = cell.private.lock();
        let private = &mut *private;
        if private.interface.loaded {
            let is_plain = private.interface.control == hcr::EN;
            if private.interface.used != 0 || private.to_deactivate != 0 || !is_plain {
                saved.kick = self.empty(vcpu, private, registers);
            }
            private.interface.save(registers);
            private.interface.save_others(registers, self.active_priorities);
            private.interface.loaded = false;
            private.interface.control = 0;
            registers.set_hcr(0);
        }
        saved.hardware = private.bank.hardware | private.bank.linked;
        saved
    }

    /// The rest of [`Vgic::save`] when there is something in the list registers. Returns the vCPUs to kick.
    #[inline(never)]
    fn empty(&self, vcpu: VcpuId, private: &mut Private, registers: &mut impl ListRegisters) -> VcpuSet {
        let mut signals = self.signals(Some(vcpu));
        if private.interface.used_shared != 0 || private.interface.control != hcr::EN {
            let mut shared = self.shared.lock();
            self.unload(vcpu, private, Some(&mut shared), registers, &mut signals);
        } else {
            self.unload(vcpu, private, None, registers, &mut signals);
        }
        signals.kick
    }

    /// Whether something has changed since the last [`Vgic::refill`] that list registers have to show: ask before each
    /// entry. One load.
    #[inline]
    #[must_use]
    pub fn needs_refill(&self, vcpu: VcpuId) -> bool {
        self.cells.get(vcpu.index()).is_some_and(|cell| cell.attention.load(Ordering::Relaxed) != 0)
    }

    /// Makes the list registers of the calling CPU, on which the vCPU is loaded, show what they should: before an entry, and when
    /// the maintenance interrupt has come, which is not asserted any more afterwards. Returns the other vCPUs that now have
    /// something to take (an SPI that was routed elsewhere while it was active).
    #[inline(always)]
    pub fn refill(&self, vcpu: VcpuId, registers: &mut impl ListRegisters) -> VcpuSet {
        let Some(cell) = self.cells.get(vcpu.index()) else { return VcpuSet::EMPTY };
        let flags = cell.attention.swap(0, Ordering::Acquire);
        let mut private = cell.private.lock();
        let private = &mut *private;
        private.interface.undisturbed = false;
        if !private.interface.loaded {
            return VcpuSet::EMPTY;
        }
        if flags & (RESYNC | SYNC) != 0 || private.interface.control != hcr::EN {
            return self.rewrite(vcpu, private, registers);
        }
        // The usual case, an SGI or a timer: nothing that is in use changes, and there is room.
        let finished = finished(private, registers);
        if flags & SHARED != 0 || finished & private.interface.used_shared != 0 {
            return self.add_shared(vcpu, private, finished, registers);
        }
        private.release(finished);
        private.interface.vacate(finished);
        if self.place_private(private, registers) {
            return VcpuSet::EMPTY;
        }
        self.rewrite(vcpu, private, registers)
    }

    /// The rest of [`Vgic::refill`] when SPIs are involved.
    #[inline(never)]
    fn add_shared(
        &self,
        vcpu: VcpuId,
        private: &mut Private,
        finished: u32,
        registers: &mut impl ListRegisters,
    ) -> VcpuSet {
        let mut signals = self.signals(Some(vcpu));
        let mut shared = self.shared.lock();
        release(private, &mut shared, finished, &mut signals);
        if shared.has_lpis_for(vcpu) {
            release_lpis(private, &mut shared, registers, &mut signals);
        }
        if !self.place(vcpu, private, &mut shared, registers) {
            self.unload(vcpu, private, Some(&mut shared), registers, &mut signals);
            self.fill(vcpu, private, &mut shared, registers);
        }
        signals.kick
    }

    /// Writes all list registers anew.
    #[inline(never)]
    fn rewrite(&self, vcpu: VcpuId, private: &mut Private, registers: &mut impl ListRegisters) -> VcpuSet {
        let mut signals = self.signals(Some(vcpu));
        let mut shared = self.shared.lock();
        self.unload(vcpu, private, Some(&mut shared), registers, &mut signals);
        self.fill(vcpu, private, &mut shared, registers);
        signals.kick
    }

    /// A trapped write of `ICC_DIR_EL1` by the loaded vCPU (IHI 0069, ICC_DIR_EL1). Traps only while more interrupts are
    /// active than there are list registers.
    pub fn deactivate(&self, vcpu: VcpuId, intid: IntId, registers: &mut impl ListRegisters) -> VcpuSet {
        let Some(cell) = self.cells.get(vcpu.index()) else { return VcpuSet::EMPTY };
        cell.attention.swap(0, Ordering::Acquire);
        let mut private = cell.private.lock();
        let private = &mut *private;
        private.interface.undisturbed = false;
        if !private.interface.loaded {
            return VcpuSet::EMPTY;
        }
        let mut signals = self.signals(Some(vcpu));
        let mut shared = self.shared.lock();
        self.unload(vcpu, private, Some(&mut shared), registers, &mut signals);
        end(private, &mut shared, intid.0, &mut signals);
        private.deactivate_physical(registers);
        self.fill(vcpu, private, &mut shared, registers);
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

    /// Empties all list registers into memory. `shared` may be left out if nothing shared is in them, and nothing that
    /// is active is left in memory.
    #[inline(never)]
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
                if private.fold(intid, value) == Folded::DeactivatePhysical {
                    private.to_deactivate |= bit(intid);
                }
            } else if let Some(shared) = shared.as_deref_mut() {
                shared.fold(intid, value, signals);
            }
        }
        private.interface.vacate(u32::MAX);
        private.deactivate_physical(registers);
    }
}

/// The list registers in use that the guest has finished with. Those that report their end are cleared.
#[inline(always)]
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

/// LPIs in list registers may have become pending once more. To those that the guest has acknowledged that means something, and
/// not to the others.
// SPEC: an LPI has no active state, so the list register of one that was acknowledged holds nothing. QEMU 10 makes it active, until
// its end; without it that end drops the priority and does nothing else, as it should.
#[cold]
fn release_lpis(
    private: &mut Private,
    shared: &mut Shared,
    registers: &mut impl ListRegisters,
    signals: &mut Signals<'_>,
) {
    for slot in Ones(private.interface.used_shared) {
        let intid = private.interface.intid(slot);
        if intid < FIRST_LPI {
            continue;
        }
        if registers.read(slot as usize) & lr::PENDING != 0 {
            shared.keep_lpi(intid);
        } else {
            registers.write(slot as usize, 0);
            shared.release_lpi(intid, signals);
            private.interface.vacate(bit(slot));
        }
    }
}

/// Ends interrupt `intid`, which is active in memory.
fn end(private: &mut Private, shared: &mut Shared, intid: u32, signals: &mut Signals<'_>) {
    if intid < 32 {
        let change = private.bank.write(BitRegister::ClearActive, bit(intid));
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
            first.push(Key::of(&private.bank, index, index, 0));
        }
        shared.collect_stranded(vcpu, &mut first);
        let Some(key) = first.iter().next() else { return };
        end(private, shared, key.intid(), signals);
    }
}
