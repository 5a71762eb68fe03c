//! Which cores need what of the hypervisor: errata, and attacks by speculation.
//!
//! Answers for: the [`Measures`] of a CPU, from its identification registers and what its firmware offers. Does not answer
//! for: carrying them out (`el2`), errata that are met by code which is the same for all cores, and those that firmware or
//! guests answer for: all of them, with the sources, are in `hypervisor/docs/errata.md`.

use core::fmt;

/// `SMCCC_ARCH_WORKAROUND_1` (DEN 0028): makes the branch predictor forget.
pub const SMCCC_ARCH_WORKAROUND_1: u32 = 0x8000_8000;
/// `SMCCC_ARCH_WORKAROUND_3` (DEN 0028): the same, with the branch history.
pub const SMCCC_ARCH_WORKAROUND_3: u32 = 0x8000_3fff;

/// What makes a core forget which branches a guest has taken, so that they do not choose what EL2's are predicted to do
/// (CVE-2022-23960).
#[derive(Clone, Copy, PartialEq, Eq)]
enum History {
    /// Nothing has to: it predicts neither by the history nor by the targets (CVE-2017-5715) of another context.
    Safe,
    /// So many other branches, where targets are kept apart by context (FEAT_CSV2).
    Branches(u8),
    /// Only its firmware.
    Firmware,
    /// We do not know.
    Unknown,
}
use History::{Branches as By, Firmware, Safe, Unknown};

/// What is known of a core of Arm's (`MIDR_EL1.Implementer` 0x41): `MIDR_EL1.PartNum`; its name, which only those have that
/// `errata.md` is about; whether a `TLBI` and its `DSB` may be complete before what used the translation is (errata 1286807,
/// 2441007, CVE-2025-10263); its history.
struct Known(u16, &'static str, bool, History);

const KNOWN: &[Known] = &[
    Known(0xd03, CORTEX_A53, false, Safe),
    Known(0xd04, "", false, Safe), // Cortex-A35
    Known(0xd05, "Cortex-A55", true, Safe),
    Known(0xd07, CORTEX_A57, false, By(8)),
    Known(0xd08, "Cortex-A72", false, By(8)),
    Known(0xd09, "Cortex-A73", false, Firmware),
    Known(0xd0a, "", false, Firmware), // Cortex-A75
    Known(0xd0b, "Cortex-A76", true, By(24)),
    Known(0xd0c, "Neoverse-N1", true, By(24)),
    Known(0xd0d, "", true, By(24)), // Cortex-A77
    Known(0xd0e, "", true, By(24)), // Cortex-A76AE
    Known(0xd40, "", true, By(32)), // Neoverse-V1
    Known(0xd41, "Cortex-A78", true, By(32)),
    Known(0xd42, "", true, By(32)),  // Cortex-A78AE
    Known(0xd44, "", true, By(32)),  // Cortex-X1
    Known(0xd47, "", true, By(32)),  // Cortex-A710
    Known(0xd48, "", true, By(32)),  // Cortex-X2
    Known(0xd49, "", true, By(32)),  // Neoverse-N2
    Known(0xd4b, "", true, By(32)),  // Cortex-A78C
    Known(0xd4c, "", true, Unknown), // Cortex-X1C
    Known(0xd4e, "", true, By(132)), // Cortex-X3
    Known(0xd4f, "", true, By(132)), // Neoverse-V2
    Known(0xd82, "", true, Unknown), // Cortex-X4
    Known(0xd83, "", true, Unknown), // Neoverse-V3AE
    Known(0xd84, "", true, Unknown), // Neoverse-V3
    Known(0xd85, "", true, Unknown), // Cortex-X925
    Known(0xd8c, "", true, Unknown), // C1-Ultra
    Known(0xd90, "", true, Unknown), // C1-Premium
];
const CORTEX_A53: &str = "Cortex-A53";
const CORTEX_A57: &str = "Cortex-A57";

/// What is done on every exit of a guest, before EL2 takes any branch that the guest could have prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardening {
    /// Branches to take, at least one where there is any hardening.
    pub branches: u32,
    /// Then the firmware call to make: [`SMCCC_ARCH_WORKAROUND_1`], [`SMCCC_ARCH_WORKAROUND_3`], or 0 for none.
    pub call: u32,
}

