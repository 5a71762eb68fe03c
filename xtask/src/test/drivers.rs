//! Virtio devices under the drivers of the package `virtio-drivers`, in the bare-metal guest `drivers`.
//!
//! Answers for: a VM with one device of each kind, in memory or on the PCI bus, a line typed into its console, and that the guest says
//! of each device what it should. Does not answer for: what the guest asks of them.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use super::machine::Case;
use super::virtio::At;
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;

/// Each line comes within this.
const SOON: Duration = Duration::from_secs(60);

/// The devices, in the order of their places.
const DEVICES: [&str; 9] = [
    "virtio-blk hostdev /dev/ram,1M serial first",
    "virtio-console",
    "virtio-entropy",
    "virtio-net name one mac 02:00:00:00:00:01 peer /dev/qvm/drivers/two",
    "virtio-net name two mac 02:00:00:00:00:02 peer /dev/qvm/drivers/one",
    "virtio-input",
    "virtio-vsock cid 5",
    "virtio-9p hostdev share tag files",
    "virtio-balloon",
];

/// What is typed, and what the guest says of the devices before that, then and afterwards.
const TYPED: &str = "so be it";
const BEFORE: [&str; 1] = ["blk: ok, 2048 sectors, id first"];
const AFTER: [&str; 7] = [
    "console: ok, 8 letters",
    "entropy: ok, 32 bytes, twice",
    "net: ok, 40 frames between 02:00:00:00:00:01 and 02:00:00:00:00:02",
    "input: ok, bulkhead power button, 6:0:1:1, keys [116]",
    "vsock: ok, CID 5, 19540 bytes echoed",
    "9p: ok, tag files, greeting: good morning",
    "MemoryBalloon: no driver",
];

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "virtio/drivers",
            "the drivers of `virtio-drivers` work, without an operating system",
            |case| drivers(case, At::Memory, "mmio"),
        ),
        Test::hypervisor("virtio/drivers-pci", "the same with devices on the PCI bus", |case| {
            drivers(case, At::Bus, "pci")
        }),
    ]
}

fn drivers(case: &Case, at: At, transport: &str) -> Result<()> {
    fs::create_dir_all(case.path("share"))?;
    case.file("share/greeting", "good morning")?;
    let devices: String =
        (0..).zip(DEVICES).map(|(number, device)| format!("vdev {device} {}\n", at.place(number))).collect();
    let text = format!(
        "system drivers\nram 0x80000000,8M\nload ../../guests/drivers.elf\n\
         vdev pl011 loc 0x1c090000 intr gic:37 hostdev >-\n{devices}"
    );
    let vm = Configuration::read(&case.file("drivers.qvmconf", text)?, "", None)?;
    // A CPU with random numbers.
    let machine = Machine { cpu: "max".into(), ..Machine::default() };
    let mut session = case.session(&machine, &[vm])?;
    let say = |line: &&str| format!("drivers: {transport} {line}\n");
    for line in BEFORE.iter().map(say) {
        session.expect(&line, SOON)?;
    }
    session.expect("console: a line, please", SOON)?;
    session.send(&format!("{TYPED}\n"))?;
    session.expect(&format!("console: it was `{TYPED}`"), SOON)?;
    for line in AFTER.iter().map(say) {
        session.expect(&line, SOON)?;
    }
    session.expect("drivers: good-bye", SOON)?;
    session.expect("qvm: drivers ended: code 0 (", SOON)?;
    ensure!(!session.text().contains("FAILED"), "the guest complains");
    session.send("\x1dqq")?;
    session.expect_end(SOON)
}
