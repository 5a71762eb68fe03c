//! Why a VM's vCPUs do not just run: a byte that the run loop looks at after each exit.
//!
//! Answers for: the reasons, and that looking for any of them takes no more than looking for one. Does not answer for: what a
//! vCPU does about them (`vcpu`), or for telling it.

use core::sync::atomic::{AtomicU8, Ordering};

/// The VM ends: its vCPUs leave their guests for good.
pub(super) const STOPPING: u8 = 1 << 0;
/// The VM is paused: its vCPUs stay out of their guests.
pub(super) const PAUSED: u8 = 1 << 1;
/// The VM is being dumped: its vCPUs stay out of their guests, and show their registers.
pub(super) const DUMPING: u8 = 1 << 2;
/// Somebody outside wants a device of the VM to look: one of its vCPUs has it do so, before it enters its guest.
pub(super) const CALLED: u8 = 1 << 3;
/// Likewise, because interrupts have ended that devices want to hear of.
pub(super) const ENDED: u8 = 1 << 4;
/// Memory that the guest had given back is wanted, and there is none: the VM ends.
pub(super) const DRY: u8 = 1 << 5;
/// One of the above holds.
const OUT: u8 = 1 << 6;
/// What the vCPUs do is recorded: they run in the loop that does so.
pub(super) const TRACED: u8 = 1 << 7;

/// [`STOPPING`], [`PAUSED`], [`DUMPING`], [`CALLED`], [`ENDED`], [`DRY`]: why vCPUs do not enter their guests; [`TRACED`]: why they do not do
/// so as fast as they can.
pub(super) struct Hold(AtomicU8);

impl Hold {
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Whether there is more to do than to run, which is `traced` or not.
    #[inline(always)]
    pub(super) fn is_any(&self, traced: bool) -> bool {
        self.0.load(Ordering::Relaxed) != if traced { TRACED } else { 0 }
    }

    /// Whether vCPUs are not to enter their guests.
    #[inline(always)]
    pub(super) fn is_out(&self) -> bool {
        self.has(OUT)
    }

    /// Whether this reason holds.
    #[inline(always)]
    pub(super) fn has(&self, reason: u8) -> bool {
        self.0.load(Ordering::Relaxed) & reason != 0
    }

    /// One more reason to stay out. Says whether it was there already.
    pub(super) fn add(&self, reason: u8) -> bool {
        self.0.fetch_or(reason | OUT, Ordering::SeqCst) & reason != 0
    }

    /// One reason less. Says whether it was there.
    pub(super) fn remove(&self, reason: u8) -> bool {
        let rest = |hold| {
            let left = hold & !reason;
            Some(if left & (STOPPING | PAUSED | DUMPING | CALLED | ENDED | DRY) == 0 { left & !OUT } else { left })
        };
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, rest);
        before.unwrap_or_else(|hold| hold) & reason != 0
    }

    /// What the vCPUs do is recorded, or not any more.
    pub(super) fn trace(&self, on: bool) {
        if on {
            self.0.fetch_or(TRACED, Ordering::SeqCst);
        } else {
            self.0.fetch_and(!TRACED, Ordering::SeqCst);
        }
    }
}
