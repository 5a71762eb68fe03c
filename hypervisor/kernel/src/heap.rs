//! The small heaps of EL2: the kernel's, and one for each VM.
//!
//! Answers for: objects of kernel and portable crates, none of them on the path of a guest exit. The kernel's heap starts in
//! the image and grows by page frames. A VM's threads allocate from their VM's own heap, in a window of addresses of its
//! own: when the VM ends, however it ends, the whole heap is taken back at once, and nothing that a thread left behind when
//! it was abandoned is lost (docs/design/012-compartments.md). Does not answer for: guest memory, stacks, translation tables.
//!
//! What a VM's thread allocates while it holds one of the kernel's locks, or does the kernel's work
//! ([`crate::compartment::kernel_work`]), is the kernel's: it may outlive the VM.

use crate::address_space;
use crate::compartment;
use crate::frames::{self, MAX_VMS, Owner};
use crate::sync::{Lock, Masked, Rank};
use arrayvec::ArrayVec;
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use pagetable::El2Attributes;
use types::{Address, PAGE_SIZE, Pa, Range, Va, VmId};

/// What the image brings along: enough to read the machine's device tree.
const INITIAL: usize = 256 * 1024;

/// By how many pages the kernel's heap grows at least.
const GROWTH: usize = 64;

/// By how many pages a VM's heap grows at least.
const VM_GROWTH: usize = 16;

/// Largest block class: 2^31 bytes.
const ORDERS: usize = 32;

/// Where the VMs' heaps are: above the stacks.
const WINDOW: u64 = (1 << 47) + (1 << 46);

/// Distance of the VMs' heaps, and the most that one can have.
const STRIDE: u64 = 16 << 20;

/// Pieces that a VM's heap can be made of.
const MAX_PIECES: usize = 48;

