//! A device that gives back what it gets, for tests of transports.
//!
//! Answers for: the device, wherever it is. Does not answer for: its driver (`testing`). Only tests use it.

use crate::model::{Description, Event, Model, Next, Parts, Service};
use crate::serving::{Request, Serving};
use crate::{ACCESS_SIZES, FLAGS, Features, LEGACY, REGION_SIZE, Stopped, device};
use alloc::{boxed::Box, vec};
use vdev::{Context, Factory, Shared, Wake};

/// Where tests have their memory, and the part of it that no queue is in.
pub(crate) const RAM: u64 = 0x8000_0000;
pub(crate) const DATA: u64 = RAM + 0x8000;

/// Configuration space: requests done when its service last said so, and bytes that the driver may write, which are no whole words.
struct LoopBack {
    requests: Shared<u32>,
    shown: u32,
    written: [u8; 5],
}

impl Model for LoopBack {
    fn description(&self) -> Description {
        Description {
            device_id: 42,
            class: 0xff_0000,
            features: Features::from_bits_retain(1 | 1 << 50),
            queues: vec![16, 8],
            configuration_size: 9,
        }
    }

    fn read_configuration(&mut self, offset: u16, into: &mut [u8], _: &mut Context<'_>) {
        let all = [&self.shown.to_le_bytes()[..], &self.written].concat();
        into.copy_from_slice(&all[usize::from(offset)..][..into.len()]);
    }

    fn write_configuration(&mut self, offset: u16, from: &[u8], _: &mut Context<'_>) {
        if let Some(offset) = usize::from(offset).checked_sub(4) {
            self.written[offset..][..from.len()].copy_from_slice(from);
        }
    }

    fn event(&mut self, event: Event, context: &mut Context<'_>) -> bool {
        context.log(log::Level::Info, format_args!("{event:?}"));
        let is_said = matches!(event, Event::Woken(Wake::VmLives | Wake::Pulse(_)));
        if is_said {
            self.shown = self.requests.with(context, |requests, _| *requests);
        }
        is_said
    }
}

/// Gives back what it reads: at once in queue 0, a tick later in queue 1.
struct Echo {
    requests: Shared<u32>,
    request: Request,
    held: bool,
    /// What it has been told of the driver's features.
    features: Features,
}

impl Echo {
    fn boxed(requests: &Shared<u32>) -> Box<dyn Service> {
        let features = Features::empty();
        Box::new(Self { requests: requests.clone(), request: Request::new(16), held: false, features })
    }

    fn answer(&mut self, work: &mut Serving<'_, '_>) -> Result<(), Stopped> {
        let mut bytes = [0; 100];
        loop {
            let count = work.read(&mut self.request, &mut bytes)?;
            if work.write(&mut self.request, &bytes[..count])? == 0 {
                break;
            }
        }
        work.complete(&self.request)?;
        let requests = work.with(&self.requests, |requests, _| {
            *requests += 1;
            *requests
        });
        if requests.is_multiple_of(5) {
            work.pulse(0);
        }
        Ok(())
    }
}

impl Service for Echo {
    fn begin(&mut self, features: Features) {
        assert!(features.contains(Features::VERSION_1) || features == Features::EVENT_IDX, "{features:?}");
        (self.held, self.features) = (false, features);
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        assert!(!self.features.is_empty(), "a life has begun");
        if !self.held && !work.pop(&mut self.request) {
            return Next::Idle;
        }
        if work.queue() == 1 && !self.held {
            self.held = true;
            return Next::Until(work.now().saturating_add(types::Ticks(1)));
        }
        self.held = false;
        // What is void is forgotten.
        let _ = self.answer(work);
        Next::Again
    }
}

pub(crate) static LOOPBACK: Factory = Factory {
    name: "virtio-loopback",
    access_sizes: ACCESS_SIZES,
    flags: FLAGS,
    options: &[LEGACY],
    region_size: REGION_SIZE,
    ..Factory::new(|options, setup| {
        let requests = Shared::default();
        let services = vec![(0..1, Echo::boxed(&requests)), (1..2, Echo::boxed(&requests))];
        device(Parts { model: Box::new(LoopBack { requests, shown: 0, written: [0; 5] }), services }, options, setup)
    })
};
