//! The state of 32 interrupts.
//!
//! Answers for: the interrupt state machine (IHI 0069, "Interrupt handling state machine") over words of 32 bits, and for
//! what an interrupt becomes when it moves between memory and a list register. Does not answer for: who takes it
//! (`private`, `shared`), or in which order (`interface`).
//!
//! An interrupt is at home in memory. While its vCPU is loaded it may be *resident*, that is, in a list register; then the
//! list register knows its state, and memory holds a copy (`active`, `carried`) as old as the last synchronisation. What
//! is decided meanwhile about a resident interrupt is noted here and obeyed when it is folded back.

use crate::Version;
use crate::registers::lr;
use crate::word::{all_if, bit};

/// `GICD_CTLR.EnableGrp0`.
pub(crate) const ENABLE_GROUP_0: u32 = 1 << 0;
/// `GICD_CTLR.EnableGrp1`.
pub(crate) const ENABLE_GROUP_1: u32 = 1 << 1;

/// Both.
pub(crate) const ENABLE_GROUPS: u32 = ENABLE_GROUP_0 | ENABLE_GROUP_1;

/// 32 interrupts. Bit `n` of each word belongs to interrupt `n`.
#[derive(Debug)]
pub(crate) struct Bank {
    /// `IGROUPR`: group 1.
    pub(crate) group: u32,
    /// `ISENABLER`.
    pub(crate) enabled: u32,
    /// `ICFGR`: edge-triggered.
    pub(crate) edge: u32,
    /// The input is asserted.
    pub(crate) line: u32,
    /// Made pending by an edge or by software, and not taken into a list register since. For a level-sensitive interrupt
    /// this holds until it is acknowledged, whatever the line does (IHI 0069, GICD_ISPENDR<n>).
    pub(crate) latch: u32,
    /// Active. For a resident one: when last synchronised.
    pub(crate) active: u32,
    /// In a list register.
    pub(crate) resident: u32,
    /// The pending state in the list register stands for a latch: it has to come back if it was not acknowledged.
    pub(crate) carried: u32,
    /// Hardware-linked, in the list register.
    pub(crate) linked: u32,
    /// Hardware-linked, in memory: the host's interrupt is active.
    pub(crate) hardware: u32,
    /// To become active when folded (`ISACTIVER` written while resident).
    pub(crate) activate: u32,
    /// To become inactive when folded (`ICACTIVER` written while resident).
    pub(crate) deactivate: u32,
    /// `IPRIORITYR`, only implemented bits.
    pub(crate) priority: [u8; 32],
}

/// The registers that hold one bit per interrupt, in the order of their offsets: `GICD_IGROUPR<n>` is at 0x080, the next
/// 0x080 further on. Those of a redistributor's SGI frame are the same (IHI 0069, "Distributor register map").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BitRegister {
    /// `IGROUPR`.
    Group,
    /// `ISENABLER`.
    SetEnable,
    /// `ICENABLER`.
    ClearEnable,
    /// `ISPENDR`.
    SetPending,
    /// `ICPENDR`.
    ClearPending,
    /// `ISACTIVER`.
    SetActive,
    /// `ICACTIVER`.
    ClearActive,
}

impl BitRegister {
    /// From an offset in `0x080..0x400`; its position within the register's array is for the caller.
    #[inline]
    pub(crate) const fn at(offset: u64) -> Option<Self> {
        match offset.wrapping_shr(7) {
            1 => Some(Self::Group),
            2 => Some(Self::SetEnable),
            3 => Some(Self::ClearEnable),
            4 => Some(Self::SetPending),
            5 => Some(Self::ClearPending),
            6 => Some(Self::SetActive),
            7 => Some(Self::ClearActive),
            _ => None,
        }
    }
}

/// What a change of the state asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    /// These may have become deliverable, or pending once more while resident.
    pub(crate) pending: u32,
    /// The list registers that hold these no longer say what they should, or these should be in one.
    pub(crate) resync: u32,
    /// The host's interrupts behind these have to be deactivated.
    pub(crate) physical: u32,
}

/// What became of an interrupt that was folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folded {
    /// Nothing else to do.
    Done,
    /// The host's interrupt behind it has to be deactivated.
    DeactivatePhysical,
}

impl Bank {
    /// The state after a reset.
    // SPEC: the groups of a GICv3 are architecturally unknown then. They are all 1 here: what firmware leaves to an operating system.
    pub(crate) const fn new(version: Version, edge: u32) -> Self {
        Self {
            group: match version {
                Version::V2 => 0,
                Version::V3 => u32::MAX,
            },
            enabled: 0,
            edge,
            line: 0,
            latch: 0,
            active: 0,
            resident: 0,
            carried: 0,
            linked: 0,
            hardware: 0,
            activate: 0,
            deactivate: 0,
            priority: [0; 32],
        }
    }

