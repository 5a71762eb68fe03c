//! Devices of one family of boards: what the kernel needs of them, and nothing of how they do it.

use crate::Mmio;
use crate::disk::{Driver, Host};
use alloc::boxed::Box;

/// How a disk is begun with: by its registers. `None` if there is none; why, if it is of no use.
pub type BeginDisk = fn(&Mmio, &Host) -> Result<Option<Box<dyn Driver>>, &'static str>;

/// A driver that an image has if its board lists it. All it gets is the registers, every time: it keeps nothing. A disk is the kernel's to keep.
#[derive(Debug)]
pub struct Device {
    /// What the node in the device tree calls itself (`compatible`, DTSpec 2.3.1): one of these.
    pub compatible: &'static [&'static str],
    /// Sets it up, once, before anything else is called.
    pub start: Option<fn(&Mmio)>,
    /// 64 random bits; `None` while it has none to give. Does not wait. One caller at a time.
    pub entropy: Option<fn(&Mmio) -> Option<u64>>,
    /// Resets the machine, perhaps some time after this has returned. On a CPU that has failed, whatever others do.
    pub reset: Option<fn(&Mmio)>,
    /// The same to switch it off.
    pub power_off: Option<fn(&Mmio)>,
    /// Begins with the disk that it is. Once.
    pub disk: Option<BeginDisk>,
}

impl Device {
    /// A device of this kind that does nothing yet.
    pub(crate) const fn new(compatible: &'static [&'static str]) -> Self {
        Self { compatible, start: None, entropy: None, reset: None, power_off: None, disk: None }
    }
}
