//! The identification registers that a guest sees.
//!
//! Answers for: `ID_*_EL1` and `MVFR*_EL1`, group 3 of `HCR_EL2.TID3`: a table made once, when the VM is assembled, from
//! what the host's CPUs say. Does not answer for: registers that a guest reads directly (`MIDR_EL1`, `CTR_EL0`, the cache
//! registers), which are the host's, nor for `MPIDR_EL1` (the kernel's, by `VMPIDR_EL2`).
//!
//! The rule (DDI 0487, "Principles of the ID scheme for fields in ID registers"): a guest is shown what the hypervisor
//! switches between vCPUs, or what has no state and can do no harm, and nothing else. So every field passes a list: one
//! that is not on it reads as "not implemented", also when it will only be invented later. What is listed is shown as the
//! host has it, up to the value whose consequences have been checked.
//!
//! Hidden on purpose: EL2 and EL3 (there is neither), SVE, SME, MTE, MPAM, AMU, RAS and its extras, SPE, trace and
//! its buffers, BRBE, double lock; nested virtualisation, TME, LOR, 128-bit registers; LPA2 and the stage 2 fields;
//! whatever an `HCRX_EL2` control that is not set would make undefined (FEAT_LS64, FEAT_MOPS, FEAT_XS, FEAT_TCR2,
//! FEAT_SCTLR2, FEAT_CMOW); `SCXTNUM_EL1`; FEAT_ECV. AArch32 is shown at EL0 as the host has it, for an EL0 in AArch32 has
//! no state of its own beyond the general and vector registers, and hiding it would not stop a guest from using it; EL1
//! is AArch64 only, because HCR_EL2.RW is 1.

use vgic::Version;

/// Values of the `ID_*` registers of one CPU: `(CRm - 1) * 8 + op2` for `S3_0_C0_C<CRm>_<op2>`, CRm 1 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRegisters([u64; IdRegisters::COUNT]);

/// Which `PSTATE` bits the CPU has that an exception entry changes. From the host's registers: the bits are there even if
/// the guest is not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PstateFeatures {
    /// `PSTATE.PAN`.
    pub pan: bool,
    /// `PSTATE.SSBS`.
    pub ssbs: bool,
    /// `PSTATE.TCO`.
    pub tco: bool,
}

/// `ID_AA64PFR0_EL1.GIC`: system registers of the interrupt controller.
const GIC_V3: u64 = 1 << 24;

impl IdRegisters {
    /// How many there are.
    pub const COUNT: usize = 56;

    /// From what the CPU's registers hold.
    #[must_use]
    pub const fn new(values: [u64; Self::COUNT]) -> Self {
        Self(values)
    }

    /// Those of a CPU of which nothing is known, for looking at configurations where they do not run: nothing that is
    /// optional, and as many address bits as there can be.
    #[must_use]
    pub const fn plain() -> Self {
        let mut values = [0; Self::COUNT];
        // ID_AA64MMFR0_EL1, PARange: 48 bits.
        values[48] = 5;
        Self(values)
    }

    /// The register `S3_0_C0_C<crm>_<op2>`; `None` if `crm` is not 1 to 7 or `op2` not 0 to 7.
    #[inline]
    #[must_use]
    pub fn get(&self, crm: u64, op2: u64) -> Option<u64> {
        let index = crm.checked_sub(1)?.checked_mul(8)?.checked_add(op2 & 7)?;
        self.0.get(usize::try_from(index).ok()?).copied()
    }

    fn read(&self, register: Register) -> u64 {
        self.get(register.crm, register.op2).unwrap_or(0)
    }

