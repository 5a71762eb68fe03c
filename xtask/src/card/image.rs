//! `cargo xtask image`: an image of a card that a board starts from.
//!
//! Answers for: a file with a size of its own or that was asked for, and what to do with it next. Writes to regular files only:
//! a card is written to by `dd`, by somebody who has looked at which disk is which. Does not answer for: what is on the card
//! (`card`), how it is laid out (`card::disk`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::{Choice, Contents, disk};
use crate::failure;

/// No FAT32 file system is smaller than 65525 clusters of a sector, with the tables for them.
const SMALLEST: u64 = 64 << 20;
/// The largest card of which FAT32 is the standard format (SDHC).
const LARGEST: u64 = 32 << 30;
const MEBIBYTE: u64 = 1 << 20;

/// Options of `cargo xtask image`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The VMs to run; none: the demo
    #[arg(value_name = "CONFIG.qvmconf")]
    configurations: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// The image
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Size of the image, 64M to 32G [default: the next power of two, as QEMU wants it of a card]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    refuse(&arguments.out, arguments.force)?;
    let contents = Contents::gather(&arguments.choice, &arguments.configurations)?;
    let needed = room(&contents)?;
    let size = arguments.size.unwrap_or(needed.next_power_of_two().max(SMALLEST));
    if size < needed {
        return Err(failure::usage(format!("--size: {} MiB are needed", needed.div_ceil(MEBIBYTE))));
    }
    let out = arguments.out.display();
    println!("{out}: {} MiB, one FAT32 partition with", size / MEBIBYTE);
    write(&arguments.out, size, &contents)?;
    if let Some(advice) = arguments.choice.board.advice(|name| contents.files.contains_key(name)) {
        eprintln!("warning: {advice}");
    }
    println!(
        "`lsblk -d -o NAME,SIZE,MODEL`, before and after you plug a card in, tells which disk it is. All that is on it is \
         lost by\n    sudo dd if={out} of=/dev/DISK bs=4M conv=fsync status=progress"
    );
    Ok(0)
}

/// Refuses what must not be written to.
fn refuse(out: &Path, force: bool) -> Result<()> {
    match fs::metadata(out) {
        Ok(data) if !data.is_file() => Err(failure::usage(format!(
            "{} is not a regular file: make an image in a file, and write that to a card",
            out.display()
        ))),
        Ok(_) if !force => Err(failure::usage(format!("{} is there already; --force writes over it", out.display()))),
        _ => Ok(()),
    }
}

/// Bytes that an image with these contents needs at least: a sixteenth more for clusters that are not full, tables, and
/// what a loader may want to save.
fn room(contents: &Contents) -> Result<u64> {
    let size = contents.size()?;
    Ok(disk::START + (4 << 20) + size + size / 16)
}

/// Writes the image so that nobody ever sees half of it.
fn write(out: &Path, size: u64, contents: &Contents) -> Result<()> {
    let partial = out.with_added_extension("partial");
    let written = || -> Result<()> {
        let card = File::options().read(true).write(true).create(true).truncate(true).open(&partial)?;
        disk::write(&card, size, &contents.files, &mut |name, size| println!("    {size:>11}  {name}"))?;
        card.sync_all()?;
        Ok(fs::rename(&partial, out)?)
    };
    let written = written();
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", out.display()))
}

/// A size in bytes: a number with the suffix M or G.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "M" | "m")) => (number, MEBIBYTE),
        Some((number, "G" | "g")) => (number, MEBIBYTE << 10),
        _ => ("", 1),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| (SMALLEST..=LARGEST).contains(bytes))
        .ok_or_else(|| "expected a size such as 128M or 2G, of 64M to 32G".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("32g"), Ok(32 << 30));
        for wrong in ["", "M", "63M", "33G", "64", "64MB", "-1G", "99999999999999999999G", "1 G", "ä"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_regular_files_are_written_to_and_those_that_are_there_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let (there, new) = (folder.path().join("there.img"), folder.path().join("new.img"));
        fs::write(&there, "mine").unwrap();
        assert!(refuse(&new, false).is_ok() && refuse(&there, true).is_ok());
        for (path, force) in [(there.as_path(), false), (folder.path(), true), (Path::new("/dev/null"), true)] {
            assert_eq!(failure::status(&refuse(path, force).unwrap_err()), failure::USAGE, "{}", path.display());
        }
    }
}
