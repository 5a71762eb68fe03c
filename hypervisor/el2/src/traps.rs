//! What of the CPU a guest does not reach: the controls of EL2 that are the same for every guest.
//!
//! Answers for: every register of EL1 and EL0 that is neither exchanged between vCPUs ([`crate::state`]) nor shown to guests
//! traps to EL2, on cores of any age. Extensions are asked for by the identification registers; a control is written only
//! where it exists. Does not answer for: what a trapped access gets (`vm`), `HCR_EL2`, which comes with the vCPU.
//!
//! Follows DDI 0487, the descriptions of the `_EL2` control registers; DDI 0598 for MPAM.

/// What the identification registers say about extensions that have registers at EL1 or EL0.
struct Extensions {
    pfr0: u64,
    pfr1: u64,
    dfr0: u64,
    mmfr0: u64,
    mmfr1: u64,
}

/// A field of four bits.
const fn field(register: u64, shift: u32) -> u64 {
    (register >> shift) & 0xf
}

impl Extensions {
    fn here() -> Self {
        Self {
            pfr0: read_register!("id_aa64pfr0_el1"),
            pfr1: read_register!("id_aa64pfr1_el1"),
            dfr0: read_register!("id_aa64dfr0_el1"),
            mmfr0: read_register!("id_aa64mmfr0_el1"),
            mmfr1: read_register!("id_aa64mmfr1_el1"),
        }
    }

    /// FEAT_RAS: error records and deferred errors.
    const fn ras(&self) -> bool {
        field(self.pfr0, 28) != 0
    }
    /// FEAT_MPAM: `MPAM`, or `MPAM_frac` for v0.1.
    const fn mpam(&self) -> bool {
        field(self.pfr0, 40) != 0 || field(self.pfr1, 16) != 0
    }
    /// FEAT_MTE2: tags in memory. The less that FEAT_MTE alone is has no registers.
    const fn mte2(&self) -> bool {
        field(self.pfr1, 8) >= 2
    }
    /// FEAT_SME.
    const fn sme(&self) -> bool {
        field(self.pfr1, 24) != 0
    }
    /// FEAT_NMI.
    const fn nmi(&self) -> bool {
        field(self.pfr1, 36) != 0
    }
    /// FEAT_PMUv3; 0b1111 is something else.
    const fn pmu(&self) -> bool {
        !matches!(field(self.dfr0, 8), 0 | 0xf)
    }
    /// FEAT_SPE: statistical profiling.
    const fn spe(&self) -> bool {
        field(self.dfr0, 32) != 0
    }
    /// FEAT_TRF: trace filters.
    const fn trf(&self) -> bool {
        field(self.dfr0, 40) != 0
    }
    /// FEAT_TRBE: trace buffer.
    const fn trbe(&self) -> bool {
        field(self.dfr0, 44) != 0
    }
    /// FEAT_LOR: limited ordering regions.
    const fn lor(&self) -> bool {
        field(self.mmfr1, 16) != 0
    }
    /// FEAT_HCX.
    const fn hcx(&self) -> bool {
        field(self.mmfr1, 40) != 0
    }
    /// FEAT_FGT, 2 with FEAT_FGT2.
    const fn fgt(&self) -> u64 {
        field(self.mmfr0, 56)
    }
}

/// Bits of `HCR_EL2` that hide extensions of this CPU.
#[must_use]
pub fn hcr_of_extensions() -> u64 {
    const TID1: u64 = 1 << 16; // SMIDR_EL1, with REVIDR_EL1 and AIDR_EL1
    const TLOR: u64 = 1 << 35; // LOR*_EL1
    const TERR: u64 = 1 << 36; // ERR*_EL1, ERX*_EL1
    const TID5: u64 = 1 << 58; // GMID_EL1
    let here = Extensions::here();
    let bit = |there: bool, bit: u64| if there { bit } else { 0 };
    bit(here.sme(), TID1) | bit(here.lor(), TLOR) | bit(here.ras(), TERR) | bit(here.mte2(), TID5)
}

/// Whether the CPU has FEAT_RAS, and so a deferred error status that a guest can read and write
/// ([`crate::state::ExtensionState`]).
#[must_use]
pub fn has_deferred_errors() -> bool {
    Extensions::here().ras()
}

/// Sets all of it, whatever firmware left. On every CPU, once.
pub fn initialise() {
    let here = Extensions::here();
    debug(&here);
    write_register!("hstr_el2", 0);
    write_register!("cnthctl_el2", 0); // EL1's reads of the physical counter and timer come to us
    write_register!("cnthp_ctl_el2", 0);
    write_register!("cntv_ctl_el0", 0);
    write_register!("cntp_ctl_el0", 0); // guests' is emulated, and this one nobody's
    if here.ras() {
        write_register!("s3_4_c5_c2_3", 0); // VSESR_EL2
        write_register!("s3_4_c12_c1_1", 0); // VDISR_EL2
    }
    fine_grained(&here);
    if here.hcx() {
        const TALLINT: u64 = 1 << 6;
        // None of the features that it would hand to a guest; and no writes of PSTATE.ALLINT.
        write_register!("s3_4_c1_c2_2", if here.nmi() { TALLINT } else { 0 }); // HCRX_EL2
    }
    if here.mpam() {
        memory_partitioning();
    }
    // Ends with the barrier for all of them.
    crate::state::trap_fp(true);
}

