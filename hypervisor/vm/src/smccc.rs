//! The SMC Calling Convention as a guest sees it.
//!
//! Answers for: the Arm architecture calls (DEN 0028G, chapter 7). Does not answer for: PSCI, random numbers, stolen time,
//! which are services of their own. An identifier that nobody owns is NOT_SUPPORTED, with all other registers
//! left alone; nothing is ever forwarded to the machine's firmware but the two workarounds, which have no arguments.

use crate::stolen_time::PV_TIME_FEATURES;

/// SMCCC_VERSION.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// SMCCC_ARCH_WORKAROUND_1: branch predictor hardening (CVE-2017-5715).
pub const SMCCC_ARCH_WORKAROUND_1: u32 = 0x8000_8000;
/// SMCCC_ARCH_WORKAROUND_2: speculative store bypass (CVE-2018-3639).
pub const SMCCC_ARCH_WORKAROUND_2: u32 = 0x8000_7fff;
/// SMCCC_ARCH_WORKAROUND_3: branch history and predictor hardening (CVE-2022-23960).
pub const SMCCC_ARCH_WORKAROUND_3: u32 = 0x8000_3fff;

/// What SMCCC_VERSION answers: 1.2. From 1.1 on a call preserves X4 to X17; ours preserves all but X0.
pub const VERSION: i64 = 0x1_0002;

/// There is no such function.
pub const NOT_SUPPORTED: i64 = -1;
/// There is.
pub const SUCCESS: i64 = 0;
/// There is, and this PE does not need it.
pub const NOT_REQUIRED: i64 = 1;

/// What is known about one of the vulnerabilities that firmware has a call for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mitigation {
    /// Firmware has no such call, and nothing says that the CPU is safe.
    #[default]
    Unknown,
    /// The CPUs do not need it.
    NotRequired,
    /// Firmware offers the call, and the CPU may need it.
    Required,
}

/// What firmware, asked at boot, said of its workaround calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mitigations {
    /// SMCCC_ARCH_WORKAROUND_1.
    pub workaround_1: Mitigation,
    /// SMCCC_ARCH_WORKAROUND_2. A guest may switch it with FEAT_SSBS; the call itself is offered only as "not required".
    pub workaround_2: Mitigation,
    /// SMCCC_ARCH_WORKAROUND_3.
    pub workaround_3: Mitigation,
}

/// A call without arguments or results that the kernel passes on to the machine's firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Workaround {
    /// SMCCC_ARCH_WORKAROUND_1.
    BranchPredictor = SMCCC_ARCH_WORKAROUND_1,
    /// SMCCC_ARCH_WORKAROUND_3.
    BranchHistory = SMCCC_ARCH_WORKAROUND_3,
}

/// What an architecture call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This value in X0.
    Value(i64),
    /// The firmware's workaround, and nothing in the registers.
    Workaround(Workaround),
    /// Another service's, if anybody's.
    NotOurs,
}

/// Answers an identifier that is not PSCI's. `stolen_time` is what there is to say of PV_TIME_FEATURES.
#[inline(always)]
#[must_use]
pub fn call(mitigations: &Mitigations, stolen_time: i64, identifier: u32, argument: u64) -> Answer {
    // Architecture calls have owner 0 and the fast bit. The test keeps other identifiers as cheap as these.
    if identifier & 0xffff_0000 != 0x8000_0000 {
        return Answer::NotOurs;
    }
    match identifier {
        SMCCC_VERSION => Answer::Value(VERSION),
        SMCCC_ARCH_FEATURES => Answer::Value(features(mitigations, stolen_time, argument)),
        SMCCC_ARCH_WORKAROUND_1 => workaround(mitigations.workaround_1, Workaround::BranchPredictor),
        SMCCC_ARCH_WORKAROUND_3 => workaround(mitigations.workaround_3, Workaround::BranchHistory),
        // Offered only where nothing has to be done.
        SMCCC_ARCH_WORKAROUND_2 if mitigations.workaround_2 == Mitigation::NotRequired => Answer::Value(SUCCESS),
        _ => Answer::Value(NOT_SUPPORTED),
    }
}

fn workaround(mitigation: Mitigation, workaround: Workaround) -> Answer {
    match mitigation {
        Mitigation::Required => Answer::Workaround(workaround),
        // "The function may be called on a PE that is not affected, and then does nothing" (section 7.5).
        Mitigation::NotRequired => Answer::Value(SUCCESS),
        Mitigation::Unknown => Answer::Value(NOT_SUPPORTED),
    }
}

