//! The host's log.
//!
//! Answers for: taking messages from anywhere, at any time, without allocating and without waiting for a device; keeping
//! them until the console's thread fetches them; dropping what a guest provokes too fast. Does not answer for: where they
//! are shown ([`crate::console`]). Messages that do not fit are counted, and the count is a message itself.
//!
//! A message's target says whose it is. Targets that begin with `vm:` belong to a VM and are limited each for itself (see
//! [`limit`]), and are logged or not as its configuration says (`logger`); all others are the host's own.

mod choice;
mod limit;

use crate::console::{Bell, Urgency};
use ::log::{Level, LevelFilter, Metadata, Record};
use alloc::{sync::Arc, vec::Vec};
use choice::Choices;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};
use limit::Limits;
use qvmconf::LogFilters;
use spin::Once;
use types::Lock;

/// Bytes of messages that can wait.
const SIZE: usize = 16 * 1024;
/// Longest message, in bytes; what is behind is cut off.
const LINE: usize = 240;
/// What the original calls messages of these levels. Those that it calls fatal and internal pass in any case: what becomes
/// of a VM is told on the console, by its last line if by no other.
const LEVELS: [(Level, &str); 5] = [
    (Level::Error, "error"),
    (Level::Warn, "warn"),
    (Level::Info, "info"),
    (Level::Debug, "debug"),
    (Level::Trace, "verbose"),
];
/// What targets of VMs begin with.
const VM: &str = "vm:";

/// What the log needs of the world around it.
#[derive(Clone)]
pub struct Surroundings {
    /// Nanoseconds since the machine was switched on.
    pub nanoseconds: fn() -> u64,
    /// Runs the function with interrupts masked on this CPU: messages come from threads and from interrupt handlers, and
    /// the log's lock must not be held across the two.
    pub masked: fn(&mut dyn FnMut()),
    /// What to ring when there is something to show.
    pub bell: Arc<Bell>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// The log. One static, given to `log::set_logger`.
pub struct Log {
    surroundings: Once<Surroundings>,
    queue: Lock<Queue>,
    /// The [`LevelFilter`] for everything that has none of its own, and one more; zero for all, so that it costs no space
    /// in the image.
    level: AtomicUsize,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    /// Empty. Messages are kept from now on, with time stamps from [`Log::start`] on.
    #[must_use]
    pub const fn new() -> Self {
        Self { surroundings: Once::new(), queue: Lock::new(Queue::new()), level: AtomicUsize::new(0) }
    }

    /// Gives the log its surroundings, once. Until then there are no time stamps, and the caller sees to it that nothing
    /// interrupts a message.
    pub fn start(&self, surroundings: Surroundings) {
        self.surroundings.call_once(|| surroundings);
    }

    /// Logs this and what is worse, but for VMs that have chosen for themselves.
    pub fn set_level(&self, level: LevelFilter) {
        self.level.store((level as usize).saturating_add(1), Ordering::Relaxed);
        self.set_max_level();
    }

    /// From now on `vm` has these messages logged, whatever the level; `None` takes such a choice back.
    pub fn choose(&self, vm: &str, messages: Option<LogFilters>) {
        self.masked(&mut || self.queue.lock().choices.set(vm, messages));
        self.set_max_level();
    }

    /// The `log` package asks nobody about messages above this level.
    fn set_max_level(&self) {
        let mut levels = LEVELS;
        self.masked(&mut || {
            let queue = self.queue.lock();
            levels = levels.map(|(level, name)| (level, if queue.choices.any(name) { name } else { "" }));
        });
        let chosen = levels.iter().filter(|(_, name)| !name.is_empty()).map(|(level, _)| level.to_level_filter()).max();
        ::log::set_max_level(chosen.map_or(self.level(), |chosen| chosen.max(self.level())));
    }

    /// What is logged of everything that has made no choice.
    fn level(&self) -> LevelFilter {
        let level = self.level.load(Ordering::Relaxed).checked_sub(1);
        LevelFilter::iter().find(|known| Some(*known as usize) == level).unwrap_or(LevelFilter::Trace)
    }

    /// Whether a message of this level may pass, of a VM or of the host.
    fn wants(&self, vm: Option<&str>, level: Level) -> bool {
        let mut choice = None;
        if let Some(vm) = vm {
            self.masked(&mut || choice = self.queue.lock().choices.get(vm));
        }
        match choice {
            Some(choice) => LEVELS.iter().any(|(named, name)| *named == level && choice.contains(name)),
            None => level <= self.level(),
        }
    }

    /// Appends the oldest message to `into`, without line end. `false` if there is none.
    pub fn take_line(&self, into: &mut Vec<u8>) -> bool {
        let mut found = false;
        self.masked(&mut || found = self.queue.lock().take(|byte| into.push(byte)));
        found
    }

