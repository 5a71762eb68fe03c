//! A VM's RAM and ROM as the hypervisor reaches them.
//!
//! Answers for: which frames stand behind which guest-physical address, and copying to and fro. Does not answer for: what
//! the guest itself may do there (`stage2`), nor for RAM of which pages come and go ([`loan`]).

mod loan;
mod shadow;

pub(crate) use loan::{BalloonHandle, Loan, Refused};
pub(crate) use shadow::Shadow;

use crate::compartment::Compartment;
use crate::frames::{self, Frames, Owner};
use crate::stage2::GuestSpace;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use types::{AccessSize, Ipa, PAGE_SIZE, Pa, Range};
use vdev::{GuestMemory, MemoryFault};

/// Zeroing and cleaning, which may be done with interrupts masked, go on in steps of so many bytes, with a chance to be preempted
/// between them.
const STEP: u64 = 64 * 1024;

#[derive(Debug)]
struct Piece {
    guest: Range<Ipa>,
    frames: Frames,
}

/// The VM's memory. Dropping it gives the frames back: [`GuestRam::scrub`] comes first.
pub(crate) struct GuestRam {
    /// Sorted by guest address, disjoint.
    pieces: Vec<Piece>,
    /// Pages from which the guest reads registers. They are no memory of its: no other call finds them, so that no device can be made
    /// to write there, or anybody to take them.
    shadows: Vec<Piece>,
    /// The piece that was found last: a guess.
    last: AtomicUsize,
    /// What the guest can give back, which is in no piece.
    loan: Option<Loan>,
}

impl GuestRam {
    /// Takes frames for all of `regions`; for those in `unity` the ones at the same address. `None`, and nothing taken, if there are
    /// not enough, or somebody has these.
    pub(crate) fn allocate(owner: Owner, regions: &[Range<Ipa>], unity: &[Range<Ipa>]) -> Option<Self> {
        let mut pieces = Vec::new();
        for region in unity {
            let frames = frames::allocate_at(Range::new(Pa(region.start().0), region.length())?, owner)?;
            pieces.push(Piece { guest: *region, frames });
        }
        for region in regions {
            let mut at = region.start();
            for frames in frames::allocate_pieces(region.length(), owner, |_| true)? {
                let guest = Range::new(at, frames.range().length())?;
                at = guest.end();
                pieces.push(Piece { guest, frames });
            }
        }
        types::sort_by(&mut pieces, |a: &Piece, b: &Piece| a.guest.start().cmp(&b.guest.start()));
        Some(Self { pieces, shadows: Vec::new(), last: AtomicUsize::new(0), loan: None })
    }

    /// The same for one region and at most so many pieces; between any two `go_on` says whether there is still a point in it.
    pub(crate) fn allocate_in_steps(
        owner: Owner,
        region: Range<Ipa>,
        most: usize,
        mut go_on: impl FnMut() -> bool,
    ) -> Option<Self> {
        let mut at = region.start();
        let mut pieces = Vec::new();
        for frames in frames::allocate_pieces(region.length(), owner, |count| count <= most && go_on())? {
            let guest = Range::new(at, frames.range().length())?;
            at = guest.end();
            pieces.push(Piece { guest, frames });
        }
        Some(Self { pieces, shadows: Vec::new(), last: AtomicUsize::new(0), loan: None })
    }

    /// The same with pages for registers. `None` if there are not enough frames.
    pub(crate) fn with_shadows(mut self, owner: Owner, pages: impl Iterator<Item = Range<Ipa>>) -> Option<Self> {
        for guest in pages {
            self.shadows.push(Piece { guest, frames: frames::allocate(1, 1, owner)? });
        }
        Some(self)
    }

    /// Guest range and host address of each page for registers.
    pub(crate) fn shadows(&self) -> impl Iterator<Item = (Range<Ipa>, Pa)> {
        self.shadows.iter().map(|piece| (piece.guest, piece.frames.start()))
    }

