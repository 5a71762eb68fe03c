//! Time in ticks of the generic timer.

/// A point in, or a length of, time in ticks of the system counter (`CNTPCT_EL0`; DDI 0487, "The Generic Timer"). 64 bits
/// do not wrap in the life of a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Ticks(pub u64);

impl Ticks {
    /// Later than everything.
    pub const NEVER: Self = Self(u64::MAX);

    /// `self + other`, stopping at [`Ticks::NEVER`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self - other`, stopping at zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Ticks per second: `CNTFRQ_EL0`. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frequency(core::num::NonZeroU32);

impl Frequency {
    /// A frequency in hertz; `None` for zero.
    #[must_use]
    pub const fn new(hertz: u32) -> Option<Self> {
        match core::num::NonZeroU32::new(hertz) {
            Some(hertz) => Some(Self(hertz)),
            None => None,
        }
    }

    /// In hertz.
    #[must_use]
    pub const fn hertz(self) -> u32 {
        self.0.get()
    }

    /// So many microseconds in ticks, rounded down, stopping at [`Ticks::NEVER`].
    #[must_use]
    pub const fn microseconds(self, microseconds: u64) -> Ticks {
        self.scale(microseconds, 1_000_000)
    }

    /// So many nanoseconds in ticks, rounded down, stopping at [`Ticks::NEVER`].
    #[must_use]
    pub const fn nanoseconds(self, nanoseconds: u64) -> Ticks {
        self.scale(nanoseconds, 1_000_000_000)
    }

    /// `ticks` in nanoseconds, rounded down, stopping at `u64::MAX`.
    #[must_use]
    pub const fn to_nanoseconds(self, ticks: Ticks) -> u64 {
        let nanoseconds = ticks.0 as u128 * 1_000_000_000 / self.0.get() as u128;
        if nanoseconds > u64::MAX as u128 { u64::MAX } else { nanoseconds as u64 }
    }

    const fn scale(self, units: u64, per_second: u64) -> Ticks {
        let ticks = units as u128 * self.0.get() as u128 / per_second as u128;
        if ticks > u64::MAX as u128 { Ticks::NEVER } else { Ticks(ticks as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_neither_wrap_nor_divide_by_zero() {
        assert!(Frequency::new(0).is_none());
        let frequency = Frequency::new(62_500_000).unwrap();
        assert_eq!(frequency.microseconds(10), Ticks(625));
        assert_eq!(frequency.to_nanoseconds(Ticks(1)), 16);
        assert_eq!(frequency.nanoseconds(u64::MAX).0, 1_152_921_504_606_846_975);
        assert_eq!(Frequency::new(1).unwrap().to_nanoseconds(Ticks(u64::MAX)), u64::MAX);
    }
}
