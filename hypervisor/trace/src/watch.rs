//! What of a vCPU's interrupts and timers is an event.
//!
//! Answers for: comparing what the guest finds when it is entered with what it found the last time. So nothing is recorded,
//! and nothing tested, where interrupts are made and timers are set; the price is that an event is as late as the next exit
//! or entry. Does not answer for: reading the registers (the kernel's), interrupts that wait for room in a list register.
//!
//! List registers are those of a GICv3 (IHI 0069, `ICH_LR<n>_EL2`).

use crate::What;
use types::{IntId, Ticks};

/// Most list registers (IHI 0069, `ICH_VTR_EL2`.ListRegs).
const REGISTERS: usize = 16;
/// `ICH_LR<n>_EL2`: pending, or active and pending.
const PENDING: u64 = 1 << 62;
/// No interrupt has this number.
const NONE: u32 = u32::MAX;
/// The timers, by their interrupts.
const TIMERS: [IntId; 2] = [IntId::VIRTUAL_TIMER, IntId::PHYSICAL_TIMER];

/// What one vCPU's guest has seen last.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Those that were pending, in front.
    pending: [u32; REGISTERS],
    deadlines: [Ticks; 2],
}

impl Default for Watch {
    fn default() -> Self {
        Self { pending: [NONE; REGISTERS], deadlines: [Ticks::NEVER; 2] }
    }
}

impl Watch {
    /// The list registers that are not empty, right before an entry and right behind an exit.
    #[inline(never)]
    pub fn lines(&mut self, registers: impl Iterator<Item = u64>, mut report: impl FnMut(What)) {
        let mut now = [NONE; REGISTERS];
        let mut free = now.iter_mut();
        for register in registers.filter(|register| register & PENDING != 0) {
            let [a, b, c, d, ..] = register.to_le_bytes();
            if let Some(slot) = free.next() {
                *slot = u32::from_le_bytes([a, b, c, d]);
            }
        }
        let before = core::mem::replace(&mut self.pending, now);
        for intid in before.iter().filter(|intid| **intid != NONE && !now.contains(intid)) {
            report(What::Deasserted(*intid));
        }
        for intid in now.iter().filter(|intid| **intid != NONE && !before.contains(intid)) {
            if TIMERS.contains(&IntId(*intid)) {
                report(What::TimerFired { timer: *intid });
            }
            report(What::Asserted(*intid));
        }
    }

    /// Whether [`Watch::lines`] has anything to say of registers in which nothing is pending.
    #[must_use]
    pub fn is_any_pending(&self) -> bool {
        self.pending.first() != Some(&NONE)
    }

    /// When the virtual and the physical timer are to fire, [`Ticks::NEVER`] if they are not.
    pub fn timers(&mut self, deadlines: [Ticks; 2], mut report: impl FnMut(What)) {
        let before = core::mem::replace(&mut self.deadlines, deadlines);
        if before == deadlines {
            return;
        }
        for ((timer, at), before) in TIMERS.into_iter().zip(deadlines).zip(before) {
            if at != before && at != Ticks::NEVER {
                report(What::TimerArmed { timer: timer.0, at });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{vec, vec::Vec};

    const ACTIVE: u64 = 1 << 63;

    fn lines(watch: &mut Watch, registers: &[u64]) -> Vec<What> {
        let mut events = Vec::new();
        watch.lines(registers.iter().copied(), |what| events.push(what));
        events
    }

    #[test]
    fn an_interrupt_is_asserted_once_and_taken_once_wherever_it_stands() {
        let mut watch = Watch::default();
        assert_eq!(lines(&mut watch, &[0, 0, 0, 0]), []);
        assert!(!watch.is_any_pending());
        assert_eq!(lines(&mut watch, &[0, PENDING | 37, 0, 0]), [What::Asserted(37)]);
        assert!(watch.is_any_pending());
        // The vCPU was away meanwhile, and got another register for it.
        assert_eq!(lines(&mut watch, &[PENDING | 37, 0, 0, PENDING]), [What::Asserted(0)]);
        assert_eq!(lines(&mut watch, &[PENDING | ACTIVE | 37, 0, 0, ACTIVE]), [What::Deasserted(0)]);
        assert_eq!(lines(&mut watch, &[ACTIVE | 37]), [What::Deasserted(37)]);
        assert!(!watch.is_any_pending());
        assert_eq!(lines(&mut watch, &[PENDING | ACTIVE | 37]), [What::Asserted(37)], "again before it has ended");
    }

    #[test]
    fn a_timer_fires_when_its_interrupt_comes() {
        let mut watch = Watch::default();
        let fired = What::TimerFired { timer: 27 };
        assert_eq!(lines(&mut watch, &[PENDING | 27]), [fired, What::Asserted(27)]);
        assert_eq!(lines(&mut watch, &[PENDING | 27]), []);
    }

    #[test]
    fn a_timer_is_armed_when_its_time_changes() {
        let mut watch = Watch::default();
        let mut timers = |virtual_, physical| {
            let mut events = vec![];
            watch.timers([Ticks(virtual_), Ticks(physical)], |what| events.push(what));
            events
        };
        let armed = |timer, at| What::TimerArmed { timer, at: Ticks(at) };
        assert_eq!(timers(100, u64::MAX), [armed(27, 100)]);
        assert_eq!(timers(100, 7), [armed(30, 7)]);
        assert_eq!(timers(u64::MAX, 7), [], "stopping is no event");
        assert_eq!(timers(100, 8), [armed(27, 100), armed(30, 8)]);
    }
}
