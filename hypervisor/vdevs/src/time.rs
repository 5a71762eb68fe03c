//! The clock of a device that counts.
//!
//! Answers for: cycles of a clock of any frequency, made of the host's counter without a rounding that adds up. Does not
//! answer for: what is counted, nor for being called in time.

use types::Ticks;
use vdev::{Context, Timer};

/// A point in time, exactly: in ticks of the host's counter, divided into as many parts as the device's clock has hertz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u128);

/// What time it is for a device whose clock has its own frequency.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    now: Ticks,
    /// Of the host's counter.
    counter: u32,
    hertz: u32,
}

impl Time {
    /// Now, for a clock of so many hertz.
    pub(crate) fn new(hertz: u32, context: &Context<'_>) -> Self {
        Self { now: context.now(), counter: context.clock().frequency().hertz(), hertz }
    }

    /// Now.
    pub(crate) fn now(self) -> Moment {
        Moment(u128::from(self.now.0).saturating_mul(u128::from(self.hertz)))
    }

    /// Whole cycles from `start` until now; none if that is still to come.
    #[inline(never)]
    pub(crate) fn since(self, start: Moment) -> u64 {
        let parts = self.now().0.saturating_sub(start.0);
        let cycles = parts.checked_div(u128::from(self.counter)).unwrap_or_default();
        u64::try_from(cycles).unwrap_or(u64::MAX)
    }

    /// So many cycles after `start`.
    #[inline(never)]
    pub(crate) fn after(self, start: Moment, cycles: u64) -> Moment {
        Moment(start.0.saturating_add(u128::from(cycles).saturating_mul(u128::from(self.counter))))
    }

    /// The first tick of the host's counter at which `moment` has come.
    pub(crate) fn tick(self, moment: Moment) -> Ticks {
        let ticks = moment.0.div_ceil(u128::from(self.hertz.max(1)));
        Ticks(u64::try_from(ticks).unwrap_or(u64::MAX))
    }

    /// Has `timer` go off when `next` has come, or not at all.
    #[inline(never)]
    pub(crate) fn arm(self, timer: &mut Timer, next: Option<Moment>, context: &mut Context<'_>) {
        let next = next.map(|moment| self.tick(moment));
        if next != timer.due() {
            match next {
                Some(at) => timer.once(at, context),
                None => timer.stop(context),
            }
        }
    }

    /// So many milliseconds in cycles.
    pub(crate) fn milliseconds(self, milliseconds: u32) -> u64 {
        u64::from(self.hertz).saturating_mul(u64::from(milliseconds)).checked_div(1000).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a counter and a clock of so many hertz.
    fn at(now: u64, counter: u32, hertz: u32) -> Time {
        Time { now: Ticks(now), counter, hertz }
    }

    #[test]
    fn nothing_is_lost_between_two_clocks_that_do_not_divide_each_other() {
        let (counter, hertz) = (62_500_000, 32_768);
        let mut moment = Moment::default();
        for second in 1..=1000 {
            moment = at(0, counter, hertz).after(moment, u64::from(hertz));
            assert_eq!(at(0, counter, hertz).tick(moment), Ticks(second * u64::from(counter)));
        }
        assert_eq!(at(62_500_000, counter, hertz).since(Moment::default()), 32_768);
        assert_eq!(at(62_499_999, counter, hertz).since(Moment::default()), 32_767);
    }

    #[test]
    fn a_tick_is_the_first_at_which_the_cycle_is_complete() {
        for cycles in 1..100 {
            let time = at(0, 62_500_000, 24_000_001);
            let tick = time.tick(time.after(Moment::default(), cycles));
            assert_eq!(at(tick.0, 62_500_000, 24_000_001).since(Moment::default()), cycles);
            assert_eq!(at(tick.0 - 1, 62_500_000, 24_000_001).since(Moment::default()), cycles - 1);
        }
    }

    #[test]
    fn the_end_of_time_does_not_wrap() {
        let time = at(u64::MAX, u32::MAX, u32::MAX);
        assert_eq!(time.tick(time.after(time.now(), u64::MAX)), Ticks::NEVER);
        assert_eq!(at(7, 1, 1_000_000).since(at(8, 1, 1_000_000).now()), 0);
    }
}
