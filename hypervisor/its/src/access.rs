//! What a driver gives to this crate: registers of an ITS or of a redistributor, and memory that these read and write.

use types::Pa;

/// The registers of one ITS, or of one redistributor.
pub trait Registers {
    /// The 32-bit register at `offset`. What has been written to memory before this value could be seen is seen by later
    /// loads.
    fn get(&mut self, offset: usize) -> u32;

    /// Sets the 32-bit register at `offset`. What has been published before is seen before this is.
    fn set(&mut self, offset: usize, value: u32);

    /// The 64-bit register at `offset`.
    fn get_wide(&mut self, offset: usize) -> u64;

    /// Sets the 64-bit register at `offset`, as [`Registers::set`].
    fn set_wide(&mut self, offset: usize, value: u64);
}

/// Memory that an ITS and redistributors read: commands, first levels of tables, the configuration of LPIs. All of it is the
/// hypervisor's own.
pub trait Memory {
    /// Sets the 64-bit word at `at`, a multiple of 8, with one store.
    fn store(&mut self, at: Pa, word: u64);

    /// Sets a byte.
    fn store_byte(&mut self, at: Pa, byte: u8);

    /// All stores so far are seen before any later one, or later [`Registers::set`]: cleaned to where they are read, if
    /// that is not through the CPUs' caches, and DSB.
    fn publish(&mut self);

    /// It has turned out that memory is not read through the CPUs' caches: what is stored from now on is cleaned.
    fn reads_past_caches(&mut self);
}
