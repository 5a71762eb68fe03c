//! What reading from a virtual disk costs.
//!
//! Answers for: the hypervisor's share of a read by a Linux guest, one at a time and past the guest's caches, from a disk in memory.
//! Each is the difference of two runs, one of which reads more. Does not answer for: what the guest itself needs.

use anyhow::Result;

use super::{Bench, Budget, INSTRUCTIONS, Profile, Row, counting, scratch};
use crate::configuration::Configuration;
use crate::setup;

/// By the size of a read: its row, and how often it is read more.
const READS: [(&str, &str, u32, Budget); 2] =
    [("blk-read-4k", "4k", 1000, Budget::AtMost(6_000.0)), ("blk-read-64k", "64k", 200, Budget::AtMost(16_000.0))];
/// The exits for one of the former.
const EXITS: (&str, Budget) = ("blk-read-exits", Budget::AtMost(2.0));
/// All of them.
pub(super) const NAMES: [&str; 3] = [READS[0].0, READS[1].0, EXITS.0];

impl Bench<'_> {
    /// The rows of disks.
    pub(super) fn disk(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, size, count, budget) in READS {
            let is_smallest = size == READS[0].1;
            let is_wanted = self.wants(name) || is_smallest && self.wants(EXITS.0);
            if !is_wanted {
                continue;
            }
            eprintln!("bench: Linux reads {size} of a virtual disk at a time ...");
            let counts = reads(self, size, count + 10)?.without(&reads(self, size, 10)?);
            self.explain(name, &counts)?;
            let each = |number: u64| number as f64 / f64::from(count);
            let row =
                |name: &str, unit, ours, budget| Row { name: name.into(), unit, bare: None, ours: Some(ours), budget };
            rows.push(row(name, INSTRUCTIONS, each(counts.hypervisor()), budget));
            if is_smallest {
                let returns = counts.kinds(&std::fs::read(&self.board.elf)?)?.returns;
                rows.push(row(EXITS.0, "returns", each(returns), EXITS.1));
            }
        }
        Ok(rows)
    }
}

fn reads(bench: &Bench<'_>, size: &str, count: u32) -> Result<Profile> {
    setup::linux_guest_with_drivers()?;
    let load = "load ../../guests/linux/Image\ninitrd load ../../guests/linux/drivers.cpio";
    let commands = format!(
        "dd if=/dev/urandom of=/dev/vda bs=64k count=256; dd if=/dev/vda of=/dev/null bs={size} iflag=direct count={count}"
    );
    let command_line = format!("console=ttyAMA0 quiet bulkhead.run=\\\"{commands}\\\"");
    let path = scratch("disk", load, 1, 256, &command_line)?;
    let vdev = "vdev virtio-blk loc 0x1c0d0000 intr gic:41 hostdev /dev/ram,16M";
    let vm = Configuration::read(&path, vdev, None)?;
    Profile::take(&bench.board, &counting(1), &[vm], None)
}
