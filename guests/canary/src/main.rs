//! A guest that notices each byte of its memory that somebody else has written.
//!
//! Answers for: filling all RAM but what it stands on with what the addresses say (`guest_rt::pattern`), looking at it again and again, a
//! line for each byte that has changed, and the counts. Does not answer for: who wrote it; its own timeliness (`guest-witness`).
//!
//! `rate=KIB` (1024) looked at in a millisecond; `report=ROUNDS` (0: never) between two lines of counts; `rounds=NUMBER` after which it
//! powers off. Whoever types a line gets the counts. `shoot=OFFSET` tests it: after the first round it has an edu, if there is one, write 16
//! bytes that far behind the start of what it looks at.

#![no_std]
#![no_main]

use core::ops::Range;

use guest_rt::edu::Edu;
use guest_rt::machine::Machine;
use guest_rt::tree::Tree;
use guest_rt::{console, entry, pattern, println, timer};

entry!(main);

const RATE: u64 = 1024;
const KIB: u64 = 1024;
/// Bytes that are told of in a round; the others are counted.
const TOLD: u64 = 32;
/// What is looked at between two looks at the clock.
const PART: u64 = 64 * KIB;
const MILLISECOND: u64 = 1000;
/// Bytes that the test writes.
const SHOT: u64 = 16;

/// What has been seen.
#[derive(Default)]
struct Counts {
    rounds: u64,
    changed: u64,
    told: u64,
}

fn main(machine: &'static Machine) {
    let argument = |name, default| machine.numeric_argument(name).unwrap_or(default);
    let rate = argument("rate", RATE).max(1) * KIB;
    let (report, rounds) = (argument("report", 0), argument("rounds", u64::MAX));
    let watched = pattern::spare(machine);
    for range in &watched {
        // SAFETY: RAM that nobody uses.
        unsafe { pattern::fill(range.clone()) };
    }
    let bytes: u64 = watched.iter().map(|range| range.end - range.start).sum();
    println!("canary: watches {} KiB", bytes / KIB);
    let mut counts = Counts::default();
    while counts.rounds < rounds {
        counts.told = 0;
        let mut left = rate;
        for part in watched.iter().flat_map(parts) {
            left = left.saturating_sub(part.end - part.start);
            counts.look(part);
            if left == 0 {
                left = rate;
                listen(&counts);
                timer::doze(MILLISECOND);
            }
        }
        counts.rounds += 1;
        if counts.told > TOLD {
            println!("canary: and {} more", counts.told - TOLD);
        }
        if report > 0 && counts.rounds % report == 0 {
            counts.tell();
        }
        if let (1, Some(offset)) = (counts.rounds, machine.numeric_argument("shoot")) {
            shoot(machine, &watched, offset);
        }
    }
    counts.tell();
}

impl Counts {
    fn look(&mut self, part: Range<u64>) {
        // SAFETY: RAM that nobody uses and that has been filled.
        self.changed += unsafe {
            pattern::check(part, |address, found, wanted| {
                self.told += 1;
                if self.told <= TOLD {
                    println!("canary: {address:#x} is {found:#04x}, not {wanted:#04x}");
                }
            })
        };
    }

    fn tell(&self) {
        println!("canary: {} rounds, {} bytes changed", self.rounds, self.changed);
    }
}

/// The range in parts.
fn parts(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.clone().step_by(PART as usize).map(move |start| start..end.min(start + PART))
}

/// Tells the counts for each line that has been typed.
fn listen(counts: &Counts) {
    while let Some(byte) = console::take() {
        if byte == b'\r' || byte == b'\n' {
            counts.tell();
        }
    }
}

fn shoot(machine: &Machine, watched: &[Range<u64>], offset: u64) {
    // SAFETY: where the boot protocol has put the tree, which nobody writes.
    let edu = unsafe { Tree::at(machine.tree.start as usize) }.ok().and_then(Edu::find);
    let (Some(edu), Some(first)) = (edu, watched.first()) else { return println!("canary: there is no edu") };
    edu.store(first.start + offset, SHOT, false);
    println!("canary: shot at {:#x}, {}", first.start + offset, if edu.wait() { "done" } else { "never done" });
}
