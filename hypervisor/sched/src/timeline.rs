//! Recorded schedules: who ran when, for a person to read.
//!
//! Each CPU is a line, each character ten ticks, a tenth of a slice: the letter of the thread that runs, in lower case
//! while it is a sporadic server without budget; a dot while nothing runs.

use crate::{Parameters, Policy, Priority, ShareId, Sporadic, ThreadId, simulation::Machine, simulation::WINDOW};
use std::{string::String, vec, vec::Vec};
use types::{CpuSet, Ticks};

const STEP: u64 = 10;

struct Film {
    machine: Machine,
    cast: Vec<ThreadId>,
    lines: Vec<String>,
}

impl Film {
    fn new(cpus: usize) -> Self {
        Self { machine: Machine::online(cpus), cast: Vec::new(), lines: vec![String::new(); cpus] }
    }

    /// The next letter, from A.
    fn thread(&mut self, priority: u8, policy: Policy, affinity: u64, share: ShareId) -> ThreadId {
        let (priority, affinity) = (Priority::new(priority).unwrap(), CpuSet(affinity));
        let id = self.machine.spawn(Parameters { priority, policy, affinity, share }).unwrap();
        self.cast.push(id);
        id
    }

    fn robin(&mut self, priority: u8, affinity: u64) -> ThreadId {
        self.thread(priority, Policy::RoundRobin, affinity, ShareId::SYSTEM)
    }

    fn wake(&mut self, id: ThreadId) {
        self.machine.wake(id);
        self.machine.settle();
    }

    /// A thread that runs waits.
    fn block(&mut self, id: ThreadId) {
        let cpu = self.machine.cores.iter().position(|core| core.current == Some(id)).unwrap();
        self.machine.block(cpu);
        self.machine.settle();
    }

    /// Goes on until that moment.
    fn until(&mut self, end: u64) {
        while self.machine.now < end {
            for (line, core) in self.lines.iter_mut().zip(&self.machine.cores) {
                let actor = core.current.and_then(|id| self.cast.iter().position(|other| *other == id));
                let letter = actor.map_or('.', |number| char::from(b'A' + number as u8));
                line.push(if core.urgent { letter } else { letter.to_ascii_lowercase() });
            }
            self.machine.advance(STEP);
        }
    }

    #[track_caller]
    fn shows(&self, expected: &[&str]) {
        let expected: Vec<String> = expected.iter().map(|line| line.replace('|', "")).collect();
        assert_eq!(self.lines, expected);
    }
}

#[test]
fn three_equals_take_turns() {
    let mut film = Film::new(1);
    for _ in 0..3 {
        let id = film.robin(10, 1);
        film.wake(id);
    }
    film.until(700);
    film.shows(&["AAAAAAAAAA|BBBBBBBBBB|CCCCCCCCCC|AAAAAAAAAA|BBBBBBBBBB|CCCCCCCCCC|AAAAAAAAAA"]);
}

#[test]
fn a_preempted_thread_goes_on_where_it_was() {
    let mut film = Film::new(1);
    let [a, b, urgent] = [10, 10, 20].map(|priority| film.robin(priority, 1));
    film.wake(a);
    film.wake(b);
    film.until(50);
    film.wake(urgent);
    film.until(80);
    film.block(urgent);
    film.until(250);
    // A has the rest of its slice first.
    film.shows(&["AAAAA|CCC|AAAAA|BBBBBBBBBB|AA"]);
}

/// A server (A) of 30 in 100 against a busy thread (B) between its two priorities.
fn server(max_replenishments: u8) -> (Film, ThreadId) {
    let mut film = Film::new(1);
    let low = Priority::new(5).unwrap();
    let policy = Policy::Sporadic(Sporadic { low, max_replenishments, period: Ticks(100), budget: Ticks(30) });
    let a = film.thread(20, policy, 1, ShareId::SYSTEM);
    let b = film.robin(10, 1);
    film.wake(b);
    (film, a)
}

