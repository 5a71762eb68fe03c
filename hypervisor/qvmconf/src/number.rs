//! Numbers, sizes, addresses, booleans.
//!
//! Answers for: the spellings of `docs/qvmconf.md`, "Numbers": hexadecimal with `0x`, decimal with `0d` or
//! without prefix, the suffixes K, M and G as powers of 1024, and overflow of 64 bits. Does not answer for: whether a value
//! makes sense.
//!
// QNX: what a number without prefix and suffix is, is known of `smmuman` only (addresses hexadecimal, sizes decimal). Here
// sizes and counts are decimal, and an address that would be another one in the other base is an error: a wrong guess would
// put a device somewhere else without a word.

use core::fmt;

/// Why a word is not the number it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NumberError {
    /// There are no digits.
    NoDigits,
    /// A character that is no digit of the base, and no suffix.
    BadDigit(char),
    /// More than 64 bits.
    Overflow,
    /// Hexadecimal digits without the prefix.
    NoPrefix,
    /// Could be meant decimal or hexadecimal.
    Ambiguous,
    /// A suffix where none is taken.
    Suffix,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDigits => f.write_str("there are no digits"),
            Self::BadDigit(c) => write!(f, "`{}` is not a digit", c.escape_default()),
            Self::Overflow => f.write_str("the number does not fit in 64 bits"),
            Self::NoPrefix => f.write_str("a hexadecimal number begins with `0x`"),
            Self::Ambiguous => {
                f.write_str("an address without prefix could be hexadecimal or decimal: write `0x` or `0d` before it")
            }
            Self::Suffix => f.write_str("a plain number takes no suffix"),
        }
    }
}

/// How a number was written.
struct Spelling {
    value: u64,
    has_prefix: bool,
    has_suffix: bool,
}

fn spelling(text: &str) -> Result<Spelling, NumberError> {
    let prefixed = |prefix: [&str; 2]| prefix.into_iter().find_map(|prefix| text.strip_prefix(prefix));
    let (base, digits, has_prefix) = match (prefixed(["0x", "0X"]), prefixed(["0d", "0D"])) {
        (Some(digits), _) => (16, digits, true),
        (_, Some(digits)) => (10, digits, true),
        _ => (10, text, false),
    };
    let suffix = [('k', 10_u32), ('m', 20), ('g', 30)];
    let shift = digits
        .chars()
        .last()
        .and_then(|last| suffix.iter().find(|(letter, _)| last.eq_ignore_ascii_case(letter)).map(|&(_, shift)| shift));
    let digits = if shift.is_some() { digits.get(..digits.len().saturating_sub(1)).unwrap_or("") } else { digits };
    if digits.is_empty() {
        return Err(NumberError::NoDigits);
    }
    if let Some(bad) = digits.chars().find(|c| !c.is_digit(base)) {
        let hexadecimal = !has_prefix && digits.chars().all(|c| c.is_ascii_hexdigit());
        return Err(if hexadecimal { NumberError::NoPrefix } else { NumberError::BadDigit(bad) });
    }
    let mut value = 0_u64;
    for digit in digits.chars().filter_map(|c| c.to_digit(base)) {
        value = value
            .checked_mul(u64::from(base))
            .and_then(|value| value.checked_add(u64::from(digit)))
            .ok_or(NumberError::Overflow)?;
    }
    let unit = 1_u64.checked_shl(shift.unwrap_or(0)).ok_or(NumberError::Overflow)?;
    let value = value.checked_mul(unit).ok_or(NumberError::Overflow)?;
    Ok(Spelling { value, has_prefix, has_suffix: shift.is_some() })
}

/// A count or a plain number: decimal, or hexadecimal with `0x`; no suffix.
///
/// # Errors
/// If it is not spelt like one or does not fit in 64 bits.
pub fn number(text: &str) -> Result<u64, NumberError> {
    let spelling = spelling(text)?;
    if spelling.has_suffix { Err(NumberError::Suffix) } else { Ok(spelling.value) }
}

