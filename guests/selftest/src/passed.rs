//! The interrupt of a device that is the machine's own: a PL031, whose match interrupts at once if it is the time that it is.
//!
//! Skipped where there is none. With a `vdev pl031` it is that device's that is tested; to the hypervisor's tests it is one that is passed.
//!
//! PrimeCell Real Time Clock (PL031) Technical Reference Manual (DDI 0224), chapter 3; IHI 0069, "Interrupt handling state machine".

use guest_rt::gic::{self, Bank, DEFAULT_PRIORITY, Gic};
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::mmu::{self, Kind};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal, println, timer};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "passed: each interrupt of the device comes once", run: each_once },
    Test { name: "passed: a line that stays high interrupts again after the end, and not before", run: stays_high },
    Test { name: "passed: with a split end, the deactivation is the end", run: split },
    Test { name: "passed: an interrupt that software makes inactive has ended", run: by_software },
    Test { name: "passed: an interrupt that is disabled comes when it is enabled", run: disabled },
    Test { name: "held: the VM is ended while an interrupt is active and its line high", run: held },
    Test { name: "found: the device is as the last one who had it has left it", run: found },
];

const DR: usize = 0x00;
const MR: usize = 0x04;
const IMSC: usize = 0x10;
const RIS: usize = 0x14;
const ICR: usize = 0x1c;

/// Interrupts in a row.
const MANY: u32 = 500;
/// Long enough for an interrupt to come, in microseconds.
const LONG: u64 = 1_000_000;
/// Long enough to say that none comes.
const SHORT: u64 = 1_000;

struct Rig {
    clock: Mmio,
    intid: u32,
    gic: Gic,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.clock.write(IMSC, 0);
        self.lower();
        self.gic.disable(self.intid);
        // Whatever a test has left.
        self.gic.clear(Bank::Active, self.intid);
    }
}

impl Rig {
    fn new(machine: &'static Machine) -> Result<Self, Verdict> {
        let Some((registers, Some(intid))) = &machine.clock else { return Err(Verdict::Skip("no PL031")) };
        // SAFETY: the tree says that it is there, and it is mapped just now.
        let clock = unsafe { Mmio::new(mmu::reach(registers.start, Kind::Device)) };
        let (gic, intid) = (stage::clean_gic(machine), *intid);
        gic.set_edge(intid, false);
        gic.set_priority(intid, DEFAULT_PRIORITY);
        gic.enable(intid);
        clock.write(ICR, 1);
        clock.write(IMSC, 1);
        Ok(Self { clock, intid, gic })
    }

    /// Raises the line. A second that passes meanwhile may make that take another try.
    fn raise(&self) -> Outcome {
        let raised = (0..10).any(|_| {
            self.clock.write(MR, self.clock.read(DR));
            self.clock.read(RIS) & 1 != 0
        });
        check!(raised, "the match raises no interrupt");
        Ok(())
    }

    fn lower(&self) {
        self.clock.write(ICR, 1);
    }

    fn take(&self) -> Outcome {
        let mut taken = None;
        timer::wait_until(LONG, || {
            taken = gic::acknowledge();
            taken.is_some()
        });
        check_equal!(taken, Some(self.intid), "acknowledged");
        Ok(())
    }
}

fn silence() -> Outcome {
    timer::delay(SHORT);
    check_equal!(gic::acknowledge(), None, "acknowledged, and none should have come");
    Ok(())
}

fn each_once(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine)?;
    for _ in 0..MANY {
        rig.raise()?;
        rig.take()?;
        rig.lower();
        gic::end(rig.intid);
    }
    silence()
}

fn stays_high(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine)?;
    rig.raise()?;
    for _ in 0..MANY {
        rig.take()?;
        check_equal!(gic::acknowledge(), None, "acknowledged while it is active");
        gic::end(rig.intid);
    }
    rig.take()?;
    rig.lower();
    gic::end(rig.intid);
    silence()
}

fn split(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine)?;
    gic::set_split_end(true);
    let outcome = (0..2).try_for_each(|_| {
        rig.raise()?;
        rig.take()?;
        gic::end(rig.intid);
        silence()?;
        gic::deactivate(rig.intid);
        rig.take()?;
        rig.lower();
        gic::end(rig.intid);
        gic::deactivate(rig.intid);
        silence()
    });
    gic::set_split_end(false);
    outcome
}

fn by_software(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine)?;
    for _ in 0..3 {
        rig.raise()?;
        rig.take()?;
        rig.gic.clear(Bank::Active, rig.intid);
        // The priority drops; there is nothing left to end. The line is high still.
        gic::end(rig.intid);
        rig.take()?;
        rig.lower();
        gic::end(rig.intid);
        silence()?;
    }
    Ok(())
}

fn disabled(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine)?;
    rig.gic.disable(rig.intid);
    rig.raise()?;
    silence()?;
    rig.gic.enable(rig.intid);
    rig.take()?;
    rig.lower();
    gic::end(rig.intid);
    silence()
}

/// For whoever ends the VM then, and starts another one.
fn held(machine: &'static Machine) -> Outcome {
    if !machine.has_argument("held") {
        return Err(Verdict::Skip("nobody wants it"));
    }
    let rig = Rig::new(machine)?;
    rig.raise()?;
    rig.take()?;
    println!("# the interrupt is active");
    loop {
        timer::delay(LONG);
    }
}

/// What is in the registers before anything is written to them.
fn found(machine: &'static Machine) -> Outcome {
    let Some((registers, _)) = machine.clock.as_ref().filter(|_| machine.has_argument("found")) else {
        return Err(Verdict::Skip("nobody wants it"));
    };
    // SAFETY: the tree says that it is there, and it is mapped just now.
    let clock = unsafe { Mmio::new(mmu::reach(registers.start, Kind::Device)) };
    println!("# found mask {} status {}", clock.read(IMSC) & 1, clock.read(RIS) & 1);
    Ok(())
}
