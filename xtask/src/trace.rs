//! `cargo xtask trace`: a capture of `tracelogger` as a timeline that people look at, and as numbers.
//!
//! Answers for: reading the file, writing the timeline beside it, printing the summary. Does not answer for: the capture's
//! form (`trace`), what was when (`trace::timeline`), how viewers want it (`trace::chrome`), how it gets to the PC (`receive`).

use std::fs;
use std::path::PathBuf;

use ::trace::Capture;
use anyhow::{Context, Result, bail};
use clap::Args;

use crate::artifacts::{self, Profile};
use crate::configuration::Configuration;
use crate::qemu::machine::{Machine, PACKAGE};
use crate::qemu::{CAPTURE, Mode, batch, pack};
use crate::receive::Receiver;
use crate::workspace::{shown, target};
use crate::{failure, setup};

mod chrome;
mod summary;
mod timeline;

pub(crate) use timeline::Timeline;

/// Options of `cargo xtask trace`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// What `tracelogger` has recorded, and `send` has sent; with `--qemu`, configurations of VMs
    #[arg(value_name = "CAPTURE", required = true)]
    files: Vec<PathBuf>,
    /// Where the timeline goes [default: CAPTURE.json]
    #[arg(short, long, value_name = "OUT.json")]
    output: Option<PathBuf>,
    /// Boot these VMs on QEMU and trace them, to target/traces
    #[arg(long)]
    qemu: bool,
    /// For so long, not until they have ended
    #[arg(long, value_name = "SECONDS", requires = "qemu")]
    seconds: Option<u64>,
    /// Count instructions instead of time: a nanosecond is one
    #[arg(long, requires = "qemu")]
    icount: bool,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let path = match arguments.files.as_slice() {
        files if arguments.qemu => &record(files, arguments)?,
        [capture] => capture,
        _ => return Err(failure::usage("one capture at a time")),
    };
    let file = fs::read(path).map_err(|error| failure::data(format!("cannot read {}: {error}", path.display())))?;
    let timeline = read(&file).map_err(|error| failure::data(format!("{}: {error:#}", path.display())))?;
    let output = arguments.output.clone().unwrap_or_else(|| {
        let mut name = path.clone().into_os_string();
        name.push(".json");
        name.into()
    });
    let write = || -> Result<()> { Ok(chrome::write(&timeline, fs::File::create(&output)?)?) };
    write().with_context(|| format!("cannot write {}", output.display()))?;
    print!("{}", summary::table(&timeline));
    println!("{} is for https://ui.perfetto.dev or chrome://tracing", shown(&output));
    Ok(0)
}

/// Boots VMs and records what they do; the capture.
fn record(files: &[PathBuf], arguments: &Arguments) -> Result<PathBuf> {
    setup::qemu()?;
    let machine = Machine { count_instructions: arguments.icount, ..Machine::default() };
    let read = |path: &PathBuf| Configuration::read(path, "", Some(machine.cpus));
    let vms: Vec<Configuration> = files.iter().map(read).collect::<Result<_>>()?;
    let board = artifacts::provide(&vms, &[], Some(PACKAGE), Profile::Release)?.context("the board was not built")?;
    let archive = pack(&vms, Mode::Traced(arguments.seconds), &[])?;
    let folder = target().join("traces");
    let capture = folder.join(CAPTURE);
    if capture.exists() {
        fs::remove_file(&capture)?;
    }
    let mut receiver = Receiver::new(Some(&folder), std::io::stdout());
    let outcome = batch::run(machine.boot(&board.image, archive.path())?, None, &mut receiver)?;
    if receiver.finish() != (1, 0) {
        bail!("no trace has come{}", outcome.epitaph_with_names(&board.elf));
    }
    Ok(capture)
}

/// What was when.
pub(crate) fn read(file: &[u8]) -> Result<Timeline> {
    Ok(Timeline::of(&Capture::new(file)?))
}

/// The timeline as viewers want it.
pub(crate) fn json(timeline: &Timeline) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    chrome::write(timeline, &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
