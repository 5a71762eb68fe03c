//! A map of 32-bit keys in memory of a fixed size.
//!
//! Answers for: finding, adding and taking out an entry in at most 33 steps each, whatever keys a guest has chosen; and for the
//! entries whose keys begin alike. Does not answer for: what keys and values mean (`tables`).
//!
//! A crit-bit tree: a fork for each bit in which the keys below it differ first, so there is one fork less than there are entries.

use alloc::vec::Vec;

/// Bits of a key, and so the most forks on a way.
const BITS: u32 = u32::BITS;

/// What hangs at a place: nothing, an entry or a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Nothing,
    Entry(u16),
    Fork(u16),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u32,
    value: u32,
}

#[derive(Clone, Copy, Debug)]
struct Fork {
    /// Counted from the most significant one, which is 0. Greater than that of the fork above it.
    bit: u32,
    /// Where the bit is 0, and where it is 1.
    sides: [Link; 2],
}

/// The place of a link: at the top, or at a side of a fork.
#[derive(Clone, Copy, Debug)]
enum Place {
    Top,
    Side(u16, bool),
}

/// No more entries fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The map.
#[derive(Debug)]
pub(super) struct Tree {
    top: Link,
    entries: Vec<Entry>,
    forks: Vec<Fork>,
    /// Those of `entries` that are not in use, and likewise of `forks`.
    free_entries: Vec<u16>,
    free_forks: Vec<u16>,
}

const fn side(key: u32, bit: u32) -> bool {
    key.wrapping_shl(bit) & 1 << (BITS - 1) != 0
}

