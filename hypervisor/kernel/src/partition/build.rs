//! From a VM's configuration to a VM that can run: memory, images, devices, tree.
//!
//! Answers for: the order of it, and giving up when the VM is not wanted any more. Does not answer for: what each part is (`vm`).

use super::Partition;
use super::hold::Hold;
use crate::compartment::{Compartment, kernel_work};
use crate::controller;
use crate::frames::Owner;
use crate::function;
use crate::guest_memory::{GuestRam, Loading, Shadow};
use crate::passed;
use crate::services::Services;
use crate::stage2::GuestSpace;
use crate::startup::{self, HostDevices};
use crate::sync::masked;
use crate::thread;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};
use host::console::Terminal;
use spin::Once;
use types::{AccessSize, Ipa, MAX_CPUS, PAGE_SIZE, Range};
use vdev::{Cause, GuestMemory, MemoryFault};
use vm::assemble::{AssembleError, Assembled, Balloon, Reach, check_reach};
use vm::lifecycle::EndRecord;

/// A VM that does not come to life: the code it counts with, and why.
pub(super) type Failure = (Cause, String);

fn fatal(why: impl fmt::Display) -> Failure {
    (Cause::Fatal, format!("{why}"))
}

/// From the configuration to a VM that can run.
pub(super) fn build(compartment: &'static Compartment) -> Result<Partition, Failure> {
    let qvm = &compartment.qvm;
    let description = &qvm.configuration.description;
    let archive = startup::archive().ok_or_else(|| fatal("there is no boot archive"))?;
    let seed = startup::seed();
    let host = startup::host(&seed).ok_or_else(|| fatal("the counter's frequency is unknown"))?;
    let mut backends = HostDevices {
        compartment,
        terminal: Terminal::new(qvm.stream()),
        watches: Vec::new(),
        shares: Vec::new(),
        services: Services::default(),
        balloon: None,
        shadows: Vec::new(),
        functions: Vec::new(),
        registers: Vec::new(),
    };
    let unfit = |(cause, errors): (Cause, Vec<AssembleError>)| (cause, qvm.complain(&errors).1);
    function::claim(compartment).map_err(unfit)?;
    let assembled = vm::assemble::assemble(description, archive, &host, &mut backends);
    let Assembled { mut vm, load, tree, streams } = assembled.map_err(|errors| qvm.complain(&errors))?;
    let served = vm.bus.devices().zip(&description.vdevs).filter(|(_, vdev)| vdev.schedule.is_some());
    served.for_each(|(device, _)| backends.services.serve(device));
    passed::claim(compartment).map_err(|errors| qvm.complain(&errors))?;
    function::note(compartment, &backends.functions);
    for window in &backends.registers {
        window.open_whole().map_err(|failed| fatal(format_args!("{} of the machine cannot be mapped", failed.0)))?;
    }
    let go_on = || !compartment.is_ending();

    let balloon = backends.balloon.as_ref().map(|handle| Balloon { device: handle.device, lends: handle.lends });
    let flaws = check_reach(description, host.gic, balloon);
    if !flaws.is_empty() {
        return Err(qvm.complain(&flaws));
    }
    let lends = balloon.map(|balloon| balloon.lends);
    let (ram, vttbr) = take_memory(compartment, lends, &backends.shadows)?;
    backends.shadows.iter().for_each(|shadow| shadow.attach(ram));
    if let Some(handle) = &backends.balloon {
        handle.attach(ram);
    }
    ram.scrub(go_on);
    passed::confine(compartment, &streams).map_err(|error| qvm.complain(&[error]))?;
    function::attach(compartment, &backends.functions).map_err(|(cause, error)| unfit((cause, [error].into())))?;
    for share in &backends.shares {
        let no_region = |(name, pages)| fatal(format_args!("no memory for the region `{name}` of {pages} pages"));
        share.create(compartment.id, vm.origin()).map_err(no_region)?;
    }
    compartment.devices.reached();
    let configured = masked(|| vm.configure(Box::new(Shared(ram)), el2::cpu::counter())).map_err(fatal);
    let load_all = || load.execute(archive as &dyn vm::Files, &tree, &Loading(ram), &mut |_| {});
    let ready = match configured.map(|()| load_all()) {
        Err(failure) => Err(failure),
        _ if !go_on() => Err((Cause::PowerCut, String::new())),
        Ok(Err(error)) => Err(qvm.complain(&[error.into()])),
        Ok(Ok(())) if qvm.configuration.dryrun => Err((Cause::Shutdown, String::from("dryrun completed"))),
        Ok(Ok(())) => {
            el2::cache::invalidate_instructions();
            let started = masked(|| vm.start(load.entry, load.device_tree_at.0, el2::cpu::counter()));
            started.map_err(fatal)
        }
    };
    if let Err(failure) = ready {
        compartment.record(EndRecord::new(failure.0, None, None, format_args!("{}", failure.1)));
        compartment.quiet_devices(&vm);
        return Err(failure);
    }
    Ok(Partition {
        vm: ManuallyDrop::new(vm),
        vttbr,
        residents: [const { AtomicU16::new(u16::MAX) }; MAX_CPUS],
        exit_on_halt: qvm.configuration.exit_on_halt,
        ram,
        terminal: ManuallyDrop::new(backends.terminal),
        watches: ManuallyDrop::new(backends.watches),
        shares: ManuallyDrop::new(backends.shares),
        services: ManuallyDrop::new(backends.services),
        balloon: backends.balloon.map(|handle| handle.device),
        device_threads: Once::new(),
        hold: Hold::new(),
        answers: AtomicU16::new(0),
        description,
        arrived: AtomicU32::new(0),
        messages: [const { AtomicU64::new(0) }; _],
        takes: AtomicU16::new(0),
        functions: ManuallyDrop::new(backends.functions),
        routed: AtomicU16::new(u16::MAX),
        registers: ManuallyDrop::new(types::Lock::new(Vec::new())),
        threads: Once::new(),
        keeper: qvm.keeper(),
        worker: thread::current_shared(),
    })
}