    /// What a guest on this host sees; of the performance monitors only if `monitors` says so.
    #[must_use]
    pub fn for_guest(&self, monitors: bool, controller: Version) -> Self {
        let mut shown = Self([0; Self::COUNT]);
        // At EL0 the host has AArch32 too?
        let has_aarch32 = self.read(ID_AA64PFR0) & 0xf >= 2;
        for rule in RULES {
            if rule.register.crm < 4 && !has_aarch32 {
                continue; // UNKNOWN where there is no AArch32 state: zero
            }
            let host = self.read(rule.register);
            let fields = rule.fields.iter().fold(0, |value, field| value | field.shown(host));
            let index = (rule.register.crm.saturating_sub(1)).saturating_mul(8).saturating_add(rule.register.op2);
            if let Some(slot) = usize::try_from(index).ok().and_then(|index| shown.0.get_mut(index)) {
                *slot = rule.fixed | fields | host & rule.passed;
                if controller == Version::V3 && rule.register == ID_AA64PFR0 {
                    *slot |= GIC_V3;
                }
                if monitors && rule.register == ID_AA64DFR0 {
                    *slot |= self.monitors().checked_shl(PMU_VER).unwrap_or(0);
                }
            }
        }
        shown
    }

    /// `ID_AA64DFR0_EL1.PMUVer` as a guest may see it: up to PMUv3p5, and nothing that is not the architecture's.
    fn monitors(&self) -> u64 {
        match (self.read(ID_AA64DFR0) >> PMU_VER) & 0xf {
            0xf => 0,
            version => version.min(6),
        }
    }

    /// Whether the performance monitors are shown.
    pub(crate) fn has_monitors(&self) -> bool {
        self.monitors() != 0
    }

    /// How many breakpoints and watchpoints it has.
    pub(crate) fn comparators(&self) -> (u64, u64) {
        // BRPs and WRPs count from zero.
        let count = |shift: u32| ((self.read(ID_AA64DFR0) >> shift) & 0xf).saturating_add(1);
        (count(12), count(20))
    }

    /// Which bits of `PSTATE` this CPU has.
    #[must_use]
    pub fn pstate_features(&self) -> PstateFeatures {
        let field = |register, shift: u32| (self.read(register) >> shift) & 0xf;
        PstateFeatures {
            pan: field(ID_AA64MMFR1, 20) != 0,
            ssbs: field(ID_AA64PFR1, 4) != 0,
            tco: field(ID_AA64PFR1, 8) != 0,
        }
    }

    /// How many bits a physical address has: `ID_AA64MMFR0_EL1.PARange`, up to the 48 that translation without LPA2 has.
    #[must_use]
    pub fn address_bits(&self) -> u8 {
        match self.read(ID_AA64MMFR0) & 0xf {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => 48,
        }
    }
}

/// Where `PMUVer` is in `ID_AA64DFR0_EL1`.
const PMU_VER: u32 = 8;

/// A register by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Register {
    crm: u64,
    op2: u64,
}

const fn register(crm: u64, op2: u64) -> Register {
    Register { crm, op2 }
}

const ID_PFR0: Register = register(1, 0);
const ID_PFR1: Register = register(1, 1);
const ID_DFR0: Register = register(1, 2);
const ID_PFR2: Register = register(3, 4);
const ID_AA64PFR0: Register = register(4, 0);
const ID_AA64PFR1: Register = register(4, 1);
const ID_AA64DFR0: Register = register(5, 0);
const ID_AA64ISAR0: Register = register(6, 0);
const ID_AA64ISAR1: Register = register(6, 1);
const ID_AA64ISAR2: Register = register(6, 2);
const ID_AA64MMFR0: Register = register(7, 0);
const ID_AA64MMFR1: Register = register(7, 1);
const ID_AA64MMFR2: Register = register(7, 2);

/// How one register is shown. A register without a rule reads as zero.
struct Rule {
    register: Register,
    /// Always.
    fixed: u64,
    /// Bits that are as the host has them.
    passed: u64,
    /// Fields that are as the host has them, up to a limit.
    fields: &'static [Field],
}

/// A four-bit field.
struct Field {
    shift: u32,
    kind: Kind,
}

