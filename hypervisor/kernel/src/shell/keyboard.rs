//! The shell's end of the console.

use crate::console;
use crate::startup::print;
use crate::thread;
use alloc::collections::vec_deque::VecDeque;
use alloc::string::String;
use core::fmt;
use host::console::Stream;
use types::Ticks;

/// Bytes that may be typed while a command is carried out.
const AHEAD: usize = 1024;

/// Ctrl-C.
const INTERRUPT: u8 = 0x03;

/// Lines for the console's own messages.
pub(super) struct Lines(pub(super) String);

impl fmt::Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if let Some(end) = self.0.rfind('\n') {
            print(&self.0[..end]);
            self.0.drain(..=end);
        }
        Ok(())
    }
}

/// The shell's end of the console, as long as somebody can type.
pub(super) struct Keyboard {
    pub(super) stream: &'static Stream,
    /// What was typed while a command was carried out.
    pub(super) ahead: VecDeque<u8>,
}

impl Keyboard {
    /// Fetches what has been typed. Says whether that is to end what goes on: Ctrl-C, which takes everything before along.
    pub(super) fn listen(&mut self) -> bool {
        while let Some(byte) = self.stream.read() {
            // What is typed too far ahead is dropped, but for the key that ends it all.
            if self.ahead.len() < AHEAD || byte == INTERRUPT {
                self.ahead.push_back(byte);
            }
        }
        let interrupt = self.ahead.iter().rposition(|byte| *byte == INTERRUPT);
        if let Some(end) = interrupt {
            self.ahead.drain(..=end);
        }
        interrupt.is_some()
    }

    /// The next byte that was typed.
    pub(super) fn read(&mut self) -> Option<u8> {
        self.ahead.pop_front().or_else(|| self.stream.read())
    }

    /// Sends bytes as they are, as fast as they are shown.
    pub(super) fn send(&self, bytes: &[u8]) {
        for byte in bytes {
            while !self.stream.write(*byte).is_taken() {
                console::answer_bell();
                thread::sleep_until(Ticks::NEVER);
            }
        }
        console::answer_bell();
    }
}

impl fmt::Write for Keyboard {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            self.send(part.trim_end_matches('\n').as_bytes());
            if part.ends_with('\n') {
                self.send(b"\r\n");
            }
        }
        Ok(())
    }
}
