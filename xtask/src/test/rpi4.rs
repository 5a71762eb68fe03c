//! The Raspberry Pi 4, as far as QEMU has it; and which other tests can be run on one.
//!
//! Answers for: what is the board's own: its CPUs and how they are started, its serial ports, its reset, what its device tree
//! says. Does not answer for: what runs on it like anywhere else (`cargo xtask test --board rpi4`).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Test;
use super::guests::judge;
use super::linux::two_vcpus;
use super::machine::{Case, PATIENCE, Ran};
use super::scene::Scene;
use crate::qemu::machine::{Board, Machine};
use crate::qemu::raspberry::{Tree, cells};
use crate::setup;

const SOON: Duration = Duration::from_secs(60);
const PROMPT: &str = "bulkhead# ";

/// Tests by the beginnings of their names, and why they cannot be run on a Raspberry Pi.
const ELSEWHERE: &[(&str, &str)] = &[
    ("bare/", "guests without hypervisor run on the machine virt"),
    ("models/", "its cores are of one kind"),
    ("interface/machines", "it is about machines of other kinds"),
    ("linux/entropy", "its cores have no random numbers, and QEMU has not the board's"),
    ("virtio/drivers", "its cores have no random numbers, and QEMU has not the board's"),
    ("linux/profiler", "its performance monitors have no private interrupt"),
    ("firmware/uefi", "it does not know what time it is"),
    ("linux/clocks", "it does not know what time it is"),
    ("disks/silent", "QEMU does not go on while its card keeps silent"),
    ("disks/claims", "it has one disk"),
    ("virtio/uplink", "it has no network card that there is a driver for"),
    ("refused/", "it changes the device tree of the machine virt"),
    ("shared/refused", "it has the memory that is to be refused"),
];

/// Why this test is not run on a Raspberry Pi, if it is not.
pub(super) fn elsewhere(name: &str) -> Option<&'static str> {
    if name.ends_with("-max") {
        return Some("its cores are of one kind");
    }
    ELSEWHERE.iter().find(|(beginning, _)| name.starts_with(beginning)).map(|(_, why)| *why)
}

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("rpi4/one", "one of its CPUs", |case| count(case, 1, "1 CPU, ", "16M")),
        Test::hypervisor("rpi4/four", "all of its CPUs, and RAM in two places", |case| {
            count(case, 4, "4 CPUs, ", "1G")
        }),
        Test::hypervisor("rpi4/selftest", "a VM with four vCPUs seen from inside is right", selftest),
        Test::hypervisor("rpi4/linux", "Debian's kernel on two vCPUs", |case| two_vcpus(case, &machine())),
        Test::hypervisor(
            "rpi4/mini-uart",
            "somebody at the mini UART; `reset` starts anew, `shutdown` ends",
            mini_uart,
        ),
        Test::hypervisor("rpi4/pl011", "somebody at the PL011", pl011),
        Test::hypervisor("rpi4/disks", "a disk that it has not got is named in vain", disks),
        Test::hypervisor("rpi4/sd-card", "Linux writes to two partitions of a large SD card", sd_card),
        Test::hypervisor("rpi4/absent", "CPUs that cannot be started are told of, and the others go on", absent),
    ]
}

fn machine() -> Machine {
    Machine { board: Board::Rpi4, gic: 2, cpus: 4, ..Machine::default() }
}

fn count(case: &Case, cpus: u32, says: &str, memory: &str) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("hello", "hello", memory, "")?.line("qvm @hello.qvmconf");
    let ran = scene.run(case, &Machine { cpus, ..machine() }, None, 1)?;
    // 960 MiB from 0 on, 1 GiB above: 1 GiB for a VM is some of both.
    ran.expect(&format!("on Raspberry Pi 4 Model B (rpi4): {says}1984 MiB RAM"))?;
    ran.expect("hello| hello: good-bye")?.expect("qvm: hello ended: code 0 (")?;
    Ok(())
}

fn disks(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let disk = "vdev virtio-blk loc 0x1c0d0000 intr gic:41 hostdev /dev/hd0";
    scene.line("pidin disks").vm("none", "hello", "2M", disk)?.line("qvm @none.qvmconf");
    let ran = scene.run(case, &machine(), None, 1)?;
    ran.expect("there is no disk `/dev/hd0`: this machine has none that there is a driver for")?;
    ran.expect("qvm: none ended: code 65")?;
    Ok(())
}

/// Partitions of an SD card by first sector, each of 32 MiB; the second is where bytes cannot be counted in 32 bits.
const PARTITIONS: [u32; 2] = [2048, 6 << 20];

