//! The state machine of a virtio device, whichever transport carries it.
//!
//! Answers for: the status field (2.1), negotiation (2.2, 3.1), where queues are and when they run, resets of the device and of single
//! queues (2.4, 2.6.1), the configuration space and its generation (2.5). Does not answer for: registers (a transport's),
//! interrupts (a transport's [`Signals`]), requests ([`crate::Service`]).
//!
//! What a transport does: it makes a [`Core`] of a device's [`Parts`] and hands on what the driver does at its registers. It keeps
//! nothing of the queues itself but what its registers have beside a [`Layout`]. When [`Core::set_status`] says that the device has been
//! reset, its own registers go back too: interrupts last, as workers may have raised some until then.

use crate::model::{Description, Event, Model, Parts};
use crate::serving::{Lane, Post, Signals, State};
use crate::{Features, Layout, Queue, RingError};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::fmt;
use core::ops::Range;
use types::AccessSize;
use vdev::{Bell, Context, OptionError, Setup, Shared, Wake};

bitflags::bitflags! {
    /// The device status field (2.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u8 {
        /// The guest has found the device.
        const ACKNOWLEDGE = 1;
        /// The guest has a driver for it.
        const DRIVER = 2;
        /// The driver is ready.
        const DRIVER_OK = 4;
        /// Features have been negotiated.
        const FEATURES_OK = 8;
        /// The driver has made a mistake that the device cannot go on after.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }
}

/// Which interface a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The standard's.
    Modern,
    /// The one before it ("legacy", virtio 0.9.5): 32 features, none of which has to be agreed upon, and split queues in one piece. It
    /// takes the guest's byte order, which is little-endian here.
    Legacy,
}

/// What the driver has said of a queue.
#[derive(Clone, Copy, Debug)]
struct Settings {
    /// Most entries.
    limit: u16,
    layout: Layout,
    ready: bool,
}

/// A virtio device as a transport sees it.
pub struct Core {
    model: Box<dyn Model>,
    description: Description,
    interface: Interface,
    offered: Features,
    /// What the driver has written, and whether it wanted something besides that there is no bit for.
    accepted: Features,
    beyond: bool,
    /// But for `DEVICE_NEEDS_RESET`, which workers set.
    status: Status,
    settings: Vec<Settings>,
    lanes: Vec<Shared<Lane>>,
    state: Arc<State>,
    /// Who serves which queues.
    bells: Vec<(Range<u16>, Bell)>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("description", &self.description)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// A device that no driver has found yet.
    ///
    /// # Errors
    /// If the host has no thread for its services.
    pub fn new(
        parts: Parts,
        interface: Interface,
        signals: Arc<dyn Signals>,
        setup: &mut Setup<'_>,
    ) -> Result<Self, OptionError> {
        let Parts { model, services } = parts;
        let description = model.description();
        let mut offered = description.features | Features::INDIRECT_DESC | Features::EVENT_IDX;
        match interface {
            Interface::Modern => offered |= Features::VERSION_1 | Features::RING_PACKED | Features::RING_RESET,
            Interface::Legacy => {
                offered |= Features::ANY_LAYOUT;
                offered &= Features::from_bits_retain(u32::MAX.into());
            }
        }
        let lanes: Vec<Shared<Lane>> = description.queues.iter().map(|_| Shared::default()).collect();
        let state = Arc::new(State::new(signals, lanes.len()));
        let mut bells = Vec::with_capacity(services.len());
        for (queues, service) in services {
            let post = Post::new(service, queues.clone(), &lanes, &state);
            bells.push((queues, setup.worker(Box::new(post))?));
        }
        let settings = description.queues.iter().map(|limit| Settings::new(*limit)).collect();
        let (accepted, status) = (Features::empty(), Status::empty());
        Ok(Self {
            model,
            description,
            interface,
            offered,
            accepted,
            beyond: false,
            status,
            settings,
            lanes,
            state,
            bells,
        })
    }

    /// What the device has said of itself.
    #[must_use]
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// 32 of the features that the device offers: those from bit 32 × `word` on.
    #[must_use]
    pub fn offered(&self, word: u32) -> u32 {
        self.offered.bits().checked_shr(word.saturating_mul(32)).map_or(0, low_word)
    }

