//! Functions of the machine's PCI Express that VMs have.
//!
//! Answers for: finding the one that a configuration means, giving it to a VM (owner, rest, messages, streams, pin), and taking it
//! back in the order in which nothing of it is left over. Does not answer for: which there are and how one is brought to rest (`pcie`),
//! streams (`smmuman`), vectors (`messages`), what a guest sees of one (`pci::Passed`), which reaches it by a [`Handle`].
//!
//! What has to be undone is in the kernel's memory and done by the thread that looks after the VM: it needs nothing of the VM's. See
//! docs/design/042-functions.md.

mod handle;

pub(crate) use handle::Handle;

use crate::compartment::{Compartment, kernel_work};
use crate::messages::{self, Vectors, Way};
use crate::pcie::{self, Holder, Unfit, Unresettable};
use crate::sync::{Lock, Rank};
use crate::{interrupt, passed, smmuman, start};
use ::pcie::{Function, PciAddress, Reset};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use handle::{Attached, Line, Registers};
use machine::{MessageTarget, Stream};
use types::{IntId, PAGE_SIZE, Pa, Range, VmId};
use vdev::{BackendError, Cause, DeviceId, FunctionBar, FunctionFacts, WantedFunction};
use vm::assemble::{AssembleError, PassedFunction, Reach, Subject, function_flaw};

/// Most bytes of a region that the hypervisor maps for itself: of a larger one it reaches what messages need, and the guest the rest.
const MOST_MAPPED: u64 = 64 << 20;

/// A function that a VM has.
struct Given {
    owner: VmId,
    address: PciAddress,
    unresettable: Unresettable,
    /// What its pin is, if the VM takes that.
    pin: Option<IntId>,
    vectors: Option<Vectors>,
    /// Until [`end`] has taken it back.
    compartment: &'static Compartment,
}

static GIVEN: Lock<Vec<Given>> = Lock::new(Rank::Passed, Vec::new());

/// How many pins are some VM's: on most machines none.
static PINS: AtomicUsize = AtomicUsize::new(0);

/// Registers that the hypervisor has mapped for itself, and keeps.
static MAPPED: Lock<Vec<Range<Pa>>> = Lock::new(Rank::Passed, Vec::new());

// ---- which one

/// The function that is wanted for the device `id` of a VM, which has `others` already, and all of them by [`claim`].
///
/// # Errors
/// If there is none, several are meant, or it cannot be had in this way.
pub(crate) fn find(
    compartment: &'static Compartment,
    others: &[Arc<Handle>],
    id: DeviceId,
    wanted: WantedFunction,
    without_reset: bool,
) -> Result<(FunctionFacts, Arc<Handle>), BackendError> {
    let all = kernel_work(pcie::functions);
    let function = choose(&all, wanted).map_err(BackendError)?;
    let address = function.address;
    if function.is_bridging() {
        let kind = function.class.name();
        return Err(BackendError(format!("PCI function {address} is a {kind}, which is the hypervisor's")));
    }
    if let Some(other) = others.iter().find(|other| other.address == address) {
        let before = compartment.description().functions.get(other.number);
        let before = before.map_or_else(String::new, |before| format!(" by `pass loc pci:{}`", before.wanted));
        return Err(BackendError(format!("PCI function {address} is passed already{before}")));
    }
    if !function.is_placed() {
        return Err(BackendError(format!("PCI function {address} has found no room for its registers at boot")));
    }
    if function.reset() == Reset::None && !without_reset {
        let message = format!(
            "PCI function {address} cannot be reset, so the next to have it would find it as the last has left it: \
             `without-reset` passes it all the same"
        );
        return Err(BackendError(message));
    }
    let pin = pin_for(compartment, address);
    let bars: Vec<(u8, Range<Pa>)> = function
        .bars
        .iter()
        .filter(|bar| !bar.kind.is_io())
        .filter_map(|bar| Some((bar.index, Range::new(bar.place?.cpu, bar.size)?)))
        .collect();
    let facts = FunctionFacts {
        name: address.to_string(),
        vendor: function.vendor,
        device: function.device,
        bars: function
            .bars
            .iter()
            .filter(|bar| !bar.kind.is_io())
            .map(|bar| FunctionBar { index: bar.index, size: bar.size, is_64_bit: bar.kind.is_wide() })
            .collect(),
        has_pin: pin.is_some(),
        messages: if target(function).is_some() { wanted_vectors(function) } else { 0 },
        can_be_reset: function.reset() != Reset::None,
        virtual_functions: made_by(&all, address).count() as u16,
    };
    let unresettable = if without_reset { Unresettable::Accept } else { Unresettable::Refuse };
    let line = pin.map(|intid| {
        let known = others.iter().filter_map(|other| other.line.as_ref()).find(|line| line.intid == intid);
        known.map_or_else(|| Arc::new(Line::new(intid)), Arc::clone)
    });
    let number = others.len();
    let handle = Handle::new((compartment, id, number), (address, unresettable), bars, line);
    Ok((facts, Arc::new(handle)))
}

