//! The machine's disks: image files that VMs write to, and who may.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::linux::with_initramfs;
use super::machine::Case;
use super::scene::Scene;
use super::virtio::fio_on;
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;
use crate::setup;

/// The initial file system with the drivers.
const INITRAMFS: &str = "drivers.cpio";
/// Linux boots within this.
const BOOT: Duration = Duration::from_secs(120);
/// What follows from something that was typed comes within this.
const SOON: Duration = Duration::from_secs(30);

const SECTOR: usize = 512;
/// A disk, and its partitions by first sector and length. An SD card's length is a power of two.
const SECTORS: usize = 128 << 11;
const PARTITIONS: [(usize, usize); 2] = [(2048, 32 << 11), (36 << 11, 32 << 11)];
/// What sectors are full of that are nobody's.
const NOBODYS: u8 = 0x5a;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("disks/ext4", "two VMs write to two partitions of a real disk, and nowhere else", ext4),
        Test::hypervisor("disks/fio", "fio writes to a partition of a real disk and reads it back", |case| {
            fio_on(
                case,
                &machine(vec![case.file("disk.img", guid_disk())?]),
                "loc 0x1c0d0000 intr gic:41",
                "/dev/hd0p1",
            )
        }),
        Test::hypervisor("disks/restart", "what a VM wrote is there when it has been killed and restarted", restart),
        Test::hypervisor("disks/silent", "a disk that does not answer keeps nobody, and nothing from ending", silent),
        Test::hypervisor("disks/claims", "a writer is alone; what cannot be had is said, and why", claims),
    ]
}

