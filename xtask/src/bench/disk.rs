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
    /// The row, and that of the exits for one of them.
    name: &'static str,
    exits: Option<&'static str>,
    size: &'static str,
    /// How often is read more.
    count: u32,
    /// Where the disk is.
    place: &'static str,
    most: f64,
}

const MEMORY: &str = "loc 0x1c0d0000 intr gic:41";
const BUS: &str = "loc pci:1";
const EXITS: [&str; 2] = ["blk-read-exits", "blk-read-exits-pci"];
/// Most exits of a read that is no longer than a page.
const MOST_EXITS: f64 = 2.0;

const READS: [Reads; 4] = [
    Reads { name: "blk-read-4k", exits: Some(EXITS[0]), size: "4k", count: 1000, place: MEMORY, most: 6_000.0 },
    Reads { name: "blk-read-64k", exits: None, size: "64k", count: 200, place: MEMORY, most: 16_000.0 },
    Reads { name: "blk-read-4k-pci", exits: Some(EXITS[1]), size: "4k", count: 1000, place: BUS, most: 6_000.0 },
    Reads { name: "blk-read-64k-pci", exits: None, size: "64k", count: 200, place: BUS, most: 16_000.0 },
];
/// All of the rows.
pub(super) const NAMES: [&str; 6] = [READS[0].name, READS[1].name, READS[2].name, READS[3].name, EXITS[0], EXITS[1]];

impl Bench<'_> {
    /// The rows of disks.
    pub(super) fn disk(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for reads in READS {
            let Reads { name, exits, size, count, place, most } = reads;
            let wanted_exits = exits.filter(|exits| self.wants(exits) || self.wants(name));
            if !self.wants(name) && wanted_exits.is_none() {
                continue;
            }
            eprintln!("bench: Linux reads {size} of a virtual disk at a time, {place} ...");
            let counts = profile(self, size, count + 10, place)?.without(&profile(self, size, 10, place)?);
            self.explain(name, &counts)?;
            let each = |number: u64| number as f64 / f64::from(count);
            let row = |name: &str, unit, ours, most| {
                let budget = Budget::AtMost(most);
                Row { name: name.into(), unit, bare: None, ours: Some(ours), budget }
            };
            rows.push(row(name, INSTRUCTIONS, each(counts.hypervisor()), most));
            if let Some(exits) = wanted_exits {
                let returns = counts.kinds(&std::fs::read(&self.board.elf)?)?.returns;
                rows.push(row(exits, "returns", each(returns), MOST_EXITS));
            }
        }
        Ok(rows)
    }
}

fn profile(bench: &Bench<'_>, size: &str, count: u32, place: &str) -> Result<Profile> {
    setup::linux_guest_with_drivers()?;
    let load = "load ../../guests/linux/Image\ninitrd load ../../guests/linux/drivers.cpio";
    let commands = format!(
        "dd if=/dev/urandom of=/dev/vda bs=64k count=256; dd if=/dev/vda of=/dev/null bs={size} iflag=direct count={count}"
    );
    let command_line = format!("console=ttyAMA0 quiet bulkhead.run=\\\"{commands}\\\"");
    let path = scratch("disk", load, 1, 256, &command_line)?;
    let vdev = format!("vdev virtio-blk {place} hostdev /dev/ram,16M");
    let vm = Configuration::read(&path, &vdev, None)?;
    Profile::take(&bench.board, &counting(1), &[vm], None)
}
