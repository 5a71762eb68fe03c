//! A virtual CPU interface made of memory, for tests on a PC.
//!
//! Answers for: what the hardware does with list registers when a guest acknowledges, ends and deactivates interrupts, and
//! when it asserts the maintenance interrupt. Does not answer for: the physical distributor, of which it only notes what
//! is deactivated.
//!
//! Follows IHI 0069, the pseudocode of ICV_IAR<n>_EL1, ICV_EOIR<n>_EL1, ICV_DIR_EL1, and ICH_MISR_EL2. Written from the
//! specification, apart from the code that it tests: it shares no constants with it.

pub mod its;

use crate::ListRegisters;
use alloc::vec;
use alloc::vec::Vec;
use types::IntId;

/// What a read of `ICV_IAR<n>_EL1` returns when there is nothing to take.
pub const SPURIOUS: u32 = 1023;

/// The first LPI.
const FIRST_LPI: u32 = 8192;

const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;
const STATE: u64 = PENDING | ACTIVE;
const HW: u64 = 1 << 61;
const EOI: u64 = 1 << 41;

/// One CPU's virtual interface.
#[derive(Clone, Debug)]
pub struct CpuInterface {
    /// `ICH_LR<n>_EL2`.
    pub list: Vec<u64>,
    /// `ICH_HCR_EL2`.
    pub hcr: u64,
    /// `ICH_VMCR_EL2`.
    pub vmcr: u64,
    /// `ICH_AP0R<n>_EL2` and `ICH_AP1R<n>_EL2`.
    pub active_priorities: [[u64; 4]; 2],
    /// The host's interrupts that were deactivated, by the guest's end of interrupt or by the hypervisor, in order.
    pub deactivated: Vec<IntId>,
    /// An LPI that is acknowledged is active until its end, as on QEMU 10.
    pub lpis_are_active: bool,
    preemption_bits: u32,
}

/// What a write of `ICC_DIR_EL1` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Deactivation {
    /// Done by the hardware.
    Done,
    /// It traps to EL2.
    Trapped,
}

impl CpuInterface {
    /// With so many list registers, and 5 to 7 bits of priority, all of which preempt.
    #[must_use]
    pub fn new(list_registers: usize, priority_bits: u32) -> Self {
        Self {
            list: vec![0; list_registers],
            hcr: 0,
            vmcr: 0,
            active_priorities: [[0; 4]; 2],
            deactivated: Vec::new(),
            lpis_are_active: false,
            preemption_bits: priority_bits,
        }
    }

    fn enabled(&self, group: usize) -> bool {
        self.hcr & 1 != 0 && self.vmcr >> group & 1 != 0
    }

    /// The guest enables or disables a group (`ICC_IGRPEN<n>_EL1`).
    pub fn enable_group(&mut self, group: usize, enable: bool) {
        self.vmcr = self.vmcr & !(1 << group) | u64::from(enable) << group;
    }

    /// The guest sets its priority mask (`ICC_PMR_EL1`).
    pub fn set_mask(&mut self, mask: u8) {
        self.vmcr = self.vmcr & !(0xff << 24) | u64::from(mask) << 24;
    }

    /// The guest separates priority drop and deactivation, or does not (`ICC_CTLR_EL1.EOImode`).
    pub fn set_split(&mut self, split: bool) {
        self.vmcr = self.vmcr & !(1 << 9) | u64::from(split) << 9;
    }

    fn group_of(value: u64) -> usize {
        usize::from(value >> 60 & 1 != 0)
    }

    fn priority_of(value: u64) -> u32 {
        (value >> 48 & 0xff) as u32
    }

    /// The part of a priority that preempts.
    fn group_priority(&self, value: u64) -> u32 {
        let shift = match Self::group_of(value) {
            1 if self.vmcr >> 4 & 1 == 0 => (self.vmcr >> 18 & 7) as u32,
            _ => (self.vmcr >> 21 & 7) as u32 + 1,
        };
        Self::priority_of(value) & (0xff << shift)
    }

