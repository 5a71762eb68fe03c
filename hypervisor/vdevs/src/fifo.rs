//! The queues of UARTs.

/// First in, first out: at most `DEPTH` characters, which is a power of two.
#[derive(Clone, Debug)]
pub(crate) struct Fifo<T, const DEPTH: usize> {
    entries: [T; DEPTH],
    /// Index of the oldest one, below `DEPTH`.
    first: usize,
    /// How many there are, at most `DEPTH`.
    length: usize,
}

impl<T: Copy + Default, const DEPTH: usize> Default for Fifo<T, DEPTH> {
    fn default() -> Self {
        Self { entries: [T::default(); DEPTH], first: 0, length: 0 }
    }
}

impl<T: Copy, const DEPTH: usize> Fifo<T, DEPTH> {
    /// What an index is taken by.
    const MASK: usize = {
        assert!(DEPTH.is_power_of_two());
        DEPTH - 1
    };

    /// How many there are.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The oldest.
    #[inline]
    pub(crate) fn first(&self) -> Option<T> {
        if self.length == 0 { None } else { self.entries.get(self.first & Self::MASK).copied() }
    }

    /// Takes the oldest out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let entry = self.first()?;
        self.first = self.first.wrapping_add(1) & Self::MASK;
        self.length = self.length.wrapping_sub(1);
        Some(entry)
    }

    /// Adds one; a full queue takes nothing. The caller, who may have to work with less than `DEPTH`, has looked.
    #[inline]
    pub(crate) fn push(&mut self, entry: T) {
        if self.length < DEPTH
            && let Some(place) = self.entries.get_mut(self.first.wrapping_add(self.length) & Self::MASK)
        {
            *place = entry;
            self.length = self.length.wrapping_add(1);
        }
    }

    /// Forgets everything.
    pub(crate) const fn clear(&mut self) {
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: usize = 32;

    #[test]
    fn what_goes_in_first_comes_out_first_around_the_end() {
        let mut fifo = Fifo::<u8, DEPTH>::default();
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
        let mut fifo = Fifo::<u8, DEPTH>::default();
        for n in 0..40_u8 {
            fifo.push(n);
        }
        assert_eq!(fifo.len(), DEPTH);
        assert_eq!(fifo.first(), Some(0));
        fifo.clear();
        assert!(fifo.is_empty());
    }
}
