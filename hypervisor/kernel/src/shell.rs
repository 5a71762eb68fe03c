//! The shell's thread: the start-up script, then what is typed.
//!
//! Answers for: carrying commands out (`host::shell` reads them). Does not answer for: the lives of VMs (`qvm`), the line
//! that is being typed and what reports look like (`host::shell`).

mod keyboard;
mod shm;

use crate::compartment::Requests;
use crate::frames;
use crate::guest_memory::Refused;
use crate::qvm::{self, Qvm};
use crate::report::{self, Snapshot};
use crate::startup::{self, find_archive, print};
use crate::thread::{self, Thread};
use crate::{board, console, files, groups, pcie, smmuman, trace, uplink};
use alloc::collections::vec_deque::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use host::console::Multiplexer;
use host::shell::{self, Command, CommandError, Completions, Editor, Named, Pidin, Signal};
use keyboard::{Keyboard, Lines};
use qvmconf::Sources;
use spin::Once;
use types::{PAGE_SIZE, Ticks};
use vdev::Cause;

/// How long `shutdown` and `reset` wait for VMs that were asked to end, and others for one that is being put together, in microseconds.
const PATIENCE: u64 = 10_000_000;

/// How often `dump` and `tracelogger` show how far they are, in microseconds, and for how many looks `dump` waits for it to go
/// on.
const DUMP_LOOK: u64 = 250_000;
const DUMP_LOOKS: u32 = 80;

/// How often it is looked whether a VM has been put together, in microseconds.
const BEGIN_LOOK: u64 = 10_000;

static THREAD: Once<Arc<Thread>> = Once::new();

/// Where a command's answer goes.
type Output<'a> = &'a mut dyn fmt::Write;

/// A VM has ended, something was typed, or there is room for output again: the shell has a look.
pub(crate) fn notify() {
    if let Some(thread) = THREAD.get() {
        thread::notify(thread);
    }
}

/// What completion can choose from.
struct Names;

impl Completions for Names {
    fn each(&self, named: Named, offer: &mut dyn FnMut(&str)) {
        match named {
            Named::Vm => qvm::all().iter().for_each(|qvm| offer(&qvm.name)),
            Named::Vdev => board::factories().iter().for_each(|factory| offer(factory.name)),
            Named::File => {
                let files = startup::archive().into_iter().flat_map(host::archive::Archive::files);
                files.for_each(|(name, _)| offer(name));
            }
        }
    }
}

/// What the shell knows of the VMs that it has started.
struct Shell {
    /// Each with the thread that looks after it.
    started: Vec<(Arc<Qvm>, Arc<Thread>)>,
    batch: bool,
    /// From when on somebody can type.
    keyboard: Option<Keyboard>,
}

/// The first thread.
pub(crate) fn run() {
    if let Some(me) = thread::current_shared() {
        THREAD.call_once(|| me);
    }
    if let Err(error) = console::start_thread() {
        log::error!("no memory for the console's thread ({error:?})");
    }
    let mut shell = Shell { started: Vec::new(), batch: false, keyboard: None };
    match script() {
        Ok(steps) => {
            for step in &steps {
                shell.carry_out(&step.command, &mut Lines(String::new()));
            }
        }
        Err(message) => {
            print(&format!("bulkhead: {message}"));
            // Whoever runs a batch learns of it by the machine's end.
            shell.carry_out(&Command::Batch, &mut Lines(String::new()));
        }
    }
    console::with(Multiplexer::set_complete);
    if !shell.batch
        && let Some(stream) = console::with(Multiplexer::shell)
    {
        shell.keyboard = Some(Keyboard { stream, ahead: VecDeque::new() });
    }
    shell.converse()
}

fn script() -> Result<Vec<shell::Step<'static>>, String> {
    let Some(script) = find_archive()?.get(shell::FILE) else {
        return Err(format!("cannot run here: the boot archive has no `{}`", shell::FILE));
    };
    shell::parse(script).map_err(|errors| {
        errors.iter().for_each(|error| print(&format!("{error}")));
        format!("cannot run here: the boot archive's `{}` is wrong", shell::FILE)
    })
}

