//! What a card has to hold for a board to start from it.
//!
//! Answers for: the files and their names there: the hypervisor's image, the boot archive, the configuration of the
//! board's boot loader, and the vendor's firmware if the user has it. Does not answer for: what becomes of them, an image of a
//! whole card (`card::image`) or files on a partition that there is (`card::install`).
//!
//! The loader's configuration is a file of the board's folder, and the only place that says what the other two are called.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::archive::ArchiveFile;
use crate::artifacts::{self, Profile};
use crate::qemu::{Mode, configurations_to_keep, pack};
use crate::workspace::root;
use crate::{failure, lexical, setup};

pub(crate) mod disk;
pub(crate) mod image;
pub(crate) mod install;

/// The largest file of a FAT file system, in bytes.
const LARGEST_FILE: u64 = u32::MAX as u64;

/// A board that starts from a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Board {
    /// Raspberry Pi 4
    Rpi4,
    /// Any machine with U-Boot
    Generic,
}

/// The Raspberry Pi 4's firmware, as far as it is not in the board's own memory, and what may come with it.
const RPI4_FIRMWARE: Firmware = Firmware {
    needed: &["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"],
    tree: "bcm2711-rpi-4-b.dtb",
    optional: &["LICENCE.broadcom"],
    folder: "overlays",
    source: "the folder `boot` of https://github.com/raspberrypi/firmware, the package `raspi-firmware` of Debian, and the \
             boot partition of any card that the Pi starts from",
};

/// What a board's vendor gives away, and we may not.
struct Firmware {
    /// Without these nothing starts.
    needed: &'static [&'static str],
    /// The one of them that others have as well.
    tree: &'static str,
    optional: &'static [&'static str],
    /// A folder whose files are taken if it is there.
    folder: &'static str,
    /// Where to get it.
    source: &'static str,
}

impl Board {
    /// The package of the board's binary.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Board::Rpi4 => "rpi4",
            Board::Generic => "generic",
        }
    }

    /// The configuration of its boot loader: in the board's folder, and on the card.
    fn configuration(self) -> (&'static str, &'static str) {
        match self {
            Board::Rpi4 => ("config.txt", "config.txt"),
            Board::Generic => ("extlinux.conf", "extlinux/extlinux.conf"),
        }
    }

    fn firmware(self) -> Option<&'static Firmware> {
        match self {
            Board::Rpi4 => Some(&RPI4_FIRMWARE),
            Board::Generic => None,
        }
    }

    /// What the user has to know if not all of the firmware is there.
    fn advice(self, is_there: impl Fn(&str) -> bool) -> Option<String> {
        let firmware = self.firmware()?;
        let missing: Vec<&str> = firmware.needed.iter().copied().filter(|name| !is_there(name)).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "no board starts from this alone: the vendor's {} are not part of Bulkhead. They are in {}. \
                 `--firmware FOLDER` takes them from a folder.",
                missing.join(", "),
                firmware.source
            )
        })
    }

    /// How many CPUs it has, if that is known.
    fn cpus(self) -> Option<u32> {
        match self {
            Board::Rpi4 => Some(4),
            Board::Generic => None,
        }
    }
}

/// What is to be on the card.
#[derive(Args, Debug)]
pub(crate) struct Choice {
    /// The board that is to start from it
    #[arg(long, value_enum)]
    board: Board,
    /// A folder that has the vendor's firmware, which is not part of Bulkhead
    #[arg(long, value_name = "FOLDER")]
    firmware: Option<PathBuf>,
    /// Take the device tree that comes with Debian's kernel, not the one of the firmware
    #[arg(long)]
    debian_tree: bool,
}

/// The files of a card, by their names there. Gone when dropped: the boot archive.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) files: BTreeMap<String, PathBuf>,
    _archive: ArchiveFile,
}

impl Contents {
    /// Builds what is to be built and finds the rest. `configurations`: the VMs; none: the demo's.
    pub(crate) fn gather(choice: &Choice, configurations: &[PathBuf]) -> Result<Contents> {
        let board = choice.board;
        let mut files = BTreeMap::new();
        match board.firmware() {
            Some(firmware) => {
                if choice.debian_tree {
                    setup::linux_guest()?;
                    files.insert(firmware.tree.into(), root().join(setup::RPI4_TREE));
                }
                if let Some(folder) = &choice.firmware {
                    firmware.add_files(folder, &mut files)?;
                }
            }
            None if choice.firmware.is_some() || choice.debian_tree => {
                return Err(failure::usage(
                    "--firmware, --debian-tree: this board has neither, its boot loader has both",
                ));
            }
            None => {}
        }
        let (source, name) = board.configuration();
        let source = root().join("boards").join(board.package()).join(source);
        let text = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let (kernel, archive_name) =
            names(&text).with_context(|| format!("{} names no kernel, or no initial RAM disk", source.display()))?;
        let vms = configurations_to_keep(configurations, board.cpus())?;
        let built = artifacts::provide(&vms, &[], Some(board.package()), Profile::Release)?;
        let archive = pack(&vms, Mode::Interactive, &[])?;
        files.insert(name.into(), source);
        files.insert(kernel, built.context("the board was not built")?.image);
        files.insert(archive_name, archive.path().to_path_buf());
        let contents = Contents { files, _archive: archive };
        for (name, path) in &contents.files {
            if size(path)? > LARGEST_FILE {
                return Err(failure::data(format!("{name}: a FAT file system takes files of less than 4 GiB only")));
            }
        }
        Ok(contents)
    }