/// How a CPU is protected from branch predictions that guests have prepared (CVE-2017-5715, CVE-2022-23960).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branches {
    /// It needs nothing, as far as we know.
    Unaffected,
    /// By this.
    Hardened(Hardening),
    /// It would need a call that its firmware does not offer.
    Exposed,
}

/// The identification registers that decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// MIDR_EL1.
    pub midr: u64,
    /// REVIDR_EL1: errata of the revision that are fixed.
    pub revidr: u64,
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
}

/// What one CPU needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    identity: Identity,
    /// All invalidations of translations for other CPUs end with a second one and its barrier, on every CPU of the machine.
    pub repeat_tlbi: bool,
    /// On the way out of a guest.
    pub branches: Branches,
    /// Also there: a fault of stage 2 may be one of stage 1 (erratum 834220).
    pub doubt_stage_2: bool,
}

const fn field(register: u64, shift: u32) -> u64 {
    (register >> shift) & 0xf
}

impl Identity {
    fn find(&self) -> Option<&'static Known> {
        const ARM: u64 = 0x41;
        let (maker, part) = (self.midr >> 24 & 0xff, self.midr >> 4 & 0xfff);
        KNOWN.iter().find(|known| maker == ARM && u64::from(known.0) == part)
    }

    /// Erratum 834220: up to r1p2.
    fn confuses_stages(&self) -> bool {
        let revision = (field(self.midr, 20), field(self.midr, 0));
        self.find().is_some_and(|known| known.1 == CORTEX_A57) && revision <= (1, 2)
    }

    /// Erratum 835769: a multiply-accumulate behind a load or store may be wrong. Up to r0p4; from r0p2 on REVIDR_EL1 says
    /// whether it is fixed.
    fn multiplies_wrongly(&self) -> bool {
        const FIXED: u64 = 1 << 7;
        let (variant, revision) = (field(self.midr, 20), field(self.midr, 0));
        let is_fixed = revision >= 2 && self.revidr & FIXED != 0;
        self.find().is_some_and(|known| known.1 == CORTEX_A53) && variant == 0 && revision <= 4 && !is_fixed
    }
}

impl Measures {
    /// Those of a CPU. `features` is that CPU's `SMCCC_ARCH_FEATURES`, `None` for a call that firmware does not have; it is asked
    /// only where it matters.
    #[must_use]
    pub fn of(identity: Identity, features: impl Fn(u32) -> Option<u32>) -> Self {
        let (repeat_tlbi, history) = identity.find().map_or((false, Unknown), |known| (known.2, known.3));
        // FEAT_CSV2: targets are kept apart by context, with FEAT_CSV2_3 the history too. FEAT_ECBHB: exceptions clear it.
        let csv2 = field(identity.pfr0, 56);
        let clears_history = field(identity.mmfr1, 60) != 0;
        let branches = match history {
            _ if csv2 >= 3 || csv2 != 0 && clears_history => Branches::Unaffected,
            Safe => Branches::Unaffected,
            By(count) if csv2 != 0 => Branches::Hardened(Hardening { branches: u32::from(count), call: 0 }),
            _ => by_firmware(features).unwrap_or(match history {
                Unknown if csv2 != 0 => Branches::Unaffected,
                _ => Branches::Exposed,
            }),
        };
        Self { identity, repeat_tlbi, branches, doubt_stage_2: identity.confuses_stages() }
    }
}

