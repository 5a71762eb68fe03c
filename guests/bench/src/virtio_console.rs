//! Writing a page at once: a driver of a virtio console (virtio 1.3, 5.3, 4.2.3), as small as one can be.
//!
//! Answers for: one buffer of output at a time, from the notification until the device has given it back. Does not answer for:
//! input, or interrupts: the driver looks.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::println;
use guest_rt::registers::{dsb, relax};

use crate::measure::{report, settle, stamp};

/// Entries of the queue.
const SIZE: usize = 8;
/// Most bytes of a buffer.
const BYTES: usize = 4096;
/// As many as go without the console's thread being called at once: half of what a VM's stream holds calls it.
/// Whole lines of [`LINE`] bytes.
const FEW: u64 = 31 * LINE as u64;
const LINE: usize = 64;
const ROUNDS: u16 = 10;

/// Device ID (5.3.1), and the queue of port 0's output (5.3.2).
const CONSOLE: u32 = 3;
const TRANSMIT: u32 = 1;
/// `VIRTIO_F_VERSION_1`, in the upper word of features.
const VERSION_1: u32 = 1;
/// The available ring's flag that asks for no interrupts (2.7.6).
const NO_INTERRUPT: u16 = 1;

/// A split queue (2.7): areas behind one another, each aligned as it has to be.
#[repr(C, align(64))]
struct Queue {
    /// Address; then length in bits 31 to 0, and no flags.
    descriptors: [[AtomicU64; 2]; SIZE],
    /// Flags, index, ring; only head 0 is ever in it.
    available: [AtomicU16; 2 + SIZE],
    /// Flags, with the index above; ring.
    used: [AtomicU32; 1 + 2 * SIZE],
}

#[repr(C, align(4096))]
struct Page([AtomicU8; BYTES]);

static QUEUE: Queue = Queue {
    descriptors: [const { [const { AtomicU64::new(0) }; 2] }; SIZE],
    available: [const { AtomicU16::new(0) }; 2 + SIZE],
    used: [const { AtomicU32::new(0) }; 1 + 2 * SIZE],
};
static PAGE: Page = Page([const { AtomicU8::new(b'.') }; BYTES]);

/// As 3.1.1 has it: features, the queue, ready. Says whether the device is content.
fn start(device: Mmio) -> bool {
    for (register, value) in
        [(0x70, 0), (0x70, 1), (0x70, 3), (0x24, 0), (0x20, 0), (0x24, 1), (0x20, VERSION_1), (0x70, 11)]
    {
        device.write(register, value);
    }
    let areas = [
        (0x80, QUEUE.descriptors.as_ptr() as u64),
        (0x90, QUEUE.available.as_ptr() as u64),
        (0xa0, QUEUE.used.as_ptr() as u64),
    ];
    device.write(0x30, TRANSMIT);
    device.write(0x38, SIZE as u32);
    for (register, address) in areas {
        device.write(register, address as u32);
        device.write(register + 4, (address >> 32) as u32);
    }
    QUEUE.available[0].store(NO_INTERRUPT, Relaxed);
    QUEUE.descriptors[0][0].store(PAGE.0.as_ptr() as u64, Relaxed);
    device.write(0x44, 1);
    device.write(0x70, 15);
    device.read(0x70) == 15
}

/// Writes so many bytes, as the `count`th buffer, and waits until the device has them.
#[inline(always)]
fn write(device: Mmio, length: u64, count: u16) {
    QUEUE.descriptors[0][1].store(length, Relaxed);
    QUEUE.available[1].store(count, Release);
    dsb();
    device.write(0x50, TRANSMIT);
    while QUEUE.used[0].load(Acquire) >> 16 != u32::from(count) {
        relax();
    }
}

/// Text, each time when what came before has been printed: little enough that printing comes afterwards, and a page, during which the
/// host prints already.
pub(crate) fn byte(machine: &'static Machine) {
    let Some((registers, _)) = &machine.virtio else { return };
    // SAFETY: the tree says that a virtio device is there.
    let device = unsafe { Mmio::new(registers.start as usize) };
    if device.read(0x08) != CONSOLE {
        return;
    }
    if !start(device) {
        println!("bench: # virtio-console-byte: the device does not start");
        return;
    }
    PAGE.0.iter().skip(LINE - 1).step_by(LINE).for_each(|byte| byte.store(b'\n', Relaxed));
    let mut counts = 1_u16..;
    for (name, length) in [("virtio-console-byte", FEW), ("virtio-console-byte-printed", BYTES as u64)] {
        let mut total = 0;
        for count in counts.by_ref().take(ROUNDS.into()) {
            settle();
            let start = stamp();
            write(device, length, count);
            total += stamp() - start;
        }
        report(name, total, u64::from(ROUNDS) * length);
    }
    device.write(0x70, 0);
}
