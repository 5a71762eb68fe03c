//! How much a port may send.
//!
//! Answers for: a token bucket, of bytes. Does not answer for: what is done with a frame that has to wait.

use types::{Frequency, Ticks};
use vdev::MOST_FRAME;

/// A limit in bytes a second. What was not used is saved up: as much as a tenth of a second has, or the longest frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Bytes a second, never 0.
    rate: u128,
    /// Ticks a second.
    hertz: u128,
    /// Bytes that may be sent, times `hertz`.
    credit: u128,
    most: u128,
    /// When `credit` was what it is.
    seen: Ticks,
}

impl Limit {
    pub(super) fn new(rate: u64, frequency: Frequency) -> Self {
        let (rate, hertz) = (u128::from(rate.max(1)), u128::from(frequency.hertz()));
        let bytes = (rate / 10).max(u128::try_from(MOST_FRAME).unwrap_or(u128::MAX));
        let most = bytes.saturating_mul(hertz);
        Self { rate, hertz, credit: most, most, seen: Ticks(0) }
    }

    /// So many bytes are to be sent.
    ///
    /// # Errors
    /// When that may be done.
    pub(super) fn take(&mut self, now: Ticks, bytes: usize) -> Result<(), Ticks> {
        let passed = u128::from(now.0.saturating_sub(self.seen.0));
        self.seen = self.seen.max(now);
        self.credit = self.credit.saturating_add(passed.saturating_mul(self.rate)).min(self.most);
        let cost = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(self.hertz);
        match self.credit.checked_sub(cost) {
            Some(rest) => {
                self.credit = rest;
                Ok(())
            }
            None => {
                let missing = cost.saturating_sub(self.credit);
                let ticks = missing.div_ceil(self.rate);
                Err(now.saturating_add(Ticks(u64::try_from(ticks).unwrap_or(u64::MAX))))
            }
        }
    }
}
