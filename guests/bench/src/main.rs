//! What the hypervisor costs, counted in instructions.
//!
//! Answers for: the lines `bench: NAME VALUE UNIT`, one for each thing measured. Does not answer for: budgets and verdicts
//! (`cargo xtask bench`).
//!
//! Meant for an emulator that executes one instruction a nanosecond of virtual time (QEMU `-icount shift=0,sleep=off`):
//! the counter then counts instructions, of all CPUs together, whoever executes them. Elsewhere the numbers are nanoseconds.
//! The image, the loops and the vectors are the same on a bare machine, and nothing is subtracted: what the same line says
//! there is the guest's own share.

#![no_std]
#![no_main]

mod accesses;
mod company;
mod doorbell;
mod edu;
mod interrupts;
mod measure;
mod nvme;
mod virtio_console;

use guest_rt::entry;
use guest_rt::machine::Machine;
use guest_rt::println;

entry!(main);

/// A thing to measure: prints its own lines.
struct Benchmark {
    name: &'static str,
    run: fn(&'static Machine),
    /// It runs only if it is named: it needs other VMs.
    in_company: bool,
}

const fn alone(name: &'static str, run: fn(&'static Machine)) -> Benchmark {
    Benchmark { name, run, in_company: false }
}

const fn in_company(name: &'static str, run: fn(&'static Machine)) -> Benchmark {
    Benchmark { name, run, in_company: true }
}

/// In the order of the budget table.
const BENCHMARKS: &[Benchmark] = &[
    alone("hypercall", accesses::hypercall),
    alone("unknown-hypercall", accesses::unknown_hypercall),
    alone("gicd-read", accesses::distributor_read),
    alone("gicr-read", accesses::redistributor_read),
    alone("vdev-read", accesses::vdev_read),
    alone("id-register", accesses::id_register),
    alone("ipi", interrupts::ipi),
    alone("wfi-ipi", interrupts::wfi_ipi),
    alone("irq-ack-eoi", interrupts::acknowledge_and_end),
    alone("timer-late", interrupts::timer_lateness_spinning),
    alone("timer-late-wfi", interrupts::timer_lateness_sleeping),
    alone("device-irq", interrupts::device_interrupt),
    alone("edu-irq-line", edu::by_line),
    alone("edu-irq-message", edu::by_message),
    alone("nvme-io", nvme::io),
    alone("uart-byte", accesses::uart_byte),
    alone("virtio-console-byte", virtio_console::byte),
    in_company("switch", company::switch),
    in_company("busy", company::busy),
    in_company("periodic", company::periodic),
    in_company("ring", doorbell::ring),
    in_company("answer", doorbell::answer),
];

fn main(machine: &'static Machine) {
    println!("bench: # counter {} Hz, {} CPUs", guest_rt::timer::frequency(), machine.cpus.len());
    interrupts::install(machine);
    let is_selected = |benchmark: &&Benchmark| {
        let mut words = machine.selection().peekable();
        (words.peek().is_none() && !benchmark.in_company) || words.any(|word| word == benchmark.name)
    };
    for benchmark in BENCHMARKS.iter().filter(is_selected) {
        measure::settle();
        (benchmark.run)(machine);
    }
    println!("bench: # done");
}
