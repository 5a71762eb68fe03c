//! What only a GICv2 has: targets by CPU interface, and senders.
//!
//! IHI 0048, sections 4.3.12 (GICD_ITARGETSR<n>), 4.3.15 to 4.3.17 (GICD_SGIR, GICD_CPENDSGIR<n>, GICD_SPENDSGIR<n>) and 4.4.4
//! (GICC_IAR).

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gic::{self, Bank, GICD_TYPER, Gic, SgiTarget};
use guest_rt::machine::{Machine, machine};
use guest_rt::mmio::{Mmio, Width};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal};

use super::{an_spi, next, silence};
use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "gic: a GICv2 says how many CPUs there are, and each which of them it is", run: who },
    Test { name: "gic: targets are kept, but for CPUs that do not exist", run: targets },
    Test { name: "gic: an SGI from two CPUs is two interrupts, each with its sender", run: two_senders },
    Test { name: "gic: a frame for messages says which it takes, raises these and no others", run: frame },
    Test { name: "gic: a sender can be added and taken back", run: senders },
    Test { name: "gic: one sender's SGI ends without the other's", run: one_after_the_other },
];

const GICD_ITARGETSR: usize = 0x800;
const GICD_CPENDSGIR: usize = 0xf10;
const GICD_SPENDSGIR: usize = 0xf20;

/// What another CPU has seen.
static SEEN: AtomicU64 = AtomicU64::new(0);

fn needs_gicv2(machine: &Machine) -> Outcome {
    if machine.cpu_interface.is_some() { Ok(()) } else { Err(Verdict::Skip("only a GICv2 has that")) }
}

/// How this CPU sees itself among the targets.
fn own_bits() -> u64 {
    Gic::of(machine()).distributor.read_width(GICD_ITARGETSR, Width::Byte)
}

fn who(machine: &'static Machine) -> Outcome {
    needs_gicv2(machine)?;
    let gic = stage::clean_gic(machine);
    check_equal!(gic.distributor.read(0xfe8) >> 4 & 0xf, 2, "ICPIDR2.ArchRev");
    check_equal!(gic.distributor.read(GICD_TYPER) >> 5 & 7, machine.cpus.len() as u32 - 1, "GICD_TYPER.CPUNumber");
    // With one CPU nobody need choose.
    check_equal!(own_bits(), u64::from(machine.cpus.len() > 1), "our bit");
    if machine.cpus.len() > 1 {
        stage::run_on(1, |_| SEEN.store(own_bits(), Ordering::Relaxed))?;
        check_equal!(SEEN.load(Ordering::Relaxed), 2, "the bit of the second CPU");
    }
    Ok(())
}

fn targets(machine: &'static Machine) -> Outcome {
    needs_gicv2(machine)?;
    stage::needs_cpus(machine, 2)?;
    let gic = stage::clean_gic(machine);
    let intid = an_spi(machine, gic)?;
    let existing = (1 << machine.cpus.len()) - 1;
    for wanted in [0, 1, 2, 3, 0xff] {
        gic.distributor.write_width(GICD_ITARGETSR + intid as usize, Width::Byte, wanted);
        let kept = gic.distributor.read_width(GICD_ITARGETSR + intid as usize, Width::Byte);
        check_equal!(kept, wanted & existing, "targets");
    }
    // Without a target it waits.
    gic.distributor.write_width(GICD_ITARGETSR + intid as usize, Width::Byte, 0);
    gic.set(Bank::Pending, intid);
    silence()?;
    gic.distributor.write_width(GICD_ITARGETSR + intid as usize, Width::Byte, 1);
    check_equal!(next(), Some(intid), "acknowledged when it has a target");
    gic::end(intid);
    silence()
}

fn two_senders(machine: &'static Machine) -> Outcome {
    needs_gicv2(machine)?;
    stage::needs_cpus(machine, 2)?;
    stage::clean_gic(machine);
    stage::run_on(1, |_| gic::send_sgi(3, SgiTarget::One(guest_rt::machine::machine().cpus[0])))?;
    gic::send_sgi(3, SgiTarget::One(machine.cpus[0]));
    let mut senders = 0;
    for _ in 0..2 {
        check_equal!(next(), Some(3), "acknowledged");
        senders |= 1_u32 << gic::sender(3).unwrap_or(31);
        gic::end(3);
    }
    check_equal!(senders, 0b11, "senders, a bit each");
    silence()
}

/// GICv2m (DEN 0029): MSI_TYPER, MSI_SETSPI_NS.
fn frame(machine: &'static Machine) -> Outcome {
    let address = machine.message_frame.ok_or(Verdict::Skip("no frame for messages"))?;
    let gic = stage::clean_gic(machine);
    // SAFETY: the tree says that it is there; all that is not RAM is mapped as device memory.
    let frame = unsafe { Mmio::new(address as usize) };
    let (first, count) = (frame.read(0x008) >> 16 & 0x3ff, frame.read(0x008) & 0x3ff);
    check!(first >= 32 && count > 0 && first + count <= gic.intids(), "MSI_TYPER: {count} from {first} on");
    let last = first + count - 1;
    let beyond = [first - 1, last + 1, 0, 31].into_iter().filter(|intid| (32..gic.intids()).contains(intid));
    for intid in [first, last].into_iter().chain(beyond.clone()) {
        gic.set_edge(intid, true);
        gic.enable(intid);
    }
    for intid in [first, last] {
        frame.write(0x040, intid);
        check_equal!(next(), Some(intid), "acknowledged");
        gic::end(intid);
        silence()?;
    }
    for intid in beyond {
        frame.write(0x040, intid);
        silence()?;
    }
    stage::clean_gic(machine);
    Ok(())
}

fn senders(machine: &'static Machine) -> Outcome {
    needs_gicv2(machine)?;
    stage::needs_cpus(machine, 2)?;
    let gic = stage::clean_gic(machine);
    let byte = |register: usize| gic.distributor.read_width(register + 9, Width::Byte);
    gic::set_priority_mask(0);
    gic.distributor.write_width(GICD_SPENDSGIR + 9, Width::Byte, 0b11);
    check_equal!(byte(GICD_CPENDSGIR), 0b11, "GICD_CPENDSGIR2");
    gic.distributor.write_width(GICD_CPENDSGIR + 9, Width::Byte, 0b01);
    check_equal!(byte(GICD_SPENDSGIR), 0b10, "GICD_SPENDSGIR2");
    gic::set_priority_mask(0xff);
    check_equal!(next(), Some(9), "acknowledged");
    check_equal!(gic::sender(9), Some(1), "the sender that was left");
    gic::end(9);
    silence()
}

fn one_after_the_other(machine: &'static Machine) -> Outcome {
    needs_gicv2(machine)?;
    stage::needs_cpus(machine, 2)?;
    let gic = stage::clean_gic(machine);
    gic.distributor.write_width(GICD_SPENDSGIR + 4, Width::Byte, 0b10);
    check_equal!(next(), Some(4), "acknowledged");
    check_equal!(gic::sender(4), Some(1), "its sender");
    // Ours, in the meantime.
    gic.distributor.write_width(GICD_SPENDSGIR + 4, Width::Byte, 0b01);
    gic::end(4);
    check!(!gic.is(Bank::Active, 4), "it is still active after its end");
    check_equal!(next(), Some(4), "acknowledged again");
    check_equal!(gic::sender(4), Some(0), "the other sender");
    gic::end(4);
    silence()
}
