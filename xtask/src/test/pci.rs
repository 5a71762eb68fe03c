//! The PCI bus, as Debian's kernel finds it.

use anyhow::{Result, bail};

use super::Test;
use super::linux::configuration;
use super::machine::Case;
use crate::qemu::machine::Machine;
use crate::setup;

/// Who is there, by slot; then what is in the first bytes of BAR 0 of the shared memory, which is enabled for that. A function gets
/// its interrupt when a driver looks at it, even if that does not want it.
const LOOK: &str = "cd /sys/bus/pci/devices; \
    for it in *; do echo found $it $(cat $it/vendor $it/device $it/class); done; \
    grep -i pci /proc/iomem; cd 0000:00:02.0; echo 1 > enable; set -- $(head -n 1 resource); devmem $1 64; \
    echo 1c05 0001 > /sys/bus/pci/drivers/pcieport/new_id; echo line $(cat /sys/kernel/irq/$(cat irq)/hwirq); \
    dmesg | grep -i pci";
/// Slots, who is there, and what it is.
const FOUND: [&str; 7] = [
    "found 0000:00:00.0 0x1c05 0x0002 0x060000",
    "found 0000:00:01.0 0x1c05 0x00ff 0xff0000",
    "found 0000:00:02.0 0x1c05 0x0001 0x058000",
    "found 0000:00:02.1 0x1af4 0x1041 0x020000",
    "found 0000:00:03.0 0x1af4 0x1042 0x018000",
    "found 0000:00:04.0 0x1af4 0x1041 0x020000",
    "found 0000:00:05.0 0x1af4 0x1043 0x078000",
];
const DEVICES: &str = "vdev pci-dummy\nvdev shmem loc pci:2\n\
    vdev pci-dummy loc pci:2.1 vendor 0x1af4 device 0x1041 class 0x020000\n\
    vdev virtio-blk hostdev /dev/ram,1M\nvdev virtio-net loc pci:4 peer /dev/vswitch0\nvdev virtio-console hostdev >-\n";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("linux/pci", "functions of the PCI bus are found, placed and read", |case| found(case, 3)),
        Test::hypervisor("linux/pci-gicv2", "the same beside a GICv2", |case| found(case, 2)),
    ]
}

fn found(case: &Case, gic: u8) -> Result<()> {
    setup::linux_guest()?;
    let file = case.file("linux.qvmconf", configuration("linux", 1, LOOK) + DEVICES)?;
    let ran = case.batch(&Machine { gic, ..Machine::default() }, &[file])?;
    ran.expect_status(0)?.expect("linux| 0x4D534732474D5651")?;
    // INTA of device 2: the third of the bus's lines, which begin at 64.
    ran.expect("linux| line 66")?;
    let lines: Vec<&str> = ran.of("linux").map(str::trim).filter(|line| line.starts_with("found ")).collect();
    if lines != FOUND {
        bail!("not what is there: {lines:?}");
    }
    Ok(())
}
