//! The first thread: the boot archive, the start-up script, and the VMs it names.
//!
//! Answers for: carrying the script out (`host::startup` reads it), and bringing each configuration from text to a running
//! VM with every complaint on the console. Does not answer for: what configurations mean (`vm`), the life of a VM
//! (`partition`).

use crate::partition::{self, Failure, Number, Plan};
use crate::{board, console, start, thread};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use host::archive::Archive;
use host::console::{Stream, VmNumber};
use host::startup::{self as script, Command, Part, Qvm, Word};
use qvmconf::Sources;
use sched::{Parameters, Policy, Priority};
use spin::Once;
use types::{CpuSet, Ipa, MAX_CPUS, Range};
use vdev::{BackendError, Backends, Cause, CharDevice, DeviceId, GuestMemory, HostDevice};
use vm::Files;
use vm::assemble::{AssembleError, Assembled, Host};
use vm::config::{self, Configuration, CpuConfig, CpuPolicy, Includes, Limits};
use vm::id_registers::IdRegisters;
use vm::smccc::{Mitigation, Mitigations, SMCCC_ARCH_WORKAROUND_1, SMCCC_ARCH_WORKAROUND_2, SMCCC_ARCH_WORKAROUND_3};

/// Priority of the first thread and of the VMs' main threads: starting and ending VMs gets its share while VMs with the
/// default priority are busy.
pub(crate) const PRIORITY: u8 = 20;

/// The boot archive, for as long as the machine runs.
static ARCHIVE: Once<Archive<'static>> = Once::new();

fn print(text: &str) {
    console::with(|multiplexer| multiplexer.print(text));
}

/// How threads of the host that work for VMs are scheduled.
pub(crate) fn host_parameters(priority: u8) -> Parameters {
    Parameters {
        priority: Priority::new(priority).unwrap_or(Priority::LOWEST),
        policy: Policy::RoundRobin,
        affinity: CpuSet::first(MAX_CPUS),
    }
}

/// The first thread.
pub(crate) fn run() {
    if let Err(error) = console::start_thread() {
        log::error!("no memory for the console's thread ({error:?})");
    }
    let mut background = Vec::new();
    match steps() {
        Ok(steps) => steps.into_iter().for_each(|step| carry_out(step, &mut background)),
        Err(message) => {
            print(&format!("bulkhead: {message}"));
            // Whoever runs a batch learns of it by the machine's end.
            console::with(host::console::Multiplexer::set_batch);
        }
    }
    console::with(host::console::Multiplexer::set_complete);
    background.iter().for_each(thread::join);
}

fn steps() -> Result<Vec<script::Step<'static>>, String> {
    let initrd = start::MACHINE.get().and_then(|machine| machine.initrd);
    let Some(initrd) = initrd else {
        return Err("cannot run here: there is no boot archive: pass one as initrd (`cargo xtask qemu` does)".into());
    };
    // SAFETY: where the boot loader put the initrd; the frame allocator leaves it alone, and nobody writes there.
    let data = unsafe { core::slice::from_raw_parts(initrd.start().0 as *const u8, initrd.length() as usize) };
    let archive = Archive::new(data).map_err(|error| format!("cannot run here: boot archive: {error}"))?;
    let archive = ARCHIVE.call_once(|| archive);
    let Some(script) = archive.get(script::FILE) else {
        return Err(format!("cannot run here: the boot archive has no `{}`", script::FILE));
    };
    script::parse(script).map_err(|errors| {
        errors.iter().for_each(|error| print(&format!("{error}")));
        format!("cannot run here: the boot archive's `{}` is wrong", script::FILE)
    })
}

fn carry_out(step: script::Step<'static>, background: &mut Vec<Arc<thread::Thread>>) {
    match step.command {
        Command::Batch => {
            console::with(host::console::Multiplexer::set_batch);
        }
        Command::Console(name) => {
            console::with(|multiplexer| multiplexer.set_foreground(name));
        }
        Command::Log(level) => console::log().set_level(level),
        Command::Qvm(qvm) => start_vm(&qvm, background),
    }
}

/// Reads a VM's configuration, puts it on the console, and starts its main thread. The first two in the script's own order:
/// that is how VMs are numbered, and a batch cannot be over before all of its VMs are known.
fn start_vm(qvm: &Qvm<'static>, background: &mut Vec<Arc<thread::Thread>>) {
    let Some(archive) = ARCHIVE.get() else { return };
    let mut sources = Sources::new();
    let configuration = match read(archive, &qvm.parts, &mut sources) {
        Ok(configuration) => configuration,
        Err((name, complaint)) => {
            print(&complaint);
            return refuse(&name, Cause::Configuration, "");
        }
    };
    let name = configuration.description.name.clone();
    let Some(id) = Number::new() else { return refuse(&name, Cause::Fatal, "too many VMs") };
    let Some((number, stream)) = console::with(|multiplexer| multiplexer.attach(&name)).flatten() else {
        return refuse(&name, Cause::Fatal, "too many VMs on the console");
    };
    let main = move || {
        let name = configuration.description.name.clone();
        console::log().choose(&name, configuration.messages);
        let (cause, detail) = match build(archive, id, configuration, &sources, number, stream) {
            Ok(end) | Err(end) => end,
        };
        console::log().choose(&name, None);
        console::with(|multiplexer| multiplexer.ended(number, cause, &detail));
    };
    match thread::spawn(format!("qvm {name}"), host_parameters(PRIORITY), main) {
        Ok(thread) if !qvm.background => thread::join(&thread),
        Ok(thread) => background.push(thread),
        Err(error) => {
            let why = format!("no thread: {error:?}");
            console::with(|multiplexer| multiplexer.ended(number, Cause::Fatal, &why));
        }
    }
}