impl Shell {
    fn carry_out(&mut self, command: &Command<'_>, out: Output<'_>) {
        match *command {
            Command::Qvm(ref qvm) => self.start(qvm),
            Command::Slay(signal, ref names) => names.iter().for_each(|name| slay(name, signal, out)),
            Command::Wait(ref names) => self.wait(names, out),
            Command::Status(name) => slay(name, Signal::Usr1, out),
            Command::Dump { name, to } => self.dump(name, to, out),
            Command::Files => list_files(out),
            Command::Send(name) => {
                if !files::send(name, || !self.is_interrupted()) {
                    no_file(name, out);
                }
            }
            Command::Remove(name) => {
                if !files::remove(name) {
                    no_file(name, out);
                }
            }
            Command::Record(ref record) => self.record(record, out),
            Command::StopRecording => {
                if !trace::stop() {
                    let _ = writeln!(out, "shell: nothing is being traced");
                }
                self.wait_until(|| !trace::is_recording());
            }
            Command::Pause(name) => {
                self.let_begin(name);
                pause(name, true, out);
            }
            Command::Resume(name) => pause(name, false, out),
            Command::Balloon { name, bytes } => {
                self.let_begin(name);
                balloon(name, bytes, out);
            }
            Command::Console(name) => {
                console::with(|multiplexer| multiplexer.set_foreground(name));
            }
            Command::Batch => {
                self.batch = true;
                console::with(Multiplexer::set_batch);
            }
            Command::Log(level) => console::log().set_level(level),
            Command::Sleep { milliseconds } => self.sleep(milliseconds.saturating_mul(1000), || false),
            Command::End { reset, force } => self.end(reset, force),
            Command::Slog2info(vm) => show_log(vm, out),
            Command::Smmuman(ref parts) => {
                if let Err(wrong) = smmuman::configure(parts, missing) {
                    let _ = writeln!(out, "{}", wrong.trim_end());
                }
            }
            Command::Pci(command) => pcie::carry_out(command, out),
            Command::Shm(command) => shm::carry_out(self, command, out),
            Command::Use(vdev) => explain_vdev(vdev, out),
            Command::Partition { name, percent } => {
                complain("partition", name, groups::define_partition(name, percent), out);
            }
            Command::Uplink(ref uplink) => {
                complain("uplink", &format!("/dev/net{}", uplink.card), uplink::connect(uplink), out);
            }
            Command::Cluster { name, cpus } => complain("cluster", name, groups::define_cluster(name, cpus), out),
            Command::Help(word) => drop(shell::help(word, out)),
            Command::Pidin(what) => {
                if let (Ok(false), Pidin::Vm(name)) = (report::pidin(what, out), what) {
                    unknown(name, out);
                }
            }
            Command::Top { milliseconds } => self.top(milliseconds, out),
        }
    }

    /// Does what is typed, for ever.
    fn converse(&mut self) -> ! {
        let (mut editor, mut echo) = (Editor::default(), String::new());
        editor.prompt(&mut echo);
        loop {
            if let Some(keyboard) = &self.keyboard {
                keyboard.send(echo.as_bytes());
                echo.clear();
            }
            match self.keyboard.as_mut().and_then(Keyboard::read) {
                Some(byte) => {
                    let line = editor.press(byte, &Names, &mut echo);
                    if let Some(line) = line {
                        self.obey(&echo, &line);
                        echo.clear();
                        editor.prompt(&mut echo);
                    }
                }
                // Whoever waited for a thread's end may have been told meanwhile that something was typed.
                None if self.bury() => {}
                None => thread::sleep_until(Ticks::NEVER),
            }
        }
    }

    /// Does what a line says that was typed; `echo` comes first.
    fn obey(&mut self, echo: &str, line: &str) {
        let Some(keyboard) = &self.keyboard else { return };
        let mut out = Keyboard { stream: keyboard.stream, ahead: VecDeque::new() };
        out.send(echo.as_bytes());
        match shell::read(line) {
            Ok(Some(command)) => self.carry_out(&command, &mut out),
            Ok(None) => {}
            Err(error) => drop(writeln!(out, "{error}")),
        }
    }

    /// Whether Ctrl-C was typed.
    fn is_interrupted(&mut self) -> bool {
        self.keyboard.as_mut().is_some_and(Keyboard::listen)
    }

    fn start(&mut self, qvm: &shell::Qvm<'_>) {
        let mut sources = Sources::new();
        match startup::read(&qvm.parts, &mut sources, missing) {
            Ok(configuration) => {
                if let Some((vm, keeper)) = qvm::start(configuration, sources) {
                    self.started.push((Arc::clone(&vm), keeper));
                    if !qvm.background {
                        self.wait_until(|| vm.has_left());
                    }
                }
            }
            Err((name, complaint)) => {
                print(&complaint);
                qvm::refuse(&name, Cause::Configuration, "");
            }
        }
    }

    /// Frees what is left of threads that have nothing to look after any more. Says whether there were any: then it may have slept.
    fn bury(&mut self) -> bool {
        let before = self.started.len();
        self.started.retain(|(vm, keeper)| {
            let has_left = vm.has_left();
            if has_left {
                thread::join(keeper);
            }
            !has_left
        });
        self.started.len() != before
    }

