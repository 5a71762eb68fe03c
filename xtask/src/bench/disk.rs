//! What reading from a virtual disk costs.
//!
//! Answers for: the hypervisor's share of a read by a Linux guest, one at a time and past the guest's caches, from a disk in memory,
//! which is by MMIO or on the PCI bus, where it sends messages. Each is the difference of two runs, one of which reads more. Does not
//! answer for: what the guest itself needs.

use anyhow::Result;

use super::{Bench, Budget, INSTRUCTIONS, Profile, Row, counting, scratch};
use crate::configuration::Configuration;
use crate::setup;

/// Reads of one kind.
struct Reads {
    /// The row, and that of the exits for one of them, with how many there may be.
    name: &'static str,
    exits: Option<(&'static str, f64)>,
    size: &'static str,
    /// How many reads are under way at once.
    depth: u32,
    /// How often is read more. One who reads on and on has no more than the disk.
    count: u32,
    /// Where the disk is.
    place: &'static str,
    most: Budget,
}

const MEMORY: &str = "loc 0x1c0d0000 intr gic:41";
const BUS: &str = "loc pci:1";
const EXITS: [&str; 3] = ["blk-read-exits", "blk-read-exits-pci", "blk-read-exits-deep"];

/// Two exits for each read, and what comes in among thousands of them whether there is a disk or not: interrupts of timers, some of
/// which return to EL2 itself.
const TWO: f64 = 2.1;

const READS: [Reads; 5] = [
    Reads { exits: Some((EXITS[0], TWO)), ..Reads::new("blk-read-4k", "4k", 3000, MEMORY, Budget::AtMost(6_000.0)) },
    Reads::new("blk-read-64k", "64k", 150, MEMORY, Budget::AtMost(16_000.0)),
    Reads { exits: Some((EXITS[1], TWO)), ..Reads::new("blk-read-4k-pci", "4k", 3000, BUS, Budget::AtMost(6_000.0)) },
    Reads::new("blk-read-64k-pci", "64k", 150, BUS, Budget::AtMost(16_000.0)),
    Reads { exits: Some((EXITS[2], 0.5)), depth: 32, ..Reads::new("blk-read-deep", "4k", 4000, MEMORY, Budget::None) },
];
/// All of the rows.
pub(super) const NAMES: [&str; 8] =
    [READS[0].name, READS[1].name, READS[2].name, READS[3].name, READS[4].name, EXITS[0], EXITS[1], EXITS[2]];

impl Reads {
    /// One at a time.
    const fn new(name: &'static str, size: &'static str, count: u32, place: &'static str, most: Budget) -> Self {
        Self { name, exits: None, size, depth: 1, count, place, most }
    }
}

impl Bench<'_> {
    /// The rows of disks.
    pub(super) fn disk(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for reads in READS {
            let Reads { name, exits, size, depth, count, place, most } = reads;
            let exits = exits.filter(|(exits, _)| self.wants(exits) || self.wants(name));
            if !self.wants(name) && exits.is_none() {
                continue;
            }
            eprintln!("bench: Linux reads {size} of a virtual disk, {depth} at a time, {place} ...");
            let counts = profile(self, &reads, count + 100)?.without(&profile(self, &reads, 100)?);
            self.explain(name, &counts)?;
            let each = |number: u64| number as f64 / f64::from(count);
            let row =
                |name: &str, unit, ours, budget| Row { name: name.into(), unit, bare: None, ours: Some(ours), budget };
            rows.push(row(name, INSTRUCTIONS, each(counts.hypervisor()), most));
            if let Some((exits, most)) = exits {
                let returns = counts.kinds(&std::fs::read(&self.board.elf)?)?.returns;
                rows.push(row(exits, "returns", each(returns), Budget::AtMost(most)));
            }
        }
        Ok(rows)
    }
}

fn profile(bench: &Bench<'_>, reads: &Reads, count: u32) -> Result<Profile> {
    let Reads { size, depth, place, .. } = reads;
    // The one who has many under way needs its own tool, and that more memory.
    let (initrd, mebibytes, command) = if *depth == 1 {
        setup::linux_guest_with_drivers()?;
        let command = format!("dd if=/dev/vda of=/dev/null bs={size} iflag=direct count={count}");
        ("drivers.cpio", 256, command)
    } else {
        setup::linux_guest_with_fio()?;
        let command = format!(
            "fio --name=deep --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth={depth} --rw=randread --bs={size} \
             --number_ios={count} --output-format=terse > /tmp/out"
        );
        ("fio.cpio", 640, command)
    };
    let load = format!("load ../../guests/linux/Image\ninitrd load ../../guests/linux/{initrd}");
    let commands = format!("dd if=/dev/urandom of=/dev/vda bs=64k count=256; {command}");
    let command_line = format!("console=ttyAMA0 quiet bulkhead.run=\\\"{commands}\\\"");
    let path = scratch("disk", &load, 1, mebibytes, &command_line)?;
    let vdev = format!("vdev virtio-blk {place} hostdev /dev/ram,16M");
    let vm = Configuration::read(&path, &vdev, None)?;
    Profile::take(&bench.board, &counting(1), &[vm], None)
}
