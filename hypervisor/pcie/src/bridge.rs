//! Bridges.
//!
//! Answers for: their bus numbers and windows (PCI-to-PCI Bridge Architecture Specification, 3.2.5; PCI Express, 7.5.1.3). Does not answer
//! for: which they get (`scan`, `assign`).

use crate::{Space, bar::halves, registers};

/// A bridge's windows begin and end at multiples of this.
pub(crate) const GRANULE: u64 = 1 << 20;

/// Addresses that a bridge forwards downstream, first and last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// What leads to further buses, as it has been set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bridge {
    /// The bus that it is on.
    pub primary: u8,
    /// The bus right behind it; 0 if it is closed.
    pub secondary: u8,
    /// The last of those behind it.
    pub subordinate: u8,
    /// Addresses below 4 GiB that it forwards.
    pub memory: Option<Window>,
    /// Addresses that it forwards and that may be read ahead.
    pub prefetchable: Option<Window>,
    /// Whether the latter can be above 4 GiB.
    pub is_wide: bool,
}

impl Bridge {
    /// Whether a bus is behind it.
    #[must_use]
    pub const fn leads_to(&self, bus: u8) -> bool {
        self.secondary != 0 && self.secondary <= bus && bus <= self.subordinate
    }

    /// As firmware, or the reset, has left it.
    pub(crate) fn read(space: Space<'_>) -> Self {
        let [primary, secondary, subordinate] =
            [registers::PRIMARY_BUS, registers::SECONDARY_BUS, registers::SUBORDINATE_BUS].map(|at| space.byte(at));
        let part = |at: u16| u64::from(space.half(at) & 0xfff0) << 16;
        let window = |first: u64, last: u64| (first != 0 && first <= last).then_some(Window { first, last });
        // 7.5.1.3.9: 1 in the lower bits of both says that there are upper ones.
        let is_wide = space.half(registers::PREFETCHABLE_BASE) & 0xf == 1;
        let upper = |at: u16| if is_wide { u64::from(space.word(at)) << 32 } else { 0 };
        let memory = window(part(registers::MEMORY_BASE), part(registers::MEMORY_LIMIT) | 0xf_ffff);
        let prefetchable = window(
            part(registers::PREFETCHABLE_BASE) | upper(registers::PREFETCHABLE_BASE_UPPER),
            part(registers::PREFETCHABLE_LIMIT) | 0xf_ffff | upper(registers::PREFETCHABLE_LIMIT_UPPER),
        );
        Self { primary, secondary, subordinate, memory, prefetchable, is_wide }
    }

    /// Sets bus numbers. Says whether it keeps them.
    pub(crate) fn write_numbers(&self, space: Space<'_>) -> bool {
        let numbers = [
            (registers::PRIMARY_BUS, self.primary),
            (registers::SECONDARY_BUS, self.secondary),
            (registers::SUBORDINATE_BUS, self.subordinate),
        ];
        numbers.iter().for_each(|(at, number)| space.set_byte(*at, *number));
        numbers.iter().all(|(at, number)| space.byte(*at) == *number)
    }

    /// Sets windows; those that it has not are closed, and that for I/O. No legacy VGA, and the bus behind it is not in reset.
    pub(crate) fn write_windows(&self, space: Space<'_>) {
        // A base above the limit closes a window (3.2.5.6, 3.2.5.8).
        space.set_byte(registers::IO_BASE, 0xf0);
        space.set_byte(registers::IO_LIMIT, 0);
        space.set_half(registers::IO_BASE_UPPER, 0);
        space.set_half(registers::IO_LIMIT_UPPER, 0);
        let closed = Window { first: 0xfff0_0000, last: 0 };
        let memory = self.memory.unwrap_or(closed);
        space.set_half(registers::MEMORY_BASE, middle(memory.first));
        space.set_half(registers::MEMORY_LIMIT, middle(memory.last));
        let prefetchable = self.prefetchable.unwrap_or(closed);
        // Closed while the halves do not belong together.
        space.set_word(registers::PREFETCHABLE_LIMIT_UPPER, 0);
        let [[_, first], [_, last]] = [halves(prefetchable.first), halves(prefetchable.last)];
        space.set_word(registers::PREFETCHABLE_BASE_UPPER, if self.is_wide { u32::MAX } else { 0 });
        space.set_half(registers::PREFETCHABLE_BASE, middle(prefetchable.first));
        space.set_half(registers::PREFETCHABLE_LIMIT, middle(prefetchable.last));
        if self.is_wide {
            space.set_word(registers::PREFETCHABLE_LIMIT_UPPER, last);
            space.set_word(registers::PREFETCHABLE_BASE_UPPER, first);
        }
        space.set_half(registers::BRIDGE_CONTROL, 0);
    }
}

/// Bits 31 to 20, where a window's register has them.
fn middle(address: u64) -> u16 {
    let [low, _] = halves(address);
    let [.., third, fourth] = low.to_le_bytes();
    u16::from_le_bytes([third, fourth]) & 0xfff0
}
