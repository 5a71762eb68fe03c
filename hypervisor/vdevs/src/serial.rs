//! What UARTs have in common: a chip between a wire, an interrupt line and a guest.
//!
//! Answers for: when bytes move between the chip and its wire, and telling who has to know. Does not answer for: registers and
//! FIFOs (the chip's), the wire itself (`character`), the node in the device tree.

use crate::character::BackEnd;
use crate::plug::Plug;
use core::fmt;
use vdev::{CharDevice, Context, Control, ControlError, OptionError, Options, Setup, Wake};

/// A UART's registers and FIFOs.
pub(crate) trait Uart: Default + fmt::Display {
    /// Moves what can be moved between the FIFOs and the wire: the wire has space again, or bytes. Returns whether whoever
    /// is at the other end has to be told.
    fn service(&mut self, wire: &mut dyn CharDevice) -> bool;

    /// Whether it asserts its interrupt.
    fn interrupt(&self) -> bool;
}

/// A chip with what is around it.
pub(crate) struct Serial<C> {
    pub(crate) chip: C,
    end: BackEnd,
    pub(crate) plug: Plug,
}

impl<C: Uart> Serial<C> {
    /// As the options say.
    pub(crate) fn open(options: &Options, setup: &mut Setup<'_>) -> Result<Self, OptionError> {
        let plug = Plug::new(setup)?;
        Ok(Self { chip: C::default(), end: BackEnd::open(options, setup)?, plug })
    }

    /// Lets the chip do something with its wire that says whether whoever is at the other end has to be told.
    #[inline(always)]
    pub(crate) fn send(&mut self, context: &mut Context<'_>, work: impl FnOnce(&mut C, &mut dyn CharDevice) -> bool) {
        if work(&mut self.chip, &mut *self.end.wire) {
            self.end.ring(context);
        }
        self.settle(context);
    }

    /// The same with what is nobody's business at the other end.
    #[inline]
    pub(crate) fn receive<R>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut C, &mut dyn CharDevice) -> R,
    ) -> R {
        let result = work(&mut self.chip, &mut *self.end.wire);
        self.settle(context);
        result
    }

    pub(crate) fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            // First what came before the device could be woken, last what was held back, as far as there is space.
            Control::GuestStarting => self.send(context, C::service),
            Control::Terminate => {
                self.send(context, C::service);
                self.end.flush(context);
            }
            Control::Reset => {
                self.chip = C::default();
                self.settle(context);
            }
            Control::Status(report) => return self.plug.report(report, format_args!("{}", self.chip)),
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.end.wake(wake, context);
        self.send(context, C::service);
    }

    /// Brings the interrupt line to what the chip says, if that has changed.
    #[inline(always)]
    fn settle(&mut self, context: &mut Context<'_>) {
        self.plug.settle(self.chip.interrupt(), context);
    }
}
