//! EL2's own address space.
//!
//! Answers for: what EL2 can reach and how: its code executable and not writable, everything else not executable (W^X);
//! RAM and devices at their physical addresses; stacks in a window of their own, each above an unmapped guard. Does not
//! answer for: guests' address spaces (`stage2`).

use crate::frames::{self, Owner};
use crate::sync::{Lock, Rank};
use core::mem::MaybeUninit;
use core::ptr;
use el2::mmu::Translation;
use pagetable::{El2Attributes, El2Stage1, Maintenance, PaRange, Stale, TablePool};
use types::{Address, PAGE_SIZE, Pa, Range, Va};

/// Tables for the time before there are frames.
const EARLY_TABLES: usize = 24;

/// Where the stacks are: above every physical address that a machine with 47 bits of them could have.
const STACK_WINDOW: u64 = 1 << 47;

/// Distance of the stacks: `vectors.S` tells stack from guard by bit 16 of the address. (The linker script places the boot
/// CPU's first stack by the same rule.)
const STACK_SLOT: u64 = 0x2_0000;

/// Stacks there can be: more than threads and CPUs.
const MAX_STACKS: usize = 1024;

/// Size of a stack: the upper half of its slot.
pub(crate) const STACK_SIZE: u64 = 0x1_0000;

#[repr(align(4096))]
struct Early(#[expect(dead_code, reason = "reached by address only")] MaybeUninit<[[u64; 512]; EARLY_TABLES]>);
// SAFETY: the section holds variables that nobody reads before they have been written.
#[unsafe(link_section = ".bss.uninitialised.tables")]
static mut EARLY: Early = Early(MaybeUninit::uninit());

/// The tables' memory: first from the image, later from frames.
struct Pool {
    /// A bit for each table of the image that is in use.
    early: u32,
}

const _: () = assert!(EARLY_TABLES <= 32);

impl TablePool for Pool {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        let early = self.early.trailing_ones() as usize;
        let table = if pages == 1 && early < EARLY_TABLES {
            self.early |= 1 << early;
            Range::new(Pa(&raw mut EARLY as u64 + early as u64 * PAGE_SIZE), PAGE_SIZE)?
        } else {
            frames::allocate(pages, pages, Owner::Kernel)?.leak()
        };
        // SAFETY: a free table of the image or fresh frames: ours, mapped at their own address.
        unsafe { ptr::write_bytes(table.start().0 as *mut u8, 0, table.length() as usize) };
        Some(table.start())
    }

    fn free(&mut self, table: Pa, pages: usize) {
        let early = table.0.wrapping_sub(&raw mut EARLY as u64) / PAGE_SIZE;
        if early < EARLY_TABLES as u64 {
            self.early &= !(1 << early);
        } else if let Some(frames) = Range::new(table, pages as u64 * PAGE_SIZE) {
            frames::release(frames, Owner::Kernel);
        }
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        // SAFETY: a table of ours; the index is below 512 (contract of the trait).
        unsafe { ptr::read_volatile((table.0 as *const u64).wrapping_add(index)) }
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        // SAFETY: a table of ours; the index is below 512 (contract of the trait). One 64-bit store.
        unsafe { ptr::write_volatile((table.0 as *mut u64).wrapping_add(index), descriptor) };
    }
}

/// Maintenance of EL2's translations on all CPUs.
struct Live;

impl Maintenance<Va> for Live {
    fn publish(&mut self) {
        el2::tlb::publish();
    }

    fn invalidate(&mut self, range: Range<Va>, _stale: Stale) {
        if range.length() <= 16 * PAGE_SIZE {
            for page in (range.start().as_u64()..range.end().as_u64()).step_by(PAGE_SIZE as usize) {
                el2::tlb::invalidate_el2_page(page);
            }
        } else {
            el2::tlb::invalidate_el2();
        }
    }
}

struct Space {
    tables: Option<El2Stage1>,
    pool: Pool,
    /// A bit for each slot of the stack window that is taken.
    stacks: [u64; MAX_STACKS / 64],
}

static SPACE: Lock<Space> =
    Lock::new(Rank::AddressSpace, Space { tables: None, pool: Pool { early: 0 }, stacks: [0; MAX_STACKS / 64] });

/// The image's parts, from the linker script.
pub(crate) struct Image {
    pub(crate) text: Range<Pa>,
    pub(crate) rodata: Range<Pa>,
    pub(crate) data: Range<Pa>,
    /// What the place of the boot stack leaves between the data and that stack's guard: RAM that nobody has.
    pub(crate) spare: Range<Pa>,
    /// The boot CPU's first stack. The page below it is its guard.
    pub(crate) boot_stack: Range<Pa>,
}

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __boot_guard_start: u8;
    static __boot_stack_start: u8;
    static __boot_stack_end: u8;
}