enum Kind {
    /// Zero means not implemented; shown up to this value.
    Upto(u64),
    /// Signed: 0b1111 means not implemented; shown up to this value.
    SignedUpto(u64),
}

impl Field {
    fn shown(&self, host: u64) -> u64 {
        let value = host.checked_shr(self.shift).unwrap_or(0) & 0xf;
        let shown = match self.kind {
            Kind::SignedUpto(_) if value >= 8 => 0xf,
            Kind::Upto(most) | Kind::SignedUpto(most) => value.min(most),
        };
        shown.checked_shl(self.shift).unwrap_or(0)
    }
}

const fn upto(shift: u32, most: u64) -> Field {
    Field { shift, kind: Kind::Upto(most) }
}

const fn signed(shift: u32, most: u64) -> Field {
    Field { shift, kind: Kind::SignedUpto(most) }
}

const fn listed(register: Register, fixed: u64, fields: &'static [Field]) -> Rule {
    Rule { register, fixed, passed: 0, fields }
}

const fn passed(register: Register, passed: u64) -> Rule {
    Rule { register, fixed: 0, passed, fields: &[] }
}

const RULES: &[Rule] = &[
    // The AArch32 view, for software that runs at EL0. State0 to State3, CSV2 and DIT; not AMU, not RAS.
    Rule { register: ID_PFR0, fixed: 0, passed: 0xffff, fields: &[upto(16, 1), upto(24, 1)] },
    // Generic timer. No security, no virtualisation, no GIC registers from AArch32.
    listed(ID_PFR1, 0, &[upto(16, 1)]),
    // Debug architecture as in ID_AA64DFR0_EL1: CopDbg and CopSDbg v8; no PMU, no trace.
    listed(ID_DFR0, 0x66, &[]),
    // CSV3 and SSBS; not RAS_frac.
    listed(ID_PFR2, 0, &[upto(0, 1), upto(4, 1)]),
    // Memory model, instruction sets and vector unit describe what executes, all of it without further state:
    // ID_MMFR0 to 3, ID_ISAR0 to 5, ID_MMFR4, ID_ISAR6, MVFR0 to 2, ID_MMFR5.
    passed(register(1, 4), 0xffff_ffff),
    passed(register(1, 5), 0xffff_ffff),
    passed(register(1, 6), 0xffff_ffff),
    passed(register(1, 7), 0xffff_ffff),
    passed(register(2, 0), 0xffff_ffff),
    passed(register(2, 1), 0xffff_ffff),
    passed(register(2, 2), 0xffff_ffff),
    passed(register(2, 3), 0xffff_ffff),
    passed(register(2, 4), 0xffff_ffff),
    passed(register(2, 5), 0xffff_ffff),
    passed(register(2, 6), 0xffff_ffff),
    passed(register(2, 7), 0xffff_ffff),
    passed(register(3, 0), 0xffff_ffff),
    passed(register(3, 1), 0xffff_ffff),
    passed(register(3, 2), 0xffff_ffff),
    passed(register(3, 6), 0xffff_ffff),
    listed(
        ID_AA64PFR0,
        // EL1 AArch64 only.
        1 << 4,
        // EL0, FP, AdvSIMD, DIT, CSV2 (without SCXTNUM), CSV3.
        &[upto(0, 2), signed(16, 1), signed(20, 1), upto(48, 1), upto(56, 1), upto(60, 1)],
    ),
    // BT, SSBS.
    listed(ID_AA64PFR1, 0, &[upto(0, 1), upto(4, 2)]),
    // Debug v8 with all of the host's breakpoints, watchpoints and context-aware breakpoints: all are loaded with the vCPU, so
    // that none is somebody else's. Double lock not implemented. See exit/debug.rs.
    Rule { register: ID_AA64DFR0, fixed: 6 | 0xf << 36, passed: 0xf << 12 | 0xf << 20 | 0xf << 28, fields: &[] },
    listed(
        ID_AA64ISAR0,
        0,
        &[
            upto(4, 2),  // AES
            upto(8, 1),  // SHA1
            upto(12, 2), // SHA2
            upto(16, 1), // CRC32
            upto(20, 2), // Atomic
            upto(28, 1), // RDM
            upto(32, 1), // SHA3
            upto(36, 1), // SM3
            upto(40, 1), // SM4
            upto(44, 1), // DP
            upto(48, 1), // FHM
            upto(52, 2), // TS
            upto(56, 2), // TLB: outer shareable and range forms stay within the VMID
            upto(60, 1), // RNDR
        ],
    ),
    listed(
        ID_AA64ISAR1,
        0,
        &[
            upto(0, 2),  // DPB
            upto(4, 5),  // APA: pointer authentication, keys are switched
            upto(8, 5),  // API
            upto(12, 1), // JSCVT
            upto(16, 1), // FCMA
            upto(20, 3), // LRCPC
            upto(24, 1), // GPA
            upto(28, 1), // GPI
            upto(32, 1), // FRINTTS
            upto(36, 1), // SB
            upto(40, 1), // SPECRES: context restricted prediction, in the guest's own context
            upto(44, 1), // BF16
            upto(48, 1), // DGH
            upto(52, 1), // I8MM
        ],
    ),
    listed(
        ID_AA64ISAR2,
        0,
        &[
            upto(0, 2),  // WFxT
            upto(4, 1),  // RPRES
            upto(8, 1),  // GPA3
            upto(12, 5), // APA3
            upto(20, 1), // BC
            upto(24, 1), // PAC_frac
            upto(28, 1), // CLRBHB
            upto(48, 1), // RPRFM
            upto(52, 1), // CSSC
        ],
    ),
    listed(
        ID_AA64MMFR0,
        0,
        &[
            upto(0, 5),    // PARange: 48 bits
            upto(4, 2),    // ASIDBits
            upto(8, 1),    // BigEnd
            upto(16, 1),   // BigEndEL0
            upto(20, 1),   // TGran16, without LPA2
            signed(24, 0), // TGran64
            signed(28, 0), // TGran4, without LPA2
            upto(44, 1),   // ExS
        ],
    ),
    listed(
        ID_AA64MMFR1,
        0,
        &[
            upto(0, 2),  // HAFDBS: updates go through stage 2 like the guest's own
            upto(12, 2), // HPDS
            upto(20, 3), // PAN
            upto(36, 3), // ETS
            upto(44, 1), // AFP
            upto(48, 1), // nTLBPA
            upto(60, 1), // ECBHB
        ],
    ),
    listed(
        ID_AA64MMFR2,
        0,
        &[
            upto(0, 1),  // CnP
            upto(4, 1),  // UAO
            upto(8, 1),  // LSM
            upto(16, 1), // VARange
            upto(20, 1), // CCIDX: says how the host's CCSIDR_EL1 is to be read
            upto(28, 1), // ST
            upto(32, 1), // AT
            upto(36, 1), // IDS: what the hardware reports for EL0's reads
            upto(48, 1), // TTL
            upto(52, 2), // BBM
            upto(60, 1), // E0PD
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(pairs: &[(Register, u64)]) -> IdRegisters {
        let mut values = [0; IdRegisters::COUNT];
        for (register, value) in pairs {
            values[usize::try_from((register.crm - 1) * 8 + register.op2).unwrap()] = *value;
        }
        IdRegisters::new(values)
    }

    fn field(registers: &IdRegisters, register: Register, shift: u32) -> u64 {
        (registers.read(register) >> shift) & 0xf
    }

    #[test]
    fn a_cortex_a72_loses_what_is_not_its_guests() {
        // As the Cortex-A72's manual gives them, with EL2, EL3, AArch32, PMUv3 and six breakpoints.
        let guest = host(&[
            (ID_AA64PFR0, 0x2222),
            (ID_AA64DFR0, 0x1030_5106),
            (ID_AA64ISAR0, 0x0001_1120),
            (ID_AA64MMFR0, 0x1124),
            (register(2, 0), 0x0210_1110),
        ])
        .for_guest(false, Version::V3);
        assert_eq!(guest.read(ID_AA64PFR0), 0x0100_0012);
        assert_eq!(guest.read(ID_AA64DFR0), 0xf0_1030_5006);
        assert_eq!(guest.read(ID_AA64ISAR0), 0x0001_1120);
        assert_eq!(guest.read(ID_AA64MMFR0), 0x0124, "no secure memory");
        assert_eq!(guest.read(register(2, 0)), 0x0210_1110, "AArch32 at EL0 keeps its instructions");
    }

    #[test]
    fn a_cpu_with_everything_shows_only_what_is_on_the_list() {
        // Every field at seven: implemented, and newer than anything known.
        let guest = host(&[
            (ID_AA64PFR0, 0x7777_7777_7777_7772),
            (ID_AA64PFR1, 0x7777_7777_7777_7777),
            (register(4, 2), u64::MAX),
            (register(4, 4), u64::MAX),
            (register(4, 5), u64::MAX),
            (ID_AA64DFR0, 0x7777_7777_7777_7777),
            (register(5, 1), u64::MAX),
            (ID_AA64ISAR1, 0x7777_7777_7777_7777),
            (register(6, 3), u64::MAX),
            (ID_AA64MMFR0, 0x7777_7777_7777_7777),
            (ID_AA64MMFR1, 0x7777_7777_7777_7777),
            (ID_AA64MMFR2, 0x7777_7777_7777_7777),
            (register(7, 3), u64::MAX),
            (register(7, 4), u64::MAX),
        ])
        .for_guest(false, Version::V3);
        for (what, register, shift) in [
            ("EL2", ID_AA64PFR0, 8),
            ("EL3", ID_AA64PFR0, 12),
            ("RAS", ID_AA64PFR0, 28),
            ("SVE", ID_AA64PFR0, 32),
            ("MPAM", ID_AA64PFR0, 40),
            ("AMU", ID_AA64PFR0, 44),
            ("MTE", ID_AA64PFR1, 8),
            ("SME", ID_AA64PFR1, 24),
            ("NMI", ID_AA64PFR1, 36),
            ("TraceVer", ID_AA64DFR0, 4),
            ("PMUVer", ID_AA64DFR0, 8),
            ("PMSVer", ID_AA64DFR0, 32),
            ("TraceBuffer", ID_AA64DFR0, 44),
            ("BRBE", ID_AA64DFR0, 52),
            ("XS", ID_AA64ISAR1, 56),
            ("LS64", ID_AA64ISAR1, 60),
            ("SNSMem", ID_AA64MMFR0, 12),
            ("FGT", ID_AA64MMFR0, 56),
            ("ECV", ID_AA64MMFR0, 60),
            ("VMIDBits", ID_AA64MMFR1, 4),
            ("VH", ID_AA64MMFR1, 8),
            ("LO", ID_AA64MMFR1, 16),
            ("XNX", ID_AA64MMFR1, 28),
            ("HCX", ID_AA64MMFR1, 40),
            ("IESB", ID_AA64MMFR2, 12),
            ("NV", ID_AA64MMFR2, 24),
            ("FWB", ID_AA64MMFR2, 40),
            ("EVT", ID_AA64MMFR2, 56),
        ] {
            assert_eq!(field(&guest, register, shift), 0, "{what}");
        }
        assert_eq!(field(&guest, ID_AA64PFR0, 24), 1, "GIC system registers v3");
        assert_eq!(field(&guest.for_guest(false, Version::V2), ID_AA64PFR0, 24), 0, "they are not a GICv2's");
        assert_eq!(field(&guest, ID_AA64PFR0, 56), 1, "CSV2 without SCXTNUM");
        assert_eq!(field(&guest, ID_AA64MMFR0, 0), 5, "48 bits");
        assert_eq!(field(&guest, ID_AA64MMFR0, 28), 0, "4 KiB granule without LPA2");
        assert_eq!(field(&guest, ID_AA64ISAR1, 8), 5, "pointer authentication");
        for (crm, op2) in [(4, 2), (4, 3), (4, 4), (4, 5), (4, 6), (4, 7), (5, 1), (6, 3), (7, 3), (7, 4), (7, 7)] {
            assert_eq!(guest.get(crm, op2), Some(0), "C{crm}_{op2}");
        }
    }

    #[test]
    fn signed_fields_keep_their_meaning() {
        let guest = host(&[(ID_AA64PFR0, 0xff_0011), (ID_AA64MMFR0, 0xff00_0000)]).for_guest(false, Version::V3);
        assert_eq!(field(&guest, ID_AA64PFR0, 16), 0xf, "no FP");
        assert_eq!(field(&guest, ID_AA64PFR0, 20), 0xf, "no AdvSIMD");
        assert_eq!(field(&guest, ID_AA64MMFR0, 24), 0xf, "no 64 KiB granule");
        assert_eq!(field(&guest, ID_AA64MMFR0, 28), 0xf, "no 4 KiB granule");
    }

    #[test]
    fn without_aarch32_its_registers_are_zero() {
        let guest =
            host(&[(ID_AA64PFR0, 0x11), (ID_PFR0, 0x131), (register(2, 0), 0x0210_1110)]).for_guest(false, Version::V3);
        assert!((1..4).all(|crm| (0..8).all(|op2| guest.get(crm, op2) == Some(0))));
        assert_eq!(field(&guest, ID_AA64PFR0, 0), 1);
    }

    #[test]
    fn monitors_are_shown_if_wanted_up_to_what_is_exchanged() {
        for (version, shown) in [(0, 0), (1, 1), (4, 4), (6, 6), (7, 6), (8, 6), (0xf, 0)] {
            let host = host(&[(ID_AA64DFR0, version << 8)]);
            assert_eq!(field(&host.for_guest(true, Version::V3), ID_AA64DFR0, 8), shown);
            assert_eq!(host.for_guest(true, Version::V3).has_monitors(), shown != 0);
            assert!(!host.for_guest(false, Version::V3).has_monitors());
        }
    }

    #[test]
    fn pstate_bits_are_the_hosts_even_if_hidden() {
        let features = host(&[(ID_AA64MMFR1, 3 << 20), (ID_AA64PFR1, 3 << 8 | 2 << 4)]).pstate_features();
        assert_eq!(features, PstateFeatures { pan: true, ssbs: true, tco: true });
        assert_eq!(host(&[]).pstate_features(), PstateFeatures::default());
    }

    #[test]
    fn address_bits_follow_the_table_of_the_manual() {
        for (range, bits) in [(0, 32), (1, 36), (2, 40), (3, 42), (4, 44), (5, 48), (6, 48), (7, 48)] {
            assert_eq!(host(&[(ID_AA64MMFR0, range)]).address_bits(), bits);
        }
        assert_eq!(IdRegisters::plain(), host(&[(ID_AA64MMFR0, 5)]));
    }

    proptest! {
        #[test]
        fn no_register_is_outside_the_table(crm: u64, op2 in 0u64..8) {
            prop_assert_eq!(host(&[]).get(crm, op2).is_some(), (1..=7).contains(&crm));
        }

        #[test]
        fn a_guest_of_a_guest_sees_the_same(values in prop::collection::vec(any::<u64>(), IdRegisters::COUNT)) {
            // What is on the list stays on it: showing twice changes nothing. AArch64 only at EL1 and fixed fields included.
            let host = IdRegisters::new(values.try_into().unwrap());
            for monitors in [false, true] {
                let once = host.for_guest(monitors, Version::V3);
                prop_assert_eq!(once.for_guest(monitors, Version::V3), once);
            }
        }
    }
}
