//! A VM's RAM and ROM as the hypervisor reaches them.
//!
//! Answers for: which frames stand behind which guest-physical address, and copying to and fro. Does not answer for: what
//! the guest itself may do there (`stage2`).

use crate::frames::{self, Frames, Owner};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use types::{AccessSize, Ipa, Pa, Range};
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
#[derive(Debug)]
pub(crate) struct GuestRam {
    /// Sorted by guest address, disjoint.
    pieces: Vec<Piece>,
    /// The piece that was found last: a guess.
    last: AtomicUsize,
}

impl GuestRam {
    /// Takes frames for all of `regions`. `None`, and nothing taken, if there are not enough.
    pub(crate) fn allocate(owner: Owner, regions: &[Range<Ipa>]) -> Option<Self> {
        let mut pieces = Vec::new();
        for region in regions {
            let mut at = region.start();
            for frames in frames::allocate_pieces(region.length(), owner, |_| true)? {
                let guest = Range::new(at, frames.range().length())?;
                at = guest.end();
                pieces.push(Piece { guest, frames });
            }
        }
        types::sort_by(&mut pieces, |a: &Piece, b: &Piece| a.guest.start().cmp(&b.guest.start()));
        Some(Self { pieces, last: AtomicUsize::new(0) })
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
        Some(Self { pieces, last: AtomicUsize::new(0) })
    }

    /// Guest range and host address of each contiguous piece.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (Range<Ipa>, Pa)> {
        self.pieces.iter().map(|piece| (piece.guest, piece.frames.start()))
    }

    /// Overwrites everything with zeroes, down to the point of coherency: before a guest gets it (with its caches off, it
    /// would see what is in memory, not what is in our caches), and after the last guest had it. Between any two steps
    /// `go_on` says whether there is still a point in it.
    pub(crate) fn scrub(&self, mut go_on: impl FnMut() -> bool) {
        for piece in &self.pieces {
            let start = piece.frames.start().0;
            let length = piece.guest.length();
            for offset in (0..length).step_by(STEP as usize) {
                if !go_on() {
                    return;
                }
                // SAFETY: frames of ours, whole pages; the guest does not run.
                unsafe { el2::cache::zero_and_clean((start + offset) as usize, STEP.min(length - offset) as usize) };
            }
        }
    }

    /// Writes back and drops everything of this VM in the data caches: what a guest wants that cleans by set and way. Between
    /// any two steps `go_on` says whether there is still a point in it.
    pub(crate) fn clean_caches(&self, mut go_on: impl FnMut() -> bool) {
        for piece in &self.pieces {
            let start = piece.frames.start().0;
            let length = piece.guest.length();
            for offset in (0..length).step_by(STEP as usize) {
                let step = STEP.min(length - offset);
                // SAFETY: frames of ours; maintenance changes no contents.
                unsafe { el2::cache::clean_and_invalidate((start + offset) as usize, step as usize) };
                if !go_on() {
                    return;
                }
            }
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
    /// found to be ours.
    fn each(&self, at: Ipa, length: usize, mut copy: impl FnMut(usize, usize, usize)) -> Result<(), MemoryFault> {
        // Mostly it is all in one piece, and one search is enough.
        if let Ok((host, available)) = self.find(at)
            && available >= length
        {
            copy(host, 0, length);
            return Ok(());
        }
        for check in [true, false] {
            let mut done = 0;
            while done < length {
                let here = at.checked_add(done as u64).ok_or(MemoryFault { at })?;
                let (host, available) = self.find(here)?;
                let part = available.min(length - done);
                if !check {
                    copy(host, done, part);
                }
                done += part;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn aligned(&self, at: Ipa, size: AccessSize) -> Result<usize, MemoryFault> {
        let (host, available) = self.find(at)?;
        if size.is_aligned(at.0) && available as u64 >= size.bytes() { Ok(host) } else { Err(MemoryFault { at }) }
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
        self.each(from, into.len(), |host, offset, length| {
            // SAFETY: `length` bytes of the VM's frames, and of `into` from `offset` on. The guest may write them meanwhile:
            // they are bytes, copied once.
            unsafe { el2::memory::copy(host as *const u8, target.wrapping_add(offset), length) };
        })
    }

    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        let source = from.as_ptr();
        self.each(to, from.len(), |host, offset, length| {
            // SAFETY: as for the read, the other way round.
            unsafe { el2::memory::copy(source.wrapping_add(offset), host as *mut u8, length) };
        })
    }

    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        let host = self.aligned(from, size)?;
        Ok(match size {
            // SAFETY: aligned, within the VM's frames, only ever accessed atomically or as bytes by us.
            AccessSize::Byte => u64::from(unsafe { AtomicU8::from_ptr(host as *mut u8) }.load(Ordering::Acquire)),
            // SAFETY: as above.
            AccessSize::Halfword => u64::from(unsafe { AtomicU16::from_ptr(host as *mut u16) }.load(Ordering::Acquire)),
            // SAFETY: as above.
            AccessSize::Word => u64::from(unsafe { AtomicU32::from_ptr(host as *mut u32) }.load(Ordering::Acquire)),
            // SAFETY: as above.
            AccessSize::Doubleword => unsafe { AtomicU64::from_ptr(host as *mut u64) }.load(Ordering::Acquire),
        })
    }

    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        let host = self.aligned(to, size)?;
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
        Ok(())
    }

    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        let host = self.aligned(at, size)?;
        Ok(match size {
            AccessSize::Byte => exchange!(AtomicU8, host, expected, new),
            AccessSize::Halfword => exchange!(AtomicU16, host, expected, new),
            AccessSize::Word => exchange!(AtomicU32, host, expected, new),
            AccessSize::Doubleword => exchange!(AtomicU64, host, expected, new),
        })
    }

    fn contains(&self, range: Range<Ipa>) -> bool {
        self.each(range.start(), range.length() as usize, |_, _, _| {}).is_ok()
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
        self.0.each(to, from.len(), |host, _, length| {
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

    fn contains(&self, range: Range<Ipa>) -> bool {
        self.0.contains(range)
    }
}
