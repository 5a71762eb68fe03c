//! How an access finds its device.
//!
//! Answers for: the devices of one VM, sorted once when the VM is assembled; finding one by address, in O(1) where they stand
//! close together, else O(log n); checking that the access is one its factory takes; one lock for each device. Does not
//! answer for: what happens to an access that nobody takes (`vm`), nor for the interrupt controller's own registers, which the
//! exit code hands to `vgic` directly.

mod error;
mod pages;
mod slot;

pub use error::BusError;
pub use slot::Target;

use crate::{
    AccessFault, Alarm, Clock, Context, Control, ControlError, Deadlines, Decoder, DeviceId, Effects, Factory,
    Identity, Line, Node, Services, TIMERS, Vdev, Wake,
};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::fmt;
use slot::Slot;
use types::{AccessSize, IntId, Ipa, PAGE_SIZE, Range, Ticks};

/// A device on its way to the bus.
pub struct Device {
    /// What it is called.
    pub name: String,
    /// Where it came from.
    pub factory: &'static Factory,
    /// Where its registers begin, if it has any.
    pub location: Option<Ipa>,
    /// The interrupt it raises, if it has one.
    pub interrupt: Option<IntId>,
    /// Its window, if it has one ([`crate::Factory::window_size`]).
    pub window: Option<Range<Ipa>>,
    /// It is woken by a thread of its own, not by the VM's.
    pub served: bool,
    /// It wants to hear of the ends of its interrupt.
    pub hears_ends: bool,
    /// The device.
    pub vdev: Box<dyn Vdev>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).field("location", &self.location).finish_non_exhaustive()
    }
}

impl Device {
    /// The addresses of its registers; empty if it has none, `None` if they run over the end of the address space.
    fn region(&self) -> Option<Range<Ipa>> {
        match self.location {
            Some(start) => Range::new(start, self.factory.region_size),
            None => Range::new(Ipa(0), 0),
        }
    }
}

/// The devices of one VM.
pub struct Bus {
    /// Which of `slots` is on each page from `first_page` on, `u16::MAX` for none; empty if there is no such table. Devices
    /// usually stand close together, and then a search would be a third of what an access costs.
    pages: Box<[u16]>,
    first_page: u64,
    /// First address of each region, ascending; the first so many of `slots`, in the same order.
    starts: Box<[u64]>,
    /// Devices with registers by address, then those without.
    slots: Box<[Slot]>,
    /// Where in `slots` each device is, by [`DeviceId`].
    places: Box<[u16]>,
    /// Windows, and where in `slots` their devices are. There are few, and they are searched last.
    windows: Box<[(Range<Ipa>, u16)]>,
    /// Who knows of devices that have no fixed place; asked behind all of them.
    decoder: Option<Arc<dyn Decoder>>,
    /// Devices that want to hear of the ends of their interrupts.
    listeners: Box<[(DeviceId, IntId)]>,
    clock: Arc<Clock>,
    /// Of the VM's own thread.
    alarm: Arc<Alarm>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| (&slot.name, Ipa(slot.start)))).finish()
    }
}

