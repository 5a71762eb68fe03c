//! Who may interrupt whom.
//!
//! IHI 0069, section 4.8 (interrupt prioritization).

use guest_rt::gic::{self, Bank, Gic};
use guest_rt::machine::Machine;
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal};

use super::{free_spis, next, silence};
use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "gic: the priority mask reads back", run: mask_reads_back },
    Test { name: "gic: the priority mask holds back what is not urgent enough", run: mask_holds_back },
    Test { name: "gic: a more urgent interrupt preempts, an equal or lesser does not", run: preemption },
    Test { name: "gic: eight interrupts nest and end in reverse", run: nesting },
    Test { name: "gic: the binary point keeps neighbours from preempting", run: binary_point },
    Test { name: "gic: a priority changed while pending counts", run: changed_while_pending },
];

fn mask_reads_back(machine: &'static Machine) -> Outcome {
    stage::clean_gic(machine);
    for mask in [0x00, 0x10, 0x80, 0xf0] {
        gic::set_priority_mask(mask);
        check_equal!(gic::priority_mask() & 0xf0, mask, "ICC_PMR_EL1");
    }
    gic::set_priority_mask(0xff);
    check!(gic::priority_mask() >= 0xf0, "ICC_PMR_EL1 opens to {:#x} only", gic::priority_mask());
    Ok(())
}

/// Some SPIs with the given priorities, enabled.
fn spis<const COUNT: usize>(machine: &Machine, gic: Gic, priorities: [u8; COUNT]) -> Result<[u32; COUNT], Verdict> {
    let mut found = [0; COUNT];
    let mut free = free_spis(machine, gic);
    for (slot, priority) in found.iter_mut().zip(priorities) {
        *slot = free.next().ok_or(Verdict::Skip("too few shared interrupts"))?;
        gic.set_edge(*slot, true);
        gic.set_priority(*slot, priority);
        gic.enable(*slot);
    }
    Ok(found)
}

fn mask_holds_back(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let [intid] = spis(machine, gic, [0x80])?;
    // Equal is not enough.
    for (mask, comes) in [(0x40, false), (0x80, false), (0x90, true)] {
        gic::set_priority_mask(mask);
        gic.set(Bank::Pending, intid);
        if comes {
            check_equal!(next(), Some(intid), "acknowledged");
            gic::end(intid);
        } else {
            silence()?;
        }
    }
    gic::set_priority_mask(0xff);
    silence()
}

fn preemption(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let [middle, equal, lesser, urgent] = spis(machine, gic, [0x80, 0x80, 0xc0, 0x40])?;
    gic.set(Bank::Pending, middle);
    check_equal!(next(), Some(middle), "acknowledged");
    check_equal!(gic::running_priority(), 0x80, "running priority");
    gic.set(Bank::Pending, equal);
    gic.set(Bank::Pending, lesser);
    let uncalled = silence();
    gic.set(Bank::Pending, urgent);
    let preempting = next();
    let priority = gic::running_priority();
    gic::end(urgent);
    gic::end(middle);
    uncalled?;
    check_equal!((preempting, priority), (Some(urgent), 0x40), "acknowledged, and running priority then");
    for intid in [equal, lesser] {
        check_equal!(next(), Some(intid), "acknowledged afterwards");
        gic::end(intid);
    }
    silence()
}

fn nesting(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    let levels = [0xe0, 0xc0, 0xa0, 0x80, 0x60, 0x40, 0x20, 0x00];
    let all = spis(machine, gic, levels)?;
    let mut came = [None; 8];
    for (intid, slot) in all.into_iter().zip(&mut came) {
        gic.set(Bank::Pending, intid);
        *slot = next();
    }
    let active = all.iter().filter(|intid| gic.is(Bank::Active, **intid)).count();
    let mut running = [0; 8];
    for (intid, slot) in all.into_iter().zip(&mut running).rev() {
        *slot = gic::running_priority();
        gic::end(intid);
    }
    check_equal!(came, all.map(Some), "acknowledged");
    check_equal!(running, levels, "running priorities on the way out");
    check_equal!(active, 8, "active at once");
    check_equal!(gic::running_priority(), 0xff, "running priority in the end");
    silence()
}

fn binary_point(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    // Group priority: bits 7 and 6 only. 0x80 and 0xa0 are one group, 0x40 is another.
    gic::set_binary_point(6);
    check_equal!(gic::binary_point(), 6, "ICC_BPR1_EL1");
    let [middle, neighbour, urgent] = spis(machine, gic, [0xb0, 0x80, 0x40])?;
    gic.set(Bank::Pending, middle);
    let first = next();
    gic.set(Bank::Pending, neighbour);
    let uncalled = silence();
    gic.set(Bank::Pending, urgent);
    let preempting = next();
    gic::end(urgent);
    gic::end(middle);
    let last = next();
    gic::end(neighbour);
    gic::set_binary_point(0);
    uncalled?;
    check_equal!(
        (first, preempting, last),
        (Some(middle), Some(urgent), Some(neighbour)),
        "acknowledged in this order"
    );
    silence()
}

fn changed_while_pending(machine: &'static Machine) -> Outcome {
    let gic = stage::clean_gic(machine);
    gic::set_priority_mask(0);
    let [one, two] = spis(machine, gic, [0x40, 0x80])?;
    gic.set(Bank::Pending, one);
    gic.set(Bank::Pending, two);
    gic.set_priority(one, 0xc0);
    gic::set_priority_mask(0xff);
    let first = next();
    first.into_iter().for_each(gic::end);
    let second = next();
    second.into_iter().for_each(gic::end);
    // A change takes effect on a pending interrupt in its own time (section 4.8): either order, but both come.
    check!(
        (first, second) == (Some(two), Some(one)) || (first, second) == (Some(one), Some(two)),
        "acknowledged {first:?} and {second:?}"
    );
    silence()
}
