//! What an exit saves, and what it says.

use core::mem::offset_of;
use static_assertions::const_assert_eq;

/// The registers of a vCPU that an exit saves and an entry loads: nothing else is touched between the two. EL1's system
/// registers, list registers, timers and the vector registers stay in the CPU until another vCPU is loaded on it.
///
/// The layout is known to `el2`'s `switch.S`.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct VcpuContext {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Where the guest goes on (`ELR_EL2`).
    pub pc: u64,
    /// With which processor state (`SPSR_EL2`).
    pub pstate: u64,
}

const_assert_eq!(offset_of!(VcpuContext, pc), 248);
const_assert_eq!(offset_of!(VcpuContext, pstate), 256);
const_assert_eq!(size_of::<VcpuContext>(), 272);

impl VcpuContext {
    /// Register `index` as an instruction names it in its `Rt` field: 31 and above is the zero register.
    #[must_use]
    #[inline]
    pub fn register(&self, index: u8) -> u64 {
        self.x.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// Writes register `index`; writing the zero register does nothing.
    #[inline]
    pub fn set_register(&mut self, index: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(index)) {
            *register = value;
        }
    }

    /// Steps over the instruction that trapped. `length` is 4, or 2 for a 16-bit T32 instruction (`ESR_ELx.IL`). What
    /// hangs on the step hangs on it here too: `PSTATE.SS`, `PSTATE.BTYPE` (and the IT state of AArch32, which no guest has).
    #[inline]
    pub fn step(&mut self, length: u64) {
        self.pc = self.pc.wrapping_add(length);
        self.pstate &= !(Pstate::SS | Pstate::BTYPE);
    }
}

/// Fields of `SPSR_ELx` for AArch64 state (DDI 0487, SPSR_EL2).
#[derive(Debug)]
pub struct Pstate;

impl Pstate {
    /// Mask FIQ.
    pub const F: u64 = 1 << 6;
    /// Mask IRQ.
    pub const I: u64 = 1 << 7;
    /// Mask SError.
    pub const A: u64 = 1 << 8;
    /// Mask debug exceptions.
    pub const D: u64 = 1 << 9;
    /// Branch type, with FEAT_BTI.
    pub const BTYPE: u64 = 3 << 10;
    /// Speculative store bypass safe.
    pub const SSBS: u64 = 1 << 12;
    /// Illegal execution state.
    pub const IL: u64 = 1 << 20;
    /// Software step.
    pub const SS: u64 = 1 << 21;
    /// Privileged access never.
    pub const PAN: u64 = 1 << 22;
    /// User access override.
    pub const UAO: u64 = 1 << 23;
    /// Data-independent timing.
    pub const DIT: u64 = 1 << 24;
    /// Tag check override.
    pub const TCO: u64 = 1 << 25;
    /// Condition flags N, Z, C, V.
    pub const NZCV: u64 = 0xf << 28;
    /// Exception level and stack pointer, with the AArch32 bit.
    pub const MODE: u64 = 0x1f;
    /// `MODE` of EL0.
    pub const EL0T: u64 = 0b0000;
    /// `MODE` of EL1 on SP_EL0.
    pub const EL1T: u64 = 0b0100;
    /// `MODE` of EL1 on SP_EL1.
    pub const EL1H: u64 = 0b0101;
}

/// The state a vCPU starts in: EL1 on its own stack pointer, everything masked (PSCI 1.1, DEN 0022, "Initial core
/// configuration"; the same for the first vCPU).
pub const EL1_RESET_PSTATE: u64 = Pstate::D | Pstate::A | Pstate::I | Pstate::F | Pstate::EL1H;

/// Through which vector the guest came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum RawExitKind {
    /// A synchronous exception: `esr`, and for aborts `far` and `hpfar`, say which.
    Synchronous = 0,
    /// A physical interrupt is pending.
    Irq = 1,
    /// A physical FIQ is pending.
    Fiq = 2,
    /// An SError: an asynchronous abort or a RAS event.
    SError = 3,
}

/// An exit as the CPU reports it; `vm` gives it a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RawExit {
    /// Which vector.
    pub kind: RawExitKind,
    /// `ESR_EL2`.
    pub esr: u64,
    /// `FAR_EL2`: the virtual address, for aborts.
    pub far: u64,
    /// `HPFAR_EL2`: the page of the IPA, for stage 2 aborts.
    pub hpfar: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_31_is_zero_and_takes_nothing() {
        let mut context = VcpuContext::default();
        context.set_register(30, 7);
        context.set_register(31, 7);
        assert_eq!(context.register(30), 7);
        assert_eq!(context.register(31), 0);
    }

    #[test]
    fn a_step_clears_the_single_step_and_branch_type_state() {
        let mut context = VcpuContext { pc: u64::MAX - 3, pstate: u64::MAX, ..Default::default() };
        context.step(4);
        assert_eq!(context.pc, 0);
        assert_eq!(context.pstate & (Pstate::SS | Pstate::BTYPE), 0);
    }
}
