//! What several tests need before they can begin.
//!
//! Answers for: reasons to skip, a clean interrupt controller, running something on another CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::cpus::{self, Main};
use guest_rt::gic::Gic;
use guest_rt::machine::Machine;
use guest_rt::tap::{Outcome, Verdict};

use guest_rt::timer;

use crate::recorder;

static START: AtomicU64 = AtomicU64::new(0);

/// Keeps what the virtual counter says before any test takes time.
pub(crate) fn note_start() {
    START.store(timer::now(), Ordering::Relaxed);
}

/// What it said.
pub(crate) fn start_of_day() -> u64 {
    START.load(Ordering::Relaxed)
}

/// Skips the test unless there are `count` CPUs.
pub(crate) fn needs_cpus(machine: &Machine, count: usize) -> Outcome {
    if machine.cpus.len() >= count { Ok(()) } else { Err(Verdict::Skip("needs more CPUs")) }
}

/// Skips the test on a GICv2.
pub(crate) fn needs_gicv3(machine: &Machine) -> Outcome {
    if machine.cpu_interface.is_none() { Ok(()) } else { Err(Verdict::Skip("only a GICv3 has that")) }
}

/// Skips the test on a bare machine.
pub(crate) fn needs_hypervisor(machine: &Machine) -> Outcome {
    if machine.is_bulkhead { Ok(()) } else { Err(Verdict::Skip("only a hypervisor promises that")) }
}

/// The interrupt controller as if just started, nothing recorded.
pub(crate) fn clean_gic(machine: &Machine) -> Gic {
    let gic = Gic::of(machine);
    gic.start_distributor();
    gic.start_cpu();
    recorder::forget();
    gic
}

/// Runs `main` on CPU `index` until it returns.
pub(crate) fn run_on(index: usize, main: Main) -> Outcome {
    start(index, main)?;
    finish(index)
}

/// Starts `main` on CPU `index`.
pub(crate) fn start(index: usize, main: Main) -> Outcome {
    cpus::start(index, main).map_err(|code| Verdict::fail(format_args!("CPU_ON of CPU {index} answered {code}")))
}

/// Waits for what was started on CPU `index`.
pub(crate) fn finish(index: usize) -> Outcome {
    if cpus::wait_off(index) {
        Ok(())
    } else {
        Err(Verdict::fail(format_args!("CPU {index} did not switch itself off")))
    }
}

/// An address that nothing answers to in a VM: 64 KiB below its first RAM.
pub(crate) fn nowhere(machine: &Machine) -> u64 {
    machine.memory[0].start - 0x1_0000
}
