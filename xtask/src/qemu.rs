//! `cargo xtask qemu`: build, pack the boot archive, boot on QEMU.
//!
//! Answers for: the options and the demo. Does not answer for: QEMU's own options (`qemu::machine`), what is done with
//! the output (`qemu::batch`, `qemu::interactive`), what lies where in the archive (`archive`).

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::archive::{ArchiveFile, Layout};
use crate::artifacts::{self, Profile};
use crate::configuration::Configuration;
use crate::receive::Receiver;
use crate::workspace::root;
use crate::{failure, lexical, setup};

pub(crate) mod batch;
pub(crate) mod device;
mod interactive;
pub(crate) mod machine;
pub(crate) mod raspberry;

use device::Device;
use machine::{Board, Machine};

/// The demo: a guest that needs a download, and one that does not. The words after a configuration are options of its
/// own: beside Linux, `hello` goes on for ever.
const DEMO_LINUX: &str = "guests/linux/linux.qvmconf";
const DEMO_HELLO: &str = "guests/hello/hello.qvmconf";
const DEMO_HELLO_OPTIONS: &str = "cmdline forever";

/// The file that a trace is in.
pub(crate) const CAPTURE: &str = "trace.events";

/// Options of `cargo xtask qemu`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The VMs to run; none: the demo
    #[arg(value_name = "CONFIG.qvmconf")]
    configurations: Vec<PathBuf>,
    /// The machine
    #[arg(long, value_enum, default_value = "qemu-virt")]
    board: Board,
    /// Version of the machine's interrupt controller [default: 3; the Raspberry Pi's: 2]
    #[arg(long, value_name = "2|3", value_parser = clap::value_parser!(u8).range(2..=3))]
    gic: Option<u8>,
    /// The machine's CPUs [default: 2; the Raspberry Pi's: 4, its most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    cpus: Option<u32>,
    /// The machine's RAM [default: 2G, which is what the Raspberry Pi has]
    #[arg(long, value_name = "SIZE", value_parser = machine::memory_size)]
    memory: Option<String>,
    /// QEMU's model of the CPU; `max` has everything that QEMU knows [default: cortex-a72, the Raspberry Pi's]
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// Give the machine an SMMUv3
    #[arg(long)]
    smmu: bool,
    /// A disk of the machine, the image in FILE, which is written to: /dev/hd0 for the first one, /dev/hd1 for the next; of a Raspberry Pi its
    /// SD card, of a length that is a power of two
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// A network card of the machine, /dev/net0 for the first one, which is the uplink of /dev/vswitch0, and so on; behind it is what QEMU's
    /// `-netdev` takes, without an identifier [default: user, a network of QEMU's own that leads out of the PC]
    #[arg(long, value_name = "NETDEV", num_args = 0..=1, require_equals = true, default_missing_value = "user")]
    net: Vec<String>,
    /// A function of PCI, for VMs: edu, nvme=FILE, ahci=FILE, e1000e[=NETDEV], igb[=NETDEV], FILE and NETDEV as with --disk and --net; with
    /// `port/` before it, behind a root port of its own. In this order they are at 0:1.0, 0:2.0 and so on, ports among them
    #[arg(long, value_name = "WORD")]
    device: Vec<Device>,
    /// Build with the debug profile
    #[arg(long)]
    debug: bool,
    /// Wait for a debugger (`cargo xtask gdb`)
    #[arg(long)]
    gdb: bool,
    /// Count instructions instead of time: every run is the same
    #[arg(long)]
    icount: bool,
    /// No shell, no input; output prefixed with the VM's name; ends with the last VM
    #[arg(long)]
    batch: bool,
    /// Give up after so long, with the exit status 124
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Take this kernel in place of the Linux guest's
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Take this initial file system in place of the Linux guest's
    #[arg(long, value_name = "PATH")]
    initrd: Option<PathBuf>,
    /// Where files go that the shell sends (`send FILE`) [default: target/dumps]
    #[arg(long, value_name = "FOLDER")]
    dumps: Option<PathBuf>,
    /// Passed to QEMU as they are
    #[arg(last = true, value_name = "QEMU-ARGUMENTS")]
    qemu_arguments: Vec<String>,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    arguments.refuse_unsupported()?;
    if let Some(missing) = arguments.disk.iter().find(|disk| !disk.is_file()) {
        return Err(failure::usage(format!("--disk: there is no file {}", missing.display())));
    }
    if let Some(missing) = arguments.device.iter().filter_map(Device::image).find(|image| !image.is_file()) {
        return Err(failure::usage(format!("--device: there is no file {}", missing.display())));
    }
    setup::qemu()?;
    let machine = arguments.machine();
    let replacements = arguments.replacements()?;
    let configurations = arguments.configurations()?;
    refuse_unused(&replacements, &configurations)?;
    let profile = if arguments.debug { Profile::Debug } else { Profile::Release };
    let replaced: Vec<PathBuf> = replacements.iter().map(|(replaced, _)| replaced.clone()).collect();
    let board = artifacts::provide(&configurations, &replaced, Some(arguments.board.package()), profile)?;
    let board = board.context("the board was not built")?;
    let mode = if arguments.batch { Mode::Batch } else { Mode::Interactive };
    let archive = pack_behind(&uplinks(arguments.net.len()), &configurations, mode, &replacements)?;
    let command = machine.boot(&board.image, archive.path())?;
    let limit = arguments.timeout.map(Duration::from_secs);
    match mode {
        Mode::Batch | Mode::Debugged | Mode::Traced(_) => {
            let names: Vec<&str> = configurations.iter().map(|configuration| configuration.name.as_str()).collect();
            let mut receiver = Receiver::new(arguments.dumps.as_deref(), std::io::stdout());
            let outcome = batch::run(command, limit, &mut receiver)?;
            receiver.finish();
            Ok(outcome.explain(&names, &board.elf))
        }
        Mode::Interactive => {
            if arguments.gdb {
                eprintln!("QEMU waits for a debugger: `cargo xtask gdb` in another terminal.");
            }
            interactive::run(command, limit, &board.elf, arguments.dumps.as_deref())
        }
    }
}