    /// Waits until `done` says so, which is looked at whenever a VM has ended, or until Ctrl-C.
    fn wait_until(&mut self, done: impl Fn() -> bool) {
        while !done() && !self.is_interrupted() {
            thread::sleep_until(Ticks::NEVER);
        }
        self.bury();
    }

    /// Waits for so many microseconds, or until `done` says so.
    fn sleep(&mut self, microseconds: u64, done: impl Fn() -> bool) {
        let ticks = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(microseconds));
        let end = el2::cpu::counter().saturating_add(ticks);
        while el2::cpu::counter() < end && !done() && !self.is_interrupted() {
            thread::sleep_until(end);
        }
        self.bury();
    }

    /// Gives VMs of that name the time that it takes to put them together: the line before may have started them.
    fn let_begin(&mut self, name: &str) {
        let runs = |vm: &Arc<Qvm>| vm.look(|compartment| compartment.partition().is_some()) == Some(true);
        let begins = || qvm::named(name).iter().any(|vm| !runs(vm));
        for _ in 0..PATIENCE / BEGIN_LOOK {
            if !begins() || self.is_interrupted() {
                break;
            }
            self.sleep(BEGIN_LOOK, || !begins());
        }
    }

    /// Reports what VMs do, again and again, until a key is pressed.
    fn top(&mut self, milliseconds: u64, out: Output<'_>) {
        let mut before = Snapshot::take();
        while !self.is_key_pressed(milliseconds.saturating_mul(1000)) {
            let now = Snapshot::take();
            let _ = shell::report::top(&before.infos(), &now.infos(), now.at.saturating_sub(before.at), out);
            before = now;
        }
    }

    /// Waits for so many microseconds, or until a key is pressed, which is taken. Says whether one was.
    fn is_key_pressed(&mut self, microseconds: u64) -> bool {
        let Some(keyboard) = &mut self.keyboard else { return true };
        let ticks = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(microseconds));
        let end = el2::cpu::counter().saturating_add(ticks);
        loop {
            if keyboard.read().is_some() {
                return true;
            }
            if el2::cpu::counter() >= end {
                return false;
            }
            thread::sleep_until(end);
        }
    }

    /// Dumps a VM and waits for it, as long as it goes on; who can type sees how far it is.
    fn dump(&mut self, name: &str, to: Option<&str>, out: Output<'_>) {
        self.let_begin(name);
        with_vms(name, out, |qvm, out| {
            if !qvm.dump(to) {
                let _ = writeln!(out, "shell: `{name}` does not run yet");
            }
        });
        for vm in qvm::named(name) {
            let mut patience = DUMP_LOOKS;
            while let Some(percent) = vm.dumped() {
                if self.is_interrupted() || patience == 0 {
                    let _ = writeln!(out, "shell: not waiting for the dump of `{name}`");
                    break;
                }
                self.sleep(DUMP_LOOK, || vm.dumped().is_none());
                if vm.dumped().is_none_or(|now| now == percent) {
                    patience -= 1;
                    continue;
                }
                patience = DUMP_LOOKS;
                if self.keyboard.is_some() {
                    let _ = write!(out, "\rdump of `{name}`: {percent} %");
                }
            }
            if self.keyboard.is_some() {
                let _ = writeln!(out);
            }
        }
    }

    /// Records, and waits for the end of it if that is wanted; who can type sees how much there is, and `Ctrl-C` ends it.
    fn record(&mut self, record: &shell::Record<'_>, out: Output<'_>) {
        record.vms.iter().filter(|name| !qvm::exists(name)).for_each(|name| unknown(name, out));
        if let Err(why) = trace::start(record) {
            let _ = writeln!(out, "shell: no trace: {why}");
            return;
        }
        let look = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(DUMP_LOOK));
        while !record.background && trace::is_recording() {
            // The end of it wakes us before, and so does whoever types.
            thread::sleep_until(el2::cpu::counter().saturating_add(look));
            if self.is_interrupted() {
                trace::stop();
            }
            if self.keyboard.is_some() {
                let end = if trace::is_recording() { "" } else { "\n" };
                let _ = write!(out, "\rtrace: {} events{end}", trace::progress());
            }
        }
        self.bury();
    }

    fn wait(&mut self, names: &[&str], out: Output<'_>) {
        if names.is_empty() {
            return self.wait_until(|| qvm::all().is_empty());
        }
        for name in names {
            let vms = qvm::named(name);
            if vms.is_empty() && qvm::next_end(name, 0).is_none() {
                unknown(name, out);
            }
            self.wait_until(|| vms.iter().all(|vm| vm.has_left()));
        }
    }

    /// Ends all VMs, then the machine.
    fn end(&mut self, reset: bool, force: bool) {
        let all_gone = || qvm::all().is_empty();
        let signal = |signal| qvm::all().iter().for_each(|qvm| qvm.signal(signal));
        if !force {
            signal(Signal::Term);
            self.sleep(PATIENCE, all_gone);
        }
        signal(Signal::Quit);
        self.sleep(PATIENCE, all_gone);
        console::flush();
        if reset { board::reset() } else { board::power_off() }
    }
}

