//! Virtio devices under Debian's drivers.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use super::linux::with_initramfs;
use super::machine::{Case, Session};
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;
use crate::setup;

/// The initial file system with the drivers.
const INITRAMFS: &str = "drivers.cpio";

/// Linux boots within this.
const BOOT: Duration = Duration::from_secs(120);
/// What follows from something that was typed comes within this.
const SOON: Duration = Duration::from_secs(30);

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("virtio/blk", "ext4 on a disk in memory, and a file as a disk, by MMIO", |case| {
            disks(case, "loc 0x1c0d0000 intr gic:41", "loc 0x1c0d1000 intr gic:42")
        }),
        Test::hypervisor(
            "virtio/fio",
            "fio writes to a disk and reads it back, from two vCPUs, deep queues and all",
            |case| fio(case, &Machine::default(), "/dev/ram,32M"),
        ),
        Test::hypervisor("virtio/console", "a shell on hvc0, by MMIO", |case| {
            console(case, "loc 0x1c0d2000 intr gic:43")
        }),
        Test::hypervisor("virtio/ports", "a second port of a console, both ways, by MMIO", |case| {
            ports(case, "loc 0x1c0d2000 intr gic:43")
        }),
        Test::hypervisor("virtio/net", "two VMs ping each other and move data over a link, and over a switch", network),
    ]
}

/// Two vCPUs and deep queues on a disk, and what is read is what was written.
pub(super) fn fio(case: &Case, machine: &Machine, disk: &str) -> Result<()> {
    setup::linux_guest_with_fio()?;
    let commands = "fio --name=check --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite \
                    --bsrange=512-131072 --size=6M --verify=crc32c --verify_fatal=1 --randseed=7 \
                    --output-format=terse > /tmp/out && echo verified; fio --name=two --filename=/dev/vda --direct=1 --rw=randrw \
                    --bs=4k --size=2M --numjobs=2 --offset_increment=12M --verify=md5 --verify_fatal=1 > /tmp/out && echo both";
    let text = with_initramfs(2, commands, "fio.cpio").replace("256M", "640M")
        + &format!("vdev virtio-blk loc 0x1c0d0000 intr gic:41 hostdev {disk}\n");
    let ran = case.batch(machine, &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?.in_order(&["linux| verified", "linux| both"])
}

/// Two disks: an empty one in memory, and a file to read only.
fn disks(case: &Case, memory: &str, file: &str) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let content: Vec<u8> = (0..1_000_000_u32).map(|at| (at / 512) as u8).collect();
    case.file("disk.img", &content)?;
    let commands = "cd /sys/block; echo disk $(cat vda/size) $(cat vda/serial) $(cat vdb/ro); cd /; mkdir /mnt; \
         /sbin/mke2fs -q -t ext4 /dev/vda; mount -t ext4 /dev/vda /mnt && cp /bin/busybox /mnt/one && cp /mnt/one /mnt/two && sync; \
         umount /mnt; mount -t ext4 /dev/vda /mnt; cmp /bin/busybox /mnt/two && echo equal; \
         grep -o ' ext4 ' /proc/mounts; rm /mnt/one; fstrim /mnt; umount /mnt; \
         dd if=/dev/vdb bs=512 skip=777 count=1 2> /dev/null | od -An -tu1 -N4; \
         dd if=/dev/zero of=/dev/vdb bs=512 count=1 2> /dev/null || echo refused";
    let text = with_initramfs(2, commands, INITRAMFS)
        + &format!(
            "vdev virtio-blk {memory} hostdev /dev/ram,32M serial first name memory\n\
             vdev virtio-blk {file} hostdev <disk.img name file\n"
        );
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?;
    ran.in_order(&[
        "linux| disk 65536 first 1",
        "linux| equal",
        "linux|  ext4 ",
        "linux|    9   9   9   9",
        "linux| refused",
    ])
}

/// Linux with a console device that gets what is typed; its log is on a UART that does not.
fn on_console(case: &Case, commands: &str, vdev: &str) -> Result<Session> {
    setup::linux_guest_with_drivers()?;
    let uart = "vdev pl011 loc 0x1c090000 intr gic:37";
    let text = with_initramfs(1, commands, INITRAMFS).replace(uart, &format!("{uart} hostdev >-")) + vdev;
    let vm = Configuration::read(&case.file("linux.qvmconf", text)?, "", None)?;
    case.session(&Machine::default(), &[vm])
}

