//! Guest memory as device models and loaders reach it.

use types::{AccessSize, Ipa, Range};

/// The address is not the VM's own memory, wraps around, or is not aligned where it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFault {
    /// First address that could not be accessed.
    pub at: Ipa,
}

/// A VM's RAM and ROM. It copies, or does one aligned atomic access; it never lends a slice, because the guest goes on
/// writing while we read. All addresses are checked here, against the VM's own memory map.
pub trait GuestMemory: Send + Sync {
    /// Copies out. On a fault nothing can be said about the contents of `into`.
    ///
    /// # Errors
    /// If part of the range is not the VM's memory.
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault>;

    /// Copies in, also to ROM (loaders and device models write it; the guest cannot).
    ///
    /// # Errors
    /// If part of the range is not the VM's memory. Nothing has been written then.
    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault>;

    /// One single-copy atomic load with acquire semantics.
    ///
    /// # Errors
    /// If it is not aligned, or not the VM's memory.
    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault>;

    /// One single-copy atomic store with release semantics.
    ///
    /// # Errors
    /// If it is not aligned, or not the VM's memory.
    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault>;

    /// One atomic compare and exchange with acquire and release semantics: stores `new` if the value is `expected`. Returns the
    /// value that was there.
    ///
    /// # Errors
    /// If it is not aligned, or not the VM's memory.
    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault>;

    /// Has something behind an address that the guest has touched and not found: a page that it has given back
    /// ([`crate::Balloon`]) is there again, zeroed. `false` if it is nothing that can be given back. What is written by the other calls
    /// comes back by itself.
    ///
    /// # Errors
    /// If the host has no page for it: the VM cannot go on.
    fn recall(&self, at: Ipa) -> Result<bool, MemoryFault> {
        let _ = at;
        Ok(false)
    }

    /// Whether all of `range` is the VM's memory, whether the guest has given it back or not.
    fn contains(&self, range: Range<Ipa>) -> bool;
}
