//! The guest's two timers.
//!
//! Answers for: the EL1 physical timer (`CNTP_*_EL0`), which is emulated, because the hardware has no offset for it
//! before FEAT_ECV; and for when a vCPU that is not running has to be woken for one of its timers. Does not answer for:
//! the EL1 virtual timer while its vCPU runs (it is the guest's own and never exits), nor for alarms (the kernel's).
//!
//! Follows DDI 0487, "The Generic Timer in AArch64 state". Both counters of a guest show the physical count less the
//! VM's counter offset.

use types::Ticks;

/// `CNTP_CTL_EL0` and `CNTV_CTL_EL0`.
pub mod control {
    /// The timer is enabled.
    pub const ENABLE: u64 = 1 << 0;
    /// Its interrupt is masked.
    pub const IMASK: u64 = 1 << 1;
    /// Read-only: the timer condition is met. Only shown by an enabled timer.
    pub const ISTATUS: u64 = 1 << 2;
}

/// The EL1 physical timer of one vCPU. Times are the guest's: physical count less offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhysicalTimer {
    control: u64,
    compare: u64,
}

impl PhysicalTimer {
    /// `CNTP_CTL_EL0` at `now`. `ISTATUS` of a disabled timer is UNKNOWN: zero here.
    #[must_use]
    pub const fn control(&self, now: u64) -> u64 {
        if self.condition_met(now) { self.control | control::ISTATUS } else { self.control }
    }

    /// Writes `CNTP_CTL_EL0`.
    pub const fn set_control(&mut self, value: u64) {
        self.control = value & (control::ENABLE | control::IMASK);
    }

    /// `CNTP_CVAL_EL0`.
    #[must_use]
    pub const fn compare(&self) -> u64 {
        self.compare
    }

    /// Writes `CNTP_CVAL_EL0`.
    pub const fn set_compare(&mut self, value: u64) {
        self.compare = value;
    }

    /// `CNTP_TVAL_EL0`: the lower half of what is left until the compare value.
    #[must_use]
    pub const fn value(&self, now: u64) -> u64 {
        self.compare.wrapping_sub(now) & 0xffff_ffff
    }

    /// Writes `CNTP_TVAL_EL0`, a signed 32-bit number of ticks from now.
    pub const fn set_value(&mut self, now: u64, value: u64) {
        self.compare = now.wrapping_add(types::AccessSize::Word.sign_extend(value));
    }

    /// The timer condition of an enabled timer: the unsigned count has reached the compare value ("Operation of the
    /// CompareValue views of the timers").
    const fn condition_met(&self, now: u64) -> bool {
        self.control & control::ENABLE != 0 && now >= self.compare
    }

    /// The timer's interrupt line, level sensitive.
    #[must_use]
    pub const fn asserted(&self, now: u64) -> bool {
        self.condition_met(now) && self.control & control::IMASK == 0
    }

    /// When the line will rise by itself, in guest time.
    #[must_use]
    pub const fn deadline(&self, now: u64) -> Option<u64> {
        let waits = self.control & (control::ENABLE | control::IMASK) == control::ENABLE && now < self.compare;
        if waits { Some(self.compare) } else { None }
    }
}

/// Whether the virtual timer asserts its interrupt: enabled, not masked, its time come.
#[must_use]
pub const fn virtual_timer_asserted(cntv_ctl: u64) -> bool {
    cntv_ctl & (control::ENABLE | control::IMASK | control::ISTATUS) == control::ENABLE | control::ISTATUS
}

/// The physical count at which the virtual timer with these registers has something to say: [`Ticks::NEVER`] if it is
/// disabled or masked, a time in the past if its interrupt is asserted already. For vCPUs that are not loaded.
#[must_use]
pub const fn virtual_deadline(cntv_ctl: u64, cntv_cval: u64, counter_offset: u64) -> Ticks {
    if cntv_ctl & (control::ENABLE | control::IMASK) == control::ENABLE {
        to_physical(cntv_cval, counter_offset)
    } else {
        Ticks::NEVER
    }
}

/// A guest's time as a physical count, stopping at [`Ticks::NEVER`].
///
/// An offset from the configuration may let the guest's clock run ahead of the host's: it is then a negative number, and
/// the sum wraps to where it belongs. A sum that wraps upwards is a time that the host's counter never shows.
#[must_use]
pub const fn to_physical(guest: u64, counter_offset: u64) -> Ticks {
    if counter_offset >> 63 == 0 {
        Ticks(guest).saturating_add(Ticks(counter_offset))
    } else {
        Ticks(guest).saturating_sub(Ticks(counter_offset.wrapping_neg()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_rises_when_the_count_reaches_the_compare_value() {
        let mut timer = PhysicalTimer::default();
        timer.set_compare(100);
        assert_eq!((timer.asserted(100), timer.deadline(50)), (false, None), "disabled");
        timer.set_control(control::ENABLE);
        assert_eq!(timer.deadline(99), Some(100));
        assert!(!timer.asserted(99) && timer.asserted(100) && timer.asserted(u64::MAX));
        assert_eq!(timer.deadline(100), None, "it has risen");
        assert_eq!(timer.control(99), control::ENABLE);
        assert_eq!(timer.control(100), control::ENABLE | control::ISTATUS);
    }

    #[test]
    fn a_masked_timer_shows_its_condition_and_raises_nothing() {
        let mut timer = PhysicalTimer::default();
        timer.set_control(u64::MAX);
        assert_eq!(timer.control(0), control::ENABLE | control::IMASK | control::ISTATUS);
        assert!(!timer.asserted(0));
        assert_eq!(timer.deadline(0), None);
    }

    #[test]
    fn the_timer_value_is_signed_and_relative() {
        let mut timer = PhysicalTimer::default();
        timer.set_value(1000, 0xffff_ffff);
        assert_eq!(timer.compare(), 999, "minus one");
        timer.set_value(1000, 0xdead_0000_0000_0010);
        assert_eq!(timer.compare(), 1016, "only 32 bits count");
        assert_eq!(timer.value(1000), 16);
        assert_eq!(timer.value(1017), 0xffff_ffff, "overdue by one");
    }

    #[test]
    fn compare_values_are_unsigned() {
        let mut timer = PhysicalTimer::default();
        timer.set_control(control::ENABLE);
        timer.set_compare(u64::MAX);
        assert!(!timer.asserted(1 << 63));
    }

    #[test]
    fn a_sleeping_virtual_timer_is_due_at_its_compare_value_plus_the_offset() {
        assert_eq!(virtual_deadline(control::ENABLE, 10, 1000), Ticks(1010));
        assert_eq!(virtual_deadline(control::ENABLE | control::ISTATUS, 0, 1000), Ticks(1000), "due already");
        assert_eq!(virtual_deadline(control::ENABLE | control::IMASK, 10, 1000), Ticks::NEVER);
        assert_eq!(virtual_deadline(0, 10, 1000), Ticks::NEVER);
        assert_eq!(virtual_deadline(control::ENABLE, u64::MAX, 1000), Ticks::NEVER, "no wrap into the past");
    }

    #[test]
    fn a_guest_clock_ahead_of_the_host_has_a_negative_offset() {
        assert_eq!(to_physical(1_000_000, 1000u64.wrapping_neg()), Ticks(999_000));
        assert_eq!(to_physical(10, 1000u64.wrapping_neg()), Ticks(0), "long due");
    }
}
