//! `vdev virtio-net`: a network device.
//!
//! Answers for: options, features, configuration space (virtio 1.3, 5.1). Does not answer for: frames ([`receive`], [`transmit`]), the
//! control queue ([`control`]), the network behind it (the host's), queues and registers (`virtio`).

mod control;
mod layout;
mod receive;
mod transmit;

use alloc::{boxed::Box, format, string::ToString, sync::Arc, vec};
use layout::{CONFIGURATION_SIZE, LINK_UP, feature};
use receive::Receiver;
use transmit::Sender;
use vdev::{
    Context, Factory, Mac, NetPort, NetWish, OptionError, OptionKind, OptionSpec, Options, Safety, Setup, Vdev, Wake,
};
use virtio::{Description, Event, Features, Model, Parts};

const PEER: OptionSpec =
    OptionSpec::new("peer", OptionKind::Text, "/dev/qvm/VM/DEVICE or /dev/vswitchNAME (default: what names this one)");
const MAC: OptionSpec =
    OptionSpec::new("mac", OptionKind::Text, "its address, XX:XX:XX:XX:XX:XX (default: made of the VM's and its name)");
const PEER_MAC: OptionSpec = OptionSpec::new("peermac", OptionKind::Text, "the address that the other end has to have");
const PEER_FEATURES: OptionSpec = OptionSpec::new(
    "peerfeats",
    OptionKind::Number { min: 0, max: u64::MAX },
    "what the other end can: bits 7 and 8, undivided frames (default: all)",
);
const GROUP: OptionSpec = OptionSpec::new(
    "group",
    OptionKind::Number { min: 0, max: 4094 },
    "which group of its switch it belongs to: others do not see it (default: 0)",
);
const RATE: OptionSpec = OptionSpec::new("rate", OptionKind::Size, "most bytes that it sends in a second");

/// `vdev virtio-net`.
pub(crate) static FACTORY: Factory = Factory {
    name: "virtio-net",
    flags: virtio::FLAGS,
    access_sizes: virtio::ACCESS_SIZES,
    region_size: virtio::REGION_SIZE,
    options: OPTIONS,
    safety: Safety::Qualified,
    help: "a network device (virtio)",
    about: "A link to a device of another VM, up while that VM is there; or a port of a\n\
        switch, which is there while it has ports. Frames that a guest leaves\n\
        undivided and without checksum are handed on as they are to guests that take\n\
        them. For other guests checksums are computed; undivided frames are lost,\n\
        unless `peerfeats` says beforehand that there are such guests.\n\n    \
        vdev virtio-net name net peer /dev/qvm/other/net\n    \
        vdev virtio-net loc pci:3 peer /dev/vswitch0 group 2 rate 10M",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[MAC, PEER, PEER_FEATURES, PEER_MAC, GROUP, RATE, virtio::LEGACY];

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// Which queue is which (5.1.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const CONTROL: u16 = 2;
const QUEUES: u16 = 3;

/// What the driver finds at the registers.
struct Registers {
    features: Features,
    mac: Mac,
    port: Arc<dyn NetPort>,
    was_up: bool,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let wish = NetWish {
        name: setup.name.to_string(),
        mac: address(options, MAC.name)?,
        peer: options.text(PEER.name).map(ToString::to_string),
        peer_mac: address(options, PEER_MAC.name)?,
        group: options.number(GROUP.name).and_then(|group| u16::try_from(group).ok()).unwrap_or(0),
        rate: options.size(RATE.name),
    };
    if wish.rate == Some(0) {
        return Err(options.error(RATE.name, "with a rate of 0 it could send nothing".to_string()));
    }
    let (mac, port) = setup.net(options, PEER.name, &wish)?;
    let features = feature::offered(options.number(PEER_FEATURES.name).unwrap_or(u64::MAX));
    let model = Registers { features, mac, was_up: port.is_up(), port: Arc::clone(&port) };
    let legacy = options.has(virtio::LEGACY.name);
    // The first worker is the one that the network rings.
    let receiver = Receiver::new(Arc::clone(&port), QUEUE_SIZE, legacy);
    let sender = Sender::new(port, QUEUE_SIZE, legacy);
    let parts = Parts {
        model: Box::new(model),
        services: vec![(RECEIVE..TRANSMIT, Box::new(receiver)), (TRANSMIT..QUEUES, Box::new(sender))],
    };
    virtio::device(parts, options, setup)
}

/// An address of one station, if there is one.
fn address(options: &Options, name: &'static str) -> Result<Option<Mac>, OptionError> {
    let Some(text) = options.text(name) else { return Ok(None) };
    match text.parse::<Mac>() {
        Ok(mac) if mac.is_station() => Ok(Some(mac)),
        _ => Err(options.error(name, format!("`{text}` is no address of a station: 02:00:00:00:00:01 would be one"))),
    }
}

impl Model for Registers {
    fn description(&self) -> Description {
        Description {
            device_id: layout::ID,
            class: layout::CLASS,
            features: self.features,
            queues: vec![QUEUE_SIZE; usize::from(QUEUES)],
            configuration_size: CONFIGURATION_SIZE,
        }
    }

    fn read_configuration(&mut self, offset: u16, into: &mut [u8], _: &mut Context<'_>) {
        let status = if self.port.is_up() { LINK_UP } else { 0 };
        let all = self.mac.0.into_iter().chain(status.to_le_bytes());
        into.iter_mut().zip(all.skip(usize::from(offset))).for_each(|(to, from)| *to = from);
    }

    fn event(&mut self, event: Event, _: &mut Context<'_>) -> bool {
        match event {
            Event::Started | Event::Woken(Wake::Backend) => {
                let is_up = self.port.is_up();
                core::mem::replace(&mut self.was_up, is_up) != is_up
            }
            _ => false,
        }
    }
}
