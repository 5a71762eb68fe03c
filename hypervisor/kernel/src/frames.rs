//! Page frames: who has which part of RAM.
//!
//! Answers for: giving out RAM by pages of 4 KiB in contiguous pieces of any size and alignment, and taking it back; how
//! much each owner has. Does not answer for: small objects (`heap`), contents (whoever takes memory from a guest has
//! scrubbed it), translation, nor for who may have how much (`host::ledger`).
//!
//! One bit a page, in the RAM that it describes. Whole words are skipped, so that a search for 2 MiB looks at 64 pages a
//! step. Large pieces are searched from the bottom, single pages from the top, to keep large pieces whole.

use crate::sync::{Lock, Rank};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicUsize, Ordering};
use host::ledger::{Claim, Ledger};
use types::{PAGE_SIZE, Pa, Range, VmId};

/// Banks of RAM that can be managed; firmware describes few.
const MAX_BANKS: usize = 16;

/// VMs whose memory can be accounted for at once.
pub(crate) const MAX_VMS: usize = 128;

/// Pages kept back for the hypervisor itself: no VM and no file gets the last of them.
const RESERVE: usize = 512;

/// Who has a piece of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The hypervisor.
    Kernel,
    /// A VM: its RAM and its tables.
    Vm(VmId),
    /// The same, out of what has been promised to it ([`Promise`]): what it gives back is promised again.
    Promised(VmId),
    /// Files in RAM.
    Files,
    /// Memory that VMs share.
    Shared,
}

static OWNED_BY_KERNEL: AtomicUsize = AtomicUsize::new(0);
static OWNED_BY_FILES: AtomicUsize = AtomicUsize::new(0);
static OWNED_BY_SHARED: AtomicUsize = AtomicUsize::new(0);
static OWNED_BY_VM: [AtomicUsize; MAX_VMS] = [const { AtomicUsize::new(0) }; MAX_VMS];

impl Owner {
    fn account(self) -> Option<&'static AtomicUsize> {
        match self {
            Self::Kernel => Some(&OWNED_BY_KERNEL),
            Self::Files => Some(&OWNED_BY_FILES),
            Self::Shared => Some(&OWNED_BY_SHARED),
            Self::Vm(id) | Self::Promised(id) => OWNED_BY_VM.get(id.index()),
        }
    }

    /// What it may take.
    fn claim(self) -> Claim {
        match self {
            Self::Kernel => Claim::Host,
            Self::Vm(_) | Self::Files | Self::Shared => Claim::Anyone,
            Self::Promised(id) => Claim::Promised(id),
        }
    }

    /// Pages this owner has.
    pub(crate) fn pages(self) -> usize {
        self.account().map_or(0, |account| account.load(Ordering::Relaxed))
    }
}

/// A contiguous piece of RAM. Dropping it gives it back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Frames {
    range: Range<Pa>,
    owner: Owner,
}

impl Frames {
    pub(crate) fn range(&self) -> Range<Pa> {
        self.range
    }

    pub(crate) fn start(&self) -> Pa {
        self.range.start()
    }

    /// Keeps the memory for good.
    pub(crate) fn leak(self) -> Range<Pa> {
        let range = self.range;
        core::mem::forget(self);
        range
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        release(self.range, self.owner);
    }
}

struct Bank {
    range: Range<Pa>,
    /// A set bit is a free page.
    free: &'static mut [u64],
}

impl Bank {
    fn pages(&self) -> usize {
        (self.range.length() / PAGE_SIZE) as usize
    }

    fn set(&mut self, first: usize, count: usize, free: bool) {
        let words = Words::of(first, count);
        for (index, mask) in words.edges.into_iter().flatten() {
            if let Some(word) = self.free.get_mut(index) {
                *word = if free { *word | mask } else { *word & !mask };
            }
        }
        if let Some(whole) = self.free.get_mut(words.whole) {
            whole.fill(if free { u64::MAX } else { 0 });
        }
    }

