//! The configuration space of one function.
//!
//! Answers for: the type 0 header (PCI, 6.1), base address registers and their sizing (6.2.5), the list of capabilities (6.7), and
//! which bits of all that can be written. Does not answer for: what follows from a write ([`crate::Endpoint`]).
//!
//! It is 256 bytes, and a mask of what can be written. All that can be written is zero after a reset. Behind the 256 bytes there is
//! nothing: what is not PCI Express has no extended capabilities, and reads zero there.

use crate::function::{Bar, Capability, Identity, Width};
use alloc::vec::Vec;
use bitflags::bitflags;
use core::fmt;
use types::{AccessSize, Ipa, Range};

/// Bytes that there are of it.
pub(crate) const SIZE: usize = 256;

// Offsets (PCI, figure 6-1).
const VENDOR: u16 = 0x00;
const DEVICE: u16 = 0x02;
pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const STATUS: u16 = 0x06;
pub(crate) const REVISION: u16 = 0x08;
const CACHE_LINE_SIZE: u16 = 0x0c;
const HEADER_TYPE: u16 = 0x0e;
const BARS: u16 = 0x10;
pub(crate) const SUBSYSTEM_VENDOR: u16 = 0x2c;
const SUBSYSTEM: u16 = 0x2e;
pub(crate) const CAPABILITIES: u16 = 0x34;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;
/// The first byte that capabilities may have.
pub(crate) const FIRST_CAPABILITY: u16 = 0x40;

/// "Multi-function device" in the header type.
const MULTIFUNCTION: u64 = 1 << 7;
/// "Capabilities list" in the status.
pub(crate) const HAS_CAPABILITIES: u64 = 1 << 4;
/// "Interrupt status" in the status.
pub(crate) const INTERRUPT_STATUS: u8 = 1 << 3;
/// Bits 2 and 1 of a base address register: 64 bits wide.
const IS_64_BIT: u64 = 0b10 << 1;
/// How many base address registers a function has.
const BAR_COUNT: u8 = 6;

bitflags! {
    /// The command register (PCI, 6.2.2), as far as it can be written. There are no I/O space, special cycles, parity or SERR# to be
    /// enabled.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Command: u16 {
        /// The function answers in its BARs.
        const MEMORY_SPACE = 1 << 1;
        /// It may write to memory, messages included, and read from it.
        const BUS_MASTER = 1 << 2;
        /// It does not assert its pin.
        const INTERRUPT_DISABLE = 1 << 10;
    }
}

/// Why a function cannot be described: a mistake of its author's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// This BAR is not one of six, is another one's, or is no power of two of at least 16 bytes that fits its width.
    Bar(u8),
    /// This capability does not fit into what is left of the configuration space.
    Capability(u8),
    /// No, or more than 2048, vectors.
    Vectors(u16),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bar(index) => write!(f, "its BAR {index} cannot be"),
            Self::Capability(id) => write!(f, "there is no room for its capability {id:#x}"),
            Self::Vectors(count) => write!(f, "it cannot have {count} vectors"),
        }
    }
}

impl core::error::Error for Flaw {}

/// A configuration space.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    /// Where capabilities are that are watched: the first byte, and the first behind.
    watched: Vec<(u16, u16)>,
    bars: [Option<Bar>; BAR_COUNT as usize],
    /// Where the last capability's pointer to the next one is.
    last_pointer: u16,
    /// The first byte that no capability has.
    free: u16,
}

impl fmt::Debug for ConfigSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSpace")
            .field("command", &self.command())
            .field("bars", &self.bars)
            .finish_non_exhaustive()
    }
}

