//! `cargo xtask gdb`: a debugger on the QEMU that `cargo xtask qemu --gdb` has started.
//!
//! Answers for: the symbols of the hypervisor where QEMU loads it, and those of guests on request. Does not answer for:
//! the debugger's installation (`setup`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::{root, shown, target};
use crate::{image, setup};

/// Where QEMU's `-s` listens.
const STUB: &str = "localhost:1234";
/// Start of RAM of QEMU's virt machine; its loader puts an `Image` at the first 2 MiB boundary above its own stub.
const VIRT_RAM: u64 = 0x4000_0000;
const TWO_MEBIBYTES: u64 = 2 << 20;
/// The largest stub that QEMU may put at the start of RAM.
const STUB_CODE: u64 = 4096;

/// Options of `cargo xtask gdb`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Guests whose symbols to add: the names of in-tree guests (`hello`), or ELF files; as linked, unless FILE@ADDRESS
    /// says where the file's first byte is
    guests: Vec<String>,
    /// Arguments for the debugger itself
    #[arg(last = true)]
    debugger_arguments: Vec<String>,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let debugger = setup::debugger()?;
    let image = target().join("images/qemu-virt.img");
    let elf = image.with_extension("elf");
    let content = fs::read(&image)
        .with_context(|| format!("{} is missing: `cargo xtask qemu --gdb` builds it", shown(&image)))?;
    let offset = image::text_offset(&content).with_context(|| format!("{} is no arm64 Image", shown(&image)))?;
    let mut command = Command::new(debugger);
    command.current_dir(root()).args(["-q", "-iex", "set architecture aarch64", "-iex", "set confirm off"]);
    let moved_by = load_address(offset).wrapping_sub(image::linked_at(&fs::read(&elf)?)?);
    command.args(["-ex", &format!("add-symbol-file {} -o {moved_by:#x}", elf.display())]);
    for guest in &arguments.guests {
        command.args(["-ex", &add_symbols(guest)?]);
    }
    command
        .args(["-ex", "set confirm on", "-ex", &format!("target remote {STUB}")])
        .args(&arguments.debugger_arguments);
    Ok(if command.status().context("cannot start the debugger")?.success() { 0 } else { 1 })
}

/// Where QEMU loads an `Image` with that `text_offset` (`hw/arm/boot.c`, `load_aarch64_image`).
pub(crate) fn load_address(text_offset: u64) -> u64 {
    if text_offset < STUB_CODE { VIRT_RAM + TWO_MEBIBYTES + text_offset } else { VIRT_RAM + text_offset }
}

/// The debugger's command for the symbols of a guest.
fn add_symbols(guest: &str) -> Result<String> {
    let (name, address) = guest.split_once('@').map_or((guest, None), |(name, address)| (name, Some(address)));
    let in_tree = target().join("guests").join(name).with_extension("elf");
    let path = if in_tree.is_file() { in_tree } else { PathBuf::from(name) };
    if !path.is_file() {
        bail!("{name} is neither an in-tree guest nor a file");
    }
    let path = std::path::absolute(path)?;
    Ok(match address {
        Some(address) => format!("add-symbol-file {} -o {address}", path.display()),
        None => format!("add-symbol-file {}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_address_is_where_qemu_puts_an_image() {
        assert_eq!(load_address(0), 0x4020_0000);
        assert_eq!(load_address(0x8_0000), 0x4008_0000);
    }

    #[test]
    fn a_guest_that_is_not_there_is_an_error() {
        assert!(add_symbols("no-such-guest").is_err());
    }
}
