//! Registers of passed devices, as the hypervisor reaches them for a VM: to bring a device to rest, and for vdevs that ask for them.
//!
//! Answers for: that they are mapped for EL2, accesses of the right size within the region, and none while the device is somebody else's.
//! Does not answer for: what is written there (the configuration, or the vdev), nor when (`compartment`). The guest, and nobody else, uses
//! them as well.

use crate::address_space::{self, MapFailed};
use crate::compartment::kernel_work;
use core::sync::atomic::{AtomicBool, Ordering};
use drivers::Mmio;
use types::{AccessSize, PAGE_SIZE, Pa, Range};
use vdev::{AccessFault, Registers, RestStep};
use vm::assemble::PassedRegion;

/// Largest region whose registers a vdev gets: all of it is mapped, page by page.
pub(crate) const MOST: u64 = 1 << 20;

/// The registers of one region.
pub(crate) struct Window {
    region: PassedRegion,
    mmio: Mmio,
    /// They can be reached: they are the VM's, and mapped.
    is_open: AtomicBool,
}

impl Window {
    /// Not to be reached yet.
    pub(crate) fn new(region: PassedRegion) -> Self {
        // SAFETY: registers that the configuration passes; accessed only once `is_open` says that they are mapped and the VM's, and by
        // that VM alone.
        let mmio = unsafe { Mmio::of(&region.host) };
        Self { region, mmio, is_open: AtomicBool::new(false) }
    }

    /// All of it can be reached. The VM has claimed the device.
    ///
    /// # Errors
    /// If something else is mapped there, or there is no memory for tables.
    pub(crate) fn open_whole(&self) -> Result<(), MapFailed> {
        kernel_work(|| address_space::reach_device(self.region.host))?;
        self.open();
        Ok(())
    }

    /// What [`reach_steps`] has mapped can be reached.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    fn check(&self, offset: u64, size: AccessSize) -> Result<usize, AccessFault> {
        match () {
            () if !self.is_open.load(Ordering::Acquire) => Err(AccessFault::Nothing),
            () if offset.checked_add(size.bytes()).is_none_or(|end| end > self.region.host.length()) => {
                Err(AccessFault::Straddles)
            }
            () if !size.is_aligned(offset) => Err(AccessFault::Unaligned),
            () => Ok(offset as usize),
        }
    }
}

impl Registers for Window {
    fn read(&self, offset: u64, size: AccessSize) -> Result<u64, AccessFault> {
        let offset = self.check(offset, size)?;
        self.mmio.load(offset, size).ok_or(AccessFault::Bus)
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) -> Result<(), AccessFault> {
        let offset = self.check(offset, size)?;
        if !self.region.writable {
            return Err(AccessFault::Unsupported);
        }
        if self.mmio.store(offset, size, value) { Ok(()) } else { Err(AccessFault::Bus) }
    }
}

/// Maps the pages that `steps` access.
///
/// # Errors
/// As [`Window::open_whole`].
pub(super) fn reach_steps(region: &PassedRegion, steps: &[RestStep]) -> Result<(), MapFailed> {
    for (offset, _) in steps.iter().filter_map(|step| step.action.access()) {
        // Aligned, none is in two pages; and `vm::config` has seen that it is in the region.
        let page = Pa(region.host.start().0.wrapping_add(offset)).align_down(PAGE_SIZE);
        let page = Range::new(page, PAGE_SIZE).ok_or(MapFailed(region.host))?;
        address_space::reach_device(page)?;
    }
    Ok(())
}
