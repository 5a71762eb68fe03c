//! Configuration space in memory.
//!
//! Answers for: reaching it (PCI Express Base Specification, 7.2.2: ECAM). Does not answer for: where it is (`machine`), what is done with it (`pcie`).

use crate::Mmio;
use machine::{BUS_LENGTH, PciHost};
use pcie::{Configuration, PciAddress};
use types::AccessSize;

/// The configuration space of one host.
#[derive(Clone, Copy, Debug)]
pub struct Ecam {
    registers: Mmio,
    segment: u16,
    first_bus: u8,
    last_bus: u8,
}

impl Ecam {
    /// That of `host`, whose functions have addresses of `segment`.
    ///
    /// # Safety
    /// It is configuration space, and reached in no other way; a bus of it is mapped as Device memory at its address for good before it is
    /// read or written.
    #[must_use]
    pub unsafe fn new(host: &PciHost, segment: u16) -> Self {
        // SAFETY: the caller's promise.
        let registers = unsafe { Mmio::of(&host.configuration) };
        Self { registers, segment, first_bus: host.first_bus, last_bus: host.last_bus }
    }

    fn offset(&self, function: PciAddress, offset: u16) -> Option<usize> {
        let bus = function.bus().checked_sub(self.first_bus)?;
        let is_here = function.segment() == self.segment && function.bus() <= self.last_bus && offset < 4096;
        let number = usize::from(function.device()) << 3 | usize::from(function.function());
        is_here.then_some((usize::from(bus) * BUS_LENGTH as usize) + (number << 12) + usize::from(offset))
    }
}

impl Configuration for Ecam {
    fn read(&self, function: PciAddress, offset: u16, size: AccessSize) -> u32 {
        let at = self.offset(function, offset);
        match (at, size) {
            (None, _) | (_, AccessSize::Doubleword) => u32::MAX,
            (Some(at), AccessSize::Byte) => self.registers.read_u8(at).into(),
            (Some(at), AccessSize::Halfword) => self.registers.read_u16(at).into(),
            (Some(at), AccessSize::Word) => self.registers.read_u32(at),
        }
    }

    fn write(&self, function: PciAddress, offset: u16, size: AccessSize, value: u32) {
        let Some(at) = self.offset(function, offset) else { return };
        match size {
            AccessSize::Byte => self.registers.write_u8(at, value as u8),
            AccessSize::Halfword => self.registers.write_u16(at, value as u16),
            AccessSize::Word => self.registers.write_u32(at, value),
            AccessSize::Doubleword => {}
        }
        self.registers.complete();
    }
}
