//! The Internet's checksum (RFC 1071).
//!
//! Answers for: the sum of bytes that come in parts, and what of it goes into a header. Does not answer for: which bytes those are.

/// The sum of all words so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    /// Of at most some 65,600 bytes, so it does not come near its end.
    words: u64,
    /// Half a word is there.
    is_odd: bool,
}

impl Sum {
    /// More of what is summed up, wherever a word is divided.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(if self.is_odd { bytes.len().min(1) } else { 0 });
        let (quads, last) = rest.as_chunks::<4>();
        self.add_slowly(first);
        // Two words at once: the upper one is a carry like all others.
        let sum = quads.iter().fold(self.words, |sum, quad| sum.saturating_add(u32::from_be_bytes(*quad).into()));
        self.words = sum;
        self.add_slowly(last);
    }

    fn add_slowly(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let value = u64::from(*byte);
            self.words = self.words.saturating_add(if self.is_odd { value } else { value << 8 });
            self.is_odd = !self.is_odd;
        }
    }

    /// The checksum of a header.
    pub(super) fn checksum(self) -> u16 {
        let mut sum = self.words;
        // The carries of a number of 64 bits are gone after that.
        for _ in 0..4 {
            sum = (sum & 0xffff).saturating_add(sum >> 16);
        }
        !u16::try_from(sum).unwrap_or(0)
    }

    /// The checksum of UDP, or of TCP: what comes to 0 is sent as all ones. 0 says that there is none (RFC 768), and to TCP both are
    /// the same.
    pub(super) fn transport_checksum(self) -> u16 {
        match self.checksum() {
            0 => u16::MAX,
            checksum => checksum,
        }
    }
}
