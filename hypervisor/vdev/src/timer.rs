//! Timers of a device.
//!
//! Answers for: when each of a device's timers goes off next, and for periods that do not drift. Does not answer for: what
//! time it is ([`crate::Clock`]), nor for sleeping until then (the VM's own thread does, and calls [`crate::Bus::expire`]).

use crate::{Alarm, Clock, Context, Wake};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use types::Ticks;

/// How many timers a device has.
pub const TIMERS: usize = 4;

/// One of the timers of a device, and what the device knows of it. A device keeps one for each purpose, with a number of its
/// own; when it goes off, it is woken with [`Wake::Timer`] and that number, and asks [`Timer::expired`] what that means.
#[derive(Debug)]
pub struct Timer {
    number: u8,
    /// When it goes off next; [`Ticks::NEVER`] if it does not.
    due: Ticks,
    /// Ticks from one time to the next; 0 if there is no next time.
    period: u64,
}

impl Timer {
    /// The timer `number` of the device, stopped. There are [`TIMERS`]; one of a higher number never goes off.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self { number, due: Ticks::NEVER, period: 0 }
    }

    /// Goes off at `at`, once, or as soon as possible if that has passed.
    pub fn once(&mut self, at: Ticks, context: &mut Context<'_>) {
        self.period = 0;
        self.set(at, context);
    }

    /// Goes off at `first` and every `period` ticks of the counter from then on.
    pub fn every(&mut self, first: Ticks, period: u64, context: &mut Context<'_>) {
        self.period = period;
        self.set(first, context);
    }

    /// Goes off no more, not even for what was due before.
    pub fn stop(&mut self, context: &mut Context<'_>) {
        self.set(Ticks::NEVER, context);
    }

    /// When it goes off next, if it does.
    #[must_use]
    pub fn due(&self) -> Option<Ticks> {
        (self.due != Ticks::NEVER).then_some(self.due)
    }

    /// How often it has gone off since this was last asked: 0 or 1, or more if it is periodic and the device was not called
    /// in time. The next time is a whole number of periods after the first, however late this is asked.
    pub fn expired(&mut self, context: &mut Context<'_>) -> u64 {
        let Some(late) = context.now().0.checked_sub(self.due.0) else { return 0 };
        match late.checked_div(self.period) {
            None => {
                self.due = Ticks::NEVER;
                1
            }
            Some(missed) => {
                let times = missed.saturating_add(1);
                let next = self.due.0.saturating_add(times.saturating_mul(self.period));
                self.set(Ticks(next), context);
                times
            }
        }
    }

    /// Whether it was this one that the device was woken for.
    #[must_use]
    pub fn is(&self, wake: Wake) -> bool {
        wake == Wake::Timer(self.number)
    }

    fn set(&mut self, at: Ticks, context: &mut Context<'_>) {
        self.due = at;
        context.arm(self.number, at);
    }
}

/// When the timers of a device go off, for whoever sleeps until then. Written by the device's calls, under its lock.
#[derive(Debug)]
pub struct Deadlines {
    timers: [AtomicU64; TIMERS],
    clock: Arc<Clock>,
    alarm: Arc<Alarm>,
}

impl Deadlines {
    /// Of a device of the VM whose time `clock` is, woken by the thread that sleeps until `alarm`. All timers are stopped.
    #[must_use]
    pub fn new(clock: Arc<Clock>, alarm: Arc<Alarm>) -> Self {
        Self { timers: [const { AtomicU64::new(Ticks::NEVER.0) }; TIMERS], clock, alarm }
    }

    /// The VM's time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// When the thread wakes up that wakes the device.
    #[must_use]
    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Sets one of them. Says whether whoever sleeps has to be told.
    pub(crate) fn set(&self, number: u8, at: Ticks) -> bool {
        match self.timers.get(usize::from(number)) {
            Some(deadline) => {
                deadline.store(at.0, Relaxed);
                self.alarm.advance(at)
            }
            None => false,
        }
    }

    /// The earliest.
    pub(crate) fn next(&self) -> Ticks {
        Ticks(self.timers.iter().map(|deadline| deadline.load(Relaxed)).min().unwrap_or(Ticks::NEVER.0))
    }

