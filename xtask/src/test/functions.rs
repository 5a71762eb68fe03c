//! Functions of the machine's PCI that VMs have: QEMU's edu, disks and network cards.
//!
//! Answers for: what a guest finds of them, interrupts of both kinds, DMA that hits the guest's own memory, the end and the next life.
//! Does not answer for: what the same guests do without a hypervisor (`bare_pci`).

use anyhow::{Result, ensure};

use super::Test;
use super::machine::Case;
use super::scene::Scene;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;

/// QEMU's edu, wherever it is.
const EDU: &str = "pass loc pci:0:5.0=0x1234/0x11e8";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![Test::hypervisor(
        "functions/edu",
        "edu is on the guest's bus, interrupts by its pin and by messages, and hits the guest's memory",
        edu,
    )]
}

fn machine(devices: Vec<Device>) -> Machine {
    Machine { smmu: true, devices, ..Machine::default() }
}

/// The configuration of a bare-metal guest, with an interrupt translation service or without.
fn vm(scene: &mut Scene, name: &str, guest: &str, its: bool, more: &str) -> Result<()> {
    let controller = if its { "vdev gic its 0x08080000 num-lpis 256" } else { "" };
    let console = "vdev pl011 loc 0x1c090000 intr gic:37";
    let text = format!("system {name}\nram 0x80000000,32M\nload {guest}.elf\n{controller}\n{console}\n{more}\n");
    scene.guest(guest)?.file(&format!("{name}.qvmconf"), text.into());
    Ok(())
}

fn edu(case: &Case) -> Result<()> {
    for its in [true, false] {
        let mut scene = Scene::new();
        let orders = "cmdline \"test write own 64 read own\"";
        vm(&mut scene, "edu", "edu", its, &format!("{orders}\n{EDU} without-reset"))?;
        scene.line("qvm @edu.qvmconf &").line("sleep 0.2").line("pidin pci").line("status edu");
        scene.line("pidin smmu").line("wait edu").line("pidin pci");
        let ran = scene.run(case, &machine(vec![Device::new(Kind::Edu)]), None, 1)?;
        ensure!(!ran.text.contains("FAILED"), "the guest complains");
        ran.in_order(&["edu| edu: 0x010000ed at function 0x28", "qvm: edu ended: code 0 ("])?;
        for line in ["alive: ok", "dma: ok", "line: ok", "message: ok"] {
            ran.expect(line)?;
        }
    }
    Ok(())
}
