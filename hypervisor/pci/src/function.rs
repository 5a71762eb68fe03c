//! What a function of the bus is, apart from being on the bus.
//!
//! Answers for: the words in which a function describes itself, and the calls that it gets. Does not answer for: whatever is the
//! same of all of them ([`crate::Endpoint`]).

use crate::ConfigSpace;
use alloc::vec::Vec;
use types::AccessSize;
use vdev::{AccessFault, AccessSizes, Context, Control, ControlError, Wake};

/// Who a function says it is (PCI, 6.2.1 and 6.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code: base class, subclass and programming interface in 24 bits.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

impl Identity {
    /// The vendor ID of the original's devices.
    pub const VENDOR: u16 = 0x1c05;

    /// One without revision and subsystem.
    #[must_use]
    pub const fn new(vendor: u16, device: u16, class: u32) -> Self {
        Self { vendor, device, class, revision: 0, subsystem_vendor: 0, subsystem: 0 }
    }
}

/// A region of memory that the guest puts somewhere (PCI, 6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which base address register it has, 0 to 5; of one with 64 bits the first.
    pub index: u8,
    /// Bytes, a power of two, at least 16. A page at least, or the guest's driver shares its page with another one's.
    pub size: u64,
    /// Where it may be.
    pub width: Width,
    /// Accesses that it takes.
    pub sizes: AccessSizes,
}

impl Bar {
    /// The first register behind its own.
    pub(crate) const fn end(&self) -> u8 {
        self.index.saturating_add(match self.width {
            Width::Bits32 => 1,
            Width::Bits64 => 2,
        })
    }
}

/// How wide a base address register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Below 4 GiB.
    Bits32,
    /// Anywhere. Takes the next register as well.
    Bits64,
}

/// An entry of the list of capabilities (PCI, 6.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Capability ID.
    pub id: u8,
    /// What is behind ID and next pointer, as it is after a reset: zero where it can be written.
    pub body: Vec<u8>,
    /// Which of its bits can be written; zero where there is no byte.
    pub writable: Vec<u8>,
    /// Whether the function wants to be called before it is read ([`Configuration::Read`]).
    pub is_watched: bool,
}

/// That a function sends messages: MSI-X (PCI, 6.8.2). There is a BAR with nothing but table and pending bits, of 32 bits, if
/// messages reach anybody; else there is neither that nor the capability, and the pin is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Which BAR that is.
    pub bar: u8,
    /// How many vectors there are, 1 to 2048.
    pub vectors: u16,
}

/// All that the configuration space of a function is made of.
#[derive(Clone, Debug)]
pub struct Description {
    /// Who it is.
    pub identity: Identity,
    /// Its regions.
    pub bars: Vec<Bar>,
    /// What it is capable of, apart from messages.
    pub capabilities: Vec<Capability>,
    /// Its messages, if it sends some.
    pub messages: Option<Messages>,
}

impl Description {
    /// A function with a configuration space and nothing else.
    #[must_use]
    pub const fn new(identity: Identity) -> Self {
        Self { identity, bars: Vec::new(), capabilities: Vec::new(), messages: None }
    }
}

/// Where in a function an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// In this BAR.
    Bar(u8),
    /// In the window that its factory has asked for ([`vdev::Factory::window_size`]).
    Window,
}

/// What the guest does with the configuration space.
#[derive(Debug)]
#[non_exhaustive]
pub enum Configuration<'a> {
    /// It is about to read from a capability that is watched: what it finds there may be brought up to date.
    Read {
        /// As it is.
        space: &'a mut ConfigSpace,
        /// Where that capability begins.
        capability: u16,
        /// First byte of the access.
        at: u16,
        /// How wide it is.
        size: AccessSize,
    },
    /// It has written, anywhere. BARs and interrupts have been seen to.
    Written {
        /// As it is now.
        space: &'a mut ConfigSpace,
        /// Where the capability that is watched begins, if it was to one.
        capability: Option<u16>,
        /// First byte of the access.
        at: u16,
        /// How wide it was.
        size: AccessSize,
    },
}

/// A function of the bus. Whoever calls holds the device's lock, with interrupts masked, as for a [`vdev::Vdev`]; the order of calls
/// is the same. It needs no node in the device tree: guests find it by its configuration space.
pub trait Function: Send {
    /// A guest loads `size` bytes at `offset` in a region. The access lies inside the region, is aligned, and has a size that the
    /// region takes. Bits above the access size are ignored.
    ///
    /// # Errors
    /// As [`vdev::Vdev::read`].
    fn read(
        &mut self,
        region: Region,
        offset: u64,
        size: AccessSize,
        context: &mut Context<'_>,
    ) -> Result<u64, AccessFault>;

    /// A guest stores the low `size` bytes of `value` at `offset` in a region; bits above are zero.
    ///
    /// # Errors
    /// As [`vdev::Vdev::write`].
    fn write(
        &mut self,
        region: Region,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault>;

    /// Something happens to the VM. At a reset the configuration space has been reset before.
    ///
    /// # Errors
    /// As [`vdev::Vdev::control`].
    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError>;

    /// What the function was waiting for has come.
    fn wake(&mut self, wake: Wake, context: &mut Context<'_>);

    /// The guest has to do with the configuration space. Most functions have nothing to do then.
    fn configuration(&mut self, _event: Configuration<'_>, _context: &mut Context<'_>) {}
}
