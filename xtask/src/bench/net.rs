//! What it costs to send from one VM to another.
//!
//! Answers for: the hypervisor's share, for both VMs, of a packet of 1500 bytes and of a segment of 64 KiB over a link, and its exits.
//! Both VMs are on one CPU. Each is the difference of two runs, one of which sends more. Does not answer for: what the guests need
//! themselves, nor for how fast it is, which depends on who waits for whom.

use anyhow::Result;

use super::{Bench, Budget, INSTRUCTIONS, Profile, Row, counting, folder};
use crate::configuration::Configuration;
use crate::setup;

/// A row, its exits', iperf3's options, and how many bytes one is.
const SENDINGS: [(&str, &str, &str, u32); 2] = [
    ("net-packet", "net-packet-exits", "-u -l 1472 -b 100M", 1472),
    ("net-segment", "net-segment-exits", "-l 64K", 65_536),
];
/// All of them.
pub(super) const NAMES: [&str; 4] = [SENDINGS[0].0, SENDINGS[0].1, SENDINGS[1].0, SENDINGS[1].1];
/// How many bytes are sent in a short run, and how many more in a long one.
const FEW: u32 = 2 << 20;
const MORE: u32 = 8 << 20;

impl Bench<'_> {
    /// The rows of networks.
    pub(super) fn net(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, exits, options, size) in SENDINGS {
            if !self.wants(name) && !self.wants(exits) {
                continue;
            }
            eprintln!("bench: one Linux sends another {size} bytes at a time ...");
            let counts = sends(self, options, FEW + MORE)?.without(&sends(self, options, FEW)?);
            self.explain(name, &counts)?;
            let each = |number: u64| number as f64 / f64::from(MORE / size);
            let returns = counts.kinds(&std::fs::read(&self.board.elf)?)?.returns;
            for (name, unit, number) in [(name, INSTRUCTIONS, counts.hypervisor()), (exits, "returns", returns)] {
                let ours = Some(each(number));
                rows.push(Row { name: name.into(), unit, bare: None, ours, budget: Budget::None });
            }
        }
        Ok(rows)
    }
}

fn sends(bench: &Bench<'_>, options: &str, bytes: u32) -> Result<Profile> {
    setup::linux_guest_with_drivers()?;
    let vm = |name: &str, host: u32, peer: &str, commands: &str| {
        let text = format!(
            "system {name}\nram 0x80000000,256M\ncpu\nload ../../guests/linux/Image\ninitrd load ../../guests/linux/drivers.cpio\n\
             cmdline \"console=ttyAMA0 quiet bulkhead.run=\\\"ip link set lo up; ip addr add 10.0.0.{host}/24 dev eth0; \
             ip link set eth0 up; {commands}\\\"\"\nvdev pl011 loc 0x1c090000 intr gic:37\n\
             vdev virtio-net loc 0x1c0e0000 intr gic:43 name link peer /dev/qvm/{peer}/link\n"
        );
        let path = folder()?.join(format!("{name}.qvmconf"));
        std::fs::write(&path, text)?;
        Configuration::read(&path, "", None)
    };
    let server = vm("net-server", 1, "net-client", "iperf3 -s -1")?;
    let ready = "until ping -c 1 -W 1 10.0.0.1 > /tmp/out; do :; done; sleep 1";
    let client = vm(
        "net-client",
        2,
        "net-server",
        &format!("{ready}; iperf3 -c 10.0.0.1 {options} -n {bytes} --get-server-output"),
    )?;
    Profile::take(&bench.board, &counting(1), &[server, client], None)
}
