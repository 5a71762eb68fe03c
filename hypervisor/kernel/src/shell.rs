//! tmp
use crate::qvm;
use crate::startup::{self, find_archive};
use crate::{console, thread};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use host::startup::{self as script, Command};
use qvmconf::Sources;
use vdev::Cause;

pub(crate) fn vm_ended() {}

pub(crate) fn run() {
    if let Err(error) = console::start_thread() {
        log::error!("no memory for the console's thread ({error:?})");
    }
    let mut background = Vec::new();
    let steps = find_archive().and_then(|archive| {
        let script = archive.get(script::FILE).ok_or_else(|| String::from("no startup"))?;
        script::parse(script).map_err(|errors| {
            errors.iter().for_each(|error| startup::print(&format!("{error}")));
            format!("cannot run here: the boot archive's `{}` is wrong", script::FILE)
        })
    });
    match steps {
        Ok(steps) => {
            for step in steps {
                match step.command {
                    Command::Batch => {
                        console::with(host::console::Multiplexer::set_batch);
                    }
                    Command::Console(name) => {
                        console::with(|multiplexer| multiplexer.set_foreground(name));
                    }
                    Command::Log(level) => console::log().set_level(level),
                    Command::Qvm(qvm) => {
                        let mut sources = Sources::new();
                        match startup::read(&qvm.parts, &mut sources, |word, message| {
                            format!("{}", script::ScriptError { line: word.line, column: word.column, message })
                        }) {
                            Ok(configuration) => {
                                if let Some(thread) = qvm::start(configuration, sources) {
                                    if qvm.background { background.push(thread) } else { thread::join(&thread) }
                                }
                            }
                            Err((name, complaint)) => {
                                startup::print(&complaint);
                                qvm::refuse(&name, Cause::Configuration, "");
                            }
                        }
                    }
                }
            }
        }
        Err(message) => {
            startup::print(&format!("bulkhead: {message}"));
            console::with(host::console::Multiplexer::set_batch);
        }
    }
    console::with(host::console::Multiplexer::set_complete);
    background.iter().for_each(thread::join);
}
