//! The messages themselves.
//!
//! Answers for: keeping as many as there is room for, the newest; which of them the console has not had yet. Does not
//! answer for: what is in them.

use super::{choice::Choices, limit::Limits};
use core::fmt::{self, Write};

/// Bytes of messages that are kept.
pub(super) const SIZE: usize = 16 * 1024;
/// Bytes before each: its length, and the two of [`Entry`].
const HEADER: usize = 3;
/// In [`Entry::name`]: the message is for the console.
const CONSOLE: u8 = 0x80;

/// What is known of a message beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where in the text the VM's name begins, and [`CONSOLE`].
    name: u8,
    /// How long it is; 0 if the message is the host's own.
    length: u8,
}

impl Entry {
    pub(super) const fn new(for_console: bool) -> Self {
        Self { name: if for_console { CONSOLE } else { 0 }, length: 0 }
    }

    pub(super) const fn is_for_console(self) -> bool {
        self.name & CONSOLE != 0
    }

    /// Where in the text the name of the VM is. If it is further behind than any is, the message is nobody's.
    pub(super) fn set_vm(&mut self, at: usize, length: usize) {
        if let (Ok(at @ 0..CONSOLE), Ok(length)) = (u8::try_from(at), u8::try_from(length)) {
            self.name |= at;
            self.length = length;
        }
    }

    /// The name of the VM in its text; empty if it is the host's own.
    pub(super) fn vm(self, text: &[u8]) -> &[u8] {
        let start = usize::from(self.name & !CONSOLE);
        text.get(start..start.saturating_add(usize::from(self.length))).unwrap_or_default()
    }
}

/// Text, byte by byte.
struct Bytes<F>(F);

impl<F: FnMut(u8)> Write for Bytes<F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(&mut self.0);
        Ok(())
    }
}

/// Messages, and whose may come.
pub(super) struct Queue {
    bytes: [u8; SIZE],
    /// Where the oldest message begins, the first that the console has not had, and the next that comes: how many bytes
    /// have ever been before it, modulo 2^64.
    oldest: usize,
    taken: usize,
    put: usize,
    /// Messages that the console never had.
    lost: u32,
    pub(super) limits: Limits,
    pub(super) choices: Choices,
}

impl Queue {
    /// All zero, so that it costs no space in the image.
    pub(super) const fn new() -> Self {
        let (limits, choices) = (Limits::new(), Choices::new());
        Self { bytes: [0; SIZE], oldest: 0, taken: 0, put: 0, lost: 0, limits, choices }
    }

    fn at(&self, place: usize) -> u8 {
        self.bytes.get(place % SIZE).copied().unwrap_or(0)
    }

    /// The message that begins at `place`: where its text is from and up to.
    fn entry(&self, place: usize) -> (Entry, usize, usize) {
        let entry = Entry { name: self.at(place.wrapping_add(1)), length: self.at(place.wrapping_add(2)) };
        let start = place.wrapping_add(HEADER);
        (entry, start, start.wrapping_add(usize::from(self.at(place))))
    }

    /// Adds a message. The oldest ones make room for it.
    pub(super) fn append(&mut self, text: &[u8], entry: Entry) {
        let Ok(length) = u8::try_from(text.len()) else { return };
        let needed = text.len().saturating_add(HEADER);
        while SIZE.wrapping_sub(self.put.wrapping_sub(self.oldest)) < needed {
            let (entry, _, end) = self.entry(self.oldest);
            if self.oldest == self.taken {
                self.lost = self.lost.saturating_add(u32::from(entry.is_for_console()));
                self.taken = end;
            }
            self.oldest = end;
        }
        for byte in [length, entry.name, entry.length].iter().chain(text) {
            if let Some(place) = self.bytes.get_mut(self.put % SIZE) {
                *place = *byte;
            }
            self.put = self.put.wrapping_add(1);
        }
    }

    /// Passes the bytes of the oldest message on that the console has not had: how many were lost, before the others.
    /// `false` if there is none.
    pub(super) fn take(&mut self, mut show: impl FnMut(u8)) -> bool {
        if self.lost != 0 {
            let _infallible = write!(Bytes(&mut show), "log: {} messages lost", self.lost);
            self.lost = 0;
            return true;
        }
        while self.taken != self.put {
            let (entry, start, end) = self.entry(self.taken);
            self.taken = end;
            if entry.is_for_console() {
                self.pass(start, end, show);
                return true;
            }
        }
        false
    }

    /// Passes the bytes of the first message on that begins at or behind `place`, and moves `place` to the next.
    pub(super) fn kept(&self, place: &mut usize, show: impl FnMut(u8)) -> Option<Entry> {
        // Whoever has been overtaken goes on with the oldest.
        if self.put.wrapping_sub(*place) > self.put.wrapping_sub(self.oldest) {
            *place = self.oldest;
        }
        if *place == self.put {
            return None;
        }
        let (entry, start, end) = self.entry(*place);
        *place = end;
        self.pass(start, end, show);
        Some(entry)
    }

    fn pass(&self, mut at: usize, end: usize, mut show: impl FnMut(u8)) {
        while at != end {
            show(self.at(at));
            at = at.wrapping_add(1);
        }
    }
}
