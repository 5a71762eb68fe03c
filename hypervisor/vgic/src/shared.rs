//! Shared peripheral interrupts: state, routing, and who has to hear of a change.
//!
//! Answers for: SPIs (and LPIs: [`lpis`]) of all vCPUs, behind one lock, and which of them have ended whose devices want to hear of it. Does not
//! answer for: the register map (`v3::distributor`), list registers (`interface`), telling devices (`ends`).
//!
//! Follows IHI 0069, "Affinity routing" and `GICD_IROUTER<n>`.

mod linked;
mod lpis;
mod routing;

pub(crate) use lpis::{Configuration, FIRST_LPI, Lpis, Told};

use crate::Version;
use crate::bank::{Bank, BitRegister, Change, ENABLE_GROUPS, Folded};
use crate::best::{Best, Key};
use crate::ends::{Ended, Flag};
use crate::registers::lr;
use crate::signals::{RESYNC, SHARED, SYNC, Signals};
use crate::word::{Ones, all_if, allot, bit};
use alloc::vec::Vec;
use types::VcpuId;

/// No vCPU.
const NOBODY: u8 = u8::MAX;

/// 32 SPIs.
#[derive(Debug)]
struct SharedBank {
    bank: Bank,
    /// Those that exist: INTIDs 1020 to 1023 do not.
    implemented: u32,
    /// `GICD_IROUTER<n>`.
    router: [u64; 32],
    /// The vCPU that takes it, or [`NOBODY`]. For 1-of-N: chosen when it becomes deliverable.
    target: [u8; 32],
    /// The vCPU in whose list registers it is, or for which it is active.
    holder: [u8; 32],
    /// Those whose ends are reported.
    reported: u32,
    /// Those of them that have ended since somebody asked.
    ended: u32,
    /// The host's INTIDs behind hardware-linked ones.
    physical: [u16; 32],
    /// Hardware-linked ones that became inactive without the hardware: to be deactivated at the host.
    to_deactivate: u32,
}

impl SharedBank {
    fn is_reported(&self, index: u32) -> bool {
        self.reported & bit(index) != 0
    }

    /// What the list register of an interrupt whose end is reported has besides. One that is linked to the host's has no room for it.
    fn report(&self, index: u32) -> u64 {
        if self.is_reported(index) && self.bank.linked & bit(index) == 0 { lr::EOI } else { 0 }
    }

    fn target_of(&self, index: u32) -> u8 {
        self.target.get(index as usize).copied().unwrap_or(NOBODY)
    }

    fn holder_of(&self, index: u32) -> u8 {
        self.holder.get(index as usize).copied().unwrap_or(NOBODY)
    }

    fn set_holder(&mut self, index: u32, vcpu: u8) {
        if let Some(holder) = self.holder.get_mut(index as usize) {
            *holder = vcpu;
        }
    }

    /// [`Bank::take_active`]. One that is pending as well waits for its end, if that is reported: the hardware tells of no end
    /// between two deliveries.
    fn take_active(&mut self, index: u32, intid: u32, groups: u32, crowded: bool) -> u64 {
        let crowded = crowded || self.is_reported(index);
        let physical = self.physical_of(index);
        self.bank.take_active(index, intid, physical, groups, crowded) | self.report(index)
    }

    /// Of `bits`, those that `vcpu` holds.
    fn held_by(&self, bits: u32, vcpu: u8) -> u32 {
        Ones(bits).filter(|index| self.holder_of(*index) == vcpu).fold(0, |all, index| all | bit(index))
    }

    /// Of `bits`, those that are for `vcpu`.
    fn targeting(&self, bits: u32, vcpu: u8) -> u32 {
        Ones(bits).filter(|index| self.target_of(*index) == vcpu).fold(0, |all, index| all | bit(index))
    }
}

/// All SPIs of a VM.
#[derive(Debug)]
pub(crate) struct Shared {
    banks: Vec<SharedBank>,
    /// Per vCPU: banks that may hold something for it, one bit each. Set when there is, cleared when found to be none.
    ready: Vec<u32>,
    /// Who was chosen last for a 1-of-N interrupt.
    rotor: u8,
    /// Whether any `ended` is not zero.
    any_ended: Flag,
    /// LPIs, if there are any.
    lpis: Lpis,
}

