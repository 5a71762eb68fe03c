//! Memory shared with other guests, by a `vdev shmem`.
//!
//! Answers for: attaching to a region, its memory, telling its other clients to look. Does not answer for: interrupts, which the
//! guest enables and takes. The registers are those of hypervisor/vdevs/src/shmem.rs.

use core::slice;
use core::sync::atomic::AtomicU64;

use crate::mmio::{Mmio, Width};
use crate::mmu::{self, Kind};

const SIGNATURE: u64 = 0x4d53_4732_474d_5651;
const PAGE: usize = 0x1000;

/// A region that this guest is a client of.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    control: Mmio,
    memory: usize,
    /// Its size in pages.
    pub pages: usize,
    /// Which of its clients this is.
    pub client: u32,
}

/// Registers of the factory page.
const SHMEM: usize = 0x08;
const STATUS: usize = 0x14;
const SIZE: usize = 0x18;
const NAME: usize = 0x1c;

/// Registers of a control page.
const NEWS: usize = 0;
const INDEX: usize = 4;
const NOTIFY: usize = 8;
const DETACH: usize = 12;

impl Region {
    /// Attaches to the region `name` with the device at `factory`; makes it, with so many pages, if there is none. Only the first
    /// gigabyte from the one on in which it begins is reachable, and only one region at a time.
    ///
    /// # Errors
    ///
    /// The device's status; `u32::MAX` if there is no such device.
    pub fn attach(factory: u64, name: &str, pages: u32) -> Result<Self, u32> {
        let (at, pages) = ask(factory, name, pages)?;
        // SAFETY: registers by the device's word, reached as such: device memory has its own addresses.
        let control = unsafe { Mmio::new(mmu::reach(at, Kind::Device)) };
        let memory = mmu::reach(at + PAGE as u64, Kind::Memory);
        Ok(Self { control, memory, pages, client: control.read(INDEX) })
    }

    /// Its registers.
    #[must_use]
    pub const fn control(&self) -> Mmio {
        self.control
    }

    /// Its memory.
    #[must_use]
    pub fn words(&self) -> &'static [AtomicU64] {
        // SAFETY: mapped as memory, of that size, aligned to pages; others access it as well, hence atomics.
        unsafe { slice::from_raw_parts(self.memory as *const AtomicU64, self.pages * PAGE / 8) }
    }

    /// Which clients have notified this one since this was last asked; the interrupt ends.
    #[inline(always)]
    pub fn news(&self) -> u32 {
        self.control.read(NEWS) & 0xffff
    }

    /// Which other clients there are, a bit each. Takes the news along.
    #[must_use]
    pub fn others(&self) -> u32 {
        self.control.read(NEWS) >> 16 & !(1 << self.client)
    }

    /// Tells clients to look, a bit each.
    #[inline(always)]
    pub fn notify(&self, clients: u32) {
        self.control.write(NOTIFY, clients);
    }

    /// The end of it.
    pub fn detach(self) {
        self.control.write(DETACH, 0);
    }
}

/// Has the device at `factory` attach to the region `name`. Says where the region's registers are, the memory being behind them,
/// and its size in pages; none of it can be reached by that alone.
///
/// # Errors
///
/// The device's status; `u32::MAX` if there is no such device.
pub fn ask(factory: u64, name: &str, pages: u32) -> Result<(u64, usize), u32> {
    // SAFETY: a device by the configuration, reached as such.
    let factory = unsafe { Mmio::new(mmu::reach(factory, Kind::Device)) };
    if factory.read64(0) != SIGNATURE {
        return Err(u32::MAX);
    }
    for (index, byte) in name.bytes().chain([0]).enumerate() {
        factory.write_width(NAME + index, Width::Byte, byte.into());
    }
    factory.write(SIZE, pages);
    match factory.read(STATUS) {
        0 => Ok((factory.read64(SHMEM), factory.read(SIZE) as usize)),
        status => Err(status),
    }
}