/// Says that a file is.
fn missing(word: &shell::Word<'_>, message: String) -> String {
    format!("{}", CommandError { line: word.line, column: word.column, message })
}

/// Says why `what` of that name cannot be, if it cannot.
fn complain(what: &str, name: &str, done: Result<(), impl fmt::Display>, out: Output<'_>) {
    if let Err(error) = done {
        let _ = writeln!(out, "shell: {what} `{name}`: {error}");
    }
}

fn unknown(name: &str, out: Output<'_>) {
    let _ = writeln!(out, "shell: there is no VM `{name}`");
}

/// Does something with the VMs of that name, or says that there is none.
fn with_vms(name: &str, out: Output<'_>, mut work: impl FnMut(&Qvm, Output<'_>)) {
    let vms = qvm::named(name);
    if vms.is_empty() {
        unknown(name, out);
    }
    vms.iter().for_each(|vm| work(vm, out));
}

/// Has a VM make do with so much memory. What it may have from now on is promised to it before the guest hears of it.
fn balloon(name: &str, bytes: u64, out: Output<'_>) {
    const KIBIBYTES: u64 = PAGE_SIZE >> 10;
    with_vms(name, out, |qvm, out| {
        let entitled = qvm.look(|compartment| {
            let entitled = compartment.partition().map(|partition| partition.entitle(bytes));
            compartment.request(Requests::BALLOON);
            entitled
        });
        let complaint = match entitled.flatten() {
            None => format!("`{name}` does not run yet"),
            Some(None) => format!("`{name}` has no virtio-balloon"),
            Some(Some(Ok(()))) => return,
            Some(Some(Err(Refused::Size(pages)))) => format!("`{name}` has {} KiB of RAM", pages * KIBIBYTES),
            Some(Some(Err(Refused::NoMemory(pages)))) => {
                let free = frames::statistics().0 as u64 * KIBIBYTES;
                format!("`{name}`: {} KiB more are wanted, {free} KiB are free", pages * KIBIBYTES)
            }
        };
        let _ = writeln!(out, "shell: {complaint}");
    });
}

fn slay(name: &str, signal: Signal, out: Output<'_>) {
    with_vms(name, out, |qvm, _| qvm.signal(signal));
}

fn pause(name: &str, pause: bool, out: Output<'_>) {
    with_vms(name, out, |qvm, out| {
        let complaint = match (qvm.pause(pause), pause) {
            (Some(false), _) => return,
            (Some(true), true) => "is paused already",
            (Some(true), false) => "is not paused",
            (None, _) => "does not run yet",
        };
        let _ = writeln!(out, "shell: `{name}` {complaint}");
    });
}

/// What the log has kept, of one VM or of everything.
fn show_log(vm: Option<&str>, out: Output<'_>) {
    let (mut place, mut line) = (0, Vec::new());
    while console::log().kept_line(vm, &mut place, &mut line) {
        let _ = writeln!(out, "{}", String::from_utf8_lossy(&line));
        line.clear();
    }
}

fn no_file(name: &str, out: Output<'_>) {
    let _ = writeln!(out, "shell: there is no file `{name}`");
}

/// Name, size and size as it is kept of every file in RAM, in KiB.
fn list_files(out: Output<'_>) {
    let _ = writeln!(out, "       KiB     PACKED NAME");
    for (name, about) in files::list() {
        let _ = writeln!(out, "{:10} {:10} {name}", about.size.div_ceil(1024), about.packed.div_ceil(1024));
    }
}

/// One vdev's manual page, or a line for each vdev there is.
fn explain_vdev(name: Option<&str>, out: Output<'_>) {
    let all = board::factories();
    let _ = match name {
        None => all.iter().try_for_each(|factory| writeln!(out, "vdev {:<12} {}", factory.name, factory.help)),
        Some(name) => match all.iter().find(|factory| factory.name == name) {
            Some(factory) => factory.write_manual(out),
            None => writeln!(out, "shell: there is no vdev `{name}`; `use` lists them"),
        },
    };
}
