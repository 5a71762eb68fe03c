//! Devices of the machine that VMs have.
//!
//! Answers for: whose each is, handing their interrupts to the VM that has them, and reaching their registers for it (`registers`). Does not answer for: which can be passed
//! (`vm::assemble`, `host::ownership`), mapping their registers (`partition`), how the guest takes an interrupt (`vgic`).
//!
//! A level-sensitive interrupt stays active until the guest has ended it, and does not come again before: then it is masked at its
//! source. An interrupt arrives on some CPU, in whoever's thread; the VM's interrupt controller is left to one of its own vCPUs, since
//! nobody else may wait for its locks. See docs/design/037-pass.md.

mod registers;

pub(crate) use registers::{MOST as MOST_REGISTERS, Window};

use crate::compartment::{Compartment, kernel_work};
use crate::sync::{Lock, Rank};
use crate::{board, function, interrupt, smmuman, start, startup};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use host::ownership::Owners;
use machine::{Machine, Tree};
use types::{IntId, VmId};
use vdev::{Place, Way};
use vm::assemble::{
    AssembleError, Description, PassedDevice, PassedInterrupt, PassedRest, PassedStreams, Reach, Subject,
};

/// Where an interrupt goes.
struct Route {
    interrupt: PassedInterrupt,
    owner: VmId,
    /// Which of the VM's passed interrupts it is.
    number: u32,
    /// Until [`end`] has taken the route away.
    compartment: &'static Compartment,
}

struct Passed {
    /// Made when the first VM wants a device.
    owners: Option<Owners<VmId>>,
    routes: Vec<Route>,
}

static PASSED: Lock<Passed> = Lock::new(Rank::Passed, Passed { owners: None, routes: Vec::new() });

/// How many routes there are: most machines have none.
static ROUTES: AtomicUsize = AtomicUsize::new(0);

/// All interrupts that a VM gets, in the order of its configuration.
pub(crate) fn interrupts(description: &Description) -> impl Iterator<Item = &PassedInterrupt> {
    description.passed.iter().flat_map(|device| &device.interrupts)
}

fn owners(machine: &Machine) -> Owners<VmId> {
    let mut owners = Owners::of(machine);
    let devices = Tree::check(startup::tree()).map(|tree| tree.find_devices(&board::wanted()));
    for window in devices.into_iter().flatten().flatten() {
        owners.keep("the hypervisor, whose board has a driver for it,", window.registers, window.intid);
    }
    owners
}

/// All that the VM's configuration passes is the VM's from now on, or nothing of it is.
///
/// # Errors
/// What somebody has, by both names.
pub(crate) fn claim(compartment: &'static Compartment) -> Result<(), Vec<AssembleError>> {
    let description = &compartment.qvm.configuration.description;
    let Some(machine) = start::MACHINE.get().filter(|_| !description.passed.is_empty()) else { return Ok(()) };
    claim_all(machine, compartment, &description.passed)?;
    kernel_work(|| {
        let mut passed = PASSED.lock();
        let Passed { routes, .. } = &mut *passed;
        let own = interrupts(description).zip(0..);
        routes.extend(own.map(|(interrupt, number)| Route {
            interrupt: *interrupt,
            owner: compartment.id,
            number,
            compartment,
        }));
        ROUTES.store(routes.len(), Ordering::Relaxed);
        Ok::<(), Vec<AssembleError>>(())
    })?;
    reach(description)?;
    compartment.devices.claimed();
    Ok(())
}

