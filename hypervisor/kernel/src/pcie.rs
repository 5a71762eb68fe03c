//! The machine's PCI Express.
//!
//! Answers for: mapping configuration space, finding all functions before the first VM, each at rest; who has which; bringing one to rest,
//! in time; what the shell does with them. Does not answer for: what is found and in which steps (`pcie`), registers (`drivers::ecam`), streams
//! (`smmuman`), messages, what a guest sees of a function.

use crate::compartment::kernel_work;
use crate::sync::{Lock, Rank};
use crate::{start, thread};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use drivers::ecam::Ecam;
use host::shell::Pci;
use host::shell::report::{BarInfo, FunctionInfo};
use machine::{BUS_LENGTH, Machine, PciHost};
use pcie::{
    Bar, BarKind, Configuration, Function, Owners, PciAddress, READY_LIMIT, Reset, Rest, RestProgress, Space,
    quiet_only, switch_masters_off, virtual_functions,
};
use spin::Once;
use types::{AccessSize, IntId, Pa, Range, Ticks, VmId};
use vdev::Cause;

/// Most hosts that are looked at; a machine has one or two, a server some dozen.
const MAX_HOSTS: usize = 32;

/// Buses whose configuration spaces are mapped at once: two are the 2 MiB of a block.
const BUSES_AT_ONCE: u8 = 2;

/// A host: its place in the list is its segment.
struct Host {
    description: &'static PciHost,
    ecam: Ecam,
    /// Whether buses are mapped, [`BUSES_AT_ONCE`] at once, `first_bus` first: most hosts have 256, and devices on one or two. Only the
    /// scan maps more, alone: what it has found is on those. No lock, so that whoever holds one gets through.
    mapped: [AtomicBool; 128],
}

impl Host {
    /// Maps the bus that a function is on, if it is not. Says whether it is.
    fn reaches(&self, function: PciAddress) -> bool {
        let PciHost { first_bus, last_bus, configuration, .. } = self.description;
        let Some(bus) = function.bus().checked_sub(*first_bus).filter(|_| function.bus() <= *last_bus) else {
            return false;
        };
        let part = u64::from(bus / BUSES_AT_ONCE);
        let Some(mapped) = self.mapped.get(part as usize) else { return false };
        if !mapped.load(Ordering::Relaxed) {
            let length = u64::from(BUSES_AT_ONCE) * BUS_LENGTH;
            let start = Pa(configuration.start().0 + part * length);
            let end = Pa(start.0 + length).min(configuration.end());
            let is_mapped = start::try_map_device(Range::between(start, end));
            mapped.store(is_mapped, Ordering::Relaxed);
            return is_mapped;
        }
        true
    }
}

impl Configuration for Host {
    fn read(&self, function: PciAddress, offset: u16, size: AccessSize) -> u32 {
        if self.reaches(function) { self.ecam.read(function, offset, size) } else { u32::MAX }
    }

    fn write(&self, function: PciAddress, offset: u16, size: AccessSize, value: u32) {
        if self.reaches(function) {
            self.ecam.write(function, offset, size, value);
        }
    }
}

static HOSTS: Once<Vec<Host>> = Once::new();

/// Who has a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    /// A VM, until its end.
    Vm(VmId),
    /// The shell, while it does something to it.
    Shell,
    /// What is let through, or confined without being a VM's: for good.
    Smmuman,
}

/// What has been found, and whose it is.
struct Functions {
    all: Vec<Function>,
    owners: Owners<Holder>,
}

static FUNCTIONS: Lock<Functions> = Lock::new(Rank::Functions, Functions { all: Vec::new(), owners: Owners::new() });

/// What becomes of a function that cannot be reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unresettable {
    /// It is not at rest.
    Refuse,
    /// It is at rest if it does nothing more and waits for nothing.
    Accept,
}

/// Why a VM does not get, or has no more, what it wants of a function.
#[derive(Debug)]
pub(crate) struct Unfit {
    /// What a VM that cannot do without ends with: what the hardware is like right now may be over when it is started again.
    pub(crate) cause: Cause,
    pub(crate) why: String,
}

