//! Which pin a pin is further up, and when it is over.
//!
//! Answers for: the way of a function's INTx through bridges (PCI Express, 2.2.8.1, Table 2-20; PCI-to-PCI Bridge Architecture Specification, 9.1);
//! who of those that share it has yet to say that it is over, and whether it is of any use. Does not answer for: which interrupt that is
//! (`machine::PciInterrupts`), nor for masking it.

use crate::Function;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use pci_types::PciAddress;

/// The function on the host's own bus by which the pin of the one at `address` arrives, and as which pin; none if it has none.
#[must_use]
pub fn pin_at_host(functions: &[Function], address: PciAddress) -> Option<(PciAddress, u8)> {
    let find = |address| functions.iter().find(|function| function.address == address);
    let mut function = find(address)?;
    let mut pin = function.pin?;
    // A bus number is lower above; 256 is more than there are.
    for _ in 0..256 {
        let Some(above) = function.above.and_then(find) else { break };
        // With ARI, the device number is 0 (6.13).
        let device = if function.capabilities.ari.is_some() { 0 } else { function.address.device() };
        // INTA is 1.
        pin = (pin.saturating_sub(1).saturating_add(device) & 3).saturating_add(1);
        function = above;
    }
    Some((function.address, pin))
}

/// So often in a row a pin may come that nobody has asserted. Now and then that is in order: who had it may have been quicker than who looks.
const MOST_IDLE: u32 = 1000;

/// A pin that up to 32 functions of one owner have in common, and that does not come again before all of them have ended it.
#[derive(Debug, Default)]
pub struct Line {
    /// Which have not ended it yet: a bit each.
    waiting: AtomicU32,
    /// One of them had asserted it.
    was_used: AtomicBool,
    /// How often it has come in a row, and none had.
    idle: AtomicU32,
}

/// What a function's end of a pin is for the pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum LineEnd {
    /// Others have not ended it yet; or it had not come for this one.
    NotYet,
    /// It may come again.
    Over,
    /// It comes on and on though none has asserted it, as far as their status says, and would never stop: it must not come again.
    Useless,
}

impl Line {
    /// A pin that has not come.
    #[must_use]
    pub const fn new() -> Self {
        Self { waiting: AtomicU32::new(0), was_used: AtomicBool::new(false), idle: AtomicU32::new(0) }
    }

    /// It has come, for these functions: a bit each.
    pub fn begin(&self, functions: u32) {
        self.waiting.store(functions, Ordering::SeqCst);
    }

    /// The function `number`, below 32, has ended it; `was_asserted` if it had asserted it.
    pub fn end(&self, number: usize, was_asserted: bool) -> LineEnd {
        let own = u32::try_from(number).ok().and_then(|number| 1_u32.checked_shl(number)).unwrap_or(0);
        if was_asserted {
            self.was_used.store(true, Ordering::SeqCst);
        }
        let before = self.waiting.fetch_and(!own, Ordering::SeqCst);
        if own == 0 || before != own {
            return LineEnd::NotYet;
        }
        if self.was_used.swap(false, Ordering::SeqCst) {
            self.idle.store(0, Ordering::SeqCst);
            return LineEnd::Over;
        }
        // Nobody else does this at the same time: the last one does.
        let idle = self.idle.load(Ordering::SeqCst).saturating_add(1);
        self.idle.store(idle, Ordering::SeqCst);
        if idle < MOST_IDLE { LineEnd::Over } else { LineEnd::Useless }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_over_when_all_have_ended_it() {
        let line = Line::new();
        assert_eq!(line.end(0, false), LineEnd::NotYet, "it has not come");
        line.begin(0b101);
        assert_eq!(line.end(2, true), LineEnd::NotYet);
        assert_eq!(line.end(2, true), LineEnd::NotYet, "no more than once");
        assert_eq!(line.end(1, true), LineEnd::NotYet, "not one of them");
        assert_eq!(line.end(0, false), LineEnd::Over);
        assert_eq!(line.end(0, false), LineEnd::NotYet);
        assert_eq!((line.end(32, true), line.end(usize::MAX, true)), (LineEnd::NotYet, LineEnd::NotYet));
    }

    #[test]
    fn a_pin_that_comes_on_and_on_and_nobody_has_asserted_is_of_no_use() {
        let line = Line::new();
        let come = |asserted| {
            line.begin(0b11);
            assert_eq!(line.end(0, false), LineEnd::NotYet);
            line.end(1, asserted)
        };
        for _ in 0..3 {
            (1..MOST_IDLE).for_each(|_| assert_eq!(come(false), LineEnd::Over));
            assert_eq!(come(true), LineEnd::Over, "one that is makes up for all before");
        }
        (1..MOST_IDLE).for_each(|_| assert_eq!(come(false), LineEnd::Over));
        assert_eq!(come(false), LineEnd::Useless);
        // Whoever has asserted it counts, first or last.
        line.begin(0b11);
        assert_eq!((line.end(0, true), line.end(1, false)), (LineEnd::NotYet, LineEnd::Over));
        assert_eq!(come(false), LineEnd::Over);
    }
}
