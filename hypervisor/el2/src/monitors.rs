//! The performance monitors, as the loaded vCPU has them.
//!
//! Trapped until they are used (`MDCR_EL2.TPM`, `.TPMCR`), then the guest's alone until its vCPU leaves: what is here runs
//! when a vCPU comes or goes, never on an exit. Counting stops at EL2 by `MDCR_EL2.HPMD` and `.HCCD` where there are such bits,
//! before that by the filters, which are cleaned when a vCPU comes. DDI 0487, "The Performance Monitors Extension".

use aarch64_cpu::asm::barrier;

/// Event counters that there can be.
const COUNTERS: usize = 31;

/// `PMCR_EL0.E`, without which nothing counts.
const E: u64 = 1;
/// `PMCR_EL0.P` and `.C`: writing them resets counters.
const RESETS: u64 = 0b110;
/// `PMEVTYPER<n>_EL0` and `PMCCFILTR_EL0`: `P`, `U`, `NSK`, `NSU` and the event. What counts at EL2 (`NSH`), at EL3, and for
/// other threads of the core (`MT`) is not a guest's to choose.
const FILTER: u64 = 0xf000_ffff;
/// All counters, in `PMCNTENCLR_EL0` and its kin.
const ALL: u64 = 0xffff_ffff;

/// One vCPU's monitors.
#[derive(Clone, Debug)]
pub struct Monitors {
    control: u64,
    select: u64,
    user: u64,
    enabled: u64,
    interrupts: u64,
    overflows: u64,
    cycles: u64,
    cycle_filter: u64,
    /// Event and count.
    events: [(u64, u64); COUNTERS],
}

fn counters() -> u64 {
    (read_register!("pmcr_el0") >> 11) & 0x1f
}

/// Selects a counter for `PMXEVTYPER_EL0` and `PMXEVCNTR_EL0`.
fn select(counter: u64) {
    write_register!("pmselr_el0", counter);
    barrier::isb(barrier::SY);
}

impl Monitors {
    /// Nothing counts.
    #[must_use]
    pub const fn reset() -> Self {
        Self {
            control: 0,
            select: 0,
            user: 0,
            enabled: 0,
            interrupts: 0,
            overflows: 0,
            cycles: 0,
            cycle_filter: 0,
            events: [(0, 0); COUNTERS],
        }
    }

    /// Whether anything counts.
    #[must_use]
    pub const fn count(&self) -> bool {
        self.control & E != 0 && self.enabled != 0
    }

    /// Takes them out of the CPU, where nothing counts then and nobody reaches them.
    pub fn save(&mut self) {
        self.enabled = read_register!("pmcntenset_el0");
        self.interrupts = read_register!("pmintenset_el1");
        self.control = read_register!("pmcr_el0") & !RESETS;
        self.select = read_register!("pmselr_el0");
        self.user = read_register!("pmuserenr_el0");
        write_register!("pmcntenclr_el0", ALL);
        barrier::isb(barrier::SY);
        self.overflows = read_register!("pmovsset_el0");
        self.cycles = read_register!("pmccntr_el0");
        self.cycle_filter = read_register!("pmccfiltr_el0");
        for (counter, event) in (0..counters()).zip(&mut self.events) {
            select(counter);
            *event = (read_register!("pmxevtyper_el0"), read_register!("pmxevcntr_el0"));
        }
        stop();
    }

    /// Puts them into the CPU, and lets the guest reach them.
    pub fn load(&self) {
        // Lengths of counters and the like first, for they decide what a write to a counter reaches.
        write_register!("pmcr_el0", self.control & !E);
        for (counter, (event, count)) in (0..counters()).zip(self.events) {
            select(counter);
            write_register!("pmxevtyper_el0", event & FILTER);
            write_register!("pmxevcntr_el0", count);
        }
        write_register!("pmselr_el0", self.select);
        write_register!("pmccntr_el0", self.cycles);
        write_register!("pmccfiltr_el0", self.cycle_filter & FILTER);
        write_register!("pmuserenr_el0", self.user);
        write_register!("pmovsset_el0", self.overflows);
        write_register!("pmintenset_el1", self.interrupts);
        write_register!("pmcntenset_el0", self.enabled);
        write_register!("pmcr_el0", self.control);
        trap(false);
    }
}

/// Whether the CPU has monitors of the architecture's kind.
#[must_use]
pub fn are_there() -> bool {
    !matches!((read_register!("id_aa64dfr0_el1") >> 8) & 0xf, 0 | 0xf)
}

/// Nothing counts, nothing is pending, and a guest's use traps. The CPU has monitors.
pub fn stop() {
    trap(true);
    write_register!("pmuserenr_el0", 0);
    write_register!("pmcntenclr_el0", ALL);
    write_register!("pmintenclr_el1", ALL);
    write_register!("pmovsclr_el0", ALL);
    write_register!("pmcr_el0", 0);
}

fn trap(trap: bool) {
    /// TPM, TPMCR.
    const MONITORS: u64 = 1 << 6 | 1 << 5;
    let others = read_register!("mdcr_el2") & !MONITORS;
    write_register!("mdcr_el2", if trap { others | MONITORS } else { others });
}
