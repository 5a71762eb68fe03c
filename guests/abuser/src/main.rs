//! Does everything that a guest may not.
//!
//! Answers for: abuse, case after case, each bounded in time and none fatal to a guest that gets the architected answers.
//! Does not answer for: checking those answers (`selftest`); to survive, and not to disturb others, is the point.
//!
//! Arguments that are plain words select cases by their exact names; `seed=NUMBER` changes what is random. The cases that
//! are meant to end the VM run only if named, and the drivers that break rules only behind `virtio` ([`virtio`]).

#![no_std]
#![no_main]

mod addresses;
mod balloon;
mod devices;
mod ends;
mod firmware;
mod instructions;
mod interrupts;
mod processors;
mod random;
mod system_registers;
mod virtio;

use guest_rt::gic::Gic;
use guest_rt::machine::Machine;
use guest_rt::{console, entry, exceptions, println, timer};

use crate::random::Random;

entry!(main);

/// What a case gets to work with.
struct Abuse {
    machine: &'static Machine,
    random: Random,
    /// The case is to come to an end at this count of the virtual counter.
    deadline: u64,
}

/// Longest that a case may take, in microseconds.
const LIMIT: u64 = 1_500_000;

impl Abuse {
    fn is_over(&self) -> bool {
        timer::now() >= self.deadline
    }
}

struct Case {
    name: &'static str,
    /// Returns how many of whatever it does it did.
    run: fn(&mut Abuse) -> u64,
}

/// Those that leave a CPU behind come last.
const CASES: &[Case] = &[
    Case { name: "garbage-el0", run: instructions::garbage_at_el0 },
    Case { name: "garbage-el1", run: instructions::garbage_at_el1 },
    Case { name: "system-instructions", run: system_registers::instructions },
    Case { name: "register-reads", run: system_registers::reads },
    Case { name: "register-writes", run: system_registers::writes },
    Case { name: "set-way", run: system_registers::set_and_way },
    Case { name: "addresses", run: addresses::powers_of_two },
    Case { name: "pages", run: addresses::pages_around_devices },
    Case { name: "fetches", run: addresses::fetches },
    Case { name: "walks", run: addresses::walks },
    Case { name: "odd-accesses", run: instructions::odd_accesses },
    Case { name: "unaligned", run: addresses::unaligned },
    Case { name: "gic-registers", run: devices::gic },
    Case { name: "uart-registers", run: devices::uart },
    Case { name: "balloon", run: balloon::give_and_take },
    Case { name: "calls", run: firmware::calls },
    Case { name: "cpu-on", run: processors::cpu_on },
    Case { name: "sgi-flood", run: interrupts::sgi_flood },
    Case { name: "spi-flood", run: interrupts::spi_flood },
    Case { name: "timer-storm", run: interrupts::timer_storm },
    Case { name: "vector-loop", run: processors::vector_loop },
    Case { name: "sleep-for-ever", run: processors::sleep_for_ever },
];

/// Each ends the VM, if it does what it should: with code 5 and the registers, or with what becomes of `vdev faulty`, or of a
/// watchdog's guest.
const ENDS: &[Case] = &[
    Case { name: "nowhere", run: ends::nowhere },
    Case { name: "nowhere-walk", run: ends::nowhere_walk },
    Case { name: "faulty", run: ends::faulty },
    Case { name: "starve", run: ends::starve },
    Case { name: "balloon-all", run: balloon::give_all },
];

fn main(machine: &'static Machine) {
    let seed = machine.numeric_argument("seed").unwrap_or(0x1bad_b002);
    println!("abuser: seed {seed:#x}, {} CPUs", machine.cpus.len());
    restore(machine);
    if machine.has_argument("virtio") {
        return virtio::run(machine);
    }
    let is_named = |case: &Case| machine.selection().any(|word| word == case.name);
    let all = machine.selection().next().is_none();
    let mut count = 0;
    for case in CASES.iter().filter(|case| all || is_named(case)).chain(ENDS.iter().filter(|case| is_named(case))) {
        count += 1;
        println!("abuser: {count} {} ...", case.name);
        let deadline = timer::now() + timer::ticks(LIMIT);
        let done = (case.run)(&mut Abuse { machine, random: Random::new(seed), deadline });
        restore(machine);
        println!("abuser: {count} {}: {done}", case.name);
    }
    println!("abuser: survived {count} cases");
}

/// Interrupts to anybody are ignored, and do not come back.
fn ignore(_intid: u32) {
    timer::Timer::Virtual.stop();
    timer::Timer::Physical.stop();
}

/// The machine as a case finds it.
fn restore(machine: &'static Machine) {
    timer::Timer::Virtual.stop();
    timer::Timer::Physical.stop();
    // SAFETY: interrupts are masked on this CPU; others that still run do not take any.
    unsafe { exceptions::on_interrupt(ignore) };
    let gic = Gic::of(machine);
    gic.start_distributor();
    gic.start_cpu();
    if let Some((registers, _)) = &machine.uart {
        // SAFETY: the tree says that a PL011 is there.
        unsafe { console::open(registers.start as usize) };
    }
}
