//! The fields of a syndrome.
//!
//! Answers for: reading `ESR_EL2`, `FAR_EL2` and `HPFAR_EL2` (DDI 0487, "ESR_EL2, Exception Syndrome Register (EL2)", ISS
//! encodings; "HPFAR_EL2"). Does not answer for: what follows from them.

use types::{AccessSize, Ipa, RawExit};

/// A value of `ESR_EL2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Syndrome(pub u64);

/// A value of `ESR_EL2` for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Call(pub Syndrome);

/// A value of `ESR_EL2` for WFI and its relatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Wfx(pub Syndrome);

/// A value of `ESR_EL2` for a data abort from a lower exception level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct DataAbort(pub Syndrome);

/// A value of `ESR_EL2` for a trapped system register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct SysregAccess(pub Syndrome);

/// Exception classes, `ESR_ELx.EC`.
pub(crate) mod class {
    pub(crate) const UNKNOWN: u64 = 0x00;
    pub(crate) const WFX: u64 = 0x01;
    pub(crate) const ILLEGAL_STATE: u64 = 0x0e;
    pub(crate) const HVC: u64 = 0x16;
    pub(crate) const SMC: u64 = 0x17;
    pub(crate) const SYSREG: u64 = 0x18;
    pub(crate) const INSTRUCTION_ABORT_LOWER: u64 = 0x20;
    pub(crate) const DATA_ABORT_LOWER: u64 = 0x24;
    pub(crate) const SERROR: u64 = 0x2f;
    pub(crate) const BREAKPOINT_LOWER: u64 = 0x30;
    pub(crate) const WATCHPOINT_SAME: u64 = 0x35;
    pub(crate) const BRK_A32: u64 = 0x38;
    pub(crate) const VECTOR_CATCH: u64 = 0x3a;
    pub(crate) const BRK: u64 = 0x3c;
}

/// Fault status codes, `ISS.DFSC` and `ISS.IFSC`, without their level where they have one.
pub(crate) mod fault {
    pub(crate) const TRANSLATION: u64 = 0b00_0100;
    pub(crate) const PERMISSION: u64 = 0b00_1100;
    pub(crate) const ALIGNMENT: u64 = 0b10_0001;
    pub(crate) const EXTERNAL: u64 = 0b01_0000;
    pub(crate) const EXTERNAL_ON_WALK: u64 = 0b01_0100;
    pub(crate) const UNSUPPORTED_EXCLUSIVE_OR_ATOMIC: u64 = 0b11_0101;
    /// The codes that carry a level: without it.
    pub(crate) const WITHOUT_LEVEL: u64 = 0b11_1100;
}

impl Syndrome {
    /// `EC`.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> u64 {
        (self.0 >> 26) & 0x3f
    }

    /// Length of the instruction in bytes: `IL`.
    #[inline(always)]
    #[must_use]
    pub const fn instruction_length(self) -> u64 {
        2_u64.wrapping_add((self.0 >> 24) & 2)
    }

    /// `ISS`.
    #[inline(always)]
    #[must_use]
    pub const fn iss(self) -> u64 {
        self.0 & 0x1ff_ffff
    }

    /// `ISS.DFSC` or `ISS.IFSC`.
    #[inline(always)]
    #[must_use]
    pub const fn fault_status(self) -> u64 {
        self.0 & 0x3f
    }

    /// Whether an abort's status is `code` (see `fault`) at any level.
    #[inline(always)]
    #[must_use]
    pub const fn is_fault(self, code: u64) -> bool {
        self.0 & fault::WITHOUT_LEVEL == code
    }

    /// `ISS.S1PTW`: the access was that of a stage 1 table walk.
    #[inline(always)]
    #[must_use]
    pub const fn on_stage_1_walk(self) -> bool {
        self.0 & (1 << 7) != 0
    }
}

impl Call {
    /// Whether it was an SMC: its trap leaves the PC on the instruction, while after an HVC it stands behind it.
    #[inline(always)]
    #[must_use]
    pub const fn is_smc(self) -> bool {
        self.0.class() == class::SMC
    }

    /// The immediate.
    #[inline(always)]
    #[must_use]
    pub const fn immediate(self) -> u64 {
        self.0.0 & 0xffff
    }
}

impl Wfx {
    /// Whether it waits for an event (WFE, WFET), not for an interrupt (WFI, WFIT).
    #[inline(always)]
    #[must_use]
    pub const fn for_event(self) -> bool {
        self.0.0 & 1 != 0
    }

    /// The register with the `CNTVCT_EL0` value at which it gives up waiting (WFIT, WFET; FEAT_WFxT).
    #[inline(always)]
    #[must_use]
    pub const fn timeout_register(self) -> Option<u8> {
        if self.0.0 & 2 != 0 { Some(((self.0.0 >> 5) & 0x1f) as u8) } else { None }
    }
}