impl Tree {
    /// Holds at most `capacity` entries, all of whose memory it has from the beginning.
    pub(super) fn new(capacity: u16) -> Self {
        let room = usize::from(capacity);
        Self {
            top: Link::Nothing,
            entries: alloc::vec![Entry { key: 0, value: 0 }; room],
            forks: alloc::vec![Fork { bit: 0, sides: [Link::Nothing; 2] }; room],
            free_entries: (0..capacity).rev().collect(),
            free_forks: (0..capacity).rev().collect(),
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len().saturating_sub(self.free_entries.len())
    }

    /// How many there can be.
    pub(super) fn capacity(&self) -> usize {
        self.entries.len()
    }

    fn entry(&self, index: u16) -> Option<&Entry> {
        self.entries.get(usize::from(index))
    }

    fn fork(&self, index: u16) -> Option<&Fork> {
        self.forks.get(usize::from(index))
    }

    fn link(&self, place: Place) -> Link {
        match place {
            Place::Top => self.top,
            Place::Side(fork, side) => {
                let [left, right] = self.fork(fork).map_or([Link::Nothing; 2], |fork| fork.sides);
                if side { right } else { left }
            }
        }
    }

    fn set_link(&mut self, place: Place, link: Link) {
        match place {
            Place::Top => self.top = link,
            Place::Side(fork, side) => {
                if let Some(Fork { sides: [left, right], .. }) = self.forks.get_mut(usize::from(fork)) {
                    *(if side { right } else { left }) = link;
                }
            }
        }
    }

    /// From the top towards `key`, past all forks of bits before `before`: the place where that ends, and the one above it.
    fn descend(&self, key: u32, before: u32) -> (Place, Option<Place>) {
        let (mut place, mut above) = (Place::Top, None);
        for _ in 0..BITS {
            let Link::Fork(index) = self.link(place) else { break };
            let Some(fork) = self.fork(index).filter(|fork| fork.bit < before) else { break };
            above = Some(place);
            place = Place::Side(index, side(key, fork.bit));
        }
        (place, above)
    }

    /// The entry that has most in common with `key`, if there is any.
    fn nearest(&self, key: u32) -> Option<u16> {
        match self.link(self.descend(key, BITS).0) {
            Link::Entry(index) => Some(index),
            Link::Nothing | Link::Fork(_) => None,
        }
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: u32) -> Option<u32> {
        let entry = self.entry(self.nearest(key)?)?;
        (entry.key == key).then_some(entry.value)
    }

    /// Gives `key` a value, instead of the one that it may have.
    ///
    /// # Errors
    /// If it has none, and there is no room.
    pub(super) fn insert(&mut self, key: u32, value: u32) -> Result<(), Full> {
        let nearest = self.nearest(key);
        let differs = nearest.and_then(|index| self.entry(index)).map(|entry| (entry.key ^ key).leading_zeros());
        if let (Some(BITS), Some(index)) = (differs, nearest) {
            if let Some(entry) = self.entries.get_mut(usize::from(index)) {
                entry.value = value;
            }
            return Ok(());
        }
        let index = self.free_entries.pop().ok_or(Full)?;
        if let Some(entry) = self.entries.get_mut(usize::from(index)) {
            *entry = Entry { key, value };
        }
        let Some(bit) = differs else {
            self.top = Link::Entry(index);
            return Ok(());
        };
        // Fewer forks than entries are in use.
        let fork = self.free_forks.pop().ok_or(Full)?;
        let (place, _) = self.descend(key, bit);
        let (new, old) = (Link::Entry(index), self.link(place));
        if let Some(slot) = self.forks.get_mut(usize::from(fork)) {
            *slot = Fork { bit, sides: if side(key, bit) { [old, new] } else { [new, old] } };
        }
        self.set_link(place, Link::Fork(fork));
        Ok(())
    }

    /// Takes `key` out: its value, if it had one.
    pub(super) fn remove(&mut self, key: u32) -> Option<u32> {
        let (place, above) = self.descend(key, BITS);
        let Link::Entry(index) = self.link(place) else { return None };
        let entry = *self.entry(index)?;
        if entry.key != key {
            return None;
        }
        match (place, above) {
            (Place::Side(fork, side), Some(above)) => {
                self.set_link(above, self.link(Place::Side(fork, !side)));
                self.free_forks.push(fork);
            }
            _ => self.top = Link::Nothing,
        }
        self.free_entries.push(index);
        Some(entry.value)
    }

    /// An entry whose key has the first `bits` bits of `key`: its key and its value.
    pub(super) fn first_like(&self, key: u32, bits: u32) -> Option<(u32, u32)> {
        // Behind the forks of those bits it is the same whichever way is taken.
        let entry = self.entry(self.nearest(key)?)?;
        ((entry.key ^ key).leading_zeros() >= bits).then_some((entry.key, entry.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::btree_map::BTreeMap;

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn it_is_a_map_whatever_keys_come() {
        const CAPACITY: u16 = 100;
        for mask in [0x0000_007f, 0xffff_ffff, 0x8001_0013, 0xff00_0000] {
            let (mut tree, mut map) = (Tree::new(CAPACITY), BTreeMap::new());
            let mut random = 0x9e37_79b9_u32;
            for step in 0..if cfg!(miri) { 200 } else { 20_000_u32 } {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                let key = random & mask;
                // It fills up and empties again.
                if !(step / 50 + random.count_ones()).is_multiple_of(3) {
                    let fits = map.len() < usize::from(CAPACITY) || map.contains_key(&key);
                    assert_eq!(tree.insert(key, step), if fits { Ok(()) } else { Err(Full) });
                    if fits {
                        map.insert(key, step);
                    }
                } else {
                    assert_eq!(tree.remove(key), map.remove(&key));
                }
                assert_eq!(tree.len(), map.len());
                assert_eq!(tree.get(random.rotate_left(7) & mask), map.get(&(random.rotate_left(7) & mask)).copied());
                let alike = tree.first_like(key, 16);
                assert_eq!(alike.is_some(), map.range(key & 0xffff_0000..=key | 0xffff).next().is_some());
                assert!(alike.is_none_or(|(like, value)| (like ^ key) >> 16 == 0 && map.get(&like) == Some(&value)));
            }
            map.keys().for_each(|key| assert!(tree.remove(*key).is_some()));
            assert_eq!((tree.len(), tree.top), (0, Link::Nothing));
        }
    }

    #[test]
    fn a_map_of_none_takes_none() {
        let mut tree = Tree::new(0);
        assert_eq!(tree.insert(1, 1), Err(Full));
        assert_eq!((tree.get(1), tree.remove(1), tree.first_like(0, 0)), (None, None, None));
    }
}
