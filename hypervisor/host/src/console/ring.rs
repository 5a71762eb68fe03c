//! A queue of bytes between two parties, without a lock.
//!
//! One party puts, one takes, each at its own pace; who of them dies at any instruction leaves the other a queue that
//! works. Who puts from several places, or takes from several, has a lock of its own for that.
//!
//! Both indices are written and read sequentially consistent: "I have put, is anything before it?" and "I have taken, is
//! there more?" cannot both be answered with what was before (on ARMv8 that is what `STLR` and `LDAR` do anyway).

use core::sync::atomic::{
    AtomicU8, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

/// At most `SIZE` bytes, a power of two, first in, first out.
pub(super) struct Ring<const SIZE: usize> {
    bytes: [AtomicU8; SIZE],
    /// How many bytes have ever been taken out, and put in, modulo 2^64.
    taken: AtomicUsize,
    put: AtomicUsize,
}

impl<const SIZE: usize> Ring<SIZE> {
    const MASK: usize = {
        assert!(SIZE.is_power_of_two());
        SIZE.wrapping_sub(1)
    };

    pub(super) const fn new() -> Self {
        Self { bytes: [const { AtomicU8::new(0) }; SIZE], taken: AtomicUsize::new(0), put: AtomicUsize::new(0) }
    }

    /// How many bytes have ever been put in: what is put next has this place.
    pub(super) fn end(&self) -> usize {
        self.put.load(SeqCst)
    }

    /// How many bytes are in it before the place `end`.
    pub(super) fn before(&self, end: usize) -> usize {
        end.wrapping_sub(self.taken.load(SeqCst))
    }

    /// How many more it takes.
    #[inline]
    pub(super) fn space(&self) -> usize {
        SIZE.wrapping_sub(self.before(self.put.load(Relaxed)))
    }

    /// Puts a byte, and says how many there are now; `None` if there is no space.
    #[inline]
    pub(super) fn push(&self, byte: u8) -> Option<usize> {
        let put = self.put.load(Relaxed);
        if self.before(put) >= SIZE {
            return None;
        }
        if let Some(place) = self.bytes.get(put & Self::MASK) {
            place.store(byte, Relaxed);
        }
        let put = put.wrapping_add(1);
        self.put.store(put, SeqCst);
        Some(self.before(put))
    }

    /// Puts as many bytes, from the first on, as there is space for: how many, and how many there are now.
    pub(super) fn append(&self, bytes: &[u8]) -> (usize, usize) {
        let put = self.put.load(Relaxed);
        let count = SIZE.wrapping_sub(self.before(put)).min(bytes.len());
        let (late, early) = self.bytes.split_at_checked(put & Self::MASK).unwrap_or_default();
        let (first, rest) = bytes.get(..count).unwrap_or_default().split_at(count.min(early.len()));
        store(first, early);
        store(rest, late);
        let put = put.wrapping_add(count);
        self.put.store(put, SeqCst);
        (count, self.before(put))
    }

    /// Takes the oldest byte.
    #[inline]
    pub(super) fn pop(&self) -> Option<u8> {
        let taken = self.taken.load(Relaxed);
        if self.end() == taken {
            return None;
        }
        let byte = self.bytes.get(taken & Self::MASK).map(|byte| byte.load(Relaxed));
        self.taken.store(taken.wrapping_add(1), SeqCst);
        byte
    }

    /// Takes as many of the oldest bytes as there are before the place `end` and fit, and says how many.
    pub(super) fn take(&self, into: &mut [u8], end: usize) -> usize {
        let taken = self.taken.load(Relaxed);
        let count = end.wrapping_sub(taken).min(into.len());
        let first = taken & Self::MASK;
        let (late, early) = self.bytes.split_at_checked(first).unwrap_or_default();
        let (into_first, into_rest) = into.get_mut(..count).unwrap_or_default().split_at_mut(count.min(early.len()));
        copy(early, into_first);
        copy(late, into_rest);
        self.taken.store(taken.wrapping_add(count), SeqCst);
        count
    }

    /// Forgets what is in it. Only the party that takes may, or anybody when there is no other.
    pub(super) fn clear(&self) {
        self.taken.store(self.end(), SeqCst);
    }
}

/// Fills `into` from the start of `from`.
fn copy(from: &[AtomicU8], into: &mut [u8]) {
    for (into, byte) in into.iter_mut().zip(from) {
        *into = byte.load(Relaxed);
    }
}

/// Puts all of `from` at the start of `into`.
fn store(from: &[u8], into: &[AtomicU8]) {
    for (byte, into) in from.iter().zip(into) {
        into.store(*byte, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{boxed::Box, collections::vec_deque::VecDeque, vec, vec::Vec};
    use std::thread;

    #[test]
    fn it_does_as_a_queue_does_around_its_end() {
        let ring = Ring::<16>::new();
        let mut model = VecDeque::new();
        for round in 0..200_u8 {
            for n in 0..round % 19 {
                let pushed = ring.push(n);
                assert_eq!(pushed, (model.len() < 16).then_some(model.len() + 1));
                if pushed.is_some() {
                    model.push_back(n);
                }
            }
            let mut some = vec![0; usize::from(round) % 7];
            let count = ring.take(&mut some, ring.end());
            let expected: Vec<u8> = model.drain(..count).collect();
            assert_eq!(some[..count], expected);
            assert_eq!(ring.pop(), model.pop_front());
            assert_eq!((ring.before(ring.end()), ring.space()), (model.len(), 16 - model.len()));
        }
        ring.clear();
        assert_eq!((ring.pop(), ring.space()), (None, 16));
    }

    #[test]
    fn many_bytes_at_once_are_the_same_as_one_after_the_other() {
        let (ring, model) = (Ring::<16>::new(), Ring::<16>::new());
        for round in 0..200_u8 {
            let bytes: Vec<u8> = (0..round % 19).map(|n| n ^ round).collect();
            let pushed = bytes.iter().map_while(|byte| model.push(*byte)).collect::<Vec<_>>();
            let before = ring.before(ring.end());
            let last = pushed.last().copied().unwrap_or(before);
            assert_eq!(ring.append(&bytes), (pushed.len(), last));
            let (mut some, mut others) = (vec![0; usize::from(round) % 11], vec![0; usize::from(round) % 11]);
            assert_eq!(ring.take(&mut some, ring.end()), model.take(&mut others, model.end()));
            assert_eq!(some, others);
        }
    }

    #[test]
    fn nothing_is_taken_behind_the_place_that_is_named() {
        let ring = Ring::<16>::new();
        (0..5).for_each(|n| assert!(ring.push(n).is_some()));
        let place = ring.end();
        (5..9).for_each(|n| assert!(ring.push(n).is_some()));
        let mut some = [0; 16];
        assert_eq!((ring.take(&mut some, place), &some[..5]), (5, &[0, 1, 2, 3, 4][..]));
        assert_eq!((ring.take(&mut some, place), ring.before(place)), (0, 0));
        assert_eq!(ring.pop(), Some(5));
    }

    #[test]
    fn two_threads_lose_nothing_and_the_one_that_puts_knows_when_the_other_has_seen_it_empty() {
        const BYTES: usize = if cfg!(miri) { 300 } else { 300_000 };
        let ring: &'static Ring<16> = Box::leak(Box::new(Ring::new()));
        // As the bell does: whoever takes sleeps when it has found nothing, until told that the first byte is there.
        let sleeper = thread::spawn(move || {
            let mut next = 0;
            let mut some = [0; 5];
            while next < BYTES {
                match ring.take(&mut some, ring.end()) {
                    0 => thread::park(),
                    count => {
                        for byte in &some[..count] {
                            assert_eq!(*byte, next as u8);
                            next += 1;
                        }
                    }
                }
            }
        });
        for n in 0..BYTES {
            loop {
                match ring.push(n as u8) {
                    Some(1) => sleeper.thread().unpark(),
                    Some(_) => {}
                    None => {
                        thread::yield_now();
                        continue;
                    }
                }
                break;
            }
        }
        sleeper.join().unwrap();
    }
}
