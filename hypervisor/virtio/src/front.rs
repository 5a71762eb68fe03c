//! What a driver says at a device's registers, as far as it is the same in every transport.
//!
//! Answers for: the words of features and the queue that the driver speaks of, what follows from what it writes, and events of the
//! VM's. Does not answer for: where registers are and how wide, nor for interrupts (a transport's).

use crate::device::Core;
use crate::{Features, Layout};
use alloc::string::{String, ToString};
use types::Ipa;
use vdev::{Context, Control, ControlError};

/// The driver's side of a device. Both transports' registers are about these.
pub(crate) struct Front {
    name: String,
    pub(crate) core: Core,
    /// Which 32 bits of features the driver reads and writes.
    pub(crate) offered_word: u32,
    pub(crate) accepted_word: u32,
    /// Which queue it speaks of.
    pub(crate) queue: u16,
}

impl Front {
    /// That of the device `name`.
    pub(crate) const fn new(name: String, core: Core) -> Self {
        Self { name, core, offered_word: 0, accepted_word: 0, queue: 0 }
    }

    /// The chosen word of the features that there are.
    pub(crate) fn offered(&self) -> u32 {
        self.core.offered(self.offered_word)
    }

    /// The chosen word of the features that the driver has accepted.
    pub(crate) fn accepted(&self) -> u32 {
        self.core.accepted(self.accepted_word)
    }

    /// The driver accepts these of the chosen word.
    pub(crate) fn accept(&mut self, value: u32) {
        self.core.accept(self.accepted_word, value);
    }

    /// Where the chosen queue is, as far as the driver has said.
    pub(crate) fn layout(&self) -> Layout {
        self.core.layout(self.queue)
    }

    /// The driver says of the chosen queue where it is; nothing if it is enabled, or there is none.
    pub(crate) fn set_layout(&mut self, set: impl FnOnce(&mut Layout)) {
        if let Some(layout) = self.core.layout_mut(self.queue) {
            set(layout);
        }
    }

    /// The driver resets the chosen queue. Says whether it may.
    pub(crate) fn reset_queue(&mut self, context: &mut Context<'_>) -> bool {
        self.core.reset_queue(self.queue, context);
        self.core.has(Features::RING_RESET)
    }

    /// The driver writes the status field. Says whether that was a reset: then the transport's own registers go back as well.
    pub(crate) fn set_status(&mut self, value: u8, context: &mut Context<'_>) -> bool {
        let is_reset = self.core.set_status(value, context);
        if is_reset {
            self.forget();
        }
        is_reset
    }

    fn forget(&mut self) {
        (self.offered_word, self.accepted_word, self.queue) = (0, 0, 0);
    }

    /// Something happens to the VM. Says whether that resets the device, as [`Front::set_status`] does.
    ///
    /// # Errors
    /// If a report is full.
    pub(crate) fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<bool, ControlError> {
        match event {
            Control::Reset | Control::Terminate => {
                self.core.reset(context);
                self.forget();
                Ok(true)
            }
            Control::Status(report) => {
                let written = write!(report, "{}: ", self.name).and_then(|()| self.core.report(report, context));
                written.map(|()| false).map_err(|_| ControlError("the report is full".to_string()))
            }
            Control::Button { handled } => {
                *handled |= self.core.press_button(context);
                Ok(false)
            }
            _ => Ok(false),
        }
    }
}

/// Bits 31 to 0 of an address.
pub(crate) fn set_low(address: &mut Ipa, value: u32) {
    address.0 = address.0 >> 32 << 32 | u64::from(value);
}

/// Bits 63 to 32 of an address.
pub(crate) fn set_high(address: &mut Ipa, value: u32) {
    address.0 = address.0 << 32 >> 32 | u64::from(value) << 32;
}

/// Bits 31 to 0 of an address.
pub(crate) fn low(address: Ipa) -> u32 {
    u32::try_from(address.0 & u64::from(u32::MAX)).unwrap_or(0)
}

/// Bits 63 to 32 of an address.
pub(crate) fn high(address: Ipa) -> u32 {
    low(Ipa(address.0 >> 32))
}
