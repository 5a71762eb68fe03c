//! The most urgent few of many interrupts.
//!
//! Answers for: the order in which pending interrupts are taken (IHI 0069, "Interrupt prioritization") when there are more
//! than list registers, in memory of a fixed size.

use crate::bank::{Bank, ENABLE_GROUP_0, ENABLE_GROUP_1};

/// Most list registers an implementation can have (`ICH_VTR_EL2.ListRegs`, 4.. bits of which 16 values are used).
pub(crate) const MAX_LIST_REGISTERS: usize = 16;

/// What decides the order: a lower value is more urgent. From the top: whether the guest has the group disabled in its
/// CPU interface, the priority, the INTID (so that equal priorities have an order), the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Key {
    const LAST: Self = Self(u64::MAX);

    /// Of interrupt `intid` of group 0 or 1; `masked` if the CPU interface has that group disabled.
    #[inline]
    pub(crate) const fn new(masked: bool, priority: u8, intid: u32, group: u32) -> Self {
        Self(((masked as u64) << 48) | ((priority as u64) << 40) | ((intid as u64) << 1) | (group as u64 & 1))
    }

    /// Of interrupt `index` of `bank`; `masked` are the groups that the guest has disabled in its CPU interface.
    #[inline]
    pub(crate) fn of(bank: &Bank, index: u32, intid: u32, masked: u32) -> Self {
        let group = bank.group.wrapping_shr(index) & 1;
        let group_bit = if group == 0 { ENABLE_GROUP_0 } else { ENABLE_GROUP_1 };
        Self::new(masked & group_bit != 0, bank.priority_of(index), intid, group)
    }

    /// Its interrupt.
    #[inline]
    pub(crate) const fn intid(self) -> u32 {
        crate::word::low(self.0 >> 1)
    }

    /// Its group, as a bit of `GICD_CTLR`.
    #[inline]
    pub(crate) const fn group(self) -> u32 {
        if self.0 & 1 == 0 { ENABLE_GROUP_0 } else { ENABLE_GROUP_1 }
    }

    /// Its priority.
    #[inline]
    pub(crate) const fn priority(self) -> u8 {
        crate::word::low_byte(self.0 >> 40)
    }
}

/// The most urgent of all interrupts pushed, most urgent first.
#[derive(Debug)]
pub(crate) struct Best {
    keys: [Key; MAX_LIST_REGISTERS],
    capacity: usize,
    length: usize,
    /// Groups of those that did not fit, as bits of `GICD_CTLR`.
    left_over: u32,
}

impl Best {
    /// Keeps `capacity` of them, at most [`MAX_LIST_REGISTERS`].
    #[inline]
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            keys: [Key::LAST; MAX_LIST_REGISTERS],
            capacity: capacity.min(MAX_LIST_REGISTERS),
            length: 0,
            left_over: 0,
        }
    }

    /// Takes `key`, or drops the least urgent of all.
    #[inline]
    pub(crate) fn push(&mut self, key: Key) {
        let mut carried = key;
        for slot in self.keys.iter_mut().take(self.length) {
            if carried < *slot {
                core::mem::swap(slot, &mut carried);
            }
        }
        if self.length < self.capacity {
            if let Some(slot) = self.keys.get_mut(self.length) {
                *slot = carried;
                self.length = self.length.saturating_add(1);
            }
        } else {
            self.left_over |= carried.group();
        }
    }

    /// Keeps only the first `length`.
    pub(crate) fn truncate(&mut self, length: usize) {
        for key in self.keys.iter().take(self.length).skip(length) {
            self.left_over |= key.group();
        }
        self.length = self.length.min(length);
    }

    /// Those kept.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Key> {
        self.keys.iter().take(self.length).copied()
    }

    /// How many are kept.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The groups of those that were dropped, as bits of `GICD_CTLR`; 0 if everything fitted.
    #[inline]
    pub(crate) fn left_over(&self) -> u32 {
        self.left_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_are_kept_in_order_and_the_groups_of_the_rest_are_remembered() {
        let mut best = Best::new(2);
        best.push(Key::new(false, 0x80, 40, 1));
        best.push(Key::new(false, 0x80, 33, 1));
        assert_eq!(best.left_over(), 0);
        best.push(Key::new(true, 0, 50, 0));
        assert_eq!(best.left_over(), ENABLE_GROUP_0);
        best.push(Key::new(false, 0x10, 1000, 1));
        assert_eq!(best.left_over(), ENABLE_GROUP_0 | ENABLE_GROUP_1);
        assert!(best.iter().map(Key::intid).eq([1000, 33]));
        best.truncate(1);
        assert!(best.iter().map(Key::intid).eq([1000]));
    }
}
