//! The machine's SMMUs: what devices reach.
//!
//! Answers for: starting all of them before the first VM, with every stream refused; the thread that hears of faults; telling them of
//! changes to VMs' tables; what the shell reports. Does not answer for: steps and formats (`smmu`), registers (`drivers::smmuv3`), one
//! SMMU's state (`unit`), what `smmuman` is told (`configure`), which VM has which stream (`passed`), VMs' own SMMUs (`nested`).
//!
//! An SMMU that cannot confine devices is closed, and not used: what is behind it does no DMA. Whoever wants to give such a
//! device to somebody asks [`unit::Unit`] first, and is told why not.

mod configure;
mod nested;
mod passed;
mod unit;

pub(crate) use configure::configure;
pub(crate) use nested::{Handle, put_behind};
pub(crate) use passed::{give, open_doorbell, take_back};

use crate::startup::{self, PRIORITY};
use crate::thread::{self, Thread};
use alloc::sync::Arc;
use alloc::vec::Vec;
use host::shell::report::SmmuInfo;
use machine::Machine;
use pagetable::Stale;
use smmu::Walks;
use smmu::configuration::OnFault;
use spin::Once;
use types::{IntId, Ipa, Range, Ticks};
use unit::Unit;

/// How long the thread sleeps if nobody wakes it, in microseconds; if an SMMU has no interrupt; and if there is more, so that a
/// device that does nothing but fault leaves time to others.
const LOOK: u64 = 1_000_000;
const LOOK_OFTEN: u64 = 100_000;
const PAUSE: u64 = 10_000;

/// In the order of the device tree. There from before the first VM on.
static UNITS: Once<Vec<Unit>> = Once::new();

static THREAD: Once<Arc<Thread>> = Once::new();

fn units() -> &'static [Unit] {
    UNITS.get().map_or(&[], Vec::as_slice)
}

fn ticks(microseconds: u64) -> Ticks {
    el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(microseconds))
}

/// Starts them. Once, on the boot CPU, before there are other threads.
pub(crate) fn initialise(machine: &Machine) {
    let units = machine.smmus.iter().enumerate().map(|(number, smmu)| {
        let own = |master: &machine::Master| {
            let streams = master.streams.iter().filter(|stream| stream.smmu == number).map(|stream| stream.id);
            streams.chain(master.functions.as_ref().and_then(|functions| functions.highest(number))).max()
        };
        Unit::begin(number, smmu, machine.masters.iter().filter_map(own).max().unwrap_or(0))
    });
    let units = units.collect();
    UNITS.call_once(|| units);
}

/// From now on faults are told of. Once, when there can be threads.
pub(crate) fn start_thread() {
    if units().iter().all(|unit| !unit.works()) {
        return;
    }
    match thread::spawn("smmuman".into(), startup::host_parameters(PRIORITY), watch) {
        Ok(thread) => {
            THREAD.call_once(|| thread);
            units().iter().for_each(Unit::listen);
        }
        Err(error) => log::error!("no memory for the thread that hears of DMA faults ({error:?})"),
    }
}

/// An SMMU has raised its interrupt. Says whether this is one of an SMMU's.
pub(crate) fn interrupt(intid: IntId) -> bool {
    let is_own = units().iter().any(|unit| unit.has_interrupt(intid));
    if let Some(thread) = THREAD.get().filter(|_| is_own) {
        thread::notify(thread);
    }
    is_own
}

/// The hypervisor has failed: no device behind an SMMU does DMA any more. Takes no lock, and waits for nothing.
pub(crate) fn turn_off() {
    units().iter().for_each(Unit::turn_off);
}

/// Whether some SMMU does not see what is in CPUs' caches.
pub(crate) fn needs_cleaning() -> bool {
    units().iter().any(|unit| !unit.is_coherent())
}

/// Makes SMMUs (bit n is smmuN) forget `range` of the VM `vmid`, which has been taken out of its tables. Says whether all have. Waits
/// for each, within a limit, after which it is closed. `nested`: the VM has an SMMU of its own.
pub(crate) fn forget(numbers: u32, vmid: u16, range: Range<Ipa>, stale: Stale, nested: bool) -> bool {
    let walks = Walks { tables: stale == Stale::Tables, nested };
    let own = units().iter().enumerate().filter(|(number, _)| *number < 32 && numbers >> number & 1 == 1);
    own.fold(true, |all, (_, unit)| unit.forget(vmid, range, walks) && all)
}

/// The thread.
fn watch() {
    let has_interrupts = units().iter().all(|unit| unit.has_interrupts() || !unit.works());
    loop {
        let is_more = units().iter().fold(false, |is_more, unit| unit.look() | is_more);
        let pause = match (is_more, has_interrupts) {
            (true, _) => PAUSE,
            (false, true) => LOOK,
            (false, false) => LOOK_OFTEN,
        };
        let until = el2::cpu::counter().saturating_add(ticks(pause));
        thread::sleep_until(until);
        // Interrupts come while it waits; each is a reason to look, not to look at once.
        while is_more && el2::cpu::counter() < until {
            thread::sleep_until(until);
        }
    }
}

/// What becomes of a device that reaches too far.
fn on_fault() -> OnFault {
    configure::rules().on_fault
}

/// All of them.
pub(crate) fn report() -> Vec<SmmuInfo> {
    units().iter().map(Unit::report).collect()
}
