//! Virtio devices under Debian's drivers.

use anyhow::Result;

use super::Test;
use super::linux::with_initramfs;
use super::machine::Case;
use crate::qemu::machine::Machine;
use crate::setup;

/// The initial file system with the drivers.
const INITRAMFS: &str = "drivers.cpio";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("virtio/blk", "ext4 on a disk in memory, and a file as a disk, by MMIO", |case| {
            disks(case, "loc 0x1c0d0000 intr gic:41", "loc 0x1c0d1000 intr gic:42")
        }),
        Test::hypervisor(
            "virtio/fio",
            "fio writes to a disk and reads it back, from two vCPUs, deep queues and all",
            fio,
        ),
    ]
}

fn fio(case: &Case) -> Result<()> {
    setup::linux_guest_with_fio()?;
    let commands = "fio --name=check --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite \
                    --bsrange=512-131072 --size=6M --verify=crc32c --verify_fatal=1 --randseed=7 \
                    --output-format=terse > /tmp/out && echo verified; fio --name=two --filename=/dev/vda --direct=1 --rw=randrw \
                    --bs=4k --size=2M --numjobs=2 --offset_increment=12M --verify=md5 --verify_fatal=1 > /tmp/out && echo both";
    let text = with_initramfs(2, commands, "fio.cpio").replace("256M", "640M")
        + "vdev virtio-blk loc 0x1c0d0000 intr gic:41 hostdev /dev/ram,32M\n";
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
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
