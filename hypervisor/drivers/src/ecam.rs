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
        // 2.3.2: what no function answers is all ones. A host may say so by an abort, or the tree may have made it up.
        let at = self.offset(function, offset).filter(|_| size <= AccessSize::Word);
        at.and_then(|at| self.registers.load(at, size)).map_or(u32::MAX, |value| value as u32)
    }

    fn write(&self, function: PciAddress, offset: u16, size: AccessSize, value: u32) {
        let Some(at) = self.offset(function, offset) else { return };
        if size <= AccessSize::Word {
            let _ = self.registers.store(at, size, value.into());
            self.registers.complete();
        }
    }
}
