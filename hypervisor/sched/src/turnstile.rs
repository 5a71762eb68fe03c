//! The lock around the scheduler: whoever comes first goes first, and one thread may enter and another one leave.
//!
//! Answers for: the order and the hand-over. Does not answer for: what is guarded, and for interrupts, which are masked.

use crate::atomic::{AtomicU32, Ordering};

/// A lock by tickets that belongs to nobody: the thread that leaves a CPU enters, the one that comes to it leaves.
#[derive(Debug)]
pub struct Turnstile {
    next: AtomicU32,
    serving: AtomicU32,
}

impl Turnstile {
    /// One that is free.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: AtomicU32::new(0), serving: AtomicU32::new(0) }
    }

    /// Waits for its turn; calls `relax` meanwhile. Sees all that was done before the last [`Turnstile::leave`].
    #[inline(always)]
    pub fn enter(&self, relax: impl Fn()) {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        while self.serving.load(Ordering::Acquire) != ticket {
            relax();
        }
    }

    /// Lets the next one in. Only on behalf of who has entered.
    #[inline(always)]
    pub fn leave(&self) {
        let ticket = self.serving.load(Ordering::Relaxed);
        self.serving.store(ticket.wrapping_add(1), Ordering::Release);
    }
}

impl Default for Turnstile {
    fn default() -> Self {
        Self::new()
    }
}