impl Image {
    pub(crate) fn here() -> Self {
        let between = |start: *const u8, end: *const u8| Range::between(Pa(start as u64), Pa(end as u64));
        Self {
            text: between(&raw const __text_start, &raw const __text_end),
            rodata: between(&raw const __rodata_start, &raw const __rodata_end),
            data: between(&raw const __data_start, &raw const __data_end),
            spare: between(&raw const __data_end, &raw const __boot_guard_start),
            boot_stack: between(&raw const __boot_stack_start, &raw const __boot_stack_end),
        }
    }

    pub(crate) fn whole(&self) -> Range<Pa> {
        Range::between(self.text.start(), self.boot_stack.end())
    }
}

/// EL2's address space cannot be built.
#[derive(Debug)]
pub(crate) struct MapFailed(pub(crate) Range<Pa>);

/// The first tables: the image, and the RAM around it. The MMU is still off, so no lock may be taken (there are no
/// exclusives yet): the tables are handed over by [`adopt`] when it is on.
pub(crate) struct FirstTables {
    tables: El2Stage1,
    pool: Pool,
}

impl FirstTables {
    /// # Errors
    /// If the early tables do not suffice, or the image does not lie in `bank`.
    pub(crate) fn build(image: &Image, bank: Range<Pa>, tree: Range<Pa>) -> Result<Self, MapFailed> {
        let mut pool = Pool { early: 0 };
        let tables = El2Stage1::new(pa_range(), &mut pool).ok_or(MapFailed(bank))?;
        let mut first = Self { tables, pool };
        let whole = image.whole();
        first.map(Range::between(bank.start(), whole.start()), El2Attributes::Data)?;
        first.map(image.text, El2Attributes::Code)?;
        first.map(Range::between(image.text.end(), image.rodata.start()), El2Attributes::ReadOnly)?;
        first.map(image.rodata, El2Attributes::ReadOnly)?;
        first.map(image.data, El2Attributes::Data)?;
        first.map(image.spare, El2Attributes::Data)?;
        first.map(image.boot_stack, El2Attributes::Data)?;
        first.map(Range::between(whole.end(), bank.end()), El2Attributes::Data)?;
        if !bank.contains_range(&tree) {
            let pages = Range::between(
                tree.start().align_down(PAGE_SIZE),
                tree.end().align_up(PAGE_SIZE).unwrap_or(tree.end()),
            );
            first.map(pages, El2Attributes::ReadOnly)?;
        }
        Ok(first)
    }

    pub(crate) fn map(&mut self, range: Range<Pa>, attributes: El2Attributes) -> Result<(), MapFailed> {
        map_identity(&mut self.tables, &mut self.pool, range, attributes)
    }

    pub(crate) fn translation(&self) -> Translation {
        Translation::new(self.tables.root(), El2Stage1::tcr(pa_range()), El2Stage1::mair())
    }

    /// From now on the address space is changed through this module's functions.
    pub(crate) fn adopt(self) {
        let mut space = SPACE.lock();
        space.tables = Some(self.tables);
        space.pool = self.pool;
    }
}

fn pa_range() -> PaRange {
    PaRange::from_id_aa64mmfr0(el2::mmu::memory_model_features())
}

fn map_identity(
    tables: &mut El2Stage1,
    pool: &mut Pool,
    range: Range<Pa>,
    attributes: El2Attributes,
) -> Result<(), MapFailed> {
    let virtual_range = Range::between(Va(range.start().0), Va(range.end().0));
    if virtual_range.is_empty() {
        return Ok(());
    }
    tables
        .map(virtual_range, range.start(), attributes, usize::MAX, pool, &mut Live)
        .map(|_| ())
        .map_err(|_| MapFailed(range))
}

/// Maps `range`, whole pages, at its own address.
///
/// # Errors
/// If part of it is mapped already, or there is no memory for tables.
pub(crate) fn map(range: Range<Pa>, attributes: El2Attributes) -> Result<(), MapFailed> {
    let mut space = SPACE.lock();
    let Space { tables, pool, .. } = &mut *space;
    map_identity(tables.as_mut().ok_or(MapFailed(range))?, pool, range, attributes)
}

