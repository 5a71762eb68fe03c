//! Random numbers for guests by firmware calls.
//!
//! Answers for: the functions of the Arm True Random Number Generator Firmware Interface, version 1.0 (DEN 0098). Does not
//! answer for: where the numbers come from ([`Entropy`], the CPU's or the board's). A machine without a source has none of
//! the functions, and says so.

use crate::smccc::{NOT_SUPPORTED, SUCCESS};
pub use vdev::Entropy;

const TRNG_VERSION: u32 = 0x8400_0050;
const TRNG_FEATURES: u32 = 0x8400_0051;
const TRNG_GET_UUID: u32 = 0x8400_0052;
const TRNG_RND32: u32 = 0x8400_0053;
const TRNG_RND64: u32 = 0xc400_0053;

/// Version 1.0.
const VERSION: u64 = 0x1_0000;
/// Which implementation this is: 5f3c9a52-8e0d-4c47-b6a1-2d90e4f7731b, in the order of the UUID's bytes.
const UUID: [u64; 4] = [0x529a_3c5f, 0x474c_0d8e, 0x902d_a1b6, 0x1b73_f7e4];

const INVALID_PARAMETERS: i64 = -2;
const NO_ENTROPY: i64 = -3;

/// Whether `identifier` is one of the interface's.
pub(crate) const fn is_trng(identifier: u32) -> bool {
    identifier == TRNG_RND64 || matches!(identifier, TRNG_VERSION..=TRNG_RND32)
}

/// What a call with this first argument leaves in X0 to X3.
///
/// # Errors
/// The code in X0; the others are left alone.
pub(crate) fn call(source: Option<Entropy>, identifier: u32, argument: u64) -> Result<[u64; 4], i64> {
    let source = source.ok_or(NOT_SUPPORTED)?;
    #[expect(clippy::cast_possible_truncation, reason = "the argument is W1")]
    let word = argument as u32;
    match identifier {
        TRNG_VERSION => Ok([VERSION, 0, 0, 0]),
        TRNG_FEATURES if is_trng(word) => Ok([SUCCESS.cast_unsigned(), 0, 0, 0]),
        TRNG_GET_UUID => Ok(UUID),
        TRNG_RND32 => random(source, u64::from(word), 32),
        TRNG_RND64 => random(source, argument, 64),
        _ => Err(NOT_SUPPORTED),
    }
}

/// `bits` random bits, at most three registers of `width` bits, the lowest in X3; the rest zero.
fn random(source: Entropy, bits: u64, width: u32) -> Result<[u64; 4], i64> {
    if !(1..=u64::from(width.saturating_mul(3))).contains(&bits) {
        return Err(INVALID_PARAMETERS);
    }
    let (mut registers, mut left) = ([0; 4], bits);
    for register in registers.iter_mut().rev() {
        let here = left.min(width.into());
        left = left.saturating_sub(here);
        if here > 0 {
            let unused = 64_u64.saturating_sub(here);
            *register = source().ok_or(NO_ENTROPY)? >> unused;
        }
    }
    Ok(registers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones() -> Option<u64> {
        Some(u64::MAX)
    }

    fn empty() -> Option<u64> {
        None
    }

    #[test]
    fn without_a_source_nothing_is_there() {
        for identifier in [TRNG_VERSION, TRNG_FEATURES, TRNG_GET_UUID, TRNG_RND32, TRNG_RND64] {
            assert!(is_trng(identifier));
            assert_eq!(call(None, identifier, 1), Err(NOT_SUPPORTED));
        }
        assert!(!is_trng(0xc400_0050) && !is_trng(0x8400_0054) && !is_trng(0x8400_004f));
    }

    #[test]
    fn the_version_is_1_0_and_features_are_the_five_functions() {
        assert_eq!(call(Some(ones), TRNG_VERSION, 0), Ok([0x1_0000, 0, 0, 0]));
        for identifier in [TRNG_VERSION, TRNG_FEATURES, TRNG_GET_UUID, TRNG_RND32, TRNG_RND64] {
            assert_eq!(call(Some(ones), TRNG_FEATURES, identifier.into()), Ok([0; 4]));
        }
        assert_eq!(call(Some(ones), TRNG_FEATURES, 0x8400_0054), Err(NOT_SUPPORTED));
        assert_ne!(call(Some(ones), TRNG_GET_UUID, 0).unwrap()[0], 0xffff_ffff, "which would be an error");
    }

    #[test]
    fn as_many_bits_as_were_asked_for_from_the_last_register_upwards() {
        let bits = |identifier, bits| call(Some(ones), identifier, bits);
        assert_eq!(bits(TRNG_RND64, 1), Ok([0, 0, 0, 1]));
        assert_eq!(bits(TRNG_RND64, 64), Ok([0, 0, 0, u64::MAX]));
        assert_eq!(bits(TRNG_RND64, 100), Ok([0, 0, 0xf_ffff_ffff, u64::MAX]));
        assert_eq!(bits(TRNG_RND64, 192), Ok([0, u64::MAX, u64::MAX, u64::MAX]));
        assert_eq!(bits(TRNG_RND32, 33), Ok([0, 0, 1, 0xffff_ffff]));
        assert_eq!(bits(TRNG_RND32, 96), Ok([0, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff]));
        for (identifier, wrong) in [(TRNG_RND64, 0), (TRNG_RND64, 193), (TRNG_RND32, 0), (TRNG_RND32, 97)] {
            assert_eq!(bits(identifier, wrong), Err(INVALID_PARAMETERS));
        }
        assert_eq!(bits(TRNG_RND64, 1 << 32), Err(INVALID_PARAMETERS), "a 64-bit call's argument has 64 bits");
        assert_eq!(call(Some(empty), TRNG_RND64, 8), Err(NO_ENTROPY));
    }
}