impl Bus {
    /// Puts the devices of the VM `vm`, whose time is `clock`, on a bus; a device's place in `devices` is its [`DeviceId`].
    ///
    /// # Errors
    /// If two want the same address, or one has an address that cannot be.
    pub fn new(vm: &str, clock: Arc<Clock>, devices: Vec<Device>) -> Result<Self, BusError> {
        let mut sorted = Vec::with_capacity(devices.len());
        for (index, device) in devices.into_iter().enumerate() {
            let id = u16::try_from(index).map_err(|_| BusError::TooMany)?;
            let at = device.location.unwrap_or_default();
            match device.region() {
                Some(region) if at.is_aligned(8) => sorted.push((region, id, device)),
                _ => return Err(BusError::Location { name: device.name, at }),
            }
        }
        // Devices without registers come last; no two others share a start, or the next check finds them.
        types::sort_by(&mut sorted, |(a, first, _), (b, second, _)| {
            (a.is_empty(), a.start(), first).cmp(&(b.is_empty(), b.start(), second))
        });
        for pair in sorted.windows(2) {
            if let [(lower, first, a), (upper, second, b)] = pair
                && lower.overlaps(upper)
            {
                let (a, b) = (a.name.clone(), b.name.clone());
                let (first, second) = if first < second { (a, b) } else { (b, a) };
                return Err(BusError::Overlap { first, second, at: upper.start() });
            }
        }
        let regions = || sorted.iter().map(|(region, ..)| *region).take_while(|region| !region.is_empty());
        let starts = regions().map(|region| region.start().0).collect();
        let (first_page, pages) = pages::table(regions()).unwrap_or_default();
        let mut places: Vec<(u16, u16)> = sorted.iter().zip(0_u16..).map(|((_, id, _), place)| (*id, place)).collect();
        types::sort_by(&mut places, Ord::cmp);
        let windows = sorted.iter().zip(0_u16..).filter_map(|((_, _, device), place)| Some((device.window?, place)));
        let windows = windows.collect();
        let listens = |device: &Device| device.interrupt.filter(|_| device.hears_ends);
        let listeners = sorted.iter().filter_map(|(_, id, device)| Some((DeviceId(*id), listens(device)?))).collect();
        let mut lines = lines(&sorted.iter().map(|(_, _, device)| device))?;
        let alarm = Arc::<Alarm>::default();
        let slots = sorted.into_iter().map(|(region, _, device)| {
            let line = lines.iter().position(|line| Some(line.intid()) == device.interrupt);
            let line = line.map(|place| lines.swap_remove(place));
            let origin = format!("vm:{vm}/{}", device.name);
            let own = if device.served { Arc::default() } else { alarm.clone() };
            Slot::new(region, device, Identity { line, origin, deadlines: Deadlines::new(clock.clone(), own) })
        });
        Ok(Self {
            slots: slots.collect(),
            clock,
            alarm: alarm.clone(),
            pages: pages.into_boxed_slice(),
            first_page,
            starts,
            places: places.into_iter().map(|(_, place)| place).collect(),
            windows,
            decoder: None,
            listeners,
        })
    }

    /// The same, with devices that are found by `decoder`.
    #[must_use]
    pub fn with_decoder(self, decoder: Arc<dyn Decoder>) -> Self {
        Self { decoder: Some(decoder), ..self }
    }

    /// A guest's load of `size` bytes at `at`. Bits above the access size are undefined.
    ///
    /// # Errors
    /// If no device takes it.
    #[inline]
    pub fn read(
        &self,
        at: Ipa,
        size: AccessSize,
        services: &Services<'_>,
        effects: &mut Effects,
    ) -> Result<u64, AccessFault> {
        self.access(at, size, None, services, effects)
    }

    /// A guest's store of the low `size` bytes of `value` at `at`; bits above are ignored.
    ///
    /// # Errors
    /// If no device takes it.
    #[inline]
    pub fn write(
        &self,
        at: Ipa,
        size: AccessSize,
        value: u64,
        services: &Services<'_>,
        effects: &mut Effects,
    ) -> Result<(), AccessFault> {
        self.access(at, size, Some(value), services, effects).map(|_| ())
    }

    /// A store of `store`, or a load, as [`Bus::write`] and [`Bus::read`]. Out of line; who has no time calls
    /// [`Bus::find`].
    ///
    /// # Errors
    /// If no device takes it.
    #[inline(never)]
    pub fn access(
        &self,
        at: Ipa,
        size: AccessSize,
        store: Option<u64>,
        services: &Services<'_>,
        effects: &mut Effects,
    ) -> Result<u64, AccessFault> {
        let target = match self.find(at, size) {
            Err(AccessFault::Nothing) => self.find_in_windows(at, size)?,
            target => target?,
        };
        match store {
            Some(value) => target.write(value, services, effects).map(|()| 0),
            None => target.read(services, effects),
        }
    }

    /// The device whose call has not returned, if there is one: it had it when its thread died or was given up. For a VM
    /// whose threads are all gone.
    #[must_use]
    pub fn busy(&self) -> Option<DeviceId> {
        self.devices().find(|id| self.slot(*id).is_some_and(|slot| slot.vdev.try_lock().is_none()))
    }

