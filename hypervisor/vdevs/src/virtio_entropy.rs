//! `vdev virtio-entropy`: random numbers for guests, by a virtqueue.
//!
//! Answers for: the entropy device of virtio 1.3, section 5.4. Does not answer for: where the numbers come from, which is the host's
//! source ([`vdev::Entropy`]), nor for how fast: who wants many takes them as seed of a generator.

use alloc::{boxed::Box, string::ToString, vec};
use types::Ticks;
use vdev::{Entropy, Factory, OptionError, Options, Safety, Setup, Shared, Vdev};
use virtio::{Description, Features, Model, Next, Parts, Request, Service, Serving, Stopped};

/// Entries of the only queue.
const QUEUE_SIZE: u16 = 64;
/// Most bytes that a request gets: a device may use less of a buffer than there is (5.4.6.2).
const MOST: u64 = 256;
/// Words that are asked for at once, with interrupts masked.
const WORDS: usize = 8;
/// Ticks until a source is asked again that had nothing to give.
const PAUSE: Ticks = Ticks(10_000);

/// `vdev virtio-entropy`.
pub(crate) static FACTORY: Factory = Factory {
    name: "virtio-entropy",
    flags: virtio::FLAGS,
    access_sizes: virtio::ACCESS_SIZES,
    options: &[virtio::LEGACY],
    safety: Safety::Qualified,
    region_size: virtio::REGION_SIZE,
    help: "virtio source of random numbers",
    about: "The host's random numbers, for guests on machines that have a source of them.\n\
        On others a VM that has it does not start.\n\n    \
        vdev virtio-entropy\n    \
        vdev virtio-entropy loc 0x1c0d0000 intr gic:46",
    ..Factory::new(create)
};

struct Registers;

impl Model for Registers {
    fn description(&self) -> Description {
        Description {
            device_id: 4,
            // Of no defined class.
            class: 0xff_0000,
            features: Features::empty(),
            queues: vec![QUEUE_SIZE],
            configuration_size: 0,
        }
    }
}

struct Generator {
    /// One caller at a time, with interrupts masked: a source may be one for all.
    source: Shared<Source>,
    request: Request,
    /// A request is waiting for the source.
    waits: bool,
}

struct Source(Entropy);

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let Some(entropy) = setup.backends.entropy() else {
        return Err(OptionError::general("this machine has no source of random numbers".to_string()));
    };
    let source = Shared::new(Source(entropy));
    let generator = Generator { source, request: Request::new(QUEUE_SIZE), waits: false };
    let services = vec![(0..1, Box::new(generator) as Box<dyn Service>)];
    virtio::device(Parts { model: Box::new(Registers), services }, options, setup)
}

impl Generator {
    /// As much as the source gives of what the request has room for; whether that is anything.
    fn fill(&mut self, work: &mut Serving<'_, '_>) -> Result<bool, Stopped> {
        let room = self.request.writable().min(MOST);
        let mut left = usize::try_from(room).unwrap_or(0);
        while left > 0 {
            let words = work.with(&self.source, |Source(source), _| [(); WORDS].map(|()| source()));
            let (mut bytes, mut length) = ([[0; 8]; WORDS], 0_usize);
            for (to, word) in bytes.iter_mut().zip(words.into_iter().map_while(|word| word)) {
                *to = word.to_le_bytes();
                length = length.saturating_add(8);
            }
            let some = bytes.as_flattened().get(..length.min(left)).unwrap_or_default();
            match work.write(&mut self.request, some)? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok(room == 0 || u64::try_from(left).is_ok_and(|left| left < room))
    }
}

impl Service for Generator {
    fn begin(&mut self, _: Features) {
        self.waits = false;
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        if !self.waits && !work.pop(&mut self.request) {
            return Next::Idle;
        }
        // A request is completed with a byte at least (5.4.6.2), so it may have to wait; not if it is void meanwhile.
        self.waits = self.fill(work) == Ok(false) && work.is_alive(&self.request);
        if self.waits {
            return Next::Until(work.now().saturating_add(PAUSE));
        }
        // One that is void is forgotten.
        let _ = work.complete(&self.request);
        Next::Again
    }
}
