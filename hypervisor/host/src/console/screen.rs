//! What stands on the terminal's current line, and what is about to be sent to it.

use super::{Uart, text::Filter};
use alloc::vec::Vec;

/// Longest text that is printed again behind a line that broke in: a wide terminal's line.
const REMEMBERED: usize = 256;

/// The terminal, as far as it can be known.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Bytes to send, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// The cursor is not at the start of an empty line.
    open: bool,
    /// The text of the foreground's current line, without control sequences: a terminal answers some of those, and the
    /// guest would get the answer twice.
    text: Vec<u8>,
    filter: Filter,
    /// A line broke in, and `text` is to be printed again.
    broken: bool,
}

impl Screen {
    /// Whether all has been sent.
    pub(super) const fn is_empty(&self) -> bool {
        self.sent >= self.out.len()
    }

    /// Whether the foreground's current line has not ended.
    pub(super) const fn line_is_open(&self) -> bool {
        self.open
    }

    /// Sends at most `limit` bytes, and says how many.
    pub(super) fn send(&mut self, uart: &mut dyn Uart, limit: usize) -> usize {
        let rest = self.out.get(self.sent..).unwrap_or_default();
        let count = uart.send_all(rest.get(..limit).unwrap_or(rest));
        self.sent = self.sent.wrapping_add(count);
        count
    }

    /// A line of its own: what `write` appends, if it says that there is something.
    pub(super) fn line_if(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        self.begin();
        if self.open {
            self.out.extend_from_slice(b"\r\n");
        }
        if !write(&mut self.out) {
            self.out.clear();
            return false;
        }
        self.out.extend_from_slice(b"\r\n");
        self.broken |= self.open && !self.text.is_empty();
        self.open = false;
        true
    }

    /// Bytes of the foreground, as they are.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.begin();
        self.repeat();
        self.out.extend_from_slice(bytes);
        // Only what stands behind the last line feed is still on the line.
        let tail = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                self.forget();
                self.filter = Filter::default();
                self.open = false;
                bytes.get(end.wrapping_add(1)..).unwrap_or_default()
            }
            None => bytes,
        };
        if self.filter.is_plain(tail) {
            let room = REMEMBERED.saturating_sub(self.text.len());
            self.text.extend(tail.iter().take(room));
            self.open |= !tail.is_empty();
        } else {
            for byte in tail {
                self.follow(*byte);
            }
        }
    }

    /// Prints the foreground's line again if one broke in. `false` if there is nothing to do.
    pub(super) fn restore(&mut self) -> bool {
        self.begin();
        self.repeat();
        !self.is_empty()
    }

    /// What is on the line belongs to nobody any more.
    pub(super) fn forget(&mut self) {
        self.text.clear();
        self.broken = false;
    }

    fn begin(&mut self) {
        self.out.clear();
        self.sent = 0;
    }

    fn repeat(&mut self) {
        if core::mem::take(&mut self.broken) {
            self.out.extend_from_slice(&self.text);
            self.open = true;
        }
    }

    fn follow(&mut self, byte: u8) {
        // A return does not empty the line, nor does it fill one.
        self.open |= byte != b'\r';
        match self.filter.pass(byte) {
            Some(b'\r') => self.text.clear(),
            Some(0x08) => {
                self.text.pop();
            }
            Some(byte @ (b' '..=b'~' | 0x80..)) if self.text.len() < REMEMBERED => self.text.push(byte),
            _ => {}
        }
    }
}
