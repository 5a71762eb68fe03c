//! Giving a page back to whoever has lent it, by a memory balloon (virtio 1.3, 5.5).
//!
//! Answers for: one request of one page. Does not answer for: taking it again, and all else that a balloon does (`guest-abuser`).

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use guest_rt::mmio::Mmio;
use guest_rt::mmu::{self, Kind};
use guest_rt::registers::dsb;
use guest_rt::timer;
use guest_rt::tree::Tree;

/// Device ID (5.5.1), and the queue of pages that are given (5.5.2).
const BALLOON: u32 = 5;
const INFLATE: u32 = 0;
const PAGE: u64 = 4096;
/// Entries of the queue.
const SIZE: u32 = 4;
/// It answers within this many microseconds.
const LONG: u64 = 2_000_000;

/// A split queue of one request (2.7), and what is in it: a page number.
#[repr(C, align(4096))]
struct Queue {
    /// Address; length in bits 31 to 0.
    descriptor: [AtomicU64; 2 * SIZE as usize],
    /// Flags, index, ring.
    available: [AtomicU16; 4 + SIZE as usize],
    /// Flags, with the index above; ring.
    used: [AtomicU32; 2 + 2 * SIZE as usize],
    number: AtomicU32,
}

static QUEUE: Queue = Queue {
    descriptor: [const { AtomicU64::new(0) }; 2 * SIZE as usize],
    available: [const { AtomicU16::new(0) }; 4 + SIZE as usize],
    used: [const { AtomicU32::new(0) }; 2 + 2 * SIZE as usize],
    number: AtomicU32::new(0),
};

/// Gives the page at `at` back. False if there is no balloon in memory, or it does not take it.
pub(crate) fn give(tree: Tree, at: u64) -> bool {
    let places = tree.nodes().filter(|node| node.is_compatible("virtio,mmio")).filter_map(|node| node.reg(0));
    // SAFETY: the tree says that a virtio device's registers are there; mapped just now.
    let mut devices = places.map(|place| unsafe { Mmio::new(mmu::reach(place.start, Kind::Device)) });
    let Some(device) = devices.find(|device| device.read(0x08) == BALLOON && device.read(0x04) == 2) else {
        return false;
    };
    // As 3.1.1 has it: reset, a driver, VIRTIO_F_VERSION_1 only, the queue, ready.
    for (register, value) in [
        (0x70, 0),
        (0x70, 1),
        (0x70, 3),
        (0x24, 0),
        (0x20, 0),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x30, INFLATE),
        (0x38, SIZE),
    ] {
        device.write(register, value);
    }
    // A device that has been reset begins anew.
    QUEUE.available[1].store(0, Ordering::Relaxed);
    QUEUE.used[0].store(0, Ordering::Relaxed);
    let areas = [
        (0x80, QUEUE.descriptor.as_ptr() as u64),
        (0x90, QUEUE.available.as_ptr() as u64),
        (0xa0, QUEUE.used.as_ptr() as u64),
    ];
    for (register, address) in areas {
        device.write(register, address as u32);
        device.write(register + 4, (address >> 32) as u32);
    }
    device.write(0x44, 1);
    device.write(0x70, 15);
    QUEUE.number.store((at / PAGE) as u32, Ordering::Relaxed);
    QUEUE.descriptor[0].store((&raw const QUEUE.number) as u64, Ordering::Relaxed);
    QUEUE.descriptor[1].store(4, Ordering::Relaxed);
    QUEUE.available[1].store(1, Ordering::Release);
    dsb();
    device.write(0x50, INFLATE);
    timer::sleep_until(LONG, || QUEUE.used[0].load(Ordering::Acquire) >> 16 == 1)
}
