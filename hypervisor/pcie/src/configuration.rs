//! The way to configuration space.
//!
//! Answers for: accesses of one, two and four bytes. Does not answer for: what is where (`registers`).

use crate::registers;
use pci_types::PciAddress;
use types::AccessSize;

/// Configuration spaces of a host's functions (PCI Express Base Specification, 7.2.2: ECAM).
pub trait Configuration {
    /// What is at `offset`, a multiple of `size`, below 4096. All ones if nobody answers, or the address is none of the host's.
    /// Never more than four bytes.
    fn read(&self, function: PciAddress, offset: u16, size: AccessSize) -> u32;

    /// Sets what is at `offset`, a multiple of `size`, below 4096, and returns when that is complete: configuration writes are not posted.
    fn write(&self, function: PciAddress, offset: u16, size: AccessSize, value: u32);
}

/// The configuration space of one function.
#[derive(Clone, Copy)]
pub struct Space<'a> {
    access: &'a dyn Configuration,
    /// Whose it is.
    pub address: PciAddress,
}

impl core::fmt::Debug for Space<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Space").field(&self.address).finish()
    }
}

impl<'a> Space<'a> {
    /// That of the function at `address`.
    #[must_use]
    pub const fn new(access: &'a dyn Configuration, address: PciAddress) -> Self {
        Self { access, address }
    }

    /// That of another function of the same host.
    pub(crate) const fn other(&self, address: PciAddress) -> Self {
        Self { access: self.access, address }
    }

    /// The byte at `offset`.
    #[must_use]
    pub fn byte(&self, offset: u16) -> u8 {
        let [byte, ..] = self.access.read(self.address, offset, AccessSize::Byte).to_le_bytes();
        byte
    }

    /// The two bytes at `offset`.
    #[must_use]
    pub fn half(&self, offset: u16) -> u16 {
        let [low, high, ..] = self.access.read(self.address, offset, AccessSize::Halfword).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// The four bytes at `offset`.
    #[must_use]
    pub fn word(&self, offset: u16) -> u32 {
        self.access.read(self.address, offset, AccessSize::Word)
    }

    /// Sets one byte.
    pub fn set_byte(&self, offset: u16, value: u8) {
        self.access.write(self.address, offset, AccessSize::Byte, value.into());
    }

    /// Sets two bytes.
    pub fn set_half(&self, offset: u16, value: u16) {
        self.access.write(self.address, offset, AccessSize::Halfword, value.into());
    }

    /// Sets four bytes.
    pub fn set_word(&self, offset: u16, value: u32) {
        self.access.write(self.address, offset, AccessSize::Word, value);
    }

    /// Clears the bits of `clear`, then sets those of `set`, of the two bytes at `offset`. Not for registers with bits that are
    /// cleared by writing one.
    pub fn change(&self, offset: u16, clear: u16, set: u16) {
        self.set_half(offset, self.half(offset) & !clear | set);
    }

    /// Whether a function answers. The Vendor ID will not do: that of a virtual function is FFFFh (9.3.4.1.1). No class is all ones, as
    /// is what a function that is gone gives (2.3.2).
    #[must_use]
    pub fn answers(&self) -> bool {
        self.word(registers::REVISION) != u32::MAX
    }

    /// Whether the function may do DMA as far as it is concerned (7.5.1.1.3, Bus Master Enable).
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.half(registers::COMMAND) & registers::command::BUS_MASTER != 0 && self.answers()
    }
}
