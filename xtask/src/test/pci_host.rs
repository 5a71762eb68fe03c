//! The machine's PCI Express: what is found, that it is at rest, and that it can be brought there again.
//!
//! Answers for: QEMU's functions on the host's own bus and behind ports, with and without a reset. Does not answer for: VMs that have a function,
//! and for functions that lie, which are tested in `pcie` with some of our own.

use anyhow::{Result, ensure};

use super::Test;
use super::machine::Case;
use super::scene::Scene;
use crate::qemu::machine::Machine;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("pci-host/scan", "all functions are found, at rest, with addresses and groups", scan),
        Test::hypervisor("pci-host/rest", "a function is reset by itself, with its bus, or not at all", rest),
        Test::hypervisor("pci-host/virtual", "a card makes virtual functions, which are found", virtual_),
    ]
}

/// A machine with these devices.
fn machine(devices: &[&str]) -> Machine {
    let more = devices.iter().flat_map(|device| ["-device".into(), (*device).into()]).collect();
    Machine { smmu: true, more, ..Machine::default() }
}

/// A scene in which `hello` runs at the end.
fn scene(lines: &[&str]) -> Result<Scene> {
    let mut scene = Scene::new();
    for line in lines {
        scene.line(line);
    }
    scene.vm("hello", "hello", "2M", "")?.line("qvm @hello.qvmconf");
    Ok(scene)
}

fn scan(case: &Case) -> Result<()> {
    let devices = [
        "edu,addr=2",
        "ahci,addr=3",
        "e1000e,addr=4,romfile=",
        "igb,addr=5",
        "pcie-root-port,id=port0,bus=pcie.0,chassis=1,slot=1,addr=6",
        "nvme,bus=port0,serial=1",
        "pcie-root-port,id=port1,bus=pcie.0,chassis=2,slot=2,addr=7,disable-acs=on",
        "x3130-upstream,id=up,bus=port1",
        "xio3130-downstream,id=down,bus=up,chassis=3,slot=3",
        "edu,bus=down",
    ];
    let ran = scene(&["pidin pci"])?.run(case, &machine(&devices), None, 1)?;
    ran.in_order(&[
        "0000:00:00.0 1b36:0008     0 none      - off the hypervisor",
        "0000:00:02.0 1234:11e8     1 none     37 off -",
        "BAR 0 0x",
        "0000:00:03.0 8086:2922     2 none     38 off -",
        "SATA 010601",
        "0000:00:04.0 8086:10d3     3 none     35 off -",
        "Ethernet 020000, 1 MSI, 5 MSI-X",
        "0000:00:05.0 8086:10c9     4 FLR      36 off -",
        "virtual functions",
        "0000:00:06.0 1b36:000c     5 none     37 on  the hypervisor",
        "buses 01 to 01",
        "0000:00:07.0 1b36:000c     6 none     38 on  the hypervisor",
        "buses 02 to 04",
        "0000:01:00.0 1b36:0010     7 FLR",
        "NVMe 010802",
        "0000:02:00.0 104c:8232     6 ",
        "0000:03:00.0 104c:8233     6 ",
        "0000:04:00.0 1234:11e8     6 bus",
        "hello| hello: good-bye",
    ])?;
    ran.expect_status(0)?;
    let lost = ran.text.lines().filter(|line| line.contains("no address") && !line.contains("I/O")).count();
    ensure!(lost == 0, "all memory has an address:\n{}", ran.text);
    Ok(())
}

fn rest(case: &Case) -> Result<()> {
    let devices = [
        "edu,addr=2",
        "nvme,addr=4,serial=1",
        "pcie-root-port,id=port0,bus=pcie.0,chassis=1,slot=1,addr=6",
        "e1000e,bus=port0,romfile=",
    ];
    let lines = [
        "pci reset 0000:00:04.0",
        "pci reset 01:00.0",
        "pci reset 00:02.0",
        "pci reset -f 00:02.0",
        "pci reset 00:06.0",
        "pci reset 00:1f.7",
        "pidin pci",
    ];
    let ran = scene(&lines)?.run(case, &machine(&devices), None, 1)?;
    ran.in_order(&[
        "pci: 0000:00:04.0 is at rest",
        "pci: 0000:01:00.0 is at rest",
        "pci: error: PCI function 0000:00:02.0 is not at rest: it does nothing any more, but it cannot be reset",
        "pci: 0000:00:02.0 is at rest",
        "pci: error: the shell cannot have PCI function 0000:00:06.0: the hypervisor has it: it is a bridge",
        "pci: error: the shell cannot have PCI function 0000:00:1f.7: there is none",
        "0000:00:04.0 1b36:0010",
        "0000:01:00.0 8086:10d3     4 bus",
        "hello| hello: good-bye",
    ])?;
    ran.expect_status(0)?;
    Ok(())
}

fn virtual_(case: &Case) -> Result<()> {
    let lines =
        ["pci virtual 00:05.0 2", "pci virtual 00:05.0 2", "pci virtual 00:00.0 1", "pci reset 00:05.0", "pidin pci"];
    let ran = scene(&lines)?.run(case, &machine(&["igb,addr=5"]), None, 1)?;
    ran.in_order(&[
        "pci: 0000:00:05.0 has made 0000:00:15.0, 0000:00:15.2",
        "pci: error: PCI function 0000:00:05.0: it has made virtual functions already",
        "pci: error: the shell cannot have PCI function 0000:00:00.0: the hypervisor has it",
        "pci: 0000:00:05.0 is at rest",
        "0000:00:15.0 8086:10ca",
        "of 0000:00:05.0",
        "0000:00:15.2 8086:10ca",
        "hello| hello: good-bye",
    ])?;
    ran.expect_status(0)?;
    Ok(())
}
