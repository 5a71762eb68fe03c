//! A function of the machine's PCI Express that a VM has.
//!
//! Answers for: how its mediator on the guest's bus (`pci`) names and reaches it. Does not answer for: which functions there are and
//! whose they are (the kernel), nor for what a guest gets to see of one (`pci`).

use crate::AccessFault;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use types::{AccessSize, Ipa, RequesterId};

/// Which function of the machine is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedFunction {
    /// The one at this place, of the first host bridge that has such a one.
    Place {
        /// Which bus.
        bus: u8,
        /// 0 to 31.
        device: u8,
        /// 0 to 7.
        function: u8,
    },
    /// The only one with these identification registers.
    Kind {
        /// Vendor ID.
        vendor: u16,
        /// Device ID.
        device: u16,
    },
}

impl WantedFunction {
    /// That the machine has no such function, for people. Lists of functions are hexadecimal by custom, and configurations are not.
    #[must_use]
    pub fn missing(&self) -> String {
        match self {
            Self::Place { bus, device, function } => {
                format!(
                    "the machine has no PCI function {self}, which `pidin pci` calls {bus:02x}:{device:02x}.{function}"
                )
            }
            Self::Kind { .. } => format!("the machine has no PCI function {self}"),
        }
    }
}

/// As in configurations, without what is in front of it: `0:3.0`, `0x8086/0x10d3`.
impl core::fmt::Display for WantedFunction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Place { bus, device, function } => write!(f, "{bus}:{device}.{function}"),
            Self::Kind { vendor, device } => write!(f, "{vendor:#06x}/{device:#06x}"),
        }
    }
}

/// A region of its registers that is memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionBar {
    /// Which base address register it has, 0 to 5; of one with 64 bits the first.
    pub index: u8,
    /// Bytes, a power of two.
    pub size: u64,
    /// Whether the register has 64 bits.
    pub is_64_bit: bool,
}

/// What is known of a function as long as a VM has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionFacts {
    /// What messages call it: its place on the machine.
    pub name: String,
    /// Vendor ID, which a virtual function's own register does not have.
    pub vendor: u16,
    /// Device ID, likewise.
    pub device: u16,
    /// Its regions in memory.
    pub bars: Vec<FunctionBar>,
    /// Whether its pin interrupts this VM.
    pub has_pin: bool,
    /// How many of its messages, from the first on, can reach this VM; none without a translation service.
    pub messages: u16,
    /// Whether it is reset when [`HostFunction::signal`] asks for that.
    pub can_be_reset: bool,
    /// How many virtual functions the host has had it make: they are there, whoever has them, and stay.
    pub virtual_functions: u16,
}

/// A message as the guest's driver wants it: who sends, where to, and what.
pub type GuestMessage = (RequesterId, Ipa, u32);

/// What a mediator has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionSignal {
    /// The guest has dealt with the pin: it may interrupt again.
    PinEnded,
    /// The pin has come, and the function has not asserted it, or not for the guest.
    PinIdle,
    /// The guest wants the function reset. That is done without the device's lock (the mediator asks for that by
    /// [`crate::Context::later`]); until [`crate::Wake::Pulse`] says that it is over the function is left alone.
    Reset,
}

/// A function of the machine on the guest's behalf: what the guest's mediator decides is done here, and nothing is asked why. From the
/// VM's having its memory until its end; before that its configuration space can be read, and nothing else is done. No call waits.
///
/// After a reset the device is woken with [`crate::Wake::Pulse`]; if the reset fails it is not, and the function is left alone for good. With [`crate::Wake::Backend`] it is woken when its pin is asserted, and,
/// if it has none, when it has been reset without having asked for that: a virtual function, with its physical one.
pub trait HostFunction: Send + Sync {
    /// A load from its configuration space, or a store of `store`. The access is aligned, and a dword at most. All ones where there
    /// is nothing.
    fn configuration(&self, at: u16, size: AccessSize, store: Option<u32>) -> u32;

    /// A load from its registers, or a store of `store`. The access is aligned and inside the region.
    ///
    /// # Errors
    /// [`AccessFault::Bus`] if the function does not take one of this size there.
    fn registers(&self, bar: u8, offset: u64, size: AccessSize, store: Option<u64>) -> Result<u64, AccessFault>;

    /// Has the guest reach `length` bytes of a region, from `offset` on, at `at`, or no longer. Both are whole pages inside the region.
    /// Says whether it could be done: if it could not, accesses come to the mediator.
    fn map(&self, at: Ipa, part: FunctionPart, reach: bool) -> bool;

    /// From now on message `vector` of the function reaches the guest as `to`. Returns where the function has to store what for
    /// that; `None` if there is no such message.
    fn message(&self, vector: u16, to: GuestMessage) -> Option<(u64, u32)>;

    /// Tells what has happened.
    fn signal(&self, signal: FunctionSignal);
}

/// Whole pages of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionPart {
    /// Which region.
    pub bar: u8,
    /// The first byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn one_that_is_missing_is_called_as_in_the_configuration_and_as_in_lists() {
        let place = WantedFunction::Place { bus: 16, device: 10, function: 1 };
        assert_eq!(place.to_string(), "16:10.1");
        assert_eq!(place.missing(), "the machine has no PCI function 16:10.1, which `pidin pci` calls 10:0a.1");
        let kind = WantedFunction::Kind { vendor: 0x8086, device: 0x10d3 };
        assert_eq!(kind.missing(), "the machine has no PCI function 0x8086/0x10d3");
    }
}