    /// 32 of the features that the driver has accepted.
    #[must_use]
    pub fn accepted(&self, word: u32) -> u32 {
        self.accepted.bits().checked_shr(word.saturating_mul(32)).map_or(0, low_word)
    }

    /// The driver accepts these 32 features. After negotiation it is too late (2.2).
    pub fn accept(&mut self, word: u32, value: u32) {
        if self.is_negotiated() {
            return;
        }
        match word.saturating_mul(32) {
            shift @ (0 | 32) => {
                let others = self.accepted.bits() & !(u64::from(u32::MAX) << shift);
                self.accepted = Features::from_bits_retain(others | u64::from(value) << shift);
            }
            _ => self.beyond |= value != 0,
        }
    }

    fn is_negotiated(&self) -> bool {
        self.status.intersects(Status::FEATURES_OK.union(Status::DRIVER_OK))
    }

    /// Whether a feature has been negotiated.
    #[must_use]
    pub fn has(&self, feature: Features) -> bool {
        self.is_negotiated() && self.accepted.contains(feature)
    }

    /// The device status field.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.status;
        status.set(Status::DEVICE_NEEDS_RESET, self.state.needs_reset());
        status
    }

    /// The driver writes the status field. Says whether that was a reset, which is complete then.
    pub fn set_status(&mut self, value: u8, context: &mut Context<'_>) -> bool {
        if value == 0 {
            self.reset(context);
            return true;
        }
        // The driver must not clear a bit (2.1.1), and one is for the device to set.
        let mut new = Status::from_bits_truncate(value).difference(self.status.union(Status::DEVICE_NEEDS_RESET));
        let modern = self.interface == Interface::Modern;
        if new.contains(Status::FEATURES_OK) {
            // The driver reads whether it is set (3.1.1).
            new.set(Status::FEATURES_OK, modern && !self.status.contains(Status::DRIVER_OK) && self.are_acceptable());
        }
        let starts = new.contains(Status::DRIVER_OK);
        if starts && modern && !(self.status | new).contains(Status::FEATURES_OK) {
            new.remove(Status::DRIVER_OK);
        }
        if !modern && starts {
            // Nothing refuses what a legacy driver accepts; what was not offered it does not have.
            self.accepted &= self.offered;
        }
        self.status |= new;
        if new.contains(if modern { Status::FEATURES_OK } else { Status::DRIVER_OK }) {
            self.tell(Event::Negotiated(self.accepted), context);
        }
        if new.contains(Status::DRIVER_OK) {
            self.start(context);
        }
        false
    }

    /// Whether the driver has accepted nothing but what was offered (2.2.1), and the standard itself (6.1).
    fn are_acceptable(&self) -> bool {
        self.offered.contains(self.accepted) && self.accepted.contains(Features::VERSION_1) && !self.beyond
    }

    /// The driver is ready: requests are done from now on.
    fn start(&mut self, context: &mut Context<'_>) {
        self.state.start(self.accepted);
        for number in self.numbers() {
            self.open(number, context);
        }
        self.tell(Event::Started, context);
        // Drivers may have notified too early.
        self.notify_all(context);
    }

    /// Everything as in the beginning (2.4). When this returns nothing is done any more for the driver that there was. Services that wait
    /// to be rung look, and find that it has gone.
    pub fn reset(&mut self, context: &mut Context<'_>) {
        let was_running = self.state.is_running();
        self.state.stop();
        for number in self.numbers() {
            self.close(number, context);
            if let Some(settings) = self.settings.get_mut(usize::from(number)) {
                *settings = Settings::new(settings.limit);
            }
        }
        self.state.forget();
        (self.status, self.accepted, self.beyond) = (Status::empty(), Features::empty(), false);
        self.tell(Event::Reset, context);
        if was_running {
            self.ring_all(context);
        }
    }

    /// The transport keeps the device from the guest's memory, until [`Core::release`]: it looks at no queue and takes no request. One that
    /// is under way is finished.
    pub fn hold(&self) {
        self.state.hold(true);
    }

    /// The transport keeps the device from the guest's memory no more. Services go on where they were, and look at all that has come
    /// meanwhile, notified of or not.
    pub fn release(&self, context: &mut Context<'_>) {
        if self.state.hold(false) {
            self.notify_all(context);
        }
    }

    /// Hands an event on.
    fn tell(&mut self, event: Event, context: &mut Context<'_>) {
        if self.model.event(event, context) {
            self.state.change(context);
        }
    }

    /// The device has been woken. If its back end did so, its services look too.
    pub fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.tell(Event::Woken(wake), context);
        if wake == Wake::Backend {
            self.notify_all(context);
        }
    }

    /// The power button is pressed. Says whether the guest is asked to shut down: without a driver nobody is.
    pub fn press_button(&mut self, context: &mut Context<'_>) -> bool {
        let has_driver = self.state.is_running() && !self.state.needs_reset();
        let is_asked = has_driver && self.model.press_button(context);
        if is_asked {
            self.notify_all(context);
        }
        is_asked
    }

    /// All services look at what they have been rung for.
    fn ring_all(&self, context: &mut Context<'_>) {
        self.bells.iter().for_each(|(_, bell)| context.ring(bell));
    }

    /// The device's line of the status report, from its state on to the end.
    ///
    /// # Errors
    /// If the report is full.
    pub fn report(&mut self, into: &mut dyn fmt::Write, context: &mut Context<'_>) -> fmt::Result {
        write!(into, "{self}")?;
        self.model.report(into, context)?;
        writeln!(into)
    }

    fn numbers(&self) -> Range<u16> {
        0..u16::try_from(self.settings.len()).unwrap_or(u16::MAX)
    }

    fn setting(&self, queue: u16) -> Option<&Settings> {
        self.settings.get(usize::from(queue))
    }

    /// Most entries of a queue; 0 if there is no such queue.
    #[must_use]
    pub fn queue_limit(&self, queue: u16) -> u16 {
        self.setting(queue).map_or(0, |settings| settings.limit)
    }

    /// Where a queue is, as far as the driver has said.
    #[must_use]
    pub fn layout(&self, queue: u16) -> Layout {
        self.setting(queue).map_or_else(Layout::default, |settings| settings.layout)
    }

    /// Where a queue is to be, for the driver to say; `None` if there is no such queue, or it is enabled.
    pub fn layout_mut(&mut self, queue: u16) -> Option<&mut Layout> {
        let settings = self.settings.get_mut(usize::from(queue)).filter(|settings| !settings.ready)?;
        Some(&mut settings.layout)
    }

    /// Whether a queue is enabled.
    #[must_use]
    pub fn is_ready(&self, queue: u16) -> bool {
        self.setting(queue).is_some_and(|settings| settings.ready)
    }

    /// The driver enables a queue, whose place and size it does not change from now on. It runs when the driver is ready.
    pub fn enable(&mut self, queue: u16, context: &mut Context<'_>) {
        let Some(settings) = self.settings.get_mut(usize::from(queue)).filter(|settings| !settings.ready) else {
            return;
        };
        settings.ready = true;
        if self.state.is_running() {
            self.open(queue, context);
            self.notify(queue.into(), context);
        }
    }

    /// The driver does not use a queue any more; when this returns nothing is done for it.
    pub fn disable(&mut self, queue: u16, context: &mut Context<'_>) {
        self.close(queue, context);
        if let Some(settings) = self.settings.get_mut(usize::from(queue)) {
            settings.ready = false;
        }
    }

    /// The driver resets a queue (2.6.1): as [`Core::disable`], and what it has said of it is forgotten. Nothing if that has not been
    /// negotiated.
    pub fn reset_queue(&mut self, queue: u16, context: &mut Context<'_>) {
        if self.has(Features::RING_RESET) {
            self.disable(queue, context);
            if let Some(settings) = self.settings.get_mut(usize::from(queue)) {
                *settings = Settings::new(settings.limit);
            }
        }
    }

    /// What the driver says of a queue is known to be wrong by the transport already.
    pub fn refuse(&mut self, queue: u16, error: RingError, context: &mut Context<'_>) {
        self.state.fail(queue, error, context);
    }

    /// Has a queue run, if it is enabled.
    fn open(&mut self, number: u16, context: &mut Context<'_>) {
        let Some((settings, lane)) = self.setting(number).zip(self.lanes.get(usize::from(number))) else { return };
        let layout = settings.layout;
        if !settings.ready {
            return;
        }
        let queue = if layout.size > settings.limit {
            Err(RingError::Size(layout.size))
        } else {
            Queue::new(self.accepted, &layout)
        };
        match queue {
            Ok(queue) => lane.with(context, |lane, _| lane.open(queue, &self.state)),
            Err(error) => self.state.fail(number, error, context),
        }
    }

    fn close(&mut self, number: u16, context: &mut Context<'_>) {
        if let Some(lane) = self.lanes.get(usize::from(number)) {
            lane.with(context, |lane, _| lane.close());
        }
    }

    /// The driver notifies the device of a queue; one that does not exist is ignored.
    pub fn notify(&self, queue: u32, context: &mut Context<'_>) {
        let Ok(queue) = u16::try_from(queue) else { return };
        if self.state.is_running() && self.state.note(queue) {
            for (_, bell) in self.bells.iter().filter(|(queues, _)| queues.contains(&queue)) {
                context.ring(bell);
            }
        }
    }

    fn notify_all(&self, context: &mut Context<'_>) {
        self.numbers().for_each(|number| self.notify(number.into(), context));
    }

    /// The configuration space's generation (2.5).
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.state.generation()
    }

    /// Where in the configuration space an access is, and how many of its bytes are within; `None` if there are none.
    fn within(&self, offset: u64, size: AccessSize) -> Option<(u16, usize)> {
        let offset = u16::try_from(offset).ok()?;
        let behind = self.description.configuration_size.checked_sub(offset).filter(|behind| *behind != 0)?;
        Some((offset, usize::try_from(size.bytes().min(behind.into())).unwrap_or(0)))
    }

    /// The driver reads the configuration space; outside there is nothing but zeroes. 4.1.4
    /// lets the space be padded, so that a word may be partly outside.
    pub fn read_configuration(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> u64 {
        let mut bytes = [0; 8];
        if let Some((offset, length)) = self.within(offset, size)
            && let Some(into) = bytes.get_mut(..length)
        {
            self.model.read_configuration(offset, into, context);
        }
        u64::from_le_bytes(bytes)
    }

    /// All of the configuration space, as far as there is room for it.
    pub fn copy_configuration(&mut self, into: &mut [u8], context: &mut Context<'_>) {
        let size = into.len().min(self.description.configuration_size.into());
        if let Some(into) = into.get_mut(..size) {
            self.model.read_configuration(0, into, context);
        }
    }

    /// The driver writes to it; outside nothing happens.
    pub fn write_configuration(&mut self, offset: u64, size: AccessSize, value: u64, context: &mut Context<'_>) {
        if let Some((offset, length)) = self.within(offset, size)
            && let Some(from) = value.to_le_bytes().get(..length)
        {
            self.model.write_configuration(offset, from, context);
        }
    }
}

impl Settings {
    /// A queue of which nothing has been said is as long as it can be.
    fn new(limit: u16) -> Self {
        Self { limit, layout: Layout { size: limit, ..Layout::default() }, ready: false }
    }
}

/// One line: what the driver has said, and which queues it has.
impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status().is_empty() {
            f.write_str("no driver")?;
        }
        for (place, (name, _)) in self.status().iter_names().enumerate() {
            write!(f, "{}{name}", if place > 0 { " " } else { "" })?;
        }
        write!(f, "; features {:#x}", self.accepted.bits())?;
        for (number, settings) in self.settings.iter().enumerate().filter(|(_, settings)| settings.ready) {
            write!(f, "; queue {number} of {}", settings.layout.size)?;
        }
        Ok(())
    }
}

/// Bits 31 to 0.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
const fn low_word(value: u64) -> u32 {
    value as u32
}
