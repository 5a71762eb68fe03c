//! Builds what runs without an operating system and puts it where configurations and QEMU look for it.
//!
//! Answers for: `target/images/BOARD.img` (what a boot loader takes) with `BOARD.elf` (its symbols) beside it, and
//! `target/guests/NAME.elf` and `NAME.bin` for each guest of `guests/`. Does not answer for: how Cargo builds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::configuration::Configuration;
use crate::workspace::{BARE_METAL, Toolchain, cargo, describe, root, target};
use crate::{image, setup};

/// The package of QEMU's plugin.
const PLUGIN: &str = "instruction-counter";

/// How the compiler optimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What is measured and shipped.
    Release,
    /// With debug assertions.
    Debug,
}

/// A built board.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    /// The flat image.
    pub(crate) image: PathBuf,
    /// The same with symbols.
    pub(crate) elf: PathBuf,
}

/// Builds these guests and, if one is named, a board.
pub(crate) fn build(board: Option<&str>, guests: &[String], profile: Profile) -> Result<Option<Board>> {
    let mut packages: Vec<String> = guests.iter().map(|guest| format!("guest-{guest}")).collect();
    packages.extend(board.map(str::to_string));
    let built = compile(&packages, profile)?;
    let executable = |package: &str| {
        let found = built.iter().find(|(name, _)| name == package).map(|(_, path)| path);
        found.with_context(|| format!("building {package} made no executable"))
    };
    for guest in guests {
        place(executable(&format!("guest-{guest}"))?, &target().join("guests").join(guest), "bin")?;
    }
    let Some(board) = board else { return Ok(None) };
    let (elf, image) = place(executable(board)?, &target().join("images").join(board), "img")?;
    Ok(Some(Board { image, elf }))
}

/// The names of the in-tree guests: folders of `guests/` that hold a program.
pub(crate) fn guests() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("guests"))? {
        let entry = entry?;
        if entry.path().join("src/main.rs").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Makes what these configurations name and the tool can make, in-tree guests and the Linux guest, and a board if one is
/// named. What is among `replaced` need not be made.
pub(crate) fn provide(
    vms: &[Configuration],
    replaced: &[PathBuf],
    board: Option<&str>,
    profile: Profile,
) -> Result<Option<Board>> {
    let files: Vec<&Path> = vms.iter().flat_map(|vm| &vm.wanted).map(|file| file.path.as_path()).collect();
    let linux = [setup::LINUX_IMAGE, setup::LINUX_INITRAMFS].map(|path| root().join(path));
    if linux.iter().any(|path| files.contains(&path.as_path()) && !replaced.contains(path))
        && let Err(error) = setup::linux_guest()
    {
        eprintln!("no Linux guest: {error:#}");
    }
    let guests = guests_among(files.into_iter())?;
    if board.is_none() && guests.is_empty() {
        return Ok(None);
    }
    setup::rust_target()?;
    build(board, &guests, profile)
}

/// Those of the in-tree guests whose programs are among `files`.
fn guests_among<'a>(files: impl Iterator<Item = &'a Path>) -> Result<Vec<String>> {
    let folder = target().join("guests");
    let mut wanted: Vec<String> = files
        .filter(|file| file.parent() == Some(&folder))
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_string()))
        .collect();
    wanted.sort();
    wanted.dedup();
    let guests = guests()?;
    wanted.retain(|name| guests.contains(name));
    Ok(wanted)
}

/// Builds packages for bare metal; the executables by package name.
fn compile(packages: &[String], profile: Profile) -> Result<Vec<(String, PathBuf)>> {
    let mut command = cargo(Toolchain::Pinned);
    command.args(["build", "--target", BARE_METAL, "--message-format", "json-render-diagnostics"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    for package in packages {
        command.args(["-p", package]);
    }
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", describe(&command)))?;
    if !output.status.success() {
        bail!("the build failed: {}", describe(&command));
    }
    Ok(String::from_utf8(output.stdout)?.lines().filter_map(executable).collect())
}

/// Builds the plugin with which QEMU counts instructions.
pub(crate) fn plugin() -> Result<PathBuf> {
    let mut command = cargo(Toolchain::Pinned);
    command.args(["build", "--quiet", "--message-format", "json-render-diagnostics", "-p", PLUGIN]);
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the build failed: {}", describe(&command));
    }
    let messages = String::from_utf8(output.stdout)?;
    let library = messages.lines().filter_map(|message| library(message, PLUGIN)).next_back();
    library.context("building the plugin made no library")
}

/// The library of that package, if a message of Cargo's tells of it.
fn library(message: &str, package: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    if name.replace('_', "-") != package {
        return None;
    }
    Some(message.get("filenames")?.as_array()?.first()?.as_str()?.into())
}

/// Package and executable, if a message of Cargo's tells of one ("External tools" in the Cargo book).
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?.into();
    let name = message.get("target")?.get("name")?.as_str()?.to_string();
    Some((name, path))
}

/// Puts a program at `to` with the extensions `elf` and (flat) `extension`.
fn place(built: &Path, to: &Path, extension: &str) -> Result<(PathBuf, PathBuf)> {
    let elf = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    let flat = image::flat(&elf).with_context(|| format!("cannot make an image of {}", built.display()))?;
    let (elf_path, flat_path) = (to.with_extension("elf"), to.with_extension(extension));
    write_changed(&elf_path, &elf)?;
    write_changed(&flat_path, &flat)?;
    Ok((elf_path, flat_path))
}

/// Writes a file unless it is there already, so that a QEMU or a debugger that has it open keeps what it has.
pub(crate) fn write_changed(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, content)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_told_from_cargos_other_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"qemu-virt","kind":["bin"]},"executable":"/t/qemu-virt"}"#;
        assert_eq!(executable(line), Some(("qemu-virt".into(), "/t/qemu-virt".into())));
        let line = r#"{"reason":"compiler-artifact","target":{"name":"types","kind":["lib"]},"executable":null}"#;
        assert_eq!(executable(line), None);
        assert_eq!(executable("Compiling"), None);
    }

    #[test]
    fn only_guests_that_are_named_are_built() {
        let folder = target().join("guests");
        let files =
            [folder.join("hello.elf"), folder.join("hello.bin"), folder.join("linux/Image"), "/hello.elf".into()];
        assert_eq!(guests_among(files.iter().map(PathBuf::as_path)).unwrap(), ["hello"]);
    }

    #[test]
    fn every_guest_program_is_found() {
        let guests = guests().unwrap();
        assert!(guests.iter().any(|name| name == "hello"));
        assert!(!guests.iter().any(|name| name == "linux" || name == "rt"), "not programs: {guests:?}");
    }
}
