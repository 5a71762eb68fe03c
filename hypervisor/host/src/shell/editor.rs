//! The line that is being typed.
//!
//! Answers for: editing (in the manner of `emacs`, as shells do), history, completion, and what a terminal has to be sent
//! so that it shows the line. Does not answer for: what the line says. Bytes come in one by one; work and memory are
//! bounded for each. Every character is taken to be one column wide.
//!
//! The terminal is a VT100 with 80 columns. A line that is longer scrolls sideways.

use super::{
    Signal,
    command::{COMMANDS, Place},
};
use alloc::{collections::vec_deque::VecDeque, string::String};
use arrayvec::ArrayVec;
use core::fmt::Write;

/// What the shell begins a line with.
pub const PROMPT: &str = "bulkhead# ";
/// Longest line, in bytes.
const LONGEST: usize = 512;
/// Lines that are remembered.
const HISTORY: usize = 32;
/// Characters of the line that are shown: the cursor has a column of its own behind the last.
const ROOM: usize = 79_usize.saturating_sub(PROMPT.len());
/// Bytes of candidates that are listed.
const LIST: usize = 2048;

/// What has a name that only the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// VMs.
    Vm,
    /// Kinds of vdevs.
    Vdev,
    /// Files of the boot archive, without leading slash.
    File,
}

/// What there is to choose from.
pub trait Completions {
    /// Offers each name of this kind.
    fn each(&self, named: Named, offer: &mut dyn FnMut(&str));
}

/// Where in a key's sequence the input is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC `[` or ESC `O`, and perhaps a number, of which there may be several.
    Sequence { number: u8, several: bool },
}

// What keys do has the control character that does the same.
const HOME: char = '\x01';
const LEFT: char = '\x02';
const INTERRUPT: char = '\x03';
const DELETE: char = '\x04';
const END: char = '\x05';
const RIGHT: char = '\x06';
const BACKSPACE: char = '\x08';
const TAB: char = '\t';
const KILL: char = '\x0b';
const REDRAW: char = '\x0c';
const DOWN: char = '\x0e';
const UP: char = '\x10';
const KILL_BACK: char = '\x15';
const KILL_WORD: char = '\x17';

/// The line editor.
#[derive(Debug, Default)]
pub struct Editor {
    /// What is before the cursor, and what is behind it.
    left: String,
    right: String,
    /// Oldest first.
    history: VecDeque<String>,
    /// How far back in it the line is from; 0 is the line that is being typed, which is kept in `draft` meanwhile.
    back: usize,
    draft: String,
    state: State,
    /// The beginning of a character in UTF-8.
    partial: ArrayVec<u8, 4>,
    /// The first character that is shown.
    first: usize,
    /// The last byte was a carriage return: a line feed behind it belongs to it.
    returned: bool,
    /// The last key was Tab, and there was more than one way to go on.
    ambiguous: bool,
}

impl Editor {
    /// Shows the prompt, and the line as far as there is one.
    pub fn prompt(&mut self, out: &mut String) {
        let column = self.left.chars().count();
        if column < self.first || column > self.first.saturating_add(ROOM) {
            self.first = column.saturating_sub(ROOM / 2);
        }
        let shown = || self.left.chars().chain(self.right.chars()).skip(self.first).take(ROOM);
        out.push('\r');
        out.push_str(PROMPT);
        out.extend(shown());
        out.push_str("\x1b[K");
        let behind = shown().count().saturating_sub(column.saturating_sub(self.first));
        if behind > 0 {
            let _infallible = write!(out, "\x1b[{behind}D");
        }
    }

    /// The next byte that was typed. `out` gets what the terminal is to be sent; a line that was finished is returned, and
    /// the next [`Editor::prompt`] is the caller's.
    pub fn press(&mut self, byte: u8, completions: &dyn Completions, out: &mut String) -> Option<String> {
        let returned = core::mem::replace(&mut self.returned, byte == b'\r');
        if byte == b'\r' || byte == b'\n' {
            (self.state, self.ambiguous) = (State::Text, false);
            self.partial.clear();
            return (byte == b'\r' || !returned).then(|| self.finish(out));
        }
        let key = self.decode(byte)?;
        let ambiguous = core::mem::take(&mut self.ambiguous);
        match key {
            TAB => self.complete(completions, ambiguous, out),
            UP | DOWN => self.recall(key == UP, out),
            INTERRUPT => {
                out.push_str("^C\r\n");
                self.set("");
                self.prompt(out);
            }
            REDRAW => {
                out.push_str("\x1b[H\x1b[2J");
                self.prompt(out);
            }
            key if key.is_control() => {
                self.edit(key);
                self.prompt(out);
            }
            key => self.insert(key.encode_utf8(&mut [0; 4]), out),
        }
        None
    }