    /// `ICC_RPR_EL1`: 256 stands for idle.
    #[must_use]
    pub fn running_priority(&self) -> u32 {
        for index in 0..4 {
            let active = self.active_priorities[0][index] | self.active_priorities[1][index];
            if active != 0 {
                return (index as u32 * 32 + active.trailing_zeros()) << (8 - self.preemption_bits);
            }
        }
        256
    }

    /// The list register with the interrupt that would be taken next, if it can be signalled.
    fn highest(&self) -> Option<usize> {
        let index = (0..self.list.len())
            .filter(|index| self.list[*index] & STATE == PENDING && self.enabled(Self::group_of(self.list[*index])))
            .min_by_key(|index| (Self::priority_of(self.list[*index]), *index))?;
        let value = self.list[index];
        let mask = (self.vmcr >> 24 & 0xff) as u32;
        (Self::priority_of(value) < mask && self.group_priority(value) < self.running_priority()).then_some(index)
    }

    /// Group and INTID of the interrupt that is signalled to the guest: as FIQ for group 0, as IRQ for 1.
    #[must_use]
    pub fn signalled(&self) -> Option<(usize, u32)> {
        self.highest().map(|index| (Self::group_of(self.list[index]), (self.list[index] & 0xffff_ffff) as u32))
    }

    /// The guest reads `ICC_IAR<group>_EL1`.
    pub fn acknowledge(&mut self, group: usize) -> u32 {
        let Some(index) = self.highest() else { return SPURIOUS };
        let value = self.list[index];
        if Self::group_of(value) != group {
            return SPURIOUS;
        }
        let level = self.group_priority(value) >> (8 - self.preemption_bits);
        self.active_priorities[group][level as usize / 32] |= 1 << (level % 32);
        let intid = (value & 0xffff_ffff) as u32;
        // "LPIs do not have an active state."
        let is_active = intid < FIRST_LPI || self.lpis_are_active;
        self.list[index] = value & !STATE | if is_active { ACTIVE } else { 0 };
        intid
    }

    /// Clears the highest active priority. `None` if there is none.
    fn drop_priority(&mut self) -> Option<(usize, u32)> {
        for index in 0..4 {
            let [zero, one] = [self.active_priorities[0][index], self.active_priorities[1][index]];
            if zero | one == 0 {
                continue;
            }
            let group = usize::from(zero == 0 || one != 0 && one.trailing_zeros() < zero.trailing_zeros());
            let active = &mut self.active_priorities[group][index];
            let level = index as u32 * 32 + active.trailing_zeros();
            *active &= *active - 1;
            return Some((group, level << (8 - self.preemption_bits)));
        }
        None
    }

    fn count_end(&mut self) {
        let count = (self.hcr >> 27 & 0x1f) + 1 & 0x1f;
        self.hcr = self.hcr & !(0x1f << 27) | count << 27;
    }

    fn make_inactive(&mut self, index: usize) {
        if self.list[index] & HW != 0 {
            self.deactivated.push(IntId((self.list[index] >> 32 & 0x1fff) as u32));
        }
        self.list[index] &= !ACTIVE;
    }

    fn active_index(&self, intid: u32) -> Option<usize> {
        (0..self.list.len())
            .find(|index| self.list[*index] & ACTIVE != 0 && self.list[*index] & 0xffff_ffff == u64::from(intid))
    }

    /// The guest writes `intid` to `ICC_EOIR<group>_EL1`.
    pub fn end(&mut self, group: usize, intid: u32) {
        let Some((dropped_group, dropped)) = self.drop_priority() else { return };
        if self.vmcr >> 9 & 1 != 0 && intid < FIRST_LPI {
            return;
        }
        match self.active_index(intid) {
            Some(index) => {
                let value = self.list[index];
                if Self::group_of(value) == group && dropped_group == group && self.group_priority(value) == dropped {
                    self.make_inactive(index);
                }
            }
            // The end of an LPI drops the priority, and there is nothing to deactivate.
            None if intid >= FIRST_LPI => {}
            None => self.count_end(),
        }
    }

