//! Checks the machine from inside.
//!
//! Answers for: one test for each promise that the architecture, or the hypervisor, makes to a guest; results as TAP. Does
//! not answer for: speed (`bench`), malice (`abuser`).
//!
//! Works with one to eight CPUs. Arguments that are plain words select tests by a part of their names. What only a
//! hypervisor promises is skipped on a bare machine. `rom=ADDRESS` names a page of ROM to look at, `counter=TICKS` says what
//! the counters are to begin with, `interrupts=N` how many are to be counted, `ended=ADDRESS` and `intr=INTID` where a device is that hears of the ends of its interrupt.

#![no_std]
#![no_main]

mod debugging;
mod devices;
mod ends;
mod exceptions;
mod firmware;
mod floating_point;
mod gic;
mod instructions;
mod memory;
mod monitors;
mod passed;
mod power;
mod recorder;
mod registers;
mod services;
mod stage;
mod timers;
mod transfers;
mod uart;

use guest_rt::machine::Machine;
use guest_rt::tap::{self, Test};
use guest_rt::{entry, println};

entry!(main);

/// Memory comes first: it wants to see RAM as it was.
const SUITES: &[&[Test]] = &[
    memory::TESTS,
    registers::TESTS,
    exceptions::TESTS,
    debugging::TESTS,
    instructions::TESTS,
    transfers::TESTS,
    firmware::TESTS,
    services::TESTS,
    power::TESTS,
    timers::TESTS,
    gic::registers::TESTS,
    gic::delivery::TESTS,
    gic::priority::TESTS,
    gic::routing::TESTS,
    gic::version2::TESTS,
    gic::lpis::TESTS,
    floating_point::TESTS,
    monitors::TESTS,
    uart::TESTS,
    devices::TESTS,
    ends::TESTS,
    passed::TESTS,
];

fn main(machine: &'static Machine) {
    println!("# selftest: {} CPUs, {}", machine.cpus.len(), if machine.is_bulkhead { "in a VM" } else { "bare" });
    stage::note_start();
    recorder::install();
    tap::run("selftest", machine, SUITES.iter().copied().flatten());
}