    /// A character of text, or one that stands for a key; `None` if there is none yet.
    fn decode(&mut self, byte: u8) -> Option<char> {
        let state = core::mem::take(&mut self.state);
        match (state, byte) {
            (_, 0x1b) => self.state = State::Escape,
            (State::Text, 0x80..) => return self.decode_text(byte),
            (State::Escape, b'[' | b'O') => self.state = State::Sequence { number: 0, several: false },
            (State::Sequence { number, several: false }, b'0'..=b'9') => {
                let number = number.saturating_mul(10).saturating_add(byte.wrapping_sub(b'0'));
                self.state = State::Sequence { number, several: false };
            }
            (State::Sequence { number, .. }, 0x20..=0x3f) => self.state = State::Sequence { number, several: true },
            (State::Sequence { number, .. }, 0x40..=0x7e) => {
                return Some(match (byte, number) {
                    (b'A', _) => UP,
                    (b'B', _) => DOWN,
                    (b'C', _) => RIGHT,
                    (b'D', _) => LEFT,
                    (b'H', _) | (b'~', 1 | 7) => HOME,
                    (b'F', _) | (b'~', 4 | 8) => END,
                    (b'~', 3) => DELETE,
                    _ => return None,
                });
            }
            (State::Escape, 0x20..) => {}
            // A control character is itself wherever it comes.
            (_, 0x7f) => return Some(BACKSPACE),
            _ => {
                self.partial.clear();
                return Some(char::from(byte));
            }
        }
        self.partial.clear();
        None
    }

    /// A byte of a character beyond ASCII. What is no UTF-8 is dropped, and so are control characters.
    fn decode_text(&mut self, byte: u8) -> Option<char> {
        if byte >= 0xc0 {
            self.partial.clear();
        }
        self.partial.try_push(byte).ok()?;
        match core::str::from_utf8(&self.partial) {
            Ok(text) => {
                let character = text.chars().next().filter(|character| !character.is_control());
                self.partial.clear();
                character
            }
            Err(error) => {
                if error.error_len().is_some() {
                    self.partial.clear();
                }
                None
            }
        }
    }

    fn insert(&mut self, text: &str, out: &mut String) {
        if self.left.len().saturating_add(self.right.len()).saturating_add(text.len()) > LONGEST {
            return out.push('\x07');
        }
        self.left.push_str(text);
        if self.right.is_empty() && self.left.chars().count() <= self.first.saturating_add(ROOM) {
            out.push_str(text);
        } else {
            self.prompt(out);
        }
    }

    fn edit(&mut self, key: char) {
        match key {
            LEFT => {
                if let Some(character) = self.left.pop() {
                    self.right.insert(0, character);
                }
            }
            RIGHT => self.left.extend(pop_front(&mut self.right)),
            HOME => self.right.insert_str(0, &core::mem::take(&mut self.left)),
            END => self.left.push_str(&core::mem::take(&mut self.right)),
            BACKSPACE => _ = self.left.pop(),
            DELETE => _ = pop_front(&mut self.right),
            KILL => self.right.clear(),
            KILL_BACK => self.left.clear(),
            KILL_WORD => {
                let word = self.left.trim_end();
                let start = word.char_indices().rev().find(|(_, character)| character.is_whitespace());
                let start = start.map_or(0, |(place, space)| place.saturating_add(space.len_utf8()));
                self.left.truncate(start);
            }
            _ => {}
        }
    }

    fn set(&mut self, line: &str) {
        self.right.clear();
        self.left.clear();
        self.left.push_str(line);
    }

