//! Virtio devices of the machine: what their drivers have in common.
//!
//! Answers for: finding out what is in a window ([`find`]), the memory that devices reach ([`Memory`]), and beginning with a device
//! ([`negotiate`]). Does not answer for: where windows are (`machine`), what a device is for ([`crate::virtio_blk`],
//! [`crate::virtio_net`]), queues and registers (the package `virtio-drivers`).
//!
//! Follows virtio 1.3, 3.1 (initialization), 4.2 (MMIO); version 1 of the registers is that of 4.2.4, which QEMU has unless it is
//! told otherwise.
//!
//! What a device says is never trusted. Of the package nothing is used that waits for a device: no reset of a single queue, no
//! configuration that has to be read twice alike, no request that is waited for in a loop.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use types::{PAGE_SIZE, Pa, Range};
pub use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::mmio::VirtIOHeader;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The registers before the configuration space, and the least that is behind them, in bytes.
const LEAST_WINDOW: u64 = 0x108;

/// Where memory comes from that devices read and write.
///
/// # Safety
/// What [`Memory::take`] gives is RAM, mapped with the same address as devices have for it, begins with a page, and is nobody
/// else's for good.
pub unsafe trait Memory {
    /// So many pages of 4 KiB, one behind the other: where they begin. `None` if there are none. They are never given back: who
    /// knows whether a device that is wrong does not write to them all the same.
    fn take(pages: usize) -> Option<Pa>;
}

/// Memory as the package wants it: a device's addresses are ours.
pub(crate) struct Identity<M>(PhantomData<M>);

// SAFETY: by the promise of `Memory`: whole pages of our own, zeroed here, nobody else's for good.
unsafe impl<M: Memory> Hal for Identity<M> {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        match zeroed::<M>(pages) {
            Some(start) => (start.as_ptr() as u64, start),
            // An address of zero is how the package is told that there is none.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(at: PhysAddr, _: usize) -> NonNull<u8> {
        // Of the PCI transport, which is not used.
        NonNull::new(at as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// So many pages of zeroes.
pub(crate) fn zeroed<M: Memory>(pages: usize) -> Option<NonNull<u8>> {
    let start = NonNull::new(M::take(pages)?.0 as *mut u8)?;
    // SAFETY: so many pages that are ours (promise of `Memory`).
    unsafe { start.write_bytes(0, pages * PAGE_SIZE as usize) };
    Some(start)
}

bitflags::bitflags! {
    /// What devices of all kinds offer (virtio 1.3, 6), disks (5.2.3) and network cards (5.1.3), as far as it is used here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Features: u64 {
        /// VIRTIO_BLK_F_RO
        const BLK_RO = 1 << 5;
        /// VIRTIO_BLK_F_BLK_SIZE
        const BLK_BLK_SIZE = 1 << 6;
        /// VIRTIO_BLK_F_FLUSH
        const BLK_FLUSH = 1 << 9;
        /// VIRTIO_NET_F_MAC
        const NET_MAC = 1 << 5;
        /// VIRTIO_NET_F_STATUS
        const NET_STATUS = 1 << 16;
        /// VIRTIO_F_ANY_LAYOUT
        const ANY_LAYOUT = 1 << 27;
        /// VIRTIO_F_VERSION_1
        const VERSION_1 = 1 << 32;
    }
}

/// Why a device is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtioError {
    /// It does not take the features that it has offered, or wants some that there are none of.
    Features,
    /// There is no memory for what it shares with us.
    Memory,
    /// Its queue is too short, or in use.
    Queue,
    /// What it says of itself makes no sense.
    Configuration,
    /// It has answered a request that nobody had made.
    WrongRequest,
    /// It has not answered in time.
    Silent,
}

impl VirtioError {
    /// The same in words.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Features => "it does not do what it has offered, or wants more than there is",
            Self::Memory => "there is no memory for its queues",
            Self::Queue => "its queue is too short, or in use",
            Self::Configuration => "what it says of itself makes no sense",
            Self::WrongRequest => "it has answered a request that nobody had made",
            Self::Silent => "it has not answered in time",
        }
    }
}

impl fmt::Display for VirtioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

/// What there is in a window.
#[derive(Debug)]
pub enum Found {
    /// A disk.
    Disk(MmioTransport<'static>),
    /// A network card.
    Card(MmioTransport<'static>),
}

/// What there is in a window; `None` if it is nothing that there is a driver for.
///
/// # Safety
/// The window is of the registers of a virtio device by the device tree, mapped as Device memory for good, and this is called once.
#[must_use]
pub unsafe fn find(registers: &Range<Pa>) -> Option<Found> {
    if registers.length() < LEAST_WINDOW || !registers.start().is_aligned(4) {
        return None;
    }
    let header = NonNull::new(registers.start().0 as *mut VirtIOHeader)?;
    // SAFETY: the caller's promise; large enough and aligned, as was just seen. What it is it looks at itself.
    let transport = unsafe { MmioTransport::new(header, registers.length() as usize) }.ok()?;
    match transport.device_type() {
        DeviceType::Block => Some(Found::Disk(transport)),
        DeviceType::Network => Some(Found::Card(transport)),
        _ => None,
    }
}

/// Resets a device and agrees with it on what of `wanted` it has. It does not begin yet.
pub(crate) fn negotiate(transport: &mut impl Transport, wanted: Features) -> Result<Features, VirtioError> {
    let features = transport.begin_init(wanted | Features::VERSION_1);
    let is_modern = features.contains(Features::VERSION_1);
    // A device of version 1 has no such step (3.1.2), one of version 2 is not to be used without VERSION_1 (6.1).
    let took = !is_modern || transport.get_status().contains(DeviceStatus::FEATURES_OK);
    if took && (is_modern || transport.requires_legacy_layout()) { Ok(features) } else { Err(VirtioError::Features) }
}

/// Makes what has been written to memory visible to devices, before they are told of it.
pub(crate) fn publish() {
    #[cfg(target_os = "none")]
    // SAFETY: a barrier.
    unsafe {
        core::arch::asm!("dsb oshst", options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Makes what has been written to memory visible to devices before anything is read that they may write in answer to it.
pub(crate) fn publish_and_look() {
    #[cfg(target_os = "none")]
    // SAFETY: a barrier.
    unsafe {
        core::arch::asm!("dsb osh", options(nostack, preserves_flags));
    }
    #[cfg(not(target_os = "none"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}
