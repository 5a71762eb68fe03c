//! What a device hears of its interrupt: `vdev faulty when ended how never`, of the board for tests, counts the ends, and sends
//! messages. `ended=ADDRESS` says where its registers are, `intr=INTID` what its interrupt is; without these all is skipped.
//!
//! What makes an interrupt inactive is in IHI 0069, "Interrupt handling state machine" and the descriptions of
//! `ICC_EOIR1_EL1`, `ICC_DIR_EL1` and `GICD_ICACTIVER<n>`; messages in those of `GICD_SETSPI_NSR` and `GICD_CLRSPI_NSR`.

use guest_rt::gic::{self, Bank, DEFAULT_PRIORITY, Gic};
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::mmu::{self, Kind};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check_equal, timer};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "ends: a device hears of each end of an edge, once", run: edges },
    Test { name: "ends: a device hears of each end of a level that stays high", run: level },
    Test { name: "ends: with a split end, the deactivation is the end", run: split },
    Test { name: "ends: an interrupt that software makes inactive has ended", run: by_software },
    Test { name: "ends: what is enabled while it is asserted is told", run: unmasked },
    Test { name: "ends: a device's messages raise SPIs, and reach nothing else", run: messages },
    Test { name: "ends: messages by the machine's ITS raise SPIs, where the machine has one", run: by_the_machine },
];

/// Registers of the device.
const LINE: usize = 0x10;
const ADDRESS: usize = 0x14;
const DATA: usize = 0x18;
const ENDS: usize = 0x1c;
const HOST: usize = 0x20;

/// Ends of an interrupt in a row.
const MANY: u32 = 500;
/// Long enough for an interrupt to come, or for an end to be heard of, in microseconds.
const LONG: u64 = 1_000_000;

struct Rig {
    device: Mmio,
    intid: u32,
    gic: Gic,
    /// How many ends there were when the test began.
    before: u32,
}

impl Rig {
    fn new(machine: &'static Machine, edge: bool) -> Result<Self, Verdict> {
        let (Some(at), Some(intid)) = (machine.numeric_argument("ended"), machine.numeric_argument("intr")) else {
            return Err(Verdict::Skip("no such device"));
        };
        // SAFETY: the arguments say that a device is there, and it is mapped just now.
        let device = unsafe { Mmio::new(mmu::reach(at, Kind::Device)) };
        let (gic, intid) = (stage::clean_gic(machine), intid as u32);
        gic.set_edge(intid, edge);
        gic.set_priority(intid, DEFAULT_PRIORITY);
        gic.enable(intid);
        Ok(Self { device, intid, gic, before: device.read(ENDS) })
    }

    fn raise(&self) {
        self.device.write(LINE, 1);
    }

    fn lower(&self) {
        self.device.write(LINE, 0);
    }

    fn take(&self) -> Outcome {
        take(self.intid)
    }

    /// The device has heard of so many ends since the test began, and hears of no more.
    fn heard(&self, ends: u32) -> Outcome {
        let heard = || self.device.read(ENDS).wrapping_sub(self.before);
        timer::wait_until(LONG, || heard() >= ends);
        timer::delay(100);
        check_equal!(heard(), ends, "ends that the device has heard of");
        Ok(())
    }
}

/// Waits for an interrupt, which is to be this one.
fn take(intid: u32) -> Outcome {
    let mut taken = None;
    timer::wait_until(LONG, || {
        taken = gic::acknowledge();
        taken.is_some()
    });
    check_equal!(taken, Some(intid), "acknowledged");
    Ok(())
}

fn edges(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine, true)?;
    for _ in 0..MANY {
        rig.raise();
        rig.lower();
        rig.take()?;
        gic::end(rig.intid);
    }
    rig.heard(MANY)?;
    // The second comes while the first is active.
    rig.raise();
    rig.lower();
    rig.take()?;
    rig.raise();
    rig.lower();
    rig.heard(MANY)?;
    gic::end(rig.intid);
    rig.take()?;
    rig.heard(MANY + 1)?;
    gic::end(rig.intid);
    rig.heard(MANY + 2)
}