/// Self-hosted and external debug, performance monitors, profiling and trace.
fn debug(here: &Extensions) {
    /// TDRA, TDOSA, TDA: all debug registers.
    const DEBUG: u64 = 1 << 11 | 1 << 10 | 1 << 9;
    /// TPM, TPMCR.
    const MONITORS: u64 = 1 << 6 | 1 << 5;
    const TPMS: u64 = 1 << 14;
    const TTRF: u64 = 1 << 19;
    /// No events are counted at EL2, from PMUv3p1 on; nor are cycles, from PMUv3p5 on.
    const HPMD: u64 = 1 << 17;
    const HCCD: u64 = 1 << 23;
    // All counters are EL1's.
    let mut counters = 0;
    if here.pmu() {
        let version = field(here.dfr0, 8);
        counters = (read_register!("pmcr_el0") >> 11) & 0x1f;
        counters |= if version >= 4 { HPMD } else { 0 } | if version >= 6 { HCCD } else { 0 };
    }
    let profiling = if here.spe() { TPMS } else { 0 };
    let filters = if here.trf() { TTRF } else { 0 };
    // E2PB and E2TB are 0: the buffers are EL2's, their registers trap.
    write_register!("mdcr_el2", DEBUG | MONITORS | profiling | filters | counters);
    // What firmware or a debugger left here would step or stop guests.
    crate::debug::stop();
    if here.pmu() {
        crate::monitors::stop();
    }
    // Locked, as after a reset, nothing would ever compare. The guests' own locks are emulated.
    write_register!("oslar_el1", 0);
    write_register!("osdlr_el1", 0);
}

/// FEAT_FGT: traps to known values. Fields of the form "n…" trap when 0, which covers what is newer than these registers;
/// most others are covered by coarser traps. Identification registers of profiling and trace buffers have no other trap.
fn fine_grained(here: &Extensions) {
    const PMBIDR: u64 = 1 << 63;
    const TRBIDR: u64 = 1 << 51;
    if here.fgt() != 0 {
        let profiling = if here.spe() { PMBIDR } else { 0 };
        let trace = if here.trbe() { TRBIDR } else { 0 };
        write_register!("s3_4_c1_c1_4", 0); // HFGRTR_EL2
        write_register!("s3_4_c1_c1_5", 0); // HFGWTR_EL2
        write_register!("s3_4_c1_c1_6", 0); // HFGITR_EL2
        write_register!("s3_4_c3_c1_4", profiling | trace); // HDFGRTR_EL2
        write_register!("s3_4_c3_c1_5", 0); // HDFGWTR_EL2
    }
    if here.fgt() >= 2 {
        write_register!("s3_4_c3_c1_0", 0); // HDFGRTR2_EL2
        write_register!("s3_4_c3_c1_1", 0); // HDFGWTR2_EL2
        write_register!("s3_4_c3_c1_2", 0); // HFGRTR2_EL2
        write_register!("s3_4_c3_c1_3", 0); // HFGWTR2_EL2
        write_register!("s3_4_c3_c1_7", 0); // HFGITR2_EL2
    }
}

/// FEAT_MPAM: all guests, and EL2, are in the default partition, and cannot leave it.
fn memory_partitioning() {
    const HAS_HCR: u64 = 1 << 17;
    const TRAPMPAM0EL1: u64 = 1 << 49;
    const TRAPMPAM1EL1: u64 = 1 << 48;
    /// Traps MPAMIDR_EL1 from MPAM v1.1 on; before that it has no effect.
    const TIDR: u64 = 1 << 58;
    const TRAP_MPAMIDR_EL1: u64 = 1 << 31;
    write_register!("s3_0_c10_c5_0", 0); // MPAM1_EL1
    write_register!("s3_0_c10_c5_1", 0); // MPAM0_EL1
    let has_hcr = read_register!("s3_0_c10_c4_4") & HAS_HCR != 0; // MPAMIDR_EL1
    if has_hcr {
        write_register!("s3_4_c10_c4_0", TRAP_MPAMIDR_EL1); // MPAMHCR_EL2
    }
    let identification = if has_hcr { 0 } else { TIDR };
    write_register!("s3_4_c10_c5_0", TRAPMPAM0EL1 | TRAPMPAM1EL1 | identification); // MPAM2_EL2
}