/// Sees to it that a device's registers are mapped at their own address: `range`, whole pages, of which some may be mapped for it already.
///
/// # Errors
/// If something else is mapped there, or there is no memory for tables.
pub(crate) fn reach_device(range: Range<Pa>) -> Result<(), MapFailed> {
    let mut space = SPACE.lock();
    let Space { tables, pool, .. } = &mut *space;
    let tables = tables.as_mut().ok_or(MapFailed(range))?;
    for start in (range.start().0..range.end().0).step_by(PAGE_SIZE as usize) {
        let page = Range::new(Pa(start), PAGE_SIZE).ok_or(MapFailed(range))?;
        match tables.lookup(Va(start), pool) {
            Some(mapping) if mapping.attributes == El2Attributes::Device => {}
            Some(_) => return Err(MapFailed(page)),
            None => map_identity(tables, pool, page, El2Attributes::Device)?,
        }
    }
    Ok(())
}

/// Maps `range`, whole pages outside of every identity mapping, to RAM from `to` on.
///
/// # Errors
/// If part of it is mapped already, or there is no memory for tables.
pub(crate) fn map_at(range: Range<Va>, to: Pa, attributes: El2Attributes) -> Result<(), MapFailed> {
    let failed = || MapFailed(Range::between(to, to));
    let mut space = SPACE.lock();
    let Space { tables, pool, .. } = &mut *space;
    let tables = tables.as_mut().ok_or_else(failed)?;
    tables.map(range, to, attributes, usize::MAX, pool, &mut Live).map(drop).map_err(|_| failed())
}

/// Takes back what [`map_at`] has mapped. Says whether nothing can reach it there any more.
pub(crate) fn unmap(range: Range<Va>) -> bool {
    let mut space = SPACE.lock();
    let Space { tables, pool, .. } = &mut *space;
    let unmapped = tables.as_mut().map(|tables| tables.unmap(range, usize::MAX, pool, &mut Live));
    matches!(unmapped, Some(Ok(_)))
}

/// The parameters with which another CPU turns its MMU on.
pub(crate) fn translation() -> Option<Translation> {
    let space = SPACE.lock();
    let root = space.tables.as_ref()?.root();
    Some(Translation::new(root, El2Stage1::tcr(pa_range()), El2Stage1::mair()))
}

/// A thread's stack, with an unmapped guard below it. Dropping it gives the memory back.
#[derive(Debug)]
pub(crate) struct Stack {
    slot: u64,
    frames: Option<frames::Frames>,
}

impl Stack {
    /// `None` if there is no memory for it.
    pub(crate) fn new() -> Option<Self> {
        let frames = frames::allocate((STACK_SIZE / PAGE_SIZE) as usize, 1, Owner::Kernel)?;
        let mut space = SPACE.lock();
        let Space { tables, pool, stacks } = &mut *space;
        let (word, taken) = stacks.iter_mut().enumerate().find(|(_, taken)| **taken != u64::MAX)?;
        let bit = taken.trailing_ones();
        let mut stack = Self { slot: word as u64 * 64 + u64::from(bit), frames: None };
        let tables = tables.as_mut()?;
        let _whole =
            tables.map(stack.range(), frames.start(), El2Attributes::Data, usize::MAX, pool, &mut Live).ok()?;
        *taken |= 1 << bit;
        stack.frames = Some(frames);
        Some(stack)
    }

    fn range(&self) -> Range<Va> {
        let end = STACK_WINDOW + (self.slot + 1) * STACK_SLOT;
        Range::between(Va(end - STACK_SIZE), Va(end))
    }

    /// First address above the stack.
    pub(crate) fn end(&self) -> usize {
        self.range().end().as_u64() as usize
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let Some(frames) = self.frames.take() else { return };
        let mut space = SPACE.lock();
        let Space { tables, pool, stacks, .. } = &mut *space;
        let unmapped = tables.as_mut().map(|tables| tables.unmap(self.range(), usize::MAX, pool, &mut Live));
        if matches!(unmapped, Some(Ok(_)))
            && let Some(taken) = stacks.get_mut((self.slot / 64) as usize)
        {
            *taken &= !(1 << (self.slot % 64));
            drop(space);
            drop(frames);
        } else {
            drop(space);
            frames.leak();
        }
    }
}

/// Whether `address` lies within the same stack as `sp`, so that a frame pointer may be followed there.
pub(crate) fn same_stack(sp: u64, address: u64) -> bool {
    if sp >= STACK_WINDOW {
        sp / STACK_SLOT == address / STACK_SLOT && address & STACK_SIZE != 0
    } else {
        let stack = Image::here().boot_stack;
        stack.contains(Pa(sp)) && stack.contains(Pa(address))
    }
}
