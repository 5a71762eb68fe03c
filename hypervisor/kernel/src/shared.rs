//! Shared memory: the regions there are, and what devices, vCPUs and the shell do with them.
//!
//! Answers for: the memory of regions, mapping it for guests, telling clients to look, and taking all of it back when a VM ends.
//! Does not answer for: who may have which region (the device, `vdevs`), the table of regions and clients (`host::shared`).
//!
//! A device asks under its lock, with interrupts masked; what takes long is done afterwards by the vCPU whose access it was
//! ([`work`]), which can be preempted meanwhile. What regions are made of is the kernel's: a region outlives the VM that made it.

mod share;

pub(crate) use share::{Handle, Share, Shares, tell, work};

use crate::compartment::{Compartment, kernel_work};
use crate::frames::Owner;
use crate::guest_memory::GuestRam;
use crate::sync::{Lock, Rank};
use crate::thread::{self, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use host::shared::{Bells, Joined, Keeper, Left, MAX_REGIONS, NotAdded, RegionId, RegionInfo, Regions};
use types::{Ipa, PAGE_SIZE, Range};
use vdev::{RegionError, RegionName};

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
