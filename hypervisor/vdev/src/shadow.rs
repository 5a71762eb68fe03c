//! Registers that a guest reads without an exit.
//!
//! Answers for: what a device has of such a page. Does not answer for: who gets one (the partition), the page's memory and its place in
//! the guest's stage 2 (the kernel's).

/// The page of a device's registers, as memory that the guest may read and nobody but the device writes. A guest's store is the
/// device's to take, as without it. In the beginning all of it is zero.
pub trait ShadowPage: Send + Sync {
    /// Has the guest find `value`, little-endian, `offset` bytes from the page's start, with its caches on or off, by the time this
    /// returns: a single-copy atomic store. One that is not aligned or not within the page is none, nor is one before the VM has memory.
    fn store(&self, offset: u16, value: u32);
}
