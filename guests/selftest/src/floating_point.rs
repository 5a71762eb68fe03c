//! SIMD and floating-point registers: a hypervisor may save them lazily, but it must not lose them.
//!
//! The image itself is compiled without them: what is in them is what we put there.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest_rt::exceptions::{catch, class};
use guest_rt::floating_point::{changed, fill, switch};
use guest_rt::gic::Gic;
use guest_rt::machine::{MAX_CPUS, Machine, machine};
use guest_rt::registers::wfi;
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::timer::{self, Timer};
use guest_rt::{check, check_equal, mrs, msr};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "fp: trapped by CPACR_EL1 when switched off", run: trapped },
    Test { name: "fp: registers survive sleep on one CPU", run: survive_sleep },
    Test { name: "fp: registers of all CPUs survive each other", run: survive_each_other },
    Test { name: "fp: a CPU that starts again starts clean", run: no_leak },
];

fn trapped(_machine: &'static Machine) -> Outcome {
    switch(false);
    let (_, trap) = catch(|| mrs!("S3_3_C4_C4_0")); // FPCR
    let trap = trap.ok_or_else(|| Verdict::fail(format_args!("no exception")))?;
    check_equal!(trap.class(), class::FP, "class");
    switch(true);
    let (_, trap) = catch(|| mrs!("S3_3_C4_C4_0"));
    switch(false);
    check_equal!(trap, None, "exception when switched on");
    Ok(())
}

static WRONG: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static DONE: AtomicUsize = AtomicUsize::new(0);
const ROUNDS: u64 = 20;

/// Fills all registers, sleeps, compares; again and again. Leaves how many comparisons failed.
fn exercise(index: usize) {
    let gic = Gic::of(machine());
    gic.enable(Timer::Virtual.intid());
    switch(true);
    let mut wrong = 0;
    for round in 0..ROUNDS {
        let seed = 0x0101_0101_0000_0000 * (index as u64 + 1) + (round << 8);
        fill(seed);
        let status = 0x0800_0010 | (round % 2);
        // SAFETY: only we use FPSR (cumulative flags).
        unsafe { msr!("S3_3_C4_C4_1", status) };
        Timer::Virtual.arm(timer::now() + timer::ticks(500));
        while !Timer::Virtual.is_due() {
            wfi();
        }
        Timer::Virtual.stop();
        wrong += changed(seed);
        wrong += u64::from(mrs!("S3_3_C4_C4_1") != status);
    }
    switch(false);
    gic.disable(Timer::Virtual.intid());
    WRONG[index].store(wrong, Ordering::Relaxed);
    DONE.fetch_add(1, Ordering::Release);
}

fn survive_sleep(machine: &'static Machine) -> Outcome {
    stage::clean_gic(machine);
    exercise(0);
    check_equal!(WRONG[0].load(Ordering::Relaxed), 0, "registers that changed");
    Ok(())
}

fn survive_each_other(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    stage::clean_gic(machine);
    for index in 1..machine.cpus.len() {
        stage::start(index, exercise)?;
    }
    exercise(0);
    for index in 1..machine.cpus.len() {
        stage::finish(index)?;
    }
    for (index, wrong) in WRONG.iter().enumerate().take(machine.cpus.len()) {
        let wrong = wrong.load(Ordering::Relaxed);
        check!(wrong == 0, "{wrong} registers of CPU {index} changed");
    }
    Ok(())
}

static LEFT_OVER: AtomicU64 = AtomicU64::new(0);
const SECRET: u64 = 0x5ec2_e75e_c2e7_0000;

/// What one owner leaves in a register file may be lost, but the next to start does not find another CPU's values there.
fn no_leak(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    stage::needs_cpus(machine, 2)?;
    switch(true);
    fill(SECRET);
    let outcome = stage::run_on(1, |_| {
        switch(true);
        LEFT_OVER.store(32 - changed(SECRET), Ordering::Relaxed);
        switch(false);
    });
    let ours = changed(SECRET);
    switch(false);
    outcome?;
    check_equal!(LEFT_OVER.load(Ordering::Relaxed), 0, "of our registers found on another CPU");
    check_equal!(ours, 0, "registers of ours that changed");
    Ok(())
}