    /// Wakes a device. One that does not exist is not woken.
    pub fn wake(&self, id: DeviceId, wake: Wake, services: &Services<'_>, effects: &mut Effects) {
        if let Some(slot) = self.slot(id) {
            slot.vdev.lock().wake(wake, &mut slot.context(services, effects));
        }
    }

    /// Does something with what a device may reach, for its worker: without the device, whose lock is not taken. For one that does
    /// not exist nothing is done.
    pub fn enter(
        &self,
        id: DeviceId,
        services: &Services<'_>,
        effects: &mut Effects,
        work: &mut dyn FnMut(&mut Context<'_>),
    ) {
        if let Some(slot) = self.slot(id) {
            work(&mut slot.context(services, effects));
        }
    }

    /// Wakes a device for those of its timers that are due. One that it arms again for a time that has come has its turn
    /// with the next call. Without a timer that is due this does nothing.
    pub fn expire(&self, id: DeviceId, services: &Services<'_>, effects: &mut Effects) {
        let Some(slot) = self.slot(id) else { return };
        let deadlines = &slot.identity.deadlines;
        if deadlines.next() > services.now {
            return;
        }
        let mut vdev = slot.vdev.lock();
        for _ in 0..TIMERS {
            let Some(timer) = deadlines.take_due(services.now) else { break };
            vdev.wake(Wake::Timer(timer), &mut slot.context(services, effects));
        }
    }

    /// When the first of a device's timers is due. Takes no lock.
    #[must_use]
    pub fn deadline(&self, id: DeviceId) -> Ticks {
        self.slot(id).map_or(Ticks::NEVER, |slot| slot.identity.deadlines.next())
    }

    /// The VM's time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// When the first timer is due of the device `server`, which has a thread of its own, or, if that is `None`, of those that the
    /// VM's thread wakes; takes no lock. Until that has changed nobody is told of later ones ([`Effects::has_alarm`]): who asks
    /// this goes to sleep until then.
    pub fn next_deadline(&self, server: Option<DeviceId>) -> Ticks {
        let served = |slot: &&Slot| !core::ptr::eq(slot.identity.deadlines.alarm(), &*self.alarm);
        match server.and_then(|id| self.slot(id)) {
            Some(slot) => slot.identity.deadlines.alarm().set(|| slot.identity.deadlines.next()),
            None => self.alarm.set(|| {
                let own = self.slots.iter().filter(|slot| !served(slot));
                own.map(|slot| slot.identity.deadlines.next()).min().unwrap_or(Ticks::NEVER)
            }),
        }
    }

    /// When the thread of the device `server` wakes up by itself, or the VM's.
    #[must_use]
    pub fn alarm(&self, server: Option<DeviceId>) -> Ticks {
        server.and_then(|id| self.slot(id)).map_or(self.alarm.at(), |slot| slot.identity.deadlines.alarm().at())
    }

    /// Tells a device what happens to the VM.
    ///
    /// # Errors
    /// What the device answers.
    pub fn control(
        &self,
        id: DeviceId,
        event: Control<'_>,
        services: &Services<'_>,
        effects: &mut Effects,
    ) -> Result<(), ControlError> {
        match self.slot(id) {
            Some(slot) => slot.vdev.lock().control(event, &mut slot.context(services, effects)),
            None => Err(ControlError(format!("there is no device number {}", id.0))),
        }
    }

    /// Lets a device add its part to the device tree.
    pub fn describe(&self, id: DeviceId, parent: &mut Node) {
        if let Some(slot) = self.slot(id) {
            slot.vdev.lock().describe(parent);
        }
    }

    /// The devices that want to hear of the ends of their interrupts ([`Wake::InterruptEnded`]), and those.
    #[must_use]
    pub fn listeners(&self) -> &[(DeviceId, IntId)] {
        &self.listeners
    }

    /// All devices, in the order of the configuration.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> + use<> {
        (0_u16..).take(self.places.len()).map(DeviceId)
    }

