//! Memory for queues and buffers, and whether a device has written where it may not.
//!
//! Answers for: memory full of canaries, of which there is a copy: what the guest writes goes to both, what a device may write has
//! been offered. Does not answer for: who offers what (`ring`).

use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};

use guest_rt::mmio::{Mmio, Width};

use super::Complaint;

/// Bytes.
const SIZE: usize = 0x4_0000;
/// Places of queues, of [`QUEUE_SIZE`] bytes each, and buffers in the second half.
const QUEUES: usize = 8;
const QUEUE_BYTES: usize = 0x4000;
const BUFFERS: usize = QUEUES * QUEUE_BYTES;
const BUFFER_BYTES: usize = 0x1000;
/// Canaries before each buffer. Behind it there are as many as it is short of the next.
const BEFORE: usize = 0x100;

/// Nobody ever refers to its contents: they are reached by [`Mmio`].
#[repr(C, align(4096))]
struct Bytes(UnsafeCell<[u8; SIZE]>);

// SAFETY: as above.
unsafe impl Sync for Bytes {}

static MEMORY: Bytes = Bytes(UnsafeCell::new([0; SIZE]));
static COPY: Bytes = Bytes(UnsafeCell::new([0; SIZE]));
/// 1 where a device may write.
static OFFERED: [AtomicU8; SIZE] = [const { AtomicU8::new(0) }; SIZE];

fn memory() -> Mmio {
    // SAFETY: memory that nobody refers to.
    unsafe { Mmio::new(MEMORY.0.get() as usize) }
}

fn copy() -> Mmio {
    // SAFETY: as above.
    unsafe { Mmio::new(COPY.0.get() as usize) }
}

/// Where a part of a queue may be: the first of so many.
pub(crate) const fn queue(number: usize) -> usize {
    number % QUEUES * QUEUE_BYTES
}

/// Where a buffer of up to 3.5 KiB may be.
pub(crate) const fn buffer(number: usize) -> usize {
    BUFFERS + number % (BUFFERS / BUFFER_BYTES) * BUFFER_BYTES + BEFORE
}

/// The physical address of a place.
pub(crate) fn address(at: usize) -> u64 {
    (memory().address() + at) as u64
}

/// Canaries everywhere, and nothing is offered.
pub(crate) fn clean() {
    for at in (0..SIZE).step_by(8) {
        let canary = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        memory().write64(at, canary);
        copy().write64(at, canary);
    }
    OFFERED.iter().for_each(|byte| byte.store(0, Ordering::Relaxed));
}

/// What is at a place.
pub(crate) fn read(at: usize, width: Width) -> u64 {
    memory().read_width(at, width)
}

/// The guest writes.
pub(crate) fn write(at: usize, width: Width, value: u64) {
    copy().write_width(at, width, value);
    memory().write_width(at, width, value);
}

/// The guest writes the same byte everywhere.
pub(crate) fn fill(range: Range<usize>, byte: u8) {
    range.for_each(|at| write(at, Width::Byte, byte.into()));
}

/// The guest writes these bytes.
pub(crate) fn put(at: usize, bytes: &[u8]) {
    (at..).zip(bytes).for_each(|(at, byte)| write(at, Width::Byte, u64::from(*byte)));
}

/// From now on a device may write there.
pub(crate) fn offer(range: Range<usize>) {
    OFFERED[range].iter().for_each(|byte| byte.store(1, Ordering::Relaxed));
}

/// Finds what has been written where nothing was offered.
pub(crate) fn check() -> Result<(), Complaint> {
    for word in (0..SIZE).step_by(8) {
        if memory().read64(word) == copy().read64(word) {
            continue;
        }
        for (at, offered) in (word..).zip(&OFFERED[word..word + 8]) {
            let differs = read(at, Width::Byte) != copy().read_width(at, Width::Byte);
            if differs && offered.load(Ordering::Relaxed) == 0 {
                return Err(Complaint { what: "somebody has written where nothing was offered", found: at as u64 });
            }
        }
    }
    Ok(())
}
