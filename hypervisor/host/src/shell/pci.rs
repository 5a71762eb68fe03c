//! `pci`: functions of the machine's PCI Express, at the shell.
//!
//! Answers for: how one is named, and what can be done with it. Does not answer for: whether there is such a function, and doing it (the
//! kernel).

use super::{CommandError, Word, argument, command::Call};
use alloc::format;

/// A function: segment, bus, device, function.
pub type Location = (u16, u8, u8, u8);

/// `pci reset [-f] SEGMENT:BUS:DEVICE.FUNCTION`, `pci virtual SEGMENT:BUS:DEVICE.FUNCTION COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pci {
    /// Bring it to rest; with `true`, even if it cannot be reset.
    Reset(Location, bool),
    /// Have it make so many virtual functions.
    Virtual(Location, u16),
}

pub(super) const ARGUMENTS: &str = "reset [-f] FUNCTION|virtual FUNCTION COUNT";

/// `pci ...`.
pub(super) fn read(call: &Call<'_, '_>) -> Result<Pci, CommandError> {
    match call.words {
        [Word { text: "reset", .. }, function] => Ok(Pci::Reset(location(function)?, false)),
        [Word { text: "reset", .. }, Word { text: "-f", .. }, function] => Ok(Pci::Reset(location(function)?, true)),
        [Word { text: "virtual", .. }, function, count] => {
            let count = u16::try_from(argument::number(count, 1, 0xffff)?).unwrap_or(u16::MAX);
            Ok(Pci::Virtual(location(function)?, count))
        }
        _ => call.usage(usize::MAX),
    }
}

/// As `pidin pci` writes it: `0000:01:02.3`; the segment may be left out.
fn location(word: &Word<'_>) -> Result<Location, CommandError> {
    let digits = |text: &str, most: u32| {
        let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(text, 16).ok().filter(|number| is_number && *number <= most)
    };
    let read = || {
        let (rest, function) = word.text.rsplit_once('.')?;
        let (rest, device) = rest.rsplit_once(':')?;
        let (segment, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let (device, function) = (digits(device, 31)?, digits(function, 7)?);
        Some((
            u16::try_from(digits(segment, 0xffff)?).ok()?,
            u8::try_from(digits(bus, 0xff)?).ok()?,
            u8::try_from(device).ok()?,
            u8::try_from(function).ok()?,
        ))
    };
    read().ok_or_else(|| word.error(format!("`{}` is no PCI function, as in 0000:01:02.3", word.text)))
}

#[cfg(test)]
mod tests {
    use super::super::{Command, read};
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn functions_are_named_as_they_are_shown() {
        let typed = |text| match read(text) {
            Ok(Some(Command::Pci(pci))) => pci,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(typed("pci reset 0000:01:02.3"), Pci::Reset((0, 1, 2, 3), false));
        assert_eq!(typed("pci reset 1:ff:1f.7"), Pci::Reset((1, 255, 31, 7), false));
        assert_eq!(typed("pci reset 00:01.0"), Pci::Reset((0, 0, 1, 0), false));
        assert_eq!(typed("pci reset -f 00:01.0"), Pci::Reset((0, 0, 1, 0), true));
        assert_eq!(typed("pci virtual 00:01.0 2"), Pci::Virtual((0, 0, 1, 0), 2));
    }

    #[test]
    fn what_is_no_function_is_said() {
        for wrong in ["1", "1.0", "100:1.0", "0:20.0", "0:1.8", "0:0:+1.0", "0:0:0:1.0", ":1.0", "00001:0:1.0", "0:1.x"]
        {
            let error = read(&format!("pci reset {wrong}")).unwrap_err().to_string();
            assert_eq!(error, format!("shell: `{wrong}` is no PCI function, as in 0000:01:02.3"));
        }
        for wrong in ["pci", "pci reset", "pci virtual 0:1.0", "pci reset 0:1.0 2", "pci use 0:1.0"] {
            assert!(read(wrong).unwrap_err().to_string().contains("usage: `pci reset"), "{wrong}");
        }
        assert!(read("pci virtual 0:1.0 0").is_err());
    }
}