    /// The device that has `at` among its registers or in its window, or has been put there.
    #[must_use]
    pub fn device_at(&self, at: Ipa) -> Option<DeviceId> {
        let byte = AccessSize::Byte;
        let slot = match self.find(at, byte) {
            Ok(Target { slot, .. }) => slot,
            Err(AccessFault::Nothing) => self.find_in_windows(at, byte).ok()?.slot,
            // It takes no bytes, but is there.
            Err(_) => self.slots.iter().find(|slot| at.0.wrapping_sub(slot.start) < slot.length)?,
        };
        self.devices().find(|id| self.slot(*id).is_some_and(|other| core::ptr::eq(other, slot)))
    }

    /// What a device is called.
    #[must_use]
    pub fn name(&self, id: DeviceId) -> Option<&str> {
        self.slot(id).map(|slot| slot.name.as_str())
    }

    /// Where a device came from.
    #[must_use]
    pub fn factory(&self, id: DeviceId) -> Option<&'static Factory> {
        self.slot(id).map(|slot| slot.factory)
    }

    /// Finds the device among whose registers an access of `size` bytes at `at` is.
    ///
    /// # Errors
    /// If there is none; [`AccessFault::Nothing`] if the address is no device's.
    #[inline(always)]
    pub fn find(&self, at: Ipa, size: AccessSize) -> Result<Target<'_>, AccessFault> {
        let page = (at.0 / PAGE_SIZE).wrapping_sub(self.first_page);
        let index = match usize::try_from(page).ok().and_then(|page| self.pages.get(page)) {
            Some(index) => usize::from(*index),
            // The table, if there is one, covers all devices.
            None if !self.pages.is_empty() => return Err(AccessFault::Nothing),
            // The last region that begins at or below `at`; 0 - 1 is beyond every slot.
            None => self.starts.partition_point(|start| *start <= at.0).wrapping_sub(1),
        };
        let slot = self.slots.get(index).ok_or(AccessFault::Nothing)?;
        let offset = at.0.wrapping_sub(slot.start);
        if offset >= slot.limit(size) || !size.is_aligned(at.0) {
            return Err(slot.refusal(offset, size));
        }
        Ok(Target { slot, offset, size })
    }

    /// Finds the device in whose window an access of `size` bytes at `at` is, or that has been put there by the guest, where
    /// [`Bus::find`] finds nothing.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn find_in_windows(&self, at: Ipa, size: AccessSize) -> Result<Target<'_>, AccessFault> {
        let Some((window, place)) = self.windows.iter().find(|(range, _)| range.contains(at)) else {
            return self.decode(at, size);
        };
        let slot = self.slots.get(usize::from(*place)).ok_or(AccessFault::Nothing)?;
        if !size.is_aligned(at.0) {
            return Err(AccessFault::Unaligned);
        }
        if !slot.factory.access_sizes.allows(size) {
            return Err(AccessFault::Size);
        }
        // Aligned, it does not run over the window's end, which is a multiple of every size.
        let offset = at.0.wrapping_sub(window.start().0).wrapping_add(slot.factory.region_size);
        Ok(Target { slot, offset, size })
    }

    /// Which sizes are taken is the device's to say: of its regions each may differ.
    fn decode(&self, at: Ipa, size: AccessSize) -> Result<Target<'_>, AccessFault> {
        let (id, offset) = self.decoder.as_ref().and_then(|decoder| decoder.decode(at)).ok_or(AccessFault::Nothing)?;
        let slot = self.slot(id).ok_or(AccessFault::Nothing)?;
        if size.is_aligned(at.0) { Ok(Target { slot, offset, size }) } else { Err(AccessFault::Unaligned) }
    }

    fn slot(&self, id: DeviceId) -> Option<&Slot> {
        let place = self.places.get(usize::from(id.0))?;
        self.slots.get(usize::from(*place))
    }
}

/// A line for each of the devices that have one.
fn lines<'a>(devices: &(impl Iterator<Item = &'a Device> + Clone)) -> Result<Vec<Line>, BusError> {
    let mut lines: Vec<Line> = Vec::new();
    for device in devices.clone() {
        let Some(intid) = device.interrupt.filter(|intid| lines.iter().all(|line| line.intid() != *intid)) else {
            continue;
        };
        let count = devices.clone().filter(|other| other.interrupt == Some(intid)).count();
        if count > usize::from(Line::SHARERS) {
            return Err(BusError::Shared { intid, count });
        }
        lines.extend(Line::all(intid, count));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