#[test]
fn a_busy_server_has_its_budget_in_each_period() {
    let (mut film, a) = server(4);
    film.wake(a);
    film.until(300);
    film.shows(&["AAABBBBBBB|AAABBBBBBB|AAABBBBBBB"]);
}

#[test]
fn a_server_without_budget_has_what_others_leave() {
    let (mut film, a) = server(4);
    film.wake(a);
    film.until(50);
    film.block(film.cast[1]);
    film.until(200);
    film.shows(&["AAABB|aaaaa|AAAaaaaaaa"]);
}

#[test]
fn what_a_server_uses_comes_back_a_period_after_it_was_activated() {
    let (mut film, a) = server(4);
    film.until(20);
    film.wake(a); // at 20: 10 used, due at 120
    film.until(30);
    film.block(a);
    film.until(60);
    film.wake(a); // at 60: 20 used, due at 160
    film.until(300);
    film.shows(&["BBABBBAABB|BBABBBAABB|BBABBBAABB"]);
}

#[test]
fn a_server_with_one_replenishment_waits_for_it() {
    let (mut film, a) = server(1);
    film.wake(a);
    film.until(10);
    film.block(a); // 10 used, due at 100: one is pending, so
    film.until(20);
    film.wake(a); // it is not urgent, though 20 are left
    film.until(140);
    film.shows(&["ABBBBBBBBB|AAAB"]);
}

#[test]
fn a_server_that_was_kept_waiting_gets_nothing_back_early() {
    let (mut film, a) = server(4);
    let urgent = film.robin(30, 1);
    film.wake(urgent);
    film.wake(a); // ready at 0, runs from 80: by POSIX due at 100, and two budgets in a row
    film.until(80);
    film.block(urgent);
    film.until(220);
    film.shows(&["CCCCCCCCAA|ABBBBBBBAA|AB"]);
}

#[test]
fn two_shares_under_load_then_one_idle() {
    let mut film = Film::new(1);
    let [most, rest] = [75, 25].map(|percent| film.machine.scheduler.define_share(percent, Ticks(WINDOW)).unwrap());
    let a = film.thread(10, Policy::RoundRobin, 1, most);
    // Of a higher priority: it goes first as long as its share has time left.
    let b = film.thread(20, Policy::RoundRobin, 1, rest);
    film.wake(a);
    film.wake(b);
    let (early, late) = (WINDOW, 2 * WINDOW);
    film.until(early);
    film.until(late + 600);
    film.block(a);
    film.until(late + 900);
    let b_of = |from: u64, to: u64| {
        let line = &film.lines[0][(from / STEP) as usize..(to / STEP) as usize];
        line.matches('B').count() as u64 * STEP
    };
    assert_eq!((b_of(0, early), b_of(early, late)), (500, 500));
    let line = &film.lines[0];
    // A quarter of the window at once, and again when the window has passed it; alone it has everything.
    let quarter = ["B".repeat(50), "A".repeat(150)].concat();
    assert_eq!(*line, [quarter.clone(), quarter, "B".repeat(50), "A".repeat(10), "B".repeat(30)].concat());
}

#[test]
fn floating_threads_go_to_idle_cpus_and_pinned_ones_stay() {
    let mut film = Film::new(2);
    let [a, b] = [10, 10].map(|priority| film.robin(priority, 0b11));
    let pinned = film.robin(20, 0b01);
    film.wake(a);
    film.until(50);
    film.wake(b);
    film.until(100);
    film.block(b);
    film.until(120);
    film.wake(pinned); // pushes A to CPU 1
    film.until(200);
    film.wake(b); // waits: CPU 0 is C's, CPU 1 takes turns
    film.until(350);
    film.block(pinned);
    film.until(450);
    film.shows(&[
        "AAAAAAAAAA|AACCCCCCCC|CCCCCCCCCC|CCCCCBBBBB|BBBBB",
        ".....BBBBB|..AAAAAAAAAA|BBBBBBBBBB|AAAAAAAAAAAAA",
    ]);
}