/// Maps what the hypervisor itself accesses at the end, while an error still is one of the configuration's.
fn reach(description: &Description) -> Result<(), Vec<AssembleError>> {
    let mut errors = Vec::new();
    for PassedRest { region, way, .. } in &description.rests {
        if let Way::Steps(steps) = way
            && let Err(failed) = kernel_work(|| registers::reach_steps(region, steps))
        {
            let message = format!("{} of the machine cannot be mapped to bring it to rest", failed.0);
            errors.push(AssembleError { subject: Subject::Vm, other: None, place: region.place, message, hint: None });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn claim_all(machine: &Machine, compartment: &Compartment, devices: &[PassedDevice]) -> Result<(), Vec<AssembleError>> {
    with_owners(machine, |owners| {
        owners.claim(compartment.id, &compartment.qvm.name, devices).map_err(|conflicts| {
            let error = |conflict: host::ownership::Conflict| error(conflict.place, conflict.message);
            conflicts.into_iter().map(error).collect()
        })
    })
}

fn with_owners<R>(machine: &Machine, work: impl FnOnce(&mut Owners<VmId>) -> R) -> R {
    kernel_work(|| {
        // Takes long, and is done once.
        let is_first = PASSED.lock().owners.is_none();
        let first = is_first.then(|| owners(machine));
        let mut passed = PASSED.lock();
        work(passed.owners.get_or_insert_with(|| first.unwrap_or_else(|| Owners::of(machine))))
    })
}

/// The interrupt `pin` is that of functions that the VM has from now on, unless somebody else has it. Says whether it is.
pub(crate) fn claim_pin(compartment: &Compartment, pin: IntId) -> bool {
    let claim = |owners: &mut Owners<VmId>| owners.claim_interrupt(compartment.id, &compartment.qvm.name, pin);
    start::MACHINE.get().is_some_and(|machine| with_owners(machine, claim))
}

/// What is left of what a VM has that nothing keeps from everybody's memory.
pub(crate) const UNCONTAINED: &str =
    "a passed device is uncontained: it reaches all memory, the hypervisor's and other VMs' included";

fn error(place: Option<Place>, message: String) -> AssembleError {
    AssembleError { subject: Subject::Vm, other: None, place, message, hint: None }
}

/// From now on those of the VM's devices that reach memory reach the VM's, which is there.
///
/// # Errors
/// Who has the stream of one of them, or what its SMMU lacks.
pub(crate) fn confine(compartment: &'static Compartment, devices: &[PassedStreams]) -> Result<(), AssembleError> {
    for PassedStreams { place, device, streams } in devices {
        // Each is a group for itself, told from those of PCI functions.
        let first = streams.first().map_or(0, |stream| stream.id);
        let given = smmuman::give(compartment, device, streams, PLATFORM | first);
        given.map_err(|why| kernel_work(|| error(*place, format!("`pass`: {why}"))))?;
    }
    if compartment.qvm.configuration.description.has_device(Reach::Everything) {
        log::warn!(target: &compartment.qvm.origin(), "{UNCONTAINED}");
    }
    Ok(())
}

/// In the numbers of groups of platform devices, and in no others.
const PLATFORM: u32 = 1 << 31;

/// The VM's vCPUs can run: its interrupts may come.
pub(crate) fn enable(description: &Description) {
    interrupts(description).for_each(|interrupt| interrupt::enable_as(interrupt.host, interrupt.edge));
}

/// An interrupt that has come: whether it is a guest's; then, whether that ends it.
pub(crate) fn interrupt(intid: IntId) -> Option<bool> {
    if function::interrupt(intid) {
        return Some(true);
    }
    if ROUTES.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let passed = PASSED.lock();
    let route = passed.routes.iter().find(|route| route.interrupt.host == intid)?;
    if let Some(partition) = route.compartment.partition() {
        partition.passed_interrupt(route.number);
    }
    Some(!route.interrupt.edge)
}

/// The VM's vCPUs are gone: nothing of what it has interrupts anybody any more.
pub(crate) fn end(compartment: &Compartment) {
    let description = &compartment.qvm.configuration.description;
    let is_own = |route: &Route| route.owner == compartment.id;
    if description.passed.is_empty() || !PASSED.lock().routes.iter().any(is_own) {
        return;
    }
    interrupts(description).for_each(|interrupt| interrupt::release_passed(interrupt.host));
    let mut passed = PASSED.lock();
    passed.routes.retain(|route| !is_own(route));
    ROUTES.store(passed.routes.len(), Ordering::Relaxed);
}

/// The VM cannot reach its devices any more: they are nobody's, and those that are not at rest nobody gets before a reset.
pub(crate) fn release(compartment: &Compartment) {
    if let Some(owners) = &mut PASSED.lock().owners {
        let devices = &compartment.description().passed;
        for device in compartment.restless_devices().filter_map(|number| devices.get(number)) {
            owners.abandon(compartment.id, &compartment.qvm.name, device);
        }
        owners.release(compartment.id);
    }
}
