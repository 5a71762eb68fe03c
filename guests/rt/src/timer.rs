//! The generic timer of EL1.
//!
//! Answers for: counters, one-shots, waiting. Does not answer for: interrupts on the way to the CPU (`gic`).
//!
//! DDI 0487, chapter D12.

use crate::gic::{Bank, Gic};
use crate::registers::{isb, mask_irq, relax, wfi};
use crate::{mrs, msr};

/// `CNT*_CTL_EL0`: the timer is on.
pub const ENABLE: u64 = 1 << 0;
/// `CNT*_CTL_EL0`: its interrupt is masked.
pub const IMASK: u64 = 1 << 1;
/// `CNT*_CTL_EL0`: its condition is met.
pub const ISTATUS: u64 = 1 << 2;

/// One of the two timers of EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// `CNTP_*_EL0`.
    Physical,
    /// `CNTV_*_EL0`.
    Virtual,
}

impl Timer {
    /// Its interrupt.
    #[must_use]
    pub fn intid(self) -> u32 {
        let timers = crate::machine::machine().timers;
        match self {
            Self::Physical => timers.physical,
            Self::Virtual => timers.virtual_,
        }
    }

    /// Its count, in ticks, not read ahead of time.
    #[must_use]
    pub fn count(self) -> u64 {
        isb();
        match self {
            Self::Physical => mrs!("cntpct_el0"),
            Self::Virtual => mrs!("cntvct_el0"),
        }
    }

    /// Its control register.
    #[must_use]
    pub fn control(self) -> u64 {
        match self {
            Self::Physical => mrs!("cntp_ctl_el0"),
            Self::Virtual => mrs!("cntv_ctl_el0"),
        }
    }

    /// Writes its control register.
    pub fn set_control(self, value: u64) {
        match self {
            // SAFETY: a timer touches no memory.
            Self::Physical => unsafe { msr!("cntp_ctl_el0", value) },
            // SAFETY: as above.
            Self::Virtual => unsafe { msr!("cntv_ctl_el0", value) },
        }
        isb();
    }

    /// The count that meets its condition.
    #[must_use]
    pub fn compare(self) -> u64 {
        match self {
            Self::Physical => mrs!("cntp_cval_el0"),
            Self::Virtual => mrs!("cntv_cval_el0"),
        }
    }

    /// Sets the count that meets its condition.
    pub fn set_compare(self, value: u64) {
        match self {
            // SAFETY: a timer touches no memory.
            Self::Physical => unsafe { msr!("cntp_cval_el0", value) },
            // SAFETY: as above.
            Self::Virtual => unsafe { msr!("cntv_cval_el0", value) },
        }
        isb();
    }

    /// The 32-bit downwards view of it.
    #[must_use]
    pub fn remaining(self) -> i32 {
        (match self {
            Self::Physical => mrs!("cntp_tval_el0"),
            Self::Virtual => mrs!("cntv_tval_el0"),
        }) as i32
    }

    /// Sets it `ticks` from now through the downwards view.
    pub fn set_remaining(self, ticks: i32) {
        let value = u64::from(ticks as u32);
        match self {
            // SAFETY: a timer touches no memory.
            Self::Physical => unsafe { msr!("cntp_tval_el0", value) },
            // SAFETY: as above.
            Self::Virtual => unsafe { msr!("cntv_tval_el0", value) },
        }
        isb();
    }

    /// Fires at `count`, once enabled at the interrupt controller.
    pub fn arm(self, count: u64) {
        self.set_compare(count);
        self.set_control(ENABLE);
    }

    /// Off, and quiet.
    pub fn stop(self) {
        self.set_control(IMASK);
    }

    /// Whether its condition is met.
    #[must_use]
    pub fn is_due(self) -> bool {
        self.control() & ISTATUS != 0
    }
}

/// Ticks per second.
#[must_use]
pub fn frequency() -> u64 {
    mrs!("cntfrq_el0")
}

/// Now, on the virtual counter.
#[must_use]
pub fn now() -> u64 {
    Timer::Virtual.count()
}

/// `microseconds` in ticks, rounded up.
#[must_use]
pub fn ticks(microseconds: u64) -> u64 {
    (microseconds * frequency()).div_ceil(1_000_000)
}

/// Spins for `microseconds`.
pub fn delay(microseconds: u64) {
    wait_until(microseconds, || false);
}

/// Spins until `condition` holds, for at most `microseconds`; says whether it did.
pub fn wait_until(microseconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = now() + ticks(microseconds);
    loop {
        if condition() {
            return true;
        }
        if now() >= end {
            return condition();
        }
        relax();
    }
}

/// Sleeps until an interrupt is pending, for about `microseconds` at most. Uses the physical timer, which has to be idle.
pub fn doze(microseconds: u64) {
    let timer = Timer::Physical;
    let gic = Gic::of(crate::machine::machine());
    let was_enabled = gic.is(Bank::Enabled, timer.intid());
    // Masked: an alarm that is taken before we sleep would not wake us.
    let masks = mrs!("daif");
    mask_irq();
    gic.enable(timer.intid());
    timer.arm(timer.count() + ticks(microseconds));
    wfi();
    timer.stop();
    // SAFETY: what it was.
    unsafe { msr!("daif", masks) };
    if !was_enabled {
        gic.disable(timer.intid());
    }
}

/// As [`wait_until`], but leaves the CPU to others after a short while: what it waits for may need it. Same condition as
/// [`doze`].
pub fn sleep_until(microseconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    const PATIENCE: u64 = 50;
    const NAP: u64 = 200;
    let end = now() + ticks(microseconds);
    while !wait_until(PATIENCE, &mut condition) {
        if now() >= end {
            return false;
        }
        doze(NAP);
    }
    true
}