fn choose(all: &[Function], wanted: WantedFunction) -> Result<&Function, String> {
    let fits = |function: &&Function| match wanted {
        WantedFunction::Place { bus, device, function: number } => {
            let at = function.address;
            (at.bus(), at.device(), at.function()) == (bus, device, number)
        }
        WantedFunction::Kind { vendor, device } => (function.vendor, function.device) == (vendor, device),
    };
    let mut fitting = all.iter().filter(fits);
    let first = fitting.next().ok_or_else(|| wanted.missing())?;
    match (wanted, fitting.next()) {
        (WantedFunction::Kind { .. }, Some(second)) => {
            let (first, second) = (first.address, second.address);
            Err(format!("{first} and {second} are both {wanted}: name one by its place, as in pci:0:3.0"))
        }
        _ => Ok(first),
    }
}

/// The virtual functions that one has made.
fn made_by(all: &[Function], physical: PciAddress) -> impl Iterator<Item = &Function> {
    all.iter().filter(move |function| function.physical == Some(physical))
}

/// What the pin is, which is the VM's from now on, unless another VM has a function with the same: then nobody's interrupts wait for another's
/// guest.
fn pin_for(compartment: &Compartment, address: PciAddress) -> Option<IntId> {
    pcie::interrupt(address).filter(|intid| passed::claim_pin(compartment, *intid))
}

/// Where the function's messages go, if they reach an ITS that works.
fn target(function: &Function) -> Option<MessageTarget> {
    let host = pcie::host(function.address)?;
    let sender = start::MACHINE.get()?.senders.iter().find(|sender| sender.path == host.path)?;
    let target = sender.functions.as_ref()?.target(function.requester())?;
    messages::flaw(target.its).is_none().then_some(target)
}

fn wanted_vectors(function: &Function) -> u16 {
    let msi = function.capabilities.msi.map_or(0, |msi| msi.vectors.into());
    let msix = function.capabilities.msix.map_or(0, |msix| msix.vectors);
    msix.max(msi).min(messages::MOST as u16)
}

/// What the function sends by, as SMMUs tell it from others.
fn streams(function: &Function) -> Vec<Stream> {
    let path = pcie::host(function.address).map_or("", |host| host.path.as_str());
    let masters = start::MACHINE.get().map_or(&[][..], |machine| &machine.masters);
    let map = masters.iter().find(|master| master.path == path).and_then(|master| master.functions.as_ref());
    map.and_then(|map| map.stream(function.requester())).into_iter().collect()
}

/// By which stream each function sends that does, but bridges.
pub(crate) fn senders() -> Vec<(Stream, PciAddress)> {
    let all = pcie::functions();
    let sending = all.iter().filter(|function| !function.is_bridging());
    sending.flat_map(|function| streams(function).into_iter().map(|stream| (stream, function.address))).collect()
}

// ---- the beginning

fn at(function: &PassedFunction, message: String) -> AssembleError {
    AssembleError { subject: Subject::Vm, other: None, place: function.place, message, hint: None }
}

