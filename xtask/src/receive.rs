//! Files that the hypervisor sends over its console (`send FILE`), and `cargo xtask receive`.
//!
//! Answers for: taking their lines out of a console's output, putting the files together, checking and unpacking them. What
//! was damaged is reported and not kept. Does not answer for: the form of the lines and of what is packed (`host::file`),
//! what is in a file (`coredump`).
//!
//! What comes over the line is not to be trusted: whoever prints there can send a file. So it gets a name of its own in
//! one folder, never that of a file that is there, and takes no more memory than what has come.

use std::fs::{File, OpenOptions, create_dir_all};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use host::file::transfer::{Checksum, Line, MARK, read};
use host::file::unpack;

use crate::coredump;
use crate::workspace::{shown, target};

/// Longer lines are none of these.
const LINE: usize = 1024;
/// What the name of a dump ends with.
const CORE: &str = ".gcore";

/// Options of `cargo xtask receive`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// What a terminal program has recorded of the console
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// Where files go [default: target/dumps]
    #[arg(long, value_name = "FOLDER")]
    dumps: Option<PathBuf>,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let mut log = File::open(&arguments.log).with_context(|| format!("cannot read {}", arguments.log.display()))?;
    let mut receiver = Receiver::new(arguments.dumps.as_deref(), std::io::sink());
    let mut chunk = vec![0; 1 << 16];
    loop {
        match log.read(&mut chunk)? {
            0 => break,
            count => receiver.write_all(chunk.get(..count).unwrap_or_default())?,
        }
    }
    let (received, failed) = receiver.finish();
    if received == 0 && failed == 0 {
        bail!("nobody has sent a file there");
    }
    Ok(u8::from(failed > 0))
}

/// A file on its way.
struct Incoming {
    name: String,
    size: u64,
    packed: u64,
    checksum: u32,
    bytes: Vec<u8>,
    /// The number of the next line.
    next: u32,
    /// What is wrong with it.
    damage: Option<String>,
}

/// Passes a console's output on to `sink`, without the lines of files, and keeps the files.
pub(crate) struct Receiver<W> {
    folder: PathBuf,
    sink: W,
    /// The line so far, as long as it may be one of a file's.
    held: Vec<u8>,
    /// The line has been found to be none.
    passing: bool,
    incoming: Option<Incoming>,
    /// Lines of a file that were not understood.
    damaged: usize,
    percent: u64,
    received: usize,
    failed: usize,
}

impl<W: Write> Receiver<W> {
    /// Files go to `folder`, or to `target/dumps`.
    pub(crate) fn new(folder: Option<&Path>, sink: W) -> Self {
        Receiver {
            folder: folder.map_or_else(|| target().join("dumps"), Path::to_path_buf),
            sink,
            held: Vec::new(),
            passing: false,
            incoming: None,
            damaged: 0,
            percent: 0,
            received: 0,
            failed: 0,
        }
    }

    /// The output is over. How many files have come whole, and how many not.
    pub(crate) fn finish(mut self) -> (usize, usize) {
        // What could have become a line of a file's; nothing can be done about a terminal that is gone.
        let _ = self.sink.write_all(&self.held);
        if let Some(incoming) = self.incoming.take() {
            self.report(&incoming.name, Err(anyhow::anyhow!("the line ended before the file")));
        }
        (self.received, self.failed)
    }

