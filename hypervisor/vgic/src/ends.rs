//! The ends of interrupts, for devices that want to hear of them.
//!
//! Answers for: which SPIs are reported, and for handing over those that have ended. Does not answer for: noticing it
//! (`shared`), waking devices (the kernel).
//!
//! An interrupt ends when it becomes inactive: by the guest's write of `ICC_EOIR<n>_EL1` or `ICC_DIR_EL1`, or of
//! `GICD_ICACTIVER<n>`. One that is enabled while it is pending, or its line is asserted, is reported as if it had ended: its
//! device may have been waiting for somebody to listen. In a list register it is marked for a maintenance interrupt
//! (IHI 0069, `ICH_LR<n>_EL2.EOI`), so that its end is noticed when it happens; without the mark, at the next refill.
//!
//! Ends are noticed with the lock of the SPIs held, from where no device can be called. So they are kept, and whoever
//! noticed them is in the set of vCPUs to kick: a vCPU that is to kick itself asks [`Vgic::has_ended`].

use crate::Vgic;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use types::IntId;

/// The SPIs that have ended: a bit each, the first word is INTIDs 32 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended(pub(crate) [u32; 31]);

impl Ended {
    /// Whether `intid` is among them.
    #[must_use]
    pub fn contains(&self, intid: IntId) -> bool {
        let word = intid.0.checked_sub(32).and_then(|spi| self.0.get((spi / 32) as usize));
        word.is_some_and(|word| word.wrapping_shr(intid.0) & 1 != 0)
    }
}

/// Seen by all without the lock, changed by those who hold it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flag(Arc<AtomicBool>);

impl Flag {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn lower(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Vgic {
    /// From now on the ends of the SPI `intid` are reported. Each costs the guest an exit. Anything but an SPI is ignored.
    pub fn report_ends(&self, intid: IntId) {
        self.shared.lock().report_ends(intid.0);
    }

    /// Whether a reported interrupt has ended since [`Vgic::take_ended`]. To be asked after [`Vgic::write_distributor`], and
    /// when [`Vgic::refill`], [`Vgic::save`] or [`Vgic::deactivate`] return a set with the vCPU that
    /// they were called for.
    #[inline]
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.any_ended.is_up()
    }

    /// Calls `each` with the host's interrupts that the guest has made inactive without the hardware ([`Vgic::inject_hardware_shared`])
    /// since this was last asked: they are to be deactivated. To be asked when [`Vgic::take_ended`] is.
    pub fn take_physical(&self, mut each: impl FnMut(IntId)) {
        self.shared.lock().take_physical(|physical| each(IntId(u32::from(physical))));
    }

    /// The reported interrupts that have ended since this was last asked. Several ends of one may come as one.
    #[must_use]
    pub fn take_ended(&self) -> Ended {
        self.shared.lock().take_ended()
    }
}
