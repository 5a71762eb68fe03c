//! One VM's output on its way to the screen.

use super::{
    Stream, VmNumber, VmNumbers,
    text::{Ending, Lines},
};
use alloc::{
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

/// Bytes taken from a stream at once.
const CHUNK: usize = 128;
/// Chunks looked at for one line: more than a line has, fewer than a VM that prints nothing but control sequences can make.
const CHUNKS_FOR_A_LINE: usize = 16;

/// What has come of looking for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// There is one.
    Complete,
    /// Not yet.
    Incomplete,
    /// Not among as many bytes as are looked at in one go, and there are more.
    Unknown,
    /// There will not be: the VM has ended and everything is out.
    Finished,
}

/// A VM on the console.
pub(super) struct Channel {
    pub(super) number: VmNumber,
    pub(super) name: String,
    pub(super) stream: Arc<Stream>,
    /// The report of its end, to be shown when all output is out.
    pub(super) end: Option<String>,
    lines: Lines,
    chunk: [u8; CHUNK],
    /// What of `chunk` is still to be looked at: from `at` up to `length`.
    at: usize,
    length: usize,
}

impl Channel {
    pub(super) fn new(number: VmNumber, name: &str, stream: Arc<Stream>) -> Self {
        let name = name.to_string();
        Self { number, name, stream, end: None, lines: Lines::default(), chunk: [0; CHUNK], at: 0, length: 0 }
    }

    /// Whether the VM has ended and nothing of it is still to be shown.
    pub(super) fn is_finished(&self) -> bool {
        self.end.is_some() && self.lines.is_empty() && self.at >= self.length && !self.stream.has_output()
    }

    /// The next bytes as they are. `false` if there are none.
    pub(super) fn chunk(&mut self, relieved: &mut VmNumbers, show: impl FnOnce(&[u8])) -> bool {
        if !self.lines.is_empty() {
            // What came of a line while the VM was in the background.
            let mut text = Vec::new();
            self.lines.take(&mut text);
            show(&text);
            return true;
        }
        if self.at >= self.length && !self.refill(relieved) {
            return false;
        }
        show(self.chunk.get(self.at..self.length).unwrap_or_default());
        self.at = self.length;
        true
    }

    /// Looks for the end of a line; [`Channel::take_line`] then has it.
    pub(super) fn line(&mut self, relieved: &mut VmNumbers) -> Line {
        for _ in 0..CHUNKS_FOR_A_LINE {
            loop {
                let rest = self.chunk.get(self.at..self.length).unwrap_or_default();
                let plain = self.lines.push_plain(rest);
                self.at = self.at.saturating_add(plain);
                let Some(byte) = rest.get(plain) else { break };
                let ending = self.lines.push(*byte);
                if ending != Ending::Before {
                    self.at = self.at.wrapping_add(1);
                }
                if ending != Ending::None {
                    return Line::Complete;
                }
            }
            if !self.refill(relieved) {
                return match (&self.end, self.lines.is_empty()) {
                    (Some(_), true) => Line::Finished,
                    (Some(_), false) => Line::Complete,
                    (None, _) => Line::Incomplete,
                };
            }
        }
        Line::Unknown
    }

    /// Writes the line that was found, with the VM's name in front.
    pub(super) fn take_line(&mut self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.name.as_bytes());
        into.extend_from_slice(b"| ");
        self.lines.take(into);
    }

    fn refill(&mut self, relieved: &mut VmNumbers) -> bool {
        let (count, relief) = self.stream.take_output(&mut self.chunk);
        if relief {
            relieved.insert(self.number);
        }
        (self.at, self.length) = (0, count);
        count != 0
    }
}
