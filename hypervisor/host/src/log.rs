//! The host's log.
//!
//! Answers for: taking messages from anywhere, at any time, without allocating and without waiting for a device; giving
//! them to the console's thread once, and to `slog2info` for as long as newer ones leave room for them; dropping what a
//! guest provokes too fast. Does not answer for: where they are shown ([`crate::console`]). Messages that were overwritten
//! before the console had them are counted, and the count is a message itself.
//!
//! A message's target says whose it is. Targets that begin with `vm:` belong to a VM and are limited each for itself (see
//! `limit`), and go where its configuration says (`logger`); all others are the host's own.

mod choice;
mod limit;
mod queue;

use crate::console::{Bell, Urgency};
use ::log::{Level, LevelFilter, Metadata, Record};
use alloc::{sync::Arc, vec::Vec};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};
use queue::{Entry, Queue};
use spin::Once;
use types::Lock;
use vm::config::Messages;

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

    /// From now on these messages of the VM `vm`, or of a device `VM/DEVICE`, are logged, whatever the level; `None` takes such a
    /// choice back.
    pub fn choose(&self, vm: &str, messages: Option<Messages>) {
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

    /// Whether a message of this level is for the console, and whether for `slog2info` at least.
    fn wants(&self, origin: Option<(&str, &str)>, level: Level) -> (bool, bool) {
        let mut choice = None;
        if let Some((origin, vm)) = origin {
            self.masked(&mut || {
                let choices = &self.queue.lock().choices;
                choice = choices.get(origin).or_else(|| choices.get(vm));
            });
        }
        match (choice, LEVELS.iter().find(|(named, _)| *named == level)) {
            (Some(Messages { console, slog }), Some((_, name))) => {
                let shown = console.contains(name);
                (shown, shown || slog.contains(name))
            }
            _ => (level <= self.level(), level <= self.level()),
        }
    }

    /// Appends the oldest message that the console has not had yet to `into`, without line end. `false` if there is none.
    pub fn take_line(&self, into: &mut Vec<u8>) -> bool {
        let mut found = false;
        self.masked(&mut || found = self.queue.lock().take(|byte| into.push(byte)));
        found
    }

    /// Appends the first message at or behind `place` to `into`, of all or of this VM, without line end, and moves `place`
    /// behind it; 0 is the oldest that is left. `false` if there is none. Messages may come meanwhile.
    pub fn kept_line(&self, vm: Option<&str>, place: &mut usize, into: &mut Vec<u8>) -> bool {
        let start = into.len();
        loop {
            let mut entry = None;
            self.masked(&mut || entry = self.queue.lock().kept(place, |byte| into.push(byte)));
            let Some(entry) = entry else { return false };
            let line = into.get(start..).unwrap_or_default();
            if vm.is_none_or(|vm| entry.vm(line) == vm.as_bytes()) {
                return true;
            }
            into.truncate(start);
        }
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
        self.masked(&mut || self.queue.lock().append(line.text(), line.entry));
        if let Some(surroundings) = self.surroundings.get().filter(|_| line.entry.is_for_console()) {
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
        let (shown, kept) = self.wants(origin.zip(vm), record.level());
        if !kept {
            return;
        }
        let now = self.surroundings.get().map_or(0, |surroundings| (surroundings.nanoseconds)());
        let mut line = Line::new(now, shown);
        // Nothing below fails: a line takes what fits.
        let _infallible = line.write_str(label(record.level()));
        let _infallible = match origin.zip(vm) {
            None => line.write_fmt(*record.args()),
            Some((origin, vm)) => {
                let Some(suppressed) = self.admit(vm, now) else { return };
                if suppressed > 0 {
                    let mut notice = Line::new(now, shown);
                    notice.is_of(vm);
                    let _infallible = write!(notice, "{vm}: {suppressed} messages suppressed");
                    self.append(&notice);
                }
                line.is_of(vm);
                write!(line, "{origin}: {}", record.args())
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
    entry: Entry,
}

impl Line {
    fn new(nanoseconds: u64, for_console: bool) -> Self {
        let mut line = Self { bytes: [0; LINE], length: 0, entry: Entry::new(for_console) };
        let microseconds = nanoseconds / 1000;
        let _infallible = write!(line, "[{:4}.{:06}] ", microseconds / 1_000_000, microseconds % 1_000_000);
        line
    }

    /// What is written next begins with this VM's name.
    fn is_of(&mut self, vm: &str) {
        self.entry.set_vm(self.length, vm.len());
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

#[cfg(test)]
mod tests;
