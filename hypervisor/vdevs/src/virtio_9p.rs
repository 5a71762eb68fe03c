//! `vdev virtio-9p`: a directory of the boot archive, for reading.
//!
//! Answers for: options, configuration space, and bringing messages to the server of files and back. Does not answer for: what they
//! mean (`plan9`), where the files are (the host's), queues and registers (`virtio`). The standard has no more than the device's number;
//! the rest is Linux's `include/uapi/linux/virtio_9p.h`.
//!
//! A request is one message in its readable buffers, with room for the answer in its writable ones. Files are copied from the archive
//! straight into those.

use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use core::fmt;
use plan9::{Answer, REQUEST, Server, Tree};
use vdev::{Context, Factory, OptionError, OptionKind, OptionSpec, Options, Safety, Setup, Shared, Vdev};
use virtio::{Description, Features, Model, Next, Parts, Request, Service, Serving, Stopped};

/// Device ID (5, "Device Types").
const ID: u16 = 9;
/// Mass storage controller, other.
const CLASS: u32 = 0x01_8000;
/// `VIRTIO_9P_MOUNT_TAG`: there is a tag.
const MOUNT_TAG: Features = Features::from_bits_retain(1 << 0);
/// Entries of the only queue: Linux's driver makes chains of up to so many.
const QUEUE_SIZE: u16 = 128;
/// Most bytes of a tag, as in QEMU.
const LONGEST_TAG: usize = 31;
/// Messages that are answered in one step.
const BATCH: usize = 4;

const HOSTDEV: OptionSpec =
    OptionSpec::new("hostdev", OptionKind::Directory, "a directory of the boot archive, with all below").required();
const TAG: OptionSpec =
    OptionSpec::new("tag", OptionKind::Text, "what the guest mounts, at most 31 letters, digits and signs")
        .required()
        .unique();

/// `vdev virtio-9p`.
pub(crate) static FACTORY: Factory = Factory {
    name: "virtio-9p",
    flags: virtio::FLAGS,
    access_sizes: virtio::ACCESS_SIZES,
    region_size: virtio::REGION_SIZE,
    options: OPTIONS,
    safety: Safety::Qualified,
    help: "a directory of files, for reading (virtio)",
    about: "A directory of the boot archive as a file system. Nobody can write to it. The\n\
        whole archive cannot be named: other VMs have their files there.\n\n    \
        vdev virtio-9p hostdev share tag share\n\n\
        In Linux: `mount -t 9p -o trans=virtio,version=9p2000.L,ro share /mnt`",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[HOSTDEV, TAG, virtio::LEGACY];

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let tag = tag(options.text(TAG.name).unwrap_or_default()).map_err(|message| options.error(TAG.name, message))?;
    let files = setup.directory(options, HOSTDEV.name)?;
    let tree = Tree::new(files).map_err(|error| options.error(HOSTDEV.name, format!("{error}")))?;
    let session = Shared::default();
    let share = Share {
        server: Server::new(tree),
        session: session.clone(),
        request: Request::new(QUEUE_SIZE),
        message: vec![0; REQUEST],
        answer: Answer::default(),
    };
    let model = Box::new(Registers { configuration: tag, session });
    virtio::device(Parts { model, services: vec![(0..1, Box::new(share))] }, options, setup)
}

/// The configuration space of a device with this tag: `tag_len[2] tag[tag_len]`.
fn tag(text: &str) -> Result<Vec<u8>, String> {
    let is_good = !text.is_empty() && text.len() <= LONGEST_TAG && text.bytes().all(|byte| byte.is_ascii_graphic());
    match u16::try_from(text.len()) {
        Ok(length) if is_good => Ok([&length.to_le_bytes(), text.as_bytes()].concat()),
        _ => {
            let length = text.len();
            Err(format!("`{text}` is no tag: 1 to {LONGEST_TAG} letters, digits or signs; it has {length} bytes"))
        }
    }
}

/// What the driver finds at the registers.
struct Registers {
    configuration: Vec<u8>,
    session: Shared<Session>,
}

/// What the status report says: the agreed `msize` and the number of fids, if there is a client.
#[derive(Debug, Default)]
struct Session(Option<(u32, usize)>);

impl Model for Registers {
    fn description(&self) -> Description {
        Description {
            device_id: ID,
            class: CLASS,
            features: MOUNT_TAG,
            queues: vec![QUEUE_SIZE],
            configuration_size: u16::try_from(self.configuration.len()).unwrap_or(0),
        }
    }

    fn read_configuration(&mut self, offset: u16, into: &mut [u8], _: &mut Context<'_>) {
        let from = self.configuration.get(usize::from(offset)..).unwrap_or_default();
        into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
    }

    fn report(&mut self, into: &mut dyn fmt::Write, context: &mut Context<'_>) -> fmt::Result {
        match self.session.with(context, |session, _| session.0) {
            Some((msize, fids)) => write!(into, "; {fids} fids, messages of {msize} bytes"),
            None => into.write_str("; not mounted"),
        }
    }
}

/// Answers what comes.
struct Share {
    server: Server,
    session: Shared<Session>,
    request: Request,
    message: Vec<u8>,
    answer: Answer,
}

impl Share {
    fn answer(&mut self, work: &mut Serving<'_, '_>) -> Result<(), Stopped> {
        let (length, room) = (self.request.readable(), self.request.writable());
        let count = work.read(&mut self.request, &mut self.message)?;
        let message = self.message.get(..count).unwrap_or_default();
        self.server.answer(message, length, room, &mut self.answer);
        work.write(&mut self.request, self.answer.bytes())?;
        work.write(&mut self.request, self.answer.data())?;
        work.complete(&self.request)
    }
}

impl Service for Share {
    fn begin(&mut self, _: Features) {
        self.server.reset();
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        let mut next = Next::Again;
        for _ in 0..BATCH {
            if !work.pop(&mut self.request) {
                next = Next::Idle;
                break;
            }
            // Of one that is void nothing comes.
            let _ = self.answer(work);
        }
        let session = self.server.session();
        work.with(&self.session, |shared, _| shared.0 = session);
        next
    }
}
