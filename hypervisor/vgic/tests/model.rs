//! The interrupt controller against a model of the architecture.
//!
//! A small machine: vCPUs on CPUs with simulated virtual interfaces, devices that pulse and hold lines, guests that
//! acknowledge, end, mask, route and reconfigure, a kernel that switches vCPUs. Beside it a model that knows only the
//! architecture's state machine, without list registers. Whatever happens, in whatever order, the guest has to be signalled
//! exactly what the model says: nothing is lost, nothing comes twice, nothing comes before something more urgent.
//!
//! Every run is deterministic; a failure names its seed.

#[path = "model/architecture.rs"]
mod architecture;
#[path = "model/machine.rs"]
mod machine;

use machine::{Machine, Mode, Shape};

/// All the shapes of a machine that the tests run on, and how many interrupts each takes of `share`.
fn shapes() -> impl Iterator<Item = Shape> {
    [(1, 2, 2, 5), (2, 3, 2, 5), (4, 4, 4, 5), (1, 1, 1, 5), (3, 20, 3, 7), (16, 2, 1, 6)]
        .into_iter()
        .map(|(list_registers, vcpus, cpus, priority_bits)| Shape { list_registers, vcpus, cpus, priority_bits })
}

fn run(mode: Mode, interrupts: u64) -> u64 {
    let mut taken = 0;
    for shape in shapes() {
        for seed in 1..=3 {
            let mut machine = Machine::new(shape, mode, seed);
            while machine.taken() < interrupts {
                machine.step();
            }
            machine.drain();
            taken += machine.taken();
        }
    }
    taken
}

#[test]
fn the_guest_is_signalled_exactly_what_the_architecture_says() {
    run(Mode::Exact, 3_000);
}

#[test]
fn late_kicks_lose_nothing_of_a_million_interrupts() {
    // 1, 2, 3, 4 and 16 list registers, one vCPU and several, more vCPUs than CPUs.
    let taken = run(Mode::Late, 56_000);
    assert!(taken >= 1_000_000, "only {taken} interrupts were taken");
}