/// What firmware has to say; `None` if nothing. The third call covers what the first is for.
fn by_firmware(features: impl Fn(u32) -> Option<u32>) -> Option<Branches> {
    let call = |call| match features(call)? {
        0 => Some(Branches::Hardened(Hardening { branches: 1, call })),
        _ => Some(Branches::Unaffected),
    };
    call(SMCCC_ARCH_WORKAROUND_3).or_else(|| call(SMCCC_ARCH_WORKAROUND_1))
}

/// The core with its revision, and the measures in words.
impl fmt::Display for Measures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let midr = self.identity.midr;
        match self.identity.find().filter(|known| !known.1.is_empty()) {
            Some(known) => write!(f, "{} r{}p{}", known.1, field(midr, 20), field(midr, 0))?,
            None => write!(f, "an unlisted core, MIDR_EL1 {midr:#x}")?,
        }
        if self.identity.multiplies_wrongly() {
            f.write_str(", erratum 835769 wants an image made for it")?;
        }
        if self.doubt_stage_2 {
            f.write_str(", faults of stage 2 doubted")?;
        }
        if self.repeat_tlbi {
            f.write_str(", repeated TLB maintenance")?;
        }
        match self.branches {
            Branches::Unaffected => Ok(()),
            Branches::Hardened(Hardening { branches, call: 0 }) => write!(f, ", {branches} branches on each exit"),
            Branches::Hardened(_) => f.write_str(", a call of firmware's on each exit"),
            Branches::Exposed => f.write_str(", branch predictor unprotected: firmware has no call for it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const CSV2: u64 = 1 << 56;
    const CSV2_3: u64 = 3 << 56;
    const ECBHB: u64 = 1 << 60;

    const fn midr(part: u64, variant: u64, revision: u64) -> u64 {
        0x41 << 24 | variant << 20 | 0xf << 16 | part << 4 | revision
    }

    fn silent(_: u32) -> Option<u32> {
        None
    }

    fn identity(midr: u64, pfr0: u64) -> Identity {
        Identity { midr, pfr0, ..Identity::default() }
    }

    fn branches(part: u64, pfr0: u64, mmfr1: u64, features: impl Fn(u32) -> Option<u32>) -> Branches {
        Measures::of(Identity { mmfr1, ..identity(midr(part, 0, 0), pfr0) }, features).branches
    }

    fn only(offered: u32) -> impl Fn(u32) -> Option<u32> {
        move |call| (call == offered).then_some(0)
    }

    const fn hardened(branches: u32, call: u32) -> Branches {
        Branches::Hardened(Hardening { branches, call })
    }

    #[test]
    fn each_core_is_listed_once() {
        for (index, one) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..index].iter().all(|other| other.0 != one.0), "{:#x}", one.0);
        }
    }

    #[test]
    fn cores_that_never_mixed_contexts_ask_nobody() {
        for part in [0xd03, 0xd04, 0xd05] {
            assert_eq!(branches(part, 0, 0, |_| panic!()), Branches::Unaffected);
        }
        assert_eq!(branches(0xd0c, CSV2_3, 0, |_| panic!()), Branches::Unaffected);
        assert_eq!(branches(0xd0c, CSV2, ECBHB, |_| panic!()), Branches::Unaffected);
    }

    #[test]
    fn without_csv2_only_firmware_helps() {
        for part in [0xd07, 0xd08, 0xd09, 0x123] {
            assert_eq!(branches(part, 0, 0, silent), Branches::Exposed, "{part:#x}");
            let both = hardened(1, SMCCC_ARCH_WORKAROUND_3);
            assert_eq!(branches(part, 0, 0, |_| Some(0)), both, "it does what the first does");
            let first = only(SMCCC_ARCH_WORKAROUND_1);
            assert_eq!(branches(part, 0, 0, first), hardened(1, SMCCC_ARCH_WORKAROUND_1));
            assert_eq!(branches(part, 0, 0, |_| Some(1)), Branches::Unaffected, "firmware says so");
        }
        assert_eq!(branches(0x123, 0, ECBHB, silent), Branches::Exposed, "targets and history are two things");
    }

    #[test]
    fn with_csv2_the_history_is_left() {
        assert_eq!(branches(0xd08, CSV2, 0, |_| panic!()), hardened(8, 0));
        for part in [0xd0b, 0xd0c] {
            assert_eq!(branches(part, CSV2, 0, |_| panic!()), hardened(24, 0));
        }
        assert_eq!(branches(0xd41, CSV2, 0, |_| panic!()), hardened(32, 0));
        assert_eq!(branches(0xd09, CSV2, 0, silent), Branches::Exposed, "a loop does not help a Cortex-A73");
        assert_eq!(branches(0xd09, CSV2, 0, only(SMCCC_ARCH_WORKAROUND_3)), hardened(1, SMCCC_ARCH_WORKAROUND_3));
        assert_eq!(branches(0x123, CSV2, 0, silent), Branches::Unaffected, "nothing is known against it");
    }

    #[test]
    fn translations_are_invalidated_twice_where_once_may_be_too_early() {
        let repeats = |midr| Measures::of(identity(midr, CSV2_3), silent).repeat_tlbi;
        for part in [0xd05, 0xd0b, 0xd0c, 0xd41] {
            assert!(repeats(midr(part, 4, 1)), "{part:#x}");
        }
        for part in [0xd03, 0xd07, 0xd08, 0xd09, 0x051] {
            assert!(!repeats(midr(part, 4, 1)), "{part:#x}");
        }
        assert!(!repeats(midr(0xd0b, 4, 1) & !(0xff << 24) | 0x51 << 24), "numbers are each maker's own");
    }

    #[test]
    fn a_revision_may_have_an_erratum_fixed() {
        let wrong = |midr, revidr| Identity { midr, revidr, ..Identity::default() }.multiplies_wrongly();
        assert!(wrong(midr(0xd03, 0, 0), 0) && wrong(midr(0xd03, 0, 4), 0) && wrong(midr(0xd03, 0, 4), 1 << 8));
        assert!(wrong(midr(0xd03, 0, 1), 1 << 7), "the bit means something else there");
        assert!(!wrong(midr(0xd03, 0, 4), 1 << 7) && !wrong(midr(0xd03, 0, 5), 0) && !wrong(midr(0xd03, 1, 0), 0));
        assert!(!wrong(midr(0xd07, 0, 0), 0));
    }

    #[test]
    fn early_cores_confuse_the_stages() {
        let doubt =
            |part, variant, revision| Measures::of(identity(midr(part, variant, revision), 0), silent).doubt_stage_2;
        assert!(doubt(0xd07, 0, 0) && doubt(0xd07, 0, 9) && doubt(0xd07, 1, 2));
        assert!(!doubt(0xd07, 1, 3) && !doubt(0xd07, 2, 0) && !doubt(0xd08, 0, 0));
    }

    #[test]
    fn a_core_is_told_in_words() {
        let told =
            |midr, pfr0, features: fn(u32) -> Option<u32>| format!("{}", Measures::of(identity(midr, pfr0), features));
        assert_eq!(told(midr(0xd03, 0, 4), 0, silent), "Cortex-A53 r0p4, erratum 835769 wants an image made for it");
        assert_eq!(
            told(midr(0xd0c, 4, 1), CSV2, silent),
            "Neoverse-N1 r4p1, repeated TLB maintenance, 24 branches on each exit"
        );
        assert_eq!(told(midr(0xd08, 0, 3), 0, |_| Some(0)), "Cortex-A72 r0p3, a call of firmware's on each exit");
        assert!(
            told(midr(0xd07, 1, 0), 0, silent).ends_with(", branch predictor unprotected: firmware has no call for it")
        );
        assert_eq!(told(0xf_0510, CSV2_3, silent), "an unlisted core, MIDR_EL1 0xf0510");
    }
}
