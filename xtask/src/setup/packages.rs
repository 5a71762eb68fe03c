//! Debian packages that guests are made of, which are never installed.
//!
//! Answers for: the machine's own package client (which checks the signatures) with a state below `target`, so that the user's
//! system learns of no foreign architecture, and for taking files out of packages. Does not answer for: which packages, and
//! what becomes of them (`linux_guest`, `firmware`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::apt::{self, Source};
use super::libraries::Content;
use crate::workspace::{find_program, run, shown};

/// Tools that fetch and unpack a package.
const TOOLS: [&str; 4] = ["apt-get", "apt-cache", "dpkg-deb", "tar"];

/// The machine's package client with a state of its own, for another architecture.
pub(super) struct PrivateClient {
    options: Vec<String>,
}

impl PrivateClient {
    /// One whose state is in `folder`, with newly read lists of the machine's packages.
    pub(super) fn new(folder: &Path) -> Result<PrivateClient> {
        if let Some(missing) = TOOLS.into_iter().find(|tool| find_program(tool).is_none()) {
            bail!("there is no {missing} on this machine; configurations can name a guest of your own");
        }
        let sources = debian_sources(apt::sources()?)?;
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        // No package is installed here.
        fs::write(folder.join("state/status"), "")?;
        fs::write(folder.join("sources.list"), sources.iter().map(Source::line).collect::<String>())?;
        let path = |name: &str| folder.join(name).display().to_string();
        let mut options = apt::patient();
        options.extend(apt::options(&[
            ("Dir::State", &path("state")),
            ("Dir::State::status", &path("state/status")),
            ("Dir::Cache", &path("cache")),
            ("Dir::Etc::sourcelist", &path("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null"),
            ("Dir::Etc::preferences", "/dev/null"),
            ("Dir::Etc::preferencesparts", "/dev/null"),
            ("APT::Architecture", "arm64"),
            ("APT::Architectures", "arm64"),
            ("Acquire::Languages", "none"),
            // The user that the client would step down to cannot write into this folder.
            ("APT::Sandbox::User", ""),
        ]));
        let client = PrivateClient { options };
        eprintln!("setup: reading package lists ...");
        run(client.command("apt-get").args(["-q", "update"]).stdout(std::io::stderr()))?;
        Ok(client)
    }

    /// Downloads packages into `folder`.
    pub(super) fn download(&self, packages: &[&str], folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        eprintln!("setup: downloading {} ...", packages.join(" and "));
        let mut command = self.command("apt-get");
        run(command.args(["-q", "download"]).args(packages).current_dir(folder).stdout(std::io::stderr()))
    }

    /// A call of one of its programs.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }
}

/// The sources of Debian itself among the machine's: others may have no arm64 packages, or none of these.
fn debian_sources(sources: Vec<Source>) -> Result<Vec<Source>> {
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !os_release.lines().any(|line| line == "ID=debian") {
        bail!(
            "only Debian has these packages for arm64 on its ordinary mirrors; `--kernel` and `--initrd` take a guest of \
               your own"
        );
    }
    Ok(sources.into_iter().filter(|source| source.component == "main").collect())
}

/// The content of the only file whose path is `wanted`, of the newest package in `folder` whose name begins with
/// `package`. No more than that is unpacked: a kernel package is mostly modules.
pub(super) fn unpack(folder: &Path, package: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>> {
    let file = newest(folder, package)?;
    let mut found = None;
    read_package(&file, &mut |path, content| {
        if let Content::File(bytes) = content
            && wanted(path)
        {
            found = Some(bytes);
        }
    })?;
    found.with_context(|| format!("{} has not what is wanted of it", file.display()))
}

/// Passes every file and every symbolic link of the package in `file` to `take`, with its path.
pub(super) fn read_package(file: &Path, take: &mut dyn FnMut(&str, Content)) -> Result<()> {
    let mut unpacker = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(file).stdout(Stdio::piped()).spawn()?;
    let archive = unpacker.stdout.take().context("dpkg-deb has no output")?;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_string();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes)?;
            take(&path, Content::File(bytes));
        } else if kind.is_symlink()
            && let Some(to) = entry.link_name_bytes()
        {
            take(&path, Content::Link(String::from_utf8_lossy(&to).to_string()));
        }
    }
    let status = unpacker.wait()?;
    if status.success() { Ok(()) } else { bail!("cannot unpack {} ({status})", file.display()) }
}

/// The newest file whose name begins with `prefix`.
pub(super) fn newest(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found: Option<(std::time::SystemTime, PathBuf)> = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let candidate = (entry.metadata()?.modified()?, entry.path());
            found = found.max(Some(candidate));
        }
    }
    Ok(found.with_context(|| format!("{prefix}* was not downloaded"))?.1)
}

/// Writes a file so that nobody ever sees half of it.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&partial, content)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", shown(path)))
}
