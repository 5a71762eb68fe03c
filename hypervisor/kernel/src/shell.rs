//! The shell's thread: the start-up script, then what is typed.
//!
//! Answers for: carrying commands out (`host::shell` reads them). Does not answer for: the lives of VMs (`qvm`), the line
//! that is being typed and what reports look like (`host::shell`).

use crate::qvm::{self, Qvm};
use crate::startup::{self, find_archive, print};
use crate::thread::{self, Thread};
use crate::{board, console};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use host::console::Multiplexer;
use host::shell::{self, Command, CommandError, Signal};
use qvmconf::Sources;
use spin::Once;
use types::Ticks;
use vdev::Cause;

/// How long `shutdown` and `reset` wait for VMs that were asked to end, in microseconds.
const PATIENCE: u64 = 10_000_000;

static THREAD: Once<Arc<Thread>> = Once::new();

/// Where a command's answer goes.
type Output<'a> = &'a mut dyn fmt::Write;

/// A VM has ended: whoever waits for it has a look.
pub(crate) fn vm_ended() {
    if let Some(thread) = THREAD.get() {
        thread::notify(thread);
    }
}

/// Lines for the console's own messages.
struct Lines(String);

impl fmt::Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if let Some(end) = self.0.rfind('\n') {
            print(&self.0[..end]);
            self.0.drain(..=end);
        }
        Ok(())
    }
}

/// What the shell knows of the VMs that it has started.
struct Shell {
    /// The threads that look after them.
    keepers: Vec<Arc<Thread>>,
}

/// The first thread.
pub(crate) fn run() {
    if let Some(me) = thread::current_shared() {
        THREAD.call_once(|| me);
    }
    if let Err(error) = console::start_thread() {
        log::error!("no memory for the console's thread ({error:?})");
    }
    let mut shell = Shell { keepers: Vec::new() };
    match script() {
        Ok(steps) => {
            for step in &steps {
                shell.carry_out(&step.command, &mut Lines(String::new()));
            }
        }
        Err(message) => {
            print(&format!("bulkhead: {message}"));
            // Whoever runs a batch learns of it by the machine's end.
            console::with(Multiplexer::set_batch);
        }
    }
    console::with(Multiplexer::set_complete);
    loop {
        shell.bury();
        thread::sleep_until(Ticks::NEVER);
    }
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
            Command::Dump { name, .. } => slay(name, Signal::Usr2, out),
            Command::Pause(name) => pause(name, true, out),
            Command::Resume(name) => pause(name, false, out),
            Command::Console(name) => {
                console::with(|multiplexer| multiplexer.set_foreground(name));
            }
            Command::Batch => {
                console::with(Multiplexer::set_batch);
            }
            Command::Log(level) => console::log().set_level(level),
            Command::Sleep { milliseconds } => self.sleep(milliseconds.saturating_mul(1000), || false),
            Command::End { reset, force } => self.end(reset, force),
            Command::Use(vdev) => explain_vdev(vdev, out),
            Command::Help(word) => drop(shell::help(word, out)),
            _ => drop(writeln!(out, "shell: not yet")),
        }
    }

    fn start(&mut self, qvm: &shell::Qvm<'_>) {
        let mut sources = Sources::new();
        let missing = |word: &shell::Word<'_>, message| {
            format!("{}", CommandError { line: word.line, column: word.column, message })
        };
        match startup::read(&qvm.parts, &mut sources, missing) {
            Ok(configuration) => {
                let name = configuration.description.name.clone();
                if let Some(keeper) = qvm::start(configuration, sources) {
                    self.keepers.push(keeper);
                    if !qvm.background {
                        self.wait_until(|| qvm::with_name(&name, |_| ()).is_none());
                    }
                }
            }
            Err((name, complaint)) => {
                print(&complaint);
                qvm::refuse(&name, Cause::Configuration, "");
            }
        }
    }

    /// Frees what is left of threads that have nothing to look after any more.
    fn bury(&mut self) {
        self.keepers.retain(|keeper| {
            let ended = thread::has_ended(keeper);
            if ended {
                thread::join(keeper);
            }
            !ended
        });
    }

    /// Waits until `done` says so; looked at whenever a VM has ended.
    fn wait_until(&mut self, done: impl Fn() -> bool) {
        while !done() {
            thread::sleep_until(Ticks::NEVER);
        }
        self.bury();
    }

    /// Waits for so many microseconds, or until `done` says so.
    fn sleep(&mut self, microseconds: u64, done: impl Fn() -> bool) {
        let ticks = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(microseconds));
        let end = el2::cpu::counter().saturating_add(ticks);
        while el2::cpu::counter() < end && !done() {
            thread::sleep_until(end);
        }
        self.bury();
    }

    fn wait(&mut self, names: &[&str], out: Output<'_>) {
        if names.is_empty() {
            return self.wait_until(|| qvm::all().is_empty());
        }
        for name in names {
            if qvm::with_name(name, |_| ()).is_some() {
                self.wait_until(|| qvm::with_name(name, |_| ()).is_none());
            } else if qvm::last_end(name).is_none() {
                unknown(name, out);
            }
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

fn unknown(name: &str, out: Output<'_>) {
    let _ = writeln!(out, "shell: there is no VM `{name}`");
}

/// Does something with the VM of that name, or says that there is none.
fn with_vm(name: &str, out: Output<'_>, work: impl FnOnce(&Arc<Qvm>, Output<'_>)) {
    match qvm::with_name(name, Arc::clone) {
        Some(qvm) => work(&qvm, out),
        None => unknown(name, out),
    }
}

fn slay(name: &str, signal: Signal, out: Output<'_>) {
    with_vm(name, out, |qvm, _| qvm.signal(signal));
}

fn pause(name: &str, pause: bool, out: Output<'_>) {
    with_vm(name, out, |qvm, out| {
        let complaint = match (qvm.pause(pause), pause) {
            (Some(false), _) => return,
            (Some(true), true) => "is paused already",
            (Some(true), false) => "is not paused",
            (None, _) => "does not run yet",
        };
        let _ = writeln!(out, "shell: `{name}` {complaint}");
    });
}

fn explain_vdev(name: Option<&str>, out: Output<'_>) {
    let mut found = false;
    for factory in board::factories().iter().filter(|factory| name.is_none_or(|name| name == factory.name)) {
        found = true;
        let _ = writeln!(out, "vdev {:<12} {}", factory.name, factory.help);
        if name.is_some() {
            for option in factory.options.iter().chain(vdev::GENERAL_OPTIONS) {
                let _ = writeln!(out, "  {:<14} {}", option.name, option.help);
            }
        }
    }
    if let (Some(name), false) = (name, found) {
        let _ = writeln!(out, "shell: there is no vdev `{name}`; `use` lists them");
    }
}
