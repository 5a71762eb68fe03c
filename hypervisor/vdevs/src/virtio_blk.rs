//! `vdev virtio-blk`: a disk.
//!
//! Answers for: options, features, configuration space (virtio 1.3, 5.2). Does not answer for: requests ([`requests`]), what stands
//! behind the disk (the host's), queues and registers (`virtio`).

mod layout;
mod requests;

use crate::character::{self, DELAYED};
use alloc::{boxed::Box, format, vec, vec::Vec};
use layout::{Configuration, MOST_ZEROED, SERIAL, feature};
use requests::Requests;
use vdev::{Context, Factory, Geometry, OptionError, OptionKind, OptionSpec, Options, Safety, Setup, Vdev};
use virtio::{Description, Features, Model, Parts};
use zerocopy::IntoBytes;

const HOSTDEV: OptionSpec =
    OptionSpec::new("hostdev", OptionKind::Disk, "a file, /dev/ram,SIZE or a real disk; `<` for reading only")
        .required();
const THREADS: OptionSpec = OptionSpec::new(
    "threads",
    OptionKind::Number { min: 1, max: 32 },
    "most requests that are worked on at once; one, whatever is said",
);
const DIO: OptionSpec =
    OptionSpec::new("dio", OptionKind::Choice(&["enable", "disable"]), "past caches; there are none to go past");
const QUEUES: OptionSpec = OptionSpec::new(
    "queues",
    OptionKind::Number { min: 1, max: 16 },
    "request queues (default: one for each vCPU, at most 16)",
);
const SERIAL_NUMBER: OptionSpec =
    OptionSpec::new("serial", OptionKind::Text, "serial number, at most 20 characters (default: its name)");

/// `vdev virtio-blk`.
pub(crate) static FACTORY: Factory = Factory {
    name: "virtio-blk",
    flags: virtio::FLAGS,
    access_sizes: virtio::ACCESS_SIZES,
    region_size: virtio::REGION_SIZE,
    options: OPTIONS,
    safety: Safety::Qualified,
    help: "a disk (virtio)",
    about: "A file of the boot archive as a disk, which keeps in memory what is written\n\
        to it and loses that when the VM ends; or memory; or a disk of the machine or\n\
        a partition of it (/dev/hd0, /dev/hd0t178, /dev/hd0p1), of which a writer is\n\
        the only user. `pidin disks` lists them.\n\n    \
        vdev virtio-blk hostdev rootfs.img name root\n    \
        vdev virtio-blk loc 0x1c0d0000 intr gic:41 hostdev /dev/ram,64M",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[HOSTDEV, THREADS, DELAYED, DIO, QUEUES, SERIAL_NUMBER, virtio::LEGACY];

/// Entries of a queue.
const QUEUE_SIZE: u16 = 256;
/// Most queues that are made without being asked for.
const MOST_QUEUES: u16 = 16;

/// What the driver finds at the registers.
struct Disk {
    features: Features,
    configuration: Configuration,
    queues: u16,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    character::check_delayed(options)?;
    let serial = serial(options, setup)?;
    let Some(host) = options.disk(HOSTDEV.name) else {
        return Err(OptionError::general("it needs `hostdev DISK`".into()));
    };
    let disk = setup.disk(HOSTDEV.name, host)?;
    let each = u16::try_from(setup.vcpus).unwrap_or(MOST_QUEUES).clamp(1, MOST_QUEUES);
    let queues = options.number(QUEUES.name).and_then(|number| u16::try_from(number).ok()).unwrap_or(each);
    let model = Disk::new(disk.geometry(), queues);
    let service = Requests::new(disk, serial, queues, QUEUE_SIZE);
    let parts = Parts { model: Box::new(model), services: vec![(0..queues, Box::new(service))] };
    virtio::device(parts, options, setup)
}

/// The serial number, filled up with zeroes.
fn serial(options: &Options, setup: &Setup<'_>) -> Result<[u8; SERIAL], OptionError> {
    let mut serial = [0; SERIAL];
    let given = options.text(SERIAL_NUMBER.name);
    let text = given.unwrap_or(setup.name).as_bytes();
    if given.is_some() && text.len() > SERIAL {
        return Err(options.error(SERIAL_NUMBER.name, format!("has {} characters of at most {SERIAL}", text.len())));
    }
    serial.iter_mut().zip(text).for_each(|(into, from)| *into = *from);
    Ok(serial)
}

impl Disk {
    fn new(geometry: &Geometry, queues: u16) -> Self {
        let mut features = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY;
        features.set(feature::RO, geometry.read_only);
        features.set(feature::MQ, queues > 1);
        features.set(feature::DISCARD | feature::WRITE_ZEROES, geometry.zeroes && !geometry.read_only);
        let (block, physical) = (geometry.block_size, geometry.physical_block_size);
        let sectors = physical.max(512) / 512;
        let exponent = physical.trailing_zeros().saturating_sub(block.trailing_zeros());
        let configuration = Configuration {
            capacity: geometry.sectors.into(),
            // The header and the status have descriptors of their own.
            seg_max: u32::from(QUEUE_SIZE).saturating_sub(2).into(),
            blk_size: block.into(),
            physical_block_exp: u8::try_from(exponent).unwrap_or(0),
            num_queues: queues.into(),
            max_discard_sectors: MOST_ZEROED.into(),
            max_discard_seg: 1.into(),
            discard_sector_alignment: sectors.into(),
            max_write_zeroes_sectors: MOST_ZEROED.into(),
            max_write_zeroes_seg: 1.into(),
            write_zeroes_may_unmap: 1,
            ..Configuration::default()
        };
        Self { features, configuration, queues }
    }
}

impl Model for Disk {
    fn description(&self) -> Description {
        Description {
            device_id: layout::ID,
            class: layout::CLASS,
            features: self.features,
            queues: (0..self.queues).map(|_| QUEUE_SIZE).collect::<Vec<_>>(),
            configuration_size: u16::try_from(size_of::<Configuration>()).unwrap_or(0),
        }
    }

    fn read_configuration(&mut self, offset: u16, into: &mut [u8], _: &mut Context<'_>) {
        let from = self.configuration.as_bytes().get(usize::from(offset)..).unwrap_or_default();
        into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
    }
}
