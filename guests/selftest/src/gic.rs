//! The interrupt controller.
//!
//! GIC architecture specification (IHI 0069). Except where a test is about other CPUs, it keeps interrupts masked and
//! acknowledges by itself: then what comes, and in which order, is exact.

pub(crate) mod delivery;
pub(crate) mod lpis;
pub(crate) mod priority;
pub(crate) mod registers;
pub(crate) mod routing;
pub(crate) mod version2;

use arrayvec::ArrayVec;
use guest_rt::gic::{self, Gic};
use guest_rt::machine::Machine;
use guest_rt::tap::{Outcome, Verdict};
use guest_rt::timer;

/// Long enough for a hypervisor to bring an interrupt, even on a busy host, in microseconds.
const LONG: u64 = 1_000_000;
/// Long enough to say that none comes.
const SHORT: u64 = 300;

/// Shared interrupts that belong to no device that might raise them meanwhile.
fn free_spis(machine: &Machine, gic: Gic) -> impl Iterator<Item = u32> {
    let uart = machine.uart.as_ref().and_then(|(_, intid)| *intid);
    (32..gic.intids()).filter(move |intid| Some(*intid) != uart)
}

/// The first of them, configured as edge-triggered and enabled.
fn an_spi(machine: &Machine, gic: Gic) -> Result<u32, Verdict> {
    let intid = free_spis(machine, gic).next().ok_or(Verdict::Skip("no shared interrupts"))?;
    gic.set_edge(intid, true);
    gic.enable(intid);
    Ok(intid)
}

/// Waits for the next interrupt and acknowledges it.
fn next() -> Option<u32> {
    let mut found = None;
    timer::wait_until(LONG, || {
        found = gic::acknowledge();
        found.is_some()
    });
    found
}

/// Whether nothing comes for a while.
fn silence() -> Outcome {
    let mut found = None;
    timer::wait_until(SHORT, || {
        found = gic::acknowledge();
        found.is_some()
    });
    match found {
        None => Ok(()),
        Some(intid) => {
            gic::end(intid);
            Err(Verdict::fail(format_args!("interrupt {intid} came, none should")))
        }
    }
}

/// Takes and ends `expected` interrupts and whatever comes soon after, in the order of arrival.
fn drain<const MOST: usize>(expected: usize) -> ArrayVec<u32, MOST> {
    let mut taken = ArrayVec::new();
    timer::wait_until(LONG, || {
        while let Some(intid) = gic::acknowledge() {
            gic::end(intid);
            // One too many is enough to fail; more than there are INTIDs need not be kept.
            let _ = taken.try_push(intid);
        }
        taken.len() >= expected
    });
    timer::delay(SHORT);
    while let Some(intid) = gic::acknowledge() {
        gic::end(intid);
        if taken.try_push(intid).is_err() {
            break;
        }
    }
    taken
}
