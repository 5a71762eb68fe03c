//! What a device has of shared memory.
//!
//! Answers for: what it has asked for, doing that, and telling it what has become of it. Does not answer for: regions and their
//! clients (`shared`).

use super::{BELLS, DIRECTORY, Door, REGIONS, finish, keep, knock, make, with_regions};
use crate::compartment::{Compartment, kernel_work};
use crate::guest_memory::GuestRam;
use crate::partition::Partition;
use crate::sync::masked;
use crate::thread;
use alloc::sync::Arc;
use alloc::vec::Vec;
use host::shared::{Joined, Keeper, NotAdded, RegionId, Window};
use types::{Ipa, PAGE_SIZE, Range, Ticks, VmId};
use vdev::{Attached, DEVICE_REGIONS, DeviceId, RegionError, RegionName, RegionWishes, SharedMemory, Wake};

/// What a device has of shared memory. It is in the VM's heap, and names what is outside by numbers.
pub(crate) struct Share {
    device: DeviceId,
    wishes: RegionWishes,
    state: types::Lock<State>,
}

struct State {
    window: Window,
    wish: Wish,
    slots: [Option<Slot>; DEVICE_REGIONS],
    /// Slots with clients that have not been told yet that they have news, a bit each.
    untold: u16,
    /// Slots that are to be left, a bit each.
    unwanted: u16,
    /// Threads that do something for the device right now.
    busy: u16,
}

/// A region that the device wants to be attached to, one at a time.
enum Wish {
    None,
    Asked(RegionName, u32),
    /// A thread is at it.
    UnderWay,
    Answered(Result<Attached, RegionError>),
}

/// A region that the device is attached to.
#[derive(Clone, Copy)]
struct Slot {
    region: RegionId,
    client: u8,
    place: Range<Ipa>,
    /// Clients that have news, and have not been told yet that they do.
    to_knock: u16,
    leaving: bool,
}

/// What takes long and a device has asked for.
enum Job {
    Leave(usize, Slot),
    Attach(RegionName, u32),
}

/// How much of it there is.
enum Todo {
    Job(Job),
    /// Other threads are at it.
    Wait,
    Nothing,
}

impl Share {
    pub(crate) fn new(device: DeviceId, window: Range<Ipa>, wishes: RegionWishes) -> Arc<Self> {
        let state = State {
            window: Window::new(window),
            wish: Wish::None,
            slots: [None; DEVICE_REGIONS],
            untold: 0,
            unwanted: 0,
            busy: 0,
        };
        Arc::new(Self { device, wishes, state: types::Lock::new(state) })
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }

    /// Makes what the configuration of the VM wants, whose log target is `origin`.
    ///
    /// # Errors
    /// The first region that cannot be made, and its size in pages.
    pub(crate) fn create(&self, vm: VmId, origin: &str) -> Result<(), (RegionName, u32)> {
        for &(name, pages) in &self.wishes.create {
            let there = keep(name, pages, Keeper::Vm(vm)).map_err(|_| (name, pages))?;
            if there != pages {
                log::warn!(target: origin, "the region `{name}` has {there} pages; {pages} were wanted by who came later");
            }
        }
        Ok(())
    }

    /// Clients of the region in a slot that are to be told to look, each once.
    fn take_told(&self, index: usize) -> Option<(RegionId, u16)> {
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(index)?.as_mut()?;
        Some((slot.region, core::mem::take(&mut slot.to_knock)))
    }

    fn next(&self) -> Todo {
        let mut state = self.state.lock();
        let job = match lowest(&mut state.unwanted) {
            Some(index) => state.slots.get(index).copied().flatten().map(|slot| Job::Leave(index, slot)),
            None => match state.wish {
                Wish::Asked(name, pages) => {
                    state.wish = Wish::UnderWay;
                    Some(Job::Attach(name, pages))
                }
                _ => None,
            },
        };
        match job {
            Some(job) => {
                state.busy += 1;
                Todo::Job(job)
            }
            None if state.busy > 0 => Todo::Wait,
            None => Todo::Nothing,
        }
    }

