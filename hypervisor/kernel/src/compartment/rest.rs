//! Bringing a VM's passed devices to rest, before anything that it has is somebody else's.
//!
//! Answers for: carrying out the steps that the configuration gives (`vdev quiesce`), in whatever way the VM has ended, keeping what has
//! become of each device, and that nobody gets one that is not at rest. Does not answer for: what the steps are (`vdev::Rest`), devices
//! without any, and interrupts and streams, which are ended afterwards (`passed`, `smmuman`).
//!
//! Nothing here is the VM's code, nor waits for any of it. Only the accesses themselves are made in a thread of the VM's, a new one for each
//! region, since a device may answer with an abort, which is the VM's and not the hypervisor's. See docs/design/043-quiesce.md.

use super::{Compartment, deadline};
use crate::passed::Window;
use crate::sync::{Lock, Rank};
use crate::{startup, thread};
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use types::Ticks;
use vdev::{DeviceId, RestProgress, RestStep, Resting, Way, rest_time};
use vm::assemble::{PassedRest, Reach};
use vm::lifecycle::EndRecord;

/// What has become of a VM's passed devices.
pub(crate) struct Devices {
    /// They are this life's.
    claimed: AtomicBool,
    /// Its vdevs may have used them.
    reached: AtomicBool,
    /// A bit for each of what brings them to rest: it has.
    at_rest: AtomicU64,
    /// How the last steps ended.
    outcome: Lock<Option<RestProgress>>,
}

impl Devices {
    pub(super) const fn new() -> Self {
        Self {
            claimed: AtomicBool::new(false),
            reached: AtomicBool::new(false),
            at_rest: AtomicU64::new(0),
            outcome: Lock::new(Rank::Compartment, None),
        }
    }

    /// From now on they are this life's, and are brought to rest at its end.
    pub(crate) fn claimed(&self) {
        self.claimed.store(true, Ordering::SeqCst);
    }

    /// From now on its vdevs may use them.
    pub(crate) fn reached(&self) {
        self.reached.store(true, Ordering::SeqCst);
    }

    fn note(&self, number: usize) {
        self.at_rest.fetch_or(1 << number, Ordering::SeqCst);
    }
}

impl Compartment {
    /// What brings its devices to rest, with its number.
    fn rests(&self) -> impl Iterator<Item = (usize, &PassedRest)> {
        let rests = if self.devices.claimed.load(Ordering::SeqCst) { self.description().rests.as_slice() } else { &[] };
        rests.iter().enumerate()
    }

    /// A vdev has gone quiet, and with it the devices that it brings to rest by itself.
    pub(super) fn note_quiet(&self, vdev: DeviceId) {
        for (number, rest) in self.rests() {
            if rest.vdev == vdev && rest.way == Way::ByItself {
                self.devices.note(number);
            }
        }
    }

    /// Brings its passed devices to rest, one after the other. Its vCPUs have stopped, and its vdevs have been told. Says whether every
    /// thread that was needed for it is gone.
    pub(super) fn bring_to_rest(&self) -> bool {
        let mut all_gone = true;
        for (number, rest) in self.rests() {
            if let Way::Steps(steps) = &rest.way {
                all_gone &= self.take_steps(number, rest, steps);
            }
        }
        all_gone
    }

    /// Has the steps of one region carried out, and says what has become of them.
    fn take_steps(&self, number: usize, rest: &PassedRest, steps: &[RestStep]) -> bool {
        *self.devices.outcome.lock() = None;
        let (name, origin, host) = (self.vdev_name(rest), self.qvm.origin(), rest.region.host);
        // SAFETY: it is joined below, or the compartment is kept for good.
        let spawned = unsafe {
            thread::spawn_contained(
                self.qvm.name.clone(),
                startup::host_parameters(startup::PRIORITY),
                self,
                run,
                number,
            )
        };
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                log::error!(target: &origin, "vdev `{name}`: {host} is not at rest: no thread: {error:?}");
                return true;
            }
        };
        let time = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(rest_time(steps)));
        let mut gone = thread::join_until(&thread, deadline().saturating_add(time));
        if !gone {
            thread::give_up(&thread);
            gone = thread::join_until(&thread, deadline());
        }
        match *self.devices.outcome.lock() {
            Some(RestProgress::Done) => self.devices.note(number),
            Some(RestProgress::Failed(step, failure)) => {
                log::error!(target: &origin, "vdev `{name}`: {host} is not at rest: `{}`: {failure}", step.action);
            }
            _ => log::error!(target: &origin, "vdev `{name}`: {host} is not at rest: the steps did not come to an end"),
        }
        gone
    }

    fn vdev_name(&self, rest: &PassedRest) -> &str {
        self.description().vdevs.get(usize::from(rest.vdev.0)).map_or("", |vdev| &vdev.name)
    }

    /// What should have brought a device to rest and has not. One that is only ever touched by vdevs and was not is at rest.
    fn restless(&self) -> impl Iterator<Item = &PassedRest> {
        let at_rest = self.devices.at_rest.load(Ordering::SeqCst);
        let reached = self.devices.reached.load(Ordering::SeqCst);
        let left = move |(number, rest): &(usize, &PassedRest)| {
            at_rest >> number & 1 == 0 && (reached || rest.way != Way::ByItself)
        };
        self.rests().filter(left).map(|(_, rest)| rest)
    }

    /// Its devices that are not at rest although somebody should have seen to it, by their numbers.
    pub(crate) fn restless_devices(&self) -> impl Iterator<Item = usize> {
        self.restless().map(|rest| rest.device)
    }

    /// # Errors
    /// If one of those that nothing confines should have been brought to rest, and was not: it may go on writing anywhere.
    pub(super) fn uncontained_at_rest(&self) -> Result<(), String> {
        let devices = &self.description().passed;
        let is_uncontained =
            |rest: &&PassedRest| devices.get(rest.device).is_some_and(|device| device.reach == Reach::Everything);
        match self.restless().find(is_uncontained) {
            Some(rest) => Err(format!("the device at {}, which nothing confines, is not at rest", rest.region.host)),
            None => Ok(()),
        }
    }

    /// The record of its end, with what is not at rest.
    pub(super) fn note_restless(&self, record: EndRecord) -> EndRecord {
        let Some(rest) = self.restless().next() else { return record };
        let separator = if record.note.is_empty() { "" } else { "; " };
        let (name, host) = (self.vdev_name(rest), rest.region.host);
        record.with(format_args!("{separator}vdev `{name}` did not bring {host} to rest: nobody gets it"))
    }
}

/// The life of the thread that carries out the steps of region `number`. Allocates nothing: the VM may have run out of memory.
fn run(compartment: &'static Compartment, number: usize) {
    let Some(rest) = compartment.description().rests.get(number) else { return };
    let (Way::Steps(steps), Some(frequency)) = (&rest.way, el2::cpu::counter_frequency()) else { return };
    let window = Window::new(rest.region);
    window.open();
    let mut resting = Resting::new(steps, frequency);
    let end = loop {
        match resting.advance(&window, &mut el2::cpu::counter) {
            RestProgress::Until(when) => thread::sleep_until(when),
            end => break end,
        }
    };
    *compartment.devices.outcome.lock() = Some(end);
}