/// The end of a VM that never was on the console.
fn refuse(name: &str, cause: Cause, detail: &str) {
    console::with(|multiplexer| multiplexer.refused(name, cause, detail));
}

/// What a VM is called whose configuration is of no use, and why that is so.
type Unreadable = (String, String);

fn read(
    archive: &Archive<'static>,
    parts: &[Part<'static>],
    sources: &mut Sources,
) -> Result<Configuration, Unreadable> {
    let mut roots = Vec::new();
    let mut missing = String::new();
    for part in parts {
        match part {
            Part::File(word) => {
                let contents = archive.get(word.text);
                if contents.is_none() {
                    let Word { text, line, column } = *word;
                    let message = format!("there is no file `{text}` in the boot archive");
                    missing.push_str(&format!("{}\n", script::ScriptError { line, column, message }));
                }
                roots.push(sources.add_file(word.text, contents.unwrap_or_default()));
            }
            Part::Inline(word) => roots.push(sources.add_text("command line", "", word.text)),
        }
    }
    let vocabulary = config::vocabulary(board::factories());
    let document = qvmconf::parse(sources, &roots, &mut Includes(archive), &vocabulary);
    let name = config::name_of(&document);
    if !missing.is_empty() {
        return Err((name, missing));
    }
    let limits = Limits { cpus: start::MACHINE.get().map(|machine| machine.cpus.len()) };
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
struct HostDevices(Arc<Stream>);

impl Backends for HostDevices {
    fn character(&mut self, id: DeviceId, device: &HostDevice) -> Result<Box<dyn CharDevice>, BackendError> {
        if device.is_console() {
            crate::sync::masked(|| self.0.open(id, device))
        } else {
            Err(BackendError(format!("there is no host device `{device}`; `-` is the VM's console")))
        }
    }
}

fn build(
    archive: &Archive<'static>,
    id: Number,
    configuration: Configuration,
    sources: &Sources,
    number: VmNumber,
    stream: Arc<Stream>,
) -> Result<(Cause, String), Failure> {
    let Configuration { description, cpus, exit_on_halt, spans, .. } = configuration;
    let writable = description.ram.iter().map(|range| (*range, false));
    let memory: Vec<(Range<Ipa>, bool)> = writable.chain(description.rom.iter().map(|range| (*range, true))).collect();
    let host = host().ok_or_else(|| (Cause::Fatal, String::from("the counter's frequency is unknown")))?;
    let mut backends = HostDevices(Arc::clone(&stream));
    let wrong = |errors: Vec<AssembleError>| {
        let mut diagnostics = qvmconf::Diagnostics::new();
        diagnostics.extend(errors.iter().map(|error| spans.diagnostic(error)));
        print(&format!("{}", sources.render_all(&diagnostics)));
        (Cause::Configuration, String::new())
    };
    let Assembled { vm, load, tree } =
        vm::assemble::assemble(&description, archive, &host, &mut backends).map_err(wrong)?;
    let vcpus = cpus.iter().map(parameters).collect();
    let plan = Plan { vm, id, memory, vcpus, exit_on_halt, number, stream };
    partition::live(plan, &mut |memory: &dyn GuestMemory| {
        let loaded = load.execute(archive as &dyn Files, &tree, memory, &mut |_| {});
        loaded.map_err(|error| wrong(alloc::vec![error.into()]))?;
        Ok((load.entry, load.device_tree_at))
    })
}

fn parameters(cpu: &CpuConfig) -> Parameters {
    Parameters {
        priority: Priority::new(cpu.priority).unwrap_or(Priority::LOWEST),
        policy: match cpu.policy {
            CpuPolicy::RoundRobin => Policy::RoundRobin,
            CpuPolicy::Fifo => Policy::Fifo,
        },
        affinity: cpu.runmask.unwrap_or(CpuSet::first(MAX_CPUS)),
    }
}

/// What guests get to know of the host's CPUs.
fn host() -> Option<Host<'static>> {
    let vtr = el2::interface::vtr();
    let mitigation = |function| match el2::firmware::architecture_feature(function) {
        Some(0) => Mitigation::Required,
        Some(_) => Mitigation::NotRequired,
        None => Mitigation::Unknown,
    };
    Some(Host {
        id: IdRegisters::new(el2::cpu::identification()),
        frequency: el2::cpu::counter_frequency()?,
        list_registers: (vtr & 0x1f) as usize + 1,
        priority_bits: ((vtr >> 29) & 7) as u8 + 1,
        mitigations: Mitigations {
            workaround_1: mitigation(SMCCC_ARCH_WORKAROUND_1),
            workaround_2: mitigation(SMCCC_ARCH_WORKAROUND_2),
            workaround_3: mitigation(SMCCC_ARCH_WORKAROUND_3),
        },
        seed: &[],
    })
}
