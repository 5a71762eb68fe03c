//! A bus behind the bus: devices whose addresses the guest chooses while it runs, as on PCI.
//!
//! Answers for: what such a device is given ([`Connector`]), how it says where it has been put and how [`crate::Bus`] finds it there
//! ([`Decoder`]). Does not answer for: configuration spaces, windows and their layout (`pci`), nor for which device is in which
//! slot (`vm::config`).

use crate::DeviceId;
use alloc::sync::Arc;
use core::fmt;
use types::{Ipa, Range};

/// A function's place on bus 0 (PCI Local Bus Specification 3.0, 3.2.2.3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PciSlot {
    device: u8,
    function: u8,
}

impl PciSlot {
    /// How many devices a bus has.
    pub const DEVICES: u8 = 32;
    /// How many functions a device has.
    pub const FUNCTIONS: u8 = 8;
    /// The host bridge's.
    pub const HOST: Self = Self { device: 0, function: 0 };

    /// `None` beyond [`PciSlot::DEVICES`] and [`PciSlot::FUNCTIONS`].
    #[must_use]
    pub const fn new(device: u8, function: u8) -> Option<Self> {
        if device < Self::DEVICES && function < Self::FUNCTIONS { Some(Self { device, function }) } else { None }
    }

    /// 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.device
    }

    /// 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.function
    }

    /// Both in one number, as in an address of configuration space and in a requester's ID: bits 7 to 3 and 2 to 0.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.device << 3 | self.function
    }

    /// The interrupt pin of the function, 1 for INTA to 4 for INTD: each of a device's functions takes the next one.
    #[must_use]
    pub const fn pin(self) -> u8 {
        (self.function & 3).wrapping_add(1)
    }

    /// Which of the host bridge's four lines that pin is connected to, 0 to 3: devices next to each other take different ones (PCI
    /// Local Bus Specification 3.0, 2.2.6, implementation note).
    #[must_use]
    pub const fn line(self) -> u8 {
        Self::swizzle(self.device, self.pin())
    }

    /// The same of any pin, 1 to 4, of a device.
    #[must_use]
    pub const fn swizzle(device: u8, pin: u8) -> u8 {
        device.wrapping_add(pin).wrapping_sub(1) & 3
    }
}

/// As in configurations: `3.0`.
impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.device, self.function)
    }
}

/// What a device is given that is on the PCI bus.
#[derive(Clone)]
pub struct Connector {
    /// Where on the bus it is.
    pub slot: PciSlot,
    /// Whether its device has other functions.
    pub is_one_of_several: bool,
    /// Whether messages reach the interrupt controller.
    pub has_messages: bool,
    /// Who is told where the guest has put it.
    pub decoder: Arc<dyn Decoder>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// Finds devices whose addresses change. It has a lock of its own for as long as a call takes, inside which it takes no other; it is
/// called with a device's lock held, or with none.
pub trait Decoder: Send + Sync {
    /// Which device has `at` now, and what that device calls it: the offset for [`crate::Vdev::read`] and
    /// [`crate::Vdev::write`]. An aligned access that begins there ends there. By the time the device is called it may have been moved:
    /// the offset is good all the same.
    fn decode(&self, at: Ipa) -> Option<(DeviceId, u64)>;

    /// The region `region` of the function in `slot` is at `range` from now on, or nowhere. The length is a power of two, and the
    /// start a multiple of it.
    fn place(&self, slot: PciSlot, region: u8, range: Option<Range<Ipa>>);

    /// Where functions can be put: below 4 GiB, or above.
    fn windows(&self) -> &[Range<Ipa>];

    /// Whether the region `region` of the function in `slot` has a place where no other region is.
    fn is_alone(&self, slot: PciSlot, region: u8) -> bool;

    /// One more function has regions of so many bytes, each a power of two: those that have to be below 4 GiB, and those that can be
    /// anywhere. Says whether there is room for them, beside those of the functions before.
    fn has_room(&self, below_4g: u64, anywhere: u64) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_take_pins_in_turn_and_devices_lines() {
        let pins: alloc::vec::Vec<u8> = (0..8).map(|function| PciSlot::new(0, function).unwrap().pin()).collect();
        assert_eq!(pins, [1, 2, 3, 4, 1, 2, 3, 4]);
        let lines: alloc::vec::Vec<u8> = (0..6).map(|device| PciSlot::new(device, 0).unwrap().line()).collect();
        assert_eq!(lines, [0, 1, 2, 3, 0, 1]);
        assert_eq!(PciSlot::new(3, 1).unwrap().line(), 0, "INTB of device 3");
    }

    #[test]
    fn a_slot_is_one_that_there_is() {
        assert_eq!(PciSlot::new(32, 0), None);
        assert_eq!(PciSlot::new(0, 8), None);
        let last = PciSlot::new(31, 7).unwrap();
        assert_eq!((last.number(), last.device(), last.function()), (0xff, 31, 7));
        assert_eq!(alloc::format!("{}", PciSlot::HOST), "0.0");
    }
}
