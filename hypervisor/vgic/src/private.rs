//! What belongs to one vCPU: its private interrupts, and its virtual CPU interface while it is not in a CPU.
//!
//! Answers for: SGIs and PPIs behind one lock per vCPU, and which list register holds what. Does not answer for: the
//! register map (`v3::redistributor`), the order in which list registers are filled (`interface`).

use crate::bank::{Bank, BitRegister, Change, Folded};
use crate::best::MAX_LIST_REGISTERS;
use crate::registers::{ListRegisters, hcr, vmcr};
use crate::senders::Senders;
use crate::signals::{PRIVATE, RESYNC};
use crate::word::{Ones, bit};
use crate::{Version, v2};

/// SGIs are edge-triggered, always (IHI 0069, GICR_ICFGR0).
const SGI_EDGE: u32 = 0x0000_ffff;

/// Most `ICH_AP0R<n>_EL2` there are, and as many `ICH_AP1R<n>_EL2`.
const ACTIVE_PRIORITIES: usize = 4;

/// The private side of a vCPU.
#[derive(Debug)]
pub(crate) struct Private {
    /// INTIDs 0 to 31.
    pub(crate) bank: Bank,
    /// The host's INTIDs behind hardware-linked ones.
    pub(crate) physical: [u16; 32],
    /// Hardware-linked ones that the guest made inactive behind the hardware's back: to be deactivated at the host.
    pub(crate) to_deactivate: u32,
    /// `GICR_WAKER.ProcessorSleep`.
    // SPEC: 1 after a reset. It starts as 0, as firmware leaves it when it hands a CPU over; a guest that knows of it
    // clears it anyway.
    pub(crate) asleep: bool,
    /// It has run since it was switched on.
    pub(crate) on: bool,
    /// Its virtual CPU interface.
    pub(crate) interface: Interface,
    /// Who has sent its SGIs: in a GICv2.
    pub(crate) senders: Option<Senders>,
}

/// The virtual CPU interface: what the list registers hold, and the rest of it while it is not in a CPU.
#[derive(Debug)]
pub(crate) struct Interface {
    /// The vCPU is loaded on a CPU: the registers are there.
    pub(crate) loaded: bool,
    /// When it was last loaded nothing was for it, and its list registers have been left alone since: it is as it was, unless
    /// there is attention. Only where there is one active-priorities register of each group, as on most CPUs.
    pub(crate) undisturbed: bool,
    /// The INTID in each list register that is in use.
    slots: [u16; MAX_LIST_REGISTERS],
    /// List registers in use, one bit each. The guest may have finished with some of them.
    pub(crate) used: u32,
    /// Those of them that hold an SPI or an LPI.
    pub(crate) used_shared: u32,
    /// What was last written to `ICH_HCR_EL2`.
    pub(crate) control: u64,
    /// `ICH_VMCR_EL2`, while not loaded.
    pub(crate) vmcr: u64,
    /// `ICH_AP0R<n>_EL2`, while not loaded.
    ap0r: [u64; ACTIVE_PRIORITIES],
    /// `ICH_AP1R<n>_EL2`, while not loaded.
    ap1r: [u64; ACTIVE_PRIORITIES],
}

impl Interface {
    /// After a reset of the vCPU.
    pub(crate) const fn new(version: Version) -> Self {
        Self {
            loaded: false,
            undisturbed: false,
            slots: [0; MAX_LIST_REGISTERS],
            used: 0,
            used_shared: 0,
            control: 0,
            vmcr: match version {
                Version::V2 => 0,
                Version::V3 => vmcr::RESET,
            },
            ap0r: [0; ACTIVE_PRIORITIES],
            ap1r: [0; ACTIVE_PRIORITIES],
        }
    }

    /// The INTID in list register `index`.
    #[inline(always)]
    pub(crate) fn intid(&self, index: u32) -> u32 {
        self.slots.get(index as usize).copied().map_or(0, u32::from)
    }

