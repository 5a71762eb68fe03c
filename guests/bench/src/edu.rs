//! QEMU's edu, if there is one: what its interrupts cost, which are a real device's.
//!
//! Answers for: from the store that has it interrupt to the acknowledgement by a CPU that asks for nothing else, by its line and by its message.
//! Does not answer for: DMA, which takes it the same time everywhere.

use guest_rt::edu::Edu;
use guest_rt::gic::{self, DEFAULT_PRIORITY, Gic};
use guest_rt::machine::Machine;
use guest_rt::registers::affinity;
use guest_rt::tree::Tree;
use guest_rt::{messages, timer};

use crate::measure::{report, shift_phase};

const SHOTS: u64 = 100;
const REASON: u32 = 1;

fn find(machine: &'static Machine) -> Option<(Edu, Tree)> {
    // SAFETY: where the boot protocol has put the tree, which nobody writes.
    let tree = unsafe { Tree::at(machine.tree.start as usize) }.ok()?;
    Edu::find(tree).map(|edu| (edu, tree))
}

fn measure(name: &str, edu: &Edu) {
    edu.acknowledge(u32::MAX);
    let (mut total, mut shots) = (0, 0);
    // The first is not counted: it may come to another CPU.
    for round in 0..=SHOTS {
        shift_phase(round);
        let raised = timer::now();
        edu.raise(REASON);
        let intid = loop {
            if let Some(intid) = gic::acknowledge() {
                break intid;
            }
        };
        if round > 0 {
            total += timer::now() - raised;
            shots += 1;
        }
        edu.acknowledge(REASON);
        gic::end(intid);
    }
    report(name, total, shots);
}

/// By its line.
pub(crate) fn by_line(machine: &'static Machine) {
    let Some((edu, tree)) = find(machine) else { return };
    let Some(intid) = edu.function.line(tree) else { return };
    let gic = Gic::of(machine);
    gic.set_priority(intid, DEFAULT_PRIORITY);
    gic.set_edge(intid, false);
    gic.route(intid, affinity());
    edu.function.set_message(None);
    edu.function.set_line(true);
    gic.enable(intid);
    measure("edu-irq-line", &edu);
    gic.disable(intid);
    edu.function.set_line(false);
}

/// By its message.
pub(crate) fn by_message(machine: &'static Machine) {
    let Some((edu, tree)) = find(machine) else { return };
    let Some(message) = messages::open(machine, tree, edu.function.device_id()) else { return };
    if edu.function.set_message(Some((message.address, message.data))) {
        measure("edu-irq-message", &edu);
    }
    edu.function.set_message(None);
}