/// A size in bytes: decimal unless it has a prefix; K, M, G multiply by powers of 1024.
///
/// # Errors
/// If it is not spelt like one or does not fit in 64 bits.
pub fn size(text: &str) -> Result<u64, NumberError> {
    spelling(text).map(|spelling| spelling.value)
}

/// An address: with a prefix or a suffix, or a single digit, which is the same in either base.
///
/// # Errors
/// If it is not spelt like one, does not fit in 64 bits, or could be two different addresses.
pub fn address(text: &str) -> Result<u64, NumberError> {
    let spelling = spelling(text)?;
    if spelling.has_prefix || spelling.has_suffix || spelling.value < 10 {
        Ok(spelling.value)
    } else {
        Err(NumberError::Ambiguous)
    }
}

/// `1`, `yes`, `on`, `true` and their opposites, in either case.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.into_iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["1", "yes", "on", "true"]) {
        Some(true)
    } else if is(["0", "no", "off", "false"]) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    #[test]
    fn prefixes_choose_the_base() {
        assert_eq!(size("0x1000"), Ok(4096));
        assert_eq!(size("0X1000"), Ok(4096));
        assert_eq!(size("0d16384"), Ok(16384));
        assert_eq!(size("4096"), Ok(4096), "a bare size is decimal");
        assert_eq!(number("037"), Ok(37), "a leading zero is not octal");
    }

    #[test]
    fn suffixes_are_powers_of_1024_in_either_case() {
        assert_eq!(size("16K"), size("0d16384"));
        assert_eq!(size("128m"), Ok(128 << 20));
        assert_eq!(size("2G"), Ok(2 << 30));
        assert_eq!(size("0x10k"), Ok(16384));
        assert_eq!(number("4K"), Err(NumberError::Suffix));
    }

    #[test]
    fn overflow_is_diagnosed_not_wrapped() {
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(number("18446744073709551616"), Err(NumberError::Overflow));
        assert_eq!(number("0xffffffffffffffff"), Ok(u64::MAX));
        assert_eq!(number("0x1ffffffffffffffff"), Err(NumberError::Overflow));
        assert_eq!(size("17179869184G"), Err(NumberError::Overflow));
        assert_eq!(size("17179869183G"), Ok(u64::MAX << 30));
    }

    #[test]
    fn an_address_is_never_guessed() {
        assert_eq!(address("0x80000000"), Ok(0x8000_0000));
        assert_eq!(address("2G"), Ok(0x8000_0000));
        assert_eq!(address("0"), Ok(0));
        assert_eq!(address("80000000"), Err(NumberError::Ambiguous));
        assert_eq!(address("1c090000"), Err(NumberError::NoPrefix));
    }

    #[test]
    fn other_words_are_not_numbers() {
        for (text, error) in [
            ("", NumberError::NoDigits),
            ("0x", NumberError::NoDigits),
            ("K", NumberError::NoDigits),
            ("-1", NumberError::BadDigit('-')),
            ("1_000", NumberError::BadDigit('_')),
            ("12T", NumberError::BadDigit('T')),
            ("0xg1", NumberError::BadDigit('g')),
            ("1 ", NumberError::BadDigit(' ')),
            ("4KK", NumberError::BadDigit('K')),
        ] {
            assert_eq!(size(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn booleans_have_four_pairs_of_spellings() {
        for (yes, no) in [("1", "0"), ("yes", "no"), ("on", "off"), ("true", "false")] {
            assert_eq!((boolean(yes), boolean(no)), (Some(true), Some(false)));
        }
        assert_eq!(boolean("On"), Some(true));
        assert_eq!(boolean("2"), None);
    }

    proptest! {
        #[test]
        fn every_value_is_read_back_in_every_base(value: u64) {
            prop_assert_eq!(number(&format!("{value}")), Ok(value));
            prop_assert_eq!(size(&format!("0d{value}")), Ok(value));
            prop_assert_eq!(address(&format!("{value:#x}")), Ok(value));
        }

        #[test]
        #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
        fn no_text_panics(text in "\\PC{0,24}") {
            let _ = (number(&text), size(&text), address(&text), boolean(&text));
        }
    }
}