/// All functions that the configuration means are the VM's from now on, or none is. Nobody resets one of them then, but virtual ones with
/// their physical one: for that is waited, since what the guest is to find of them is read next. What cannot be one, or is one twice, [`find`] says.
///
/// # Errors
/// What somebody has, by both names; that nothing confines one that is to be confined; or that one does not answer. And what the VM ends with.
pub(crate) fn claim(compartment: &'static Compartment) -> Result<(), (Cause, Vec<AssembleError>)> {
    let wanted = &compartment.description().functions;
    if wanted.is_empty() {
        return Ok(());
    }
    kernel_work(|| {
        let all = pcie::functions();
        let mut chosen: Vec<(&PassedFunction, PciAddress)> = Vec::new();
        for function in wanted {
            let found = choose(&all, function.wanted).ok().filter(|found| !found.is_bridging());
            let is_new = |address: &PciAddress| chosen.iter().all(|(_, other)| other != address);
            let address = found.map(|found| found.address).filter(is_new);
            chosen.extend(address.map(|address| (function, address)));
        }
        let errors = |why: &dyn Fn(&PassedFunction, PciAddress) -> Option<String>| {
            let wrong = chosen.iter().filter_map(|(function, address)| Some(at(function, why(function, *address)?)));
            wrong.collect::<Vec<_>>()
        };
        let unconfined = errors(&|function, address| containment(function, address).err());
        if !unconfined.is_empty() {
            return Err((Cause::Configuration, unconfined));
        }
        let addresses: Vec<PciAddress> = chosen.iter().map(|(_, address)| *address).collect();
        pcie::claim(Holder::Vm(compartment.id), &name_of(compartment), &addresses).map_err(|conflicts| {
            let of = |address| chosen.iter().find(|(_, other)| *other == address);
            let named = conflicts.into_iter().filter_map(|(address, why)| Some(at(of(address)?.0, why)));
            (Cause::Configuration, named.collect())
        })?;
        let silent = errors(&|_, address| {
            let is_wanted = || !compartment.is_ending();
            (!pcie::answers_soon(address, &is_wanted) && is_wanted())
                .then(|| format!("PCI function {address} does not answer"))
        });
        if silent.is_empty() { Ok(()) } else { Err((Cause::Fatal, silent)) }
    })
}

/// The VM can be put together: at its end its functions come to rest ([`end`]).
pub(crate) fn note(compartment: &'static Compartment, handles: &[Arc<Handle>]) {
    if handles.is_empty() {
        return;
    }
    kernel_work(|| {
        let mut given = GIVEN.lock();
        given.extend(handles.iter().map(|handle| Given {
            owner: compartment.id,
            address: handle.address,
            unresettable: handle.unresettable,
            pin: handle.pin(),
            vectors: None,
            compartment,
        }));
        PINS.store(given.iter().filter(|given| given.pin.is_some()).count(), Ordering::Relaxed);
    });
}

/// What messages call a VM that has a function.
fn name_of(compartment: &Compartment) -> String {
    format!("VM `{}`", compartment.qvm.name)
}

/// Whether the function is confined as its configuration says.
fn containment(wanted: &PassedFunction, address: PciAddress) -> Result<(), String> {
    let function = pcie::function(address);
    let is_behind_smmu = function.as_ref().is_some_and(|function| !streams(function).is_empty());
    let asks_smmu = function.as_ref().is_none_or(Function::asks_smmu);
    match function_flaw(wanted.reach, is_behind_smmu, asks_smmu) {
        Some(why) => Err(format!("PCI function {address} {why}")),
        None => Ok(()),
    }
}

/// The VM has its memory: each function comes to rest, and then gets what it needs. None does anything before its guest says so. If the VM
/// is not wanted any more what is left of that is left out.
///
/// # Errors
/// Why one cannot be had, and what the VM ends with. What has been done is undone by [`end`].
pub(crate) fn attach(compartment: &'static Compartment, handles: &[Arc<Handle>]) -> Result<(), (Cause, AssembleError)> {
    let wanted = &compartment.qvm.configuration.description.functions;
    let mut doorbell = None;
    for (wanted, handle) in wanted.iter().zip(handles) {
        if compartment.is_ending() {
            return Ok(());
        }
        let (registers, targets) = match kernel_work(|| attach_one(compartment, wanted, handle, &mut doorbell)) {
            Ok(links) => links,
            Err(_) if compartment.is_ending() => return Ok(()),
            Err(Unfit { cause, why }) => return Err((cause, at(wanted, why))),
        };
        let Some(space) = compartment.memory.lock().space.as_ref().map(Arc::as_ptr) else { continue };
        // SAFETY: in its `Arc` it stays where it is; the compartment keeps it until the VM's last thread is gone, and the handle is the
        // VM's own.
        let stage2 = unsafe { &*space };
        let description = compartment.description();
        let is_translated = description.smmu().is_some() && wanted.reach == Reach::Own;
        let page = is_translated.then(|| description.message_page());
        // Copies in the VM's heap, which goes as a whole: what has been made as the kernel's would be there for good.
        handle.attach(Attached { stage2, registers: registers.clone(), targets: targets.clone(), page });
    }
    Ok(())
}