/// A file in place of one that nobody asks for would be left out without a word.
fn refuse_unused(replacements: &[(PathBuf, PathBuf)], configurations: &[Configuration]) -> Result<()> {
    for (replaced, by) in replacements {
        let wanted = configurations.iter().flat_map(|configuration| &configuration.wanted);
        if !wanted.into_iter().any(|wanted| wanted.path == *replaced) {
            return Err(failure::usage(format!(
                "{} would take the place of {}, which none of the configurations loads",
                by.display(),
                replaced.display()
            )));
        }
    }
    Ok(())
}

/// Who reads the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A script.
    Batch,
    /// A script that wants to know more.
    Debugged,
    /// A script that wants to know everything: all VMs are traced from the start, for so many seconds or until they have ended.
    Traced(Option<u64>),
    /// A person.
    Interactive,
}

/// Writes the boot archive for these VMs. `replacements`: files whose content comes from another file.
pub(crate) fn pack(
    configurations: &[Configuration],
    mode: Mode,
    replacements: &[(PathBuf, PathBuf)],
) -> Result<ArchiveFile> {
    pack_behind("", configurations, mode, replacements)
}

/// The commands that make each of so many network cards the uplink of the switch with the same number.
fn uplinks(count: usize) -> String {
    (0..count).map(|number| format!("uplink /dev/net{number} /dev/vswitch{number}\n")).collect()
}

/// The same, with these commands before those that start VMs.
pub(crate) fn pack_behind(
    first: &str,
    configurations: &[Configuration],
    mode: Mode,
    replacements: &[(PathBuf, PathBuf)],
) -> Result<ArchiveFile> {
    let replaced: Vec<PathBuf> = replacements.iter().map(|(replaced, _)| replaced.clone()).collect();
    for configuration in configurations {
        configuration.check_files(&replaced)?;
    }
    let wanted: Vec<_> = configurations.iter().flat_map(|configuration| configuration.wanted.clone()).collect();
    let mut layout = Layout::new(&wanted)?;
    for (replaced, by) in replacements {
        layout.replace(replaced, by);
    }
    layout.check()?;
    ArchiveFile::create(&layout, &startup(first, configurations, mode, &layout)?)
}

/// The start-up commands, one a line.
fn startup(first: &str, configurations: &[Configuration], mode: Mode, layout: &Layout) -> Result<String> {
    let mut commands = first.to_string();
    match (mode, configurations.first()) {
        (Mode::Batch, _) => commands.push_str("batch\n"),
        (Mode::Debugged, _) => commands.push_str("batch\nlog debug\n"),
        (Mode::Traced(_), _) => commands.push_str(&format!("batch\ntracelogger -b 4096 -f {CAPTURE} &\n")),
        (Mode::Interactive, Some(first)) => commands.push_str(&format!("console {}\n", first.name)),
        (Mode::Interactive, None) => {}
    }
    for configuration in configurations {
        let options =
            if configuration.options.is_empty() { String::new() } else { format!(" {}", configuration.options) };
        commands.push_str(&format!("qvm @/{}{options} &\n", layout.name(&configuration.path)?));
    }
    if let Mode::Traced(seconds) = mode {
        let until = seconds.map_or("wait".to_string(), |seconds| format!("sleep {seconds}"));
        let end = if seconds.is_some() { "shutdown -f\n" } else { "" };
        commands.push_str(&format!("{until}\ntracelogger stop\nsend {CAPTURE}\n{end}"));
    }
    Ok(commands)
}

