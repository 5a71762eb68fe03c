//! A run for a person: the terminal is the machine's console.
//!
//! Answers for: passing bytes both ways untouched, but for files that are sent (`receive`), and for the state of the terminal afterwards. An epitaph gets its names
//! here too.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::batch::epitaph_with_names;
use crate::child::{Guarded, Input, Output};
use crate::failure;
use crate::receive::Receiver;
use crate::symbols::Epitaph;

const HINT: &str = "Ctrl-] h lists the keys of the console, Ctrl-] q q powers the machine off.";

/// Runs QEMU on the user's terminal.
pub(crate) fn run(command: Command, limit: Option<Duration>, elf: &Path, dumps: Option<&Path>) -> Result<u8> {
    let _terminal = Terminal::save();
    eprintln!("{HINT}");
    let mut child = Guarded::start(command, Input::Terminal)?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut epitaph = Epitaph::default();
    let mut line = Vec::new();
    let mut stdout = Receiver::new(dumps, std::io::stdout());
    let late = loop {
        match child.read(deadline) {
            Output::Bytes(bytes) => {
                stdout.write_all(&bytes)?;
                stdout.flush()?;
                for byte in bytes {
                    match byte {
                        b'\r' => {}
                        b'\n' => {
                            epitaph.line(&String::from_utf8_lossy(&line));
                            line.clear();
                        }
                        _ => line.push(byte),
                    }
                }
            }
            Output::Late => break true,
            Output::End => break false,
        }
    };
    stdout.finish();
    let status = child.finish(if late { Duration::ZERO } else { Duration::from_secs(5) })?;
    if epitaph.seen() {
        eprint!("{}", epitaph_with_names(&epitaph, elf));
        return Ok(failure::HYPERVISOR);
    }
    if late {
        eprintln!("\nerror: the time given by --timeout is over");
        return Ok(failure::TIMEOUT);
    }
    Ok(if status.success() { 0 } else { failure::TOOL })
}

/// The terminal's settings, restored when dropped: a QEMU that is killed leaves its own.
struct Terminal(Option<String>);

impl Terminal {
    fn save() -> Terminal {
        if !std::io::stdin().is_terminal() {
            return Terminal(None);
        }
        let saved = Command::new("stty").arg("-g").stdin(Stdio::inherit()).output().ok();
        let saved =
            saved.filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
        Terminal(saved.map(|settings| settings.trim().to_string()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            // Nothing can be done about a terminal that is gone.
            let _ = Command::new("stty").arg(settings).status();
        }
    }
}
