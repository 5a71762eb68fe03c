//! What a boot costs whose root file system is on a virtual disk.
//!
//! Answers for: the hypervisor's share of Linux' way from its entry to the end of the first program of its root file system, ext4
//! on a disk by MMIO or on the PCI bus; and the instructions of all together, beside the same kernel, file system and transport on the
//! bare machine, where the disk is QEMU's. Does not answer for: single reads (`disk`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Bench, Budget, LIMIT, Profile, Row, counting, folder, scratch};
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;
use crate::qemu::{Mode, batch};
use crate::setup;
use crate::workspace::root;

/// A boot: the row of the share, that of the sum, the disk's place in the VM, and QEMU's device.
const BOOTS: [(&str, &str, &str, &str); 2] = [
    ("linux-boot-blk", "linux-boot-blk-all", "loc 0x1c0d0000 intr gic:41", "virtio-blk-device"),
    ("linux-boot-blk-pci", "linux-boot-blk-pci-all", "loc pci:1", "virtio-blk-pci"),
];
/// All of the rows.
pub(super) const NAMES: [&str; 4] = [BOOTS[0].0, BOOTS[0].1, BOOTS[1].0, BOOTS[1].1];

const KERNEL: &str = setup::LINUX_IMAGE;
const INITRAMFS: &str = "target/guests/linux/drivers.cpio";
const DISK: &str = "root.ext4";
/// Bytes of the disk.
const SIZE: u64 = 16 << 20;
/// What the first program of the file system says.
const MARK: &str = "root file system 42";
/// Makes the file system. No double quote may be in it.
const MAKE: &str = "/sbin/mke2fs -q -t ext4 /dev/vda && mkdir /mnt && mount -t ext4 /dev/vda /mnt && cd /mnt && mkdir bin dev && \
     cp /bin/busybox bin && ln -s busybox bin/sh && { echo '#!/bin/sh'; echo 'echo root file system $((6*7))'; \
     echo '/bin/busybox poweroff -f'; } > init && chmod 755 init && cd / && umount /mnt && echo made $((6*7))";
/// Goes there. Nothing of it waits for random numbers, of which this CPU has no source: Linux would gather them by two thousand million
/// instructions in the VM, and by none on the bare machine, where QEMU gives it some.
const BOOT: &str = "mkdir /mnt; mount -t ext4 /dev/vda /mnt; mount --move /dev /mnt/dev; \
     exec switch_root -c /dev/console /mnt /init";

impl Bench<'_> {
    /// The rows of root file systems on disks.
    pub(super) fn filesystem(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (share, all, place, device) in BOOTS {
            if !self.wants(share) && !self.wants(all) {
                continue;
            }
            let disk = file_system()?;
            eprintln!("bench: Linux from a disk, {place} ...");
            let vms = [configuration(share, place)?];
            let (ours, text) = Profile::in_vms(Mode::Batch, &self.board, &counting(1), &vms, None)?;
            ensure!(text.contains(MARK), "the VM did not come to its file system:\n{text}");
            self.explain(share, &ours)?;
            eprintln!("bench: Linux from a disk on the bare machine, {device} ...");
            let (bare, text) = Profile::on_bare(&counting(1), &root().join(KERNEL), |machine| {
                Ok(on_bare(machine.clone(), &disk, device, true, BOOT))
            })?;
            ensure!(text.contains(MARK), "the machine did not come to its file system:\n{text}");
            let millions = |counts: &Profile| Some((counts.guest + counts.hypervisor()) as f64 / 1e6);
            let (sum, bare, ours) = (millions(&ours), millions(&bare), Some(ours.share()));
            rows.push(Row { name: share.into(), unit: "%", bare: None, ours, budget: Budget::None });
            rows.push(Row { name: all.into(), unit: "million", bare, ours: sum, budget: Budget::None });
        }
        rows.retain(|row| self.wants(&row.name));
        Ok(rows)
    }
}

/// The VM whose disk has that file system.
fn configuration(name: &str, place: &str) -> Result<Configuration> {
    let load = "load ../../guests/linux/Image\ninitrd load ../../guests/linux/drivers.cpio";
    let path = scratch(name, load, 1, 256, &command_line(BOOT).replace('"', "\\\""))?;
    // In the file, beside which the disk lies.
    let text = fs::read_to_string(&path)? + &format!("vdev virtio-blk {place} hostdev {DISK}\n");
    fs::write(&path, text)?;
    Configuration::read(&path, "", None)
}

fn command_line(commands: &str) -> String {
    format!("console=ttyAMA0 quiet bulkhead.run=\"{commands}\"")
}

/// A disk with the file system, made by Linux on the bare machine.
fn file_system() -> Result<PathBuf> {
    setup::linux_guest_with_drivers()?;
    let disk = folder()?.join(DISK);
    eprintln!("bench: a file system is made ...");
    File::create(&disk)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("cannot make {}", disk.display()))?;
    let command = on_bare(Machine { cpus: 1, ..Machine::default() }, &disk, "virtio-blk-device", false, MAKE);
    let mut text = Vec::new();
    batch::run(command, Some(LIMIT), &mut text)?;
    let text = String::from_utf8_lossy(&text);
    ensure!(text.contains("made 42"), "no file system was made:\n{text}");
    Ok(disk)
}

/// Linux on the bare machine with this disk; with `forgets` what is written is not kept.
fn on_bare(mut machine: Machine, disk: &Path, device: &str, forgets: bool, commands: &str) -> Command {
    machine.memory = "256M".into();
    let snapshot = if forgets { "on" } else { "off" };
    let file = disk.display().to_string().replace(',', ",,");
    let drive = format!("if=none,id=root,format=raw,snapshot={snapshot},file={file}");
    machine.more.extend(["-drive".into(), drive, "-device".into(), format!("{device},drive=root")]);
    machine.boot_bare(&root().join(KERNEL), Some(&root().join(INITRAMFS)), &command_line(commands))
}
