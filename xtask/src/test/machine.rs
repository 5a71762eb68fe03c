//! What a test on an emulated machine is made of.
//!
//! Answers for: a folder and a log for each test, machines that run for a script ([`Case::batch`], [`Case::bare`]) and
//! machines with somebody at the keyboard ([`Case::session`]).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::artifacts::{self, Board, Profile};
use crate::child::{Guarded, Input, Output};
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;
use crate::qemu::{Mode, batch, pack};
use crate::workspace::{describe, root, target};

/// How long anything may take; the machines are slow when the PC is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// How much of a log is shown when a test fails.
const TAIL: usize = 2500;

/// One test on emulated machines.
pub(crate) struct Case<'a> {
    folder: PathBuf,
    log: &'a Path,
    board: Option<&'a Board>,
}

/// How a machine that ran for a script has ended.
pub(crate) struct Ran {
    /// The exit status that `cargo xtask qemu --batch` would have.
    pub(super) status: u8,
    /// All that it printed.
    pub(super) text: String,
}

impl Ran {
    /// Fails unless the status is `status`.
    pub(super) fn expect_status(&self, status: u8) -> Result<&Ran> {
        if self.status != status {
            bail!("the status is {}, expected {status}", self.status);
        }
        Ok(self)
    }

    /// Fails unless one line holds `text`.
    pub(super) fn expect(&self, text: &str) -> Result<&Ran> {
        if !self.text.lines().any(|line| line.contains(text)) {
            bail!("no line has `{text}`");
        }
        Ok(self)
    }

    /// Fails unless lines hold these texts in this order, with whatever between them.
    pub(super) fn in_order(&self, texts: &[&str]) -> Result<()> {
        let mut rest = self.text.lines();
        for wanted in texts {
            if !rest.any(|line| line.contains(wanted)) {
                bail!("no line, or not in this place, has `{wanted}`");
            }
        }
        Ok(())
    }

    /// What the VM `name` printed, without the prefix.
    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("{name}| ");
        self.text.lines().filter_map(move |line| line.strip_prefix(prefix.as_str()))
    }
}

impl<'a> Case<'a> {
    pub(crate) fn new(name: &str, log: &'a Path, board: Option<&'a Board>) -> Result<Case<'a>> {
        // One below `target/test`, so that `../../guests/hello.elf` is where the guests are.
        let folder = target().join("test").join(name.replace('/', "-"));
        fs::create_dir_all(&folder)?;
        File::create(log)?;
        Ok(Case { folder, log, board })
    }

    /// Where a file of this test is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file for this test; its path.
    pub(super) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Runs VMs to their end.
    pub(super) fn batch(&self, machine: &Machine, configurations: &[PathBuf]) -> Result<Ran> {
        self.batch_with(machine, &read(configurations)?, PATIENCE)
    }

    /// Runs VMs to their end or that of the time.
    pub(super) fn batch_with(&self, machine: &Machine, vms: &[Configuration], limit: Duration) -> Result<Ran> {
        let archive = pack(vms, Mode::Batch, &[])?;
        let names: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
        self.boot(machine, archive.path(), &names, limit)
    }

    /// The archive in which a batch of these VMs is to be started.
    pub(super) fn pack(&self, configurations: &[PathBuf]) -> Result<crate::archive::ArchiveFile> {
        pack(&read(configurations)?, Mode::Batch, &[])
    }

    /// Boots with this archive, whatever is in it, in which a batch of VMs with these names is to be started.
    pub(super) fn boot(&self, machine: &Machine, archive: &Path, names: &[&str], limit: Duration) -> Result<Ran> {
        self.boot_on(None, machine, archive, names, limit)
    }

    /// The same with the image of another board.
    pub(super) fn boot_on(
        &self,
        board: Option<&Board>,
        machine: &Machine,
        archive: &Path,
        names: &[&str],
        limit: Duration,
    ) -> Result<Ran> {
        let board = board.map_or_else(|| self.board(machine), Ok)?;
        self.run(machine.boot(&board.image, archive)?, &board.elf, names, limit)
    }

    fn run(&self, mut command: Command, elf: &Path, names: &[&str], limit: Duration) -> Result<Ran> {
        let log = self.log(&mut command)?;
        let mut output = Tee { log, copy: Vec::new() };
        let outcome = batch::run(command, Some(limit), &mut output)?;
        output.log.write_all(outcome.epitaph_with_names(elf).as_bytes())?;
        Ok(Ran { status: outcome.status(names), text: String::from_utf8_lossy(&output.copy).into_owned() })
    }

    /// Runs a guest without any hypervisor until the machine powers off.
    pub(super) fn bare(
        &self,
        machine: &Machine,
        image: &str,
        initrd: Option<&str>,
        command_line: &str,
    ) -> Result<String> {
        let initrd = initrd.map(|path| root().join(path));
        let mut command = machine.boot_bare(&root().join(image), initrd.as_deref(), command_line);
        let log = self.log(&mut command)?;
        let mut output = Tee { log, copy: Vec::new() };
        let outcome = batch::run(command, Some(PATIENCE), &mut output)?;
        if outcome.late {
            bail!("the machine still runs after {} s", PATIENCE.as_secs());
        }
        Ok(String::from_utf8_lossy(&output.copy).into_owned())
    }

    /// The device tree of a machine that is to boot with this archive, as QEMU would pass it.
    pub(super) fn tree(&self, machine: &Machine, archive: &Path) -> Result<Vec<u8>> {
        let path = self.path("machine.dtb");
        let mut machine = machine.clone();
        machine.more.extend(["-M".into(), format!("dumpdtb={}", path.display())]);
        let mut command = machine.boot(&self.board(&machine)?.image, archive)?;
        self.log(&mut command)?;
        batch::run(command, Some(PATIENCE), &mut std::io::sink())?;
        fs::read(&path).with_context(|| format!("QEMU has not written {}", path.display()))
    }

    /// Boots by a loader of the test's own: QEMU starts `loader` at EL2, as raw bytes; the hypervisor and the device tree are
    /// in memory, where it finds them.
    pub(super) fn boot_by(
        &self,
        loader: &Path,
        (image_at, tree, tree_at): (u64, &Path, u64),
        machine: &Machine,
        archive: &Path,
    ) -> Result<Ran> {
        let board = self.board(machine)?;
        let mut machine = machine.clone();
        for (file, address) in [(board.image.as_path(), image_at), (tree, tree_at)] {
            let device = format!("loader,file={},addr={address:#x},force-raw=on", file.display());
            machine.more.extend(["-device".into(), device]);
        }
        self.run(machine.boot(loader, archive)?, &board.elf, &["hello"], PATIENCE)
    }

    /// Boots VMs with a keyboard.
    pub(super) fn session(&self, machine: &Machine, configurations: &[Configuration]) -> Result<Session> {
        let archive = pack(configurations, Mode::Interactive, &[])?;
        let session = self.session_with(machine, archive.path())?;
        Ok(Session { _archive: Some(archive), ..session })
    }

    /// Boots with this archive and a keyboard.
    pub(super) fn session_with(&self, machine: &Machine, archive: &Path) -> Result<Session> {
        let machine = Machine { input: true, ..machine.clone() };
        self.session_of(machine.boot(&self.board(&machine)?.image, archive)?)
    }

    /// A machine with a keyboard that this command starts.
    pub(super) fn session_of(&self, mut command: Command) -> Result<Session> {
        let log = self.log(&mut command)?;
        let child = Guarded::start(command, Input::Piped)?;
        Ok(Session { child, _archive: None, log, text: String::new(), seen: 0 })
    }

    /// The image for this machine.
    fn board(&self, machine: &Machine) -> Result<&'a Board> {
        static RPI4: OnceLock<Option<Board>> = OnceLock::new();
        if machine.board == Machine::default().board {
            return self.board.context("this test needs the hypervisor");
        }
        let package = machine.board.package();
        let built = RPI4.get_or_init(|| artifacts::build(Some(package), &[], Profile::Release).ok().flatten());
        built.as_ref().with_context(|| format!("the board `{package}` cannot be built"))
    }

    /// The log, with the command at its end and the command's own messages to come.
    fn log(&self, command: &mut Command) -> Result<File> {
        let mut log = OpenOptions::new().append(true).open(self.log)?;
        writeln!(log, "$ {}", describe(command))?;
        command.stderr(log.try_clone()?);
        Ok(log)
    }
}

