//! Doorbells between VMs: from the store to `notify` until the other one's interrupt handler runs.
//!
//! Answers for: two VMs that share memory by a `vdev shmem`, one that rings and one that answers with when it heard. Does not
//! answer for: which CPUs they are on (`cargo xtask bench`). They agree on the time by the machine's counter: `set counter-offset
//! 0` shows it to both.

use core::sync::atomic::Ordering;

use guest_rt::gic::{DEFAULT_PRIORITY, Gic};
use guest_rt::machine::Machine;
use guest_rt::registers::{relax, with_irq};
use guest_rt::shmem::Region;
use guest_rt::{println, timer};

use crate::interrupts::{self, Seen};
use crate::measure::{report, shift_phase, stamp};

const FACTORY: u64 = 0x1c05_0000;
const INTID: u32 = 43;
const ROUNDS: u64 = 200;

/// Words of the region: the round that has been heard, and when; where the one that answers is there and listens.
const HEARD: usize = 0;
const WHEN: usize = 8;
const LISTENS: usize = 16;

fn attach() -> Option<Region> {
    match Region::attach(FACTORY, "doorbell", 1) {
        Ok(region) => Some(region),
        Err(status) => {
            println!("bench: # doorbell: not attached: status {status}");
            None
        }
    }
}

/// Rings, again and again, and sums how long it takes.
pub(crate) fn ring(_machine: &'static Machine) {
    let Some(region) = attach() else { return };
    let words = region.words();
    let (heard, when, listens) = (&words[HEARD], &words[WHEN], &words[LISTENS]);
    for (name, round) in ["doorbell", "doorbell-wfi"].into_iter().zip(1..) {
        while listens.load(Ordering::Acquire) != round {
            relax();
        }
        timer::delay(1000);
        let peer = region.others();
        let mut total = 0;
        for number in 1..=ROUNDS {
            shift_phase(number);
            let start = stamp();
            region.notify(peer);
            while heard.load(Ordering::Acquire) != number {
                relax();
            }
            total += when.load(Ordering::Relaxed) - start;
            timer::delay(20);
        }
        report(name, total, ROUNDS);
        heard.store(0, Ordering::Release);
    }
}

/// Answers: first while it is busy, then asleep.
pub(crate) fn answer(machine: &'static Machine) {
    let Some(region) = attach() else { return };
    let words = region.words();
    let gic = Gic::of(machine);
    gic.set_priority(INTID, DEFAULT_PRIORITY);
    // The handler only notes when it ran: the interrupt must not come again before its cause is read below.
    gic.set_edge(INTID, true);
    gic.enable(INTID);
    let _come_and_gone = region.news();
    let seen = Seen::here();
    for (round, sleeps) in [(1, false), (2, true)] {
        words[LISTENS].store(round, Ordering::Release);
        let mut number = 0;
        while number < ROUNDS {
            seen.forget();
            while seen.is_nothing() {
                if sleeps { interrupts::sleep() } else { with_irq(relax) }
            }
            if region.news() != 0 {
                number += 1;
                words[WHEN].store(seen.at(), Ordering::Relaxed);
                words[HEARD].store(number, Ordering::Release);
            }
        }
    }
    println!("bench: answers {}", 2 * ROUNDS);
    // Whoever rings has heard the last answer before the region could go.
    timer::delay(1000);
}
