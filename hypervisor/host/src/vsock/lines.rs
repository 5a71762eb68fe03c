//! What a guest's agent says, as lines.
//!
//! Answers for: cutting bytes into lines of printing characters that are never long. Does not answer for: where they are shown.

use arrayvec::ArrayString;

/// Most bytes of a line: what is longer is several.
pub const LONGEST_LINE: usize = 160;

/// The line that has not ended yet.
#[derive(Debug, Default)]
pub(super) struct Lines(ArrayString<LONGEST_LINE>);

impl Lines {
    /// Forgets what was there.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// More bytes have come. `show` gets each line that has ended; empty ones are none.
    pub(super) fn add(&mut self, bytes: &[u8], mut show: impl FnMut(&str)) {
        for byte in bytes {
            let is_end = *byte == b'\n';
            if !is_end && *byte != b'\r' {
                let character = if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
                // There is room: a full line has ended.
                let _ = self.0.try_push(character);
            }
            if is_end && !self.0.is_empty() || self.0.is_full() {
                show(&self.0);
                self.0.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn shown(parts: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut shown) = (Lines::default(), Vec::new());
        parts.iter().for_each(|part| lines.add(part, |line| shown.push(line.to_string())));
        shown
    }

    #[test]
    fn lines_come_when_they_end_and_without_what_does_not_print() {
        assert_eq!(shown(&[b"ready", b"\r\n\n\x1b[2Jhi\xc3\xa4\nrest"]), ["ready", "?[2Jhi??"]);
    }

    #[test]
    fn a_long_line_is_several() {
        let shown = shown(&[&[b'x'; 2 * LONGEST_LINE + 3], b"\n"]);
        assert_eq!(shown.iter().map(String::len).collect::<Vec<_>>(), [LONGEST_LINE, LONGEST_LINE, 3]);
    }
}
