//! Sleeping and waking that do not miss each other.
//!
//! Answers for: where a thread is, for those who want to wake it, and the token that a wake leaves. Does not answer for: who
//! runs; a thread that is away is woken under the scheduler's lock, which this does without.
//!
//! Two flags, and each side sets its own before it looks at the other's: whoever wakes leaves the token, then looks where
//! the thread is; a thread that wants to sleep leaves its place, then looks for the token. One of them sees the other.

use crate::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use types::CpuId;

/// One thread's.
#[derive(Debug)]
pub struct Presence {
    /// The token: a wake that nobody has seen yet.
    token: AtomicBool,
    /// 1 + the CPU it runs on; 0 while it sleeps or waits for a CPU.
    place: AtomicU32,
}

impl Presence {
    /// Of a thread that has not run yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { token: AtomicBool::new(false), place: AtomicU32::new(0) }
    }

    /// Leaves the token. The CPU that runs the thread, which may be in a guest and has to be brought out of it; `None` if the
    /// thread is away, and is to be woken under the scheduler's lock.
    #[inline(always)]
    #[must_use = "the thread may sleep on"]
    pub fn announce(&self) -> Option<CpuId> {
        self.token.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.place()
    }

    /// The CPU that runs the thread; `None` if it is away.
    #[inline]
    #[must_use]
    pub fn place(&self) -> Option<CpuId> {
        let place = self.place.load(Ordering::SeqCst).checked_sub(1)?;
        u16::try_from(place).ok().map(CpuId)
    }

    /// Leaves the token for a thread that looks for it before it goes on anyway.
    #[inline]
    pub fn leave_token(&self) {
        self.token.store(true, Ordering::SeqCst);
    }

    /// The thread runs on `cpu` from now on.
    #[inline]
    pub fn arrive(&self, cpu: CpuId) {
        self.place.store(u32::from(cpu.0).saturating_add(1), Ordering::SeqCst);
    }

    /// The thread gives way to another one. It is ready: nobody has to wake it.
    #[inline]
    pub fn depart(&self) {
        self.place.store(0, Ordering::SeqCst);
    }

    /// The thread, which runs on `cpu`, wants to sleep. Says whether it may: if not, it has been announced something since it
    /// last looked, and stays. Under the scheduler's lock.
    #[inline]
    #[must_use = "whether it may sleep"]
    pub fn try_sleep(&self, cpu: CpuId) -> bool {
        self.depart();
        fence(Ordering::SeqCst);
        if self.token.load(Ordering::SeqCst) {
            self.arrive(cpu);
            return false;
        }
        true
    }

    /// The thread takes the token, and says whether there was one. It looks at all it waits for afterwards.
    #[inline]
    pub fn take_token(&self) -> bool {
        self.token.swap(false, Ordering::SeqCst)
    }

    /// As [`Presence::take_token`] for who looks either way, and cheap if there is none.
    #[inline]
    pub fn drop_token(&self) {
        if self.token.load(Ordering::Relaxed) {
            self.token.store(false, Ordering::SeqCst);
        }
    }
}

impl Default for Presence {
    fn default() -> Self {
        Self::new()
    }
}
