//! What `pass` gives of the host: registers, functions of the host's PCI bus, interrupts.
//!
//! Answers for: their spelling, with the attribute letters of the original. Does not answer for: which of it is carried out
//! (`vm::config`), nor for whether the host has it.
//!
//! QNX: `pass loc [mem:|io:]REGION,LENGTH,ATTRIBUTES[=HOST]`, `pass loc pci:VENDOR/DEVICE` or `pci:BUS:DEVICE[.FUNCTION]`, either with
//! `=HOST`, and `pass intr GUEST[,u][=HOST]`.

use super::{Interrupt, ValueError, interrupt as line, quantity};
use crate::number::{address, number, size};
use alloc::format;

/// What of the host a guest gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PassedPlace {
    /// Registers or memory.
    Memory {
        /// Where the guest has it.
        start: u64,
        /// Bytes.
        length: u64,
        /// What may be done with it.
        attributes: PassAttributes,
        /// Where the host has it: the same address, unless it was said.
        host: u64,
    },
    /// A function of the host's PCI bus.
    Pci {
        /// Where the guest has it, or which it is.
        guest: PciIdentity,
        /// Which of the host's it is, if that was said.
        host: Option<PciIdentity>,
    },
}

/// A PCI function by its place or by what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PciIdentity {
    /// `BUS:DEVICE[.FUNCTION]`.
    Place {
        /// Which bus.
        bus: u8,
        /// 0 to 31.
        device: u8,
        /// 0 to 7.
        function: u8,
    },
    /// `VENDOR/DEVICE`: its identification registers.
    Kind {
        /// Vendor ID.
        vendor: u16,
        /// Device ID.
        device: u16,
    },
}

/// An interrupt of the host that a guest gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedInterrupt {
    /// Which input of the guest's interrupt controller.
    pub guest: Interrupt,
    /// `u`: it is edge-triggered on both sides, and not masked until the guest has completed it.
    pub unmasked: bool,
    /// The host's INTID: the same number, unless it was said.
    pub host: u32,
}

/// The attribute letters of a region: a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PassAttributes(u16);

impl PassAttributes {
    /// All letters, in alphabetical order.
    pub const LETTERS: [char; 10] = ['c', 'd', 'e', 'm', 'n', 'r', 's', 't', 'w', 'x'];
    /// QNX: what `m` brings with it.
    const OF_MEMORY: [char; 7] = ['r', 'w', 'x', 'c', 's', 't', 'n'];

    /// Whether `letter` is in it; not for one that is none.
    #[must_use]
    pub fn contains(self, letter: char) -> bool {
        self.0 & Self::bit(letter).unwrap_or(0) != 0
    }

    fn bit(letter: char) -> Option<u16> {
        let index = Self::LETTERS.iter().position(|known| *known == letter)?;
        1_u16.checked_shl(u32::try_from(index).ok()?)
    }

    /// Adds `letter`, with what it brings, or takes it away. `None` for one that is no letter of these.
    fn change(&mut self, letter: char, add: bool) -> Option<()> {
        let mut bits = Self::bit(letter)?;
        if letter == 'm' {
            bits |= Self::OF_MEMORY.into_iter().filter_map(Self::bit).fold(0, |sum, bit| sum | bit);
        }
        self.0 = if add { self.0 | bits } else { self.0 & !bits };
        Some(())
    }
}

/// What is in front of `=`, and what is behind it.
fn sides(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(guest, host)| (guest, Some(host)))
}

pub(super) fn place(text: &str) -> Result<PassedPlace, ValueError> {
    let (guest, host) = sides(text);
    match guest.split_once(':') {
        Some(("pci", function)) => {
            let host = host.map(|host| identity(text, host.strip_prefix("pci:").unwrap_or(host))).transpose()?;
            Ok(PassedPlace::Pci { guest: identity(text, function)?, host })
        }
        Some(("io", _)) => {
            let error = ValueError::new("`io:` is for x86 machines".into());
            Err(error.hint("an Arm machine has memory addresses only"))
        }
        Some(("mem", region)) => memory(text, region, host),
        Some((space, _)) => Err(ValueError::new(format!("`{space}` is no address space")).hint("mem or pci")),
        None => memory(text, guest, host),
    }
}

