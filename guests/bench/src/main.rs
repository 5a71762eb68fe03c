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
mod interrupts;
mod measure;

use guest_rt::entry;
use guest_rt::machine::Machine;
use guest_rt::println;

entry!(main);

/// A thing to measure: prints its own lines.
struct Benchmark {
    name: &'static str,
    run: fn(&'static Machine),
}

/// In the order of the budget table.
const BENCHMARKS: &[Benchmark] = &[
    Benchmark { name: "hypercall", run: accesses::hypercall },
    Benchmark { name: "unknown-hypercall", run: accesses::unknown_hypercall },
    Benchmark { name: "gicd-read", run: accesses::distributor_read },
    Benchmark { name: "gicr-read", run: accesses::redistributor_read },
    Benchmark { name: "vdev-read", run: accesses::vdev_read },
    Benchmark { name: "id-register", run: accesses::id_register },
    Benchmark { name: "ipi", run: interrupts::ipi },
    Benchmark { name: "wfi-ipi", run: interrupts::wfi_ipi },
    Benchmark { name: "irq-ack-eoi", run: interrupts::acknowledge_and_end },
    Benchmark { name: "timer-late", run: interrupts::timer_lateness_spinning },
    Benchmark { name: "timer-late-wfi", run: interrupts::timer_lateness_sleeping },
    Benchmark { name: "uart-byte", run: accesses::uart_byte },
];

fn main(machine: &'static Machine) {
    println!("bench: # counter {} Hz, {} CPUs", guest_rt::timer::frequency(), machine.cpus.len());
    interrupts::install();
    let is_selected = |benchmark: &&Benchmark| {
        let mut words = machine.selection().peekable();
        words.peek().is_none() || words.any(|word| word == benchmark.name)
    };
    for benchmark in BENCHMARKS.iter().filter(is_selected) {
        measure::settle();
        (benchmark.run)(machine);
    }
    println!("bench: # done");
}