/// Where an SPI is: the bank and the position in it. `None` for an INTID below 32.
#[inline]
fn place(intid: u32) -> Option<(usize, u32)> {
    let shared = intid.checked_sub(32)?;
    Some(((shared / 32) as usize, shared % 32))
}

/// The INTID at a place.
#[inline]
fn intid_at(bank: usize, index: u32) -> u32 {
    // A bank number is below 32.
    u32::try_from(bank).unwrap_or(0).wrapping_add(1).wrapping_mul(32).wrapping_add(index)
}

impl Shared {
    /// SPIs up to `intids`, a multiple of 32, for `vcpus` vCPUs.
    pub(crate) fn new(version: Version, intids: u32, vcpus: usize, any_ended: Flag) -> Self {
        // Those of a GICv2 go to nobody before they are told where to, unless there is no choice; those of a GICv3 to the first
        // vCPU.
        let target = if version == Version::V2 && vcpus > 1 { NOBODY } else { 0 };
        let banks = (1..(intids / 32).min(32))
            .map(|number| SharedBank {
                bank: Bank::new(version, 0),
                implemented: if number == 31 { 0x0fff_ffff } else { u32::MAX },
                router: [0; 32],
                target: [target; 32],
                holder: [NOBODY; 32],
                reported: 0,
                ended: 0,
                physical: [0; 32],
                to_deactivate: 0,
            })
            .collect();
        Self { banks, ready: alloc::vec![0; vcpus], rotor: 0, any_ended, lpis: Lpis::default() }
    }

    /// From now on the ends of SPI `intid` are reported.
    pub(crate) fn report_ends(&mut self, intid: u32) {
        if let Some((number, index)) = place(intid)
            && let Some(shared) = self.banks.get_mut(number)
        {
            shared.reported |= bit(index);
        }
    }

    /// What has ended since this was last asked.
    pub(crate) fn take_ended(&mut self) -> Ended {
        self.any_ended.lower();
        let mut ended = Ended::default();
        for (word, shared) in ended.0.iter_mut().zip(&mut self.banks) {
            *word = core::mem::take(&mut shared.ended);
        }
        ended
    }

    /// `bits` of bank `number` have ended, or were enabled while they were pending. If one of them is reported, the vCPU whose
    /// list registers are being written is to look as well, as if it were kicked.
    fn end(&mut self, number: usize, bits: u32, signals: &mut Signals<'_>) {
        let Some(shared) = self.banks.get_mut(number) else { return };
        let reported = bits & shared.reported;
        if reported != 0 {
            shared.ended |= reported;
            self.any_ended.raise();
            if let Some(current) = signals.current {
                signals.kick.insert(current);
            }
        }
    }

    /// The bank `number` (SPIs `32 * (number + 1)` on) for reading.
    #[inline]
    pub(crate) fn bank(&self, number: usize) -> Option<&Bank> {
        self.banks.get(number).map(|shared| &shared.bank)
    }

    /// Acts on a change in bank `number`.
    fn apply(&mut self, number: usize, change: Change, signals: &mut Signals<'_>) {
        self.announce(number, change.pending, signals);
        self.disturb(number, change.resync, RESYNC, signals);
    }

    /// Tells those for whom one of `bits` can now be delivered, or has become pending once more.
    fn announce(&mut self, number: usize, bits: u32, signals: &mut Signals<'_>) {
        let Some(shared) = self.banks.get_mut(number) else { return };
        let bank_bit = bit(u32::try_from(number).unwrap_or(0));
        for index in Ones(shared.bank.deliverable(signals.groups) & bits) {
            self.rotor = shared.choose_target(index, self.rotor, signals);
            let target = shared.target_of(index);
            if let Some(ready) = self.ready.get_mut(usize::from(target)) {
                *ready |= bank_bit;
                signals.notify(target, SHARED);
            }
        }
        for index in Ones(shared.bank.repeated() & bits) {
            let holder = shared.holder_of(index);
            if let Some(ready) = self.ready.get_mut(usize::from(holder)) {
                *ready |= bank_bit;
                signals.notify(holder, SHARED);
            }
        }
    }

