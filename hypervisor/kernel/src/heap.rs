//! The small heap of EL2.
//!
//! Answers for: objects of kernel and portable crates, none of them on the path of a guest exit. It starts in the image
//! and grows by page frames. Does not answer for: guest memory, stacks, translation tables.

use crate::frames::{self, Owner};
use crate::sync::{Lock, Rank};
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use types::PAGE_SIZE;

/// What the image brings along: enough to read the machine's device tree.
const INITIAL: usize = 192 * 1024;

/// By how many pages the heap grows at least.
const GROWTH: usize = 64;

/// Largest block class: 2^31 bytes.
const ORDERS: usize = 32;

#[repr(align(4096))]
struct Initial(#[expect(dead_code, reason = "reached by address only")] [u8; INITIAL]);
static mut FIRST: Initial = Initial([0; INITIAL]);

struct KernelHeap(Lock<Heap<ORDERS>>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(Lock::new(Rank::Heap, Heap::empty()));

/// Gives the heap its first memory. Once, before anything is allocated.
pub(crate) fn initialise() {
    let start = &raw mut FIRST as usize;
    // SAFETY: the memory is the heap's alone from now on.
    unsafe { HEAP.0.lock().init(start, INITIAL) };
}

/// Bytes in use, and bytes the heap has.
pub(crate) fn statistics() -> (usize, usize) {
    let heap = HEAP.0.lock();
    (heap.stats_alloc_actual(), heap.stats_total_bytes())
}

// SAFETY: blocks come from the buddy heap, which hands out each byte once; alignment up to the block's size is its nature.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut heap = self.0.lock();
        if let Ok(block) = heap.alloc(layout) {
            return block.as_ptr();
        }
        // A buddy needs the next power of two, aligned to itself.
        let size = layout.size().max(layout.align()).next_power_of_two();
        let pages = size.div_ceil(PAGE_SIZE as usize).max(GROWTH);
        let Some(frames) = frames::allocate(pages, pages.next_power_of_two(), Owner::Kernel) else {
            return ptr::null_mut();
        };
        let range = frames.leak();
        // SAFETY: fresh frames, mapped at their own address, kept for good.
        unsafe { heap.add_to_heap(range.start().0 as usize, range.end().0 as usize) };
        heap.alloc(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the block came from `alloc` with this layout (the contract of `GlobalAlloc`).
            unsafe { self.0.lock().dealloc(block, layout) };
        }
    }
}
