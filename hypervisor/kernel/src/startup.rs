//! The boot archive, and what VMs are built from besides it.
//!
//! Answers for: finding the archive, reading a VM's configuration with every complaint on the console, the back ends that
//! `hostdev` names, what guests get to know of the host's CPUs. Does not answer for: what configurations mean (`vm`), the
//! lives of VMs (`qvm`), the commands that start them (`shell`).

use crate::address_space::Image;
use crate::compartment::Compartment;
use crate::function::{self, Handle};
use crate::guest_memory::{BalloonHandle, Shadow};
use crate::services::Services;
use crate::shared::{self, Share, Shares};
use crate::{
    board, console, controller, disk, groups, net, passed, silicon, smmuman, stage2, start, thread, trace, vsock,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use drivers::Mmio;
use drivers::pl031::Pl031;
use host::archive::Archive;
use host::console::Terminal;
use host::shell::{Part, Word};
use machine::{Machine, Tree};
use qvmconf::{SourceId, Sources};
use sched::{Parameters, Policy, Priority, ShareId, Sporadic};
use spin::Once;
use types::{CpuSet, Frequency, Ipa, MAX_CPUS, Range, Ticks};
use vdev::{
    BackendError, Backends, Balloon, BlockDevice, CharDevice, DeviceId, Entropy, FunctionFacts, HostDevice, HostDisk,
    HostFiles, HostFunction, HostStreams, Mac, NetPort, NetWish, NewWorker, RegionWishes, Registers, ShadowPage,
    SharedMemory, TraceSink, VsockPort, VsockWish, WantedFunction,
};
use vm::assemble::Host;
use vm::config::{self, Configuration, CpuConfig, CpuPolicy, Includes, Limits};
use vm::id_registers::IdRegisters;
use vm::smccc::{Mitigation, Mitigations, SMCCC_ARCH_WORKAROUND_1, SMCCC_ARCH_WORKAROUND_2, SMCCC_ARCH_WORKAROUND_3};

/// Priority of the shell and of the threads that look after VMs: starting and ending VMs gets its share while VMs with the
/// default priority are busy.
pub(crate) const PRIORITY: u8 = 20;

/// The boot archive, for as long as the machine runs.
static ARCHIVE: Once<Archive<'static>> = Once::new();

pub(crate) fn print(text: &str) {
    console::with(|multiplexer| multiplexer.print(text));
}

/// How threads of the host that work for VMs are scheduled.
pub(crate) fn host_parameters(priority: u8) -> Parameters {
    Parameters {
        priority: Priority::new(priority).unwrap_or(Priority::LOWEST),
        policy: Policy::RoundRobin,
        affinity: CpuSet::first(MAX_CPUS),
        share: ShareId::SYSTEM,
    }
}

/// How a vCPU's thread is scheduled.
pub(crate) fn parameters(cpu: &CpuConfig) -> Parameters {
    Parameters {
        priority: Priority::new(cpu.priority).unwrap_or(Priority::LOWEST),
        policy: match cpu.policy {
            CpuPolicy::RoundRobin => Policy::RoundRobin,
            CpuPolicy::Fifo => Policy::Fifo,
            CpuPolicy::Sporadic(server) => sporadic(&server),
        },
        affinity: cpu.runmask.unwrap_or(CpuSet::first(MAX_CPUS)),
        share: ShareId::from_index(cpu.partition as u8),
    }
}

fn sporadic(server: &qvmconf::SporadicServer) -> Policy {
    const { assert!(qvmconf::SporadicServer::MAX_REPLENISHMENTS <= Sporadic::MAX_REPLENISHMENTS) };
    let ticks = |nanoseconds| {
        let ticks = el2::cpu::counter_frequency().map_or(Ticks(1), |frequency| frequency.nanoseconds(nanoseconds));
        ticks.clamp(Ticks(1), Ticks(i64::MAX as u64))
    };
    Policy::Sporadic(Sporadic {
        low: Priority::new(server.low).unwrap_or(Priority::LOWEST),
        max_replenishments: server.max_replenishments,
        period: ticks(server.period),
        budget: ticks(server.budget),
    })
}

/// The boot archive, once it has been found.
pub(crate) fn archive() -> Option<&'static Archive<'static>> {
    ARCHIVE.get()
}

/// Finds the boot archive.
///
/// # Errors
/// Why there is none.
pub(crate) fn find_archive() -> Result<&'static Archive<'static>, String> {
    let machine = start::MACHINE.get();
    let Some((machine, initrd)) = machine.and_then(|machine| Some((machine, machine.initrd?))) else {
        return Err("cannot run here: there is no boot archive: pass one as initrd (`cargo xtask qemu` does)".into());
    };
    if !machine.memory.iter().any(|bank| bank.contains_range(&initrd)) {
        return Err(format!(
            "cannot run here: the boot archive is at {initrd} (`linux,initrd-start`): no RAM is there"
        ));
    }
    if Image::here().whole().overlaps(&initrd) {
        return Err(format!(
            "cannot run here: the boot archive is at {initrd}, where this image is: load it elsewhere"
        ));
    }
    // SAFETY: RAM, which is mapped, where the boot loader put the initrd; the frame allocator leaves it alone, and nobody writes
    // there.
    let data = unsafe { core::slice::from_raw_parts(initrd.start().0 as *const u8, initrd.length() as usize) };
    let archive = Archive::new(data).map_err(|error| format!("cannot run here: boot archive: {error}"))?;
    Ok(ARCHIVE.call_once(|| archive))
}

/// Adds what a command line consists of to the sources.
///
/// # Errors
/// The files that are missing, as `missing` says it.
pub(crate) fn roots(
    archive: &Archive<'_>,
    parts: &[Part<'_>],
    sources: &mut Sources,
    missing: impl Fn(&Word<'_>, String) -> String,
) -> Result<Vec<SourceId>, String> {
    let (roots, complaints) = add_all(archive, parts, sources, missing);
    if complaints.is_empty() { Ok(roots) } else { Err(complaints) }
}

/// The same, with an empty file for each that is missing, and what is missing.
fn add_all(
    archive: &Archive<'_>,
    parts: &[Part<'_>],
    sources: &mut Sources,
    missing: impl Fn(&Word<'_>, String) -> String,
) -> (Vec<SourceId>, String) {
    let (mut roots, mut complaints) = (Vec::new(), String::new());
    for part in parts {
        match part {
            Part::File(word) => {
                let contents = archive.get(word.text);
                if contents.is_none() {
                    let complaint = missing(word, format!("there is no file `{}` in the boot archive", word.text));
                    complaints.push_str(&complaint);
                    complaints.push('\n');
                }
                roots.push(sources.add_file(word.text, contents.unwrap_or_default()));
            }
            Part::Inline(word) => roots.push(sources.add_text("command line", "", word.text)),
        }
    }
    (roots, complaints)
}

/// What a VM is called whose configuration is of no use, and why that is so.
pub(crate) type Unreadable = (String, String);

/// Reads a VM's configuration. `complain` says in its own words that a file is missing.
pub(crate) fn read(
    parts: &[Part<'_>],
    sources: &mut Sources,
    missing: impl Fn(&Word<'_>, String) -> String,
) -> Result<Configuration, Unreadable> {
    let Some(archive) = archive() else { return Err((String::new(), "there is no boot archive".into())) };
    let (roots, complaints) = add_all(archive, parts, sources, missing);
    let vocabulary = config::vocabulary(board::factories());
    let document = qvmconf::parse(sources, &roots, &mut Includes(archive), &vocabulary);
    let name = config::name_of(&document);
    if !complaints.is_empty() {
        return Err((name, complaints));
    }
    let groups = groups::all();
    let limits = Limits { cpus: start::MACHINE.get().map(|machine| machine.cpus.len()), groups: groups.as_ref() };
    match config::build(&document, sources, board::factories(), limits) {
        Ok((configuration, warnings)) => {
            if !warnings.is_empty() {
                print(&format!("{}", sources.render_all(&warnings)));
            }
            Ok(configuration)
        }
        Err(diagnostics) => Err((name, format!("{}", sources.render_all(&diagnostics)))),
    }
}

/// The back ends that a VM's `hostdev`s name. So far there is one: its console.
pub(crate) struct HostDevices {
    pub(crate) compartment: &'static Compartment,
    pub(crate) terminal: Arc<Terminal>,
    /// Which devices watch which VMs.
    pub(crate) watches: Vec<(DeviceId, String)>,
    /// What they have of shared memory.
    pub(crate) shares: Shares,
    /// Threads for them.
    pub(crate) services: Services,
    /// What its guest can give back.
    pub(crate) balloon: Option<Arc<BalloonHandle>>,
    /// Pages from which it reads registers.
    pub(crate) shadows: Vec<Arc<Shadow>>,
    /// Functions of the machine that it passes, in the order of its configuration.
    pub(crate) functions: Vec<Arc<Handle>>,
    /// Registers of passed devices.
    pub(crate) registers: Vec<Arc<passed::Window>>,
}

impl Backends for HostDevices {
    fn function(
        &mut self,
        id: DeviceId,
        wanted: WantedFunction,
        without_reset: bool,
    ) -> Result<(FunctionFacts, Arc<dyn HostFunction>), BackendError> {
        let (facts, handle) = function::find(self.compartment, &self.functions, id, wanted, without_reset)?;
        self.functions.push(Arc::clone(&handle));
        Ok((facts, handle))
    }

    fn streams(&mut self) -> Option<Arc<dyn HostStreams>> {
        smmuman::Handle::new(self.compartment).map(|handle| Arc::new(handle) as Arc<dyn HostStreams>)
    }

    fn watch(&mut self, id: DeviceId, vm: &str) -> Result<(), BackendError> {
        self.watches.push((id, vm.into()));
        Ok(())
    }

    fn disk(&mut self, device: &str, disk: &HostDisk) -> Result<Box<dyn BlockDevice>, BackendError> {
        disk::open(self.compartment, device, disk)
    }

    fn directory(&mut self, path: &str) -> Result<HostFiles, BackendError> {
        let found = archive().ok_or_else(|| String::from("there is no boot archive")).and_then(|it| it.directory(path));
        found.map_err(BackendError)
    }

    fn net(&mut self, id: DeviceId, wish: &NetWish) -> Result<(Mac, Arc<dyn NetPort>), BackendError> {
        net::attach(self.compartment, id, wish)
    }

    fn vsock(&mut self, id: DeviceId, wish: &VsockWish) -> Result<(u32, Arc<dyn VsockPort>), BackendError> {
        vsock::attach(self.compartment, id, wish)
    }

    fn balloon(&mut self, id: DeviceId, lends: bool) -> Result<Arc<dyn Balloon>, BackendError> {
        if self.balloon.is_some() {
            return Err(BackendError("the VM has a balloon already".into()));
        }
        let handle = Arc::new(BalloonHandle::new(id, lends));
        self.balloon = Some(Arc::clone(&handle));
        Ok(handle)
    }

    fn shadow_page(&mut self, page: Range<Ipa>) -> Option<Arc<dyn ShadowPage>> {
        if page.end().0 > 1 << stage2::layout().ipa_bits() {
            return None;
        }
        let shadow = Arc::new(Shadow::new(page));
        self.shadows.push(Arc::clone(&shadow));
        Some(shadow)
    }

    fn registers(&mut self, region: Ipa) -> Result<Arc<dyn Registers>, BackendError> {
        let mut regions = self.compartment.description().passed.iter().flat_map(|device| &device.regions);
        let Some(found) = regions.find(|found| found.guest.start() == region) else {
            return Err(BackendError(format!("nothing is passed at {region}")));
        };
        if found.host.length() > passed::MOST_REGISTERS {
            return Err(BackendError(format!("{} is too much: the host reaches 1M of registers", found.guest)));
        }
        let window = Arc::new(passed::Window::new(*found));
        self.registers.push(Arc::clone(&window));
        Ok(window)
    }

    fn worker(&mut self, id: DeviceId, new: NewWorker) -> Result<(), BackendError> {
        self.services.add_worker(id, new)
    }

    fn shared_memory(
        &mut self,
        id: DeviceId,
        window: Range<Ipa>,
        wishes: RegionWishes,
    ) -> Result<Box<dyn SharedMemory>, BackendError> {
        let share = Share::new(id, window, wishes);
        self.shares.push(Arc::clone(&share));
        Ok(Box::new(shared::Handle(share)))
    }

    fn trace(&self) -> &'static dyn TraceSink {
        &trace::Sink
    }

    fn entropy(&self) -> Option<Entropy> {
        board::entropy()
    }

    fn character(&mut self, id: DeviceId, device: &HostDevice) -> Result<Box<dyn CharDevice>, BackendError> {
        if device.is_console() {
            crate::sync::masked(|| self.terminal.open(id, device))
        } else {
            Err(BackendError(format!("there is no host device `{device}`; `-` is the VM's console")))
        }
    }
}

/// Entropy for one guest's device tree; empty on a machine that has none.
pub(crate) fn seed() -> Vec<u8> {
    const WORDS: usize = 9;
    /// A device may need some time for each word.
    const ATTEMPTS: usize = 50;
    let Some(source) = board::entropy() else { return Vec::new() };
    let word = || {
        (0..ATTEMPTS).find_map(|attempt| {
            if attempt > 0 {
                thread::sleep_until(console::pause());
            }
            source()
        })
    };
    (0..WORDS).map_while(|_| word()).flat_map(u64::to_ne_bytes).collect()
}

/// The machine's device tree, for what is passed to guests.
static TREE: Once<Vec<u8>> = Once::new();

/// Keeps what there is in the tree, whose own memory is given back.
pub(crate) fn keep_tree(tree: &Tree<'_>) {
    // Without it nothing can be passed.
    if let Ok(tree) = tree.compact() {
        TREE.call_once(|| tree);
    }
}

/// What was kept of the tree; nothing if nothing was.
pub(crate) fn tree() -> &'static [u8] {
    TREE.get().map_or(&[], Vec::as_slice)
}

/// Seconds since 1970 when the counter was zero; zero if nobody knows.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Asks the board's clock for the time of day, once.
pub(crate) fn read_calendar(machine: &Machine, frequency: Frequency) {
    if let Some(registers) = machine.calendar.as_ref().filter(|registers| registers.length() >= 4) {
        // It may share its page with a device that is mapped, or the tree may be wrong: no reason not to start.
        if !start::try_map_device(*registers) {
            log::warn!("the clock at {registers} cannot be mapped: guests do not get to know the time of day");
            return;
        }
        // SAFETY: a PL031 by the device tree, mapped just now; nobody else uses it.
        let seconds = Pl031::new(unsafe { Mmio::of(registers) }).seconds();
        let since_start = el2::cpu::counter().0 / u64::from(frequency.hertz());
        EPOCH.store(u64::from(seconds).saturating_sub(since_start), Ordering::Relaxed);
    }
}

/// What guests get to know of the host's CPUs.
pub(crate) fn host(seed: &[u8]) -> Option<Host<'_>> {
    let (list_registers, priority_bits) = controller::list_registers();
    let mitigation = |function| match silicon::firmware_feature(function) {
        Some(0) => Mitigation::Required,
        Some(_) => Mitigation::NotRequired,
        None => Mitigation::Unknown,
    };
    Some(Host {
        id: IdRegisters::new(el2::cpu::identification()),
        frequency: el2::cpu::counter_frequency()?,
        epoch: EPOCH.load(Ordering::Relaxed),
        gic: controller::version(),
        list_registers,
        priority_bits,
        mitigations: Mitigations {
            workaround_1: mitigation(SMCCC_ARCH_WORKAROUND_1),
            workaround_2: mitigation(SMCCC_ARCH_WORKAROUND_2),
            workaround_3: mitigation(SMCCC_ARCH_WORKAROUND_3),
        },
        monitors: start::MACHINE.get().is_some_and(|machine| machine.monitors.is_some()),
        entropy: board::entropy(),
        tree: Some(tree()),
        seed,
    })
}
