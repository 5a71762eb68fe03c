//! Who has which part of the VM's memory while it is being filled.
//!
//! Answers for: no two things in one place, nothing outside the memory, and finding free places. Does not answer for: what
//! the things are.

use alloc::vec::Vec;
use types::{Address as _, Ipa, Range};

/// Who has a range: the index of a `load`, or the device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Load(usize),
    DeviceTree,
}

/// Why a range cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Not, or not all of it, in the VM's memory.
    Outside,
    /// Somebody else has part of it.
    Taken(Owner, Range<Ipa>),
}

/// Where in a free range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Low,
    High,
}

pub(super) struct Map {
    /// RAM and ROM, lowest first, touching ranges joined.
    memory: Vec<Range<Ipa>>,
    /// Not to be given away, but may be asked for by address.
    avoided: Vec<Range<Ipa>>,
    claims: Vec<(Range<Ipa>, Owner)>,
}

impl Map {
    pub(super) fn new(memory: impl Iterator<Item = Range<Ipa>>, avoided: Vec<Range<Ipa>>) -> Self {
        let mut memory: Vec<Range<Ipa>> = memory.collect();
        types::sort_by(&mut memory, |a, b| a.start().cmp(&b.start()));
        memory.dedup_by(|next, last| {
            let touching = next.start() <= last.end();
            if touching {
                *last = Range::between(last.start(), last.end().max(next.end()));
            }
            touching
        });
        Self { memory, avoided, claims: Vec::new() }
    }

    pub(super) fn contains(&self, range: &Range<Ipa>) -> bool {
        self.memory.iter().any(|memory| memory.contains_range(range))
    }

    /// Takes exactly this range. It is taken even if somebody else has it, so that a third one hears of the right party.
    pub(super) fn claim(&mut self, range: Range<Ipa>, owner: Owner) -> Result<(), Conflict> {
        if !self.contains(&range) {
            return Err(Conflict::Outside);
        }
        let taken = self.claims.iter().find(|(claimed, _)| claimed.overlaps(&range)).copied();
        self.claims.push((range, owner));
        taken.map_or(Ok(()), |(range, owner)| Err(Conflict::Taken(owner, range)))
    }

    /// A free range of `size` bytes inside `within`, `offset` bytes above a multiple of `alignment` (a power of two): the
    /// lowest or the highest there is.
    pub(super) fn free(
        &self,
        within: Range<Ipa>,
        size: u64,
        alignment: u64,
        offset: u64,
        end: End,
    ) -> Option<Range<Ipa>> {
        let mut from = match end {
            End::Low => within.start(),
            End::High => Ipa(within.end().as_u64().checked_sub(size)?),
        };
        // Every round but the last goes past at least one of the ranges in the way, so there cannot be more than these.
        for _ in 0..=self.claims.len().saturating_add(self.avoided.len()) {
            let base = Ipa(from.as_u64().saturating_sub(offset));
            let start = match end {
                End::Low => base.align_up(alignment)?.checked_add(offset)?,
                End::High => base.align_down(alignment).checked_add(offset)?,
            };
            let range = Range::new(start, size)?;
            if !within.contains_range(&range) {
                return None;
            }
            let taken = self.claims.iter().map(|(claimed, _)| claimed).chain(&self.avoided);
            let Some(taken) = taken.clone().find(|taken| taken.overlaps(&range)) else { return Some(range) };
            from = match end {
                End::Low => taken.end(),
                End::High => Ipa(taken.start().as_u64().checked_sub(size)?),
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, length: u64) -> Range<Ipa> {
        Range::new(Ipa(start), length).unwrap()
    }

    fn map() -> Map {
        Map::new([range(0x8000_0000, 16 * MIB)].into_iter(), vec![range(0x80f0_0000, MIB)])
    }

    #[test]
    fn a_claim_is_inside_the_memory_or_refused() {
        let mut map = Map::new([range(0x8010_0000, MIB), range(0x8000_0000, MIB)].into_iter(), vec![]);
        assert_eq!(map.claim(range(0x800f_f000, 0x2000), Owner::Load(0)), Ok(()), "touching ranges are one");
        assert_eq!(map.claim(range(0x801f_f000, 0x2000), Owner::Load(0)), Err(Conflict::Outside));
        assert_eq!(map.claim(range(0x7fff_f000, 0x2000), Owner::Load(0)), Err(Conflict::Outside));
    }

    #[test]
    fn an_overlap_names_who_was_there_first() {
        let mut map = map();
        let first = range(0x8000_0000, 0x1000);
        map.claim(first, Owner::Load(3)).unwrap();
        assert_eq!(map.claim(range(0x8000_0fff, 2), Owner::Load(4)), Err(Conflict::Taken(Owner::Load(3), first)));
        assert_eq!(map.claim(range(0x8000_1001, 2), Owner::Load(5)), Ok(()));
    }

    #[test]
    fn the_lowest_free_place_is_behind_what_is_in_the_way() {
        let mut map = map();
        let all = range(0x8000_0000, 16 * MIB);
        assert_eq!(map.free(all, 8, 4096, 0, End::Low), Some(range(0x8000_0000, 8)));
        map.claim(range(0x8000_0000, 10), Owner::Load(0)).unwrap();
        map.claim(range(0x8000_1800, 0x1000), Owner::Load(0)).unwrap();
        assert_eq!(map.free(all, 0x1000, 4096, 0, End::Low), Some(range(0x8000_3000, 0x1000)));
        assert_eq!(map.free(all, 8, 2 * MIB, 0x8_0000, End::Low), Some(range(0x8008_0000, 8)));
        assert_eq!(map.free(all, 14 * MIB, 2 * MIB, 0, End::Low), None, "the reserved part is in the way");
    }

    #[test]
    fn the_highest_free_place_is_below_what_is_in_the_way() {
        let mut map = map();
        let all = range(0x8000_0000, 16 * MIB);
        assert_eq!(map.free(all, 5, 4096, 0, End::High), Some(range(0x80ef_f000, 5)), "below what is reserved");
        map.claim(range(0x80ef_f800, 1), Owner::Load(0)).unwrap();
        assert_eq!(map.free(all, 0x900, 4096, 0, End::High), Some(range(0x80ef_e000, 0x900)));
        assert_eq!(map.free(range(0x8000_0000, 4), 5, 1, 0, End::High), None);
        assert_eq!(map.free(all, 15 * MIB, 4096, 0, End::High), None);
    }
}
