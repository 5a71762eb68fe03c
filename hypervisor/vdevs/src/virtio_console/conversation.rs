//! What device and driver have to say to each other of one port (virtio 1.3, 5.3.6.2).
//!
//! Answers for: which messages are due, in which order, and whether the guest has the port open. A driver that repeats itself gets no
//! answer twice, so what is due needs no queue. Does not answer for: the control queues (`ports`).

use super::layout::event;

bitflags::bitflags! {
    /// Messages to the driver, in the order in which they are said.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Message: u8 {
        /// There is such a port.
        const ADD = 1;
        /// It is a console.
        const CONSOLE = 2;
        /// It has this name.
        const NAME = 4;
        /// It is open at the host's end, as it always is.
        const OPEN = 8;
    }
}

impl Message {
    /// The event that says it.
    pub(super) fn event(self) -> u16 {
        match self {
            Self::ADD => event::DEVICE_ADD,
            Self::CONSOLE => event::CONSOLE_PORT,
            Self::NAME => event::PORT_NAME,
            _ => event::PORT_OPEN,
        }
    }
}

/// How far they are.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// What has been due in this life of the device, and of that, what still is.
    begun: Message,
    due: Message,
    /// The guest has the port open.
    open: bool,
}

impl Conversation {
    /// The driver is ready for ports (`DEVICE_READY`). No port is added twice (5.3.6.2.1).
    pub(super) fn device_is_ready(&mut self) {
        self.begin(Message::ADD);
    }

    /// The driver is ready for this one (`PORT_READY`), which it has been told of.
    pub(super) fn port_is_ready(&mut self, is_console: bool, has_name: bool) {
        if self.begun.contains(Message::ADD) && !self.due.contains(Message::ADD) {
            let mut messages = Message::OPEN;
            messages.set(Message::CONSOLE, is_console);
            messages.set(Message::NAME, has_name);
            self.begin(messages);
        }
    }

    fn begin(&mut self, messages: Message) {
        let new = messages.difference(self.begun);
        self.begun |= new;
        self.due |= new;
    }

    /// The guest has opened the port, or closed it (`PORT_OPEN`).
    pub(super) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Whether the guest has it open.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// What is to be said next.
    pub(super) fn due(&self) -> Option<Message> {
        self.due.iter().next()
    }

    /// That has been said.
    pub(super) fn said(&mut self, message: Message) {
        self.due.remove(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn all(conversation: &mut Conversation) -> Vec<Message> {
        core::iter::from_fn(|| conversation.due().inspect(|message| conversation.said(*message))).collect()
    }

    #[test]
    fn everything_is_said_once_and_in_order() {
        let mut conversation = Conversation::default();
        conversation.port_is_ready(true, true);
        assert_eq!(all(&mut conversation), [], "of a port that was not added nothing is said");
        conversation.device_is_ready();
        conversation.port_is_ready(true, true);
        conversation.device_is_ready();
        assert_eq!(all(&mut conversation), [Message::ADD]);
        (0..3).for_each(|_| conversation.port_is_ready(true, true));
        assert_eq!(all(&mut conversation), [Message::CONSOLE, Message::NAME, Message::OPEN]);
        conversation.device_is_ready();
        conversation.port_is_ready(true, true);
        assert_eq!(all(&mut conversation), []);
    }

    #[test]
    fn one_that_is_no_console_and_has_no_name_is_only_open() {
        let mut conversation = Conversation::default();
        conversation.device_is_ready();
        assert_eq!(all(&mut conversation), [Message::ADD]);
        conversation.port_is_ready(false, false);
        assert_eq!(all(&mut conversation), [Message::OPEN]);
    }
}