    /// From now on the guest can give back what is in `regions`, all of which `space` maps. One that `lends` is promised nothing of it.
    /// `None` if the tables that may take cannot be promised.
    pub(crate) fn lend(
        mut self,
        compartment: &'static Compartment,
        regions: &[Range<Ipa>],
        space: &Arc<GuestSpace>,
        lends: bool,
    ) -> Option<Self> {
        let loan = Loan::new(compartment, regions, space, lends)?;
        let is_lent = |piece: &Piece| regions.iter().any(|region| region.contains_range(&piece.guest));
        let (lent, kept): (Vec<_>, Vec<_>) = self.pieces.into_iter().partition(is_lent);
        lent.into_iter().for_each(|piece| _ = piece.frames.leak());
        (self.pieces, self.loan) = (kept, Some(loan));
        Some(self)
    }

    /// What the guest can give back, if anything.
    pub(crate) fn loan(&self) -> Option<&Loan> {
        self.loan.as_ref()
    }

    /// Guest range and host address of each contiguous piece that stays where it is.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (Range<Ipa>, Pa)> {
        self.pieces.iter().map(|piece| (piece.guest, piece.frames.start()))
    }

    /// Overwrites everything with zeroes, down to the point of coherency: before a guest gets it (with its caches off, it
    /// would see what is in memory, not what is in our caches), and after the last guest had it. Between any two steps
    /// `go_on` says whether there is still a point in it.
    pub(crate) fn scrub(&self, go_on: impl FnMut() -> bool) {
        // SAFETY: frames of ours, whole pages; the guest does not run.
        self.each_step(|start, length| unsafe { el2::cache::zero_and_clean(start, length) }, go_on);
    }

    /// Writes back and drops everything of this VM in the data caches: what a guest wants that cleans by set and way. Between
    /// any two steps `go_on` says whether there is still a point in it.
    pub(crate) fn clean_caches(&self, go_on: impl FnMut() -> bool) {
        // SAFETY: frames of ours; maintenance changes no contents.
        self.each_step(|start, length| unsafe { el2::cache::clean_and_invalidate(start, length) }, go_on);
    }

    /// Host address and length of all there is, in steps; between any two `go_on` says whether there is still a point in it.
    fn each_step(&self, mut work: impl FnMut(usize, usize), mut go_on: impl FnMut() -> bool) {
        for piece in self.pieces.iter().chain(&self.shadows) {
            let start = piece.frames.start().0;
            let length = piece.guest.length();
            for offset in (0..length).step_by(STEP as usize) {
                if !go_on() {
                    return;
                }
                work((start + offset) as usize, STEP.min(length - offset) as usize);
            }
        }
        if let Some(loan) = &self.loan {
            loan.each_step(&mut work, &mut go_on);
        }
    }

    /// Host address of `at`, and how many bytes follow in the same piece.
    #[inline(always)]
    fn find(&self, at: Ipa) -> Result<(usize, usize), MemoryFault> {
        // Mostly it is the piece that was asked for last.
        let last = self.last.load(Ordering::Relaxed);
        let piece = match self.pieces.get(last) {
            Some(piece) if piece.guest.contains(at) => piece,
            _ => self.search(at)?,
        };
        let offset = at.0 - piece.guest.start().0;
        Ok(((piece.frames.start().0 + offset) as usize, (piece.guest.length() - offset) as usize))
    }

    #[inline(never)]
    fn search(&self, at: Ipa) -> Result<&Piece, MemoryFault> {
        let index = self.pieces.partition_point(|piece| piece.guest.end() <= at);
        self.last.store(index, Ordering::Relaxed);
        self.pieces.get(index).filter(|piece| piece.guest.contains(at)).ok_or(MemoryFault { at })
    }

    /// Calls `copy` with host address, offset and length of each contiguous part of the range, after all of it has been
    /// found to be ours. Of a page that is not there the address is `None`, if it is to be read only; else it comes back.
    fn each(
        &self,
        at: Ipa,
        length: usize,
        writes: bool,
        mut copy: impl FnMut(Option<usize>, usize, usize),
    ) -> Result<(), MemoryFault> {
        if let Some(loan) = &self.loan {
            return self.each_page(loan, (at, length), writes, copy);
        }
        // Mostly it is all in one piece, and one search is enough.
        if let Ok((host, available)) = self.find(at)
            && available >= length
        {
            copy(Some(host), 0, length);
            return Ok(());
        }
        for check in [true, false] {
            let mut done = 0;
            while done < length {
                let here = at.checked_add(done as u64).ok_or(MemoryFault { at })?;
                let (host, available) = self.find(here)?;
                let part = available.min(length - done);
                if !check {
                    copy(Some(host), done, part);
                }
                done += part;
            }
        }
        Ok(())
    }

    /// The same page by page where pages come and go: none goes while it is copied.
    fn each_page(
        &self,
        loan: &Loan,
        (at, length): (Ipa, usize),
        writes: bool,
        mut copy: impl FnMut(Option<usize>, usize, usize),
    ) -> Result<(), MemoryFault> {
        self.check(at, length as u64)?;
        let mut done = 0;
        while done < length {
            let here = at.checked_add(done as u64).ok_or(MemoryFault { at })?;
            let part = ((PAGE_SIZE - here.0 % PAGE_SIZE) as usize).min(length - done);
            if loan.region(here).is_some() {
                loan.with(here, writes, |host| copy(host, done, part))?;
            } else {
                copy(Some(self.find(here)?.0), done, part);
            }
            done += part;
        }
        Ok(())
    }

    /// Whether all of a range is the VM's, there or not.
    fn check(&self, at: Ipa, length: u64) -> Result<(), MemoryFault> {
        let mut done = 0;
        while done < length {
            let here = at.checked_add(done).ok_or(MemoryFault { at })?;
            done += match self.loan.as_ref().and_then(|loan| loan.region(here)) {
                Some(region) => region.end().0 - here.0,
                None => self.find(here)?.1 as u64,
            };
        }
        Ok(())
    }

    /// Does something with an aligned word, at its host address; without one if it is to be read only and is not there.
    #[inline(always)]
    fn aligned<R>(
        &self,
        at: Ipa,
        size: AccessSize,
        writes: bool,
        work: impl FnOnce(Option<usize>) -> R,
    ) -> Result<R, MemoryFault> {
        if !size.is_aligned(at.0) {
            return Err(MemoryFault { at });
        }
        match self.loan.as_ref().filter(|loan| loan.region(at).is_some()) {
            Some(loan) => loan.with(at, writes, work),
            None => {
                let (host, available) = self.find(at)?;
                if available as u64 >= size.bytes() { Ok(work(Some(host))) } else { Err(MemoryFault { at }) }
            }
        }
    }
}

