//! A queue of bytes with a fixed size.

use alloc::{boxed::Box, vec};

/// At most `SIZE` bytes, a power of two, first in, first out.
pub(super) struct Ring<const SIZE: usize> {
    bytes: Box<[u8]>,
    /// How many bytes have ever been taken out, and put in, modulo 2^64.
    taken: usize,
    put: usize,
}

impl<const SIZE: usize> Ring<SIZE> {
    const MASK: usize = {
        assert!(SIZE.is_power_of_two());
        SIZE.wrapping_sub(1)
    };

    pub(super) fn new() -> Self {
        Self { bytes: vec![0; SIZE].into_boxed_slice(), taken: 0, put: 0 }
    }

    /// How many bytes are in it.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.put.wrapping_sub(self.taken)
    }

    /// How many more it takes.
    #[inline]
    pub(super) const fn space(&self) -> usize {
        SIZE.wrapping_sub(self.len())
    }

    /// Adds a byte; `false` if there is no space.
    #[inline]
    pub(super) fn push(&mut self, byte: u8) -> bool {
        if self.len() >= SIZE {
            return false;
        }
        let Some(place) = self.bytes.get_mut(self.put & Self::MASK) else { return false };
        *place = byte;
        self.put = self.put.wrapping_add(1);
        true
    }

    /// Takes the oldest byte.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<u8> {
        if self.len() == 0 {
            return None;
        }
        let byte = self.bytes.get(self.taken & Self::MASK).copied();
        self.taken = self.taken.wrapping_add(1);
        byte
    }

    /// Takes as many of the oldest bytes as there are and fit, and says how many.
    pub(super) fn take(&mut self, into: &mut [u8]) -> usize {
        let count = self.len().min(into.len());
        let first = self.taken & Self::MASK;
        let (late, early) = self.bytes.split_at_checked(first).unwrap_or_default();
        let (into_first, into_rest) = into.split_at_mut(count.min(early.len()));
        copy(early, into_first);
        copy(late, into_rest.get_mut(..count.saturating_sub(early.len())).unwrap_or_default());
        self.taken = self.taken.wrapping_add(count);
        count
    }
}

/// Fills `into` from the start of `from`, which is at least as long.
fn copy(from: &[u8], into: &mut [u8]) {
    if let Some(from) = from.get(..into.len()) {
        into.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::vec_deque::VecDeque, vec::Vec};

    #[test]
    fn it_does_as_a_queue_does_around_its_end() {
        let mut ring = Ring::<16>::new();
        let mut model = VecDeque::new();
        for round in 0..200_u8 {
            for n in 0..round % 19 {
                let pushed = ring.push(n);
                assert_eq!(pushed, model.len() < 16);
                if pushed {
                    model.push_back(n);
                }
            }
            let mut some = vec![0; usize::from(round) % 7];
            let count = ring.take(&mut some);
            let expected: Vec<u8> = model.drain(..count).collect();
            assert_eq!(some[..count], expected);
            assert_eq!(ring.pop(), model.pop_front());
            assert_eq!((ring.len(), ring.space()), (model.len(), 16 - model.len()));
        }
    }
}