    /// Shows all messages that wait, byte by byte with line feeds, for an epitaph: without masking anything, without
    /// allocating, and giving up rather than waiting for a lock that may be held by whoever has just died.
    pub fn rescue(&self, mut show: impl FnMut(u8)) {
        if let Some(mut queue) = self.queue.try_lock() {
            while queue.take(&mut show) {
                show(b'\n');
            }
        }
    }

    fn masked(&self, f: &mut dyn FnMut()) {
        match self.surroundings.get() {
            Some(surroundings) => (surroundings.masked)(f),
            None => f(),
        }
    }

    /// Whether a message of a VM may pass, and how many have not since the last one that did.
    fn admit(&self, vm: &str, now: u64) -> Option<u32> {
        let mut verdict = None;
        self.masked(&mut || verdict = self.queue.lock().limits.admit(vm, now));
        verdict
    }

    fn append(&self, line: &Line) {
        self.masked(&mut || self.queue.lock().append(line.text()));
        if let Some(surroundings) = self.surroundings.get() {
            surroundings.bell.ring(Urgency::Soon);
        }
    }
}

impl ::log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let origin = record.target().strip_prefix(VM);
        let vm = origin.map(|origin| origin.split('/').next().unwrap_or(origin));
        if !self.wants(vm, record.level()) {
            return;
        }
        let now = self.surroundings.get().map_or(0, |surroundings| (surroundings.nanoseconds)());
        let mut line = Line::new(now);
        // Nothing below fails: a line takes what fits.
        let _infallible = match origin.zip(vm) {
            None => write!(line, "{}{}", label(record.level()), record.args()),
            Some((origin, vm)) => {
                let Some(suppressed) = self.admit(vm, now) else { return };
                if suppressed > 0 {
                    let mut notice = Line::new(now);
                    let _infallible = write!(notice, "{vm}: {suppressed} messages suppressed");
                    self.append(&notice);
                }
                write!(line, "{}{origin}: {}", label(record.level()), record.args())
            }
        };
        self.append(&line);
    }

    fn flush(&self) {}
}

/// The level a word stands for: `error`, `warn`, `info`, `debug`, `trace`, or `off`.
#[must_use]
pub fn level(word: &str) -> Option<LevelFilter> {
    word.parse().ok()
}

const fn label(level: Level) -> &'static str {
    match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug => "debug: ",
        Level::Trace => "trace: ",
    }
}

/// A message being written: a time stamp and what fits of the text, on one line, without control characters.
struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Line {
    fn new(nanoseconds: u64) -> Self {
        let mut line = Self { bytes: [0; LINE], length: 0 };
        let microseconds = nanoseconds / 1000;
        let _infallible = write!(line, "[{:4}.{:06}] ", microseconds / 1_000_000, microseconds % 1_000_000);
        line
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let shown = match character {
                '\n' | '\t' => ' ',
                character if character.is_control() => '?',
                character => character,
            };
            let mut encoded = [0; 4];
            let encoded = shown.encode_utf8(&mut encoded).as_bytes();
            let end = self.length.saturating_add(encoded.len());
            let Some(place) = self.bytes.get_mut(self.length..end) else {
                // Once something does not fit, nothing behind it does.
                self.length = self.length.min(LINE);
                return Ok(());
            };
            place.copy_from_slice(encoded);
            self.length = end;
        }
        Ok(())
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

/// Messages that wait, each with a line feed behind it.
struct Queue {
    bytes: [u8; SIZE],
    taken: usize,
    put: usize,
    lost: u32,
    limits: Limits,
    choices: Choices,
}

impl Queue {
    /// All zero, so that it costs no space in the image.
    const fn new() -> Self {
        Self { bytes: [0; SIZE], taken: 0, put: 0, lost: 0, limits: Limits::new(), choices: Choices::new() }
    }

    fn append(&mut self, line: &[u8]) {
        let space = SIZE.wrapping_sub(self.put.wrapping_sub(self.taken));
        if line.len() >= space {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        for byte in line.iter().chain(b"\n") {
            if let Some(place) = self.bytes.get_mut(self.put % SIZE) {
                *place = *byte;
            }
            self.put = self.put.wrapping_add(1);
        }
    }

    /// Passes the bytes of the oldest message on. `false` if there is none.
    fn take(&mut self, mut show: impl FnMut(u8)) -> bool {
        if self.taken == self.put {
            if self.lost == 0 {
                return false;
            }
            let _infallible = write!(Bytes(&mut show), "log: {} messages lost", self.lost);
            self.lost = 0;
            return true;
        }
        while self.taken != self.put {
            let byte = self.bytes.get(self.taken % SIZE).copied().unwrap_or(b'\n');
            self.taken = self.taken.wrapping_add(1);
            if byte == b'\n' {
                break;
            }
            show(byte);
        }
        true
    }
}

#[cfg(test)]
mod tests;