/// Compare and exchange of a word of one width; the value that was there.
macro_rules! exchange {
    ($atomic:ty, $host:expr, $expected:expr, $new:expr) => {{
        // SAFETY: aligned, within the VM's frames, only ever accessed atomically or as bytes by us.
        let word = unsafe { <$atomic>::from_ptr($host as *mut _) };
        let result = word.compare_exchange($expected as _, $new as _, Ordering::AcqRel, Ordering::Acquire);
        u64::from(result.unwrap_or_else(|was| was))
    }};
}

impl GuestMemory for GuestRam {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        let target = into.as_mut_ptr();
        self.each(from, into.len(), false, |host, offset, length| match host {
            // SAFETY: `length` bytes of the VM's frames, and of `into` from `offset` on. The guest may write them meanwhile:
            // they are bytes, copied once.
            Some(host) => unsafe {
                el2::memory::copy(host as *const u8, target.wrapping_add(offset), length);
            },
            // SAFETY: `length` bytes of `into` from `offset` on.
            None => unsafe { ptr::write_bytes(target.wrapping_add(offset), 0, length) },
        })
    }

    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        let source = from.as_ptr();
        self.each(to, from.len(), true, |host, offset, length| {
            let Some(host) = host else { return };
            // SAFETY: as for the read, the other way round.
            unsafe { el2::memory::copy(source.wrapping_add(offset), host as *mut u8, length) };
        })
    }

    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        self.aligned(from, size, false, |host| {
            let Some(host) = host else { return 0 };
            match size {
                // SAFETY: aligned, within the VM's frames, only ever accessed atomically or as bytes by us.
                AccessSize::Byte => u64::from(unsafe { AtomicU8::from_ptr(host as *mut u8) }.load(Ordering::Acquire)),
                AccessSize::Halfword => {
                    // SAFETY: as above.
                    u64::from(unsafe { AtomicU16::from_ptr(host as *mut u16) }.load(Ordering::Acquire))
                }
                // SAFETY: as above.
                AccessSize::Word => u64::from(unsafe { AtomicU32::from_ptr(host as *mut u32) }.load(Ordering::Acquire)),
                // SAFETY: as above.
                AccessSize::Doubleword => unsafe { AtomicU64::from_ptr(host as *mut u64) }.load(Ordering::Acquire),
            }
        })
    }

    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        self.aligned(to, size, true, |host| {
            let Some(host) = host else { return };
            match size {
                AccessSize::Byte => {
                    // SAFETY: aligned, within the VM's frames, only ever accessed atomically or as bytes by us.
                    unsafe { AtomicU8::from_ptr(host as *mut u8) }.store(value as u8, Ordering::Release);
                }
                AccessSize::Halfword => {
                    // SAFETY: as above.
                    unsafe { AtomicU16::from_ptr(host as *mut u16) }.store(value as u16, Ordering::Release);
                }
                AccessSize::Word => {
                    // SAFETY: as above.
                    unsafe { AtomicU32::from_ptr(host as *mut u32) }.store(value as u32, Ordering::Release);
                }
                AccessSize::Doubleword => {
                    // SAFETY: as above.
                    unsafe { AtomicU64::from_ptr(host as *mut u64) }.store(value, Ordering::Release);
                }
            }
        })
    }

    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        self.aligned(at, size, true, |host| {
            let Some(host) = host else { return 0 };
            match size {
                AccessSize::Byte => exchange!(AtomicU8, host, expected, new),
                AccessSize::Halfword => exchange!(AtomicU16, host, expected, new),
                AccessSize::Word => exchange!(AtomicU32, host, expected, new),
                AccessSize::Doubleword => exchange!(AtomicU64, host, expected, new),
            }
        })
    }

    fn recall(&self, at: Ipa) -> Result<bool, MemoryFault> {
        match self.loan.as_ref().filter(|loan| loan.region(at).is_some()) {
            Some(loan) => loan.with(at, true, |_| true),
            None => Ok(false),
        }
    }

    fn contains(&self, range: Range<Ipa>) -> bool {
        self.check(range.start(), range.length()).is_ok()
    }
}

/// Guest memory while images are loaded: what is written is cleaned to the point of coherency at once, because the guest
/// starts with its caches off.
pub(crate) struct Loading<'a>(pub(crate) &'a GuestRam);

impl GuestMemory for Loading<'_> {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.0.read(from, into)
    }

    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.0.write(to, from)?;
        self.0.each(to, from.len(), true, |host, _, length| {
            let Some(host) = host else { return };
            // SAFETY: within the VM's frames.
            unsafe { el2::cache::clean_and_invalidate(host, length) };
        })
    }

    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        self.0.load(from, size)
    }

    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        self.0.store(to, size, value)
    }

    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        self.0.exchange(at, size, expected, new)
    }

    fn recall(&self, at: Ipa) -> Result<bool, MemoryFault> {
        self.0.recall(at)
    }

    fn contains(&self, range: Range<Ipa>) -> bool {
        self.0.contains(range)
    }
}