    /// Tells the holders of `bits` with `flags`; an active one in memory without a holder goes to its target.
    fn disturb(&mut self, number: usize, bits: u32, flags: u32, signals: &mut Signals<'_>) {
        let Some(shared) = self.banks.get_mut(number) else { return };
        let bank_bit = bit(u32::try_from(number).unwrap_or(0));
        for index in Ones(bits & (shared.bank.resident | shared.bank.active)) {
            if usize::from(shared.holder_of(index)) >= self.ready.len() {
                // Made active by software alone: somebody has to be able to end it.
                let target = shared.target_of(index);
                shared.set_holder(index, if usize::from(target) < self.ready.len() { target } else { 0 });
            }
            let holder = shared.holder_of(index);
            if let Some(ready) = self.ready.get_mut(usize::from(holder)) {
                *ready |= bank_bit;
            }
            signals.notify(holder, flags);
        }
    }

    /// Everything that is pending looks for its target anew: groups were enabled, or a vCPU came or went.
    pub(crate) fn reconsider(&mut self, signals: &mut Signals<'_>) {
        for number in 0..self.banks.len() {
            self.announce(number, u32::MAX, signals);
        }
    }

    /// A write of a register of one bit per interrupt.
    pub(crate) fn write(&mut self, number: usize, register: BitRegister, value: u32, signals: &mut Signals<'_>) {
        let Some(shared) = self.banks.get_mut(number) else { return };
        let (held, stranded) = (shared.bank.active | shared.bank.resident, shared.bank.stranded());
        let disabled = !shared.bank.enabled;
        let change = shared.bank.write(register, value & shared.implemented);
        // Whoever held an interrupt earlier does not hold it when software makes it active.
        for index in Ones(shared.bank.active & !held) {
            shared.set_holder(index, NOBODY);
        }
        let unmasked = disabled & shared.bank.enabled & (shared.bank.pending() | shared.bank.line);
        let ended = stranded & !shared.bank.active;
        self.end(number, unmasked | ended, signals);
        self.deactivate_physical(number, change.physical, signals);
        self.apply(number, change, signals);
    }

    /// A message: a write of `INTID` to `GICD_SETSPI_NSR` or `GICD_CLRSPI_NSR`. To a level-sensitive interrupt it is a line, and
    /// stays asserted until the second; to an edge-triggered one an edge.
    // SPEC: a message and a device's line are one and the same input, so the guest can lower the line of a device until
    // that moves it again. Which inputs take messages is implementation defined; a guest's tree says which are free.
    pub(crate) fn message(&mut self, intid: u32, raise: bool, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        let Some(shared) = self.banks.get_mut(number) else { return };
        if shared.bank.edge & bit(index) == 0 {
            return self.set_line(intid, raise, signals);
        }
        let register = if raise { BitRegister::SetPending } else { BitRegister::ClearPending };
        self.write(number, register, bit(index), signals);
    }

    /// A message to a frame: the interrupt becomes pending once, whatever it is configured to be.
    pub(crate) fn pulse(&mut self, intid: u32, signals: &mut Signals<'_>) {
        if let Some((number, index)) = place(intid) {
            self.write(number, BitRegister::SetPending, bit(index), signals);
        }
    }

    /// A read of a register of one bit per interrupt. An interrupt in the list register of a vCPU that has been told to
    /// write it anew and has not yet is shown as active: it may have been acknowledged meanwhile, and who waits for it
    /// to be inactive must not go on too early.
    pub(crate) fn read(&self, number: usize, register: BitRegister, signals: &Signals<'_>) -> u32 {
        let Some(shared) = self.banks.get(number) else { return 0 };
        let mut value = shared.bank.read(register);
        if matches!(register, BitRegister::SetActive | BitRegister::ClearActive) {
            for index in Ones(shared.bank.resident & !value) {
                let holder = usize::from(shared.holder_of(index));
                if signals.cells.get(holder).is_some_and(crate::signals::Cell::is_out_of_date) {
                    value |= bit(index);
                }
            }
        }
        value & shared.implemented
    }