    /// Goes on with a line that may be a file's, up to its end.
    fn undecided(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.held.extend_from_slice(piece);
        let mark = MARK.as_bytes();
        let may_be = self.held.iter().zip(mark).all(|(held, mark)| held == mark) && self.held.len() < LINE;
        let ended = self.held.ends_with(b"\n");
        if may_be && !ended {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        match read(String::from_utf8_lossy(&held).trim_end()) {
            Some(line) if may_be => self.line(line),
            _ => {
                self.passing = !ended;
                self.sink.write_all(&held)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: Line<'_>) {
        match line {
            Line::Begin { name, size, packed, checksum } => {
                if let Some(before) = self.incoming.take() {
                    self.report(&before.name, Err(anyhow::anyhow!("another file began before its end")));
                }
                self.incoming = Some(Incoming {
                    name: name.to_string(),
                    size,
                    packed,
                    checksum,
                    bytes: Vec::new(),
                    next: 0,
                    damage: None,
                });
                (self.damaged, self.percent) = (0, 0);
            }
            Line::Data { number, bytes } => {
                let Some(incoming) = &mut self.incoming else { return };
                if number != incoming.next && incoming.damage.is_none() {
                    incoming.damage = Some(format!("line {number} came in place of line {}", incoming.next));
                }
                incoming.next = number.saturating_add(1);
                if incoming.damage.is_none() {
                    incoming.bytes.extend_from_slice(&bytes);
                }
                let percent = incoming.bytes.len() as u64 * 100 / incoming.packed.max(1);
                if percent != self.percent && std::io::stderr().is_terminal() {
                    eprint!("\r{}: {percent} %", incoming.name);
                }
                self.percent = percent;
            }
            Line::End { name } => {
                let Some(incoming) = self.incoming.take() else { return };
                let result = if incoming.name == name {
                    self.keep(&incoming)
                } else {
                    Err(anyhow::anyhow!("it ended as `{name}`"))
                };
                self.report(&incoming.name, result);
            }
            Line::Damaged => self.damaged += 1,
        }
    }

    fn report(&mut self, name: &str, result: Result<PathBuf>) {
        let start = if std::io::stderr().is_terminal() { "\r" } else { "" };
        match result {
            Ok(path) => {
                self.received += 1;
                eprintln!("{start}received {name}: {}", shown(&path));
                if name.ends_with(CORE) {
                    eprintln!("`cargo xtask core {}` says what is in it", shown(&path));
                }
            }
            Err(error) => {
                self.failed += 1;
                eprintln!("{start}error: {name} was not received: {error:#}");
            }
        }
    }

    /// Checks a file and writes it.
    fn keep(&self, incoming: &Incoming) -> Result<PathBuf> {
        if self.damaged > 0 {
            bail!("{} lines are damaged", self.damaged);
        }
        if let Some(damage) = &incoming.damage {
            bail!("{damage}");
        }
        if incoming.bytes.len() as u64 != incoming.packed {
            bail!("{} of {} bytes have come", incoming.bytes.len(), incoming.packed);
        }
        if Checksum::default().with(&incoming.bytes).value() != incoming.checksum {
            bail!("its checksum is wrong");
        }
        create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let (path, file) = create(&self.folder, &incoming.name)?;
        let written = write(&file, incoming);
        if written.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        written.with_context(|| format!("cannot write {}", path.display()))?;
        if incoming.name.ends_with(CORE)
            && let Err(error) = coredump::add_virtual_addresses(&path)
        {
            eprintln!("warning: {}: no virtual addresses: {error:#}", path.display());
        }
        Ok(path)
    }
}

impl<W: Write> Write for Receiver<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // Most output by far is no file's.
            if self.passing {
                self.sink.write_all(piece)?;
                self.passing = !piece.ends_with(b"\n");
            } else {
                self.undecided(piece)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}

/// A new file in `folder` whose name begins with the last part of `name`.
fn create(folder: &Path, name: &str) -> Result<(PathBuf, File)> {
    let last = name.rsplit('/').next().unwrap_or_default().trim_start_matches('.');
    let last = if last.is_empty() { "file" } else { last };
    for number in 1..1000 {
        let path = folder.join(if number == 1 { last.to_string() } else { numbered(last, number) });
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
    bail!("there are too many files `{last}` in {}", folder.display())
}

/// `linux.gcore` as `linux.2.gcore`.
fn numbered(name: &str, number: u32) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}.{number}.{extension}"),
        None => format!("{name}.{number}"),
    }
}

/// What no record covers stays a hole.
fn write(file: &File, incoming: &Incoming) -> Result<()> {
    file.set_len(incoming.size)?;
    let mut packed = incoming.bytes.as_slice();
    loop {
        match unpack(packed, incoming.size) {
            Ok(Some((offset, bytes, rest))) => {
                file.write_all_at(&bytes, offset)?;
                packed = rest;
            }
            Ok(None) => return Ok(()),
            Err(_) => bail!("what has come cannot be unpacked"),
        }
    }
}

#[cfg(test)]
mod tests;