    /// Bytes of all files.
    pub(crate) fn size(&self) -> Result<u64> {
        self.files.values().map(|path| size(path)).sum()
    }
}

impl Firmware {
    /// Adds its files, which are in `folder`, to those that there are.
    fn add_files(&self, folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
        let folder = lexical::absolute(folder).with_context(|| format!("{} leads nowhere", folder.display()))?;
        let has = |name: &str| folder.join(name).is_file();
        let missing: Vec<&str> =
            self.needed.iter().copied().filter(|name| !has(name) && !files.contains_key(*name)).collect();
        if !missing.is_empty() {
            return Err(failure::usage(format!(
                "--firmware {}: there is no {}; the firmware is in {}",
                folder.display(),
                missing.join(", no "),
                self.source
            )));
        }
        for name in self.needed.iter().chain(self.optional).filter(|name| has(name)) {
            files.entry((*name).into()).or_insert_with(|| folder.join(name));
        }
        if let Ok(entries) = fs::read_dir(folder.join(self.folder)) {
            for entry in entries {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file());
                files.extend(name.map(|name| (format!("{}/{name}", self.folder), path.clone())));
            }
        }
        Ok(())
    }
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len())
}

/// What a loader's configuration calls the kernel and the initial RAM disk: `kernel=NAME` and `initramfs NAME ...` in the
/// Raspberry Pi's config.txt, `linux /NAME` and `initrd /NAME` in extlinux.conf. `None` unless it names both.
fn names(configuration: &str) -> Option<(String, String)> {
    let value = |keys: [&str; 2]| {
        configuration.lines().find_map(|line| {
            let (key, value) = line.trim().split_once([' ', '\t', '='])?;
            let name = value.split_whitespace().next()?.trim_start_matches('/');
            (keys.contains(&key) && !name.is_empty()).then(|| name.to_string())
        })
    };
    Some((value(["kernel", "linux"])?, value(["initramfs", "initrd"])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaders_configuration_says_what_the_files_are_called() {
        let pi = "# kernel=old.img\n[pi4]\nkernel=bulkhead.img\ninitramfs boot.tar followkernel\n";
        let expected = Some(("bulkhead.img".to_string(), "boot.tar".to_string()));
        assert_eq!(names(pi), expected);
        assert_eq!(names("label x\n\tlinux /bulkhead.img\n\tinitrd\t/boot.tar\n"), expected);
        assert_eq!(names("kernel=bulkhead.img\n#initramfs boot.tar followkernel\n"), None);
        assert_eq!(names("kernel=\ninitramfs a\n"), None);
    }

    #[test]
    fn every_boards_configuration_names_image_and_archive() {
        for board in Board::value_variants() {
            let path = root().join("boards").join(board.package()).join(board.configuration().0);
            let names = names(&fs::read_to_string(&path).unwrap());
            assert_eq!(names, Some(("bulkhead.img".into(), "boot.tar".into())), "{}", path.display());
        }
    }

    #[test]
    fn firmware_is_taken_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(folder.path().join(name), name).unwrap();
        write("start4.elf");
        write("bcm2711-rpi-4-b.dtb");
        let error = RPI4_FIRMWARE.add_files(folder.path(), &mut BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("there is no fixup4.dat; the firmware is in"), "{error}");
        assert_eq!(failure::status(&error), failure::USAGE);
        write("fixup4.dat");
        write("start.elf");
        fs::create_dir(folder.path().join("overlays")).unwrap();
        write("overlays/disable-bt.dtbo");
        let mut files = BTreeMap::from([("bcm2711-rpi-4-b.dtb".to_string(), PathBuf::from("/another"))]);
        RPI4_FIRMWARE.add_files(folder.path(), &mut files).unwrap();
        assert_eq!(files["bcm2711-rpi-4-b.dtb"], Path::new("/another"), "asked for");
        let names: Vec<String> = files.into_keys().collect();
        assert_eq!(names, ["bcm2711-rpi-4-b.dtb", "fixup4.dat", "overlays/disable-bt.dtbo", "start4.elf"]);
    }
}
