//! What a terminal may be shown of a VM that it does not belong to.
//!
//! Answers for: taking control sequences out of a byte stream, cutting it into lines, and making what is left harmless.
//! Sequences follow ECMA-48 (5.3, 5.4, 5.6) as terminals implement it.

use alloc::vec::Vec;

/// Longest line, in bytes; a longer one is cut into several.
pub(super) const LINE: usize = 1024;
/// Longest control string that is swallowed. Behind that it is text: nobody makes the rest of a VM's output invisible.
const CONTROL_STRING: u16 = 256;

/// Where in a control sequence a byte stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind ESC, and perhaps intermediate bytes.
    Escape,
    /// In a control sequence, behind ESC `[`.
    Sequence,
    /// In a control string (OSC, DCS, SOS, PM, APC), so many bytes of it.
    String(u16),
}

/// Takes control sequences out of a byte stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filter {
    state: State,
}

/// Text that means itself everywhere: most bytes by far, which are worth shorter ways.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

impl Filter {
    /// Whether all of `bytes` is text that comes through as it is.
    pub(super) fn is_plain(&self, bytes: &[u8]) -> bool {
        self.state == State::Text && bytes.iter().all(|byte| is_plain(*byte))
    }

    /// The next byte; `None` if it belongs to a control sequence. A line break always comes through and ends whatever it is
    /// in.
    #[inline]
    pub(super) fn pass(&mut self, byte: u8) -> Option<u8> {
        if self.state == State::Text && byte != 0x1b {
            return Some(byte);
        }
        self.inside(byte)
    }

    fn inside(&mut self, byte: u8) -> Option<u8> {
        let (state, passes) = match (self.state, byte) {
            (_, b'\n') | (State::Text, b'\0'..=0x1a | 0x1c..) => (State::Text, true),
            // ESC begins anew wherever it comes; intermediate bytes stay behind it.
            (_, 0x1b) | (State::Escape, 0x20..=0x2f) => (State::Escape, false),
            // Parameters and intermediate bytes; what else, ends it.
            (State::Escape, b'[') | (State::Sequence, 0x20..=0x3f) => (State::Sequence, false),
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => (State::String(0), false),
            (State::Escape | State::Sequence, _) | (State::String(_), 0x07) => (State::Text, false),
            (State::String(length), _) if length >= CONTROL_STRING => (State::Text, true),
            (State::String(length), _) => (State::String(length.saturating_add(1)), false),
        };
        self.state = state;
        passes.then_some(byte)
    }
}

/// Cuts a byte stream into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    filter: Filter,
    line: Vec<u8>,
    /// A carriage return has come, and what it means is not yet known.
    returned: bool,
}

impl Lines {
    /// The next byte; `true` if a line is complete now, to be taken by [`Lines::take`]. A line ends with a line feed or
    /// with a lone carriage return: a progress bar then makes lines, but nothing is lost. Returns around a line feed are
    /// part of it.
    pub(super) fn push(&mut self, byte: u8) -> Ending {
        let Some(byte) = self.filter.pass(byte) else { return Ending::None };
        match byte {
            b'\n' => {
                self.returned = false;
                Ending::Here
            }
            b'\r' => {
                self.returned = !self.line.is_empty();
                Ending::None
            }
            _ if self.returned => {
                self.returned = false;
                Ending::Before
            }
            _ => {
                self.line.push(byte);
                if self.line.len() < LINE { Ending::None } else { Ending::Here }
            }
        }
    }

    /// As many of the next bytes as are plain text and do not end the line; how many they are. [`Lines::push`] is for what
    /// follows, and does the same with these.
    pub(super) fn push_plain(&mut self, bytes: &[u8]) -> usize {
        if self.returned || self.filter.state != State::Text {
            return 0;
        }
        let room = LINE.saturating_sub(1).saturating_sub(self.line.len());
        let count = bytes.iter().take(room).take_while(|byte| is_plain(**byte)).count();
        self.line.extend_from_slice(bytes.get(..count).unwrap_or_default());
        count
    }

    /// What has come of the current line.
    pub(super) fn take(&mut self, into: &mut Vec<u8>) {
        self.returned = false;
        write_harmless(&self.line, into);
        self.line.clear();
    }

    /// Whether nothing has come of the current line.
    pub(super) const fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

/// Where a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not yet.
    None,
    /// With the byte that was pushed.
    Here,
    /// Before it: the byte was not taken and is to be pushed again.
    Before,
}

/// Appends `text` with everything in it that a terminal would act on replaced by `?`, and what is not UTF-8 as well. Tabs
/// are kept.
pub(super) fn write_harmless(text: &[u8], into: &mut Vec<u8>) {
    // Nearly every line; the rest costs several times as much.
    if text.iter().all(|byte| is_plain(*byte)) {
        into.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            let shown = if character.is_control() && character != '\t' { '?' } else { character };
            into.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if !chunk.invalid().is_empty() {
            into.push(b'?');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::String, vec};

    fn lines(text: &[u8]) -> Vec<String> {
        let found = cut(text, true);
        assert_eq!(found, cut(text, false), "the short way is the same way");
        found
    }

    fn cut(text: &[u8], plain_at_once: bool) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        let mut take = |lines: &mut Lines| {
            let mut line = Vec::new();
            lines.take(&mut line);
            found.push(String::from_utf8(line).unwrap());
        };
        let mut at = 0;
        while at < text.len() {
            if plain_at_once {
                at += lines.push_plain(&text[at..]);
            }
            let Some(byte) = text.get(at) else { break };
            let ending = lines.push(*byte);
            at += usize::from(ending != Ending::Before);
            if ending != Ending::None {
                take(&mut lines);
            }
        }
        if !lines.is_empty() {
            take(&mut lines);
        }
        found
    }

    #[test]
    fn returns_around_a_line_feed_belong_to_it_and_lone_ones_end_a_line() {
        assert_eq!(lines(b"a\r\nb\r\r\nc\n\rd\n\ne"), ["a", "b", "c", "d", "", "e"]);
        assert_eq!(lines(b"10%\r20%\r\n"), ["10%", "20%"]);
        assert_eq!(lines(b"\ra"), ["a"]);
    }

    #[test]
    fn control_sequences_vanish_and_control_characters_show() {
        assert_eq!(lines(b"\x1b[1;31mred\x1b[0m\x1b(B \x1b7x\x1b[?25l\n"), ["red x"]);
        assert_eq!(lines(b"\x1b]0;title\x07a\x1bPq\x1b\\b\n"), ["ab"]);
        assert_eq!(lines(b"a\x07\x08\x00b\tc\x7f\n"), ["a???b\tc?"]);
    }

    #[test]
    fn a_sequence_hides_nothing_behind_a_line_feed_or_for_long() {
        assert_eq!(lines(b"\x1b[\nseen\n\x1b]\nseen\n"), ["", "seen", "", "seen"]);
        let mut long = vec![b'x'; usize::from(CONTROL_STRING) + 5];
        long.splice(..0, *b"\x1b]");
        assert_eq!(lines(&long), ["xxxxx"]);
    }

    #[test]
    fn only_text_in_utf_8_is_left_as_it_is() {
        assert_eq!(lines("grün\n".as_bytes()), ["grün"]);
        assert_eq!(lines(b"\xff\xfe \xc3\n"), ["?? ?"]);
        assert_eq!(lines("a\u{9b}31mb\n".as_bytes()), ["a?31mb"], "a C1 control in UTF-8");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let cut = lines(&vec![b'x'; 2 * LINE + 1]);
        assert_eq!(cut.iter().map(String::len).collect::<Vec<_>>(), [LINE, LINE, 1]);
    }
}
