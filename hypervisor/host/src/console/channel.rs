//! One VM's output on its way to the screen.

use super::{
    Stream, VmNumber, VmNumbers,
    text::{Ending, Lines},
};
use alloc::{
    collections::vec_deque::VecDeque,
    string::{String, ToString},
    vec::Vec,
};

/// Bytes taken from a stream at once.
const CHUNK: usize = 128;
/// Reports of a VM that can wait. A VM that comes and goes faster than the console can say so leaves the first and the last.
const REPORTS: usize = 16;

/// What has come of looking for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// There is one.
    Complete,
    /// Not yet.
    Incomplete,
    /// Not among as many bytes as may be looked at in one go, and there may be more.
    Unknown,
    /// Before there can be another, it is to be told how the VM ended: all output until then is out.
    Report,
}

/// How a VM has ended.
pub(super) struct Report {
    /// Behind which of its output.
    behind: usize,
    pub(super) line: String,
    /// It does not come again.
    pub(super) last: bool,
}

/// A VM on the console.
pub(super) struct Channel {
    pub(super) number: VmNumber,
    pub(super) name: String,
    pub(super) stream: &'static Stream,
    /// To be shown in between its output; none behind one that is the last.
    reports: VecDeque<Report>,
    lines: Lines,
    chunk: [u8; CHUNK],
    /// What of `chunk` is still to be looked at: from `at` up to `length`.
    at: usize,
    length: usize,
}

impl Channel {
    pub(super) fn new(number: VmNumber, name: &str, stream: &'static Stream) -> Self {
        let (name, reports, lines) = (name.to_string(), VecDeque::new(), Lines::default());
        Self { number, name, stream, reports, lines, chunk: [0; CHUNK], at: 0, length: 0 }
    }

    /// The VM has ended, for good or to come again, and prints nothing more until it does.
    pub(super) fn ended(&mut self, line: &str, last: bool) {
        if self.reports.back().is_some_and(|report| report.last) {
            return;
        }
        if self.reports.len() >= REPORTS {
            self.reports.pop_back();
        }
        self.reports.push_back(Report { behind: self.stream.end(), line: line.to_string(), last });
    }

    /// The report that is to be shown before anything else of this VM.
    pub(super) fn report(&mut self) -> Option<Report> {
        self.is_due().then(|| self.reports.pop_front()).flatten()
    }

    /// Whether there is such a report.
    pub(super) fn is_due(&self) -> bool {
        let out = self.lines.is_empty() && self.at >= self.length;
        out && self.reports.front().is_some_and(|report| !self.stream.has_output(report.behind))
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

    /// Looks for the end of a line; [`Channel::take_line`] then has it. `looks` is how many chunks may be looked at, and then
    /// how many still may.
    pub(super) fn line(&mut self, relieved: &mut VmNumbers, looks: &mut usize) -> Line {
        while *looks > 0 {
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
                return match (self.reports.is_empty(), self.lines.is_empty()) {
                    (true, _) => Line::Incomplete,
                    (false, true) => Line::Report,
                    (false, false) => Line::Complete,
                };
            }
            *looks = looks.saturating_sub(1);
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
        let end = self.reports.front().map_or_else(|| self.stream.end(), |report| report.behind);
        let (count, relief) = self.stream.take_output(&mut self.chunk, end);
        if relief {
            relieved.insert(self.number);
        }
        (self.at, self.length) = (0, count);
        count != 0
    }
}
