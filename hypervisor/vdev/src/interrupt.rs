//! What devices need of an interrupt controller.

use alloc::sync::Arc;
use types::{IntId, Ipa, Lock, RequesterId, VcpuId, VcpuSet};

/// The inputs of a VM's interrupt controller. Each call returns the vCPUs that now have something to take, for
/// [`crate::Effects::kick`].
pub trait InterruptController: Send + Sync {
    /// The shared input `intid` is now asserted (`true`) or not. Level and edge configuration decide what that means; the
    /// same level twice is no event. An `intid` that is not an implemented SPI is ignored.
    fn set_level(&self, intid: IntId, asserted: bool) -> VcpuSet;

    /// The private input `intid` of one vCPU is now asserted or not. An `intid` that is not a PPI is ignored.
    fn set_private_level(&self, vcpu: VcpuId, intid: IntId, asserted: bool) -> VcpuSet;

    /// The device `from`, if it has a number on its bus, stores `data` at `address` of the guest's, as the guest's driver told it to,
    /// to raise an interrupt. What is not addressed to one of the controller's registers for messages is ignored: to
    /// `GICD_SETSPI_NSR` (or `GICD_CLRSPI_NSR`, which takes a level-sensitive one back) with an SPI; or to `GITS_TRANSLATER`, with
    /// an event that the guest has mapped for this device.
    fn message(&self, from: Option<RequesterId>, address: Ipa, data: u32) -> VcpuSet;
}

/// A device's interrupt line, or its share of one.
#[derive(Clone, Debug)]
pub enum Line {
    /// A line of its own.
    Own(IntId),
    /// One that it shares with others, wired-OR: the interrupt is asserted as long as one of them asserts it.
    Shared(Arc<SharedLine>, SharedBy),
}

/// Which of the devices on a [`SharedLine`].
#[derive(Clone, Copy, Debug)]
pub struct SharedBy(u8);

/// A line that several devices share.
#[derive(Debug)]
pub struct SharedLine {
    intid: IntId,
    /// Who asserts it: a bit for each.
    asserted: Lock<u64>,
}

impl Line {
    /// Most devices that share a line.
    pub const SHARERS: u8 = 64;

    /// Lines of `count` devices, at most [`Line::SHARERS`], on the input `intid`.
    pub fn all(intid: IntId, count: usize) -> impl Iterator<Item = Self> {
        let shared = (count > 1).then(|| Arc::new(SharedLine { intid, asserted: Lock::new(0) }));
        (0..Self::SHARERS).take(count).map(move |number| match &shared {
            Some(shared) => Self::Shared(shared.clone(), SharedBy(number)),
            None => Self::Own(intid),
        })
    }

    /// The input of the interrupt controller.
    #[must_use]
    pub fn intid(&self) -> IntId {
        match self {
            Self::Own(intid) => *intid,
            Self::Shared(line, _) => line.intid,
        }
    }

    /// Asserts or releases it, as far as this device goes. Returns whom to kick.
    pub(crate) fn set(&self, asserted: bool, interrupts: &dyn InterruptController) -> VcpuSet {
        match self {
            Self::Own(intid) => interrupts.set_level(*intid, asserted),
            Self::Shared(line, SharedBy(number)) => {
                let bit = 1 << (number & 63);
                // Held until the controller knows: of two devices the one that is told last is the one that came last.
                let mut held = line.asserted.lock();
                *held = if asserted { *held | bit } else { *held & !bit };
                interrupts.set_level(line.intid, *held != 0)
            }
        }
    }
}