/// It will not do, whenever it is tried.
impl From<String> for Unfit {
    fn from(why: String) -> Self {
        Self { cause: Cause::Configuration, why }
    }
}

/// Finds them. Once, on the boot CPU, before there are other threads.
pub(crate) fn initialise(machine: &'static Machine) {
    let mut hosts = Vec::new();
    let mut all = Vec::new();
    for (segment, description) in (0..).zip(machine.pci.iter().take(MAX_HOSTS)) {
        // SAFETY: nobody else's by the device tree; `Host` maps a bus before it lets anybody there.
        let ecam = unsafe { Ecam::new(description, segment) };
        let host = Host { description, ecam, mapped: [const { AtomicBool::new(false) }; 128] };
        let found = pcie::scan(&host, description, segment);
        if found.functions.is_empty() {
            log::info!("{}: no PCI function answers", description.path);
        }
        hosts.push(host);
        for trouble in &found.troubles {
            log::warn!("{trouble}");
        }
        all.extend(found.functions);
    }
    HOSTS.call_once(|| hosts);
    FUNCTIONS.lock().all = all;
}

/// The hypervisor has failed: no function asks for memory any more, soon. Says how many may have done so. Takes no lock, and waits for nothing:
/// what it looks at is on buses that are mapped.
pub(crate) fn turn_off() -> usize {
    let off = |(segment, host): (u16, &'static Host)| {
        let PciHost { first_bus, last_bus, .. } = host.description;
        let is_mapped = |bus: &u8| {
            let part = usize::from((bus - first_bus) / BUSES_AT_ONCE);
            host.mapped.get(part).is_some_and(|mapped| mapped.load(Ordering::Relaxed))
        };
        (*first_bus..=*last_bus).filter(is_mapped).map(|bus| switch_masters_off(host, segment, bus)).sum::<usize>()
    };
    (0..).zip(HOSTS.get().into_iter().flatten()).map(off).sum()
}

fn of(address: PciAddress) -> Option<&'static Host> {
    HOSTS.get()?.get(usize::from(address.segment()))
}

/// All functions.
pub(crate) fn functions() -> Vec<Function> {
    FUNCTIONS.lock().all.clone()
}

/// One of them.
pub(crate) fn function(address: PciAddress) -> Option<Function> {
    FUNCTIONS.lock().all.iter().find(|function| function.address == address).cloned()
}

/// The host that a function is behind: by its path `machine` knows the function's stream.
pub(crate) fn host(address: PciAddress) -> Option<&'static PciHost> {
    of(address).map(|host| host.description)
}

/// A function's configuration space. Whoever has the function uses it, one thread at a time.
pub(crate) fn space(address: PciAddress) -> Option<Space<'static>> {
    of(address).map(|host| Space::new(host, address))
}

/// The interrupt that a function's pin is.
pub(crate) fn interrupt(address: PciAddress) -> Option<IntId> {
    let (arrives, pin) = pcie::pin_at_host(&FUNCTIONS.lock().all, address)?;
    let interrupts = &host(address)?.interrupts;
    interrupts.line(arrives.bus(), arrives.device(), arrives.function(), pin).map(|line| line.intid)
}

/// The functions at `wanted` are `holder`'s, which messages call `name`, from now on, or none is.
///
/// # Errors
/// Whatever keeps it from having one of them; other owners by name.
pub(crate) fn claim(holder: Holder, name: &str, wanted: &[PciAddress]) -> Result<(), Vec<(PciAddress, String)>> {
    kernel_work(|| {
        let mut functions = FUNCTIONS.lock();
        let Functions { all, owners } = &mut *functions;
        owners.claim(all, holder, name, wanted)
    })
}

/// Why `holder` cannot have a function, if it cannot: who has it or another one of its group.
pub(crate) fn refusal(holder: Holder, address: PciAddress) -> Option<String> {
    let functions = FUNCTIONS.lock();
    functions.owners.refusal(&functions.all, holder, address)
}

/// The name of who has a function.
pub(crate) fn owner(address: PciAddress) -> Option<String> {
    FUNCTIONS.lock().owners.of(address).map(String::from)
}

/// It cannot reach its functions any more: they are nobody's.
pub(crate) fn release(holder: Holder) {
    FUNCTIONS.lock().owners.release(holder);
}