    /// Asks the holders of resident interrupts in bank `number` to bring the copies in memory up to date.
    pub(crate) fn request_synchronisation(&mut self, number: usize, signals: &mut Signals<'_>) {
        let resident = self.bank(number).map_or(0, |bank| bank.resident);
        self.disturb(number, resident, SYNC, signals);
    }

    /// A write of `GICD_ICFGR<n>`: `mask` and `edge` have one bit per interrupt of bank `number`.
    pub(crate) fn configure(&mut self, number: usize, mask: u32, edge: u32, signals: &mut Signals<'_>) {
        let Some(shared) = self.banks.get_mut(number) else { return };
        let change = shared.bank.configure(mask & shared.implemented, edge);
        self.apply(number, change, signals);
    }

    /// A write of one byte of `GICD_IPRIORITYR<n>`.
    pub(crate) fn set_priority(&mut self, intid: u32, priority: u8, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        let Some(shared) = self.banks.get_mut(number) else { return };
        if shared.implemented & bit(index) != 0 {
            let change = shared.bank.set_priority(index, priority);
            self.apply(number, change, signals);
        }
    }

    /// The input of SPI `intid` is asserted or not.
    pub(crate) fn set_line(&mut self, intid: u32, asserted: bool, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        let Some(shared) = self.banks.get_mut(number) else { return };
        let change = shared.bank.set_line(bit(index) & shared.implemented, asserted);
        self.apply(number, change, signals);
    }

    /// Whether no bank has anything for `vcpu`.
    #[inline(always)]
    pub(crate) fn is_quiet(&self, vcpu: VcpuId) -> bool {
        self.ready.get(vcpu.index()).is_none_or(|ready| *ready == 0)
    }

    /// Allots free list registers of `vcpu` to what is pending or active for it in memory. `None` if there are not enough,
    /// or if what is in one of the others has become pending once more.
    #[inline]
    pub(crate) fn allot(&mut self, vcpu: VcpuId, groups: u32, mut free: u32) -> Option<u32> {
        let (Ok(me), Some(ready)) = (u8::try_from(vcpu.0), self.ready.get_mut(vcpu.index())) else { return Some(free) };
        for number in Ones(*ready) {
            let Some(shared) = self.banks.get(number as usize) else {
                free = Self::allot_lpis(&self.lpis, vcpu, groups, ready, free)?;
                continue;
            };
            let possible = shared.targeting(shared.bank.deliverable(ENABLE_GROUPS), me);
            let stranded = shared.held_by(shared.bank.stranded(), me);
            let repeated = shared.held_by(shared.bank.repeated(), me);
            if (possible | stranded | repeated) == 0 {
                *ready &= !bit(number);
            } else if repeated != 0 {
                return None;
            }
            free = allot(free, possible & shared.bank.deliverable(groups))?;
            free = allot(free, stranded)?;
        }
        Some(free)
    }

    /// Moves all that [`Shared::allot`] has found into list registers: `put` takes INTID and what to write.
    pub(crate) fn take_all(&mut self, vcpu: VcpuId, groups: u32, mut put: impl FnMut(u32, u64)) {
        let (Ok(me), Some(ready)) = (u8::try_from(vcpu.0), self.ready.get(vcpu.index()).copied()) else { return };
        for number in Ones(ready) {
            let Some(shared) = self.banks.get_mut(number as usize) else {
                self.take_lpis(vcpu, groups, &mut put);
                continue;
            };
            for index in Ones(shared.targeting(shared.bank.deliverable(groups), me)) {
                let intid = intid_at(number as usize, index);
                shared.set_holder(index, me);
                put(intid, shared.take_pending(index, intid));
            }
            for index in Ones(shared.held_by(shared.bank.stranded(), me)) {
                let intid = intid_at(number as usize, index);
                let here = shared.target_of(index) == me;
                put(intid, shared.take_active(index, intid, groups & all_if(here), false));
            }
        }
    }

    /// Collects what can be delivered to `vcpu`; `masked` are the groups that the guest has disabled in its CPU interface.
    pub(crate) fn collect_pending(&self, vcpu: VcpuId, groups: u32, masked: u32, best: &mut Best) {
        let (Ok(me), Some(ready)) = (u8::try_from(vcpu.0), self.ready.get(vcpu.index())) else { return };
        for number in Ones(*ready) {
            let Some(shared) = self.banks.get(number as usize) else {
                self.collect_lpis(vcpu, groups, masked, best);
                continue;
            };
            for index in Ones(shared.targeting(shared.bank.deliverable(groups), me)) {
                best.push(Key::of(&shared.bank, index, intid_at(number as usize, index), masked));
            }
        }
    }