impl Arguments {
    /// A Raspberry Pi is what it is.
    fn refuse_unsupported(&self) -> Result<()> {
        if self.board != Board::Rpi4 {
            return Ok(());
        }
        let given = [
            (self.gic.is_some_and(|version| version != 2), "--gic 3", "its interrupt controller is a GICv2"),
            (self.cpus.is_some_and(|cpus| cpus > raspberry::CPUS), "--cpus", "it has four CPUs"),
            (self.memory.is_some(), "--memory", "QEMU's has 2 GiB"),
            (self.cpu.is_some(), "--cpu", "its cores are of the kind Cortex-A72"),
            (self.smmu, "--smmu", "it has none"),
            (self.disk.len() > 1, "--disk", "it has room for one SD card"),
            (!self.net.is_empty(), "--net", "it has no network card that there is a driver for"),
            (!self.device.is_empty(), "--device", "QEMU's has no PCI bus"),
        ];
        match given.into_iter().find(|(given, ..)| *given) {
            Some((_, option, why)) => Err(failure::usage(format!("{option}: not with --board rpi4: {why}"))),
            None => Ok(()),
        }
    }

    fn cpus(&self) -> u32 {
        self.cpus.unwrap_or(if self.board == Board::Rpi4 { raspberry::CPUS } else { 2 })
    }

    fn machine(&self) -> Machine {
        let default = Machine::default();
        Machine {
            board: self.board,
            gic: self.gic.unwrap_or(default.gic),
            cpus: self.cpus(),
            memory: self.memory.clone().unwrap_or(default.memory),
            cpu: self.cpu.clone().unwrap_or(default.cpu),
            smmu: self.smmu,
            wait_for_debugger: self.gdb,
            count_instructions: self.icount,
            input: !self.batch,
            disks: self.disk.clone(),
            nets: self.net.clone(),
            devices: self.device.clone(),
            alter: default.alter,
            more: self.qemu_arguments.clone(),
        }
    }

    fn configurations(&self) -> Result<Vec<Configuration>> {
        let own = self.kernel.is_some() && self.initrd.is_some();
        // Alone and in a batch it has to end some time.
        configurations(&self.configurations, Some(self.cpus()), own, if self.batch { "" } else { DEMO_HELLO_OPTIONS })
    }

    fn replacements(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut replacements = Vec::new();
        for (own, replaced) in [(&self.kernel, setup::LINUX_IMAGE), (&self.initrd, setup::LINUX_INITRAMFS)] {
            if let Some(own) = own {
                let own = lexical::absolute(own).with_context(|| format!("{} leads nowhere", own.display()))?;
                replacements.push((root().join(replaced), own));
            }
        }
        Ok(replacements)
    }
}

/// Reads these configurations; without any, those of the demo, whose guest `hello` gets options.
/// `own_linux`: the files of the Linux guest come from elsewhere.
fn configurations(
    paths: &[PathBuf],
    cpus: Option<u32>,
    own_linux: bool,
    hello_options: &str,
) -> Result<Vec<Configuration>> {
    if !paths.is_empty() {
        return paths.iter().map(|path| Configuration::read(path, "", cpus)).collect();
    }
    let mut demo = Vec::new();
    match if own_linux { Ok(()) } else { setup::linux_guest() } {
        Ok(()) => demo.push(Configuration::read(&root().join(DEMO_LINUX), "", cpus)?),
        Err(error) => eprintln!("no Linux guest, the demo runs the in-tree guests alone: {error:#}"),
    }
    demo.push(Configuration::read(&root().join(DEMO_HELLO), hello_options, cpus)?);
    Ok(demo)
}

/// The VMs of `paths`, or the demo's, for a machine that a person will sit before.
pub(crate) fn configurations_to_keep(paths: &[PathBuf], cpus: Option<u32>) -> Result<Vec<Configuration>> {
    configurations(paths, cpus, false, DEMO_HELLO_OPTIONS)
}

/// A command that runs QEMU and ends with this tool.
pub(crate) fn qemu() -> Command {
    crate::child::guarded("qemu-system-aarch64")
}