/// Brings a function to rest: it does nothing, nothing that it has begun is under way, it has been reset and is as it was found. Takes up to a
/// few seconds, in which the thread sleeps. Whoever has the function calls this. If `go_on` says no it is given up within a third of a second.
///
/// # Errors
/// What keeps it from being at rest. Then it may still reach memory as far as it is concerned.
pub(crate) fn bring_to_rest(
    address: PciAddress,
    unresettable: Unresettable,
    go_on: &dyn Fn() -> bool,
) -> Result<(), Unfit> {
    let named = |why: &dyn fmt::Display| format!("PCI function {address} is not at rest: {why}");
    let fatal = |why: &dyn fmt::Display| Unfit { cause: Cause::Fatal, why: named(why) };
    let (Some(host), Some(frequency)) = (of(address), el2::cpu::counter_frequency()) else {
        return Err(named(&"there is no such function").into());
    };
    let mut rest = {
        let functions = FUNCTIONS.lock();
        let rest = Rest::of(&functions.all, address, frequency);
        if let Err((other, name)) = functions.owners.only(address, rest.touches()) {
            quiet_only(host, &functions.all, address);
            return Err(named(&format!("its reset would be that of {other} too, which {name} has")).into());
        }
        rest
    };
    loop {
        if rest.may_be_left() && !go_on() {
            return Err(fatal(&"nobody waits for that any more"));
        }
        match rest.advance(host, el2::cpu::counter()) {
            RestProgress::Waiting(until) => sleep_until(until),
            RestProgress::Failed(other, why) if other == address => return Err(fatal(&why)),
            RestProgress::Failed(other, why) => {
                return Err(fatal(&format!("of {other}, which is reset with it: {why}")));
            }
            RestProgress::Done if rest.method() == Reset::None && unresettable == Unresettable::Refuse => {
                return Err(named(&"it does nothing any more, but it cannot be reset").into());
            }
            RestProgress::Done => return Ok(()),
        }
    }
}

/// Whether a function answers, or does so again soon: somebody may be resetting the one that has made it. Takes up to a second, unless
/// `go_on` says no; the thread sleeps.
pub(crate) fn answers_soon(address: PciAddress, go_on: &dyn Fn() -> bool) -> bool {
    /// How often one looks, in microseconds.
    const LOOK: u64 = 1000;
    let (Some(space), Some(frequency)) = (space(address), el2::cpu::counter_frequency()) else { return false };
    let limit = el2::cpu::counter().saturating_add(frequency.microseconds(READY_LIMIT));
    while !space.answers() {
        let now = el2::cpu::counter();
        if now >= limit || !go_on() {
            return false;
        }
        sleep_until(now.saturating_add(frequency.microseconds(LOOK)));
    }
    true
}

/// Has a function make `count` virtual ones, which it does not lose until the machine is reset. Takes a tenth of a second.
///
/// # Errors
/// Why there are none.
pub(crate) fn make_virtual(address: PciAddress, count: u16) -> Result<Vec<PciAddress>, String> {
    let named = |why: &dyn fmt::Display| format!("PCI function {address}: {why}");
    let (Some(host), Some(physical)) = (of(address), function(address)) else {
        return Err(named(&"there is none"));
    };
    let all = functions();
    if all.iter().any(|function| function.physical == Some(address)) {
        return Err(named(&"it has made virtual functions already"));
    }
    let made = virtual_functions::make(host, &all, &physical, count).map_err(|why| named(&why))?;
    let delay = el2::cpu::counter_frequency().map_or(Ticks(0), |it| it.microseconds(virtual_functions::VIRTUAL_DELAY));
    sleep_until(el2::cpu::counter().saturating_add(delay));
    let found = virtual_functions::find(host, &all, &physical, &made).inspect_err(|_| {
        virtual_functions::unmake(host, &physical);
    });
    let found = found.map_err(|why| named(&why))?;
    FUNCTIONS.lock().all.extend(found);
    Ok(made)
}

/// Whoever is notified meanwhile sleeps on.
fn sleep_until(until: Ticks) {
    while el2::cpu::counter() < until {
        thread::sleep_until(until);
    }
}

