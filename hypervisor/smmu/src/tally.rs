//! How many events each stream has had, and which of them people are told of.
//!
//! Answers for: counting, and that a device that faults as fast as it can is told of again and again but not each time.
//! Does not answer for: what an event says ([`crate::Event`]), and where it is told.

use arrayvec::ArrayVec;
use types::Ticks;

/// Streams with a count of their own; the others share one. More than devices do so at once.
pub const MAX_STREAMS: usize = 64;

/// Events of a stream that are told of at once, before they are told of now and then.
const AT_ONCE: u32 = 4;

/// A count of something that may happen often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// How often it has happened.
    pub all: u64,
    untold: u64,
    /// How often it may still be told of at once.
    left: u32,
    told: Ticks,
}

impl Default for Count {
    fn default() -> Self {
        Self { all: 0, untold: 0, left: AT_ONCE, told: Ticks(0) }
    }
}

impl Count {
    /// It has happened. `Some` if it is to be told of, with how often it has happened since it was told of last, and was not:
    /// a few times, and after that not more often than once in `interval`.
    pub fn note(&mut self, now: Ticks, interval: Ticks) -> Option<u64> {
        self.all = self.all.saturating_add(1);
        let is_due = now.saturating_sub(self.told) >= interval;
        if self.left == 0 && !is_due {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.left = self.left.saturating_sub(1);
        self.told = now;
        Some(core::mem::take(&mut self.untold))
    }
}

/// The counts of one SMMU's streams.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    streams: ArrayVec<(u32, Count), MAX_STREAMS>,
    others: Count,
}

impl Tally {
    /// `stream` has had an event; else as [`Count::note`].
    pub fn note(&mut self, stream: u32, now: Ticks, interval: Ticks) -> Option<u64> {
        if let Some((_, count)) = self.streams.iter_mut().find(|(known, _)| *known == stream) {
            return count.note(now, interval);
        }
        let mut count = Count::default();
        let told = count.note(now, interval);
        match self.streams.try_push((stream, count)) {
            Ok(()) => told,
            Err(_) => self.others.note(now, interval),
        }
    }

    /// The streams that have had events, in the order of their first ones, and how many.
    pub fn streams(&self) -> impl Iterator<Item = (u32, u64)> {
        self.streams.iter().map(|(stream, count)| (*stream, count.all))
    }

    /// How many events streams have had that have no count of their own.
    #[must_use]
    pub const fn others(&self) -> u64 {
        self.others.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const INTERVAL: Ticks = Ticks(100);

    #[test]
    fn a_few_are_told_of_and_then_one_in_a_while() {
        let mut count = Count::default();
        for _ in 0..AT_ONCE {
            assert_eq!(count.note(Ticks(5), INTERVAL), Some(0));
        }
        for now in 5..105 {
            assert_eq!(count.note(Ticks(now), INTERVAL), None);
        }
        assert_eq!(count.note(Ticks(105), INTERVAL), Some(100), "with how many there were in between");
        assert_eq!(count.note(Ticks(106), INTERVAL), None);
        assert_eq!(count.note(Ticks(1000), INTERVAL), Some(1));
        assert_eq!(count.all, u64::from(AT_ONCE) + 103);
    }

    #[test]
    fn one_stream_does_not_use_up_what_may_be_told_of_others() {
        let mut tally = Tally::default();
        while tally.note(7, Ticks(0), INTERVAL).is_some() {}
        assert_eq!(tally.note(8, Ticks(0), INTERVAL), Some(0));
        assert_eq!(tally.streams().collect::<Vec<_>>(), [(7, u64::from(AT_ONCE) + 1), (8, 1)]);
    }

    #[test]
    fn streams_without_end_share_a_count() {
        let mut tally = Tally::default();
        for stream in 0..MAX_STREAMS as u32 {
            assert_eq!(tally.note(stream, Ticks(0), INTERVAL), Some(0));
        }
        let told = (1000..2000).filter(|stream| tally.note(*stream, Ticks(0), INTERVAL).is_some()).count();
        assert_eq!((told, tally.others()), (AT_ONCE as usize, 1000));
        assert_eq!(tally.streams().count(), MAX_STREAMS);
    }
}