    /// Collects what is active for `vcpu` and in no list register.
    pub(crate) fn collect_stranded(&self, vcpu: VcpuId, best: &mut Best) {
        let Ok(me) = u8::try_from(vcpu.0) else { return };
        let Some(ready) = self.ready.get(vcpu.index()) else { return };
        for number in Ones(*ready) {
            let Some(shared) = self.banks.get(number as usize) else { continue };
            for index in Ones(shared.held_by(shared.bank.stranded(), me)) {
                best.push(Key::of(&shared.bank, index, intid_at(number as usize, index), 0));
            }
        }
    }

    /// Moves a pending SPI or LPI into a list register of `vcpu`: what to write there.
    pub(crate) fn take_pending(&mut self, intid: u32, vcpu: VcpuId) -> u64 {
        let Some((number, index)) = place(intid) else { return 0 };
        let Some(shared) = self.banks.get_mut(number) else { return self.take_lpi(intid, vcpu) };
        shared.set_holder(index, u8::try_from(vcpu.0).unwrap_or(NOBODY));
        shared.take_pending(index, intid)
    }

    /// Moves an active SPI into a list register of `vcpu`, its holder: what to write there. If it is pending as well and
    /// has been routed elsewhere, that stays behind.
    pub(crate) fn take_active(&mut self, intid: u32, vcpu: VcpuId, groups: u32, crowded: bool) -> u64 {
        let Some((number, index)) = place(intid) else { return 0 };
        let Some(shared) = self.banks.get_mut(number) else { return 0 };
        let here = u16::from(shared.target_of(index)) == vcpu.0;
        shared.take_active(index, intid, groups & all_if(here), crowded)
    }

    /// SPI or LPI `intid` has left its list register empty.
    pub(crate) fn release(&mut self, intid: u32, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        let Some(shared) = self.banks.get_mut(number) else { return self.release_lpi(intid, signals) };
        shared.bank.release(bit(index));
        self.end(number, bit(index), signals);
        self.settle(number, index, signals);
    }

    /// SPI or LPI `intid` leaves its list register, which holds `value`.
    pub(crate) fn fold(&mut self, intid: u32, value: u64, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        let Some(shared) = self.banks.get_mut(number) else { return self.fold_lpi(intid, value, signals) };
        let folded = shared.bank.fold(bit(index), value);
        // The guest has ended it, or made it inactive in another way.
        let (pending, active) = (value & lr::PENDING != 0, value & lr::ACTIVE != 0);
        if !pending && !active || active && shared.bank.active & bit(index) == 0 {
            self.end(number, bit(index), signals);
        }
        if folded == Folded::DeactivatePhysical {
            self.deactivate_physical(number, bit(index), signals);
        }
        self.settle(number, index, signals);
    }

    /// The copy of SPI `intid` follows its list register.
    pub(crate) fn synchronise(&mut self, intid: u32, value: u64) {
        if let Some((number, index)) = place(intid)
            && let Some(shared) = self.banks.get_mut(number)
        {
            shared.bank.synchronise(bit(index), value);
        }
    }

    /// SPI `intid`, active in no list register, has ended.
    pub(crate) fn deactivate(&mut self, intid: u32, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        self.write(number, BitRegister::ClearActive, bit(index), signals);
    }

    /// An interrupt is back in memory: it stays with its holder if it is active, else it may go to anybody.
    fn settle(&mut self, number: usize, index: u32, signals: &mut Signals<'_>) {
        let Some(shared) = self.banks.get_mut(number) else { return };
        if shared.bank.active & bit(index) == 0 {
            shared.set_holder(index, NOBODY);
            self.announce(number, bit(index), signals);
        } else {
            let holder = usize::from(shared.holder_of(index));
            if let Some(ready) = self.ready.get_mut(holder) {
                *ready |= bit(u32::try_from(number).unwrap_or(0));
            }
        }
    }
}