#[repr(align(4096))]
struct Initial(#[expect(dead_code, reason = "reached by address only")] MaybeUninit<[u8; INITIAL]>);
// SAFETY: the section holds variables that nobody reads before they have been written.
#[unsafe(link_section = ".bss.uninitialised.heap")]
static mut FIRST: Initial = Initial(MaybeUninit::uninit());

struct KernelHeap(Lock<Heap<ORDERS>>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(Lock::new(Rank::Heap, Heap::empty()));

/// The VMs' heaps by number, to find the one that a block came from.
static VM_HEAPS: [AtomicPtr<VmHeap>; MAX_VMS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_VMS];

/// Gives the heap its first memory. Once, before anything is allocated.
pub(crate) fn initialise() {
    let start = &raw mut FIRST as usize;
    // SAFETY: the memory is the heap's alone from now on.
    unsafe { HEAP.0.lock().init(start, INITIAL) };
}

/// Bytes in use, and bytes the kernel's heap has.
pub(crate) fn statistics() -> (usize, usize) {
    let heap = HEAP.0.lock();
    (heap.stats_alloc_actual(), heap.stats_total_bytes())
}

impl KernelHeap {
    fn allocate(&self, layout: Layout) -> *mut u8 {
        let mut heap = self.0.lock();
        if let Ok(block) = heap.alloc(layout) {
            return block.as_ptr();
        }
        let pages = pages_for(layout).max(GROWTH);
        let Some(frames) = frames::allocate(pages, pages.next_power_of_two(), Owner::Kernel) else {
            return ptr::null_mut();
        };
        let range = frames.leak();
        // SAFETY: fresh frames, mapped at their own address, kept for good.
        unsafe { heap.add_to_heap(range.start().0 as usize, range.end().0 as usize) };
        heap.alloc(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}

/// A buddy needs the next power of two, aligned to itself.
fn pages_for(layout: Layout) -> usize {
    layout.size().max(layout.align()).next_power_of_two().div_ceil(PAGE_SIZE as usize)
}

struct Pieces {
    blocks: Heap<ORDERS>,
    /// What is mapped where.
    mapped: ArrayVec<(Range<Va>, Pa), MAX_PIECES>,
    /// First address that nothing has been mapped at.
    next: u64,
}

/// The heap of one VM, in memory of that VM. It stays where it is while it is registered.
pub(crate) struct VmHeap {
    id: VmId,
    pieces: Lock<Pieces>,
}

impl VmHeap {
    /// Empty; takes its first memory when something is allocated.
    pub(crate) fn new(id: VmId) -> Self {
        let next = WINDOW + STRIDE * id.index() as u64;
        Self { id, pieces: Lock::new(Rank::Heap, Pieces { blocks: Heap::empty(), mapped: ArrayVec::new(), next }) }
    }

    /// From now on its blocks find it.
    ///
    /// # Safety
    /// It stays where it is until [`VmHeap::destroy`] has been called.
    pub(crate) unsafe fn register(&self) {
        if let Some(slot) = VM_HEAPS.get(self.id.index()) {
            slot.store(ptr::from_ref(self).cast_mut(), Ordering::Release);
        }
    }

    /// Takes all its memory back, whatever is in it.
    ///
    /// # Safety
    /// Nobody uses anything in it any more.
    pub(crate) unsafe fn destroy(&self) {
        if let Some(slot) = VM_HEAPS.get(self.id.index()) {
            slot.store(ptr::null_mut(), Ordering::Release);
        }
        let mut pieces = self.pieces.lock();
        pieces.blocks = Heap::empty();
        for (at, frames) in core::mem::take(&mut pieces.mapped) {
            if address_space::unmap(at)
                && let Some(range) = Range::new(frames, at.length())
            {
                frames::release(range, Owner::Vm(self.id));
            }
        }
    }

    /// Bytes in use, and bytes it has.
    pub(crate) fn statistics(&self) -> (usize, usize) {
        let pieces = self.pieces.lock();
        (pieces.blocks.stats_alloc_actual(), pieces.blocks.stats_total_bytes())
    }

    fn allocate(&self, layout: Layout) -> *mut u8 {
        let mut pieces = self.pieces.lock();
        if let Ok(block) = pieces.blocks.alloc(layout) {
            return block.as_ptr();
        }
        if self.grow(&mut pieces, pages_for(layout)).is_none() {
            return ptr::null_mut();
        }
        pieces.blocks.alloc(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// Maps memory for a block of `pages`, a power of two, behind what there is.
    fn grow(&self, pieces: &mut Pieces, pages: usize) -> Option<()> {
        let alignment = pages as u64 * PAGE_SIZE;
        // The larger the heap, the larger the steps: the number of pieces is bounded.
        let pages = pages.max(VM_GROWTH).max(pieces.blocks.stats_total_bytes() / PAGE_SIZE as usize / 4);
        let end_of_window = WINDOW + STRIDE * (self.id.index() as u64 + 1);
        let range = Range::new(Va(pieces.next.next_multiple_of(alignment)), pages as u64 * PAGE_SIZE)?;
        if pieces.mapped.is_full() || range.end().as_u64() > end_of_window {
            return None;
        }
        let frames = frames::allocate(pages, 1, Owner::Vm(self.id))?;
        address_space::map_at(range, frames.start(), El2Attributes::Data).ok()?;
        pieces.mapped.push((range, frames.leak().start()));
        pieces.next = range.end().as_u64();
        // SAFETY: fresh frames, mapped just now for this heap alone.
        unsafe { pieces.blocks.add_to_heap(range.start().as_u64() as usize, range.end().as_u64() as usize) };
        Some(())
    }
}

/// The heap in whose window `address` is; `None`: the kernel's.
fn owner(address: usize) -> Option<&'static VmHeap> {
    let number = (address as u64).checked_sub(WINDOW)? / STRIDE;
    let heap = VM_HEAPS.get(number as usize)?.load(Ordering::Acquire);
    // SAFETY: null, or a heap that is registered: it is unregistered when nobody has anything of it any more.
    unsafe { heap.as_ref() }
}

// SAFETY: blocks come from buddy heaps, which hand out each byte once; alignment up to the block's size is their nature.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _masked = Masked::new();
        match compartment::here() {
            Some(compartment) => {
                let block = compartment.heap.allocate(layout);
                if block.is_null() {
                    compartment.note_out_of_memory();
                }
                block
            }
            None => self.allocate(layout),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(pointer) = NonNull::new(block) else { return };
        match owner(block as usize) {
            // SAFETY: the block came from this heap's `alloc` with this layout (the contract of `GlobalAlloc`).
            Some(heap) => unsafe { heap.pieces.lock().blocks.dealloc(pointer, layout) },
            // SAFETY: as above; a block of a VM that is no more cannot be here, for its memory is not mapped.
            None => unsafe { self.0.lock().dealloc(pointer, layout) },
        }
    }
}
