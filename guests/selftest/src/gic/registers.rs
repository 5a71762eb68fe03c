//! The distributor's and redistributors' registers, as memory.
//!
//! IHI 0069, sections 12.8 to 12.11.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::exceptions::catch;
use guest_rt::gic::{
    self, Bank, GICD_ICFGR, GICD_IROUTER, GICD_ISENABLER, GICD_TYPER, GICR_TYPER, GICR_WAKER, Gic, PIDR2,
};
use guest_rt::machine::{Machine, machine};
use guest_rt::mmio::{Mmio, Width};
use guest_rt::registers::affinity;
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal, timer};

use super::free_spis;
use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "gic: every offset of the distributor answers, in any width", run: distributor_answers },
    Test { name: "gic: every offset of our redistributor answers, in any width", run: redistributor_answers },
    Test { name: "gic: all frames say that they are GICv3", run: architecture },
    Test { name: "gic: each CPU has a redistributor with its affinity, the last one is marked", run: redistributors },
    Test { name: "gic: enable bits can be set and cleared one by one", run: |machine| bits(machine, Bank::Enabled) },
    Test { name: "gic: pending bits can be set and cleared one by one", run: |machine| bits(machine, Bank::Pending) },
    Test { name: "gic: active bits can be set and cleared one by one", run: |machine| bits(machine, Bank::Active) },
    Test { name: "gic: priorities can be written by byte and read by word", run: priorities },
    Test { name: "gic: configuration bits can be written, those of SGIs cannot", run: configuration },
    Test { name: "gic: routing registers keep an affinity", run: routing },
    Test { name: "gic: interrupts that are not implemented are zero", run: not_implemented },
    Test { name: "gic: a redistributor goes to sleep and wakes up", run: waker },
];

/// Reads a window at every offset, words and doublewords where aligned, bytes and halfwords at every word.
fn sweep(window: Mmio, size: usize) -> Outcome {
    for width in Width::ALL {
        let step = width.bytes().max(4);
        let ((), trap) = catch(|| {
            for offset in (0..size).step_by(step) {
                let _ = window.read_width(offset, width);
            }
        });
        if let Some(trap) = trap {
            let offset = trap.address - window.address() as u64;
            return Err(Verdict::fail(format_args!("{width:?} at {offset:#x}: syndrome {:#x}", trap.syndrome)));
        }
    }
    Ok(())
}

fn distributor_answers(machine: &'static Machine) -> Outcome {
    sweep(Gic::of(machine).distributor, (machine.distributor.end - machine.distributor.start) as usize)
}

fn redistributor_answers(machine: &'static Machine) -> Outcome {
    stage::needs_gicv3(machine)?;
    sweep(Gic::of(machine).redistributor, 0x2_0000)
}

fn architecture(machine: &'static Machine) -> Outcome {
    stage::needs_gicv3(machine)?;
    let gic = Gic::of(machine);
    for frame in [gic.distributor, gic.redistributor] {
        let revision = frame.read(PIDR2) >> 4 & 0xf;
        check!(revision == 3 || revision == 4, "GICx_PIDR2.ArchRev is {revision}");
    }
    check!(gic.distributor.read(GICD_TYPER) & 0x1f > 0, "no shared interrupts");
    Ok(())
}

static TYPER: AtomicU64 = AtomicU64::new(0);
static AFFINITY: AtomicU64 = AtomicU64::new(0);

fn look(_index: usize) {
    TYPER.store(Gic::of(machine()).redistributor.read64(GICR_TYPER), Ordering::Relaxed);
    AFFINITY.store(affinity(), Ordering::Relaxed);
}

fn redistributors(machine: &'static Machine) -> Outcome {
    stage::needs_gicv3(machine)?;
    for index in 0..machine.cpus.len() {
        if index == 0 {
            look(0);
        } else {
            stage::run_on(index, look)?;
        }
        let (kind, affinity) = (TYPER.load(Ordering::Relaxed), AFFINITY.load(Ordering::Relaxed));
        check_equal!(kind >> 32, (affinity >> 8 & 0xff00_0000) | (affinity & 0xff_ffff), "GICR_TYPER affinity");
        check_equal!(kind >> 8 & 0xffff, index as u64, "GICR_TYPER processor number");
        check_equal!(kind >> 4 & 1, u64::from(index + 1 == machine.cpus.len()), "GICR_TYPER.Last");
    }
    Ok(())
}

