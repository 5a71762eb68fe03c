//! A queue in the guest's memory (IHI 0070, 3.5.1).
//!
//! Answers for: where it is, by its base register, and positions in it: an index, and above that a bit that changes with each
//! round. Does not answer for: what is in it.

use types::Ipa;

/// `ADDR` of a queue's base register, bits 51 to 5.
const ADDRESS: u64 = 0x000f_ffff_ffff_ffe0;
/// `LOG2SIZE`.
const SIZE: u64 = 0x1f;

/// A queue as its base register has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Queue {
    at: u64,
    /// Logarithm of the number of entries.
    bits: u8,
    /// Logarithm of the bytes of an entry.
    entry_bits: u8,
}

impl Queue {
    /// That of a base register, with entries of 2^`entry_bits` bytes. A size beyond the longest is that.
    pub(crate) fn new(base: u64, entry_bits: u8, longest: u8) -> Self {
        let bits = u8::try_from(base & SIZE).unwrap_or(longest).min(longest);
        // "The effective base address is aligned by the SMMU to the larger of the queue size and 32 bytes."
        let size = 1_u64.wrapping_shl(u32::from(bits).saturating_add(entry_bits.into()));
        Self { at: base & ADDRESS & !size.wrapping_sub(1), bits, entry_bits }
    }

    /// Where the entry at `position` is.
    pub(crate) fn entry(&self, position: u32) -> Ipa {
        let index = u64::from(position & self.count().wrapping_sub(1));
        Ipa(self.at.saturating_add(index.wrapping_shl(self.entry_bits.into())))
    }

    /// Behind `position`.
    pub(crate) const fn next(&self, position: u32) -> u32 {
        position.wrapping_add(1) & self.mask()
    }

    /// Nothing is left between `consumed` and `produced`.
    pub(crate) const fn is_empty(&self, produced: u32, consumed: u32) -> bool {
        (produced ^ consumed) & self.mask() == 0
    }

    /// There is no room; also if the positions cannot be.
    pub(crate) const fn is_full(&self, produced: u32, consumed: u32) -> bool {
        produced.wrapping_sub(consumed) & self.mask() >= self.count()
    }

    /// How many entries it has.
    const fn count(&self) -> u32 {
        1_u32.wrapping_shl(self.bits as u32)
    }

    /// Of a position: the index and the bit above.
    const fn mask(&self) -> u32 {
        2_u32.wrapping_shl(self.bits as u32).wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_to_its_size_and_no_longer_than_can_be() {
        let queue = Queue::new(1 << 62 | 0x4000_0fe0 | 4, 4, 8);
        assert_eq!(
            (queue.entry(0), queue.entry(15), queue.entry(16)),
            (Ipa(0x4000_0f00), Ipa(0x4000_0ff0), Ipa(0x4000_0f00))
        );
        assert_eq!(Queue::new(0x4000_1f00 | 0x1f, 5, 7), Queue::new(0x4000_1000 | 7, 5, 7));
        // A queue of one command is aligned to 32 bytes, as ADDR has no bit 4.
        assert_eq!(Queue::new(0x4000_0020, 4, 8).entry(0), Ipa(0x4000_0020));
        assert_eq!(Queue::new(0x4000_0021, 4, 8).entry(0), Ipa(0x4000_0020));
    }

    #[test]
    fn positions_have_a_bit_for_the_round() {
        let queue = Queue::new(2, 4, 8);
        assert_eq!((queue.next(3), queue.next(7)), (4, 0));
        assert!(queue.is_empty(4, 4) && !queue.is_empty(4, 0) && queue.is_full(4, 0) && !queue.is_full(4, 1));
        assert!(queue.is_full(7, 0), "more than fit");
        assert!(queue.is_empty(8 | 4, 4), "what is above does not count");
    }
}