fn memory(text: &str, region: &str, host: Option<&str>) -> Result<PassedPlace, ValueError> {
    let mut parts = region.splitn(3, ',');
    let start = quantity("address", text, parts.next().unwrap_or_default(), address)?;
    let Some(length) = parts.next() else {
        return Err(ValueError::new(format!("`{region}` has no length")));
    };
    let length = quantity("size", text, length, size)?;
    let letters = parts.next().unwrap_or_default();
    if letters.is_empty() {
        return Err(ValueError::new(format!("`{region}` has no attributes")));
    }
    let host = host.map(|host| quantity("address", text, host, address)).transpose()?;
    let attributes = attributes(text, letters)?;
    Ok(PassedPlace::Memory { start, length, attributes, host: host.unwrap_or(start) })
}

/// Letters behind `+` are added, as at the beginning, those behind `-` taken away.
fn attributes(text: &str, letters: &str) -> Result<PassAttributes, ValueError> {
    let (mut attributes, mut add) = (PassAttributes::default(), true);
    for (at, letter) in letters.char_indices() {
        match letter {
            '+' => add = true,
            '-' => add = false,
            _ if attributes.change(letter, add).is_some() => {}
            _ => {
                let start = text.find(letters).unwrap_or(0).saturating_add(at);
                let part = start..start.saturating_add(letter.len_utf8());
                let message = format!("`{letter}` is no attribute");
                let hint = Some("c d e m n r s t w x, as in rwn".into());
                return Err(ValueError { message, part, hint });
            }
        }
    }
    if attributes.contains('d') && (attributes.contains('n') || attributes.contains('m')) {
        let other = if attributes.contains('m') { 'm' } else { 'n' };
        return Err(ValueError::new(format!("`{letters}`: `d` and `{other}` exclude one another")));
    }
    Ok(attributes)
}

fn identity(text: &str, function: &str) -> Result<PciIdentity, ValueError> {
    let below = |kind: &str, part: &str, end: u64| {
        let value = quantity(kind, text, part, number)?;
        if value < end { Ok(value) } else { Err(ValueError::new(format!("`{part}` is no {kind}"))) }
    };
    let byte = |kind, part, end| below(kind, part, end).map(|value| u8::try_from(value).unwrap_or(u8::MAX));
    let word = |kind, part| below(kind, part, 0x1_0000).map(|value| u16::try_from(value).unwrap_or(u16::MAX));
    if let Some((vendor, device)) = function.split_once('/') {
        return Ok(PciIdentity::Kind { vendor: word("vendor", vendor)?, device: word("device", device)? });
    }
    let Some((bus, rest)) = function.split_once(':') else {
        let error = ValueError::new(format!("`{function}` is no function of a PCI bus"));
        return Err(error.hint("BUS:DEVICE[.FUNCTION] or VENDOR/DEVICE, as in pci:0:3.0 or pci:0x8086/0x10d3"));
    };
    let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
    Ok(PciIdentity::Place {
        bus: byte("PCI bus", bus, 256)?,
        device: byte("PCI device", device, 32)?,
        function: byte("function", function, 8)?,
    })
}

pub(super) fn interrupt(text: &str) -> Result<PassedInterrupt, ValueError> {
    let (guest, host) = sides(text);
    let (input, unmasked) = match guest.split_once(',') {
        None => (guest, false),
        Some((input, "u")) => (input, true),
        // QNX: 7.1 had it, 8.0 has not.
        Some((_, "t")) => {
            let error = ValueError::new("`t`: not here: no thread takes the interrupts of passed devices".into());
            return Err(error.hint("leave it out"));
        }
        Some((_, other)) => return Err(ValueError::new(format!("`{other}` is no way to take an interrupt")).hint("u")),
    };
    let guest = line(input)?;
    let host = match host {
        None => guest.line,
        Some(host) => {
            let value = quantity("interrupt", text, host, number)?;
            u32::try_from(value).map_err(|_| ValueError::new(format!("`{host}` is no interrupt")))?
        }
    };
    Ok(PassedInterrupt { guest, unmasked, host })
}
