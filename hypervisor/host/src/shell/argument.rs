//! Arguments of commands: from a word to what it says.
//!
//! Answers for: the spelling of names, numbers, sizes, times and lists of CPUs, and for errors that show the word. Does not answer
//! for: which command takes what (`command`), or whether there is what is named.

use super::{CommandError, Word};
use alloc::{format, vec::Vec};
use types::{CpuId, CpuSet, MAX_CPUS};

/// A word that is a name and no more than that.
pub(super) fn plain<'a>(word: &Word<'a>) -> Result<&'a str, CommandError> {
    match word.text {
        text if text.contains('"') => Err(word.error("no quotes here")),
        "&" => Err(word.error("only `qvm` and `dryrun` can go on without waiting")),
        text if text.starts_with('-') => Err(word.error(format!("unknown option `{text}`"))),
        text => Ok(text),
    }
}

/// Words that are names.
pub(super) fn names<'a>(words: &[Word<'a>]) -> Result<Vec<&'a str>, CommandError> {
    words.iter().map(plain).collect()
}

/// A number from `min` to `max`, as the configuration language writes numbers.
pub(super) fn number(word: &Word<'_>, min: usize, max: usize) -> Result<usize, CommandError> {
    let number = qvmconf::number(word.text).ok().and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| word.error(format!("`{}` is no number from {min} to {max}", word.text)))
}

/// Seconds with up to three decimal places, at most a few years.
pub(super) fn milliseconds(word: &Word<'_>) -> Result<u64, CommandError> {
    let (whole, fraction) = word.text.split_once('.').unwrap_or((word.text, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = || {
        let whole: u64 = whole.parse().ok()?;
        let places = 3_u32.checked_sub(u32::try_from(fraction.len()).ok()?)?;
        let fraction: u64 = fraction.parse().ok()?;
        whole.checked_mul(1000)?.checked_add(fraction.checked_mul(10_u64.checked_pow(places)?)?)
    };
    let value = if digits(whole) && digits(fraction) { value() } else { None };
    value.ok_or_else(|| word.error(format!("`{}` is no number of seconds, as in 2 or 0.5", word.text)))
}

/// A number as the configuration language writes sizes: decimal or, with `0x`, hexadecimal; K, M and G multiply.
pub(super) fn size(word: &Word<'_>) -> Result<u64, CommandError> {
    qvmconf::size(word.text).map_err(|error| word.error(format!("`{}`: {error}", word.text)))
}

/// Numbers of CPUs with commas between.
pub(super) fn cpus(word: &Word<'_>) -> Result<CpuSet, CommandError> {
    let mut set = CpuSet::EMPTY;
    for part in word.text.split(',') {
        match qvmconf::number(part)
            .ok()
            .and_then(|cpu| u16::try_from(cpu).ok())
            .filter(|cpu| usize::from(*cpu) < MAX_CPUS)
        {
            Some(cpu) => set.insert(CpuId(cpu)),
            None => return Err(word.error(format!("`{part}` is no CPU: they are numbered from 0"))),
        }
    }
    Ok(set)
}