/// A disk with a GUID partition table (UEFI 2.10, 5.3) of [`PARTITIONS`], and an empty third one.
fn guid_disk() -> Vec<u8> {
    let mut disk = vec![NOBODYS; SECTORS * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| disk[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0; 34 * SECTOR]);
    put(446 + 4, &[0xee]);
    put(446 + 8, &1_u32.to_le_bytes());
    put(446 + 12, &(SECTORS as u32 - 1).to_le_bytes());
    put(510, &[0x55, 0xaa]);
    let mut entries = vec![0; 128 * 128];
    for (number, (first, count)) in PARTITIONS.iter().copied().chain([(100 << 11, 0)]).enumerate() {
        let entry = &mut entries[128 * number..];
        entry[..32].fill(number as u8 + 1);
        entry[32..40].copy_from_slice(&(first as u64).to_le_bytes());
        entry[40..48].copy_from_slice(&((first + count) as u64 - 1).to_le_bytes());
        if count > 0 {
            put(first * SECTOR, &vec![0; count * SECTOR]);
        }
    }
    put(2 * SECTOR, &entries);
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    for (at, value) in [(8, 0x10000_u32), (12, 92), (80, 128), (84, 128), (88, checksum(&entries))] {
        header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    for (at, value) in [(24, 1), (32, SECTORS - 1), (40, 34), (48, SECTORS - 34), (72, 2)] {
        header[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
    }
    let sum = checksum(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    put(SECTOR, &header);
    disk
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A disk with an MBR: a partition of type 178, and another one inside of an extended one.
fn master_disk() -> Vec<u8> {
    let mut disk = vec![0; 1000 * SECTOR];
    for (table, number, kind, first, count) in
        [(0, 0, 178, 8, 92_u32), (0, 1, 5, 100, 400_u32), (100, 0, 178, 4, 96), (0, 2, 12, 500, 0)]
    {
        let at = table * SECTOR + 446 + 16 * number;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&u32::to_le_bytes(first));
        disk[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
        disk[table * SECTOR + 510..table * SECTOR + 512].copy_from_slice(&[0x55, 0xaa]);
    }
    disk
}

fn machine(disks: Vec<PathBuf>) -> Machine {
    Machine { disks, ..Machine::default() }
}

/// A Linux guest with this disk.
pub(super) fn linux(name: &str, commands: &str, disk: &str) -> String {
    with_initramfs(1, commands, INITRAMFS).replace("system linux", &format!("system {name}"))
        + &format!("vdev virtio-blk loc 0x1c0d0000 intr gic:41 hostdev {disk} name disk\n")
}

/// Each makes a file system and writes to it; then another kind of registers, and both are read.
fn ext4(case: &Case) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let image = case.file("disk.img", guid_disk())?;
    let mut writers = Vec::new();
    for (name, disk) in [("one", "/dev/hd0p1"), ("two", "/dev/hd0p2")] {
        let commands = format!(
            "mkdir /mnt; /sbin/mke2fs -q -t ext4 /dev/vda; mount -t ext4 /dev/vda /mnt; cp /bin/busybox /mnt/copy; \
             echo written by {name} > /mnt/note; umount /mnt; mount -t ext4 /dev/vda /mnt; cmp /bin/busybox /mnt/copy && \
             echo equal on $(cat /sys/block/vda/size); umount /mnt"
        );
        writers.push(case.file(&format!("{name}.qvmconf"), linux(name, &commands, disk))?);
    }
    let ran = case.batch(&machine(vec![image.clone()]), &writers)?;
    ran.expect_status(0)?.expect("one| equal on 65536")?.expect("two| equal on 65536")?;
    judge(&fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?)?;

    let commands = "mkdir /mnt; mount -t ext4 -o ro /dev/vda /mnt && cat /mnt/note; cmp /bin/busybox /mnt/copy && echo equal; \
                    dd if=/dev/zero of=/dev/vda bs=4096 count=1 2> /dev/null || echo refused";
    let mut readers = Vec::new();
    for (name, disk) in [("three", "</dev/hd0p2"), ("four", "</dev/hd0p2")] {
        readers.push(case.file(&format!("{name}.qvmconf"), linux(name, commands, disk))?);
    }
    let mut modern = machine(vec![image]);
    modern.more = vec!["-global".into(), "virtio-mmio.force-legacy=false".into()];
    let ran = case.batch(&modern, &readers)?;
    ran.expect_status(0)?;
    for name in ["three", "four"] {
        let line = |text: &str| format!("{name}| {text}");
        ran.in_order(&[&line("written by two"), &line("equal"), &line("refused")])?;
    }
    Ok(())
}

/// What two VMs have made of the disk.
fn judge(disk: &[u8]) -> Result<()> {
    let before = guid_disk();
    ensure!(disk.len() == before.len(), "the image has another length");
    let mut rest = 0;
    for ((first, count), note) in PARTITIONS.iter().zip(["written by one", "written by two"]) {
        let (start, end) = (first * SECTOR, (first + count) * SECTOR);
        ensure!(disk[rest..start] == before[rest..start], "bytes before sector {first} have changed");
        let part = &disk[start..end];
        ensure!(part[1024 + 56..1024 + 58] == [0x53, 0xef], "there is no ext4 at sector {first}");
        let found: Vec<usize> = memchr::memmem::find_iter(disk, note.as_bytes()).collect();
        ensure!(!found.is_empty() && found.iter().all(|at| (start..end).contains(at)), "`{note}` is at {found:?}");
        rest = end;
    }
    ensure!(disk[rest..] == before[rest..], "bytes behind the partitions have changed");
    Ok(())
}

/// Killed while it writes, it finds what it had written before.
fn restart(case: &Case) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let image = case.file("disk.img", guid_disk())?;
    let commands = "mkdir /mnt; if mount -t ext4 /dev/vda /mnt; then cat /mnt/note; umount /mnt; echo second$((6*7)); else \
                    /sbin/mke2fs -q -t ext4 /dev/vda; mount -t ext4 /dev/vda /mnt; echo still there > /mnt/note; sync; \
                    echo first$((6*7)); while :; do cp /bin/busybox /mnt/junk; sync; done; fi";
    let text = linux("linux", commands, "/dev/hd0p2") + "on-exit always,1/60\n";
    let vm = Configuration::read(&case.file("linux.qvmconf", text)?, "", None)?;
    let mut session = case.session(&machine(vec![image]), &[vm])?;
    session.expect("first42", BOOT)?;
    session.send("\x1ds")?;
    session.expect("bulkhead# ", SOON)?;
    session.send("pidin disks\r")?;
    session.expect("vdev `disk` of VM `linux` writes", SOON)?;
    session.send("slay -s QUIT linux\r")?;
    session.expect("qvm: linux ended: code 3 (power cut)", SOON)?;
    session.expect("still there", BOOT)?;
    session.expect("second42", SOON)?;
    session.send("shutdown -f\r")?;
    session.expect_end(SOON)
}

/// A disk that takes twenty seconds for each request: a VM is killed while it waits, and whoever asks then is told after ten, and after as
/// many more in which QEMU, told to reset the disk, keeps the CPU until that has answered.
fn silent(case: &Case) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let vm = Configuration::read(&case.file("linux.qvmconf", linux("linux", "echo never", "/dev/hd0"))?, "", None)?;
    let more = [
        "-blockdev",
        "driver=null-co,node-name=slow,size=67108864,latency-ns=20000000000",
        "-device",
        "virtio-blk-device,drive=slow",
    ];
    let machine = Machine { more: more.map(String::from).to_vec(), ..Machine::default() };
    let mut session = case.session(&machine, &[vm])?;
    // Linux says so, and looks for partitions.
    session.expect("[vda] 131072 512-byte", BOOT)?;
    session.send("\x1ds")?;
    session.expect("bulkhead# ", SOON)?;
    session.send("slay -s QUIT linux\r")?;
    session.expect("qvm: linux ended: code 3 (power cut)", SOON)?;
    session.send("pidin disks\r")?;
    session.expect("its partition table cannot be read: the disk could not", BOOT)?;
    session.send("pidin disks\r")?;
    session.expect("not used any more: it has not answered in time", SOON)?;
    session.send("shutdown -f\r")?;
    session.expect_end(SOON)
}

fn claims(case: &Case) -> Result<()> {
    let disks = vec![case.file("disk.img", guid_disk())?, case.file("mbr.img", master_disk())?];
    let mut scene = Scene::new();
    let disk = |number: u32, name: &str| {
        format!("vdev virtio-blk loc 0x1c0d{number}000 intr gic:4{number} hostdev {name} name disk{number}\n")
    };
    scene.vm(
        "busy",
        "hello",
        "2M",
        &("cmdline forever\n".to_string() + &disk(1, "/dev/hd0p1") + &disk(2, "</dev/hd1")),
    )?;
    scene.line("pidin disks").line("qvm @busy.qvmconf &").line("sleep 0.5").line("pidin disks");
    let refused = [
        ("whole", "/dev/hd0", "cannot have /dev/hd0: vdev `disk1` of VM `busy` writes to /dev/hd0p1"),
        ("reader", "</dev/hd0p1", "cannot have /dev/hd0p1: vdev `disk1` of VM `busy` writes to it"),
        ("writer", "/dev/hd1t178.1", "`disk2` of VM `busy` reads /dev/hd1; `<` is for reading only"),
        ("none", "/dev/hd7", "there is no disk `/dev/hd7`: there is /dev/hd0, /dev/hd1"),
        ("other", "/dev/sda1", "there is no disk `/dev/sda1`: there is /dev/hd0, /dev/hd1"),
        (
            "kind",
            "/dev/hd1t131",
            "it has no such partition; there is p1 (type 178), p2 (type 5), p3 (type 12), p5 (type 178)",
        ),
        ("empty", "/dev/hd0p3", "`/dev/hd0p3`: that partition is empty"),
        ("nothing", "/dev/hd1t12", "`/dev/hd1t12`: that partition is empty"),
    ];
    for (name, what, _) in refused {
        scene.vm(name, "hello", "2M", &disk(3, what))?.line(format!("qvm @{name}.qvmconf"));
    }
    scene.vm("twice", "hello", "2M", &(disk(3, "/dev/hd0p2") + &disk(4, "/dev/hd0p2")))?.line("qvm @twice.qvmconf");
    scene.vm("shares", "hello", "2M", &(disk(3, "</dev/hd1p5") + &disk(4, "</dev/hd1")))?.line("qvm @shares.qvmconf");
    scene.line("slay -s QUIT busy").line("wait busy");
    scene.vm("after", "hello", "2M", &(disk(3, "/dev/hd0") + &disk(4, "/dev/hd1t178")))?.line("qvm @after.qvmconf");
    let ran = scene.run(case, &machine(disks), None, 4)?;
    ran.in_order(&[
        "hd0          128M GPT",
        "hd0p1         32M from sector 2048 on",
        "hd1          500K MBR",
        "hd1t178       46K p1, from sector 8 on",
        "hd1t178.1     48K p5, from sector 104 on",
        "hd0p1         32M from sector 2048 on",
        "vdev `disk1` of VM `busy` writes",
        "vdev `disk2` of VM `busy` reads",
    ])?;
    for (name, _, why) in refused {
        ran.in_order(&[why, "hostdev", &format!("qvm: {name} ended: code 65 (")])?;
    }
    let own = "vdev `disk4` of VM `twice` cannot have /dev/hd0p2: vdev `disk3` of VM `twice` writes to it";
    ran.in_order(&[own, "qvm: twice ended: code 65 (", "qvm: shares ended: code 0", "qvm: busy ended: code 3"])?;
    ran.expect("qvm: after ended: code 0")?;

    let mut scene = Scene::new();
    scene.vm("none", "hello", "2M", &disk(3, "/dev/hd0"))?.line("qvm @none.qvmconf");
    let ran = scene.run(case, &Machine::default(), None, 1)?;
    ran.expect("there is no disk `/dev/hd0`: this machine has none that there is a driver for")?;
    Ok(())
}
