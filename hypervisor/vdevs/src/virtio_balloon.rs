//! `vdev virtio-balloon`: memory that a guest gives back.
//!
//! Answers for: options, features, configuration space (virtio 1.3, 5.5). Does not answer for: what goes through the queues
//! ([`exchange`]), what becomes of pages (the host's, [`vdev::Balloon`]), queues and registers (`virtio`). Whose memory it is when is
//! in docs/design/033-balloon.md.
//!
//! Not offered: `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`, which would let a guest take back what others have by now;
//! `VIRTIO_BALLOON_F_FREE_PAGE_HINT`, which is for migration; `VIRTIO_BALLOON_F_PAGE_POISON`: a page comes back as zeroes.

mod exchange;
mod layout;

use alloc::{boxed::Box, sync::Arc, vec};
use core::fmt;
use exchange::{Exchange, Statistics};
use layout::{Configuration, QUEUES, feature};
use vdev::{
    Balloon, Context, Factory, OptionError, OptionKind, OptionSpec, Options, Safety, Setup, Shared, Vdev, Wake,
};
use virtio::{Description, Event, Model, Parts};
use zerocopy::IntoBytes;

const LEND: OptionSpec = OptionSpec::new(
    "lend",
    OptionKind::Flag,
    "what the guest does not use others may have, until it uses it; then it may end",
);

/// `vdev virtio-balloon`.
pub(crate) static FACTORY: Factory = Factory {
    name: "virtio-balloon",
    flags: virtio::FLAGS,
    access_sizes: virtio::ACCESS_SIZES,
    region_size: virtio::REGION_SIZE,
    options: OPTIONS,
    safety: Safety::Unqualified,
    help: "memory that the guest gives back when asked to (virtio)",
    about: "The shell's `balloon NAME SIZE` asks the guest to make do with less memory;\n\
        what it gives up others can have. Up to SIZE its memory stays promised to it.\n\
        With `lend` the guest also reports what is free, nothing is promised, and a\n\
        VM that touches memory which nobody can give it any more ends (code 96).\n\n    \
        vdev virtio-balloon",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[LEND, virtio::LEGACY];

/// Entries of each queue; a report of Linux's has 32 buffers.
const QUEUE_SIZE: u16 = 64;

/// What the driver finds at the registers.
struct Registers {
    balloon: Arc<dyn Balloon>,
    lends: bool,
    statistics: Shared<Statistics>,
    configuration: Configuration,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let lends = options.has(LEND.name);
    let balloon = setup.balloon(lends)?;
    let statistics = Shared::<Statistics>::default();
    let exchange = Exchange::new(Arc::clone(&balloon), statistics.clone(), QUEUE_SIZE);
    let registers = Registers { balloon, lends, statistics, configuration: Configuration::default() };
    let queues = registers.queues();
    virtio::device(
        Parts { model: Box::new(registers), services: vec![(0..queues, Box::new(exchange))] },
        options,
        setup,
    )
}

impl Registers {
    /// Without reports there are no queues for them.
    const fn queues(&self) -> u16 {
        if self.lends { QUEUES } else { layout::REPORTING }
    }

    /// Looks how many pages the host wants in the balloon. Says whether that is another number than before.
    fn update(&mut self) -> bool {
        let holding = self.balloon.holding();
        let wanted = u32::try_from(holding.size.saturating_sub(holding.wanted)).unwrap_or(u32::MAX);
        let changed = self.configuration.num_pages.get() != wanted;
        self.configuration.num_pages = wanted.into();
        changed
    }
}

impl Model for Registers {
    fn description(&self) -> Description {
        let mut features = feature::MUST_TELL_HOST | feature::STATS_VQ;
        features.set(feature::PAGE_REPORTING, self.lends);
        Description {
            device_id: layout::ID,
            class: layout::CLASS,
            features,
            queues: vec![QUEUE_SIZE; self.queues().into()],
            configuration_size: u16::try_from(size_of::<Configuration>()).unwrap_or(0),
        }
    }

    fn read_configuration(&mut self, offset: u16, into: &mut [u8], _: &mut Context<'_>) {
        let from = self.configuration.as_bytes().get(usize::from(offset)..).unwrap_or_default();
        into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
    }

    /// Only `actual` is the driver's to write (5.5.4). It is shown, and not relied on.
    fn write_configuration(&mut self, offset: u16, from: &[u8], _: &mut Context<'_>) {
        let mut written = self.configuration;
        let into = written.as_mut_bytes().get_mut(usize::from(offset)..).unwrap_or_default();
        into.iter_mut().zip(from).for_each(|(into, from)| *into = *from);
        self.configuration.actual = written.actual;
    }

    fn report(&mut self, into: &mut dyn fmt::Write, context: &mut Context<'_>) -> fmt::Result {
        const KIBIBYTES: u64 = 4;
        let (holding, in_balloon) = (self.balloon.holding(), u64::from(self.configuration.actual.get()));
        let [size, wanted, present, in_balloon] =
            [holding.size, holding.wanted, holding.present, in_balloon].map(|pages| pages.saturating_mul(KIBIBYTES));
        write!(into, "; has {present} of {size} KiB, {wanted} wanted, {in_balloon} in the balloon")?;
        let Statistics { free, available, .. } = self.statistics.with(context, |statistics, _| *statistics);
        for (bytes, what) in [(free, "free"), (available, "available")] {
            if let Some(bytes) = bytes {
                write!(into, ", {} {what}", bytes >> 10)?;
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event, context: &mut Context<'_>) -> bool {
        match event {
            Event::Reset => {
                self.configuration.actual = 0.into();
                self.statistics.with(context, |statistics, _| *statistics = Statistics::default());
                self.update()
            }
            // Whatever the host wants is said in one of these, not when the driver happens to look: then it would hear of nothing.
            Event::Negotiated(_) | Event::Started | Event::Woken(Wake::Backend) => self.update(),
            Event::Woken(_) => false,
        }
    }
}
