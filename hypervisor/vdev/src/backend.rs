//! What stands behind a device: the `hostdev`.

/// A character back end: a console stream, a file, nothing at all.
///
/// Neither call blocks. When `space` has become non-zero again, or bytes have arrived, the owner of the back end wakes the
/// device ([`crate::Wake::Backend`]).
pub trait CharDevice: Send {
    /// How many bytes [`CharDevice::write`] would take now.
    fn space(&self) -> usize;
    /// Appends one byte. Returns `false`, and takes nothing, if there is no space.
    fn write(&mut self, byte: u8) -> bool;
    /// The next byte from outside, if there is one.
    fn read(&mut self) -> Option<u8>;
}