    /// List register `index` now holds `intid`.
    #[inline(always)]
    pub(crate) fn occupy(&mut self, index: u32, intid: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = u16::try_from(intid).unwrap_or(0);
            self.used |= bit(index);
            if intid >= 32 {
                self.used_shared |= bit(index);
            }
        }
    }

    /// The list registers in `which` hold nothing any more.
    #[inline(always)]
    pub(crate) fn vacate(&mut self, which: u32) {
        self.used &= !which;
        self.used_shared &= !which;
    }

    /// Reads into memory what is neither list nor control register, of the active-priorities registers the first of each group.
    #[inline(always)]
    pub(crate) fn save(&mut self, registers: &impl ListRegisters) {
        self.vmcr = registers.vmcr();
        let ([first_0, ..], [first_1, ..]) = (&mut self.ap0r, &mut self.ap1r);
        (*first_0, *first_1) = (registers.ap0r(0), registers.ap1r(0));
    }

    /// The active-priorities registers behind the first, of `count` of each group.
    pub(crate) fn save_others(&mut self, registers: &impl ListRegisters, count: usize) {
        for (index, (value_0, value_1)) in (1..count).zip(self.ap0r.iter_mut().zip(&mut self.ap1r).skip(1)) {
            (*value_0, *value_1) = (registers.ap0r(index), registers.ap1r(index));
        }
    }

    /// The inverse of [`Interface::save`].
    #[inline(always)]
    pub(crate) fn restore(&self, registers: &mut impl ListRegisters) {
        registers.set_vmcr(self.vmcr);
        let ([first_0, ..], [first_1, ..]) = (&self.ap0r, &self.ap1r);
        registers.set_ap0r(0, *first_0);
        registers.set_ap1r(0, *first_1);
    }

    /// On, with nothing in the list registers.
    #[inline(always)]
    pub(crate) fn switch_on(&mut self, registers: &mut impl ListRegisters) {
        self.control = hcr::EN;
        registers.set_hcr(hcr::EN);
    }

    /// The inverse of [`Interface::save_others`].
    pub(crate) fn restore_others(&self, registers: &mut impl ListRegisters, count: usize) {
        for (index, (value_0, value_1)) in (1..count).zip(self.ap0r.iter().zip(&self.ap1r).skip(1)) {
            registers.set_ap0r(index, *value_0);
            registers.set_ap1r(index, *value_1);
        }
    }

    /// The active priorities of both groups together, first to last register, while not loaded.
    pub(crate) fn active_priorities(&self) -> [u64; ACTIVE_PRIORITIES] {
        let mut both = self.ap0r;
        for (one, other) in both.iter_mut().zip(self.ap1r) {
            *one |= other;
        }
        both
    }
}

impl Private {
    /// After a reset.
    pub(crate) fn new(version: Version) -> Self {
        let mut bank = Bank::new(version, SGI_EDGE);
        let senders = match version {
            Version::V2 => {
                // SPEC: whether SGIs can be disabled is implementation defined. They cannot, as in a GIC-400.
                bank.enabled = v2::SGIS;
                Some(Senders::default())
            }
            Version::V3 => None,
        };
        Self {
            bank,
            senders,
            physical: [0; 32],
            to_deactivate: 0,
            asleep: false,
            on: false,
            interface: Interface::new(version),
        }
    }

    /// The host's INTID behind private interrupt `index`.
    #[inline(always)]
    pub(crate) fn physical_of(&self, index: u32) -> u16 {
        self.physical.get(index as usize).copied().unwrap_or(0)
    }

    /// [`Bank::take_pending`], with its sender.
    #[inline(always)]
    pub(crate) fn take_pending(&mut self, index: u32, physical: u16) -> u64 {
        let value = self.bank.take_pending(index, index, physical);
        match &mut self.senders {
            None => value,
            Some(senders) => value | senders.take(index, &mut self.bank),
        }
    }

    /// [`Bank::take_active`], with its sender.
    pub(crate) fn take_active(&mut self, index: u32, physical: u16, groups: u32, crowded: bool) -> u64 {
        match &self.senders {
            None => self.bank.take_active(index, index, physical, groups, crowded),
            Some(senders) => {
                // What is pending besides may be another sender's: an interrupt of its own.
                let crowded = crowded || senders.has(index);
                self.bank.take_active(index, index, physical, groups, crowded) | senders.shown(index)
            }
        }
    }

    /// [`Bank::fold`], with its sender.
    #[inline]
    pub(crate) fn fold(&mut self, index: u32, value: u64) -> Folded {
        if let Some(senders) = &mut self.senders {
            senders.fold(index, value, &self.bank);
        }
        self.bank.fold(bit(index), value)
    }

    /// Which flags of attention a change calls for; 0 if it makes no difference.
    pub(crate) fn attention(&mut self, change: Change, groups: u32) -> u32 {
        self.to_deactivate |= change.physical;
        let mut flags = self.attention_to(change.pending, groups);
        if change.resync & (self.bank.resident | self.bank.active) != 0 || change.physical != 0 {
            flags |= RESYNC;
        }
        flags
    }

    /// The same of interrupts `pending` that have become that.
    #[inline(always)]
    pub(crate) fn attention_to(&self, pending: u32, groups: u32) -> u32 {
        if (self.bank.deliverable(groups) | self.bank.repeated()) & pending != 0 { PRIVATE } else { 0 }
    }

    /// A write of a register of one bit per interrupt. Returns the flags of attention.
    pub(crate) fn write(&mut self, register: BitRegister, value: u32, groups: u32) -> u32 {
        let change = self.bank.write(register, value);
        self.attention(change, groups)
    }

    /// Those of `slots` that hold private interrupts are empty.
    #[inline(always)]
    pub(crate) fn release(&mut self, slots: u32) {
        for slot in Ones(slots) {
            self.bank.release(bit(self.interface.intid(slot)));
        }
    }

    /// Deactivates at the host what the guest made inactive behind the hardware's back.
    #[inline(always)]
    pub(crate) fn deactivate_physical(&mut self, registers: &mut impl ListRegisters) {
        for index in Ones(core::mem::take(&mut self.to_deactivate)) {
            registers.deactivate(types::IntId(u32::from(self.physical_of(index))));
        }
    }
}