/// SMCCC_ARCH_FEATURES (section 7.3). The identifier is a 32-bit argument.
fn features(mitigations: &Mitigations, stolen_time: i64, argument: u64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an argument of a 32-bit call is the lower half of the register"
    )]
    let identifier = argument as u32;
    let offered = |mitigation| match mitigation {
        Mitigation::Required => SUCCESS,
        Mitigation::NotRequired => NOT_REQUIRED,
        Mitigation::Unknown => NOT_SUPPORTED,
    };
    match identifier {
        SMCCC_VERSION | SMCCC_ARCH_FEATURES => SUCCESS,
        PV_TIME_FEATURES => stolen_time,
        SMCCC_ARCH_WORKAROUND_1 => offered(mitigations.workaround_1),
        SMCCC_ARCH_WORKAROUND_3 => offered(mitigations.workaround_3),
        SMCCC_ARCH_WORKAROUND_2 if mitigations.workaround_2 == Mitigation::NotRequired => NOT_REQUIRED,
        _ => NOT_SUPPORTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE: Mitigations = Mitigations {
        workaround_1: Mitigation::NotRequired,
        workaround_2: Mitigation::NotRequired,
        workaround_3: Mitigation::NotRequired,
    };
    const AFFECTED: Mitigations = Mitigations {
        workaround_1: Mitigation::Required,
        workaround_2: Mitigation::Required,
        workaround_3: Mitigation::Required,
    };

    fn value(mitigations: &Mitigations, identifier: u32, argument: u32) -> i64 {
        match call(mitigations, SUCCESS, identifier, u64::from(argument)) {
            Answer::Value(value) => value,
            Answer::NotOurs => NOT_SUPPORTED,
            Answer::Workaround(_) => panic!(),
        }
    }

    #[test]
    fn the_version_is_at_least_one_point_one() {
        assert_eq!(value(&SAFE, SMCCC_VERSION, 0), 0x1_0002);
    }

    #[test]
    fn features_tell_what_is_there() {
        let query = |mitigations: &Mitigations, identifier| value(mitigations, SMCCC_ARCH_FEATURES, identifier);
        for identifier in [SMCCC_VERSION, SMCCC_ARCH_FEATURES] {
            assert_eq!(query(&SAFE, identifier), SUCCESS);
        }
        for identifier in [SMCCC_ARCH_WORKAROUND_1, SMCCC_ARCH_WORKAROUND_2, SMCCC_ARCH_WORKAROUND_3] {
            assert_eq!(query(&SAFE, identifier), NOT_REQUIRED);
            assert_eq!(query(&Mitigations::default(), identifier), NOT_SUPPORTED);
        }
        assert_eq!(query(&AFFECTED, SMCCC_ARCH_WORKAROUND_1), SUCCESS);
        assert_eq!(query(&AFFECTED, SMCCC_ARCH_WORKAROUND_2), NOT_SUPPORTED, "we do not carry its state");
        assert_eq!(query(&SAFE, 0x8000_0002), NOT_SUPPORTED, "SMCCC_ARCH_SOC_ID");
        assert_eq!(query(&SAFE, PV_TIME_FEATURES), SUCCESS);
    }

    #[test]
    fn only_workarounds_that_firmware_offers_reach_it() {
        let go = |mitigations: &Mitigations, identifier| call(mitigations, NOT_SUPPORTED, identifier, 0);
        assert_eq!(go(&AFFECTED, SMCCC_ARCH_WORKAROUND_1), Answer::Workaround(Workaround::BranchPredictor));
        assert_eq!(go(&AFFECTED, SMCCC_ARCH_WORKAROUND_3), Answer::Workaround(Workaround::BranchHistory));
        assert_eq!(go(&SAFE, SMCCC_ARCH_WORKAROUND_1), Answer::Value(SUCCESS));
        assert_eq!(go(&Mitigations::default(), SMCCC_ARCH_WORKAROUND_3), Answer::Value(NOT_SUPPORTED));
    }

    #[test]
    fn what_nobody_owns_is_not_supported() {
        // Other owners, yielding calls, 64-bit forms of 32-bit calls, trusted OS calls.
        for identifier in [0, 1, 0xc000_0000, 0x8000_0002, 0x8100_0000, 0x8600_ff01, 0xc500_0020, 0xb200_0000, u32::MAX]
        {
            assert_eq!(value(&AFFECTED, identifier, 0), NOT_SUPPORTED, "{identifier:#x}");
        }
    }
}
