//! RAM that a guest can give back, page by page.
//!
//! Answers for: taking pages away and bringing them back, and that nobody reaches one meanwhile: what is behind an address is what the
//! VM's stage 2 says, and whoever reads or writes there does so with the lock held under which that changes. Does not answer for:
//! what a guest may have ([`host::ledger`]), how it says what it gives (`vdevs`). See docs/design/033-balloon.md.
//!
//! A page that goes is unmapped, all CPUs have forgotten it, it is overwritten, and then it is a free frame: all in one step with
//! interrupts masked, so that a VM's thread which is given up leaves no page behind that is nobody's. A page that comes back is a frame
//! of zeroes.
//!
//! Devices that reach memory by themselves do not look here: what they have cached is invalidated together with what CPUs have, and a page
//! that one of them may still reach is nobody's from then on.

use super::{GuestRam, STEP};
use crate::compartment::Compartment;
use crate::frames::{self, Owner, Promise};
use crate::stage2::{GuestSpace, Taken};
use crate::sync::{Lock, Rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use host::ledger::Entitlement;
use spin::Once;
use types::{Ipa, PAGE_SIZE, Pa, Range};
use vdev::{Balloon, DeviceId, GIVE_BACK_PAGES, Holding, MemoryFault};

/// Bytes that a table of the last level maps, and one of the level above.
const TABLE: u64 = 2 << 20;
const UPPER_TABLE: u64 = 1 << 30;

/// Why a VM cannot have another amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It has only so many pages of RAM.
    Size(u64),
    /// So many pages more would have to be promised.
    NoMemory(u64),
}

/// The RAM of a VM with a balloon.
pub(crate) struct Loan {
    compartment: &'static Compartment,
    regions: Vec<Range<Ipa>>,
    space: Arc<GuestSpace>,
    entitlement: Lock<Entitlement>,
    promise: Promise,
}

impl Loan {
    /// All of `regions` is there, and `space` maps it. `None` if the tables that it takes to map each page by itself cannot be promised.
    pub(super) fn new(
        compartment: &'static Compartment,
        regions: &[Range<Ipa>],
        space: &Arc<GuestSpace>,
        lends: bool,
    ) -> Option<Self> {
        let spans = |region: &Range<Ipa>, size: u64| region.length() / size + 2;
        let tables: u64 = regions.iter().map(|region| spans(region, TABLE) + spans(region, UPPER_TABLE)).sum();
        let pages = regions.iter().map(|region| region.length() / PAGE_SIZE).sum();
        Some(Self {
            compartment,
            regions: regions.to_vec(),
            space: Arc::clone(space),
            entitlement: Lock::new(Rank::Loan, Entitlement::new(pages, lends)),
            promise: Promise::new(compartment.id, tables as usize)?,
        })
    }

    /// The RAM in which `at` is.
    pub(super) fn region(&self, at: Ipa) -> Option<Range<Ipa>> {
        self.regions.iter().find(|region| region.contains(at)).copied()
    }

    pub(crate) fn holding(&self) -> Holding {
        let entitlement = *self.entitlement.lock();
        Holding { size: entitlement.size(), wanted: entitlement.entitled(), present: entitlement.present() }
    }

    /// From now on the guest is to make do with so many pages, and may have them at any time.
    pub(crate) fn entitle(&self, pages: u64) -> Result<(), Refused> {
        let mut entitlement = self.entitlement.lock();
        if pages > entitlement.size() {
            return Err(Refused::Size(entitlement.size()));
        }
        let (now, next) = (entitlement.owed(), entitlement.with_entitled(pages));
        let more = next.owed().saturating_sub(now);
        if !self.promise.raise(more as usize) {
            return Err(Refused::NoMemory(more));
        }
        self.promise.lower(now.saturating_sub(next.owed()) as usize);
        *entitlement = next;
        Ok(())
    }