    /// The lowest number of those that are due, if there is one; it is disarmed.
    pub(crate) fn take_due(&self, now: Ticks) -> Option<u8> {
        let (number, deadline) = (0_u8..).zip(&self.timers).find(|(_, deadline)| deadline.load(Relaxed) <= now.0)?;
        deadline.store(Ticks::NEVER.0, Relaxed);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{ANY_SIZE, Rig, Wires};
    use crate::{AccessFault, Control, ControlError, Factory, Node, OptionError, Options, Setup, Vdev};
    use alloc::boxed::Box;
    use types::AccessSize;

    /// Registers at 0x00 and 0x20, for each timer: a store of `n` at 0 sets it off at tick `n`; 8 and 16 are first time and
    /// period, 24 stops it. Loads say how often it went off (0), and when the last time (8).
    struct Bells {
        timers: [Timer; 2],
        first: [u64; 2],
        count: [u64; 2],
        last: [u64; 2],
    }

    impl Vdev for Bells {
        fn read(&mut self, offset: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
            let which = (offset >> 5) as usize;
            Ok(if offset & 0x1f == 0 { self.count[which] } else { self.last[which] })
        }
        fn write(
            &mut self,
            offset: u64,
            _: AccessSize,
            value: u64,
            context: &mut Context<'_>,
        ) -> Result<(), AccessFault> {
            let which = (offset >> 5) as usize;
            match offset & 0x1f {
                0 => self.timers[which].once(Ticks(value), context),
                8 => self.first[which] = value,
                16 => self.timers[which].every(Ticks(self.first[which]), value, context),
                _ => self.timers[which].stop(context),
            }
            Ok(())
        }
        fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
            Ok(())
        }
        fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
            for (which, timer) in self.timers.iter_mut().enumerate() {
                if timer.is(wake) {
                    self.count[which] += timer.expired(context);
                    self.last[which] = context.now().0;
                }
            }
        }
        fn describe(&self, _: &mut Node) {}
    }

    fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
        let timers = [Timer::new(0), Timer::new(3)];
        Ok(Box::new(Bells { timers, first: [0; 2], count: [0; 2], last: [0; 2] }))
    }

    static BELLS: Factory =
        Factory { name: "bells", access_sizes: ANY_SIZE, region_size: 0x40, ..Factory::new(create) };

    fn bells() -> Rig {
        Rig::new(&BELLS, &[], &mut Wires::default()).unwrap()
    }

    fn write(rig: &mut Rig, offset: u64, value: u64) {
        rig.try_write(offset, AccessSize::Doubleword, value).unwrap();
    }

    fn read(rig: &mut Rig, offset: u64) -> u64 {
        rig.try_read(offset, AccessSize::Doubleword).unwrap()
    }

    #[test]
    fn a_timer_goes_off_once_and_when_it_should() {
        let mut rig = bells();
        write(&mut rig, 0, 100);
        assert!(rig.effects.has_alarm());
        assert_eq!((rig.advance_to(Ticks(99)), read(&mut rig, 0)), (0, 0));
        assert_eq!((rig.advance_to(Ticks(500)), read(&mut rig, 0), read(&mut rig, 8)), (1, 1, 100));
        assert_eq!(rig.advance_to(Ticks(u64::MAX - 1)), 0);
        // What has passed is due at once.
        write(&mut rig, 0, 7);
        assert_eq!((rig.advance_to(rig.now), read(&mut rig, 0)), (1, 2));
    }

    #[test]
    fn two_timers_go_off_in_order_and_a_stopped_one_does_not() {
        let mut rig = bells();
        write(&mut rig, 0, 200);
        write(&mut rig, 0x20, 150);
        assert_eq!((rig.advance_to(Ticks(160)), read(&mut rig, 0), read(&mut rig, 0x20)), (1, 0, 1));
        write(&mut rig, 24, 0);
        assert_eq!((rig.advance_to(Ticks(300)), read(&mut rig, 0)), (0, 0));
    }

    #[test]
    fn a_periodic_timer_neither_drifts_nor_makes_up_for_what_it_missed() {
        let mut rig = bells();
        write(&mut rig, 8, 100);
        write(&mut rig, 16, 10);
        assert_eq!((rig.advance_to(Ticks(130)), read(&mut rig, 0), read(&mut rig, 8)), (4, 4, 130));
        // Nobody calls until 177: one wake says that 140, 150, 160 and 170 have passed, and the next is at 180.
        rig.now = Ticks(177);
        assert_eq!((rig.advance_to(Ticks(177)), read(&mut rig, 0), read(&mut rig, 8)), (1, 8, 177));
        assert_eq!((rig.advance_to(Ticks(180)), read(&mut rig, 8)), (1, 180));
    }

    #[test]
    fn only_an_earlier_deadline_than_all_is_news() {
        let mut rig = bells();
        let news = |rig: &mut Rig, offset, at| {
            rig.effects = crate::Effects::default();
            write(rig, offset, at);
            rig.effects.has_alarm()
        };
        assert!(news(&mut rig, 0, 1000));
        assert!(!news(&mut rig, 0x20, 2000) && news(&mut rig, 0x20, 500) && !news(&mut rig, 0, 600));
        // Later than before: the thread wakes up for nothing, once, and sees.
        assert!(!news(&mut rig, 0x20, 5000));
        assert_eq!(rig.advance_to(Ticks(600)), 1);
        assert!(!news(&mut rig, 0, 5000) && news(&mut rig, 0, 4999));
    }

    #[test]
    fn the_end_of_time_is_no_time() {
        let mut rig = bells();
        write(&mut rig, 8, u64::MAX - 5);
        write(&mut rig, 16, 10);
        assert_eq!(rig.advance_to(Ticks(u64::MAX - 1)), 1);
        assert_eq!(rig.advance_to(Ticks::NEVER), 0);
        write(&mut rig, 16, 0);
        assert_eq!(read(&mut rig, 0), 1);
    }
}
