//! What devices cost that are on the machine's PCI bus, in a VM that has them, beside the bare machine.
//!
//! Answers for: the interrupts of an edu, by its line and by its message, from the device to the guest; a read from an NVMe disk with a sleep in
//! it, by a driver that does nothing else; the instructions of Linux for a read from such a disk, past its caches, as the difference of two runs,
//! and what the hypervisor adds to them, likewise; a boot at which an SMMU has 64 streams to let through. Whether Linux has begun to idle when
//! the disk has done with a read is the emulator's affair, so that its own instructions differ by some 2 % from time to time: those of the bare
//! machine are therefore taken for both. Does not answer for: functions that the hypervisor makes itself (`disk`).

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::{Bench, Budget, FLAT, INSTRUCTIONS, Profile, Row, counting, measure, scratch};
use crate::configuration::Configuration;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;
use crate::qemu::{Mode, pack, pack_behind};
use crate::setup;
use crate::workspace::root;

/// What the bench guest measures, and how much each may cost in a VM.
const MEASURED: [(&str, f64); 3] = [("edu-irq-line", 2_100.0), ("edu-irq-message", 1_750.0), ("nvme-io", 2_050.0)];

/// Reads of one kind by Linux.
struct Reads {
    name: &'static str,
    command: &'static str,
    /// How many more there are in the second run than in the first, which has [`FEW`].
    count: u32,
    /// How many more of its instructions there may be in a VM, in percent.
    most: Option<f64>,
}

const READS: [Reads; 3] = [
    Reads {
        name: "nvme-read-4k",
        command: "dd if=/dev/nvme0n1 of=/dev/null bs=4k iflag=direct count=",
        count: 20000,
        most: None,
    },
    Reads {
        name: "nvme-read-64k",
        command: "dd if=/dev/nvme0n1 of=/dev/null bs=64k iflag=direct count=",
        count: 4000,
        most: None,
    },
    Reads {
        name: "nvme-read-deep",
        command: "fio --name=deep --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --iodepth=32 --iodepth_batch_submit=16 \
                  --iodepth_batch_complete_min=16 --rw=randread --bs=4k --output-format=terse --output=/tmp/out --number_ios=",
        count: 20000,
        most: Some(3.0),
    },
];
/// In the first run.
const FEW: u32 = 1000;

/// [`super::BOOT`], with so many functions from this device on, whose streams `smmuman` lets through; and how much more each may cost.
const STREAMS: &str = "boot-64-streams";
const COUNT: u32 = 64;
const FIRST: u32 = 8;
const EACH: u32 = 100_000;

/// All of the rows.
pub(super) const NAMES: [&str; 7] =
    [MEASURED[0].0, MEASURED[1].0, MEASURED[2].0, READS[0].name, READS[1].name, READS[2].name, STREAMS];

/// A disk that is done at once and always reads as zeroes: where one has to be waited for, time goes on by leaps, and timers of Linux run that
/// otherwise would not.
const NOTHING: [&str; 4] = [
    "-blockdev",
    "driver=null-co,node-name=nothing,size=268435456,read-zeroes=on",
    "-device",
    "nvme,drive=nothing,serial=bulkhead0",
];
/// What a VM has: what takes messages, that disk, and an edu, which cannot be reset where it is.
const ITS: &str = "vdev gic its 0x08080000 num-lpis 256";
const DISK: &str = "pass loc pci:0x1b36/0x0010";
const EDU: &str = "pass loc pci:0x1234/0x11e8 without-reset";
const DONE: &str = "has read 42";