    /// Takes pages from the guest, [`GIVE_BACK_PAGES`] at most. Says how many went.
    pub(crate) fn give_back(&self, pages: Range<Ipa>) -> u64 {
        let Some(region) = self.region(pages.start()) else { return 0 };
        let (start, most) = (pages.start().align_down(PAGE_SIZE), GIVE_BACK_PAGES * PAGE_SIZE);
        let end = Ipa(pages.end().0.min(region.end().0).min(start.0.saturating_add(most))).align_down(PAGE_SIZE);
        let mut entitlement = self.entitlement.lock();
        let all = (start.0..end.0).step_by(PAGE_SIZE as usize).map(Ipa);
        let frames: ArrayVec<Pa, { GIVE_BACK_PAGES as usize }> =
            all.filter_map(|page| self.space.lookup(page).map(|host| host.start())).collect();
        if frames.is_empty() {
            return 0;
        }
        match self.space.unmap_given_back(Range::between(start, end)) {
            Taken::All => {}
            Taken::Nothing => return 0,
            Taken::Lost => {
                drop(entitlement);
                log::error!("{} pages are lost: a device may still reach them", frames.len());
                return frames.len() as u64;
            }
        }
        let kept = entitlement.leave(frames.len() as u64) as usize;
        for (number, frame) in frames.iter().enumerate() {
            // SAFETY: a frame that was the guest's, which no CPU reaches any more, nor any thread while the lock is held.
            unsafe { el2::cache::zero_and_clean(frame.0 as usize, PAGE_SIZE as usize) };
            let id = self.compartment.id;
            let owner = if number < kept { Owner::Promised(id) } else { Owner::Vm(id) };
            if let Some(frame) = Range::new(*frame, PAGE_SIZE) {
                frames::release(frame, owner);
            }
        }
        frames.len() as u64
    }

    /// Does something with the host address behind `at`, which is in a region, up to the end of its page. A page that is not there comes
    /// back if it is to be written; else there is no address, and it would read as zeroes.
    pub(super) fn with<R>(
        &self,
        at: Ipa,
        writes: bool,
        work: impl FnOnce(Option<usize>) -> R,
    ) -> Result<R, MemoryFault> {
        let mut entitlement = self.entitlement.lock();
        let host = match self.space.lookup(at) {
            Some(host) => Some(host.start().0 as usize),
            None if writes => match self.bring_back(&mut entitlement, at) {
                Some(frame) => Some((frame.0 + at.0 % PAGE_SIZE) as usize),
                None => {
                    self.compartment.run_dry();
                    return Err(MemoryFault { at });
                }
            },
            None => None,
        };
        Ok(work(host))
    }

    /// Puts a page of zeroes where there is none. `None` if there is no memory for it.
    fn bring_back(&self, entitlement: &mut Entitlement, at: Ipa) -> Option<Pa> {
        let id = self.compartment.id;
        let owner = if entitlement.owed() > 0 { Owner::Promised(id) } else { Owner::Vm(id) };
        let page = Range::new(at.align_down(PAGE_SIZE), PAGE_SIZE)?;
        let frame = frames::allocate(1, 1, owner)?;
        // SAFETY: a frame of ours, which nobody else has.
        unsafe { el2::cache::zero_and_clean(frame.start().0 as usize, PAGE_SIZE as usize) };
        self.space.map_returned(page, frame.start()).ok()?;
        entitlement.come_back();
        Some(frame.leak().start())
    }

    /// Host address and length of all that is there, in steps, each with the lock held; between any two `go_on` says whether there is
    /// still a point in it.
    pub(super) fn each_step(&self, work: &mut dyn FnMut(usize, usize), go_on: &mut dyn FnMut() -> bool) {
        for region in &self.regions {
            let mut at = region.start();
            while at < region.end() && go_on() {
                let _held = self.entitlement.lock();
                let left = region.end().0 - at.0;
                let length = match self.space.lookup(at) {
                    Some(host) => {
                        let length = host.length().min(left).min(STEP);
                        work(host.start().0 as usize, length as usize);
                        length
                    }
                    None => PAGE_SIZE.min(left),
                };
                at = Ipa(at.0 + length);
            }
        }
    }
}

/// A device's end of it. There is memory behind it as soon as the VM has any.
pub(crate) struct BalloonHandle {
    pub(crate) device: DeviceId,
    pub(crate) lends: bool,
    ram: Once<&'static GuestRam>,
}

impl BalloonHandle {
    pub(crate) fn new(device: DeviceId, lends: bool) -> Self {
        Self { device, lends, ram: Once::new() }
    }

    /// This is the memory.
    pub(crate) fn attach(&self, ram: &'static GuestRam) {
        self.ram.call_once(|| ram);
    }

    fn loan(&self) -> Option<&'static Loan> {
        self.ram.get().and_then(|ram| ram.loan())
    }
}

impl Balloon for BalloonHandle {
    fn holding(&self) -> Holding {
        self.loan().map_or_else(Holding::default, Loan::holding)
    }

    fn give_back(&self, pages: Range<Ipa>) -> u64 {
        self.loan().map_or(0, |loan| loan.give_back(pages))
    }
}

/// All of it has been scrubbed, and no CPU uses it.
impl Drop for Loan {
    fn drop(&mut self) {
        self.space.invalidate();
        let owner = Owner::Vm(self.compartment.id);
        let mut release = |start: usize, length: usize| {
            if let Some(frames) = Range::new(Pa(start as u64), length as u64) {
                frames::release(frames, owner);
            }
        };
        self.each_step(&mut release, &mut || true);
    }
}
