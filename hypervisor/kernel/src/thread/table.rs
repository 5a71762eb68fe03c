//! All threads as they are at a moment: the rows of `pidin` and `top`.
//!
//! Answers for: a look at every thread that holds up the machine no longer than a few of them take. Does not answer for: how
//! it is shown.

use super::{MAX_THREADS, Thread, with_core};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use sched::{ShareError, ShareId, Status, WINDOW_MILLISECONDS};
use types::Ticks;

/// How many threads are looked at with interrupts masked.
const AT_ONCE: usize = 16;

/// Shows every thread: its name, and its state, priority now, policy, CPU, times and share (whose place is that of its
/// adaptive partition in `vm::config::Groups`). Threads that come or go meanwhile may be missing.
pub(crate) fn for_each(mut show: impl FnMut(&Thread, &Status)) {
    for first in (0..MAX_THREADS).step_by(AT_ONCE) {
        let mut rows = ArrayVec::<(Arc<Thread>, Status), AT_ONCE>::new();
        with_core(|core| {
            let now = el2::cpu::counter();
            for thread in core.threads.iter().skip(first).take(AT_ONCE).flatten() {
                if let Some(status) = thread.id.get().and_then(|id| core.policy.status(id, now)) {
                    let _ = rows.try_push((Arc::clone(thread), status));
                }
            }
        });
        rows.iter().for_each(|(thread, status)| show(thread, status));
    }
}

/// What a share is guaranteed in percent, and how much of the machine's time in the last window it has used: (guaranteed,
/// used, all there was).
pub(crate) fn share(share: ShareId) -> Option<(u8, Ticks, Ticks)> {
    with_core(|core| core.policy.share(share))
}

/// Changes what a share is guaranteed.
///
/// # Errors
/// When less than that is left.
pub(crate) fn redefine_share(share: ShareId, percent: u8) -> Result<(), ShareError> {
    with_core(|core| core.policy.redefine_share(share, percent)).unwrap_or(Err(ShareError::NoMemory))
}

/// Guarantees a share of the machine's time to the threads that will be in it.
///
/// # Errors
/// When less than that is left, or there are too many.
pub(crate) fn define_share(percent: u8) -> Result<ShareId, ShareError> {
    let frequency = el2::cpu::counter_frequency().ok_or(ShareError::NoMemory)?;
    let window = frequency.microseconds(WINDOW_MILLISECONDS * 1000);
    with_core(|core| core.policy.define_share(percent, window)).unwrap_or(Err(ShareError::NoMemory))
}