impl ConfigSpace {
    /// That of a function which is `identity`, has the interrupt pin `pin` (1 to 4, 0 for none) and nothing else.
    #[must_use]
    pub fn new(identity: &Identity, pin: u8, is_one_of_several: bool) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            watched: Vec::new(),
            bars: [None; BAR_COUNT as usize],
            last_pointer: CAPABILITIES,
            free: FIRST_CAPABILITY,
        };
        space.set(VENDOR, AccessSize::Halfword, identity.vendor.into());
        space.set(DEVICE, AccessSize::Halfword, identity.device.into());
        space.set(REVISION, AccessSize::Word, u64::from(identity.class) << 8 | u64::from(identity.revision));
        space.set(HEADER_TYPE, AccessSize::Byte, if is_one_of_several { MULTIFUNCTION } else { 0 });
        space.set(SUBSYSTEM_VENDOR, AccessSize::Halfword, identity.subsystem_vendor.into());
        space.set(SUBSYSTEM, AccessSize::Halfword, identity.subsystem.into());
        space.set(INTERRUPT_PIN, AccessSize::Byte, pin.into());
        // PCI, 6.2.4: software's to use, of no meaning to a function that never prefetches by lines or asserts a line itself.
        space.allow(CACHE_LINE_SIZE, AccessSize::Byte, 0xff);
        space.allow(INTERRUPT_LINE, AccessSize::Byte, 0xff);
        let mut command = Command::BUS_MASTER;
        command.set(Command::INTERRUPT_DISABLE, pin != 0);
        space.allow(COMMAND, AccessSize::Halfword, command.bits().into());
        space
    }

    /// Gives the function a region.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn add_bar(&mut self, bar: &Bar) -> Result<(), Flaw> {
        let wrong = Flaw::Bar(bar.index);
        let (highest, kind) = match bar.width {
            Width::Bits32 => (1 << 31, 0),
            Width::Bits64 => (1 << 51, IS_64_BIT),
        };
        let end = bar.end();
        if end > BAR_COUNT || !bar.size.is_power_of_two() || bar.size < 16 || bar.size > highest {
            return Err(wrong);
        }
        let at = bar_at(bar.index);
        if self.bars().any(|other| other.index < end && bar.index < other.end()) {
            return Err(wrong);
        }
        // PCI, 6.2.5.1: what the size makes the same for every address reads as zero, which is how software learns the size.
        let address = !bar.size.wrapping_sub(1);
        self.allow(at, AccessSize::Word, address);
        if bar.width == Width::Bits64 {
            self.allow(at.saturating_add(4), AccessSize::Word, address >> 32);
        }
        self.set(at, AccessSize::Word, kind);
        self.allow(COMMAND, AccessSize::Halfword, self.writable_command().union(Command::MEMORY_SPACE).bits().into());
        if let Some(slot) = self.bars.get_mut(usize::from(bar.index)) {
            *slot = Some(*bar);
        }
        Ok(())
    }

    /// Adds to the list of capabilities. Says where in the configuration space it is.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn add_capability(&mut self, capability: &Capability) -> Result<u16, Flaw> {
        self.add_capability_at(self.free, capability)
    }

    /// The same, of one that is at `at`, where no other is.
    pub(crate) fn add_capability_at(&mut self, at: u16, capability: &Capability) -> Result<u16, Flaw> {
        let body = at.saturating_add(2);
        let length = u16::try_from(capability.body.len()).unwrap_or(u16::MAX);
        // PCI, 6.7: each begins at a multiple of four bytes.
        let end = body.saturating_add(length).checked_next_multiple_of(4).unwrap_or(u16::MAX);
        if usize::from(end) > SIZE {
            return Err(Flaw::Capability(capability.id));
        }
        self.set(at, AccessSize::Byte, capability.id.into());
        let writable = capability.writable.iter().copied().chain(core::iter::repeat(0));
        for ((at, byte), mask) in (body..).zip(&capability.body).zip(writable) {
            self.set(at, AccessSize::Byte, (*byte).into());
            self.allow(at, AccessSize::Byte, mask.into());
        }
        if capability.is_watched {
            self.watched.push((at, end));
        }
        self.set(self.last_pointer, AccessSize::Byte, at.into());
        self.last_pointer = at.saturating_add(1);
        self.set(STATUS, AccessSize::Halfword, HAS_CAPABILITIES);
        self.free = end;
        Ok(at)
    }

    /// What a load of `size` bytes at `at` finds; zero behind the end.
    #[must_use]
    pub fn read(&self, at: u16, size: AccessSize) -> u64 {
        self.get(at, size, &self.bytes)
    }

    /// A guest's store: what can be written of it is.
    pub fn write(&mut self, at: u16, size: AccessSize, value: u64) {
        for ((byte, mask), new) in
            in_order(&mut self.bytes, at, size).zip(in_order(&mut self.writable, at, size)).zip(value.to_le_bytes())
        {
            *byte = *byte & !*mask | new & *mask;
        }
    }

    /// Puts something there for the guest to read, whether it could write it or not: the function's business, in its own
    /// capabilities.
    pub fn set(&mut self, at: u16, size: AccessSize, value: u64) {
        in_order(&mut self.bytes, at, size).zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new);
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.bytes.iter_mut().zip(&self.writable).for_each(|(byte, mask)| *byte &= !mask);
    }

    /// The command register.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::from_bits_truncate(low(self.read(COMMAND, AccessSize::Halfword)))
    }

    /// Where a region is: `None` if it is nowhere, because it is not enabled or cannot be at such an address.
    #[must_use]
    pub fn placed(&self, index: u8) -> Option<Range<Ipa>> {
        let bar = self.bars.get(usize::from(index)).copied().flatten()?;
        if !self.command().contains(Command::MEMORY_SPACE) {
            return None;
        }
        let size = if bar.width == Width::Bits64 { AccessSize::Doubleword } else { AccessSize::Word };
        Range::new(Ipa(self.read(bar_at(index), size) & !0xf), bar.size)
    }

    /// The regions that there are.
    pub fn bars(&self) -> impl Iterator<Item = Bar> + use<> {
        self.bars.into_iter().flatten()
    }

    /// The region that a base address register is the first of.
    pub(crate) fn bar(&self, index: u64) -> Option<&Bar> {
        self.bars.get(usize::try_from(index).ok()?)?.as_ref()
    }

    /// "Interrupt status": whether the function wants its pin asserted, may it or not.
    pub(crate) fn set_interrupt_status(&mut self, asserted: bool) {
        if let Some(byte) = self.bytes.get_mut(usize::from(STATUS)) {
            *byte = if asserted { *byte | INTERRUPT_STATUS } else { *byte & !INTERRUPT_STATUS };
        }
    }

    /// Where the capability begins that an access there is to, if it is one that is watched.
    pub(crate) fn watched(&self, at: u16) -> Option<u16> {
        let found = self.watched.iter().find(|(start, end)| (*start..*end).contains(&at));
        found.map(|(start, _)| *start)
    }

    /// Whether an access there can change who is where: to the command register or a BAR.
    pub(crate) const fn concerns_bars(at: u16) -> bool {
        matches!(at, COMMAND..=5 | BARS..=0x27)
    }

    fn writable_command(&self) -> Command {
        Command::from_bits_truncate(low(self.get(COMMAND, AccessSize::Halfword, &self.writable)))
    }

    fn allow(&mut self, at: u16, size: AccessSize, mask: u64) {
        in_order(&mut self.writable, at, size).zip(mask.to_le_bytes()).for_each(|(byte, new)| *byte = new);
    }

    fn get(&self, at: u16, size: AccessSize, from: &[u8; SIZE]) -> u64 {
        let mut value = [0; 8];
        let length = usize::try_from(size.bytes()).unwrap_or(0);
        let bytes = from.iter().skip(at.into()).take(length);
        value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(value)
    }
}

/// The register of a BAR.
const fn bar_at(index: u8) -> u16 {
    BARS.saturating_add((index as u16).saturating_mul(4))
}

/// The bytes that an access has.
fn in_order(bytes: &mut [u8; SIZE], at: u16, size: AccessSize) -> impl Iterator<Item = &mut u8> {
    bytes.iter_mut().skip(at.into()).take(usize::try_from(size.bytes()).unwrap_or(0))
}

/// Bits 15 to 0.
const fn low(value: u64) -> u16 {
    let [first, second, ..] = value.to_le_bytes();
    u16::from_le_bytes([first, second])
}

#[cfg(test)]
mod tests;