fn level(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine, false)?;
    rig.raise();
    for _ in 0..MANY {
        rig.take()?;
        gic::end(rig.intid);
    }
    rig.take()?;
    rig.lower();
    gic::end(rig.intid);
    rig.heard(MANY + 1)?;
    check_equal!(gic::acknowledge(), None, "acknowledged when the line is low again");
    Ok(())
}

fn split(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine, true)?;
    gic::set_split_end(true);
    let outcome = (0..2).try_for_each(|round| {
        rig.raise();
        rig.lower();
        rig.take()?;
        gic::end(rig.intid);
        rig.heard(round)?;
        gic::deactivate(rig.intid);
        rig.heard(round + 1)
    });
    gic::set_split_end(false);
    outcome
}

fn by_software(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine, true)?;
    rig.gic.set(Bank::Active, rig.intid);
    rig.heard(0)?;
    rig.gic.clear(Bank::Active, rig.intid);
    rig.heard(1)?;
    rig.gic.clear(Bank::Active, rig.intid);
    rig.heard(1)?;
    rig.raise();
    rig.lower();
    rig.take()?;
    rig.gic.clear(Bank::Active, rig.intid);
    rig.heard(2)?;
    // The priority drops; there is nothing left to end.
    gic::end(rig.intid);
    rig.heard(2)
}

fn unmasked(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine, false)?;
    rig.gic.disable(rig.intid);
    rig.gic.enable(rig.intid);
    rig.gic.disable(rig.intid);
    rig.raise();
    rig.heard(0)?;
    rig.gic.enable(rig.intid);
    rig.heard(1)?;
    rig.take()?;
    rig.lower();
    gic::end(rig.intid);
    rig.heard(2)
}

fn messages(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine, true)?;
    let other = rig.intid + 32;
    let send = |address: u64, data: u32| {
        rig.device.write(ADDRESS, address as u32);
        rig.device.write(DATA, data);
    };
    rig.gic.set_edge(other, true);
    rig.gic.set_priority(other, DEFAULT_PRIORITY);
    rig.gic.enable(other);
    let distributor = machine.distributor.start;
    // A GICv2's frame raises none but its own.
    let (doorbell, raises_any) =
        machine.message_frame.map_or((distributor + 0x40, true), |frame| (frame + 0x40, false));
    for intid in [other, rig.intid, other].into_iter().filter(|intid| raises_any || *intid == other) {
        send(doorbell, intid);
        take(intid)?;
        gic::end(intid);
    }
    rig.heard(raises_any.into())?;
    if !raises_any {
        send(doorbell, rig.intid);
    }
    let enabled = rig.gic.distributor.read(gic::GICD_ISENABLER + 4);
    for (address, data) in [
        (doorbell, 1020),
        (doorbell, 3),
        (distributor + 0x50, other),
        (distributor + gic::GICD_ICENABLER as u64 + 4, u32::MAX),
        (machine.redistributors.start + 0x1_0200, u32::MAX),
        (machine.memory[0].start, other),
    ] {
        send(address, data);
    }
    timer::delay(100);
    check_equal!(gic::acknowledge(), None, "acknowledged");
    check_equal!(rig.gic.distributor.read(gic::GICD_ISENABLER + 4), enabled, "GICD_ISENABLER1");
    Ok(())
}

fn by_the_machine(machine: &'static Machine) -> Outcome {
    let rig = Rig::new(machine, true)?;
    // A GICv2 has no ITS beside it.
    if machine.message_frame.is_some() {
        return Ok(());
    }
    rig.device.write(ADDRESS, (machine.distributor.start + 0x40) as u32);
    for _ in 0..3 {
        rig.device.write(HOST, rig.intid);
        take(rig.intid)?;
        gic::end(rig.intid);
    }
    rig.heard(3)?;
    rig.device.write(HOST, 3);
    timer::delay(100);
    check_equal!(gic::acknowledge(), None, "acknowledged");
    Ok(())
}
