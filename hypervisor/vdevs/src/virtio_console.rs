//! `vdev virtio-console`: the guest's console, and further ports, by virtqueues.
//!
//! Answers for: options, features, configuration space (virtio 1.3, 5.3). Does not answer for: what goes through the queues
//! ([`ports`]), what stands behind a port (the host's), queues and registers (`virtio`).

mod conversation;
mod layout;
mod ports;

use crate::character::{self, DELAYED, HOSTDEV};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::fmt;
use core::mem::offset_of;
use layout::{Configuration, feature};
use ports::{End, Port, Ports};
use vdev::{Context, Factory, HostDevice, OptionError, OptionKind, OptionSpec, Options, Safety, Setup, Shared, Vdev};
use virtio::{Description, Model, Parts};
use zerocopy::IntoBytes;

const PORT: OptionSpec =
    OptionSpec::new("port", OptionKind::Text, "NAME[,[<|>]HOSTDEV]: a further port and its back end (default: `-`)")
        .repeatable();
const BACKPRESSURE: OptionSpec = OptionSpec::new(
    "tx-backpressure",
    OptionKind::Flag,
    "output waits while the back end has no space; else it is dropped then",
);

/// `vdev virtio-console`.
pub(crate) static FACTORY: Factory = Factory {
    name: "virtio-console",
    flags: virtio::FLAGS,
    access_sizes: virtio::ACCESS_SIZES,
    region_size: virtio::REGION_SIZE,
    options: OPTIONS,
    safety: Safety::Qualified,
    help: "a console, and further ports (virtio)",
    about: "Linux's hvc0. It takes many bytes at once, where a UART has an exit for each.\n\
        Each `port` is another stream of bytes, /dev/virtio-ports/NAME with udev.\n\n    \
        vdev virtio-console hostdev >- port agent,- tx-backpressure\n    \
        vdev virtio-console loc 0x1c0d2000 intr gic:43",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[HOSTDEV, PORT, BACKPRESSURE, DELAYED, virtio::LEGACY];

/// Entries of a queue.
const QUEUE_SIZE: u16 = 64;
/// Most ports, the console included.
const MOST_PORTS: usize = 16;
/// Most bytes of a port's name.
const MOST_NAME: usize = 63;
/// The lowest byte of `emerg_wr`.
const EMERGENCY: usize = offset_of!(Configuration, emerg_wr);

/// What the driver finds at the registers.
struct Registers {
    configuration: Configuration,
    /// What stands behind each port; behind the first, the console.
    ends: Vec<Shared<End>>,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    character::check_delayed(options)?;
    let mut ports = vec![port(String::new(), End::new(character::wire(options, setup)?))];
    for text in options.texts(PORT.name) {
        let (name, host) = named(text).map_err(|message| options.error(PORT.name, message))?;
        if ports.iter().any(|port| port.name == name) || ports.len() >= MOST_PORTS {
            let message = format!("`{text}`: another port has this name, or there are {MOST_PORTS} already");
            return Err(options.error(PORT.name, message));
        }
        ports.push(port(name, End::new(setup.character(PORT.name, &host)?)));
    }
    let registers = Registers::new(ports.iter().map(|port| port.end.clone()).collect());
    let queues = layout::queues(ports.len());
    let service = Ports::new(ports, options.has(BACKPRESSURE.name), QUEUE_SIZE);
    let parts = Parts { model: Box::new(registers), services: vec![(0..queues, Box::new(service))] };
    virtio::device(parts, options, setup)
}

fn port(name: String, end: End) -> Port {
    Port::new(name, Shared::new(end), QUEUE_SIZE)
}

/// Reads `NAME[,HOSTDEV]`. A name becomes that of a file in the guest.
fn named(text: &str) -> Result<(String, HostDevice), String> {
    let (name, host) = text.split_once(',').map_or((text, None), |(name, host)| (name, Some(host)));
    let is_good = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if name.is_empty() || name.len() > MOST_NAME || !name.bytes().all(is_good) || name.starts_with('.') {
        return Err(format!("`{name}` is no name: 1 to {MOST_NAME} letters, digits or signs, no `/`, no `.` in front"));
    }
    let host = host.map_or(Ok(HostDevice::console()), |host| HostDevice::parse(host, None))?;
    Ok((name.to_string(), host))
}

impl Registers {
    fn new(ends: Vec<Shared<End>>) -> Self {
        let ports = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        Self { configuration: Configuration { max_nr_ports: ports.into(), ..Configuration::default() }, ends }
    }
}

impl Model for Registers {
    fn description(&self) -> Description {
        let mut features = feature::EMERG_WRITE;
        features.set(feature::MULTIPORT, self.ends.len() > 1);
        Description {
            device_id: layout::ID,
            class: layout::CLASS,
            features,
            queues: (0..layout::queues(self.ends.len())).map(|_| QUEUE_SIZE).collect(),
            configuration_size: u16::try_from(size_of::<Configuration>()).unwrap_or(0),
        }
    }

    fn read_configuration(&mut self, offset: u16, into: &mut [u8], _: &mut Context<'_>) {
        let from = self.configuration.as_bytes().get(usize::from(offset)..).unwrap_or_default();
        into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
    }

    /// `emerg_wr` takes a character at any time, from a driver or without one (5.3.5.1).
    fn write_configuration(&mut self, offset: u16, from: &[u8], context: &mut Context<'_>) {
        let byte = EMERGENCY.checked_sub(offset.into()).and_then(|at| from.get(at));
        if let Some((byte, end)) = byte.zip(self.ends.first()) {
            end.with(context, |end, context| end.pass_on_or_drop(&[*byte], context));
        }
    }

    fn report(&mut self, into: &mut dyn fmt::Write, context: &mut Context<'_>) -> fmt::Result {
        for (number, end) in self.ends.iter().enumerate() {
            let dropped = end.with(context, |end, _| end.dropped);
            write!(into, "; port {number}: {dropped} bytes dropped")?;
        }
        Ok(())
    }
}
