//! A test of the device, and of the weapon that it is.
//!
//! Answers for: a line for each thing: `edu: WHAT: ok` or `edu: WHAT: FAILED: …`. Nothing is skipped: a machine without messages fails that
//! one, unless the command line has the word `no-messages`.

use core::fmt;

use guest_rt::edu::{BUFFER_SIZE, BY_DMA, BY_FACTORIAL, Edu};
use guest_rt::gic::{self, Bank, DEFAULT_PRIORITY, Gic};
use guest_rt::{messages, println, timer};

use crate::weapon::{SHOT, Weapon};

/// Long enough for an interrupt to come, and to say that none comes; in microseconds.
const LONG: u64 = 2_000_000;
const SHORT: u64 = 1_000;
/// Interrupts in a row.
const MANY: u32 = 100;

/// What is wrong, and a number.
struct Complaint(&'static str, u64);

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:#x}", self.0, self.1)
    }
}

type Verdict = Result<(), Complaint>;

fn ensure(holds: bool, otherwise: &'static str, found: impl Into<u64>) -> Verdict {
    if holds { Ok(()) } else { Err(Complaint(otherwise, found.into())) }
}

/// All of them.
pub(crate) fn run(weapon: &Weapon) {
    tell("alive", alive(weapon));
    tell("dma", dma(weapon));
    tell("line", by_line(weapon));
    if !weapon.machine.has_argument("no-messages") {
        tell("message", by_message(weapon));
    }
}

/// Which sizes of accesses it takes: one after the other, each is an abort or none.
pub(crate) fn sizes(weapon: &Weapon) {
    let tell =
        |how: &str| println!("edu: sizes {how}: {:?}, it is {:#x}", weapon.edu.sizes(), weapon.edu.identification());
    tell("alone");
    if let Some(other) = weapon.edu.function.next(weapon.tree) {
        other.put_over(&weapon.edu.function, 0);
        // Whoever maps registers looks when somebody writes where they are.
        weapon.edu.function.put_over(&weapon.edu.function, 0);
        tell("below another");
    }
}

fn tell(what: &str, verdict: Verdict) {
    match verdict {
        Ok(()) => println!("edu: {what}: ok"),
        Err(complaint) => println!("edu: {what}: FAILED: {complaint}"),
    }
}

fn alive(weapon: &Weapon) -> Verdict {
    let edu = &weapon.edu;
    ensure(edu.identification() & 0xffff == 0x00ed, "it is none", edu.identification())?;
    for value in [0, 1, 0x1234_5678, u32::MAX] {
        ensure(edu.inverted(value) == !value, "its answer to a number is not the inversion", edu.inverted(value))?;
    }
    Ok(())
}

/// To own memory and from it: so many bytes change as were written, at the right place, and no others; and what is read is what is there.
fn dma(weapon: &Weapon) -> Verdict {
    let edu = &weapon.edu;
    weapon.hits();
    for (offset, length) in [(0, SHOT), (0x1_0008, 8), (0x2_0ff8, 16), (0x3_0000, BUFFER_SIZE)] {
        edu.store(weapon.target.start + offset, length, false);
        ensure(edu.wait(), "DMA does not end", length)?;
        let found = weapon.hits();
        // A byte of a bullet may be what was there: of many some.
        ensure(found <= length && found >= length - length / 16 - 1, "bytes changed", found)?;
    }
    // What the device reads it writes elsewhere: the pattern of another place.
    edu.load(weapon.target.start + 0x4_0000, SHOT, false);
    ensure(edu.wait(), "DMA does not end", SHOT)?;
    edu.store(weapon.target.start + 0x5_0000, SHOT, false);
    ensure(edu.wait(), "DMA does not end", SHOT)?;
    let copied = weapon.has(weapon.target.start + 0x4_0000, weapon.target.start + 0x5_0000);
    weapon.hits();
    ensure(copied, "what was read is not what was written", 0_u64)?;
    ensure(weapon.reload(), "the magazine is not read", 0_u64)
}

/// Waits for an interrupt for this reason, which is to be `intid`, and ends it.
fn take(edu: &Edu, intid: u32, reason: u32) -> Verdict {
    let mut taken = None;
    timer::wait_until(LONG, || {
        taken = gic::acknowledge();
        taken.is_some()
    });
    let Some(taken) = taken else { return Err(Complaint("no interrupt came, but should have for", reason.into())) };
    let reasons = edu.reasons();
    edu.acknowledge(reasons);
    gic::end(taken);
    ensure(taken == intid, "another interrupt came", taken)?;
    ensure(reasons == reason, "it came for another reason", reasons)
}