/// The shell's `pci`.
pub(crate) fn carry_out(command: Pci, out: &mut dyn fmt::Write) {
    let (Pci::Reset((segment, bus, device, number), _) | Pci::Virtual((segment, bus, device, number), _)) = command;
    let address = PciAddress::new(segment, bus, device, number);
    let mut wanted: Vec<PciAddress> = [address].into();
    if let Pci::Reset(..) = command {
        // Its reset is theirs.
        wanted.extend(functions().iter().filter(|other| other.physical == Some(address)).map(|made| made.address));
    }
    // Nobody else gets them meanwhile.
    let done = match claim(Holder::Shell, "the shell", &wanted) {
        Ok(()) => {
            let done = do_to(address, command);
            release(Holder::Shell);
            done
        }
        Err(refusals) => Err(refusals.into_iter().map(|(_, why)| why).collect::<Vec<_>>().join("; ")),
    };
    let _ = match done {
        Ok(done) => writeln!(out, "pci: {done}"),
        Err(why) => writeln!(out, "pci: error: {why}"),
    };
}

/// Does to the function at `address`, which the shell has, what `command` says; what has been done, or why not.
fn do_to(address: PciAddress, command: Pci) -> Result<String, String> {
    match command {
        Pci::Reset(_, force) => {
            let unresettable = if force { Unresettable::Accept } else { Unresettable::Refuse };
            let done = crate::function::bring_to_rest(address, unresettable, &|| true);
            done.map(|()| format!("{address} is at rest")).map_err(|unfit| unfit.why)
        }
        Pci::Virtual(_, count) => make_virtual(address, count).map(|made| {
            let made: Vec<String> = made.iter().map(ToString::to_string).collect();
            format!("{address} has made {}", made.join(", "))
        }),
    }
}

/// All of them, for the shell.
pub(crate) fn report() -> Vec<FunctionInfo> {
    let info = |function: &Function| {
        let is_own = function.is_bridging();
        let owner = owner(function.address);
        let owner = owner.unwrap_or_else(|| String::from(if is_own { "the hypervisor" } else { "-" }));
        FunctionInfo {
            address: function.address.to_string(),
            ids: (function.vendor, function.device),
            group: function.group,
            reset: match function.reset() {
                Reset::Function => "FLR",
                Reset::AdvancedFeatures => "AF FLR",
                Reset::Bus(_) => "bus",
                Reset::None => "none",
            },
            interrupt: interrupt(function.address).map(|intid| intid.0),
            is_master: space(function.address).is_some_and(|space| space.is_master()),
            owner,
            about: about(function),
            bars: function.bars.iter().map(bar).collect(),
        }
    };
    functions().iter().map(info).collect()
}

fn about(function: &Function) -> String {
    let mut about = format!("{} {}", function.class.name(), function.class);
    let capabilities = &function.capabilities;
    let vectors = |count: u16, kind| format!(", {count} {kind}");
    let messages = [
        capabilities.msi.map(|msi| vectors(msi.vectors.into(), "MSI")),
        capabilities.msix.map(|msix| vectors(msix.vectors, "MSI-X")),
        capabilities.sriov.as_ref().map(|sriov| vectors(sriov.total, "virtual functions")),
        function.bridge.map(|bridge| format!(", buses {:02x} to {:02x}", bridge.secondary, bridge.subordinate)),
        function.physical.map(|physical| format!(", of {physical}")),
    ];
    messages.into_iter().flatten().for_each(|more| about.push_str(&more));
    about
}

fn bar(bar: &Bar) -> BarInfo {
    let kind = match bar.kind {
        BarKind::Io => "I/O",
        BarKind::Memory32 { is_prefetchable: false } => "memory",
        BarKind::Memory32 { is_prefetchable: true } => "memory, prefetchable",
        BarKind::Memory64 { is_prefetchable: false } => "memory, 64 bit",
        BarKind::Memory64 { is_prefetchable: true } => "memory, 64 bit, prefetchable",
    };
    BarInfo { index: bar.index, at: bar.place.map(|place| place.cpu.0), size: bar.size, kind }
}