/// What is the kernel's of it: registers, mapped, and what messages have to be.
type Links = (Vec<Registers>, Vec<(u64, u32)>);

fn attach_one(
    compartment: &'static Compartment,
    wanted: &PassedFunction,
    handle: &Handle,
    doorbell: &mut Option<(Pa, u64)>,
) -> Result<Links, Unfit> {
    let address = handle.address;
    let description = compartment.description();
    bring_to_rest(address, handle.unresettable, &|| !compartment.is_ending())?;
    let function = pcie::function(address).ok_or_else(|| format!("PCI function {address} is gone"))?;
    if let Some(physical) = function.physical {
        tell_whose(compartment, address, physical);
    }
    let registers =
        reached(&function, handle).map(|(bar, offset, range)| Registers::new(bar, offset, map(range))).collect();
    let mut targets = Vec::new();
    let count = usize::from(wanted_vectors(&function));
    if let Some(target) = target(&function).filter(|_| count > 0) {
        let vectors = Vectors::open(target, count, compartment)?;
        for vector in 0..vectors.count() {
            vectors.route(vector, Some(Way::Function { function: handle.number, vector }));
            let Some((translater, data)) = vectors.message(vector) else { continue };
            targets.push((store_at(compartment, wanted.reach, translater, doorbell)?, data));
        }
        let mut given = GIVEN.lock();
        let own = given.iter_mut().find(|given| given.owner == compartment.id && given.address == address);
        if let Some(own) = own {
            own.vectors = Some(vectors);
        }
    }
    if wanted.reach == Reach::Own {
        let group = u32::from(address.segment()) << 16 | u32::from(function.group);
        let (what, streams) = (format!("PCI function {address}"), streams(&function));
        smmuman::give(compartment, &what, &streams, group)?;
        let slot = description.vdevs.get(wanted.vdev).and_then(|vdev| vdev.slot);
        if let Some((smmu, slot)) = description.smmu().zip(slot) {
            smmuman::put_behind(compartment, (smmu, &what), slot.number().into(), &streams)?;
        }
    }
    Ok((registers, targets))
}

/// Where a function of the VM has to store a message that is for `translater`.
fn store_at(
    compartment: &'static Compartment,
    reach: Reach,
    translater: Pa,
    doorbell: &mut Option<(Pa, u64)>,
) -> Result<u64, String> {
    if reach == Reach::Everything {
        return Ok(translater.0);
    }
    let page = translater.align_down(PAGE_SIZE);
    let at = match doorbell {
        Some((known, at)) if *known == page => *at,
        Some(_) => return Err("functions of one VM send messages to two ITSs: pass them to two".into()),
        None => {
            let at = smmuman::open_doorbell(compartment, page)?.0;
            *doorbell = Some((page, at));
            at
        }
    };
    Ok(at | (translater.0 & (PAGE_SIZE - 1)))
}

/// What the hypervisor reaches of a function's regions: which, from where on, and where the machine has it.
fn reached(function: &Function, handle: &Handle) -> impl Iterator<Item = (u8, u64, Range<Pa>)> {
    let pages = function.capabilities.msix.map(|msix| {
        let bytes = [u64::from(msix.vectors) * 16, u64::from(msix.vectors).div_ceil(64) * 8];
        [msix.table, msix.pending].into_iter().zip(bytes).map(|(part, bytes)| {
            let start = u64::from(part.offset) & !(PAGE_SIZE - 1);
            (part.bar, start, (u64::from(part.offset) + bytes).next_multiple_of(PAGE_SIZE))
        })
    });
    let pages: Vec<(u8, u64, u64)> = pages.into_iter().flatten().collect();
    handle.bars.iter().flat_map(move |(bar, range)| {
        let whole = (range.length() <= MOST_MAPPED).then_some((*bar, 0, *range));
        let own = pages.iter().filter(|(of, ..)| of == bar && whole.is_none());
        let parts = own.filter_map(|(bar, start, end)| {
            let part = Range::new(range.start().checked_add(*start)?, end - start)?;
            Some((*bar, *start, part)).filter(|_| range.contains_range(&part))
        });
        whole.into_iter().chain(parts).collect::<Vec<_>>()
    })
}

