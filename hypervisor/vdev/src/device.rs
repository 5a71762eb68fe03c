//! What a virtual device is to the rest of the hypervisor.
//!
//! Answers for: the five calls a device gets, and what it may answer. Does not answer for: how an access finds the device
//! ([`crate::Bus`]) or what the device may reach meanwhile ([`crate::Context`]). The calls are those of the original's
//! `struct vdev_factory` (`vread`, `vwrite`, `control`, `pulse` with `timer`), with the tree as a call of its own.

use crate::{Context, Node};
use alloc::string::String;
use core::fmt;
use types::AccessSize;

/// A virtual device. Whoever calls holds the device's lock (see [`crate::Bus`]), with interrupts masked: no method blocks,
/// none loops over what a guest can make long.
///
/// Order of calls: [`crate::Factory::create`], `describe`, [`Control::GuestConfigured`], [`Control::GuestStarting`], then
/// `read`, `write`, `wake`, [`Control::Button`] and [`Control::Status`] in any order, [`Control::Terminate`] last.
pub trait Vdev: Send {
    /// A guest loads `size` bytes at `offset` in the device's region. The bus has checked that the access lies inside the
    /// region, is aligned, and has a size the factory allows. Bits above the access size are ignored.
    ///
    /// # Errors
    /// [`AccessFault::Unsupported`] or [`AccessFault::Bus`], for the guest to get what its configuration or the
    /// architecture says.
    fn read(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault>;

    /// A guest stores the low `size` bytes of `value` at `offset`; bits above are zero.
    ///
    /// # Errors
    /// As [`Vdev::read`].
    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault>;

    /// Something happens to the VM. A device that has nothing to do with an event returns `Ok`.
    ///
    /// # Errors
    /// When the VM cannot go on because of it: before the guest has started that is fatal, afterwards the VM ends with
    /// [`crate::Cause::Vdev`].
    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError>;

    /// What the device was waiting for has come.
    fn wake(&mut self, wake: Wake, context: &mut Context<'_>);

    /// Adds the device's part to the guest's device tree. Whether there is a node is the device's decision: `node` is the
    /// parent.
    fn describe(&self, parent: &mut Node);
}

/// Why an access has no answer. What the guest gets for it is decided by the exit code (`unsupported reference`, or an
/// external abort), never by a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFault {
    /// No device there.
    Nothing,
    /// It begins inside a device and ends outside.
    Straddles,
    /// The address is not a multiple of the access size.
    Unaligned,
    /// The device is not accessed in this size.
    Size,
    /// The device has nothing at that offset, and says so (`vread` or `vwrite` absent in the original).
    Unsupported,
    /// The device answers with a bus error: the guest gets an external abort (`VRS_BUS_ERROR`).
    Bus,
}

impl fmt::Display for AccessFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no device there",
            Self::Straddles => "it runs over the end of the device",
            Self::Unaligned => "it is not aligned",
            Self::Size => "the device does not take accesses of this size",
            Self::Unsupported => "the device has nothing there",
            Self::Bus => "the device answers with a bus error",
        })
    }
}

/// What happens to the VM, in the original's words (`VDEV_CTRL_*`).
#[non_exhaustive]
pub enum Control<'a> {
    /// Everything is assembled; from now on the device may be woken (`VDEV_CTRL_GUEST_CONFIGURED`).
    GuestConfigured,
    /// The guest is about to execute its first instruction (`VDEV_CTRL_GUEST_STARTING`).
    GuestStarting,
    /// Somebody pressed the power button (SIGTERM, SIGINT). A device that passes it on to the guest sets `handled`; if
    /// none does, the VM ends (`VDEV_CTRL_BUTTON`).
    Button {
        /// Set by whoever tells the guest.
        handled: &'a mut bool,
    },
    /// Describe your state, a few short lines (`VDEV_CTRL_STATUS`).
    Status(&'a mut dyn fmt::Write),
    /// Back to the state after `create`: the registers are as after a power-on reset.
    Reset,
    /// The VM ends: stop DMA first, interrupts second; nobody will call again (`VDEV_CTRL_TERMINATE`).
    Terminate,
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GuestConfigured => "GuestConfigured",
            Self::GuestStarting => "GuestStarting",
            Self::Button { .. } => "Button",
            Self::Status(_) => "Status",
            Self::Reset => "Reset",
            Self::Terminate => "Terminate",
        })
    }
}

/// A device could not do what an event asked of it; the text says what and why, without the device's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlError(pub String);

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a device was woken by (the original's pulse).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A back end has space again, or has input.
    Backend,
    /// The guest has dealt with the device's interrupt: it has deactivated it, or enabled it while it was pending or its line
    /// asserted. Comes to devices that have asked for it ([`crate::Setup::hear_ends`]), from a vCPU's thread before that enters
    /// its guest, or from the device's own. Several ends may come as one.
    InterruptEnded,
    /// A timer of the device has gone off ([`crate::Timer`]); this one.
    Timer(u8),
    /// A worker has sent this pulse ([`crate::Work::pulse`]).
    Pulse(u8),
    /// The VM that the device watches ([`crate::Backends::watch`]) lives.
    VmLives,
    /// It has ended. Comes for each end, even if it has been started again meanwhile.
    VmEnded {
        /// Its exit code.
        code: u8,
    },
}