impl Bench<'_> {
    /// The rows of devices on a PCI bus.
    pub(super) fn pci(&self) -> Result<Vec<Row>> {
        let mut rows = self.interrupts()?;
        for reads in READS.iter().filter(|reads| self.wants(reads.name)) {
            rows.push(self.reads(reads)?);
        }
        if self.wants(STREAMS) {
            rows.push(self.streams()?);
        }
        Ok(rows)
    }

    fn interrupts(&self) -> Result<Vec<Row>> {
        let measured: Vec<_> = MEASURED.into_iter().filter(|(name, _)| self.wants(name)).collect();
        if measured.is_empty() {
            return Ok(Vec::new());
        }
        let words = measured.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
        let machine = Machine { devices: vec![Device::new(Kind::Edu)], more: nothing(), ..counting(1) };
        eprintln!("bench: the guest with an edu and an NVMe disk on the bare machine ...");
        let bare = measure(machine.boot_bare(&root().join(FLAT), None, &words), None)?;
        let ours =
            if can_pass() { self.in_guest(&Machine { smmu: true, ..machine }, &words)? } else { BTreeMap::new() };
        let row = |(name, most): (&str, f64)| Row {
            name: name.into(),
            unit: INSTRUCTIONS,
            bare: bare.get(name).copied(),
            ours: ours.get(name).copied(),
            budget: if can_pass() { Budget::AtMost(most) } else { Budget::None },
        };
        Ok(measured.into_iter().map(row).collect())
    }

    /// What the guest measures in a VM that has the devices.
    fn in_guest(&self, machine: &Machine, words: &str) -> Result<BTreeMap<String, f64>> {
        eprintln!("bench: the guest with an edu and an NVMe disk in a VM ...");
        let vm = guest(words)?;
        let archive = pack(std::slice::from_ref(&vm), Mode::Batch, &[])?;
        let ours = measure(machine.boot(&self.board.image, archive.path())?, Some((&vm.name, &self.board.elf)))?;
        if self.profile {
            let none = Profile::take(&self.board, machine, &[guest(super::NOTHING)?], None)?;
            for name in words.split(' ') {
                self.explain(name, &Profile::take(&self.board, machine, &[guest(name)?], None)?.without(&none))?;
            }
        }
        Ok(ours)
    }

    fn reads(&self, reads: &Reads) -> Result<Row> {
        let Reads { name, count, most, .. } = reads;
        eprintln!("bench: Linux reads an NVMe disk on the bare machine, {name} ...");
        let bare = on_bare(reads, FEW + count)?.without(&on_bare(reads, FEW)?);
        let each = |number: u64| number as f64 / f64::from(*count);
        let bare = each(bare.guest);
        let row = |ours, budget| Row { name: (*name).into(), unit: INSTRUCTIONS, bare: Some(bare), ours, budget };
        if !can_pass() {
            return Ok(row(None, Budget::None));
        }
        eprintln!("bench: Linux reads an NVMe disk in a VM, {name} ...");
        let ours = self.in_vm(reads, FEW + count)?.without(&self.in_vm(reads, FEW)?);
        self.explain(name, &ours)?;
        let budget = most.map_or(Budget::None, |most| Budget::AtMost(bare * (1.0 + most / 100.0)));
        Ok(row(Some(bare + each(ours.hypervisor())), budget))
    }

    fn in_vm(&self, reads: &Reads, count: u32) -> Result<Profile> {
        setup::linux_guest_with_pci()?;
        let load = format!("load ../../guests/linux/Image\ninitrd load ../../guests/linux/pci.cpio\n{ITS}");
        let command_line = command_line(reads, count).replace('"', "\\\"");
        let vm = Configuration::read(&scratch("nvme", &load, 1, 512, &command_line)?, DISK, None)?;
        let machine = Machine { smmu: true, more: nothing(), ..counting(1) };
        let (counts, text) = Profile::in_vms(Mode::Batch, &self.board, &machine, &[vm], None)?;
        ensure!(text.contains(DONE), "it has not read:\n{text}");
        Ok(counts)
    }

    fn streams(&self) -> Result<Row> {
        eprintln!("bench: from the first instruction to a guest's first, with {COUNT} streams to let through ...");
        let vm = Configuration::read(&scratch("streams", "load ../../guests/hello.elf", 1, 128, "")?, "", None)?;
        let machine = Machine { smmu: true, more: functions(), ..counting(1) };
        let archive = pack_behind(&let_through(), &[vm], Mode::Batch, &[])?;
        let (counts, text) = Profile::of_archive(&self.board, &machine, archive.path(), None)?;
        ensure!(text.contains("`all` is let through"), "the streams are not let through:\n{text}");
        let ours = Some(counts.boot() as f64);
        if self.profile {
            self.explain(STREAMS, &counts.of_boot())?;
        }
        let budget = self.boot()?.ours.map_or(Budget::None, |boot| Budget::AtMost(boot + f64::from(COUNT * EACH)));
        Ok(Row { name: STREAMS.into(), unit: INSTRUCTIONS, bare: None, ours, budget })
    }
}

fn nothing() -> Vec<String> {
    NOTHING.map(String::from).into()
}

/// Beside a GICv2, what reaches memory is not passed: its controller would be in reach.
fn can_pass() -> bool {
    Machine::default().gic != 2
}

/// [`COUNT`] functions, eight in each device.
fn functions() -> Vec<String> {
    let function = |number| {
        let (device, function) = (FIRST + number / 8, number % 8);
        ["-device".to_string(), format!("pci-testdev,addr={device:#x}.{function},multifunction=on")]
    };
    (0..COUNT).flat_map(function).collect()
}

/// The command that lets their streams through.
fn let_through() -> String {
    let (first, last) = (8 * FIRST, 8 * FIRST + COUNT - 1);
    format!("smmuman smmu smmuv3 device stream:{first}-{last} all allow all bypass\n")
}

/// A VM with the bench guest, an edu and the disk.
fn guest(words: &str) -> Result<Configuration> {
    let path = scratch("pci", &format!("load ../../guests/bench.elf\n{ITS}"), 1, 16, words)?;
    Configuration::read(&path, &format!("{DISK} {EDU}"), None)
}

fn command_line(reads: &Reads, count: u32) -> String {
    let commands = format!("passed drivers; {}{count} && echo has read $((6*7))", reads.command);
    format!("console=ttyAMA0 quiet bulkhead.run=\"{commands}\"")
}

/// Counts a boot of Linux that reads so often.
fn on_bare(reads: &Reads, count: u32) -> Result<Profile> {
    setup::linux_guest_with_pci()?;
    let machine = Machine { memory: "640M".into(), more: nothing(), ..counting(1) };
    let (kernel, initramfs) = (root().join(setup::LINUX_IMAGE), root().join(setup::LINUX_INITRAMFS_WITH_PCI));
    let boot = |machine: &Machine| Ok(machine.boot_bare(&kernel, Some(&initramfs), &command_line(reads, count)));
    let (counts, text) = Profile::on_bare(&machine, &kernel, boot)?;
    ensure!(text.contains(DONE), "it has not read:\n{text}");
    Ok(counts)
}
