//! `cargo xtask setup`: what the other tasks need and the machine may lack.
//!
//! Answers for: finding out what is missing, quickly, and getting it: the Rust target, QEMU, the debugger, the Linux
//! guest, firmware. Does not answer for: a C compiler and the Rust toolchain, without which this tool would not run at all.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};

use crate::workspace::{BARE_METAL, find_program, output, run as run_command, shown, target};

mod apt;
mod distribution;
mod firmware;
mod libraries;
mod linux_guest;
mod packages;

pub(crate) use firmware::{GRUB, U_BOOT, U_BOOT_RPI4, ensure as firmware};
pub(crate) use linux_guest::{
    IMAGE as LINUX_IMAGE, INITRAMFS as LINUX_INITRAMFS, INITRAMFS_WITH_PCI as LINUX_INITRAMFS_WITH_PCI,
    INITRAMFS_WITH_PCI_ALONE as LINUX_INITRAMFS_WITH_PCI_ALONE, RPI4_TREE, ensure_drivers as linux_guest_with_drivers,
    ensure_fio as linux_guest_with_fio, ensure_pci as linux_guest_with_pci, ensure_sockets as linux_guest_with_sockets,
    ensure_tools as linux_guest_with_tools, shell as linux_shell,
};

/// The oldest QEMU that has all that is used (`raspi4b`, nested SMMU).
const OLDEST_QEMU: u32 = 9;
const QEMU: &str = "qemu-system-aarch64";
const QEMU_PACKAGE: &str = "qemu-system-arm";
/// Any of these will do, if it knows AArch64; the first is the package that is installed.
const DEBUGGERS: [&str; 2] = ["gdb-multiarch", "gdb"];

/// The task: installs everything that is missing.
pub(crate) fn run() -> Result<u8> {
    rust_target()?;
    qemu()?;
    let debugger = install_debugger();
    let guest = linux_guest();
    eprintln!("setup: Rust target {BARE_METAL}: installed");
    eprintln!("setup: {QEMU} {}: installed", qemu_version().unwrap_or_default());
    match (&debugger, find_debugger()) {
        (Ok(()), Some(debugger)) => eprintln!("setup: {debugger}: installed"),
        (Err(error), _) => eprintln!("setup: no debugger (only `cargo xtask gdb` needs one): {error:#}"),
        (Ok(()), None) => eprintln!("setup: no debugger"),
    }
    match guest {
        Ok(()) => eprintln!("setup: Linux guest: {}", shown(&linux_guest::folder())),
        Err(error) => eprintln!("setup: no Linux guest, the demo runs the in-tree guests alone: {error:#}"),
    }
    match firmware() {
        Ok(()) => eprintln!("setup: U-Boot, UEFI and GRUB: {}", shown(&target().join("guests/firmware"))),
        Err(error) => eprintln!("setup: no firmware for guests (only its tests need it): {error:#}"),
    }
    Ok(0)
}

/// Makes sure that the standard library for bare metal is there.
pub(crate) fn rust_target() -> Result<()> {
    // Cargo says where it lives: bin/cargo of the toolchain. Asking `rustc` for it would take longer than all the rest.
    let cargo = std::env::var_os("CARGO").map(std::path::PathBuf::from);
    let toolchain = cargo.as_deref().and_then(|cargo| cargo.parent()?.parent());
    if toolchain.is_some_and(|folder| folder.join("lib/rustlib").join(BARE_METAL).is_dir()) {
        return Ok(());
    }
    if find_program("rustup").is_none() {
        bail!("the Rust target {BARE_METAL} is missing and there is no rustup to add it");
    }
    let mut rustup = std::process::Command::new("rustup");
    run_command(rustup.args(["target", "add", BARE_METAL]).current_dir(crate::workspace::root()))
}

/// Held by whoever looks for something and installs it: tests that run side by side need the same things.
static INSTALLING: Mutex<()> = Mutex::new(());

fn installing() -> MutexGuard<'static, ()> {
    INSTALLING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes sure that there is a nightly toolchain: fuzzing needs its sanitizer.
pub(crate) fn nightly() -> Result<()> {
    let _installing = installing();
    if toolchain_folder("nightly").is_some() {
        return Ok(());
    }
    run_command(std::process::Command::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))
}

/// Makes sure that there is Miri.
pub(crate) fn miri() -> Result<()> {
    nightly()?;
    let _installing = installing();
    if toolchain_folder("nightly").is_some_and(|folder| folder.join("bin/miri").exists()) {
        return Ok(());
    }
    let arguments = ["component", "add", "miri", "rust-src", "--toolchain", "nightly"];
    run_command(std::process::Command::new("rustup").args(arguments))
}

/// Makes sure that there is a C++ compiler: the fuzzer's run time is in that language.
pub(crate) fn cxx_compiler() -> Result<()> {
    let _installing = installing();
    match find_program("c++") {
        Some(_) => Ok(()),
        None => distribution::install("g++", distribution::Wanted::Any),
    }
}

/// The folder of an installed toolchain of that channel.
fn toolchain_folder(channel: &str) -> Option<std::path::PathBuf> {
    let mut command = std::process::Command::new("rustup");
    let found = command.args(["run", channel, "rustc", "--print", "sysroot"]).stderr(std::process::Stdio::null());
    let output = found.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().into())
}

/// Makes sure that QEMU is there and new enough.
pub(crate) fn qemu() -> Result<()> {
    if qemu_version().is_some_and(|version| version >= OLDEST_QEMU) {
        return Ok(());
    }
    distribution::install(QEMU_PACKAGE, distribution::Wanted::Newer)?;
    match qemu_version() {
        Some(version) if version >= OLDEST_QEMU => Ok(()),
        Some(version) => bail!(
            "{QEMU} is version {version}, {OLDEST_QEMU} or newer is needed, and this distribution has none: install one by \
             hand so that it comes first in PATH"
        ),
        None => bail!("{QEMU} cannot be started after its installation"),
    }
}

/// The program to debug with, installed if there is none.
pub(crate) fn debugger() -> Result<String> {
    install_debugger()?;
    match find_debugger() {
        Some(debugger) => Ok(debugger),
        None => bail!("no debugger: install {}", DEBUGGERS.join(" or ")),
    }
}

/// Makes sure that there is a Linux kernel with an initial file system to boot.
pub(crate) fn linux_guest() -> Result<()> {
    linux_guest::ensure()
}

fn install_debugger() -> Result<()> {
    match find_debugger() {
        Some(_) => Ok(()),
        None => distribution::install(DEBUGGERS[0], distribution::Wanted::Any),
    }
}

fn find_debugger() -> Option<String> {
    DEBUGGERS.into_iter().find(|name| find_program(name).is_some() && knows_aarch64(name)).map(str::to_string)
}

/// Whether a debugger knows more than the architecture of this machine: a plain `gdb` of Debian's does not.
fn knows_aarch64(debugger: &str) -> bool {
    let mut command = std::process::Command::new(debugger);
    command.args(["-batch", "-nx", "-ex", "set architecture aarch64"]);
    command.output().is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("\"aarch64\""))
}

/// The major version of the QEMU in `PATH`.
fn qemu_version() -> Option<u32> {
    find_program(QEMU)?;
    parse_version(&output(std::process::Command::new(QEMU).arg("--version")).ok()?)
}

fn parse_version(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_major_version_is_read_from_what_qemu_prints() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\nCopyright (c) 2003-2025 ...\n";
        assert_eq!(super::parse_version(text), Some(10));
        assert_eq!(super::parse_version("something else"), None);
    }
}
