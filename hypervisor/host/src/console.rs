//! The console that the host and all VMs share: one UART.
//!
//! Answers for: what of whose output is shown when, and where typing goes. One VM is in the foreground: its bytes pass as
//! they are, and it gets what is typed. The others' output is cut into lines, made harmless and shown as `NAME| line`. The
//! host's own lines (log, notices, the report of a VM's end) come between lines; when that breaks a half-printed line of
//! the foreground, the line's text is printed again behind them. In a batch there is no foreground and no input: every
//! line has its prefix, and the last thing said is that all VMs have ended. Does not answer for: the UART's registers and
//! when to look ([`Bell`] says that), or waking devices: [`Progress`] and [`Action`] say whose.
//!
//! Every call is bounded, and no VM can keep another, or the host, from being shown.

mod channel;
mod keys;
mod number;
mod ring;
mod screen;
mod stream;
mod terminal;
mod text;
mod turn;
mod uart;

use crate::log::Log;
use alloc::{
    collections::vec_deque::VecDeque,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use channel::Channel;
use core::fmt;
use keys::{HELP, Key, Keys};
use screen::Screen;

pub use number::{VmNumber, VmNumbers};
pub use stream::{Bell, Stream, Urgency};
pub use terminal::Terminal;
pub use uart::Uart;

/// Most VMs that can be on the console at once: more than there can be, for those whose last lines are still being shown.
pub const MAX_VMS: u8 = 96;
/// What the shell is called.
const SHELL: &str = "shell";

/// Most lines of the host's own that wait; what comes on top is dropped. The log has a queue of its own.
const NOTICES: usize = 256;

/// What one [`Multiplexer::step`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes were sent.
    pub sent: usize,
    /// When to call again.
    pub next: Next,
    /// VMs whose devices were refused space and have it now: wake the writers of their streams. Or the shell was.
    pub relieved: VmNumbers,
    /// The batch is over and all is printed: power off.
    pub finished: bool,
}

/// When there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When the bell rings.
    Idle,
    /// At once: only the budget has ended.
    Again,
    /// When the UART takes bytes again.
    UartFull,
}

/// What somebody has to do because of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, but perhaps there is something to show: call [`Multiplexer::step`].
    None,
    /// This VM, or the shell, has input: wake the reader of its stream.
    Wake(VmNumber),
    /// Power the machine off.
    PowerOff,
}

/// The console.
pub struct Multiplexer {
    bell: Arc<Bell>,
    log: &'static Log,
    batch: bool,
    /// No VM will come any more but by hand.
    complete: bool,
    /// It has been said that all VMs have ended.
    announced: bool,
    channels: Vec<Channel>,
    /// Streams whose channels are gone.
    streams: Vec<&'static Stream>,
    foreground: Option<VmNumber>,
    /// The VM that is to be in the foreground as soon as it is there.
    wanted: Option<String>,
    notices: VecDeque<String>,
    screen: Screen,
    keys: Keys,
    /// Chunks that the foreground may still send before others.
    patience: u8,
    /// The channel whose turn it is among those in the background.
    turn: usize,
    /// Nothing was found to print, but not everything was looked at.
    unfinished: bool,
    /// The last step left nothing to print.
    idle: bool,
    relieved: VmNumbers,
}

impl fmt::Debug for Multiplexer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.channels.iter().map(|channel| &channel.name);
        f.debug_struct("Multiplexer").field("foreground", &self.foreground).finish_non_exhaustive()?;
        f.debug_list().entries(names).finish()
    }
}

impl Multiplexer {
    /// A console without VMs that shows what is logged.
    #[must_use]
    pub fn new(log: &'static Log) -> Self {
        Self {
            bell: Arc::default(),
            log,
            batch: false,
            complete: false,
            announced: false,
            channels: Vec::new(),
            streams: Vec::new(),
            foreground: None,
            wanted: None,
            notices: VecDeque::new(),
            screen: Screen::default(),
            keys: Keys::default(),
            patience: 0,
            turn: 0,
            unfinished: false,
            idle: false,
            relieved: VmNumbers::default(),
        }
    }