fn bits(machine: &'static Machine, bank: Bank) -> Outcome {
    let gic = stage::clean_gic(machine);
    // Nothing is to be forwarded meanwhile, be it pending and enabled at once.
    for intid in free_spis(machine, gic) {
        gic.set(bank, intid);
        check!(gic.is(bank, intid), "{intid} is not set");
        gic.clear(bank, intid);
        check!(!gic.is(bank, intid), "{intid} is still set");
    }
    // Setting one leaves its neighbours alone, and writing zeros does nothing.
    let mut neighbours = free_spis(machine, gic);
    let (Some(one), Some(other)) = (neighbours.next(), neighbours.next()) else { return Ok(()) };
    gic.set(bank, one);
    gic.frame(one).write(GICD_ISENABLER + 4 * (one as usize / 32), 0);
    let result = (gic.is(bank, one), gic.is(bank, other));
    gic.clear(bank, one);
    check_equal!(result, (true, false), "two neighbours, of which one is set");
    Ok(())
}

fn priorities(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let first = free_spis(machine, gic).find(|intid| intid % 4 == 0).unwrap_or(32);
    for (number, value) in (0..).zip([0x10, 0x48, 0xa0, 0xf8]) {
        gic.set_priority(first + number, value);
    }
    let word = gic.distributor.read(gic::GICD_IPRIORITYR + first as usize);
    // At least the upper four bits are implemented, others read as zero.
    check_equal!(word & 0xf0f0_f0f0, 0xf0a0_4010, "four priorities");
    gic.distributor.write(gic::GICD_IPRIORITYR + first as usize, 0x2030_4050);
    check_equal!(gic.priority(first + 2), 0x30, "the third of four written as a word");
    for intid in [0, 15, 16, 27, 31] {
        gic.set_priority(intid, 0x60);
        check_equal!(gic.priority(intid), 0x60, "a private interrupt's");
    }
    stage::clean_gic(machine);
    Ok(())
}

fn configuration(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    for intid in free_spis(machine, gic) {
        for edge in [true, false] {
            gic.set_edge(intid, edge);
            check!(gic.is_edge(intid) == edge, "{intid} is edge-triggered: {}", !edge);
        }
    }
    let private = gic.private();
    let before = private.read(GICD_ICFGR);
    check_equal!(before, 0xaaaa_aaaa, "SGIs are edge-triggered");
    private.write(GICD_ICFGR, 0);
    check_equal!(private.read(GICD_ICFGR), before, "GICR_ICFGR0 after a write");
    Ok(())
}

fn routing(machine: &'static Machine) -> Outcome {
    stage::needs_gicv3(machine)?;
    let gic = stage::clean_gic(machine);
    for intid in free_spis(machine, gic) {
        let register = GICD_IROUTER + 8 * intid as usize;
        let target = machine.cpus[intid as usize % machine.cpus.len()];
        gic.route(intid, target);
        check_equal!(gic.distributor.read64(register), target, "GICD_IROUTER");
        check_equal!(gic.distributor.read(register), target as u32, "its lower half");
    }
    // Interrupt Routing Mode: any CPU.
    let Some(intid) = free_spis(machine, gic).next() else { return Ok(()) };
    gic.route(intid, gic::ANY);
    check_equal!(gic.distributor.read64(GICD_IROUTER + 8 * intid as usize) >> 31 & 1, 1, "GICD_IROUTER.IRM");
    stage::clean_gic(machine);
    Ok(())
}

fn not_implemented(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    // Private ones are not in the distributor if affinity routing is on; nor is what comes after the last SPI.
    let private = if machine.cpu_interface.is_none() { 0..1 } else { 0..0 };
    for word in private.chain(gic.words()..32) {
        for bank in [gic::GICD_ISENABLER, gic::GICD_ISPENDR, gic::GICD_ISACTIVER] {
            gic.distributor.write(bank + 4 * word, !0);
            check!(gic.distributor.read(bank + 4 * word) == 0, "register {:#x} keeps a value", bank + 4 * word);
        }
    }
    Ok(())
}

fn waker(machine: &'static Machine) -> Outcome {
    stage::needs_gicv3(machine)?;
    const PROCESSOR_SLEEP: u32 = 1 << 1;
    const CHILDREN_ASLEEP: u32 = 1 << 2;
    let gic = stage::clean_gic(machine);
    let asleep = || gic.redistributor.read(GICR_WAKER) & CHILDREN_ASLEEP != 0;
    gic.redistributor.write(GICR_WAKER, PROCESSOR_SLEEP);
    let falls_asleep = timer::wait_until(super::LONG, asleep);
    gic.redistributor.write(GICR_WAKER, 0);
    let wakes_up = timer::wait_until(super::LONG, || !asleep());
    stage::clean_gic(machine);
    check!(falls_asleep, "ChildrenAsleep does not follow ProcessorSleep");
    check!(wakes_up, "it stays asleep");
    Ok(())
}