    /// The guest writes `intid` to `ICC_DIR_EL1`.
    pub fn deactivate_interrupt(&mut self, intid: u32) -> Deactivation {
        if self.hcr >> 14 & 1 != 0 {
            return Deactivation::Trapped;
        }
        if self.vmcr >> 9 & 1 != 0 {
            match self.active_index(intid) {
                Some(index) => self.make_inactive(index),
                None if intid >= FIRST_LPI => {}
                None => self.count_end(),
            }
        }
        Deactivation::Done
    }

    /// `ICH_MISR_EL2`: not zero while the maintenance interrupt is asserted.
    #[must_use]
    pub fn maintenance(&self) -> u64 {
        if self.hcr & 1 == 0 {
            return 0;
        }
        let valid = self.list.iter().filter(|value| **value & STATE != 0).count();
        let pending = self.list.iter().any(|value| value & STATE == PENDING);
        let conditions = [
            self.eoi_mask() != 0,
            self.hcr >> 1 & 1 != 0 && valid <= 1,
            self.hcr >> 2 & 1 != 0 && self.hcr >> 27 & 0x1f != 0,
            self.hcr >> 3 & 1 != 0 && !pending,
            self.hcr >> 4 & 1 != 0 && self.vmcr & 1 != 0,
            self.hcr >> 5 & 1 != 0 && self.vmcr & 1 == 0,
            self.hcr >> 6 & 1 != 0 && self.vmcr & 2 != 0,
            self.hcr >> 7 & 1 != 0 && self.vmcr & 2 == 0,
        ];
        conditions.iter().enumerate().map(|(index, asserted)| u64::from(*asserted) << index).sum()
    }

    fn mask_of(&self, condition: impl Fn(u64) -> bool) -> u64 {
        self.list.iter().enumerate().map(|(index, value)| u64::from(condition(*value)) << index).sum()
    }
}

impl ListRegisters for CpuInterface {
    fn read(&self, index: usize) -> u64 {
        self.list[index]
    }

    fn write(&mut self, index: usize, value: u64) {
        assert!(value & 0xffff_ffff < FIRST_LPI.into() || value & (ACTIVE | HW | EOI) == 0, "not for LPIs: {value:#x}");
        assert!(
            value & (STATE | HW) != STATE | HW,
            "pending and active is for software-originated interrupts: {value:#x}"
        );
        let twice = self.list.iter().enumerate().any(|(other, held)| {
            other != index && held & STATE != 0 && value & STATE != 0 && (held ^ value) & 0xffff_ffff == 0
        });
        assert!(!twice, "two list registers must not hold the same interrupt: {value:#x}");
        self.list[index] = value;
    }

    fn empty_mask(&self) -> u64 {
        self.mask_of(|value| value & STATE == 0 && (value & HW != 0 || value & EOI == 0))
    }

    fn eoi_mask(&self) -> u64 {
        self.mask_of(|value| value & (STATE | HW) == 0 && value & EOI != 0)
    }

    fn hcr(&self) -> u64 {
        self.hcr
    }

    fn set_hcr(&mut self, value: u64) {
        self.hcr = value;
    }

    fn vmcr(&self) -> u64 {
        self.vmcr
    }

    fn set_vmcr(&mut self, value: u64) {
        // The binary points cannot be less than the bits that preempt allow (ICH_VMCR_EL2.VBPR0, VBPR1).
        let least = u64::from(7 - self.preemption_bits);
        let group_0 = (value >> 21 & 7).max(least);
        let group_1 = (value >> 18 & 7).max(least + 1);
        self.vmcr = value & !(0x3f << 18) | group_0 << 21 | group_1 << 18;
    }

    fn ap0r(&self, index: usize) -> u64 {
        self.active_priorities[0][index]
    }

    fn set_ap0r(&mut self, index: usize, value: u64) {
        self.active_priorities[0][index] = value;
    }

    fn ap1r(&self, index: usize) -> u64 {
        self.active_priorities[1][index]
    }

    fn set_ap1r(&mut self, index: usize, value: u64) {
        self.active_priorities[1][index] = value;
    }

    fn deactivate(&mut self, physical: IntId) {
        self.deactivated.push(physical);
    }
}
