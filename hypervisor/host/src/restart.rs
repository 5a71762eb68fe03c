//! Whether a VM that has ended is started again.
//!
//! Answers for: its configuration's `on-exit`, and how often is too often. Does not answer for: starting it.
//!
//! What an operator has ended stays ended. So does what cannot even be configured: it would fail again. How often is
//! counted in windows: the first restart opens one, and the first behind its end the next.

use vdev::Cause;
use vm::config::{OnExit, Then, When};

/// What becomes of a VM that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Nothing.
    Stay,
    /// It is started again.
    Again {
        /// For the how-manieth time, from 1.
        number: u32,
    },
    /// The board is reset: the VM cannot do without being started again, and that has been tried too often.
    ResetBoard,
}

/// How often a VM has been started again.
#[derive(Clone, Copy, Debug)]
pub struct Restarts {
    policy: OnExit,
    /// In all.
    number: u32,
    /// When the window was opened, in seconds, and how many there have been in it.
    window: Option<(u64, u32)>,
    exhausted: bool,
    /// It cannot be started again, however seldom it has been.
    is_stuck: bool,
}

impl Restarts {
    /// Not at all so far.
    #[must_use]
    pub const fn new(policy: OnExit) -> Self {
        Self { policy, number: 0, window: None, exhausted: false, is_stuck: false }
    }

    /// How often in all.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Whether the last decision would have been another if there had not been so many before.
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Something of its last life is still there, and for good: another one would have the same number and the same addresses. It is as if it
    /// had been started again too often.
    pub const fn get_stuck(&mut self) {
        self.is_stuck = true;
    }

    /// The VM has ended, `now` seconds after the machine was switched on. `asked`: an operator wanted it to, by SIGTERM or
    /// SIGINT; SIGQUIT is a failure like any other.
    pub fn after(&mut self, cause: Cause, asked: bool, now: u64) -> Decision {
        let wanted = cause == Cause::WatchdogRestart
            || match self.policy.when {
                When::Never => false,
                When::OnFailure => cause.code() != 0,
                When::Always => true,
            };
        if !wanted || asked || matches!(cause, Cause::Terminated | Cause::Configuration) {
            return Decision::Stay;
        }
        let (most, seconds) = self.policy.limit;
        let (begin, count) = match self.window {
            Some((begin, count)) if now.saturating_sub(begin) < u64::from(seconds) => (begin, count),
            _ => (now, 0),
        };
        self.exhausted = self.is_stuck || count >= most;
        if self.exhausted {
            return match self.policy.then {
                Then::Stay => Decision::Stay,
                Then::Reset => Decision::ResetBoard,
            };
        }
        self.window = Some((begin, count.saturating_add(1)));
        self.number = self.number.saturating_add(1);
        Decision::Again { number: self.number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts(when: When, limit: (u32, u32), then: Then) -> Restarts {
        Restarts::new(OnExit { when, limit, then })
    }

    const AGAIN: Decision = Decision::Again { number: 1 };

    #[test]
    fn the_policy_says_after_which_ends() {
        let ends = [Cause::Shutdown, Cause::Reset, Cause::PowerCut, Cause::Watchdog, Cause::Fatal, Cause::Custom(40)];
        for cause in ends {
            let after = |when| restarts(when, (5, 60), Then::Stay).after(cause, false, 0);
            assert_eq!(after(When::Never), Decision::Stay);
            assert_eq!(after(When::OnFailure), if cause.code() == 0 { Decision::Stay } else { AGAIN }, "{cause}");
            assert_eq!(after(When::Always), AGAIN);
        }
    }

    #[test]
    fn a_watchdog_may_want_it_whatever_the_policy_is() {
        let mut never = restarts(When::Never, (1, 60), Then::Stay);
        assert_eq!(never.after(Cause::WatchdogRestart, true, 0), Decision::Stay, "somebody wanted it to end");
        assert_eq!(never.after(Cause::WatchdogRestart, false, 0), AGAIN);
        assert_eq!(never.after(Cause::WatchdogRestart, false, 1), Decision::Stay, "but not for ever");
        assert!(never.is_exhausted());
    }

    #[test]
    fn what_an_operator_ended_and_what_cannot_be_configured_stays_ended() {
        let mut restarts = restarts(When::Always, (5, 60), Then::Reset);
        assert_eq!(restarts.after(Cause::Shutdown, true, 0), Decision::Stay);
        assert_eq!(restarts.after(Cause::Unexpected, true, 0), Decision::Stay);
        assert_eq!(restarts.after(Cause::Terminated, false, 0), Decision::Stay);
        assert_eq!(restarts.after(Cause::Configuration, false, 0), Decision::Stay);
        assert_eq!((restarts.number(), restarts.is_exhausted()), (0, false));
        assert_eq!(restarts.after(Cause::PowerCut, false, 0), AGAIN);
    }

    #[test]
    fn too_often_is_so_many_times_in_a_window_that_begins_with_the_first() {
        let mut restarts = restarts(When::OnFailure, (2, 60), Then::Stay);
        let mut after = |now| (restarts.after(Cause::Vdev, false, now), restarts.is_exhausted());
        assert_eq!(after(100), (AGAIN, false));
        assert_eq!(after(159), (Decision::Again { number: 2 }, false));
        assert_eq!(after(159), (Decision::Stay, true));
        assert_eq!(after(160), (Decision::Again { number: 3 }, false), "the window is over");
        assert_eq!(after(219), (Decision::Again { number: 4 }, false));
        assert_eq!(after(219), (Decision::Stay, true));
        assert_eq!(after(0), (Decision::Stay, true), "time does not run backwards");
    }

    #[test]
    fn what_is_not_gone_does_not_come_again() {
        for (then, expected) in [(Then::Stay, Decision::Stay), (Then::Reset, Decision::ResetBoard)] {
            let mut restarts = restarts(When::Always, (5, 60), then);
            assert_eq!(restarts.after(Cause::PowerCut, false, 0), AGAIN);
            restarts.get_stuck();
            assert_eq!((restarts.after(Cause::PowerCut, false, 0), restarts.is_exhausted()), (expected, true));
            assert_eq!(restarts.after(Cause::PowerCut, true, 0), Decision::Stay, "nobody wanted it to");
        }
    }

    #[test]
    fn the_board_is_reset_if_the_policy_says_so() {
        let mut restarts = restarts(When::Always, (1, 10), Then::Reset);
        assert_eq!(restarts.after(Cause::Shutdown, false, 0), AGAIN);
        assert_eq!(restarts.after(Cause::Shutdown, false, 5), Decision::ResetBoard);
        assert_eq!(restarts.number(), 1);
    }
}