    /// How many of these pages are free.
    fn count_free(&self, first: usize, count: usize) -> usize {
        let words = Words::of(first, count);
        let edges = words.edges.into_iter().flatten();
        let edges = edges.filter_map(|(index, mask)| Some((self.free.get(index)? & mask).count_ones()));
        let whole = self.free.get(words.whole).unwrap_or_default().iter().map(|word| word.count_ones());
        edges.chain(whole).sum::<u32>() as usize
    }

    /// First of `count` free pages whose address is a multiple of `alignment` pages, from the bottom.
    fn find(&self, count: usize, alignment: usize) -> Option<usize> {
        let base = (self.range.start().0 / PAGE_SIZE) as usize;
        let align = |page: usize| (base + page).next_multiple_of(alignment) - base;
        let mut first = align(self.first_free(0)?);
        while first + count <= self.pages() {
            match self.first_taken(first, count) {
                None => return Some(first),
                Some(taken) => first = align(self.first_free(taken + 1)?),
            }
        }
        None
    }

    /// The first free page from `first` on.
    fn first_free(&self, first: usize) -> Option<usize> {
        let rest = self.free.get(first / 64..)?;
        let begun = rest.first()? & u64::MAX << (first % 64);
        let (index, word) = match begun {
            0 => (1..).zip(rest.get(1..)?).find(|(_, word)| **word != 0).map(|(index, word)| (index, *word))?,
            word => (0, word),
        };
        Some((first / 64 + index) * 64 + word.trailing_zeros() as usize)
    }

    fn first_taken(&self, first: usize, count: usize) -> Option<usize> {
        let words = Words::of(first, count);
        let [low, high] = words.edges;
        let taken_in = |(index, mask): (usize, u64)| {
            let taken = !self.free.get(index)? & mask;
            (taken != 0).then(|| index * 64 + taken.trailing_zeros() as usize)
        };
        let from = words.whole.start;
        let whole = self.free.get(words.whole).unwrap_or_default();
        low.and_then(taken_in)
            .or_else(|| taken_in((from + whole.iter().position(|word| *word != u64::MAX)?, u64::MAX)))
            .or_else(|| high.and_then(taken_in))
    }

    /// The free page with the highest address.
    fn find_last(&self) -> Option<usize> {
        let (index, word) = self.free.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some(index * 64 + 63 - word.leading_zeros() as usize)
    }
}

/// The words that hold a range of bits. Whole ones are looked at without a mask: this is done with interrupts masked.
struct Words {
    /// The first and the last if they are not whole, each with a mask of their bits in the range; the first if they are one.
    edges: [Option<(usize, u64)>; 2],
    whole: core::ops::Range<usize>,
}

impl Words {
    /// Those of the bits `first` to `first + count - 1`.
    fn of(first: usize, count: usize) -> Self {
        let end = first + count;
        let (low, high) = (u64::MAX << (first % 64), !(u64::MAX << (end % 64)));
        let (from, to) = (first.div_ceil(64), end / 64);
        if from > to {
            return Self { edges: [Some((to, low & high)), None], whole: 0..0 };
        }
        let lower = (!first.is_multiple_of(64)).then_some((first / 64, low));
        let upper = (!end.is_multiple_of(64)).then_some((to, high));
        Self { edges: [lower, upper], whole: from..to }
    }
}

struct Allocator {
    banks: ArrayVec<Bank, MAX_BANKS>,
    ledger: Ledger<MAX_VMS>,
    total: usize,
}

static ALLOCATOR: Lock<Allocator> =
    Lock::new(Rank::Frames, Allocator { banks: ArrayVec::new_const(), ledger: Ledger::new(RESERVE), total: 0 });

