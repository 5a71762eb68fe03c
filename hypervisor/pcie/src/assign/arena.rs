//! A range of addresses out of which parts are taken.

use alloc::vec::Vec;

/// Addresses, and which of them somebody has.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    /// For what can be above 4 GiB.
    pub(super) is_wide: bool,
    start: u64,
    end: u64,
    /// Start and end of each part taken, lowest first.
    taken: Vec<(u64, u64)>,
}

/// The next multiple of `align`, a power of two.
pub(super) fn align_up(value: u64, align: u64) -> Option<u64> {
    let mask = align.wrapping_sub(1);
    Some(value.checked_add(mask)? & !mask)
}

impl Arena {
    pub(super) fn new(is_wide: bool, start: u64, length: u64) -> Self {
        Self { is_wide, start, end: start.saturating_add(length), taken: Vec::new() }
    }

    /// Takes the first `size` bytes that are free; never those at address 0, which says that there is none.
    pub(super) fn take(&mut self, size: u64, align: u64) -> Option<u64> {
        let mut at = align_up(self.start.max(1), align)?;
        for (start, end) in &self.taken {
            if at.checked_add(size)? <= *start {
                break;
            }
            at = align_up(at.max(*end), align)?;
        }
        self.take_at(at, size).then_some(at)
    }

    /// Takes these. Says whether they are here, and were free.
    pub(super) fn take_at(&mut self, at: u64, size: u64) -> bool {
        let Some(end) = at.checked_add(size) else { return false };
        let before = self.taken.partition_point(|(start, _)| *start < at);
        let last = before.checked_sub(1).and_then(|last| self.taken.get(last));
        let is_free =
            last.is_none_or(|(_, end)| *end <= at) && self.taken.get(before).is_none_or(|(start, _)| end <= *start);
        let is_here = self.start <= at && end <= self.end;
        if is_free && is_here {
            self.taken.insert(before, (at, end));
        }
        is_free && is_here
    }
}