/// Takes RAM, ROM and pages for registers and maps them for the guest, which can give the RAM back if there is a balloon, one that
/// `lends` or not. Returns them, and VTTBR_EL2.
fn take_memory(
    compartment: &'static Compartment,
    balloon: Option<bool>,
    shadows: &[Arc<Shadow>],
) -> Result<(&'static GuestRam, u64), Failure> {
    let description = &compartment.qvm.configuration.description;
    let memory = || {
        let writable = description.ram.iter().map(|range| (*range, false));
        let read_only = description.rom.iter().copied().chain(description.stolen_time());
        writable.chain(read_only.map(|range| (range, true)))
    };
    let lengths = memory().map(|(range, _)| range).chain(shadows.iter().map(|shadow| shadow.page()));
    let wanted = lengths.fold(0_u64, |sum, range| sum.saturating_add(range.length()));
    let no_memory = || {
        let free = crate::frames::statistics().0 as u64 * PAGE_SIZE;
        fatal(format_args!("not enough memory: {} KiB are wanted, {} KiB are free", wanted >> 10, free >> 10))
    };
    // What cannot be had is not even begun: meanwhile it would be missing elsewhere.
    if wanted > crate::frames::statistics().0 as u64 * PAGE_SIZE {
        return Err(no_memory());
    }
    // What a device reaches that nothing translates for is where the guest says it is.
    let is_unity = description.has_device(Reach::Everything);
    let unity: &[Range<Ipa>] = if is_unity { &description.ram } else { &[] };
    let regions: Vec<Range<Ipa>> = memory().map(|(range, _)| range).filter(|range| !unity.contains(range)).collect();
    kernel_work(|| {
        let owner = Owner::Vm(compartment.id);
        let ram = GuestRam::allocate(owner, &regions, unity);
        let ram = ram.and_then(|ram| ram.with_shadows(owner, shadows.iter().map(|shadow| shadow.page())));
        let no_ram = || match is_unity {
            true => {
                let ram: Vec<_> = unity.iter().map(|range| format!("{range}")).collect();
                fatal(format_args!(
                    "`uncontained`: not all of the guest's RAM is free RAM of the machine at the same addresses ({})",
                    ram.join(", ")
                ))
            }
            false => no_memory(),
        };
        let ram = ram.ok_or_else(no_ram)?;
        let confines = description.has_device(Reach::Own);
        let space = Arc::new(GuestSpace::new(compartment.id, confines).ok_or_else(no_memory)?);
        for (guest, host) in ram.pieces() {
            let read_only = memory().any(|(range, read_only)| read_only && range.contains(guest.start()));
            // A block that is split while a device uses it would fail the device for a moment.
            let by_pages =
                confines && balloon.is_some() && description.ram.iter().any(|ram| ram.contains_range(&guest));
            let mapped = space.map_memory(guest, host, read_only, by_pages);
            mapped.map_err(|error| fatal(format_args!("stage 2: {error}")))?;
        }
        for (page, frame) in ram.shadows() {
            space.map_shadow(page, frame).map_err(|error| fatal(format_args!("stage 2: {error}")))?;
        }
        if let Some(to) = controller::guests_interface() {
            let at = description.controller.cpu_interface;
            let page = Range::new(at, PAGE_SIZE).ok_or_else(no_memory)?;
            space.map_registers(page, to).map_err(|error| fatal(format_args!("stage 2: {error}")))?;
        }
        for region in description.passed.iter().flat_map(|device| &device.regions) {
            let mapped = space.map_passed(region.guest, region.host.start(), region.writable);
            mapped.map_err(|error| fatal(format_args!("stage 2: {error}")))?;
        }
        let ram = match balloon {
            Some(lends) => ram.lend(compartment, &description.ram, &space, lends).ok_or_else(no_memory)?,
            None => ram,
        };
        let (ram, vttbr) = (Box::new(ram), space.vttbr());
        // SAFETY: boxed, so it stays where it is; the compartment keeps it until the VM's last thread is gone.
        let shared: &'static GuestRam = unsafe { &*core::ptr::from_ref(&*ram) };
        compartment.memory.lock().keep(space, ram);
        Ok((shared, vttbr))
    })
}

/// The VM's memory as its devices have it.
struct Shared(&'static GuestRam);

impl GuestMemory for Shared {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.0.read(from, into)
    }
    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.0.write(to, from)
    }
    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        self.0.load(from, size)
    }
    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        self.0.store(to, size, value)
    }
    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        self.0.exchange(at, size, expected, new)
    }
    fn recall(&self, at: Ipa) -> Result<bool, MemoryFault> {
        self.0.recall(at)
    }
    fn contains(&self, range: Range<Ipa>) -> bool {
        self.0.contains(range)
    }
}
