//! The self-hosted and external debug registers (`MDCR_EL2.{TDA,TDOSA,TDRA}` are 1).
//!
//! Answers for: what a guest reads and writes of breakpoints, watchpoints, `MDSCR_EL1` and the OS lock, and what of it the
//! CPU has to do (DDI 0487, "AArch64 Self-hosted Debug", "Debug registers"). All accesses exit; what is compared and
//! stepped is done by the CPU, for a guest that has switched it on ([`DebugRegisters::in_force`]), and its exceptions go
//! to EL1 without EL2. There is no double lock and no external debugger. Does not answer for: the PMU.

use super::syndrome::SysregAccess;
use crate::id_registers::IdRegisters;
use types::{Comparator, DebugState};

/// Debug state of one vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DebugRegisters {
    state: DebugState,
    /// `OSLSR_EL1.OSLK`: set by a reset.
    os_locked: bool,
    /// `DBGCLAIM*_EL1`.
    claim: u64,
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self { state: DebugState::default(), os_locked: true, claim: 0 }
    }
}

/// `MDSCR_EL1` bits that keep what is written: MDE, HDE, KDE, TDCC, SS.
const MDSCR: u64 = MDE | 1 << 14 | KDE | 1 << 12 | SS;
/// Breakpoints and watchpoints are on.
const MDE: u64 = 1 << 15;
/// For EL1, too.
const KDE: u64 = 1 << 13;
/// Software step is on.
const SS: u64 = 1;

/// `DBGBCR<n>_EL1` bits that keep what is written: `BT` but for the types that compare a VMID or EL2's context, `LBN`,
/// `BAS`, `PMC`, `E`. Without `HMC` and `SSC` it is EL1 and EL0 that are compared.
const BREAKPOINT: u64 = 0x003f_01e7;
/// `DBGWCR<n>_EL1`: `MASK`, `WT`, `LBN`, `BAS`, `LSC`, `PAC`, `E`.
const WATCHPOINT: u64 = 0x1f1f_1fff;

/// The registers, `S2_<op1>_C<CRn>_C<CRm>_<op2>`.
enum Register {
    Mdscr,
    Oslar,
    Oslsr,
    ClaimSet,
    ClaimClear,
    /// Value or control of a breakpoint or watchpoint: which, and op2, 4 to 7.
    Comparator(u64, u64),
    /// Reads as zero, writes are ignored.
    Nothing,
    /// The same, but cannot be written.
    ReadOnlyZero,
}

fn find(access: SysregAccess, id: &IdRegisters) -> Option<Register> {
    let (op0, op1, crn, crm, op2) = access.encoding();
    if op0 != 2 {
        return None;
    }
    match (op1, crn, crm, op2) {
        (0, 0, 2, 2) => Some(Register::Mdscr),
        (0, 1, 0, 4) => Some(Register::Oslar),
        (0, 1, 1, 4) => Some(Register::Oslsr),
        (0, 7, 8, 6) => Some(Register::ClaimSet),
        (0, 7, 9, 6) => Some(Register::ClaimClear),
        // DBGBVR, DBGBCR, DBGWVR, DBGWCR.
        (0, 0, index, 4..=7) => {
            let (breakpoints, watchpoints) = id.comparators();
            let there = index < if op2 < 6 { breakpoints } else { watchpoints };
            there.then_some(Register::Comparator(index, op2))
        }
        // MDCCINT; OSDTRRX, OSDTRTX, OSECCR.
        (0, 0, 2, 0) | (0, 0, 0 | 3 | 6, 2)
        // OSDLR, RAZ/WI without double lock; DBGPRCR.
        | (0, 1, 3 | 4, 4)
        // DBGDTR_EL0, DBGDTRRX_EL0, DBGDTRTX_EL0.
        | (3, 0, 4 | 5, 0) => Some(Register::Nothing),
        // MDRAR; DBGAUTHSTATUS, no external debug at any level; MDCCSR_EL0, the channel is empty.
        (0, 1, 0, 0) | (0, 7, 14, 6) | (3, 0, 1, 0) => Some(Register::ReadOnlyZero),
        _ => None,
    }
}

impl DebugRegisters {
    /// What the CPU is to compare and step for this vCPU; `None` as long as debug exceptions are off, which costs nobody
    /// anything.
    pub(super) fn in_force(&self) -> Option<&DebugState> {
        (!self.os_locked && self.state.control & (MDE | SS) != 0).then_some(&self.state)
    }

    /// The value of a register. The outer `None`: no such register; the inner one: it cannot be read.
    pub(super) fn read(&mut self, access: SysregAccess, id: &IdRegisters) -> Option<Option<u64>> {
        /// `OSLSR_EL1.OSLM` 0b10: an OS lock is there.
        const OSLM: u64 = 1 << 3;
        Some(match find(access, id)? {
            Register::Mdscr => Some(self.state.control),
            Register::Oslar => None,
            Register::Oslsr => Some(OSLM | u64::from(self.os_locked) << 1),
            // "RAO/WI: the number of claim tags" is read from the set register.
            Register::ClaimSet => Some(0xff),
            Register::ClaimClear => Some(self.claim),
            Register::Comparator(index, op2) => self.comparator(index, op2).map(|(register, _)| *register),
            Register::Nothing | Register::ReadOnlyZero => Some(0),
        })
    }

