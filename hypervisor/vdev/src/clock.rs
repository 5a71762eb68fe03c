//! What time it is for a VM and its devices.
//!
//! Answers for: the three times there are, and for when a thread has to wake up that wakes devices. Does not answer for: the counter
//! itself (every call brings its own look at it), nor for a device's timers ([`crate::Timer`]).
//!
//! The **host's counter** goes on from the machine's start, and is what timers are set by. The **guest's counter** is what
//! the guest reads as `CNTVCT_EL0`: the host's less an offset that is fixed when the guest starts; both run at the same
//! pace, also while the VM is paused. The **time of day** is what the board's clock said when the machine started, and the
//! host's counter since.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use types::{Frequency, Ticks};

/// A VM's time.
#[derive(Debug)]
pub struct Clock {
    frequency: Frequency,
    /// Seconds since 1970 when the counter was zero.
    epoch: u64,
    /// What the guest's counter lags behind the host's.
    offset: AtomicU64,
}

impl Clock {
    /// Of a machine whose counter has this frequency, and was zero at `epoch`, in seconds since 1970 (zero if nobody knows).
    #[must_use]
    pub const fn new(frequency: Frequency, epoch: u64) -> Self {
        Self { frequency, epoch, offset: AtomicU64::new(0) }
    }

    /// Ticks of either counter in a second.
    #[must_use]
    pub const fn frequency(&self) -> Frequency {
        self.frequency
    }

    /// Sets what the guest's counter lags behind the host's (`CNTVOFF_EL2`).
    pub fn set_offset(&self, offset: Ticks) {
        self.offset.store(offset.0, Relaxed);
    }

    /// What the guest's counter says when the host's says `now`. It wraps, as the guest's does.
    #[must_use]
    pub fn guest(&self, now: Ticks) -> Ticks {
        Ticks(now.0.wrapping_sub(self.offset.load(Relaxed)))
    }

    /// Seconds since 1970, in UTC, when the host's counter says `now`.
    #[must_use]
    pub fn seconds(&self, now: Ticks) -> u64 {
        let since_start = now.0.checked_div(u64::from(self.frequency.hertz())).unwrap_or_default();
        self.epoch.saturating_add(since_start)
    }
}

/// When a thread that wakes devices has to do so next, as far as timers go. It sleeps until then.
#[derive(Debug)]
pub struct Alarm(AtomicU64);

impl Default for Alarm {
    fn default() -> Self {
        Self(AtomicU64::new(Ticks::NEVER.0))
    }
}

impl Alarm {
    /// When.
    #[must_use]
    pub fn at(&self) -> Ticks {
        Ticks(self.0.load(Relaxed))
    }

    /// A timer goes off at `at`. Says whether that is earlier than all others that the thread knows of.
    pub(crate) fn advance(&self, at: Ticks) -> bool {
        // Release, and Acquire below: who forgets this one sees the deadline that was set before it.
        self.0.fetch_min(at.0, AcqRel) > at.0
    }

    /// Sets the alarm to the earliest deadline, which `earliest` finds and this returns. One that is set meanwhile is told.
    pub(crate) fn set(&self, earliest: impl FnOnce() -> Ticks) -> Ticks {
        self.0.swap(Ticks::NEVER.0, AcqRel);
        let next = earliest();
        self.0.fetch_min(next.0, AcqRel);
        next
    }
}