/// An SD card of high capacity with a partition table of [`PARTITIONS`].
fn large_card(case: &Case) -> Result<PathBuf> {
    let mut table = [0; 512];
    for (number, first) in PARTITIONS.iter().enumerate() {
        let at = 446 + 16 * number;
        table[at + 4] = 131;
        table[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        table[at + 12..at + 16].copy_from_slice(&u32::to_le_bytes(32 << 11));
    }
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    let image = case.file("card.img", table)?;
    File::options().write(true).open(&image)?.set_len(4 << 30)?;
    Ok(image)
}

fn sd_card(case: &Case) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let image = large_card(case)?;
    let commands = "mkdir /mnt; for disk in vda vdb; do /sbin/mke2fs -q -t ext4 /dev/$disk; mount -t ext4 /dev/$disk /mnt; \
                    cp /bin/busybox /mnt/copy; echo written to $disk > /mnt/note; umount /mnt; mount -t ext4 /dev/$disk /mnt; \
                    cmp /bin/busybox /mnt/copy && echo equal on $(cat /sys/block/$disk/size); umount /mnt; done";
    let text = super::disks::linux("linux", commands, "/dev/hd0t131")
        + "vdev virtio-blk loc 0x1c0e0000 intr gic:42 hostdev /dev/hd0t131.1 name other\n";
    let ran = case.batch(&Machine { disks: vec![image.clone()], ..machine() }, &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?.expect("hd0: 4194304 KiB, SD card at 0xfe300000")?;
    ran.in_order(&["linux| equal on 65536", "linux| equal on 65536"])?;
    let mut file = File::open(&image)?;
    for (first, note) in PARTITIONS.iter().zip(["written to vda", "written to vdb"]) {
        let mut part = vec![0; 32 << 20];
        file.seek(SeekFrom::Start(u64::from(*first) * 512))?;
        file.read_exact(&mut part)?;
        ensure!(part[1024 + 56..1024 + 58] == [0x53, 0xef], "there is no ext4 at sector {first}");
        ensure!(memchr::memmem::find(&part, note.as_bytes()).is_some(), "`{note}` is not at sector {first}");
    }

    let mut scene = Scene::new();
    scene.line("pidin disks").vm("hello", "hello", "16M", "")?.line("qvm @hello.qvmconf");
    let ran = scene.run(case, &Machine { disks: vec![image], ..machine() }, None, 1)?;
    ran.in_order(&["hd0         4096M MBR", "hd0t131       32M p1, from sector 2048 on", "hd0t131.1     32M p2"])?;
    Ok(())
}

fn selftest(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("selftest", "selftest", "128M", &"cpu\n".repeat(4))?.line("qvm @selftest.qvmconf");
    let ran = scene.run(case, &machine(), None, 1)?;
    ran.expect("qvm: selftest ended: code 0 (")?;
    judge(ran.of("selftest"))
}

fn mini_uart(case: &Case) -> Result<()> {
    let machine = Machine { more: ["-action", "reboot=reset"].map(String::from).into(), ..machine() };
    let mut session = Scene::interactive().session(case, &machine)?;
    for command in ["reset -f\r", "shutdown -f\r"] {
        session.expect("on Raspberry Pi 4 Model B", PATIENCE)?;
        session.expect(PROMPT, SOON)?;
        // More than a FIFO holds, at once.
        session.send("log info\rlog nonsense\rpidin\r")?;
        session.expect("nonsense", SOON)?;
        session.expect("UPTIME", SOON)?;
        session.expect(PROMPT, SOON)?;
        session.send(command)?;
    }
    session.expect_end(SOON)
}

fn pl011(case: &Case) -> Result<()> {
    let alter = |tree: &mut Tree| tree.set("/chosen", "stdout-path", b"serial0:115200n8\0");
    let mut session = Scene::interactive().session(case, &Machine { alter, ..machine() })?;
    session.expect(PROMPT, PATIENCE)?;
    session.send("pidin\r")?;
    session.expect("UPTIME", SOON)?;
    session.send("shutdown -f\r")?;
    session.expect_end(SOON)
}

fn absent(case: &Case) -> Result<()> {
    let alter = |tree: &mut Tree| {
        // Where nobody looks, where nobody can look, and where there is our own code.
        tree.set("/cpus/cpu@1", "cpu-release-addr", &cells(&[0, 0x2000]));
        tree.set("/cpus/cpu@2", "cpu-release-addr", &cells(&[0, 0x2004]));
        tree.set("/cpus/cpu@3", "cpu-release-addr", &cells(&[0, 0x20_0000]));
    };
    let mut scene = Scene::new();
    scene.vm("hello", "hello", "16M", "cpu\ncpu")?.line("qvm @hello.qvmconf");
    let ran = scene.run(case, &Machine { alter, ..machine() }, None, 1)?;
    ran.expect("cpu2 stays off: its cpu-release-addr, 0x2004, cannot be one")?;
    ran.expect("cpu3 stays off: its cpu-release-addr, 0x200000, cannot be one")?;
    let waited = time_of(&ran, "cpu1 was started and does not report")? - time_of(&ran, "on Raspberry Pi")?;
    if waited >= 1.0 {
        bail!("told after {waited} s");
    }
    ran.expect("hello| hello: good-bye")?.expect("qvm: hello ended: code 0 (")?;
    Ok(())
}

/// The time stamp of the line that has `text`, in seconds.
fn time_of(ran: &Ran, text: &str) -> Result<f64> {
    let line = ran.text.lines().find(|line| line.contains(text)).with_context(|| format!("no line has `{text}`"))?;
    let stamp = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).context("a line without a time")?.0;
    Ok(stamp.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_run_there_is_there() {
        let all: Vec<String> = super::super::all().unwrap().into_iter().map(|test| test.name).collect();
        for (beginning, _) in ELSEWHERE {
            assert!(all.iter().any(|name| name.starts_with(beginning)), "no test begins with {beginning}");
        }
        assert!(elsewhere("selftest/4-on-4-max").is_some() && elsewhere("selftest/4-on-4-cortex-a72").is_none());
    }
}
