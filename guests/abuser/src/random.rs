//! Numbers that look random and can be had again.

/// Marsaglia's xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // The upper half: the lower bits of this generator are its worst.
        (self.next() >> 32) % limit.max(1)
    }

    /// One of a few.
    pub(crate) fn choose<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        choices.get(self.below(choices.len() as u64) as usize).copied()
    }

    /// Often a value at an edge: all zeros, all ones, one bit; else any.
    pub(crate) fn value(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => !0,
            2 => 1 << self.below(64),
            3 => !(1 << self.below(64)),
            _ => self.next(),
        }
    }
}