fn silence() -> Verdict {
    timer::delay(SHORT);
    match gic::acknowledge() {
        None => Ok(()),
        Some(intid) => {
            gic::end(intid);
            Err(Complaint("an interrupt came, and should not have", intid.into()))
        }
    }
}

/// All that it interrupts for, by whatever way.
fn all_reasons(weapon: &Weapon, intid: u32) -> Verdict {
    let edu = &weapon.edu;
    edu.acknowledge(edu.reasons());
    silence()?;
    for round in 0..MANY {
        edu.raise(1 << (round % 31));
        take(&weapon.edu, intid, 1 << (round % 31))?;
    }
    silence()?;
    edu.compute(10);
    take(&weapon.edu, intid, BY_FACTORIAL)?;
    ensure(edu.computed() == Some(3_628_800), "10! is", edu.computed().unwrap_or(0))?;
    edu.store(weapon.target.start, SHOT, true);
    take(&weapon.edu, intid, BY_DMA)?;
    ensure(weapon.hits() > 0, "DMA has changed nothing", 0_u64)?;
    silence()
}

fn by_line(weapon: &Weapon) -> Verdict {
    let gic = Gic::of(weapon.machine);
    let intid = weapon.edu.function.line(weapon.tree).ok_or(Complaint("the tree names no line", 0))?;
    gic.set_edge(intid, false);
    gic.set_priority(intid, DEFAULT_PRIORITY);
    weapon.edu.function.set_message(None);
    weapon.edu.function.set_line(true);
    gic.enable(intid);
    let verdict = all_reasons(weapon, intid).and_then(|()| stays_high(weapon, intid));
    weapon.edu.acknowledge(u32::MAX);
    weapon.edu.function.set_line(false);
    gic.disable(intid);
    gic.clear(Bank::Active, intid);
    verdict
}

/// A line that nobody has lowered interrupts again after the end.
fn stays_high(weapon: &Weapon, intid: u32) -> Verdict {
    weapon.edu.raise(2);
    for _ in 0..MANY {
        ensure(timer::wait_until(LONG, || gic::acknowledge() == Some(intid)), "it does not come again", intid)?;
        gic::end(intid);
    }
    take(&weapon.edu, intid, 2)?;
    silence()
}

/// Two of them, whose pins may be one for the machine: each has its own line here, and hears of itself.
pub(crate) fn lines(weapon: &Weapon) {
    tell("two lines", two_lines(weapon));
}

fn two_lines(weapon: &Weapon) -> Verdict {
    let first = weapon.edu;
    let second = first.next(weapon.tree).ok_or(Complaint("there is no second one", 0))?;
    let gic = Gic::of(weapon.machine);
    let line = |edu: &Edu| edu.function.line(weapon.tree).ok_or(Complaint("the tree names no line", 0));
    let both = [(first, line(&first)?), (second, line(&second)?)];
    for (edu, intid) in &both {
        edu.acknowledge(edu.reasons());
        gic.set_edge(*intid, false);
        gic.set_priority(*intid, DEFAULT_PRIORITY);
        edu.function.set_message(None);
        edu.function.set_line(true);
        gic.enable(*intid);
    }
    silence()?;
    for round in 0..MANY {
        let [(one, its), (other, others)] = if round % 2 == 0 { both } else { [both[1], both[0]] };
        one.raise(1);
        take(&one, its, 1)?;
        // Both, in whatever order they come: the second need not come before the first has ended.
        one.raise(2);
        other.raise(4);
        let mut left = [Some((one, its, 2)), Some((other, others, 4))];
        for _ in 0..2 {
            let mut taken = None;
            timer::wait_until(LONG, || {
                taken = gic::acknowledge();
                taken.is_some()
            });
            let is_it = |entry: &&mut Option<(Edu, u32, u32)>| entry.is_some_and(|(_, intid, _)| taken == Some(intid));
            let found = left.iter_mut().find(is_it).and_then(Option::take);
            let Some((edu, intid, reason)) = found else { return Err(Complaint("not both come", round.into())) };
            ensure(edu.reasons() == reason, "it came for another reason", edu.reasons())?;
            edu.acknowledge(reason);
            gic::end(intid);
        }
    }
    silence()
}

fn by_message(weapon: &Weapon) -> Verdict {
    let function = &weapon.edu.function;
    let message = messages::open(weapon.machine, weapon.tree, function.device_id());
    let message = message.ok_or(Complaint("nobody takes messages", 0))?;
    ensure(function.set_message(Some((message.address, message.data))), "it sends none", 0_u64)?;
    let verdict = all_reasons(weapon, message.intid);
    weapon.edu.acknowledge(u32::MAX);
    function.set_message(None);
    verdict
}
