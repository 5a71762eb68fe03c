//! What devices cost that are on a PCI bus, on the bare machine: what a VM that they are passed to will be held against.
//!
//! Answers for: the interrupts of an edu, by its line and by its message, from the device to the guest; a read from an NVMe disk with a sleep in
//! it, by a driver that does nothing else; the instructions of Linux for a read from such a disk, past its caches, as the difference of two runs. Whether Linux has begun to idle when the disk has done with a read is the
//! emulator's affair, so that this differs by some 2 % from time to time. Does not answer for: VMs.

use anyhow::{Result, ensure};

use super::{Bench, Budget, FLAT, INSTRUCTIONS, Profile, Row, counting, measure};
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::root;

/// What the bench guest measures.
const MEASURED: [&str; 3] = ["edu-irq-line", "edu-irq-message", "nvme-io"];
/// Reads: the row, their size, and how many more there are in the second run.
const READS: [(&str, &str, u32); 2] = [("nvme-read-4k", "4k", 20000), ("nvme-read-64k", "64k", 4000)];
/// In the first run.
const FEW: u32 = 100;
/// All of the rows.
pub(super) const NAMES: [&str; 5] = [MEASURED[0], MEASURED[1], MEASURED[2], READS[0].0, READS[1].0];

/// A disk that is done at once and always reads as zeroes: where one has to be waited for, time goes on by leaps, and timers of Linux run that
/// otherwise would not.
const NOTHING: [&str; 4] = [
    "-blockdev",
    "driver=null-co,node-name=nothing,size=268435456,read-zeroes=on",
    "-device",
    "nvme,drive=nothing,serial=bulkhead0",
];
const DONE: &str = "has read 42";

impl Bench<'_> {
    /// The rows of devices on a PCI bus.
    pub(super) fn pci(&self) -> Result<Vec<Row>> {
        let row =
            |name: &str, bare| Row { name: name.into(), unit: INSTRUCTIONS, bare, ours: None, budget: Budget::None };
        let mut rows = Vec::new();
        let measured: Vec<&str> = MEASURED.into_iter().filter(|name| self.wants(name)).collect();
        if !measured.is_empty() {
            eprintln!("bench: the guest with an edu and an NVMe disk on the bare machine ...");
            let machine = Machine { devices: vec![Device::new(Kind::Edu)], more: nothing(), ..counting(1) };
            let bare = measure(machine.boot_bare(&root().join(FLAT), None, &measured.join(" ")), None)?;
            rows.extend(measured.iter().map(|name| row(name, bare.get(*name).copied())));
        }
        for (name, size, count) in READS.into_iter().filter(|(name, ..)| self.wants(name)) {
            eprintln!("bench: Linux reads {size} of an NVMe disk on the bare machine ...");
            let counts = read(size, FEW + count)?.without(&read(size, FEW)?);
            rows.push(row(name, Some(counts.guest as f64 / f64::from(count))));
        }
        Ok(rows)
    }
}

fn nothing() -> Vec<String> {
    NOTHING.map(String::from).into()
}

/// Counts a boot of Linux that reads so often.
fn read(size: &str, count: u32) -> Result<Profile> {
    setup::linux_guest_with_pci()?;
    let commands = format!(
        "passed drivers; dd if=/dev/nvme0n1 of=/dev/null bs={size} iflag=direct count={count} && echo has read $((6*7))"
    );
    let command_line = format!("console=ttyAMA0 quiet bulkhead.run=\"{commands}\"");
    let machine = Machine { memory: "640M".into(), more: nothing(), ..counting(1) };
    let (kernel, initramfs) = (root().join(setup::LINUX_IMAGE), root().join(setup::LINUX_INITRAMFS_WITH_PCI));
    let boot = |machine: &Machine| Ok(machine.boot_bare(&kernel, Some(&initramfs), &command_line));
    let (counts, text) = Profile::on_bare(&machine, &kernel, boot)?;
    ensure!(text.contains(DONE), "it has not read:\n{text}");
    Ok(counts)
}