/// Takes over `memory`, except what is in `reserved` or not whole pages.
///
/// # Safety
/// The memory is RAM, mapped at its own address, and what is not `reserved` is nobody's.
pub(crate) unsafe fn initialise(memory: &[Range<Pa>], reserved: &[Range<Pa>]) {
    let mut allocator = ALLOCATOR.lock();
    for bank in memory.iter().take(MAX_BANKS) {
        let Some(start) = bank.start().align_up(PAGE_SIZE) else { continue };
        let range = Range::between(start, bank.end().align_down(PAGE_SIZE));
        let words = (range.length() / PAGE_SIZE).div_ceil(64) as usize;
        let Some(at) = place_bitmap(range, (words * 8) as u64, reserved) else { continue };
        // SAFETY: free RAM, aligned to a page; nobody else refers to it (the caller's promise), and it is kept for good.
        let free = unsafe { core::slice::from_raw_parts_mut(at.start().0 as *mut u64, words) };
        // What is not a page; all else is set.
        if let Some(last) = free.last_mut() {
            *last = 0;
        }
        let mut new = Bank { range, free };
        new.set(0, new.pages(), true);
        // What of them is taken is little: counting the bits of all would take longer than all else here.
        let mut free = new.pages();
        for taken in reserved.iter().chain([&at]).filter(|taken| taken.overlaps(&range)) {
            let first = taken.start().max(range.start()).align_down(PAGE_SIZE);
            let end = taken.end().min(range.end()).align_up(PAGE_SIZE).unwrap_or(range.end());
            let (page, count) = ((first.0 - range.start().0) / PAGE_SIZE, (end.0 - first.0) / PAGE_SIZE);
            free -= new.count_free(page as usize, count as usize);
            new.set(page as usize, count as usize, false);
        }
        allocator.ledger.give(free, Claim::Anyone);
        allocator.total += new.pages();
        allocator.banks.push(new);
    }
}

/// Room for a bank's bitmap at its upper end, out of everybody's way.
fn place_bitmap(bank: Range<Pa>, bytes: u64, reserved: &[Range<Pa>]) -> Option<Range<Pa>> {
    let bytes = bytes.next_multiple_of(PAGE_SIZE);
    let mut end = bank.end();
    loop {
        let start = Pa(end.0.checked_sub(bytes)?);
        if start < bank.start() {
            return None;
        }
        let candidate = Range::between(start, end);
        match reserved.iter().filter(|taken| taken.overlaps(&candidate)).map(Range::start).min() {
            None => return Some(candidate),
            Some(lower) => end = lower.align_down(PAGE_SIZE),
        }
    }
}

/// `pages` contiguous pages at a multiple of `alignment` pages (a power of two). `None` if there are none, or if a VM or a
/// file wants what the hypervisor needs itself, or somebody what others have been promised. The contents are arbitrary.
pub(crate) fn allocate(pages: usize, alignment: usize, owner: Owner) -> Option<Frames> {
    let mut allocator = ALLOCATOR.lock();
    if pages == 0 || !allocator.ledger.may_take(pages, owner.claim()) {
        return None;
    }
    let range = allocator.banks.iter_mut().find_map(|bank| {
        let first = if pages == 1 && alignment == 1 { bank.find_last() } else { bank.find(pages, alignment) }?;
        bank.set(first, pages, false);
        Range::new(Pa(bank.range.start().0 + first as u64 * PAGE_SIZE), pages as u64 * PAGE_SIZE)
    })?;
    allocator.ledger.take(pages, owner.claim());
    if let Some(account) = owner.account() {
        account.fetch_add(pages, Ordering::Relaxed);
    }
    Some(Frames { range, owner })
}

/// Just this memory, if all of it is RAM that nobody has, and the same may be taken.
pub(crate) fn allocate_at(range: Range<Pa>, owner: Owner) -> Option<Frames> {
    let mut allocator = ALLOCATOR.lock();
    let pages = (range.length() / PAGE_SIZE) as usize;
    if pages == 0 || !range.is_aligned(PAGE_SIZE) || !allocator.ledger.may_take(pages, owner.claim()) {
        return None;
    }
    let bank = allocator.banks.iter_mut().find(|bank| bank.range.contains_range(&range))?;
    let first = ((range.start().0 - bank.range.start().0) / PAGE_SIZE) as usize;
    if bank.first_taken(first, pages).is_some() {
        return None;
    }
    bank.set(first, pages, false);
    allocator.ledger.take(pages, owner.claim());
    if let Some(account) = owner.account() {
        account.fetch_add(pages, Ordering::Relaxed);
    }
    Some(Frames { range, owner })
}

