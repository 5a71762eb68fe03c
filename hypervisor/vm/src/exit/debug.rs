//! The self-hosted and external debug registers (`MDCR_EL2.{TDA,TDOSA,TDRA}` are 1).
//!
//! Answers for: what a guest reads and writes on a machine whose `ID_AA64DFR0_EL1` shows the least that the architecture
//! allows: two breakpoints, two watchpoints, no double lock, no external debugger (DDI 0487, "Debug registers"). Does not
//! answer for: debugging. Breakpoints and watchpoints are RAZ/WI and never hit; MDSCR_EL1 keeps what is written and has no
//! effect. A PMU is not shown, so its registers do not exist (`unsupported register`).

use super::syndrome::SysregAccess;

/// Debug state of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DebugRegisters {
    mdscr: u64,
    /// `OSLSR_EL1.OSLK`: set by a reset.
    os_locked: bool,
    /// `DBGCLAIM*_EL1`.
    claim: u64,
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self { mdscr: 0, os_locked: true, claim: 0 }
    }
}

/// Breakpoints, and watchpoints, that there are.
const COMPARATORS: u64 = 2;

/// `MDSCR_EL1` bits that keep what is written: MDE, HDE, KDE, TDCC, SS.
const MDSCR: u64 = 1 << 15 | 1 << 14 | 1 << 13 | 1 << 12 | 1;

/// The registers, `S2_<op1>_C<CRn>_C<CRm>_<op2>`.
enum Register {
    Mdscr,
    Oslar,
    Oslsr,
    ClaimSet,
    ClaimClear,
    /// Reads as zero, writes are ignored.
    Nothing,
    /// The same, but cannot be written.
    ReadOnlyZero,
}

fn find(access: SysregAccess) -> Option<Register> {
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
        (0, 0, index, 4..=7) if index >= COMPARATORS => None,
        (0, 0, _, 4..=7)
        // MDCCINT; OSDTRRX, OSDTRTX, OSECCR.
        | (0, 0, 2, 0) | (0, 0, 0 | 3 | 6, 2)
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
    /// The value of a register. The outer `None`: no such register; the inner one: it cannot be read.
    pub(super) fn read(&self, access: SysregAccess) -> Option<Option<u64>> {
        /// `OSLSR_EL1.OSLM` 0b10: an OS lock is there.
        const OSLM: u64 = 1 << 3;
        Some(match find(access)? {
            Register::Mdscr => Some(self.mdscr),
            Register::Oslar => None,
            Register::Oslsr => Some(OSLM | u64::from(self.os_locked) << 1),
            // "RAO/WI: the number of claim tags" is read from the set register.
            Register::ClaimSet => Some(0xff),
            Register::ClaimClear => Some(self.claim),
            Register::Nothing | Register::ReadOnlyZero => Some(0),
        })
    }

    /// Writes a register. `None`: no such register; `Some(false)`: it cannot be written.
    pub(super) fn write(&mut self, access: SysregAccess, value: u64) -> Option<bool> {
        match find(access)? {
            Register::Mdscr => self.mdscr = value & MDSCR,
            Register::Oslar => self.os_locked = value & 1 != 0,
            Register::ClaimSet => self.claim |= value & 0xff,
            Register::ClaimClear => self.claim &= !value,
            Register::Nothing => {}
            Register::Oslsr | Register::ReadOnlyZero => return Some(false),
        }
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::syndrome::{Syndrome, SysregAccess, sysreg};
    use super::*;

    fn at(op1: u64, crn: u64, crm: u64, op2: u64) -> SysregAccess {
        SysregAccess(Syndrome(sysreg(2, op1, crn, crm, op2)))
    }

    #[test]
    fn the_os_lock_is_set_by_reset_and_cleared_by_its_access_register() {
        let mut debug = DebugRegisters::default();
        let (oslar, oslsr) = (at(0, 1, 0, 4), at(0, 1, 1, 4));
        assert_eq!(debug.read(oslsr), Some(Some(0b1010)));
        assert_eq!(debug.write(oslar, 0), Some(true));
        assert_eq!(debug.read(oslsr), Some(Some(0b1000)));
        assert_eq!(debug.write(oslar, 1), Some(true));
        assert_eq!(debug.read(oslsr), Some(Some(0b1010)));
        assert_eq!(debug.read(oslar), Some(None), "write-only");
        assert_eq!(debug.write(oslsr, 0), Some(false), "read-only");
    }

    #[test]
    fn there_are_two_breakpoints_and_two_watchpoints() {
        let mut debug = DebugRegisters::default();
        for op2 in 4..=7 {
            for index in 0..16 {
                let there = index < 2;
                assert_eq!(debug.read(at(0, 0, index, op2)), there.then_some(Some(0)), "{index} {op2}");
                assert_eq!(debug.write(at(0, 0, index, op2), u64::MAX), there.then_some(true));
            }
        }
    }

    #[test]
    fn the_control_register_keeps_its_defined_bits() {
        let mut debug = DebugRegisters::default();
        let mdscr = at(0, 0, 2, 2);
        assert_eq!(debug.write(mdscr, u64::MAX), Some(true));
        assert_eq!(debug.read(mdscr), Some(Some(0xf001)));
    }

    #[test]
    fn claim_tags_are_set_and_cleared_one_by_one() {
        let mut debug = DebugRegisters::default();
        let (set, clear) = (at(0, 7, 8, 6), at(0, 7, 9, 6));
        assert_eq!(debug.read(set), Some(Some(0xff)), "eight tags");
        assert_eq!(debug.write(set, 0x105), Some(true));
        assert_eq!(debug.write(clear, 1), Some(true));
        assert_eq!(debug.read(clear), Some(Some(4)));
    }

    #[test]
    fn trace_and_external_only_registers_are_not_there() {
        let debug = DebugRegisters::default();
        for access in [at(1, 0, 0, 0), at(4, 0, 7, 0), at(0, 7, 15, 7), at(3, 0, 0, 0)] {
            assert_eq!(debug.read(access), None);
        }
    }
}
