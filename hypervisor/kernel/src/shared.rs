//! Shared memory: the regions there are, and what devices, vCPUs and the shell do with them.
//!
//! Answers for: the memory of regions, mapping it for guests, telling clients to look, and taking all of it back when a VM ends.
//! Does not answer for: who may have which region (the device, `vdevs`), the table of regions and clients (`host::shared`).
//!
//! A device asks under its lock, with interrupts masked; what takes long is done afterwards by the vCPU whose access it was
//! ([`work`]), which can be preempted meanwhile. What regions are made of is the kernel's: a region outlives the VM that made it.

use crate::compartment::{Compartment, kernel_work};
use crate::frames::Owner;
use crate::guest_memory::GuestRam;
use crate::partition::Partition;
use crate::sync::{Lock, Rank, masked};
use crate::thread::{self, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use host::shared::{Bells, Joined, Keeper, Left, MAX_REGIONS, NotAdded, RegionId, RegionInfo, Regions, Window};
use types::{Ipa, PAGE_SIZE, Range, Ticks, VmId};
use vdev::{Attached, DEVICE_REGIONS, DeviceId, RegionError, RegionName, RegionWishes, SharedMemory, Wake};

static BELLS: [Bells; MAX_REGIONS] = [const { Bells::new() }; MAX_REGIONS];

static REGIONS: Lock<Regions<Arc<GuestRam>, Door>> = Lock::new(Rank::Regions, Regions::new(&BELLS));

/// Names and sizes of the regions there are, for devices, which cannot wait for the lock above.
static DIRECTORY: Lock<Vec<(RegionName, u32)>> = Lock::new(Rank::Directory, Vec::new());

/// How a client is reached.
enum Door {
    /// A VM.
    Vm(Arc<Compartment>),
    /// A thread of the host's.
    Host(Arc<Thread>),
}

impl Door {
    fn knock(&self) {
        match self {
            Self::Vm(compartment) => {
                if let Some(partition) = compartment.partition() {
                    partition.call();
                }
            }
            Self::Host(thread) => thread::notify(thread),
        }
    }
}

/// Does something with the regions, and keeps the directory up to date.
fn with_regions<R>(work: impl FnOnce(&mut Regions<Arc<GuestRam>, Door>) -> R) -> R {
    let mut regions = REGIONS.lock();
    let result = work(&mut regions);
    let mut directory = DIRECTORY.lock();
    directory.clear();
    directory.extend(regions.names());
    result
}

/// Tells clients of a region to look.
fn knock(region: RegionId, clients: u16) {
    if clients != 0 {
        REGIONS.lock().doors(region, clients).for_each(Door::knock);
    }
}

/// Tells others what has changed, and gives back memory that nobody has any more. The last guest that had it may have left
/// secrets there; `pause` is called between any two steps.
fn finish(left: Option<Left<Arc<GuestRam>>>, pause: &mut dyn FnMut()) {
    let Some(left) = left else { return };
    knock(left.region, left.tell);
    if let Some(memory) = left.memory {
        memory.scrub(|| {
            pause();
            true
        });
    }
}

/// Pieces of RAM that a region is made of: what there is of it should be in better order than that.
const MOST_PIECES: usize = 1024;

/// Memory of so many pages, for a region that nobody has yet. `go_on` says between any two steps whether there is a point in it.
fn make(pages: u32, mut go_on: impl FnMut() -> bool) -> Result<Arc<GuestRam>, RegionError> {
    let range = Range::new(Ipa(0), u64::from(pages) * PAGE_SIZE).ok_or(RegionError::NoMemory)?;
    let memory =
        GuestRam::allocate_in_steps(Owner::Shared, range, MOST_PIECES, &mut go_on).ok_or(RegionError::NoMemory)?;
    memory.scrub(go_on);
    Ok(Arc::new(memory))
}

/// Makes sure that there is a region. Says how many pages it has.
///
/// # Errors
/// If there is no memory for it, or there are too many.
pub(crate) fn keep(name: RegionName, pages: u32, keeper: Keeper) -> Result<u32, RegionError> {
    kernel_work(|| {
        if !with_regions(|regions| regions.keep(&name, keeper)) {
            let memory = make(pages, || true)?;
            match with_regions(|regions| regions.add(name, pages, memory, Some(keeper), None)) {
                Err(NotAdded::TooMany(_)) => return Err(RegionError::NoMemory),
                Err(NotAdded::Exists(_)) => {
                    with_regions(|regions| regions.keep(&name, keeper));
                }
                Ok(()) => {}
            }
        }
        REGIONS.lock().memory(&name).map(|(_, pages)| pages).ok_or(RegionError::Failed)
    })
}

/// The host does not need a region any more: it goes with its last client. Says whether the host had it.
pub(crate) fn release(name: RegionName) -> bool {
    let (had, memory) = with_regions(|regions| regions.release(&name, Keeper::Host));
    if let Some(memory) = memory {
        memory.scrub(|| true);
    }
    had
}

/// What is known of the region `number`, counted from 0.
pub(crate) fn info(number: usize) -> Option<RegionInfo> {
    REGIONS.lock().info(number)
}

/// The memory of a region, addressed from 0 on, and its size in pages.
pub(crate) fn memory(name: &RegionName) -> Option<(Arc<GuestRam>, u32)> {
    REGIONS.lock().memory(name)
}

/// A thread of the host's as a client of a region, until dropped. Whoever notifies it, comes or goes, wakes the thread.
pub(crate) struct HostClient {
    region: RegionId,
    client: u8,
}

impl HostClient {
    /// The calling thread as a client. `None` if there is no such region; an error if it has too many clients.
    pub(crate) fn join(name: &RegionName) -> Option<Result<Self, RegionError>> {
        let thread = thread::current_shared()?;
        let joined = with_regions(|regions| regions.join(name, Door::Host(thread)))?;
        Some(joined.map(|Joined { region, client, tell, .. }| {
            knock(region, tell);
            Self { region, client }
        }))
    }

    /// Which clients have notified this one since it last looked (bits 15 to 0), and which there are (bits 31 to 16).
    pub(crate) fn look(&self) -> u32 {
        BELLS.get(self.region.index()).map_or(0, |bells| bells.look(self.client))
    }

    /// Tells clients to look, and says which of them there are.
    pub(crate) fn notify(&self, clients: u16) -> u16 {
        let Some(bells) = BELLS.get(self.region.index()) else { return 0 };
        let told = bells.notify(self.client, clients);
        knock(self.region, told);
        clients & bells.present() & !(1 << self.client)
    }
}

impl Drop for HostClient {
    fn drop(&mut self) {
        finish(with_regions(|regions| regions.leave(self.region, self.client)), &mut || {});
    }
}

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

    /// Clients of a region that are to be told to look, each once.
    fn next_told(&self) -> Option<(RegionId, u16)> {
        let mut state = self.state.lock();
        let index = lowest(&mut state.untold)?;
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
                    self.leave(compartment, slot, go_on);
                    let left = with_regions(|regions| regions.leave(slot.region, slot.client));
                    finish(left, &mut || _ = go_on());
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
                    self.leave(compartment, slot, go_on);
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
                finish(with_regions(|regions| regions.leave(region, client)), &mut || _ = go_on());
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

    /// Takes a region out of the guest's reach. Its memory may go with its last client: not before no CPU reaches it.
    fn leave(&self, compartment: &Compartment, slot: Slot, go_on: &mut dyn FnMut() -> bool) {
        let mut rest = Some(slot.place);
        while let Some(range) = rest {
            rest = compartment.memory.lock().space.as_mut().and_then(|space| space.unmap(range, STEP));
            go_on();
        }
        masked(|| self.state.lock().window.give_back(slot.place));
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
            let mut memory = compartment.memory.lock();
            let space = memory.space.as_mut().ok_or(RegionError::Failed)?;
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

/// Tells the clients of regions whom the devices of a VM want told.
pub(crate) fn tell(partition: &Partition) {
    for share in partition.shares() {
        while let Some((region, clients)) = masked(|| share.next_told()) {
            kernel_work(|| knock(region, clients));
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

/// A VM has ended, and its stage 2 is gone: it is nobody's client any more.
pub(crate) fn end(compartment: &Compartment) {
    let is_its = |door: &Door| matches!(door, Door::Vm(other) if core::ptr::eq(&**other, compartment));
    loop {
        let left = with_regions(|regions| regions.end(compartment.id, is_its));
        if left.is_none() {
            return;
        }
        finish(left, &mut || {});
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
        if let Some(Some(left)) =
            state.slots.get_mut(usize::from(slot)).filter(|left| !left.is_some_and(|left| left.leaving))
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