/// A virtual function is served by who has its physical one, and what that one's driver does to it no SMMU can tell from its own doing: the log says so,
/// unless it is the same VM.
fn tell_whose(compartment: &Compartment, address: PciAddress, physical: PciAddress) {
    let origin = compartment.qvm.origin();
    match pcie::owner(physical) {
        None => {
            log::warn!(target: &origin, "PCI function {address} works only while somebody has {physical}: nobody does");
        }
        Some(name) if name == name_of(compartment) => {}
        Some(name) => {
            log::warn!(target: &origin, "{name} has {physical}, and by PCI function {address} all that this VM has");
        }
    }
}

/// Maps registers for the hypervisor, once for all: where they are does not change.
fn map(range: Range<Pa>) -> Option<Range<Pa>> {
    let pages = range.end().align_up(PAGE_SIZE)?;
    let range = Range::between(range.start(), pages);
    let is_known = |mapped: &Vec<Range<Pa>>| mapped.contains(&range);
    if !is_known(&MAPPED.lock()) {
        if !start::try_map_device(range) {
            log::warn!("the registers at {range} cannot be mapped: what the guest does not reach by itself reads zero");
            return None;
        }
        MAPPED.lock().push(range);
    }
    Some(range)
}

/// The VM's vCPUs can run: its pins may interrupt.
pub(crate) fn enable(compartment: &Compartment) {
    own(compartment.id, |given| given.pin).into_iter().flatten().for_each(|pin| interrupt::enable_as(pin, false));
}

/// Brings a function to rest as [`pcie::bring_to_rest`] does. Then those that have its virtual ones are told that these have been reset with it.
///
/// # Errors
/// As there.
pub(crate) fn bring_to_rest(
    address: PciAddress,
    unresettable: Unresettable,
    go_on: &dyn Fn() -> bool,
) -> Result<(), Unfit> {
    // If it is not at rest they may not be there: nobody touches them.
    pcie::bring_to_rest(address, unresettable, go_on)?;
    let made: Vec<PciAddress> = made_by(&pcie::functions(), address).map(|function| function.address).collect();
    let given = GIVEN.lock();
    for given in given.iter().filter(|given| made.contains(&given.address)) {
        if let Some(partition) = given.compartment.partition() {
            partition.function_was_reset(given.address);
        }
    }
    Ok(())
}

fn own<R>(id: VmId, what: impl Fn(&Given) -> R) -> Vec<R> {
    let given = GIVEN.lock();
    given.iter().filter(|given| given.owner == id).map(what).collect()
}

// ---- while it runs

/// An interrupt has come: whether it is the pin of a VM's function. Then it stays active until all functions with that pin have ended it.
pub(crate) fn interrupt(intid: IntId) -> bool {
    if PINS.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let given = GIVEN.lock();
    let Some(own) = given.iter().find(|given| given.pin == Some(intid)) else { return false };
    if let Some(partition) = own.compartment.partition() {
        partition.pin_arrived(intid);
    }
    true
}

// ---- the end

/// The VM's vCPUs are gone: each function comes to rest, and then interrupts nobody any more. Its streams are taken back after that.
///
/// # Errors
/// Which is not at rest, though nothing confines it: then nothing of the VM may become anybody else's.
pub(crate) fn end(compartment: &Compartment) -> Result<(), String> {
    let uncontained = compartment.qvm.configuration.description.has_device(Reach::Everything);
    let mut wrong = String::new();
    for (address, unresettable) in own(compartment.id, |given| (given.address, given.unresettable)) {
        if let Err(Unfit { why, .. }) = bring_to_rest(address, unresettable, &|| true) {
            log::error!(target: &compartment.qvm.origin(), "{why}");
            if uncontained {
                wrong.push_str(&why);
                wrong.push_str("; ");
            }
        }
    }
    own(compartment.id, |given| given.pin).into_iter().flatten().for_each(interrupt::release_passed);
    // Closing waits for an ITS, without the lock.
    let mut closed = Vec::new();
    {
        let mut given = GIVEN.lock();
        given.retain_mut(|given| {
            let is_own = given.owner == compartment.id;
            closed.extend(given.vectors.take_if(|_| is_own));
            !is_own
        });
        PINS.store(given.iter().filter(|given| given.pin.is_some()).count(), Ordering::Relaxed);
    }
    drop(closed);
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.push_str("nothing of the VM's memory is given back");
    Err(wrong)
}

/// The VM cannot reach its functions any more: they are nobody's.
pub(crate) fn release(id: VmId) {
    pcie::release(Holder::Vm(id));
}
