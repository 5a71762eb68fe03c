//! The one interrupt of a device on MMIO (4.2.3.4).

use crate::serving::Signals;
use vdev::{Context, Shared};

/// Bits of `InterruptStatus`.
const USED_BUFFER: u32 = 1 << 0;
const CONFIGURATION_CHANGE: u32 = 1 << 1;

/// `InterruptStatus`, and the line, which is asserted while there is something in it. The device and its workers set it, so it has a
/// lock of its own, behind those of the queues.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Shared<u32>);

impl Interrupt {
    pub(super) fn status(&self, context: &mut Context<'_>) -> u32 {
        self.0.with(context, |status, _| *status)
    }

    pub(super) fn acknowledge(&self, events: u32, context: &mut Context<'_>) {
        self.change(context, |status| status & !events);
    }

    pub(super) fn reset(&self, context: &mut Context<'_>) {
        self.change(context, |_| 0);
    }

    fn change(&self, context: &mut Context<'_>, change: impl FnOnce(u32) -> u32) {
        self.0.with(context, |status, context| {
            let old = core::mem::replace(status, change(*status));
            if (old != 0) != (*status != 0) {
                context.set_line(*status != 0);
            }
        });
    }
}

impl Signals for Interrupt {
    fn used(&self, _: u16, context: &mut Context<'_>) {
        self.change(context, |status| status | USED_BUFFER);
    }

    fn changed(&self, context: &mut Context<'_>) {
        self.change(context, |status| status | CONFIGURATION_CHANGE);
    }
}
