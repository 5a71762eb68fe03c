//! Devices of one family of boards: what the kernel needs of them, and nothing of how they do it.

use crate::Mmio;

/// A driver that an image has if its board lists it. All it gets is the registers, every time: it keeps nothing.
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
}

impl Device {
    /// A device of this kind that does nothing yet.
    pub(crate) const fn new(compatible: &'static [&'static str]) -> Self {
        Self { compatible, start: None, entropy: None, reset: None, power_off: None }
    }
}
