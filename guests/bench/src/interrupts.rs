//! Interrupts: between CPUs, of the timer, and the price of taking one.
//!
//! Answers for: the measured interrupt path (`vectors.S`) and for timing from the cause to what the handler saw. Does not
//! answer for: how other interrupts would be handled; none is enabled.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest_rt::gic::{self, DEFAULT_PRIORITY, Gic, SgiTarget};
use guest_rt::machine::{self, MAX_CPUS, Machine};
use guest_rt::mmio::Mmio;
use guest_rt::mmu::{self, Kind};
use guest_rt::registers::{affinity, cpu, dsb, isb, relax, wfi, with_irq};
use guest_rt::timer::{self, Timer};
use guest_rt::{cpus, mrs, msr, println};

use crate::measure::{REPETITIONS, report, shift_phase, stamp};

global_asm!(include_str!("vectors.S"));

/// What the handler leaves: the counter on entry and the INTID. A cache line for each CPU; `vectors.S` knows the layout.
#[repr(C, align(64))]
pub(crate) struct Seen {
    at: AtomicU64,
    intid: AtomicU64,
}

/// What `Seen::intid` says before an interrupt has come.
const NOTHING: u64 = !0;
const SGI: u32 = 1;
/// Asks a CPU that waits for SGIs to go home.
const GO_HOME: u64 = 15;

#[unsafe(no_mangle)]
static BENCH_SEEN: [Seen; MAX_CPUS] =
    [const { Seen { at: AtomicU64::new(0), intid: AtomicU64::new(NOTHING) } }; MAX_CPUS];

unsafe extern "C" {
    fn bench_vectors();
    fn bench_vectors_v2();
}

/// The CPU interface of a GICv2, for `vectors.S`; zero if there is none.
#[unsafe(no_mangle)]
static BENCH_INTERFACE: AtomicU64 = AtomicU64::new(0);

/// Uses the measured interrupt path on this CPU from now on.
pub(crate) fn install(machine: &Machine) {
    BENCH_INTERFACE.store(machine.cpu_interface.unwrap_or(0), Ordering::Relaxed);
    let vectors =
        if machine.cpu_interface.is_some() { bench_vectors_v2 as *const () } else { bench_vectors as *const () };
    // SAFETY: a complete vector table.
    unsafe { msr!("vbar_el1", vectors as u64) };
    isb();
}

impl Seen {
    /// This CPU's.
    pub(crate) fn here() -> &'static Self {
        &BENCH_SEEN[cpu()]
    }

    /// Whether nothing has come since the last [`Seen::forget`].
    pub(crate) fn is_nothing(&self) -> bool {
        self.intid.load(Ordering::Relaxed) == NOTHING
    }

    /// When what came was seen.
    pub(crate) fn at(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }

    pub(crate) fn forget(&self) {
        self.intid.store(NOTHING, Ordering::Relaxed);
        dsb();
    }

    /// Spins until the handler has run; an emulator with one host thread needs the hint to let the other CPU run.
    #[inline(always)]
    fn wait(&self) {
        while self.intid.load(Ordering::Relaxed) == NOTHING {
            relax();
        }
    }
}

/// How the CPU at the other end passes its time.
static SLEEPS: AtomicBool = AtomicBool::new(false);

/// Sleeps until an interrupt comes and takes it. Masked until awake: it cannot slip in before the WFI and be slept over.
#[inline(always)]
pub(crate) fn sleep() {
    wfi();
    with_irq(|| {});
}

/// Takes SGIs until told to go home.
fn receive(index: usize) {
    install(machine::machine());
    let seen = &BENCH_SEEN[index];
    let is_over = || seen.intid.load(Ordering::Relaxed) == GO_HOME;
    if SLEEPS.load(Ordering::Relaxed) {
        while !is_over() {
            sleep();
        }
    } else {
        with_irq(|| {
            while !is_over() {
                relax();
            }
        });
    }
}

/// From the write of `ICC_SGI1R_EL1`, or `GICD_SGIR`, until the sender sees that the receiver's handler has acknowledged it.
fn round_trips(target: usize, machine: &Machine, pause: u64) -> u64 {
    let receiver = SgiTarget::One(machine.cpus[target]);
    let (value, is_v2) = (gic::sgi_value(SGI, receiver), machine.cpu_interface.is_some());
    let seen = &BENCH_SEEN[target];
    let mut total = 0;
    for round in 0..REPETITIONS {
        seen.forget();
        if pause > 0 {
            timer::delay(pause);
        }
        shift_phase(round);
        let start = stamp();
        if is_v2 {
            gic::send_sgi(SGI, receiver);
        } else {
            // SAFETY: the CPU interface touches no memory.
            unsafe { msr!("S3_0_C12_C11_5", value) };
            isb();
        }
        seen.wait();
        total += stamp() - start;
        // Whatever the handler still has to do is not part of the next round.
        timer::delay(1);
    }
    total
}

