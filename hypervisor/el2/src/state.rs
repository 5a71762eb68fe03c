//! What stays in the CPU between a vCPU's exits, and is exchanged only when another vCPU is loaded.

use types::Ticks;

/// Takes registers out of the CPU, two at a time: one store for both.
macro_rules! save_pairs {
    ($to:ident:) => {};
    ($to:ident: $field:ident $name:literal) => { $to.$field = read_register!($name); };
    ($to:ident: $first:ident $first_name:literal $second:ident $second_name:literal $($rest:tt)*) => {
        let (first, second) = (read_register!($first_name), read_register!($second_name));
        ($to.$first, $to.$second) = (first, second);
        save_pairs!($to: $($rest)*);
    };
}

/// The inverse.
macro_rules! load_pairs {
    ($from:ident:) => {};
    ($from:ident: $field:ident $name:literal) => { write_register!($name, $from.$field); };
    ($from:ident: $first:ident $first_name:literal $second:ident $second_name:literal $($rest:tt)*) => {
        let (first, second) = ($from.$first, $from.$second);
        write_register!($first_name, first);
        write_register!($second_name, second);
        load_pairs!($from: $($rest)*);
    };
}

macro_rules! el1_state {
    ($($(#[$doc:meta])* $field:ident: $name:literal = $reset:expr;)*) => {
        /// EL1's system registers, and EL0's that EL1 manages. The virtual timer and the interrupt controller interface are
        /// apart ([`VirtualTimer`], [`crate::interface`]).
        #[derive(Clone, Debug)]
        #[repr(C)]
        pub struct El1State {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl El1State {
            /// As a CPU comes out of reset or is switched on by PSCI. What the architecture leaves unknown is zero: a guest
            /// sees nothing of its predecessor.
            #[must_use]
            pub const fn reset() -> Self {
                Self { $($field: $reset,)* }
            }

            /// Takes the registers out of the CPU.
            #[inline(always)]
            pub fn save(&mut self) {
                save_pairs!(self: $($field $name)*);
            }

            /// Puts them into the CPU. The exception return that follows synchronises.
            #[inline(always)]
            pub fn load(&self) {
                load_pairs!(self: $($field $name)*);
            }
        }
    };
}

/// SCTLR_EL1 out of reset: MMU and caches off, the RES1 bits of ARMv8.0 (LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS, ITD? no).
const SCTLR_EL1_RESET: u64 = (3 << 28) | (3 << 22) | (1 << 20) | (1 << 11);

el1_state! {
    /// Stack pointer of EL0.
    sp_el0: "sp_el0" = 0;
    /// Stack pointer of EL1.
    sp_el1: "sp_el1" = 0;
    /// Exception link register.
    elr: "elr_el1" = 0;
    /// Saved program status.
    spsr: "spsr_el1" = 0;
    /// System control.
    sctlr: "sctlr_el1" = SCTLR_EL1_RESET;
    /// Access control to floating point.
    cpacr: "cpacr_el1" = 0;
    /// Translation table base 0.
    ttbr0: "ttbr0_el1" = 0;
    /// Translation table base 1.
    ttbr1: "ttbr1_el1" = 0;
    /// Translation control.
    tcr: "tcr_el1" = 0;
    /// Exception syndrome.
    esr: "esr_el1" = 0;
    /// Fault address.
    far: "far_el1" = 0;
    /// Auxiliary fault status 0.
    afsr0: "afsr0_el1" = 0;
    /// Auxiliary fault status 1.
    afsr1: "afsr1_el1" = 0;
    /// Memory attributes.
    mair: "mair_el1" = 0;
    /// Auxiliary memory attributes.
    amair: "amair_el1" = 0;
    /// Vector base.
    vbar: "vbar_el1" = 0;
    /// Context identifier.
    contextidr: "contextidr_el1" = 0;
    /// Thread pointer of EL0.
    tpidr_el0: "tpidr_el0" = 0;
    /// Read-only thread pointer of EL0.
    tpidrro_el0: "tpidrro_el0" = 0;
    /// Thread pointer of EL1.
    tpidr_el1: "tpidr_el1" = 0;
    /// Physical address register, the result of AT instructions.
    par: "par_el1" = 0;
    /// Cache size selection.
    csselr: "csselr_el1" = 0;
    /// EL0's access to the timers.
    cntkctl: "cntkctl_el1" = 0;
}

macro_rules! el1_by_name {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// Registers of the loaded vCPU's EL1 that are read and written one at a time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum El1 {
            $($(#[$doc])* $variant,)*
        }

        /// Reads one out of the CPU.
        #[must_use]
        #[inline]
        pub fn read_el1(register: El1) -> u64 {
            match register {
                $(El1::$variant => read_register!($name),)*
            }
        }

        /// Writes one in the CPU.
        #[inline]
        pub fn write_el1(register: El1, value: u64) {
            match register {
                $(El1::$variant => write_register!($name, value),)*
            }
        }
    };
}

el1_by_name! {
    /// SP_EL0
    SpEl0 = "sp_el0",
    /// SP_EL1
    SpEl1 = "sp_el1",
    /// SCTLR_EL1
    Sctlr = "sctlr_el1",
    /// TCR_EL1
    Tcr = "tcr_el1",
    /// TTBR0_EL1
    Ttbr0 = "ttbr0_el1",
    /// TTBR1_EL1
    Ttbr1 = "ttbr1_el1",
    /// VBAR_EL1
    Vbar = "vbar_el1",
    /// ELR_EL1
    Elr = "elr_el1",
    /// SPSR_EL1
    Spsr = "spsr_el1",
    /// ESR_EL1
    Esr = "esr_el1",
    /// FAR_EL1
    Far = "far_el1",
    /// CNTV_CTL_EL0
    CntvCtl = "cntv_ctl_el0",
}

/// `PAR_EL1` after translating `address` by the loaded vCPU's stage 1 as a load by EL1 (`AT S1E1R`). The guest's own result
/// of such an instruction is left as it was.
#[must_use]
pub fn translate_el1(address: u64) -> u64 {
    let guests = read_register!("par_el1");
    instructions!("at s1e1r, {address}", "isb", address = address);
    let result = read_register!("par_el1");
    write_register!("par_el1", guests);
    result
}

macro_rules! pointer_authentication {
    ($($name:literal),*) => {
        /// The pointer authentication keys (FEAT_PAuth): two words for each of APIA, APIB, APDA, APDB, APGA.
        #[derive(Clone, Debug, Default)]
        pub struct PointerAuthenticationKeys([u64; 10]);

        impl PointerAuthenticationKeys {
            /// Takes the keys out of the CPU, which has FEAT_PAuth.
            #[inline(never)]
            pub fn save(&mut self) {
                let mut keys = self.0.iter_mut();
                $(if let Some(key) = keys.next() { *key = read_register!($name); })*
            }

            /// Puts them into the CPU, which has FEAT_PAuth.
            #[inline(never)]
            pub fn load(&self) {
                let mut keys = self.0.iter();
                $(if let Some(key) = keys.next() { write_register!($name, *key); })*
            }
        }
    };
}

pointer_authentication!(
    "s3_0_c2_c1_0",
    "s3_0_c2_c1_1",
    "s3_0_c2_c1_2",
    "s3_0_c2_c1_3",
    "s3_0_c2_c2_0",
    "s3_0_c2_c2_1",
    "s3_0_c2_c2_2",
    "s3_0_c2_c2_3",
    "s3_0_c2_c3_0",
    "s3_0_c2_c3_1"
);

/// The vector registers with their control and status.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct FpState {
    q: [u128; 32],
    fpsr: u64,
    fpcr: u64,
}

static_assertions::const_assert_eq!(core::mem::offset_of!(FpState, fpsr), 512);

unsafe extern "C" {
    fn el2_save_fp(state: *mut FpState);
    fn el2_load_fp(state: *const FpState);
}

impl FpState {
    /// All zero.
    #[must_use]
    pub const fn reset() -> Self {
        Self { q: [0; 32], fpsr: 0, fpcr: 0 }
    }

    /// Vector register `index` as it was last taken out of the CPU; `None` beyond 31.
    #[must_use]
    pub fn vector(&mut self, index: u8) -> Option<&mut u128> {
        self.q.get_mut(usize::from(index))
    }

    /// V0 to V31, FPSR and FPCR.
    #[must_use]
    pub const fn registers(&self) -> (&[u128; 32], u64, u64) {
        (&self.q, self.fpsr, self.fpcr)
    }

    /// Takes the registers out of the CPU. The FP trap of EL2 is off.
    pub fn save(&mut self) {
        // SAFETY: the pointer is valid for writes of the whole structure, whose layout the assembly knows.
        unsafe { el2_save_fp(self) }
    }

    /// Puts them into the CPU. The FP trap of EL2 is off.
    pub fn load(&self) {
        // SAFETY: the pointer is valid for reads; compiled code does not use these registers.
        unsafe { el2_load_fp(self) }
    }
}

/// Whether a guest's use of vector registers comes to EL2 (`CPTR_EL2.TFP`). SVE, SME, trace and activity monitors always do.
/// Synchronises, because EL2 touches the registers next.
pub fn trap_fp(trap: bool) {
    const RES1: u64 = 0x33ff; // with TZ and TSM, which trap SVE and SME where they exist
    const TAM: u64 = 1 << 30;
    const TTA: u64 = 1 << 20;
    const TFP: u64 = 1 << 10;
    write_register!("cptr_el2", RES1 | TAM | TTA | if trap { TFP } else { 0 });
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// The EL1 virtual timer.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct VirtualTimer {
    /// CNTV_CTL_EL0: bit 0 ENABLE, bit 1 IMASK, bit 2 ISTATUS.
    pub control: u64,
    /// CNTV_CVAL_EL0, in the guest's time.
    pub compare: u64,
}

impl VirtualTimer {
    /// Takes the timer out of the CPU and stops it there.
    #[inline]
    pub fn save(&mut self) {
        let control = read_register!("cntv_ctl_el0");
        write_register!("cntv_ctl_el0", 0);
        (self.control, self.compare) = (control, read_register!("cntv_cval_el0"));
        aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
    }

    /// The loaded vCPU's, as it is in the CPU.
    #[must_use]
    pub fn now() -> Self {
        Self { control: read_register!("cntv_ctl_el0"), compare: read_register!("cntv_cval_el0") }
    }

    /// Puts it into the CPU, where it goes on counting towards `compare`.
    #[inline]
    pub fn load(&self) {
        let Self { control, compare } = *self;
        write_register!("cntv_cval_el0", compare);
        aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
        write_register!("cntv_ctl_el0", control);
    }
}

/// Whether the loaded vCPU's virtual timer asserts its interrupt: enabled, not masked, its time come.
#[must_use]
#[inline]
pub fn virtual_timer_is_due() -> bool {
    read_register!("cntv_ctl_el0") & 7 == 5
}

/// EL2's controls of one vCPU.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Controls {
    /// HCR_EL2.
    pub hcr: u64,
    /// VMPIDR_EL2: what the guest reads as its MPIDR_EL1.
    pub vmpidr: u64,
    /// VPIDR_EL2: what the guest reads as its MIDR_EL1.
    pub vpidr: u64,
    /// CNTVOFF_EL2: physical minus virtual count.
    pub counter_offset: u64,
}

impl Controls {
    /// Puts them into the CPU.
    #[inline(always)]
    pub fn load(&self) {
        load_pairs!(self: hcr "hcr_el2" vmpidr "vmpidr_el2" vpidr "vpidr_el2" counter_offset "cntvoff_el2");
    }
}

/// Stage 2 of the CPU. Between [`stage2::leave`] and [`stage2::enter`] the registers of EL1 are exchanged, and whatever the CPU
/// translates by them, such as an address translation instruction that it executes speculatively, ends in a fault
/// (`docs/design/022-silicon.md`).
pub mod stage2 {
    /// No guest has run on this CPU yet. `vtcr` is the same for all guests, `nobody` a VTTBR_EL2 whose root maps nothing.
    pub fn initialise(vtcr: u64, nobody: u64) {
        write_register!("vtcr_el2", vtcr);
        write_register!("vttbr_el2", nobody);
        write_register!("hcr_el2", read_register!("hcr_el2") | super::hcr::VM);
        instructions!("isb", "tlbi alle1", "dsb nsh", "isb");
    }

    /// The guest's registers are about to be taken out. The barrier ends the walks it has begun (DDI 0487, "Out-of-context
    /// translation regimes"), and its own maintenance, for which it may wait on another CPU.
    #[inline(always)]
    pub fn leave(nobody: u64) {
        instructions!("dsb ish");
        write_register!("vttbr_el2", nobody);
        instructions!("isb");
    }

    /// The guest's registers have been written: here is its stage 2. The exception return synchronises.
    #[inline(always)]
    pub fn enter(vttbr: u64) {
        instructions!("isb");
        write_register!("vttbr_el2", vttbr);
    }
}

/// Bits of HCR_EL2 (DDI 0487, HCR_EL2).
pub mod hcr {
    /// Stage 2 translation on.
    pub const VM: u64 = 1 << 0;
    /// Set/way invalidation becomes clean and invalidate.
    pub const SWIO: u64 = 1 << 1;
    /// A stage 1 walk that touches Device memory faults.
    pub const PTW: u64 = 1 << 2;
    /// FIQs come to EL2.
    pub const FMO: u64 = 1 << 3;
    /// IRQs come to EL2.
    pub const IMO: u64 = 1 << 4;
    /// SErrors come to EL2.
    pub const AMO: u64 = 1 << 5;
    /// TLB and cache maintenance of the guest reaches the other CPUs.
    pub const FB: u64 = 1 << 9;
    /// Barriers reach at least the Inner Shareable domain.
    pub const BSU_INNER: u64 = 1 << 10;
    /// Trap WFI.
    pub const TWI: u64 = 1 << 13;
    /// Trap WFE.
    pub const TWE: u64 = 1 << 14;
    /// Trap identification group 3.
    pub const TID3: u64 = 1 << 18;
    /// Trap SMC.
    pub const TSC: u64 = 1 << 19;
    /// Trap implementation defined registers.
    pub const TIDCP: u64 = 1 << 20;
    /// Trap auxiliary control registers.
    pub const TACR: u64 = 1 << 21;
    /// Trap maintenance by set/way.
    pub const TSW: u64 = 1 << 22;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// Do not trap the pointer authentication keys.
    pub const APK: u64 = 1 << 40;
    /// Do not trap pointer authentication instructions.
    pub const API: u64 = 1 << 41;
}

/// Whether the CPU has pointer authentication, by any algorithm (`ID_AA64ISAR1_EL1` APA, API; `ID_AA64ISAR2_EL1` APA3).
#[must_use]
pub fn has_pointer_authentication() -> bool {
    let isar1 = read_register!("id_aa64isar1_el1");
    let isar2 = read_register!("s3_0_c0_c6_2");
    (isar1 >> 4) & 0xff != 0 || (isar2 >> 12) & 0xf != 0
}

/// What a vCPU has only on CPUs with the extension behind it.
#[derive(Clone, Debug)]
pub struct ExtensionState {
    keys: Option<PointerAuthenticationKeys>,
    /// VDISR_EL2, which a guest reaches as DISR_EL1 (FEAT_RAS). No trap covers it.
    deferred_error: Option<u64>,
}

impl ExtensionState {
    /// As a CPU like this one comes out of reset.
    #[must_use]
    pub fn reset() -> Self {
        Self {
            keys: has_pointer_authentication().then(PointerAuthenticationKeys::default),
            deferred_error: crate::traps::has_deferred_errors().then_some(0),
        }
    }

    /// Whether there is nothing of the kind on this CPU.
    #[must_use]
    pub const fn none(&self) -> bool {
        self.keys.is_none() && self.deferred_error.is_none()
    }

    /// Takes it out of the CPU.
    #[inline]
    pub fn save(&mut self) {
        if let Some(keys) = &mut self.keys {
            keys.save();
        }
        if let Some(deferred_error) = &mut self.deferred_error {
            *deferred_error = read_register!("s3_4_c12_c1_1");
        }
    }

    /// Puts it into the CPU.
    #[inline]
    pub fn load(&self) {
        if let Some(keys) = &self.keys {
            keys.load();
        }
        if let Some(deferred_error) = self.deferred_error {
            write_register!("s3_4_c12_c1_1", deferred_error);
        }
    }
}

/// Arms EL2's own timer to fire at `deadline`, or stops it for [`Ticks::NEVER`].
#[inline(always)]
pub fn set_hypervisor_timer(deadline: Ticks) {
    if deadline == Ticks::NEVER {
        write_register!("cnthp_ctl_el2", 0);
    } else {
        write_register!("cnthp_cval_el2", deadline.0);
        write_register!("cnthp_ctl_el2", 1);
    }
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}
