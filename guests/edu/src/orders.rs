//! Orders, from the command line or the console.
//!
//! Answers for: their words and numbers, and carrying each out. An order that lacks a number, or has another word for one, is told and
//! left out. Does not answer for: words of the command line that are no orders.

use core::str::SplitWhitespace;

use arrayvec::ArrayString;
use guest_rt::edu::BUFFER_SIZE;
use guest_rt::{console, println, smccc, timer};

use crate::weapon::{SHOT, Weapon, says};
use crate::{balloon, tests};

/// Most shots of a sweep.
const SHOTS: usize = 4096;
/// In a loop, each of the first and then each so manieth is told.
const FIRST: u64 = 10;
const EACH: u64 = 100;
/// In a race: pages that are given back in a round, and how long before the device begins, in microseconds. It takes 100 ms to begin.
const GIVEN: u64 = 16;
const BEFORE: u64 = 95_000;
/// What a line on the console may have.
const LINE: usize = 80;

/// Words that are yet to be looked at.
pub(crate) struct Orders<'a> {
    words: SplitWhitespace<'a>,
}

impl<'a> Orders<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { words: text.split_whitespace() }
    }

    /// Carries out all of them.
    pub(crate) fn obey(mut self, weapon: &Weapon) {
        while let Some(word) = self.words.next() {
            if self.carry_out(word, weapon).is_none() {
                println!("edu: FAILED: `{word}` lacks a number");
            }
        }
    }

    fn carry_out(&mut self, word: &str, weapon: &Weapon) -> Option<()> {
        match word {
            "test" => tests::run(weapon),
            "sizes" => tests::sizes(weapon),
            "lines" => tests::lines(weapon),
            "write" => weapon.write(self.number(weapon)?, self.number(weapon)?),
            "read" => weapon.read(self.number(weapon)?),
            "sweep" => sweep(weapon, self.number(weapon)?, self.number(weapon)?, self.number(weapon)?),
            "again" => again(weapon, self.number(weapon)?, self.number(weapon)?),
            "last" => last(weapon, self.number(weapon)?, self.number(weapon)?),
            "stale" => self.stale(weapon),
            "race" => race(weapon, self.number(weapon)?),
            "wait" => timer::delay(self.number(weapon)?.saturating_mul(1000)),
            "listen" => listen(weapon),
            _ => {}
        }
        Some(())
    }

    /// The next word is one: a number, or a place in own memory.
    fn number(&mut self, weapon: &Weapon) -> Option<u64> {
        let word = self.words.next()?;
        match word.strip_prefix("0x") {
            _ if word == "own" => Some(weapon.target.start),
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        }
    }

    fn stale(&mut self, weapon: &Weapon) {
        let mut rest = Orders { words: self.words.clone() };
        let page = rest.number(weapon);
        if page.is_some() {
            self.words = rest.words;
        }
        let at = page.unwrap_or(weapon.target.start);
        // Whoever translates for the device knows the page then.
        weapon.write(at, SHOT);
        let given = match page {
            None => balloon::give(weapon.tree, at),
            Some(_) => {
                println!("edu: a line when {at:#x} is gone, please");
                line().is_some()
            }
        };
        println!("edu: {at:#x} is {}", if given { "given back" } else { "still there: FAILED" });
        weapon.write(at, SHOT);
    }
}

fn sweep(weapon: &Weapon, from: u64, to: u64, step: u64) {
    let (mut at, mut shots, mut done) = (from, 0, 0_u64);
    while shots < SHOTS {
        shots += 1;
        done += u64::from(weapon.shoot(at));
        // By offsets: the last one may be at the end of all addresses.
        let offset = (at - from).checked_add(step.max(1));
        match offset.filter(|offset| *offset <= to.wrapping_sub(from)) {
            Some(offset) => at = from.wrapping_add(offset),
            None => break,
        }
    }
    println!("edu: sweep {from:#x} {to:#x} {step:#x}: {shots} shots, {done} done, {} own bytes changed", weapon.hits());
}

/// Each round has pages of its own, none of which is touched again: what is in the balloon stays there. What the device does with those of the
/// round before is part of it, too: a translation that it has kept leads to a page that is somebody else's by now.
fn race(weapon: &Weapon, rounds: u64) {
    let (mut shots, mut given, mut last) = (0_u64, 0_u64, None);
    let places = weapon.spare.clone().step_by((GIVEN * BUFFER_SIZE) as usize);
    for start in places.take_while(|start| start + GIVEN * BUFFER_SIZE <= weapon.spare.end).take(rounds as usize) {
        let page = |number: u64| start + number * BUFFER_SIZE;
        // Each round another one is in the middle of it.
        let wanted = page((shots * 7 + 3) % GIVEN);
        weapon.edu.store(wanted, SHOT, false);
        timer::delay(BEFORE);
        given += (0..GIVEN).map(page).filter(|at| balloon::give(weapon.tree, *at)).count() as u64;
        shots += u64::from(weapon.edu.wait());
        for at in [Some(wanted), last].into_iter().flatten() {
            shots += u64::from(weapon.shoot(at));
        }
        last = Some(wanted);
    }
    println!("edu: race: {shots} shots, {given} pages given back, {} own bytes changed", weapon.hits());
}

fn again(weapon: &Weapon, at: u64, length: u64) -> ! {
    let length = length.max(SHOT);
    for round in 1_u64.. {
        // All of it, shot by shot.
        let done = weapon.shoot(at.wrapping_add((round - 1) * SHOT % length));
        if round <= FIRST || round % EACH == 0 {
            println!("edu: again {at:#x}: shot {round}, {}", says(done));
        }
    }
    smccc::system_off()
}

fn last(weapon: &Weapon, at: u64, length: u64) -> ! {
    println!("edu: last {at:#x} {length}: good-bye");
    weapon.edu.store(at, length, false);
    smccc::system_off()
}

fn listen(weapon: &Weapon) {
    println!("edu: orders, please");
    while let Some(line) = line() {
        if line.trim() == "end" {
            break;
        }
        Orders::new(&line).obey(weapon);
        println!("edu: obeyed");
    }
}

/// The next line of the console; none if there is no console. What is too long is cut.
fn line() -> Option<ArrayString<LINE>> {
    let mut line = ArrayString::new();
    console::registers()?;
    loop {
        match console::take() {
            Some(b'\r' | b'\n') => return Some(line),
            Some(byte) => drop(line.try_push(byte.into())),
            None => timer::doze(1000),
        }
    }
}
