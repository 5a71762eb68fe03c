//! `vdev virtio-input`: a keyboard with one key, the power button.
//!
//! Answers for: what the driver finds at the registers (virtio 1.3, 5.8), and whether the guest can be told that the button has been
//! pressed. Does not answer for: how it is told ([`events`]), who presses the button (the host), queues and registers (`virtio`).

mod events;
mod layout;

use alloc::{boxed::Box, vec};
use core::fmt;
use events::{Button, Events};
use layout::{Configuration, select};
use vdev::{Context, Factory, OptionError, Options, Safety, Setup, Shared, Vdev};
use virtio::{Description, Event, Features, Model, Parts};
use zerocopy::IntoBytes;

/// `vdev virtio-input`.
pub(crate) static FACTORY: Factory = Factory {
    name: "virtio-input",
    flags: virtio::FLAGS,
    access_sizes: virtio::ACCESS_SIZES,
    region_size: virtio::REGION_SIZE,
    options: &[virtio::LEGACY],
    safety: Safety::Qualified,
    help: "a power button (virtio)",
    about: "A keyboard with one key, KEY_POWER. SIGTERM and SIGINT press it, so that a\n\
        guest that has a driver for it shuts down in order; the second signal ends\n\
        the VM. Without a driver the first one does.\n\n    \
        vdev virtio-input",
    ..Factory::new(create)
};

/// What the driver finds at the registers.
struct Registers {
    /// What the driver has selected, and what it reads therefore.
    configuration: Configuration,
    button: Shared<Button>,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let button = Shared::default();
    let model = Box::new(Registers { configuration: Configuration::default(), button: button.clone() });
    let services = vec![(0..layout::QUEUES, Box::new(Events::new(button)) as _)];
    virtio::device(Parts { model, services }, options, setup)
}

impl Model for Registers {
    fn description(&self) -> Description {
        Description {
            device_id: layout::ID,
            class: layout::CLASS,
            features: Features::empty(),
            queues: vec![layout::QUEUE_SIZE; layout::QUEUES.into()],
            configuration_size: u16::try_from(size_of::<Configuration>()).unwrap_or(0),
        }
    }

    fn read_configuration(&mut self, offset: u16, into: &mut [u8], _: &mut Context<'_>) {
        let from = self.configuration.as_bytes().get(usize::from(offset)..).unwrap_or_default();
        into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
    }

    /// The driver selects what it wants to read (5.8.5).
    fn write_configuration(&mut self, offset: u16, from: &[u8], _: &mut Context<'_>) {
        for (byte, at) in from.iter().zip(usize::from(offset)..) {
            match at {
                0 => self.configuration.select = *byte,
                1 => self.configuration.subsel = *byte,
                _ => {}
            }
        }
        self.configuration = Configuration::of(self.configuration.select, self.configuration.subsel);
    }

    fn report(&mut self, into: &mut dyn fmt::Write, context: &mut Context<'_>) -> fmt::Result {
        let (can_be_pressed, pressed) =
            self.button.with(context, |button, _| (button.can_be_pressed(), button.pressed));
        write!(into, "; pressed {pressed} times{}", if can_be_pressed { "" } else { ", nobody listens" })
    }

    fn press_button(&mut self, context: &mut Context<'_>) -> bool {
        self.button.with(context, |button, _| button.press())
    }

    fn event(&mut self, event: Event, context: &mut Context<'_>) -> bool {
        match event {
            Event::Started | Event::Reset => {
                self.button.with(context, |button, _| button.forget());
                self.configuration = Configuration::of(select::UNSET, 0);
            }
            _ => {}
        }
        false
    }
}
