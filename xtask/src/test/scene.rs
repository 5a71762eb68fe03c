//! Boot archives of a test's own: a start-up script and the files that it needs.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};

use super::machine::{Case, Ran, Session};
use crate::artifacts::{self, Board, Profile};
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::{root, target};

/// The board whose image has `vdev faulty`.
const FAULTY: &str = "faulty";
/// What one life of a VM may take in all, in seconds.
const SECONDS_FOR_A_LIFE: u64 = 20;

/// A boot archive in the making.
pub(super) struct Scene {
    script: String,
    files: Vec<(String, Vec<u8>)>,
}

impl Scene {
    /// A batch that says what it has of its memory.
    pub(super) fn new() -> Scene {
        Scene { script: "batch\nlog debug\n".into(), files: Vec::new() }
    }

    /// Somebody is at the console.
    pub(super) fn interactive() -> Scene {
        Scene { script: String::new(), files: Vec::new() }
    }

    pub(super) fn line(&mut self, line: impl AsRef<str>) -> &mut Scene {
        self.script.push_str(line.as_ref());
        self.script.push('\n');
        self
    }

    pub(super) fn guest(&mut self, name: &str) -> Result<&mut Scene> {
        let path = target().join("guests").join(format!("{name}.elf"));
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        self.files.push((format!("{name}.elf"), content));
        Ok(self)
    }

    /// What is in the configuration that is called so.
    pub(super) fn text(&self, name: &str) -> String {
        let file = self.files.iter().find(|(file, _)| file == name);
        file.map(|(_, content)| String::from_utf8_lossy(content).into_owned()).unwrap_or_default()
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(file, _)| file == name)
    }

    /// The same as a flat image, once: `NAME.bin`, which runs wherever its RAM is.
    pub(super) fn flat_guest(&mut self, name: &str) -> Result<&mut Scene> {
        let file = format!("{name}.bin");
        if !self.files.iter().any(|(other, _)| *other == file) {
            let path = target().join("guests").join(&file);
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            self.files.push((file, content));
        }
        Ok(self)
    }

    pub(super) fn file(&mut self, name: &str, content: Vec<u8>) -> &mut Scene {
        self.files.push((name.into(), content));
        self
    }

    /// Adds those files of `other` whose names are not there.
    pub(super) fn take_files(&mut self, other: Scene) -> &mut Scene {
        let new: Vec<_> = other.files.into_iter().filter(|(name, _)| !self.has(name)).collect();
        self.files.extend(new);
        self
    }

    /// The configuration `NAME.qvmconf` of a bare-metal guest.
    pub(super) fn vm(&mut self, name: &str, guest: &str, memory: &str, more: &str) -> Result<&mut Scene> {
        if !self.has(&format!("{guest}.elf")) {
            self.guest(guest)?;
        }
        let text = format!(
            "system {name}\nram 0x80000000,{memory}\nload {guest}.elf\nvdev pl011 loc 0x1c090000 intr gic:37\n{more}\n"
        );
        self.files.push((format!("{name}.qvmconf"), text.into_bytes()));
        Ok(self)
    }

    /// The configuration of a Linux guest that runs `commands` and powers off.
    pub(super) fn linux(&mut self, vcpus: usize, commands: &str) -> Result<&mut Scene> {
        setup::linux_guest()?;
        for (name, path) in [("Image", setup::LINUX_IMAGE), ("initramfs", setup::LINUX_INITRAMFS)] {
            self.files.push((name.into(), fs::read(root().join(path))?));
        }
        let text = format!(
            "system linux\nram 0x80000000,256M\n{}load Image\ninitrd load initramfs\n\
             cmdline \"console=ttyAMA0 quiet bulkhead.run=\\\"{commands}\\\"\"\nvdev pl011 loc 0x1c090000 intr gic:37\n",
            "cpu\n".repeat(vcpus)
        );
        self.files.push(("linux.qvmconf".into(), text.into_bytes()));
        Ok(self)
    }

    /// The witness, in the background from the beginning, at a higher priority than everybody else and the host's threads.
    pub(super) fn witness(&mut self) -> Result<&mut Scene> {
        self.vm("witness", "witness", "2M", "cmdline \"report=100\"\ncpu sched 100")?.line("qvm @witness.qvmconf &");
        Ok(self)
    }

    pub(super) fn run(&self, case: &Case, machine: &Machine, board: Option<&Board>, lives: usize) -> Result<Ran> {
        let limit = Duration::from_secs(60 + SECONDS_FOR_A_LIFE * lives as u64);
        case.boot_on(board, machine, &self.archive(case)?, &[], limit)
    }

    /// Boots it with the board's own image; it takes no longer than that.
    pub(super) fn run_within(&self, case: &Case, machine: &Machine, limit: Duration) -> Result<Ran> {
        case.boot_on(None, machine, &self.archive(case)?, &[], limit)
    }

    /// Boots it with a keyboard.
    pub(super) fn session(&self, case: &Case, machine: &Machine) -> Result<Session> {
        case.session_with(machine, &self.archive(case)?)
    }

    /// Writes it to a file.
    pub(super) fn archive(&self, case: &Case) -> Result<PathBuf> {
        let mut builder = tar::Builder::new(Vec::new());
        let script = (String::from("startup"), self.script.clone().into_bytes());
        for (name, content) in [&script].into_iter().chain(&self.files) {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_slice())?;
        }
        case.file("boot.tar", builder.into_inner()?)
    }
}

/// The machine in whose time nothing but instructions counts.
pub(super) fn counting() -> Machine {
    Machine { count_instructions: true, memory: "512M".into(), ..Machine::default() }
}

pub(super) fn faulty() -> Result<&'static Board> {
    static BUILT: OnceLock<Option<Board>> = OnceLock::new();
    let built = BUILT.get_or_init(|| artifacts::build(Some(FAULTY), &[], Profile::Release).ok().flatten());
    built.as_ref().context("the board `faulty` cannot be built")
}
