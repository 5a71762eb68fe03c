//! Whose output comes next.
//!
//! Answers for: the turns of the foreground, the host, VMs in the background and reports of ends, so that none waits for ever. Does
//! not answer for: cutting output into lines (`channel`), nor for what is printed again when a line was broken (`screen`).

use super::{
    Multiplexer,
    channel::{Channel, Line},
};

/// So many chunks of the foreground's output may come before somebody else's line, unless its line ends first.
const PATIENCE: u8 = 8;

/// Chunks of background output looked at in one go: more than a line has, fewer than VMs that print nothing but control
/// sequences can make.
const CHUNKS: usize = 16;

impl Multiplexer {
    /// Finds something to print. `false` if there is nothing.
    pub(super) fn refill(&mut self) -> bool {
        if self.patience > 0 && self.foreground_chunk() {
            self.patience = if self.screen.line_is_open() { self.patience.saturating_sub(1) } else { 0 };
            return true;
        }
        if self.host_line() || self.report_of_foreground() || self.background_line() {
            // What the host says is said in one go: who comes to the foreground comes behind the notice of it.
            self.patience = if self.notices.is_empty() { PATIENCE } else { 0 };
            return true;
        }
        if self.foreground_chunk() {
            self.patience = if self.screen.line_is_open() { PATIENCE } else { 0 };
            return true;
        }
        self.screen.restore()
    }

    /// What was logged, then what the host says.
    fn host_line(&mut self) -> bool {
        let log = self.log;
        if self.screen.line_if(|line| log.take_line(line)) {
            return true;
        }
        match self.notices.pop_front() {
            Some(notice) => self.screen.line_if(|line| {
                line.extend_from_slice(notice.as_bytes());
                true
            }),
            None => false,
        }
    }

    fn foreground_chunk(&mut self) -> bool {
        let Some(channel) = self.channels.iter_mut().find(|channel| Some(channel.number) == self.foreground) else {
            return false;
        };
        let (screen, relieved) = (&mut self.screen, &mut self.relieved);
        channel.chunk(relieved, |bytes| screen.pass(bytes))
    }

    /// The foreground's report, if it is time for one. If it was the last, the next VM takes its place.
    fn report_of_foreground(&mut self) -> bool {
        let due = |channel: &Channel| Some(channel.number) == self.foreground && channel.is_due();
        let Some(place) = self.channels.iter().position(due) else { return false };
        self.screen.forget();
        if self.report(place) {
            self.foreground = None;
            let first = self.channels.iter().map(|channel| channel.number).filter(|number| number.0 != 0).min();
            first.into_iter().for_each(|number| self.select(number));
            self.settle();
        }
        true
    }

    /// A line of a VM in the background, or the report of its end. They take turns.
    fn background_line(&mut self) -> bool {
        let count = self.channels.len();
        let mut looks = CHUNKS;
        for offset in 0..count {
            let place = self.turn.wrapping_add(offset).checked_rem(count).unwrap_or(0);
            let Some(channel) = self.channels.get_mut(place) else { continue };
            if Some(channel.number) == self.foreground {
                continue;
            }
            match channel.line(&mut self.relieved, &mut looks) {
                Line::Complete => {
                    self.screen.line_if(|line| {
                        channel.take_line(line);
                        true
                    });
                    self.turn = place.wrapping_add(1);
                    return true;
                }
                Line::Incomplete => {}
                Line::Unknown => {
                    self.unfinished = true;
                    self.turn = place.wrapping_add(1);
                    return false;
                }
                Line::Report => {
                    self.report(place);
                    self.turn = place;
                    return true;
                }
            }
        }
        false
    }

    /// Shows a report; `true` if it was the VM's last.
    fn report(&mut self, place: usize) -> bool {
        let Some(report) = self.channels.get_mut(place).and_then(Channel::report) else { return false };
        self.screen.line_if(|line| {
            line.extend_from_slice(report.line.as_bytes());
            true
        });
        if report.last {
            let stream = self.channels.remove(place).stream;
            stream.clear();
            self.streams.push(stream);
            self.announce();
        }
        report.last
    }
}
