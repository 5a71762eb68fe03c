//! Places of devices, and ranges of memory: from text to what it says.

use alloc::format;
use alloc::string::String;
use core::fmt;
use qvmconf::{Span, address, number, size};
use types::{PAGE_SIZE, Pa, Range};

/// Where a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spec {
    /// A function of the machine's PCI bus.
    Pci {
        /// 0 to 255.
        bus: u8,
        /// 0 to 31.
        device: u8,
        /// 0 to 7.
        function: u8,
    },
    /// Streams by their numbers, both included.
    Streams {
        /// The first.
        first: u32,
        /// The last, not before the first.
        last: u32,
    },
    /// A device of the machine's tree, by the first address of its registers.
    Mmio(Pa),
}

impl Spec {
    /// Whether both name the same.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Streams { first, last }, Self::Streams { first: from, last: to }) => first <= to && from <= last,
            (this, other) => this == other,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci { bus, device, function } => write!(f, "pci:{bus}:{device}.{function}"),
            Self::Streams { first, last } if first == last => write!(f, "stream:{first:#x}"),
            Self::Streams { first, last } => write!(f, "stream:{first:#x}-{last:#x}"),
            Self::Mmio(registers) => write!(f, "mmio:{registers}"),
        }
    }
}

/// Memory of the machine in whole pages, and where it is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    /// Which.
    pub range: Range<Pa>,
    /// Where.
    pub span: Span,
}

/// A place. The error is a message.
pub(super) fn spec(text: &str) -> Result<Spec, String> {
    match text.split_once(':') {
        Some(("pci", function)) => pci(function),
        Some(("stream", streams)) => {
            let (first, last) = streams.split_once('-').unwrap_or((streams, streams));
            let (first, last) = (stream(first)?, stream(last)?);
            if first > last {
                return Err(format!("stream {last:#x} comes before {first:#x}"));
            }
            Ok(Spec::Streams { first, last })
        }
        Some(("mmio", start)) => address(start)
            .map(|start| Spec::Mmio(Pa(start)))
            .map_err(|error| format!("`{start}` is no address: {error}")),
        _ => Err(format!("`{text}` is not where a device is")),
    }
}

fn stream(text: &str) -> Result<u32, String> {
    let value = number(text).map_err(|error| format!("`{text}` is no stream: {error}"))?;
    u32::try_from(value).map_err(|_| format!("`{text}` is no stream: they have 32 bits"))
}

fn pci(text: &str) -> Result<Spec, String> {
    let (bus, rest) = text.split_once(':').unwrap_or(("", text));
    let (device, function) = rest.split_once('.').unwrap_or((rest, ""));
    let below = |what: &str, part: &str, end: u16| {
        let value = number(part).map_err(|error| format!("`{part}` is no PCI {what}: {error}"))?;
        let value = u8::try_from(value).ok().filter(|value| u16::from(*value) < end);
        value.ok_or_else(|| format!("`{part}` is no PCI {what}: there are 0 to {}", end.saturating_sub(1)))
    };
    let (bus, device) = (below("bus", bus, 256)?, below("device", device, 32)?);
    Ok(Spec::Pci { bus, device, function: below("function", function, 8)? })
}

/// `START,LENGTH`. The error is a message.
pub(super) fn memory(text: &str) -> Result<(u64, u64), String> {
    let (start, length) = text.split_once(',').ok_or_else(|| format!("`{text}` has no length"))?;
    let first = address(start).map_err(|error| format!("`{start}` is no address: {error}"))?;
    let bytes = size(length).map_err(|error| format!("`{length}` is no size: {error}"))?;
    let is_whole = first.is_multiple_of(PAGE_SIZE) && bytes.is_multiple_of(PAGE_SIZE);
    if bytes == 0 || !is_whole {
        return Err(format!("`{text}` is not whole pages of 4 KiB"));
    }
    Ok((first, bytes))
}
