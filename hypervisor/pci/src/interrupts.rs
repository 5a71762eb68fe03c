//! How a function interrupts its guest.
//!
//! Answers for: pin or messages, as the guest has chosen (PCI, 2.2.6, 6.2.2, 6.8). Does not answer for: what there is to tell (the
//! function's), which line the pin is connected to (the bus's, by the configuration), nor who takes the messages (`vgic`).
//!
//! A function's thread tells as well as its device: so this has a lock of its own. Behind it comes the interrupt controller's only.

use crate::config::{Command, Flaw};
use crate::function::{Bar, Capability, Messages};
use crate::msix::{Message, Msix};
use alloc::sync::Arc;
use types::{AccessSize, Lock, RequesterId};
use vdev::{Context, PciSlot};

/// A function's interrupts. Clones are of the same function. All calls are made with interrupts masked, as those of devices and
/// those in [`vdev::Work::with`] are.
#[derive(Clone, Debug)]
pub struct Interrupts(Arc<Lock<State>>);

#[derive(Debug)]
struct State {
    /// What the function wants of its pin.
    level: bool,
    /// What the line was told last.
    told: bool,
    command: Command,
    messages: Option<Msix>,
    /// Who sends them.
    from: RequesterId,
}

impl Interrupts {
    /// Of the function in this slot, with `messages` if there are some.
    pub(crate) fn new(messages: Option<Messages>, slot: PciSlot) -> Result<Self, Flaw> {
        let messages = messages.map(Msix::new).transpose()?;
        let from = RequesterId(slot.number().into());
        Ok(Self(Arc::new(Lock::new(State { level: false, told: false, command: Command::empty(), messages, from }))))
    }

    /// Asserts the function's pin or releases it. The guest hears of it unless it has disabled the pin or enabled messages, and
    /// later if it takes that back.
    pub fn set_level(&self, asserted: bool, context: &mut Context<'_>) {
        let mut state = self.0.lock();
        state.level = asserted;
        state.settle(context);
    }

    /// Whether the guest has enabled messages: then it takes them, and the pin has no meaning (PCI, 6.8.2).
    #[must_use]
    pub fn has_messages(&self) -> bool {
        self.0.lock().has_messages()
    }

    /// How many vectors there are: none if messages reach nobody.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        let count = self.0.lock().messages.as_ref().map_or(0, |messages| messages.vectors().len());
        u16::try_from(count).unwrap_or(u16::MAX)
    }

    /// Sends the message of a vector: at once, or, if it is masked, when it is not any more. By a vector that there is not nothing is
    /// sent. Says whether the guest has enabled messages: if not, nothing is sent either, and there is the pin.
    pub fn send(&self, vector: u16, context: &mut Context<'_>) -> bool {
        let mut state = self.0.lock();
        let has_messages = state.has_messages();
        if has_messages {
            state.messages.iter_mut().for_each(|messages| messages.raise(vector));
            state.deliver(usize::from(vector), context);
        }
        has_messages
    }

    /// Whether the function wants its pin asserted.
    pub(crate) fn level(&self) -> bool {
        self.0.lock().level
    }

    pub(crate) fn bar(&self, index: u8) -> Option<(Bar, Capability)> {
        let state = self.0.lock();
        state.messages.as_ref().map(|messages| (messages.bar(index), messages.capability(index)))
    }

    /// The guest has written to the command register or to message control.
    pub(crate) fn configure(&self, command: Command, control: u16, context: &mut Context<'_>) {
        let mut state = self.0.lock();
        state.command = command;
        state.messages.iter_mut().for_each(|messages| messages.set_control(control));
        state.settle(context);
        let vectors = state.messages.as_ref().map(Msix::vectors).unwrap_or_default();
        vectors.for_each(|vector| state.deliver(vector, context));
    }

    pub(crate) fn read(&self, offset: u64, size: AccessSize) -> u64 {
        self.0.lock().messages.as_ref().map_or(0, |messages| messages.read(offset, size))
    }

    pub(crate) fn write(&self, offset: u64, size: AccessSize, value: u64, context: &mut Context<'_>) {
        let mut state = self.0.lock();
        state.messages.iter_mut().for_each(|messages| messages.write(offset, size, value));
        state.deliver(Msix::vector_at(offset), context);
    }

    pub(crate) fn reset(&self, context: &mut Context<'_>) {
        let mut state = self.0.lock();
        state.level = false;
        state.command = Command::empty();
        state.messages.iter_mut().for_each(Msix::reset);
        state.settle(context);
    }
}

impl State {
    fn has_messages(&self) -> bool {
        self.messages.as_ref().is_some_and(Msix::is_enabled)
    }

    fn settle(&mut self, context: &mut Context<'_>) {
        let asserted = self.level && !self.command.contains(Command::INTERRUPT_DISABLE) && !self.has_messages();
        if asserted != self.told {
            self.told = asserted;
            context.set_line(asserted);
        }
    }

    /// Sends what is pending by `vector`, if it may be. A function that is not bus master stores nothing; its messages wait until it
    /// is, so that none is lost.
    fn deliver(&mut self, vector: usize, context: &mut Context<'_>) {
        if self.command.contains(Command::BUS_MASTER)
            && let Some(message) = self.messages.as_mut().and_then(|messages| messages.take(vector))
        {
            transmit(self.from, message, context);
        }
    }
}

/// The one place that messages leave from.
fn transmit(from: RequesterId, Message { address, data }: Message, context: &mut Context<'_>) {
    context.message(Some(from), address, data);
}
