//! Memory for drivers, and what they ask of a machine.
//!
//! Answers for: one static pool, from which heap and queues are taken and to which nothing is given back, so that no device can
//! write into what has another use by now; addresses, which are the same for devices and drivers. Does not answer for: running long.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicUsize, Ordering};

use guest_rt::mmu::{self, Kind};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Bytes: some 20 queues of two pages each, and the buffers of ten drivers, several times over.
const SIZE: usize = 1 << 20;

#[repr(C, align(4096))]
struct Bytes(UnsafeCell<[u8; SIZE]>);

// SAFETY: nobody refers to it but through what `take` gives out, each byte once.
unsafe impl Sync for Bytes {}

static POOL: Bytes = Bytes(UnsafeCell::new([0; SIZE]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// Takes zeroed memory out of the pool; null if there is not so much.
fn take(layout: Layout) -> *mut u8 {
    if layout.align() > PAGE_SIZE {
        return null_mut();
    }
    let place = |used: usize| used.next_multiple_of(layout.align());
    let after = |used: usize| place(used).checked_add(layout.size()).filter(|end| *end <= SIZE);
    match USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after) {
        Ok(used) => POOL.0.get().cast::<u8>().wrapping_add(place(used)),
        Err(_) => null_mut(),
    }
}

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

// SAFETY: memory that is given out once, aligned because the pool is.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout)
    }

    unsafe fn dealloc(&self, _memory: *mut u8, _layout: Layout) {}
}

/// The machine, as the package wants to know it.
pub(crate) struct Platform;

// SAFETY: pages are given out once, aligned and zeroed; memory and devices are mapped one to one, and no device is referred to.
unsafe impl Hal for Platform {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let layout = pages.checked_mul(PAGE_SIZE).and_then(|bytes| Layout::from_size_align(bytes, PAGE_SIZE).ok());
        match layout.and_then(|layout| NonNull::new(take(layout))) {
            Some(memory) => (memory.addr().get() as PhysAddr, memory),
            // What the package takes for a failure.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(at: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(mmu::reach(at, Kind::Device) as *mut u8).expect("the bus's window is not at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.addr().get() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