impl DataAbort {
    const WNR: u64 = 1 << 6;
    const S1PTW: u64 = 1 << 7;
    const CM: u64 = 1 << 8;
    const EA: u64 = 1 << 9;
    const SF: u64 = 1 << 15;
    const SSE: u64 = 1 << 21;
    const ISV: u64 = 1 << 24;

    /// Whether this is a translation fault of one register's load or store that the syndrome describes.
    #[inline(always)]
    #[must_use]
    pub const fn can_be_emulated(self) -> bool {
        let all = Self::ISV | Self::S1PTW | Self::CM | Self::EA | fault::WITHOUT_LEVEL;
        self.0.0 & all == Self::ISV | fault::TRANSLATION
    }

    /// Whether it is a store to where stage 2 lets the guest only read, with everything in the syndrome that emulation needs but the
    /// address.
    #[inline(always)]
    #[must_use]
    pub const fn is_forbidden_store(self) -> bool {
        let all = Self::ISV | Self::S1PTW | Self::CM | Self::EA | Self::WNR | fault::WITHOUT_LEVEL;
        self.0.0 & all == Self::ISV | Self::WNR | fault::PERMISSION
    }

    /// `WnR`: a store.
    #[inline(always)]
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.0.0 & Self::WNR != 0
    }

    /// `CM`: a cache maintenance or address translation instruction.
    #[inline(always)]
    #[must_use]
    pub const fn is_cache_maintenance(self) -> bool {
        self.0.0 & Self::CM != 0
    }

    /// `ISV`: the fields below are valid.
    #[inline(always)]
    #[must_use]
    pub const fn is_described(self) -> bool {
        self.0.0 & Self::ISV != 0
    }

    /// `SAS`.
    #[inline(always)]
    #[must_use]
    pub const fn size(self) -> AccessSize {
        AccessSize::from_sas(self.0.0 >> 22)
    }

    /// `SRT`: the register transferred; 31 is the zero register.
    #[inline(always)]
    #[must_use]
    pub const fn register(self) -> u8 {
        ((self.0.0 >> 16) & 0x1f) as u8
    }

    /// What a load of `value` leaves in the register: `SSE` extends its sign, `SF` says whether to 64 or to 32 bits (a
    /// 32-bit destination clears the upper half).
    #[inline(always)]
    #[must_use]
    pub const fn loaded(self, value: u64) -> u64 {
        if self.0.0 & Self::SSE != 0 {
            return self.loaded_with_sign(value);
        }
        value & self.size().mask()
    }

    /// Devices are rarely read with a sign: out of line, or every read would compute both.
    #[cold]
    #[inline(never)]
    const fn loaded_with_sign(self, value: u64) -> u64 {
        let extended = self.size().sign_extend(value);
        if self.0.0 & Self::SF == 0 { extended & 0xffff_ffff } else { extended }
    }

    /// The IPA accessed: `HPFAR_EL2.FIPA` has the page, `FAR_EL2` the place in it.
    #[inline(always)]
    #[must_use]
    pub const fn ipa(self, exit: &RawExit) -> Ipa {
        fault_ipa(exit)
    }
}

/// The IPA in `HPFAR_EL2` and `FAR_EL2`. Only valid for translation, address size and access flag faults, and for those on
/// a stage 1 walk (then the place within the page is not the one accessed).
#[inline(always)]
#[must_use]
pub const fn fault_ipa(exit: &RawExit) -> Ipa {
    const FIPA: u64 = 0x0000_0fff_ffff_fff0;
    Ipa(((exit.hpfar & FIPA) << 8) | (exit.far & 0xfff))
}

impl SysregAccess {
    /// The bits of the ISS that name the register: `Op0`, `Op2`, `Op1`, `CRn`, `CRm`.
    const NAME: u64 = 0x3f_fc1e;

    /// The name as [`sysreg`] makes it.
    #[inline(always)]
    #[must_use]
    pub const fn name(self) -> u64 {
        self.0.0 & Self::NAME
    }

    /// `Direction`: MRS or SYSL.
    #[inline(always)]
    #[must_use]
    pub const fn is_read(self) -> bool {
        self.0.0 & 1 != 0
    }

    /// `Rt`.
    #[inline(always)]
    #[must_use]
    pub const fn register(self) -> u8 {
        ((self.0.0 >> 5) & 0x1f) as u8
    }

    /// `(Op0, Op1, CRn, CRm, Op2)`.
    #[must_use]
    pub const fn encoding(self) -> (u64, u64, u64, u64, u64) {
        let iss = self.0.0;
        ((iss >> 20) & 3, (iss >> 14) & 7, (iss >> 10) & 0xf, (iss >> 1) & 0xf, (iss >> 17) & 7)
    }
}

/// The name of a system register or instruction, in the place that the ISS has it.
#[must_use]
pub const fn sysreg(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1
}