/// `bytes` of RAM in as few pieces as there are, the largest first, each a multiple of the page and, as long as enough is
/// left to take, aligned to and made of 2 MiB blocks. `None`, and nothing taken, if there is not enough.
pub(crate) fn allocate_pieces(bytes: u64, owner: Owner, mut go_on: impl FnMut(usize) -> bool) -> Option<Vec<Frames>> {
    const BLOCK: usize = 512;
    let mut left = (bytes / PAGE_SIZE) as usize;
    let mut pieces = Vec::new();
    let mut attempt = left;
    while left > 0 {
        attempt = attempt.min(left);
        let alignment = if attempt >= BLOCK { BLOCK } else { 1 };
        match allocate(attempt, alignment, owner) {
            Some(frames) => {
                left -= attempt;
                pieces.push(frames);
                if !go_on(pieces.len()) {
                    return None;
                }
            }
            None if attempt == 1 => return None,
            // Half as much, in whole blocks while there are any.
            None if attempt > BLOCK => attempt = (attempt / 2).next_multiple_of(BLOCK).min(attempt - 1),
            None => attempt = attempt.div_ceil(2).min(attempt - 1),
        }
    }
    Some(pieces)
}

/// Takes back what [`Frames::leak`] has let go.
pub(crate) fn release(range: Range<Pa>, owner: Owner) {
    put_back(range, owner.claim());
    if let Some(account) = owner.account() {
        account.fetch_sub((range.length() / PAGE_SIZE) as usize, Ordering::Relaxed);
    }
}

/// Takes over the whole pages in what was `reserved` when the allocator began.
///
/// # Safety
/// The memory is mapped as all RAM is, and nobody refers to it any more.
pub(crate) unsafe fn take_over(reserved: Range<Pa>) {
    if let Some(start) = reserved.start().align_up(PAGE_SIZE) {
        put_back(Range::between(start, reserved.end().align_down(PAGE_SIZE)), Claim::Anyone);
    }
}

fn put_back(range: Range<Pa>, claim: Claim) {
    let mut allocator = ALLOCATOR.lock();
    let pages = (range.length() / PAGE_SIZE) as usize;
    if let Some(bank) = allocator.banks.iter_mut().find(|bank| bank.range.contains_range(&range)) {
        let first = ((range.start().0 - bank.range.start().0) / PAGE_SIZE) as usize;
        bank.set(first, pages, true);
        allocator.ledger.give(pages, claim);
    }
}

/// Pages that nobody has and nobody has been promised, and pages there are.
pub(crate) fn statistics() -> (usize, usize) {
    let allocator = ALLOCATOR.lock();
    (allocator.ledger.free(), allocator.total)
}

/// Pages that nobody has and some VM has been promised.
pub(crate) fn promised() -> usize {
    ALLOCATOR.lock().ledger.promised()
}

/// Pages that a VM may have at any time, until it is dropped: what [`Owner::Promised`] draws upon.
#[derive(Debug)]
pub(crate) struct Promise(VmId);

impl Promise {
    /// `None` if there are not so many.
    pub(crate) fn new(id: VmId, pages: usize) -> Option<Self> {
        let promise = Self(id);
        promise.raise(pages).then_some(promise)
    }

    /// So many pages more. Says whether there are so many.
    pub(crate) fn raise(&self, pages: usize) -> bool {
        ALLOCATOR.lock().ledger.promise(self.0, pages)
    }

    /// So many pages less.
    pub(crate) fn lower(&self, pages: usize) {
        ALLOCATOR.lock().ledger.release(self.0, pages);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.lower(usize::MAX);
    }
}
