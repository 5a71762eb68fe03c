//! Disks for VMs.
//!
//! Answers for: opening what `hostdev` names, and the memory that disks keep in page frames: it is the VM's, counted as such, and taken
//! back with the rest of what the VM had. Does not answer for: the machine's disks ([`real`]), what is kept where (`host::disk`), what
//! guests see (`vdevs`).

mod real;

pub(crate) use real::{end, interrupt, keep, report};

use crate::compartment::{Compartment, kernel_work};
use crate::frames::{self, Frames, Owner};
use crate::startup;
use crate::sync::{Lock, Rank};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use host::disk::{Base, Overlay, PAGE, PageStore};
use types::{PAGE_SIZE, VmId};
use vdev::{BackendError, BlockDevice, DiskName, HostDisk};

/// Pages that a disk takes at once.
const GROWTH: usize = 16;
const _: () = assert!(PAGE as u64 == PAGE_SIZE);

/// The frames that the disks of one VM are in. On the kernel's heap, so that they can be found when the VM's is gone.
pub(crate) struct DiskMemory {
    frames: Lock<Vec<Frames>>,
}

impl DiskMemory {
    pub(crate) fn new() -> Self {
        Self { frames: Lock::new(Rank::Compartment, Vec::new()) }
    }

    /// So many pages more: the address of the first. They stay until the whole is dropped.
    fn take(&self, id: VmId) -> Option<usize> {
        let frames = frames::allocate(GROWTH, 1, Owner::Vm(id))?;
        let start = frames.start().0 as usize;
        kernel_work(|| {
            let mut all = self.frames.lock();
            all.try_reserve(1).ok()?;
            all.push(frames);
            Some(start)
        })
    }

    /// Overwrites what was written to the disks, and gives the memory back. No disk is used any more.
    pub(crate) fn give_back(&self) {
        for frames in core::mem::take(&mut *self.frames.lock()) {
            // SAFETY: frames of ours, whole pages, that no disk reaches any more.
            unsafe { el2::cache::zero_and_clean(frames.start().0 as usize, frames.range().length() as usize) };
        }
    }
}

/// The pages of one disk.
struct Store {
    id: VmId,
    memory: Arc<DiskMemory>,
    /// Addresses of pieces of [`GROWTH`] pages.
    pieces: Vec<usize>,
    /// Pages of the last piece that are in use.
    used: usize,
    free: Vec<u32>,
}

impl PageStore for Store {
    fn add(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        if self.used == GROWTH || self.pieces.is_empty() {
            self.pieces.try_reserve(1).ok()?;
            self.pieces.push(self.memory.take(self.id)?);
            self.used = 0;
        }
        self.used += 1;
        u32::try_from((self.pieces.len() - 1) * GROWTH + self.used).ok()
    }

    fn pages(&mut self, first: u32) -> Option<&mut [u8]> {
        let index = (first as usize).checked_sub(1)?;
        let (piece, before) = (self.pieces.get(index / GROWTH)?, index % GROWTH * PAGE);
        let start = (piece + before) as *mut u8;
        // SAFETY: pages of this disk's, as long as the VM lives; nobody else has them, and `self` is borrowed meanwhile.
        Some(unsafe { core::slice::from_raw_parts_mut(start, GROWTH * PAGE - before) })
    }

    fn free(&mut self, number: u32) {
        if self.free.try_reserve(1).is_ok() {
            self.free.push(number);
        }
    }
}

/// Opens a disk for a VM.
pub(crate) fn open(
    compartment: &Compartment,
    device: &str,
    disk: &HostDisk,
) -> Result<Box<dyn BlockDevice>, BackendError> {
    let base = match &disk.name {
        DiskName::File(path) => {
            let contents = startup::archive().and_then(|archive| archive.get(path));
            Base::Bytes(contents.ok_or_else(|| BackendError(format!("there is no file `{path}` in the boot archive")))?)
        }
        DiskName::Memory(bytes) => Base::Zeroes(*bytes),
        DiskName::Real(name) => return real::open(compartment, device, name, disk),
    };
    base.check(disk)?;
    let memory = compartment.disk_memory();
    let store = Store { id: compartment.id, memory, pieces: Vec::new(), used: 0, free: Vec::new() };
    match Overlay::new(format!("{disk}"), base, disk.read_only, store) {
        Some(disk) => Ok(Box::new(disk)),
        None => Err(BackendError(format!("`{disk}` is too large: there is no memory for a list of its pages"))),
    }
}