    /// Those that the enable bits of the distributor let pass.
    #[inline(always)]
    fn forwarded(&self, groups: u32) -> u32 {
        (self.group & all_if(groups & ENABLE_GROUP_1 != 0)) | (!self.group & all_if(groups & ENABLE_GROUP_0 != 0))
    }

    /// Pending and not yet in a list register.
    #[inline(always)]
    fn waiting(&self) -> u32 {
        self.latch | (self.line & !self.edge)
    }

    /// What `ISPENDR` shows.
    #[inline]
    pub(crate) fn pending(&self) -> u32 {
        self.waiting() | self.carried
    }

    /// What `ISACTIVER` shows, for all that can be known without looking into list registers.
    #[inline]
    pub(crate) fn shown_active(&self) -> u32 {
        (self.active | self.activate) & !self.deactivate
    }

    /// Those that can be put into a list register as pending.
    #[inline(always)]
    pub(crate) fn deliverable(&self, groups: u32) -> u32 {
        self.waiting() & self.enabled & self.forwarded(groups) & !self.active & !self.resident
    }

    /// Whether nothing is pending or active in memory, be it enabled or not.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting() | self.active == 0
    }

    /// Those that are active and in no list register.
    #[inline(always)]
    pub(crate) fn stranded(&self) -> u32 {
        self.active & !self.resident
    }

    /// Resident ones that have become pending once more.
    #[inline(always)]
    pub(crate) fn repeated(&self) -> u32 {
        self.latch & self.resident & self.enabled
    }

    /// The priority of interrupt `index`.
    #[inline]
    pub(crate) fn priority_of(&self, index: u32) -> u8 {
        self.priority.get(index as usize).copied().unwrap_or(0)
    }

    /// Sets the line of `bit` to `asserted`.
    #[inline]
    pub(crate) fn set_line(&mut self, bit: u32, asserted: bool) -> Change {
        let before = self.line;
        self.line = (before & !bit) | (bit & all_if(asserted));
        let changed = self.line ^ before;
        // An edge is latched. A level that changes under a list register makes that wrong: a pending state may have to
        // go, and whether the end of the interrupt has to be reported hangs on it.
        self.latch |= changed & self.line & self.edge;
        Change { pending: changed & self.line, resync: changed & self.resident & !self.edge, physical: 0 }
    }

    /// What a register of one bit per interrupt shows. `ISACTIVER` is as of the last synchronisation.
    #[inline]
    pub(crate) fn read(&self, register: BitRegister) -> u32 {
        match register {
            BitRegister::Group => self.group,
            BitRegister::SetEnable | BitRegister::ClearEnable => self.enabled,
            BitRegister::SetPending | BitRegister::ClearPending => self.pending(),
            BitRegister::SetActive | BitRegister::ClearActive => self.shown_active(),
        }
    }

    /// A write of a register of one bit per interrupt; `value` has bits of implemented interrupts only.
    pub(crate) fn write(&mut self, register: BitRegister, value: u32) -> Change {
        let (home, resident) = (value & !self.resident, value & self.resident);
        match register {
            BitRegister::Group => {
                let changed = self.group ^ value;
                self.group = value;
                Change { pending: changed, resync: changed & self.resident, physical: 0 }
            }
            BitRegister::SetEnable => {
                self.enabled |= value;
                Change { pending: value, ..Change::default() }
            }
            BitRegister::ClearEnable => {
                self.enabled &= !value;
                Change { resync: resident, ..Change::default() }
            }
            BitRegister::SetPending => {
                self.latch |= value;
                Change { pending: value, ..Change::default() }
            }
            BitRegister::ClearPending => {
                // A level that is still asserted is not cleared by this, and behind a hardware-linked interrupt it is.
                let value = value & !(self.hardware | self.linked);
                let carried = self.carried & value;
                self.latch &= !value;
                self.carried &= !value;
                Change { resync: carried, ..Change::default() }
            }
            BitRegister::SetActive => {
                self.active |= home;
                self.activate |= resident;
                self.deactivate &= !value;
                Change { resync: value, ..Change::default() }
            }
            BitRegister::ClearActive => {
                let physical = home & self.active & self.hardware;
                self.active &= !home;
                self.hardware &= !physical;
                self.deactivate |= resident;
                self.activate &= !value;
                Change { pending: home, resync: resident, physical }
            }
        }
    }

    /// A write of `ICFGR`: those in `mask` become edge-triggered if they are in `edge`, else level-sensitive.
    pub(crate) fn configure(&mut self, mask: u32, edge: u32) -> Change {
        let changed = (self.edge ^ edge) & mask;
        self.edge ^= changed;
        Change { pending: changed, resync: changed & self.resident, physical: 0 }
    }

    /// The priorities of interrupts `first` to `first + 3`, as a word of `IPRIORITYR`.
    pub(crate) fn priorities(&self, first: u32) -> u32 {
        let mut bytes = [0; 4];
        for (byte, index) in bytes.iter_mut().zip(first..) {
            *byte = self.priority_of(index);
        }
        u32::from_le_bytes(bytes)
    }

    /// Sets the priority of interrupt `index`.
    pub(crate) fn set_priority(&mut self, index: u32, priority: u8) -> Change {
        if let Some(slot) = self.priority.get_mut(index as usize) {
            *slot = priority;
        }
        // SPEC: whether a change counts for an interrupt that is already pending is implementation defined. It does if
        // that is still in memory.
        Change { pending: bit(index), ..Change::default() }
    }

    /// Moves pending interrupt `index` into a list register: what to write there. `physical` is the host's INTID if it is
    /// hardware-linked.
    #[inline(always)]
    pub(crate) fn take_pending(&mut self, index: u32, intid: u32, physical: u16) -> u64 {
        let bit = bit(index);
        self.carried |= self.latch & bit;
        self.latch &= !bit;
        lr::PENDING | self.take(index, intid, physical)
    }

    /// Moves active interrupt `index` into a list register: what to write there.
    ///
    /// If it is pending as well, that goes along, and as soon as it is inactive the hardware delivers it, without asking.
    /// Where that would be wrong its end is reported instead: if it is disabled, if it is to be delivered to another vCPU
    /// (then `groups` is 0), or if the list registers are `crowded` and something more urgent may be waiting in memory.
    pub(crate) fn take_active(&mut self, index: u32, intid: u32, physical: u16, groups: u32, crowded: bool) -> u64 {
        let bit = bit(index);
        let mut state = lr::ACTIVE;
        // IHI 0069, ICH_LR<n>_EL2.State: pending and active is for software-originated interrupts only.
        if self.latch & !self.hardware & bit != 0 {
            if self.enabled & self.forwarded(groups) & bit != 0 && !crowded {
                self.carried |= bit;
                self.latch &= !bit;
                state |= lr::PENDING;
            } else {
                state |= lr::EOI;
            }
        }
        state | self.take(index, intid, physical)
    }

    /// The part of a list register that does not depend on the state.
    #[inline(always)]
    fn take(&mut self, index: u32, intid: u32, physical: u16) -> u64 {
        let bit = bit(index);
        self.resident |= bit;
        let mut value = u64::from(intid) | (u64::from(self.priority_of(index)).wrapping_shl(lr::PRIORITY_SHIFT));
        if self.group & bit != 0 {
            value |= lr::GROUP;
        }
        if self.hardware & bit != 0 {
            self.hardware &= !bit;
            self.linked |= bit;
            value |= lr::HW | u64::from(physical).wrapping_shl(lr::PHYSICAL_SHIFT);
        } else if self.line & !self.edge & bit != 0 {
            // The line may still be high when the guest has finished: then it has to be taken again.
            value |= lr::EOI;
        }
        value
    }

    /// The list register of this interrupt is empty: the guest has finished with it.
    #[inline(always)]
    pub(crate) fn release(&mut self, bit: u32) {
        let keep = !bit;
        self.active = (self.active & keep) | (self.activate & !self.deactivate & bit);
        self.resident &= keep;
        self.carried &= keep;
        self.linked &= keep;
        self.activate &= keep;
        self.deactivate &= keep;
    }

    /// Moves an interrupt out of its list register, which holds `value`, into memory.
    pub(crate) fn fold(&mut self, bit: u32, value: u64) -> Folded {
        let was_active = value & lr::ACTIVE != 0;
        let was_pending = value & lr::PENDING != 0;
        let in_flight = self.linked & bit != 0 && (was_active || was_pending);
        if was_pending {
            self.latch |= self.carried & bit;
        }
        let active = (was_active || self.activate & bit != 0) && self.deactivate & bit == 0;
        self.active = (self.active & !bit) | (bit & all_if(active));
        self.resident &= !bit;
        self.carried &= !bit;
        self.linked &= !bit;
        self.activate &= !bit;
        self.deactivate &= !bit;
        if in_flight {
            if was_pending || active {
                self.hardware |= bit;
            } else {
                return Folded::DeactivatePhysical;
            }
        }
        Folded::Done
    }

    /// Brings the copy of a resident interrupt up to date with its list register, which holds `value`.
    pub(crate) fn synchronise(&mut self, bit: u32, value: u64) {
        self.active = (self.active & !bit) | (bit & all_if(value & lr::ACTIVE != 0));
        if value & lr::PENDING == 0 {
            self.carried &= !bit;
        }
        if value & (lr::PENDING | lr::ACTIVE) == 0 {
            self.linked &= !bit;
        }
    }
}