    /// Writes a register. `None`: no such register; `Some(false)`: it cannot be written.
    pub(super) fn write(&mut self, access: SysregAccess, id: &IdRegisters, value: u64) -> Option<bool> {
        match find(access, id)? {
            Register::Mdscr => self.state.control = value & MDSCR,
            Register::Oslar => self.os_locked = value & 1 != 0,
            Register::ClaimSet => self.claim |= value & 0xff,
            Register::ClaimClear => self.claim &= !value,
            Register::Comparator(index, op2) => {
                if let Some((register, kept)) = self.comparator(index, op2) {
                    *register = value & kept;
                }
            }
            Register::Nothing => {}
            Register::Oslsr | Register::ReadOnlyZero => return Some(false),
        }
        Some(true)
    }

    /// A register of a breakpoint or watchpoint, and its bits that keep what is written.
    fn comparator(&mut self, index: u64, op2: u64) -> Option<(&mut u64, u64)> {
        let DebugState { breakpoints, watchpoints, .. } = &mut self.state;
        let all = if op2 < 6 { breakpoints } else { watchpoints };
        let Comparator { value, control } = all.get_mut(usize::try_from(index).ok()?)?;
        Some(match op2 {
            // An address, or what CONTEXTIDR_EL1 is to hold.
            4 => (value, u64::MAX),
            5 => (control, BREAKPOINT),
            6 => (value, !0b11),
            _ => (control, WATCHPOINT),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::syndrome::{Syndrome, SysregAccess, sysreg};
    use super::*;

    /// A machine with six breakpoints and four watchpoints.
    fn id() -> IdRegisters {
        crate::testing::host_id(&[(5, 0, 0x1030_5106)])
    }

    fn at(op1: u64, crn: u64, crm: u64, op2: u64) -> SysregAccess {
        SysregAccess(Syndrome(sysreg(2, op1, crn, crm, op2)))
    }

    #[test]
    fn the_os_lock_is_set_by_reset_and_cleared_by_its_access_register() {
        let mut debug = DebugRegisters::default();
        let (oslar, oslsr) = (at(0, 1, 0, 4), at(0, 1, 1, 4));
        assert_eq!(debug.read(oslsr, &id()), Some(Some(0b1010)));
        assert_eq!(debug.write(oslar, &id(), 0), Some(true));
        assert_eq!(debug.read(oslsr, &id()), Some(Some(0b1000)));
        assert_eq!(debug.write(oslar, &id(), 1), Some(true));
        assert_eq!(debug.read(oslsr, &id()), Some(Some(0b1010)));
        assert_eq!(debug.read(oslar, &id()), Some(None), "write-only");
        assert_eq!(debug.write(oslsr, &id(), 0), Some(false), "read-only");
    }

    #[test]
    fn there_are_as_many_comparators_as_the_machine_has() {
        let mut debug = DebugRegisters::default();
        for (op2, count, kept) in [(4, 6, u64::MAX), (5, 6, 0x003f_01e7), (6, 4, !3), (7, 4, 0x1f1f_1fff)] {
            for index in 0..16 {
                let there = index < count;
                let register = at(0, 0, index, op2);
                assert_eq!(debug.write(register, &id(), u64::MAX), there.then_some(true), "{index} {op2}");
                assert_eq!(debug.read(register, &id()), there.then_some(Some(kept)));
            }
        }
        assert_eq!(debug.state.breakpoints[5], Comparator { value: u64::MAX, control: 0x003f_01e7 });
        assert_eq!(debug.state.watchpoints[4], Comparator::default(), "the machine has four");
    }

    #[test]
    fn nothing_is_in_force_until_debug_exceptions_are_on_and_the_lock_is_open() {
        let mut debug = DebugRegisters::default();
        let (oslar, mdscr) = (at(0, 1, 0, 4), at(0, 0, 2, 2));
        debug.write(mdscr, &id(), MDE).unwrap();
        assert_eq!(debug.in_force(), None, "locked");
        debug.write(oslar, &id(), 0).unwrap();
        debug.write(at(0, 0, 1, 6), &id(), 0x1000).unwrap();
        debug.write(at(0, 0, 1, 7), &id(), 0x1ff7).unwrap();
        let state = debug.in_force().unwrap();
        assert_eq!(state.watchpoints[1], Comparator { value: 0x1000, control: 0x1ff7 });
        assert_eq!(state.control, MDE);
        debug.write(mdscr, &id(), SS).unwrap();
        assert!(debug.in_force().is_some(), "a single step needs no breakpoints");
        debug.write(mdscr, &id(), KDE).unwrap();
        assert_eq!(debug.in_force(), None);
    }

    #[test]
    fn the_control_register_keeps_its_defined_bits() {
        let mut debug = DebugRegisters::default();
        let mdscr = at(0, 0, 2, 2);
        assert_eq!(debug.write(mdscr, &id(), u64::MAX), Some(true));
        assert_eq!(debug.read(mdscr, &id()), Some(Some(0xf001)));
    }

    #[test]
    fn claim_tags_are_set_and_cleared_one_by_one() {
        let mut debug = DebugRegisters::default();
        let (set, clear) = (at(0, 7, 8, 6), at(0, 7, 9, 6));
        assert_eq!(debug.read(set, &id()), Some(Some(0xff)), "eight tags");
        assert_eq!(debug.write(set, &id(), 0x105), Some(true));
        assert_eq!(debug.write(clear, &id(), 1), Some(true));
        assert_eq!(debug.read(clear, &id()), Some(Some(4)));
    }

    #[test]
    fn trace_and_external_only_registers_are_not_there() {
        let mut debug = DebugRegisters::default();
        for access in [at(1, 0, 0, 0), at(4, 0, 7, 0), at(0, 7, 15, 7), at(3, 0, 0, 0)] {
            assert_eq!(debug.read(access, &id()), None);
        }
    }
}