    fn finish(&mut self, out: &mut String) -> String {
        out.push_str("\r\n");
        self.edit(END);
        let line = core::mem::take(&mut self.left);
        (self.back, self.first) = (0, 0);
        if !line.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.len() >= HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(line.clone());
        }
        line
    }

    fn recall(&mut self, up: bool, out: &mut String) {
        let back = if up { self.back.saturating_add(1) } else { self.back.saturating_sub(1) };
        let Some(place) = self.history.len().checked_sub(back).filter(|_| back != self.back) else {
            return out.push('\x07');
        };
        if self.back == 0 {
            self.edit(END);
            self.draft.clone_from(&self.left);
        }
        self.back = back;
        // Behind the history comes what was being typed.
        let line = self.history.get(place).unwrap_or(&self.draft).clone();
        self.set(&line);
        self.prompt(out);
    }

    /// Completes the word before the cursor as far as there is one way to; if there are several, the second time in a row
    /// lists them.
    fn complete(&mut self, completions: &dyn Completions, list: bool, out: &mut String) {
        let start = self.left.rfind(char::is_whitespace).map_or(0, |place| place.saturating_add(1));
        let (before, word) = self.left.split_at_checked(start).unwrap_or_default();
        let stem = word.strip_prefix('@').map_or(word, |path| path.trim_start_matches('/'));
        let mut found = Candidates { stem, common: None, count: 0, list: String::new() };
        find(before, word, completions, &mut |candidate| found.offer(candidate));
        let Candidates { common, count, list: text, .. } = found;
        let mut rest = String::from(common.as_deref().and_then(|common| common.get(stem.len()..)).unwrap_or_default());
        if count == 1 && common.as_deref() != Some("@") {
            rest.push(' ');
        }
        match count {
            _ if !rest.is_empty() => self.insert(&rest, out),
            0 | 1 => out.push('\x07'),
            _ if list => {
                out.push_str("\r\n");
                out.push_str(&text);
                out.push_str("\r\n");
                self.prompt(out);
            }
            _ => {
                self.ambiguous = true;
                out.push('\x07');
            }
        }
    }
}

/// What a word could become.
struct Candidates<'a> {
    stem: &'a str,
    /// What all of them begin with.
    common: Option<String>,
    count: usize,
    list: String,
}

impl Candidates<'_> {
    fn offer(&mut self, candidate: &str) {
        if !candidate.starts_with(self.stem) {
            return;
        }
        self.count = self.count.saturating_add(1);
        let common = self.common.get_or_insert_with(|| candidate.into());
        let same = common.chars().zip(candidate.chars()).take_while(|(a, b)| a == b);
        let same = same.fold(0_usize, |length, (character, _)| length.saturating_add(character.len_utf8()));
        common.truncate(same);
        if self.list.len() < LIST {
            if self.count > 1 {
                self.list.push_str("  ");
            }
            self.list.push_str(candidate);
        }
    }
}

/// Offers what can stand where `word` is: what the usage of the command before it says.
fn find(before: &str, word: &str, completions: &dyn Completions, offer: &mut dyn FnMut(&str)) {
    let mut words = before.split_whitespace();
    let typed = || COMMANDS.iter().filter(|row| row.may_be(Place::Shell)).map(|row| row.word);
    let Some(command) = words.next() else { return typed().for_each(offer) };
    let Some(row) = COMMANDS.iter().find(|row| row.word == command) else { return };
    if words.next_back() == Some("-s") {
        // By the name that was begun.
        let short = !word.is_empty() && !word.starts_with('S');
        return Signal::ALL.iter().for_each(|signal| offer(if short { signal.short_name() } else { signal.name() }));
    }
    for kind in row.arguments.split([' ', '[', ']', '|', ',']) {
        match kind {
            "@FILE" if word.is_empty() => offer("@"),
            "@FILE" if word.starts_with('@') => completions.each(Named::File, offer),
            "NAME" => completions.each(Named::Vm, offer),
            "VDEV" => completions.each(Named::Vdev, offer),
            "WORD" => typed().for_each(&mut *offer),
            "LEVEL" => ["error", "warn", "info", "debug", "trace", "off"].into_iter().for_each(&mut *offer),
            itself if itself.starts_with(|first: char| first == '-' || first.is_lowercase()) => offer(itself),
            _ => {}
        }
    }
}

fn pop_front(text: &mut String) -> Option<char> {
    if text.is_empty() { None } else { Some(text.remove(0)) }
}

#[cfg(test)]
mod tests;
