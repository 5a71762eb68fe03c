//! Memory that VMs share with each other and with the host.
//!
//! Answers for: what a device may ask of the host about it, and what the names of regions are. Does not answer for: the memory
//! itself and who is attached to it (the host's), the registers by which a guest asks (the device's).

use core::fmt;
use types::Ipa;

/// Most clients of a region.
pub const REGION_CLIENTS: u8 = 16;

/// Most regions that one device is attached to.
pub const DEVICE_REGIONS: usize = 16;

/// The name of a region: 1 to 32 printing characters of ASCII. They are the machine's, not a VM's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegionName {
    bytes: [u8; RegionName::SIZE],
    length: u8,
}

impl RegionName {
    /// Bytes of the longest.
    pub const SIZE: usize = 32;

    /// What stands in front of the first zero byte, if that can be a name.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut bytes = [0; Self::SIZE];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        let is_name = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        is_name.then_some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }

    /// As a guest reads it, zeroes behind it.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; Self::SIZE] {
        &self.bytes
    }
}

impl fmt::Debug for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A region that the device is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What the device calls it from now on: below [`DEVICE_REGIONS`].
    pub slot: u8,
    /// Which of its clients the guest is: below [`REGION_CLIENTS`].
    pub client: u8,
    /// Its size in pages of 4 KiB, whatever was asked for: who makes it says.
    pub pages: u32,
    /// Where the page of its registers is in the device's window. The memory is right behind it.
    pub control: Ipa,
}

/// Why a device is not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionError {
    /// There is not enough memory, or no room in the device's window, or it has as many regions as it can have.
    NoMemory,
    /// The region has as many clients as it can have.
    TooManyClients,
    /// There is none of that name, and none is to be made.
    Missing,
    /// The host has failed.
    Failed,
}

/// The shared memory that a device's guest is attached to. No call waits. What takes long is done afterwards, if the device says
/// so ([`crate::Context::later`]).
pub trait SharedMemory: Send {
    /// Wants to be attached to the region `name`, which is made with so many pages of zeroes if there is none, unless that is
    /// none. When that has been done, or has failed, the device is woken with [`crate::Wake::Backend`]. Says whether it will
    /// be: one wish at a time. Calls for [`crate::Context::later`].
    fn attach(&mut self, name: RegionName, pages: u32) -> bool;

    /// What has become of the last wish, once.
    fn answer(&mut self) -> Option<Result<Attached, RegionError>>;

    /// The region in this slot, and its place in the window, are the device's no more. Calls for [`crate::Context::later`].
    fn detach(&mut self, slot: u8);

    /// Tells clients, by their numbers' bits, that they are to look. Calls for [`crate::Context::tell`].
    fn notify(&mut self, slot: u8, clients: u16);

    /// Which clients have told this one to look since it last did (bits 15 to 0), and which ones there are (bits 31 to 16).
    /// When that changes the device is woken with [`crate::Wake::Backend`].
    fn look(&mut self, slot: u8) -> u32;

    /// Whether there is something in any slot that [`SharedMemory::look`] has not been asked for.
    fn has_news(&self) -> bool;

    /// Name and size in pages of the region `number`, counted from 0, of those that there are.
    fn region(&self, number: u32) -> Option<(RegionName, u32)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_print() {
        assert_eq!(RegionName::new(b"frames\0old").unwrap().as_str(), "frames");
        assert_eq!(RegionName::new(&[b'x'; 32]).unwrap().as_str().len(), 32);
        for bad in [&b""[..], b"\0abc", b"a b", b"a\x7f", b"\xc3\xa4", &[b'x'; 33]] {
            assert!(RegionName::new(bad).is_none(), "{bad:?}");
        }
        assert_eq!(RegionName::new(b"ab").unwrap().bytes()[..4], *b"ab\0\0");
    }
}