/// Somebody works in a shell on the console, prints much and all of it arrives.
fn console(case: &Case, place: &str) -> Result<()> {
    // The kernel shows its command line, which is not to be taken for what is waited for.
    let commands = "echo shell$((6*7)); sh -i < /dev/hvc0 > /dev/hvc0 2>&1";
    let mut session = on_console(case, commands, &format!("vdev virtio-console {place} tx-backpressure\n"))?;
    session.expect("shell42", BOOT)?;
    session.expect("linux:/root# ", SOON)?;
    session.send("echo $((6*7)) on $(readlink /proc/self/fd/0)\r")?;
    session.expect("42 on /dev/hvc0", SOON)?;
    session.send("stty -echo; seq -s , 1 9999; echo end$((6*7))\r")?;
    session.expect("end42", SOON)?;
    let all: Vec<String> = (1..=9999).map(|number| number.to_string()).collect();
    ensure!(session.text().contains(&all.join(",")), "the numbers have not arrived as they were sent");
    session.send("poweroff -f\r")?;
    session.expect("qvm: linux ended: code 0 (", SOON)?;
    session.send("\x1dqq")?;
    session.expect_end(SOON)
}

/// The console's port prints only; the other one is found by its name, read and written.
fn ports(case: &Case, place: &str) -> Result<()> {
    let commands = "cd /sys/class/virtio-ports; grep -l '^agent$' */name; port=/dev/$(dirname $(grep -l '^agent$' */name)); \
         echo first$((6*7)) > /dev/hvc0; stty -F /dev/hvc0 -echo; echo listening$((6*7)); head -n 1 < $port > /tmp/line; echo got$((6*7)) $(cat /tmp/line); \
         echo back$((6*7)) > $port; echo last$((6*7)) > /dev/hvc0";
    let vdev = format!("vdev virtio-console {place} hostdev >- port agent,-\n");
    let mut session = on_console(case, commands, &vdev)?;
    session.expect("vport0p1/name", BOOT)?;
    session.expect("first42", SOON)?;
    session.expect("listening42", SOON)?;
    session.send("a line for the agent\n")?;
    for text in ["got42 a line for the agent", "back42", "last42", "qvm: linux ended: code 0 ("] {
        session.expect(text, SOON)?;
    }
    session.send("\x1dqq")?;
    session.expect_end(SOON)
}

/// Two VMs, each with a device of a link and a port of a switch. The first one serves until the other has gone.
fn network(case: &Case) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let vm = |name: &str, host: u32, other: &str, commands: &str| {
        let addresses = format!(
            "ip link set lo up; ip addr add 10.0.0.{host}/24 dev eth0; ip link set eth0 up; \
             ip addr add 10.0.1.{host}/24 dev eth1; ip link set eth1 up"
        );
        let text = with_initramfs(1, &format!("{addresses}; {commands}"), INITRAMFS)
            .replace("system linux", &format!("system {name}"))
            + &format!(
                "vdev virtio-net loc 0x1c0e0000 intr gic:43 name link peer /dev/qvm/{other}/link\n\
                 vdev virtio-net loc 0x1c0e1000 intr gic:44 name port peer /dev/vswitch0\n"
            );
        case.file(&format!("{name}.qvmconf"), text)
    };
    let carrier = "until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 1; done";
    let server = vm(
        "server",
        1,
        "client",
        &format!(
            "iperf3 -s -D; {carrier}; echo up; while [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 1; done; echo down"
        ),
    )?;
    let measure =
        |address: &str| format!("ping -c 3 {address} | grep packets; iperf3 -c {address} -t 2 -f M | grep receiver");
    let client = vm(
        "client",
        2,
        "server",
        &format!(
            "{carrier}; until ping -c 1 -W 1 10.0.0.1 > /tmp/out; do :; done; {}; {}; echo done",
            measure("10.0.0.1"),
            measure("10.0.1.1")
        ),
    )?;
    let ran = case.batch(&Machine::default(), &[server, client])?;
    ran.expect_status(0)?;
    ran.in_order(&[
        "client| 3 packets transmitted, 3 packets received, 0% packet loss",
        "receiver",
        "client| 3 packets transmitted, 3 packets received, 0% packet loss",
        "receiver",
        "client| done",
    ])?;
    ran.in_order(&["server| up", "server| down"])
}