    fn carry_out(&self, job: &Job, partition: &Partition, compartment: &Compartment, go_on: &mut dyn FnMut() -> bool) {
        match *job {
            Job::Leave(index, slot) => {
                kernel_work(|| {
                    if self.leave(compartment, slot, go_on) {
                        let left = with_regions(|regions| regions.leave(slot.region, slot.client));
                        finish(left, &mut || _ = go_on());
                    }
                });
                masked(|| self.state.lock().slots[index] = None);
            }
            Job::Attach(name, pages) => {
                let answer = kernel_work(|| self.attach(compartment, (name, pages), go_on));
                masked(|| self.state.lock().wish = Wish::Answered(answer));
                partition.wake(self.device, Wake::Backend);
            }
        }
    }

    /// Attaches to a region, which is made if there is none, and maps it.
    fn attach(
        &self,
        compartment: &Compartment,
        (name, pages): (RegionName, u32),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Attached, RegionError> {
        let free = || masked(|| self.state.lock().slots.iter().position(Option::is_none));
        let index = free().ok_or(RegionError::NoMemory)?;
        let Joined { region, client, pages, memory, tell } = self.join(compartment, name, pages, go_on)?;
        let place = masked(|| self.state.lock().window.take(pages));
        let mapped = place.ok_or(RegionError::NoMemory).and_then(|place| {
            let slot = Slot { region, client, place, to_knock: 0, leaving: false };
            let control = place.start();
            match map(compartment, &memory, control, go_on) {
                Ok(()) => Ok((slot, control)),
                Err(error) => {
                    let _ = self.leave(compartment, slot, go_on);
                    Err(error)
                }
            }
        });
        match mapped {
            Ok((slot, control)) => {
                masked(|| self.state.lock().slots[index] = Some(slot));
                knock(region, tell);
                Ok(Attached { slot: index as u8, client, pages, control })
            }
            Err(error) => {
                let is_lost = compartment.memory.lock().space.as_ref().is_some_and(|space| space.is_lost());
                if !is_lost {
                    finish(with_regions(|regions| regions.leave(region, client)), &mut || _ = go_on());
                }
                Err(error)
            }
        }
    }

    fn join(
        &self,
        compartment: &Compartment,
        name: RegionName,
        pages: u32,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Joined<Arc<GuestRam>>, RegionError> {
        loop {
            let door = Door::Vm(compartment.shared().ok_or(RegionError::Failed)?);
            if let Some(joined) = with_regions(|regions| regions.join(&name, door)) {
                return joined;
            }
            if pages == 0 {
                return Err(RegionError::Missing);
            }
            let made = REGIONS.lock().made_by(compartment.id);
            if made.saturating_add(pages.into()) > self.wishes.limit {
                return Err(RegionError::NoMemory);
            }
            let memory = make(pages, &mut *go_on)?;
            if !go_on() {
                return Err(RegionError::Failed);
            }
            let maker = Some(compartment.id);
            // If there is one by now it is somebody else's, and as good.
            if let Err(NotAdded::TooMany(_)) = with_regions(|regions| regions.add(name, pages, memory, None, maker)) {
                return Err(RegionError::NoMemory);
            }
        }
    }

    /// Takes a region out of the guest's reach. Its memory may go with its last client: not before no CPU reaches it, and no device.
    /// Says whether that is so; if not, the VM stays a client of it.
    fn leave(&self, compartment: &Compartment, slot: Slot, go_on: &mut dyn FnMut() -> bool) -> bool {
        let mut rest = Some(slot.place);
        while let Some(range) = rest {
            rest = compartment.memory.lock().space.as_ref().and_then(|space| space.unmap(range, STEP));
            go_on();
        }
        masked(|| self.state.lock().window.give_back(slot.place));
        !compartment.memory.lock().space.as_ref().is_some_and(|space| space.is_lost())
    }
}

/// Leaves and holes of stage 2 that are changed with interrupts masked.
const STEP: usize = 256;

/// Maps a region's memory behind the page of its registers.
fn map(
    compartment: &Compartment,
    memory: &GuestRam,
    control: Ipa,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), RegionError> {
    for (part, host) in memory.pieces() {
        let start = control.checked_add(PAGE_SIZE + part.start().0).ok_or(RegionError::Failed)?;
        let mut rest = Range::new(start, part.length()).map(|range| (range, host));
        while let Some((range, to)) = rest {
            let memory = compartment.memory.lock();
            let space = memory.space.as_ref().ok_or(RegionError::Failed)?;
            rest = space.map_shared(range, to, STEP).map_err(|_| RegionError::NoMemory)?;
            drop(memory);
            if !go_on() {
                return Err(RegionError::Failed);
            }
        }
    }
    Ok(())
}

/// Takes the lowest bit out of a set.
fn lowest(set: &mut u16) -> Option<usize> {
    let index = set.trailing_zeros();
    *set &= set.wrapping_sub(1);
    (index < u16::BITS).then_some(index as usize)
}

/// Tells the clients of regions whom the devices of a VM want told. Whoever wants more told meanwhile does so himself: interrupts
/// may be masked here, and the guest's other vCPUs could go on for ever.
pub(crate) fn tell(partition: &Partition) {
    for share in partition.shares() {
        let mut slots = masked(|| core::mem::take(&mut share.state.lock().untold));
        while let Some(index) = lowest(&mut slots) {
            if let Some((region, clients)) = masked(|| share.take_told(index)) {
                kernel_work(|| knock(region, clients));
            }
        }
    }
}

/// How long is waited at a time for another thread of the VM that does what two have asked for, in microseconds.
const PATIENCE: u64 = 50;

/// Does what takes long and the devices of a VM have asked for, in one of its threads. When this returns all is done that had been
/// asked for before, by whomever. Between any two steps `go_on` says whether there is still a point in it.
pub(crate) fn work(partition: &Partition, compartment: &Compartment, go_on: &mut dyn FnMut() -> bool) {
    for share in partition.shares() {
        loop {
            match masked(|| share.next()) {
                Todo::Job(job) => {
                    share.carry_out(&job, partition, compartment, go_on);
                    masked(|| share.state.lock().busy -= 1);
                }
                Todo::Wait => {
                    let ticks = el2::cpu::counter_frequency().map_or(Ticks(0), |hertz| hertz.microseconds(PATIENCE));
                    thread::sleep_until(el2::cpu::counter().saturating_add(ticks));
                }
                Todo::Nothing => break,
            }
            // Other vCPUs of the guest may ask for more and more.
            if !go_on() {
                return;
            }
        }
    }
}

/// The device's end of its [`Share`].
pub(crate) struct Handle(pub(crate) Arc<Share>);

impl SharedMemory for Handle {
    fn attach(&mut self, name: RegionName, pages: u32) -> bool {
        let mut state = self.0.state.lock();
        let free = matches!(state.wish, Wish::None);
        if free {
            state.wish = Wish::Asked(name, pages);
        }
        free
    }

    fn answer(&mut self) -> Option<Result<Attached, RegionError>> {
        let mut state = self.0.state.lock();
        match core::mem::replace(&mut state.wish, Wish::None) {
            Wish::Answered(answer) => Some(answer),
            other => {
                state.wish = other;
                None
            }
        }
    }

    fn detach(&mut self, slot: u8) {
        let mut state = self.0.state.lock();
        if let Some(Some(left)) = state.slots.get_mut(usize::from(slot))
            && !left.leaving
        {
            left.leaving = true;
            state.unwanted |= 1 << slot;
        }
    }

    fn notify(&mut self, slot: u8, clients: u16) {
        let mut state = self.0.state.lock();
        if let Some(Some(told)) = state.slots.get_mut(usize::from(slot))
            && let Some(bells) = BELLS.get(told.region.index())
        {
            told.to_knock |= bells.notify(told.client, clients);
            state.untold |= 1 << slot;
        }
    }

    fn look(&mut self, slot: u8) -> u32 {
        match self.0.state.lock().slots.get(usize::from(slot)) {
            Some(Some(slot)) => BELLS.get(slot.region.index()).map_or(0, |bells| bells.look(slot.client)),
            _ => 0,
        }
    }

    fn has_news(&self) -> bool {
        let has = |slot: &Slot| BELLS.get(slot.region.index()).is_some_and(|bells| bells.has_news(slot.client));
        // One that is being left has no news for the guest any more.
        self.0.state.lock().slots.iter().flatten().any(|slot| !slot.leaving && has(slot))
    }

    fn region(&self, number: u32) -> Option<(RegionName, u32)> {
        DIRECTORY.lock().get(number as usize).copied()
    }
}

/// Shares of a VM's devices.
pub(crate) type Shares = Vec<Arc<Share>>;
