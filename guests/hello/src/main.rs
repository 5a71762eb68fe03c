//! The smallest guest: says who and where it is, counts a few timer interrupts, and powers off.
//!
//! With the word `forever` among its arguments it stays, with a line every ten seconds, as company for other VMs; with
//! `ticks=NUMBER` it counts so many. `trace=ADDRESS` is where a `vdev trace` is that it tells of each.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gic::Gic;
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::registers::{unmask_irq, wfi};
use guest_rt::timer::{self, Timer};
use guest_rt::{entry, exceptions, mrs, println};

entry!(main);

/// Ticks to count before going home.
const TICKS: u64 = 5;
const TICK_MICROSECONDS: u64 = 100_000;
const HEARTBEAT_MICROSECONDS: u64 = 10_000_000;

/// The number of a tick's event.
const EVENT: usize = 2;

static COUNT: AtomicU64 = AtomicU64::new(0);
static PERIOD: AtomicU64 = AtomicU64::new(0);

fn main(machine: &'static Machine) {
    greet(machine);
    let forever = machine.has_argument("forever");
    let period = if forever { HEARTBEAT_MICROSECONDS } else { TICK_MICROSECONDS };
    PERIOD.store(timer::ticks(period), Ordering::Relaxed);

    // SAFETY: interrupts are still masked on this CPU, and no other runs.
    unsafe { exceptions::on_interrupt(tick) };
    Gic::of(machine).enable(Timer::Virtual.intid());
    Timer::Virtual.arm(timer::now() + PERIOD.load(Ordering::Relaxed));
    unmask_irq();

    let ticks = machine.numeric_argument("ticks").unwrap_or(TICKS);
    // SAFETY: whoever passes the address has put the registers of a `vdev trace` there.
    let trace = machine.numeric_argument("trace").map(|address| unsafe { Mmio::new(address as usize) });
    let mut seen = 0;
    while forever || seen < ticks {
        wfi();
        let count = COUNT.load(Ordering::Relaxed);
        if count != seen {
            seen = count;
            if let Some(trace) = trace {
                trace.write(8 * EVENT, count as u32);
            }
            println!("hello: tick {count} at {} ms", milliseconds());
        }
    }
    Timer::Virtual.stop();
    println!("hello: good-bye");
}

fn greet(machine: &Machine) {
    println!("Hello from EL{}.", mrs!("CurrentEL") >> 2 & 3);
    println!("  cpu      MPIDR {:#x}, MIDR {:#x}, {} in all", mrs!("mpidr_el1"), mrs!("midr_el1"), machine.cpus.len());
    println!("  counter  {} Hz, {} ms since start", timer::frequency(), milliseconds());
    for range in &machine.memory {
        println!("  memory   {:#x}..{:#x} ({} KiB)", range.start, range.end, (range.end - range.start) >> 10);
    }
    if !machine.arguments.is_empty() {
        println!("  told     {}", machine.arguments);
    }
}

fn milliseconds() -> u64 {
    timer::now() / (timer::frequency() / 1000).max(1)
}

/// Every interrupt is the timer's: the next one a period after this one was due.
fn tick(_intid: u32) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    Timer::Virtual.set_compare(Timer::Virtual.compare() + PERIOD.load(Ordering::Relaxed));
}
