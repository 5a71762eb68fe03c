//! What a device may reach while it is called.
//!
//! Answers for: the one object through which a device sees time, guest memory, its interrupt line, the log and the end
//! of its VM. It cannot reach the bus or another device, hence cannot deadlock. A context is made for every access, so
//! it is a handful of references and nothing else.

use crate::{Bell, Cause, Clock, Deadlines, Effects, GuestMemory, InterruptController, Line};
use alloc::string::String;
use core::fmt;
use types::{Ipa, RequesterId, Ticks};

/// What all devices of one VM share, as it is at the moment of one exit or wake.
#[derive(Clone, Copy)]
pub struct Services<'a> {
    /// The system counter now.
    pub now: Ticks,
    /// The VM's memory.
    pub memory: &'a dyn GuestMemory,
    /// The VM's interrupt controller.
    pub interrupts: &'a dyn InterruptController,
}

impl fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What a device is to those outside.
#[derive(Debug)]
pub struct Identity {
    /// Its interrupt line, if the configuration gives it one.
    pub line: Option<Line>,
    /// Its log target, `vm:NAME/DEVICE`; see [`Context::log`].
    pub origin: String,
    /// Its timers; see [`crate::Timer`].
    pub deadlines: Deadlines,
}

/// What one device may reach during one call.
#[derive(Debug)]
pub struct Context<'a> {
    services: &'a Services<'a>,
    identity: &'a Identity,
    effects: &'a mut Effects,
}

impl<'a> Context<'a> {
    /// For the device that is `identity`.
    #[must_use]
    #[inline]
    pub const fn new(services: &'a Services<'a>, identity: &'a Identity, effects: &'a mut Effects) -> Self {
        Self { services, identity, effects }
    }

    /// The system counter at the time of the exit or wake.
    #[must_use]
    pub const fn now(&self) -> Ticks {
        self.services.now
    }

    /// The VM's time: frequency, the guest's counter, the time of day.
    #[must_use]
    pub fn clock(&self) -> &'a Clock {
        self.identity.deadlines.clock()
    }

    /// The VM's memory.
    #[must_use]
    pub fn memory(&self) -> &'a dyn GuestMemory {
        self.services.memory
    }

    /// Asserts or releases the device's interrupt line. Without `intr` in the configuration there is no line and this does
    /// nothing. The same level twice is no event, but costs a call: a device keeps track of what it said last.
    pub fn set_line(&mut self, asserted: bool) {
        if let Some(line) = &self.identity.line {
            let kicked = line.set(asserted, self.services.interrupts);
            self.effects.kick(kicked);
        }
    }

    /// Asserts the device's interrupt line and releases it again: one interrupt, if the guest has configured it as
    /// edge-triggered, and none, as the line is low again before anybody looks, if it has not.
    pub fn pulse_line(&mut self) {
        self.set_line(true);
        self.set_line(false);
    }

    /// Sends a message-signalled interrupt: stores `data` at `address`, both as the guest's driver has told the device. It
    /// reaches the interrupt controller's registers for messages ([`crate::InterruptController::message`]) and nothing else of
    /// the VM: at any other address it is lost. `from` is who the device is on its bus, if that has such numbers: an ITS takes
    /// messages of nobody else.
    pub fn message(&mut self, from: Option<RequesterId>, address: Ipa, data: u32) {
        let kicked = self.services.interrupts.message(from, address, data);
        self.effects.kick(kicked);
    }

    /// Says that a back end has output that its host thread is to look at ([`crate::Taken::Ring`]).
    pub const fn output(&mut self) {
        self.effects.output();
    }

    /// Has what takes long, and back ends have been asked for, done without the device's lock and with interrupts on: in an
    /// access by the vCPU whose access it is, which does not go back to its guest before it has been done; in a wake by
    /// the VM's own thread, soon.
    pub const fn later(&mut self) {
        self.effects.later();
    }

    /// Has those look who have been told to by a back end ([`crate::SharedMemory::notify`]), as soon as this call is over.
    pub const fn tell(&mut self) {
        self.effects.tell();
    }

    /// Has a worker of the device's look ([`crate::Step::Wait`]), as soon as this call is over.
    pub fn ring(&mut self, bell: &Bell) {
        bell.ring();
        self.effects.tell();
    }

    /// Has the device woken at `at` with [`crate::Wake::Timer`]. [`crate::Timer`] is the way to it.
    pub(crate) fn arm(&mut self, timer: u8, at: Ticks) {
        if self.identity.deadlines.set(timer, at) {
            self.effects.alarm();
        }
    }

    /// Has the guest dumped (`guest_write_core_file`), if its configuration has a `dump`; then the VM ends, if `then` says why. The
    /// guest does not go on before that. Without `dump` in the configuration this is a warning, and the VM ends at once.
    pub fn dump(&mut self, then: Option<Cause>) {
        self.effects.dump(then);
    }

    /// Ends the VM (`guest_terminate`), unless something else has ended it already. The call that says so completes
    /// normally. Before the guest has started nothing can be ended: it is an error of the device's, and the VM does not start.
    /// What is wrong then is for the event's own error.
    pub fn terminate(&mut self, cause: Cause) {
        self.effects.terminate(cause);
    }

    /// Writes to the host's log (`vdev_logf`) under the target `vm:NAME/DEVICE`. The log drops what comes too fast from
    /// one such target, so a guest that provokes messages drowns nobody else's.
    pub fn log(&self, level: log::Level, message: fmt::Arguments<'_>) {
        log::log!(target: &self.identity.origin, level, "{message}");
    }
}