fn between_cpus(name: &str, machine: &'static Machine, sleeps: bool, pause: u64) {
    if machine.cpus.len() < 2 {
        println!("bench: # {name}: needs two CPUs");
        return;
    }
    SLEEPS.store(sleeps, Ordering::Relaxed);
    BENCH_SEEN[1].forget();
    if let Err(error) = cpus::start(1, receive) {
        println!("bench: # {name}: CPU_ON answered {error}");
        return;
    }
    timer::delay(100);
    report(name, round_trips(1, machine, pause), REPETITIONS);
    BENCH_SEEN[1].forget();
    gic::send_sgi(GO_HOME as u32, SgiTarget::One(machine.cpus[1]));
    if !cpus::wait_off(1) {
        println!("bench: # {name}: CPU 1 did not go home");
    }
}

/// The receiver runs.
pub(crate) fn ipi(machine: &'static Machine) {
    between_cpus("ipi", machine, false, 0);
}

/// The receiver sleeps in WFI.
pub(crate) fn wfi_ipi(machine: &'static Machine) {
    between_cpus("wfi-ipi", machine, true, 20);
}

/// Four SGIs at a time, which any machine can hold ready; the clock runs only from the first acknowledge to the last end.
pub(crate) fn acknowledge_and_end(_machine: &'static Machine) {
    const BATCH: u32 = 4;
    let mut total = 0;
    for round in 0..REPETITIONS {
        (0..BATCH).for_each(|sgi| gic::send_sgi(sgi, SgiTarget::One(affinity())));
        // They are pending at the latest when the highest one shows.
        while gic::highest_pending() > 15 {
            relax();
        }
        shift_phase(round);
        let start = stamp();
        for _ in 0..BATCH {
            if let Some(intid) = gic::acknowledge() {
                gic::end(intid);
            }
        }
        total += stamp() - start;
    }
    report("irq-ack-eoi", total, REPETITIONS * u64::from(BATCH));
}

/// From the compare value to the handler's first instruction.
fn timer_lateness(name: &str, machine: &'static Machine, wait: fn(&Seen)) {
    const SHOTS: u64 = 20;
    const MICROSECONDS: u64 = 10_000;
    let gic = Gic::of(machine);
    let seen = &BENCH_SEEN[cpu()];
    gic.set_priority(Timer::Virtual.intid(), DEFAULT_PRIORITY);
    gic.enable(Timer::Virtual.intid());
    let (mut total, mut worst) = (0, 0);
    for round in 0..SHOTS {
        seen.forget();
        shift_phase(round);
        let due = timer::now() + timer::ticks(MICROSECONDS);
        Timer::Virtual.arm(due);
        wait(seen);
        let late = seen.at.load(Ordering::Relaxed) - due;
        total += late;
        worst = worst.max(late);
    }
    Timer::Virtual.stop();
    gic.disable(Timer::Virtual.intid());
    report(name, total, SHOTS);
    println!("bench: # {name}: worst of {SHOTS}: {} instructions", worst * 1_000_000_000 / mrs!("cntfrq_el0"));
}

/// From the store that raises a device's interrupt to its acknowledgement by a CPU that asks for nothing else: the match of a PL031, if
/// there is one. (The measured handler would leave its line high.)
pub(crate) fn device_interrupt(machine: &'static Machine) {
    const SHOTS: u64 = 20;
    const DR: usize = 0x00;
    const MR: usize = 0x04;
    const IMSC: usize = 0x10;
    const ICR: usize = 0x1c;
    let Some((registers, Some(intid))) = &machine.clock else { return };
    // SAFETY: the tree says that it is there, and it is mapped just now.
    let clock = unsafe { Mmio::new(mmu::reach(registers.start, Kind::Device)) };
    let (gic, intid) = (Gic::of(machine), *intid);
    gic.set_priority(intid, DEFAULT_PRIORITY);
    gic.set_edge(intid, false);
    gic.route(intid, affinity());
    gic.enable(intid);
    clock.write(ICR, 1);
    let (mut total, mut shots) = (0, 0);
    // The first is not counted: it may come to another CPU.
    for round in 0..=SHOTS {
        shift_phase(round);
        // It interrupts when this unmasks it; the match is a matter of the second.
        let now = clock.read(DR);
        clock.write(MR, now);
        if clock.read(DR) != now {
            continue;
        }
        let raised = timer::now();
        clock.write(IMSC, 1);
        while gic::acknowledge().is_none() {}
        if round > 0 {
            total += timer::now() - raised;
            shots += 1;
        }
        clock.write(IMSC, 0);
        clock.write(ICR, 1);
        gic::end(intid);
    }
    gic.disable(intid);
    report("device-irq", total, shots);
}

/// The CPU is busy meanwhile.
pub(crate) fn timer_lateness_spinning(machine: &'static Machine) {
    timer_lateness("timer-late", machine, |seen| {
        with_irq(|| while seen.intid.load(Ordering::Relaxed) == NOTHING {});
    });
}

/// The CPU sleeps meanwhile.
pub(crate) fn timer_lateness_sleeping(machine: &'static Machine) {
    timer_lateness("timer-late-wfi", machine, |seen| {
        while seen.intid.load(Ordering::Relaxed) == NOTHING {
            sleep();
        }
    });
}
