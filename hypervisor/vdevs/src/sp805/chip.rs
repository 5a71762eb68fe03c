//! The SP805 as a chip: a counter, an interrupt, and a reset.
//!
//! Answers for: what DDI 0270 (ARM Watchdog Module (SP805) Technical Reference Manual), chapter 3, says of the registers.
//! Does not answer for: interrupt lines and buses, what a reset does (the plug's), nor for being called when
//! [`Chip::next`] says; whatever is late is made up for with the next call, once and not in a loop.

use super::registers::{Control, IDENTIFICATION, Outputs, UNLOCK, offset};
use crate::plug;
use crate::time::{Moment, Time};
use core::fmt;

/// A chip that is called later than this after its counter came to zero does not hold it against its guest, nor if it is
/// a quarter of the count: see [`Chip::advance`].
const LATE_MILLISECONDS: u32 = 100;

/// The counter.
#[derive(Clone, Copy, Debug)]
enum Counter {
    /// It stands still, at this.
    Stopped(u32),
    /// It was at `from` at `start` and goes down by one with every cycle.
    Running {
        /// When.
        start: Moment,
        /// What it said then.
        from: u32,
    },
}

/// The chip.
#[derive(Debug)]
pub(super) struct Chip {
    load: u32,
    control: Control,
    counter: Counter,
    /// WdogRIS: the counter has come to zero, and nobody has cleared that.
    pending: bool,
    locked: bool,
    /// WdogITCR: WdogITOP says what is on the outputs.
    testing: bool,
    outputs: Outputs,
}

impl Default for Chip {
    /// After a reset (3.2, "Summary of registers").
    fn default() -> Self {
        Self {
            load: u32::MAX,
            control: Control::empty(),
            counter: Counter::Stopped(u32::MAX),
            pending: false,
            locked: false,
            testing: false,
            outputs: Outputs::empty(),
        }
    }
}

impl Chip {
    /// Whether WDOGINT is asserted.
    pub(super) fn interrupt(&self) -> bool {
        if self.testing { self.outputs.contains(Outputs::INTERRUPT) } else { self.masked() }
    }

    /// When something happens by itself, if anything does: the interrupt, or the reset.
    pub(super) fn next(&self, time: Time) -> Option<Moment> {
        match self.counter {
            // With the interrupt there and nothing to reset, zero is a number like any other.
            Counter::Running { start, from } if !self.pending || self.control.contains(Control::RESET) => {
                Some(time.after(start, u64::from(from)))
            }
            _ => None,
        }
    }

    /// A load at `at`, after [`Chip::advance`]. What is write-only or not there reads as zero.
    pub(super) fn read(&self, at: u64, time: Time) -> u32 {
        match at {
            offset::LOAD => self.load,
            offset::VALUE => self.value(time),
            offset::CONTROL => self.control.bits(),
            offset::RAW_INTERRUPT => u32::from(self.pending),
            offset::MASKED_INTERRUPT => u32::from(self.masked()),
            offset::LOCK => u32::from(self.locked),
            offset::TEST_CONTROL => u32::from(self.testing),
            _ => plug::identification(at, &IDENTIFICATION),
        }
    }

    /// A store of `value` at `at`, after [`Chip::advance`]. Says whether WDOGRES is asserted by it. Bits that do not exist
    /// are not kept; stores to what is read-only or not there do nothing.
    pub(super) fn write(&mut self, at: u64, value: u32, time: Time) -> bool {
        if at == offset::LOCK {
            self.locked = value != UNLOCK;
        }
        // 3.3.7: "Use this register to disable write accesses to all other registers."
        if self.locked {
            return false;
        }
        match at {
            offset::LOAD => {
                self.load = value;
                self.restart(time);
            }
            offset::CONTROL => self.set_control(Control::from_bits_truncate(value), time),
            offset::CLEAR => {
                self.pending = false;
                self.restart(time);
            }
            offset::TEST_CONTROL => self.testing = value & 1 != 0,
            offset::TEST_OUTPUT => {
                let before = self.outputs;
                self.outputs = Outputs::from_bits_truncate(value);
                let rose = self.outputs.difference(before).contains(Outputs::RESET);
                return self.testing && rose;
            }
            _ => {}
        }
        false
    }

    /// Does what the counter has done meanwhile. Says whether WDOGRES is asserted: the counter stands still then, until
    /// it is loaded again.
    ///
    /// SPEC: a call that comes late finds that the guest could do nothing against what has happened meanwhile: it was
    /// paused, or dumped, or the interrupt was not shown to it. So the count begins anew with the call: between the
    /// interrupt and the reset the guest has a full count, or nearly, by the clock of who watches it.
    pub(super) fn advance(&mut self, time: Time) -> bool {
        // Twice: the interrupt, and the reset.
        for _ in 0..2 {
            let Counter::Running { start, from } = self.counter else { return false };
            let zero = time.after(start, u64::from(from));
            if zero > time.now() {
                return false;
            }
            let tolerable = time.milliseconds(LATE_MILLISECONDS).max(u64::from(self.load / 4));
            if time.since(zero) > tolerable {
                self.pending = true;
                self.restart(time);
                return false;
            }
            if self.pending && self.control.contains(Control::RESET) {
                self.counter = Counter::Stopped(0);
                return true;
            }
            // 2.2, "on the next enabled clock edge the counter is reloaded". If the interrupt is there already, the
            // counter may have done that any number of times.
            let reloaded = time.after(zero, 1);
            let period = u64::from(self.load).saturating_add(1);
            let (rounds, before) = (time.since(reloaded).checked_div(period).unwrap_or(0), self.pending);
            let skipped = if before { rounds.saturating_mul(period) } else { 0 };
            self.counter = Counter::Running { start: time.after(reloaded, skipped), from: self.load };
            self.pending = true;
        }
        false
    }

    fn set_control(&mut self, control: Control, time: Time) {
        let before = self.control.contains(Control::INTERRUPT);
        let after = control.contains(Control::INTERRUPT);
        let value = self.value(time);
        self.control = control;
        match (before, after) {
            // 3.3.3: the interrupt's enable is the counter's, and loads it.
            (false, true) => self.restart(time),
            (true, false) => self.counter = Counter::Stopped(value),
            _ => {}
        }
    }

    /// The counter begins at WdogLoad.
    fn restart(&mut self, time: Time) {
        self.counter = if self.control.contains(Control::INTERRUPT) {
            Counter::Running { start: time.now(), from: self.load }
        } else {
            Counter::Stopped(self.load)
        };
    }

    /// WdogValue.
    fn value(&self, time: Time) -> u32 {
        match self.counter {
            Counter::Stopped(value) => value,
            // It stays at zero for a cycle before it is loaded.
            Counter::Running { start, .. } if start > time.now() => 0,
            Counter::Running { start, from } => {
                from.saturating_sub(u32::try_from(time.since(start)).unwrap_or(u32::MAX))
            }
        }
    }

    /// WdogMIS (3.3.6).
    const fn masked(&self) -> bool {
        self.pending && self.control.contains(Control::INTERRUPT)
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.counter {
            Counter::Running { .. } => "counts",
            Counter::Stopped(_) => "stands still",
        };
        let (load, pending) = (self.load, if self.pending { ", has come to zero once" } else { "" });
        write!(f, "{state} from {load}, control {:#x}{pending}", self.control.bits())
    }
}