    /// What is rung when there is something to show.
    #[must_use]
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// From now on nothing is typed and every line has its VM's name in front.
    pub fn set_batch(&mut self) {
        self.batch = true;
        self.foreground = None;
    }

    /// Everything that is to be started has been: when the last VM has ended, the batch is over. Without a VM, and not in a
    /// batch, the shell is in the foreground from now on.
    pub fn set_complete(&mut self) {
        self.complete = true;
        self.announce();
        self.settle();
        self.bell.ring(Urgency::Now);
    }

    /// The shell's stream. There is no shell in a batch.
    pub fn shell(&mut self) -> &'static Stream {
        if let Some(shell) = self.channels.iter().find(|channel| channel.number == VmNumber::SHELL) {
            return shell.stream;
        }
        let stream = self.stream();
        self.channels.push(Channel::new(VmNumber::SHELL, SHELL, stream));
        self.settle();
        stream
    }

    /// Brings the VM `name` to the foreground, now or when it comes.
    pub fn set_foreground(&mut self, name: &str) {
        match self.channels.iter().find(|channel| channel.name == name) {
            Some(channel) => self.select(channel.number),
            None => self.wanted = Some(name.to_string()),
        }
    }

    /// A VM comes. `None` if there are [`MAX_VMS`] already.
    pub fn attach(&mut self, name: &str) -> Option<(VmNumber, &'static Stream)> {
        let taken = |number: &VmNumber| self.channels.iter().any(|channel| channel.number == *number);
        let number = (1..=MAX_VMS).map(VmNumber).find(|number| !taken(number))?;
        let stream = self.stream();
        self.channels.push(Channel::new(number, name, stream));
        self.announced = false;
        let wanted = self.wanted.as_deref() == Some(name);
        if wanted {
            self.wanted = None;
        }
        if wanted || self.foreground.is_none() && self.wanted.is_none() {
            self.select(number);
        }
        Some((number, stream))
    }

    /// A VM has ended and comes again. What it has printed is still shown, then `report`, then what it prints from now on.
    /// Nothing of the VM may use its stream any more when this is called. The stream is the same, but what was typed and
    /// not read is gone.
    pub fn restarted(&mut self, number: VmNumber, report: &str) -> &'static Stream {
        self.tell_end(number, report, false).unwrap_or_else(|| self.stream())
    }

    /// A VM has ended. Its last output is still shown, then `report`, then it is gone. Nothing of the VM may use its stream
    /// any more when this is called: another VM will.
    pub fn ended(&mut self, number: VmNumber, report: &str) {
        self.tell_end(number, report, true);
    }

    fn tell_end(&mut self, number: VmNumber, report: &str, last: bool) -> Option<&'static Stream> {
        self.bell.insist();
        let channel = self.channels.iter_mut().find(|channel| channel.number == number)?;
        channel.ended(report, last);
        channel.stream.hand_over();
        Some(channel.stream)
    }

    /// A stream that nobody has.
    fn stream(&mut self) -> &'static Stream {
        self.streams.pop().unwrap_or_else(|| Stream::leaked(self.bell.clone()))
    }

    /// A VM that never came has ended. This line is never dropped: scripts count on one for each VM.
    pub fn refused(&mut self, report: &str) {
        self.notices.push_back(report.to_string());
        self.bell.ring(Urgency::Now);
    }

    /// The host says something: each line of `text` on a line of its own.
    pub fn print(&mut self, text: &str) {
        for line in text.lines() {
            if self.notices.len() < NOTICES {
                self.notices.push_back(line.to_string());
            }
        }
        self.bell.ring(Urgency::Now);
    }

    /// As [`Multiplexer::print`], but only if nothing of the host's waits: who has much to say uses this, and lets others have
    /// their turn. Says whether it was.
    pub fn offer(&mut self, text: &str) -> bool {
        let free = self.notices.is_empty();
        if free {
            self.print(text);
        }
        free
    }

    /// A byte was typed.
    pub fn input(&mut self, byte: u8) -> Action {
        if self.batch {
            return Action::None;
        }
        match self.keys.press(byte) {
            Key::Nothing => {}
            Key::Text(byte) => return self.deliver(byte),
            Key::PowerOff => return Action::PowerOff,
            Key::Select(number) => match self.channels.iter().find(|channel| channel.number.0 == number) {
                Some(channel) => self.select(channel.number),
                None if number == 0 => self.print("console: there is no shell"),
                None => self.print(&format!("console: there is no VM {number}")),
            },
            Key::Next => self.select_next(),
            Key::List => self.list(),
            Key::Help => self.print(HELP),
            Key::AskPowerOff => self.print("console: press q again to power off, anything else to go on"),
            Key::StayOn => self.print("console: not powering off"),
            Key::Unknown => self.print("console: unknown key; Ctrl-] h shows the keys"),
        }
        Action::None
    }

    /// Sends what there is to `uart`, at most `budget` bytes, and at most the rest of what was begun and one thing more: who
    /// calls this has interrupts masked.
    pub fn step(&mut self, uart: &mut dyn Uart, budget: usize) -> Progress {
        self.bell.quiet();
        let mut sent = 0_usize;
        let mut refilled = false;
        let next = loop {
            if self.screen.is_empty() {
                if refilled {
                    break Next::Again;
                }
                refilled = true;
                if !self.refill() {
                    break if core::mem::take(&mut self.unfinished) { Next::Again } else { Next::Idle };
                }
            }
            let rest = budget.saturating_sub(sent);
            match self.screen.send(uart, rest) {
                0 if rest == 0 => break Next::Again,
                0 if !self.screen.is_empty() => break Next::UartFull,
                count => sent = sent.saturating_add(count),
            }
        };
        self.idle = next == Next::Idle;
        let finished = self.idle && self.batch && self.announced;
        Progress { sent, next, relieved: core::mem::take(&mut self.relieved), finished }
    }

    /// Whether nothing waits to be printed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idle && !self.bell.is_rung()
    }

    /// Says that all VMs have ended, if that is so.
    fn announce(&mut self) {
        let some = self.channels.iter().any(|channel| channel.number != VmNumber::SHELL);
        if self.complete && !self.announced && !some {
            self.announced = true;
            let hint = if self.batch { "" } else { "; Ctrl-] q q powers off" };
            self.notices.push_back([crate::ALL_ENDED, hint].concat());
        }
    }

    fn deliver(&mut self, byte: u8) -> Action {
        match self.channels.iter().find(|channel| Some(channel.number) == self.foreground) {
            Some(channel) => {
                // A guest that does not read its input does not get it: the key sequence must go on working.
                channel.stream.type_in(byte);
                Action::Wake(channel.number)
            }
            None => Action::None,
        }
    }

    /// Who is in the foreground if nobody else is.
    fn settle(&mut self) {
        if self.complete && self.foreground.is_none() {
            self.select(VmNumber::SHELL);
        }
    }

    fn select(&mut self, number: VmNumber) {
        if self.batch || self.foreground == Some(number) {
            return;
        }
        let Some(channel) = self.channels.iter().find(|channel| channel.number == number) else { return };
        let notice = format!("console: {} is in the foreground (Ctrl-] h shows the keys)", channel.name);
        self.foreground = Some(number);
        self.screen.forget();
        // The notice comes before the first of the new foreground's output.
        self.patience = 0;
        self.print(&notice);
    }

    fn select_next(&mut self) {
        let numbers = || self.channels.iter().map(|channel| channel.number);
        let next = numbers().filter(|number| Some(*number) > self.foreground).min().or_else(|| numbers().min());
        if let Some(number) = next {
            self.select(number);
        }
    }

    fn list(&mut self) {
        let mut numbered: Vec<_> = self.channels.iter().map(|channel| (channel.number, &channel.name)).collect();
        types::sort_by(&mut numbered, Ord::cmp);
        let mut text = String::from("console:");
        for (number, name) in numbered {
            let mark = if Some(number) == self.foreground { "*" } else { "" };
            text.push_str(&format!(" {number}{mark} {name}"));
        }
        self.print(&text);
    }
}

#[cfg(test)]
mod tests;
