//! What a guest came out for.
//!
//! Answers for: sorting exits by exception class (DDI 0487, "ESR_EL2, Exception Syndrome Register (EL2)"). Does not answer
//! for: the fields of the syndrome (`syndrome`), nor for what to do about it. The payloads are the syndrome itself, so that
//! decoding is a few shifts and nothing is built.

use super::syndrome::{Call, DataAbort, Syndrome, SysregAccess, Wfx, class};
use types::{RawExit, RawExitKind};

/// What a guest came out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A physical interrupt: the host's.
    Irq,
    /// HVC or SMC.
    Call(Call),
    /// A load or store to where stage 2 maps nothing, with everything needed to emulate it in the syndrome.
    Mmio(DataAbort),
    /// A store to what stage 2 maps read-only, described likewise.
    Store(DataAbort),
    /// A trapped MSR, MRS or system instruction.
    Sysreg(SysregAccess),
    /// WFI, WFE, WFIT, WFET.
    Wfx(Wfx),
    /// Any other.
    Rare(Rare),
}

/// What a guest seldom comes out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rare {
    /// Any other abort of a load, store or cache maintenance instruction at stage 2.
    DataAbort(DataAbort),
    /// An abort of an instruction fetch at stage 2.
    InstructionAbort(Syndrome),
    /// An asynchronous abort, or a RAS event.
    SystemError(Syndrome),
    /// A debug exception, routed to EL2 although nothing asks for that.
    Debug(Syndrome),
    /// `PSTATE.IL` was set.
    IllegalState,
    /// An instruction of a feature that this guest does not have.
    Undefined,
}

impl Exit {
    /// What `exit` means.
    #[inline(always)]
    #[must_use]
    pub fn decode(exit: &RawExit) -> Self {
        let syndrome = Syndrome(exit.esr);
        if exit.kind == RawExitKind::Synchronous {
            return Self::decode_synchronous(syndrome);
        }
        if exit.kind == RawExitKind::SError { Self::Rare(Rare::SystemError(syndrome)) } else { Self::Irq }
    }

    #[inline(always)]
    fn decode_synchronous(syndrome: Syndrome) -> Self {
        // The frequent ones by comparison, which is shorter than a jump through a table.
        match syndrome.class() {
            class::DATA_ABORT_LOWER => {
                let abort = DataAbort(syndrome);
                if abort.can_be_emulated() {
                    Self::Mmio(abort)
                } else if abort.is_forbidden_store() {
                    Self::Store(abort)
                } else {
                    Self::Rare(Rare::DataAbort(abort))
                }
            }
            class::HVC | class::SMC => Self::Call(Call(syndrome)),
            class::SYSREG => Self::Sysreg(SysregAccess(syndrome)),
            class::WFX => Self::Wfx(Wfx(syndrome)),
            _ => Self::Rare(Rare::decode(syndrome)),
        }
    }
}

impl Rare {
    #[inline(never)]
    fn decode(syndrome: Syndrome) -> Self {
        match syndrome.class() {
            class::INSTRUCTION_ABORT_LOWER => Self::InstructionAbort(syndrome),
            class::ILLEGAL_STATE => Self::IllegalState,
            class::SERROR => Self::SystemError(syndrome),
            class::BREAKPOINT_LOWER..=class::WATCHPOINT_SAME | class::BRK_A32 | class::VECTOR_CATCH | class::BRK => {
                Self::Debug(syndrome)
            }
            // FP, SVE, SME and pointer authentication that were not given; traps of an EL0 in AArch32; and every class
            // that is yet to be defined.
            _ => Self::Undefined,
        }
    }
}

#[cfg(test)]
mod tests;
