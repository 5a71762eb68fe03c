//! The one interrupt of a device on MMIO (4.2.3.4), and who tells the driver of what, and in which order.

use super::registers::Register;
use super::shadow::Shadow;
use crate::device::Status;
use crate::serving::Signals;
use vdev::{Context, Shared};

/// Bits of `InterruptStatus`.
const USED_BUFFER: u32 = 1 << 0;
const CONFIGURATION_CHANGE: u32 = 1 << 1;

/// `InterruptStatus`, and the line, which is asserted while there is something in it. The device and its workers set it, so it has a
/// lock of its own, behind those of the queues. What the driver reads without an exit is written with that lock held, so that the page
/// and the line never disagree: whatever the interrupt is about is in the page before the line is asserted.
#[derive(Clone)]
pub(super) struct Interrupt(Shared<Told>);

/// What the driver has been told.
struct Told {
    status: u32,
    /// The configuration space has changed, which the driver hears of when the page has it.
    is_due: bool,
    shadow: Option<Shadow>,
}

impl Interrupt {
    /// None so far. The driver reads the registers in `shadow`, if there is one.
    pub(super) fn new(shadow: Option<Shadow>) -> Self {
        Self(Shared::new(Told { status: 0, is_due: false, shadow }))
    }

    pub(super) fn status(&self, context: &mut Context<'_>) -> u32 {
        self.0.with(context, |told, _| told.status)
    }

    pub(super) fn acknowledge(&self, events: u32, context: &mut Context<'_>) {
        self.0.with(context, |told, context| told.set(told.status & !events, context));
    }

    pub(super) fn reset(&self, context: &mut Context<'_>) {
        self.0.with(context, |told, context| {
            told.is_due = false;
            told.set(0, context);
        });
    }

    /// The last thing in a call of the device that may have changed a register or the configuration space: `show` has the page be right,
    /// and then the driver is told of what it is to hear of.
    pub(super) fn settle(&self, context: &mut Context<'_>, show: impl FnOnce(&mut Shadow)) {
        self.0.with(context, |told, context| {
            if let Some(shadow) = &mut told.shadow {
                show(shadow);
            }
            if core::mem::take(&mut told.is_due) {
                told.set(told.status | CONFIGURATION_CHANGE, context);
            }
        });
    }
}

impl Told {
    fn set(&mut self, status: u32, context: &mut Context<'_>) {
        let old = core::mem::replace(&mut self.status, status);
        if let Some(shadow) = &mut self.shadow {
            shadow.show(Register::InterruptStatus.offset(), status);
        }
        if (old != 0) != (status != 0) {
            context.set_line(status != 0);
        }
    }
}

impl Signals for Interrupt {
    fn used(&self, _: u16, context: &mut Context<'_>) {
        self.0.with(context, |told, context| told.set(told.status | USED_BUFFER, context));
    }

    fn changed(&self, context: &mut Context<'_>) {
        self.0.with(context, |told, _| told.is_due = true);
    }

    /// Workers say this too, who cannot know the other registers: of `Status` it is one bit more.
    fn failed(&self, context: &mut Context<'_>) {
        self.0.with(context, |told, context| {
            if let Some(shadow) = &mut told.shadow {
                let status = Register::Status.offset();
                shadow.show(status, shadow.shown(status) | u32::from(Status::DEVICE_NEEDS_RESET.bits()));
            }
            told.set(told.status | CONFIGURATION_CHANGE, context);
        });
    }
}
