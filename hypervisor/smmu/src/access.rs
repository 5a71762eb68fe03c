//! What an SMMU's driver gives to this crate: registers, and memory that the SMMU reads and writes.

use types::Pa;

/// The registers of one SMMU.
pub trait Registers {
    /// The 32-bit register at `offset` from the start of page 0. What the SMMU has written to memory before it let this value
    /// be seen is seen by later [`Memory::load`]s.
    fn get(&mut self, offset: usize) -> u32;

    /// Sets the 32-bit register, or half of a 64-bit one (6.2), at `offset`. What has been published before is seen by the
    /// SMMU before this is.
    fn set(&mut self, offset: usize, value: u32);
}

/// Memory that the SMMU reaches: stream table, command queue, event queue. All of it is the hypervisor's own.
pub trait Memory {
    /// The 64-bit word at `at`, a multiple of 8, as the SMMU has written it last.
    fn load(&mut self, at: Pa) -> u64;

    /// Sets the 64-bit word at `at`, a multiple of 8, with one store, which the SMMU sees whole or not at all.
    fn store(&mut self, at: Pa, word: u64);

    /// All stores so far are seen by the SMMU before any later one, or later [`Registers::set`]: cleaned to where it reads
    /// them, if it is not coherent, and DSB.
    fn publish(&mut self);
}
