//! A queue of at most [`DEPTH`] characters.

/// Characters in a PL011 r1p5's FIFO (DDI 0183, revision note of r1p5; 16 before).
pub(super) const DEPTH: usize = 32;

/// First in, first out.
#[derive(Clone, Debug)]
pub(super) struct Fifo<T> {
    entries: [T; DEPTH],
    /// Index of the oldest one, below `DEPTH`.
    first: usize,
    /// How many there are, at most `DEPTH`.
    length: usize,
}

impl<T: Copy + Default> Default for Fifo<T> {
    fn default() -> Self {
        Self { entries: [T::default(); DEPTH], first: 0, length: 0 }
    }
}

impl<T: Copy> Fifo<T> {
    /// How many there are.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The oldest.
    #[inline]
    pub(super) fn first(&self) -> Option<T> {
        if self.length == 0 { None } else { self.entries.get(self.first % DEPTH).copied() }
    }

    /// Takes the oldest out.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        let entry = self.first()?;
        self.first = self.first.wrapping_add(1) % DEPTH;
        self.length = self.length.wrapping_sub(1);
        Some(entry)
    }

    /// Adds one; a full queue takes nothing. The caller, who may have to work with less than [`DEPTH`], has looked.
    #[inline]
    pub(super) fn push(&mut self, entry: T) {
        if self.length < DEPTH
            && let Some(place) = self.entries.get_mut(self.first.wrapping_add(self.length) % DEPTH)
        {
            *place = entry;
            self.length = self.length.wrapping_add(1);
        }
    }

    /// Forgets everything.
    pub(super) const fn clear(&mut self) {
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_first_comes_out_first_around_the_end() {
        let mut fifo = Fifo::default();
        for round in 0..5_u8 {
            for n in 0..20 {
                fifo.push(round * 20 + n);
            }
            for n in 0..20 {
                assert_eq!(fifo.pop(), Some(round * 20 + n));
            }
        }
        assert_eq!(fifo.pop(), None);
    }

    #[test]
    fn a_full_one_takes_nothing() {
        let mut fifo = Fifo::default();
        for n in 0..40_u8 {
            fifo.push(n);
        }
        assert_eq!(fifo.len(), DEPTH);
        assert_eq!(fifo.first(), Some(0));
        fifo.clear();
        assert!(fifo.is_empty());
    }
}
