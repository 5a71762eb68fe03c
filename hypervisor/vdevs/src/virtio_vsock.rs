//! `vdev virtio-vsock`: sockets to the host and to other guests.
//!
//! Answers for: options, features, configuration space, the power button (virtio 1.3, 5.10). Does not answer for: packets in queues
//! ([`traffic`]), connections (the host's), queues and registers (`virtio`).

mod layout;
mod traffic;

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};
use core::fmt;
use layout::{CONFIGURATION_SIZE, feature};
use traffic::Traffic;
use vdev::{
    Context, Factory, GUEST_CIDS, OptionError, OptionKind, OptionSpec, Options, Safety, Setup, Vdev, VsockPort,
    VsockSignal, VsockWish,
};
use virtio::{Description, Event, Model, Parts};

const CID: OptionSpec = OptionSpec::new(
    "cid",
    OptionKind::Number { min: *GUEST_CIDS.start() as u64, max: *GUEST_CIDS.end() as u64 },
    "its number, which no other VM has (default: a free one from 1024 on)",
);
const GROUP: OptionSpec =
    OptionSpec::new("group", OptionKind::Text, "a group of devices that reach each other (default: only the host)")
        .repeatable();

/// `vdev virtio-vsock`.
pub(crate) static FACTORY: Factory = Factory {
    name: "virtio-vsock",
    flags: virtio::FLAGS,
    access_sizes: virtio::ACCESS_SIZES,
    region_size: virtio::REGION_SIZE,
    options: &[CID, GROUP, virtio::LEGACY],
    safety: Safety::Unqualified,
    help: "sockets to the host and to other guests (virtio)",
    about: "Stream sockets between guests that are in a `group` together, and from a\n\
        guest to the host, CID 2. There port 1 is for the guest's agent: what it\n\
        writes is logged line by line, and it reads `shutdown` when the VM gets\n\
        SIGTERM. Port 7 sends back what it gets. Without an agent SIGTERM ends the\n\
        VM at once.\n\n    \
        vdev virtio-vsock cid 5 group cameras group control",
    ..Factory::new(create)
};

/// Most groups of a device, and bytes of a group's name.
const MOST_GROUPS: usize = 16;
const LONGEST_GROUP: usize = 32;

/// Entries of each queue.
const QUEUE_SIZE: u16 = 128;
/// Which queue is which (5.10.2).
const RX: u16 = 0;
const TX: u16 = 1;
const EVENT: u16 = 2;
const QUEUES: u16 = 3;

/// What the driver finds at the registers.
struct Registers {
    cid: u32,
    port: Arc<dyn VsockPort>,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let cid = options.number(CID.name).and_then(|cid| u32::try_from(cid).ok());
    let wish = VsockWish { name: setup.name.to_string(), cid, groups: groups(options)? };
    let (cid, port) = setup.vsock(options, CID.name, &wish)?;
    let traffic = Traffic::new(Arc::clone(&port), QUEUE_SIZE);
    let parts =
        Parts { model: Box::new(Registers { cid, port }), services: vec![(0..QUEUES, Box::new(traffic) as Box<_>)] };
    virtio::device(parts, options, setup)
}

/// The groups, each a word that is not too long.
fn groups(options: &Options) -> Result<Vec<String>, OptionError> {
    let groups: Vec<String> = options.texts(GROUP.name).map(ToString::to_string).collect();
    let is_name =
        |group: &String| (1..=LONGEST_GROUP).contains(&group.len()) && group.bytes().all(|b| b.is_ascii_graphic());
    if let Some(wrong) = groups.iter().find(|group| !is_name(group)) {
        let message = format!("`{wrong}` is no name of a group: 1 to {LONGEST_GROUP} printing characters");
        return Err(options.error(GROUP.name, message));
    }
    if groups.len() > MOST_GROUPS {
        return Err(options.error(GROUP.name, format!("more than {MOST_GROUPS} groups")));
    }
    Ok(groups)
}

impl Model for Registers {
    fn description(&self) -> Description {
        Description {
            device_id: layout::ID,
            class: layout::CLASS,
            features: feature::STREAM | feature::NO_IMPLIED_STREAM,
            queues: vec![QUEUE_SIZE; usize::from(QUEUES)],
            configuration_size: CONFIGURATION_SIZE,
        }
    }

    fn read_configuration(&mut self, offset: u16, into: &mut [u8], _: &mut Context<'_>) {
        let all = u64::from(self.cid).to_le_bytes();
        into.iter_mut().zip(all.iter().skip(offset.into())).for_each(|(to, from)| *to = *from);
    }

    fn report(&mut self, into: &mut dyn fmt::Write, _: &mut Context<'_>) -> fmt::Result {
        write!(into, "; CID {}", self.cid)
    }

    fn press_button(&mut self, _: &mut Context<'_>) -> bool {
        self.port.signal(VsockSignal::Button)
    }

    fn event(&mut self, event: Event, _: &mut Context<'_>) -> bool {
        if event == Event::Reset {
            self.port.signal(VsockSignal::Closed);
        }
        false
    }
}
