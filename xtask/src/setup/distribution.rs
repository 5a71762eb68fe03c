//! Installs packages of the user's distribution.
//!
//! Answers for: Debian and its relatives, with Debian 12's backports where only they have what is needed; elsewhere it
//! says what to install. The user's own list of package sources and its state stay as they are: the backports are in a
//! private list that counts for this one installation.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::{self, Source};
use crate::workspace::{describe, find_program, output, run, target};

/// Debian release whose own QEMU is too old, but whose backports have a newer one.
const NEEDS_BACKPORTS: &str = "bookworm";
/// Only QEMU itself comes from the backports. With `-t` its libraries would too, and then the release's debugger, which
/// needs its own version of one of them, could no longer be installed. See apt_preferences(5).
const PREFERENCES: &str = "Package: qemu-*\nPin: release n=bookworm-backports\nPin-Priority: 990\n";
/// Where apt keeps a machine's lists of sources.
const SYSTEM_SOURCES: &str = "/etc/apt/sources.list.d";

/// Which version of a package will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That of the release.
    Any,
    /// The newest that the distribution offers.
    Newer,
}

/// Installs `package`, or says why that cannot be done and what the user can do.
pub(crate) fn install(package: &str, wanted: Wanted) -> Result<()> {
    if find_program("apt-get").is_none() {
        bail!(
            "{package} is missing. Install it: on Fedora `dnf install qemu-system-aarch64 gdb`, on Arch Linux `pacman -S \
               qemu-system-aarch64 aarch64-linux-gnu-gdb`, on macOS `brew install qemu`; QEMU has to be 9.0 or newer"
        );
    }
    eprintln!("setup: installing {package} ...");
    let codename = codename(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let backports = wanted == Wanted::Newer && codename.as_deref() == Some(NEEDS_BACKPORTS);
    let mut options = apt::patient();
    if backports {
        options.extend(private_sources(&apt::sources()?)?);
    }
    as_administrator("apt-get", |update| update.args(&options).args(["-q", "update"]))?;
    as_administrator("apt-get", |install| {
        install.args(&options).args(["-q", "-y", "--no-install-recommends", "install", package])
    })
}

/// The release's code name in the text of `os-release(5)`.
fn codename(os_release: &str) -> Option<String> {
    let line = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_string())
}

/// Options for one call of apt that sees the machine's sources and, beside them, the backports on the same mirror.
fn private_sources(sources: &[Source]) -> Result<Vec<String>> {
    let release = sources
        .iter()
        .find(|source| source.suite == NEEDS_BACKPORTS && source.component == "main")
        .with_context(|| format!("no mirror of {NEEDS_BACKPORTS} in this machine's package sources"))?;
    let folder = target().join("setup");
    let parts = folder.join("sources.list.d");
    let lists = folder.join("lists");
    let _ = fs::remove_dir_all(&parts);
    fs::create_dir_all(&parts)?;
    fs::create_dir_all(lists.join("partial"))?;
    if let Ok(entries) = fs::read_dir(SYSTEM_SOURCES) {
        for entry in entries {
            let path = entry?.path();
            if let Some(name) = path.file_name() {
                fs::copy(&path, parts.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
            }
        }
    }
    let preferences = folder.join("preferences");
    fs::write(&preferences, PREFERENCES)?;
    let backports = Source { suite: format!("{NEEDS_BACKPORTS}-backports"), ..release.clone() };
    fs::write(parts.join("bulkhead-backports.list"), backports.line())?;
    Ok(apt::options(&[
        ("Dir::Etc::sourceparts", &text(&parts)?),
        ("Dir::Etc::preferences", &text(&preferences)?),
        ("Dir::State::lists", &text(&lists)?),
        // Not the machine's own: they would be rebuilt for these sources now and for the usual ones next time.
        ("Dir::Cache::pkgcache", ""),
        ("Dir::Cache::srcpkgcache", ""),
    ]))
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_string).with_context(|| format!("{} is not text", path.display()))
}

/// Runs a program as root, through `sudo` when the user is somebody else, without any question by the packages.
fn as_administrator(program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = Command::new("env");
    if !root {
        command = Command::new("sudo");
        command.arg("env");
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    arguments(&mut command);
    if !root && find_program("sudo").is_none() {
        bail!("this needs root and there is no sudo: run as root `{}`", describe(&command).trim_start_matches("sudo "));
    }
    run(&mut command)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_code_name_is_found_with_and_without_quotes() {
        assert_eq!(super::codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(super::codename("VERSION_CODENAME=\"noble\"\n").as_deref(), Some("noble"));
        assert_eq!(super::codename("ID=arch\n"), None);
    }
}