fn read(configurations: &[PathBuf]) -> Result<Vec<Configuration>> {
    configurations.iter().map(|path| Configuration::read(path, "", None)).collect()
}

/// Output that is kept twice.
struct Tee {
    log: File,
    copy: Vec<u8>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.log.write_all(bytes)?;
        self.copy.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.log.flush()
    }
}

/// A machine with somebody at the keyboard.
pub(super) struct Session {
    child: Guarded,
    /// Read by QEMU when it starts; stays until then.
    _archive: Option<crate::archive::ArchiveFile>,
    log: File,
    text: String,
    /// How much of the text has been looked at.
    seen: usize,
}

impl Session {
    /// Waits until `text` is printed; looks only at what came after the last text that was waited for.
    pub(super) fn expect(&mut self, text: &str, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut from = self.seen;
        loop {
            if let Some(at) = self.text.get(from..).and_then(|rest| rest.find(text)) {
                self.seen = from + at + text.len();
                return Ok(());
            }
            // Its beginning may be here already. What is before that need not be searched again.
            from = self.text.floor_char_boundary(from.max(self.text.len().saturating_sub(text.len())));
            match self.child.read(Some(deadline)) {
                Output::Bytes(bytes) => {
                    self.log.write_all(&bytes)?;
                    self.text.push_str(&String::from_utf8_lossy(&bytes));
                }
                Output::Late => bail!("waited {} s for `{text}`", within.as_secs()),
                Output::End => bail!("the machine stopped while waiting for `{text}`"),
            }
        }
    }

    /// Everything that was printed so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Types.
    pub(super) fn send(&mut self, text: &str) -> Result<()> {
        self.child.send(text.as_bytes())
    }

    /// Waits for the machine to power off.
    pub(super) fn expect_end(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            match self.child.read(Some(deadline)) {
                Output::Bytes(bytes) => self.log.write_all(&bytes)?,
                Output::Late => bail!("the machine is still on after {} s", within.as_secs()),
                Output::End => return Ok(()),
            }
        }
    }
}

/// Adds the end of a log to an error.
pub(crate) fn with_tail(error: anyhow::Error, log: &Path) -> anyhow::Error {
    let Ok(content) = fs::read(log) else { return error };
    let tail = content.get(content.len().saturating_sub(TAIL)..).unwrap_or_default();
    anyhow!("{error:#}\n... {}", String::from_utf8_lossy(tail).trim_end().replace('\n', "\n    "))
}
