//! What devices of PCI are to be tested with in VMs, first without any hypervisor: what fails later is not the test's own fault.
//!
//! Answers for: Linux with disks and network cards by its own drivers; the guests `edu`, whose DMA has to hit, and `canary`, which has to
//! notice. Does not answer for: devices that are passed.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::Test;
use super::machine::Case;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;
use crate::setup;

/// Bytes of a disk.
const DISK: u64 = 64 << 20;
/// A network of QEMU's own, on which port 7 of 10.0.2.100 sends back what it gets.
pub(super) const ECHO: &str = "user,guestfwd=tcp:10.0.2.100:7-cmd:cat";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::bare("bare/edu", "DMA hits what it is aimed at, and the device interrupts, without hypervisor", edu),
        Test::bare("bare/canary", "whoever watches memory sees each byte that a device writes", canary),
        Test::bare("bare/pci-disks", "Linux writes and verifies disks by NVMe and AHCI without hypervisor", disks),
        Test::bare("bare/pci-nets", "Linux sends by an 82574 and by a virtual function without hypervisor", nets),
    ]
}

/// The device is right, its DMA writes own memory, also where that was given back; elsewhere it says the same and own memory is as it was.
fn edu(case: &Case) -> Result<()> {
    let orders = "test write own 64 read own sweep 0xfffffffffffff000 0x1000 0x800 stale last own 64";
    for gic in [3, 2] {
        let balloon = ["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-balloon-device"];
        let more = balloon.map(String::from).into();
        let machine = Machine { gic, more, devices: vec![Device::new(Kind::Edu)], ..Machine::default() };
        let text = case.bare(&machine, "target/guests/edu.bin", None, orders)?;
        ensure!(!text.contains("FAILED"), "the guest complains");
        for line in
            ["edu: loaded", "alive: ok", "dma: ok", "line: ok", "message: ok", "5 shots, 5 done, 0 own bytes changed"]
        {
            ensure!(text.contains(line), "no line has `{line}`");
        }
        let arrived = text.lines().filter(|line| line.contains("edu: write ") && line.contains(", arrived")).count();
        ensure!(arrived == 3, "of three writes to own memory {arrived} have arrived");
        ensure!(text.contains("is given back") && text.contains("edu: last "), "an order is missing");
    }
    Ok(())
}

fn canary(case: &Case) -> Result<()> {
    let machine = Machine { memory: "256M".into(), devices: vec![Device::new(Kind::Edu)], ..Machine::default() };
    let watch =
        |words: &str| case.bare(&machine, "target/guests/canary.bin", None, &format!("rate=65536 rounds=3 {words}"));
    let text = watch("shoot=0x100004")?;
    ensure!(text.contains("canary: shot at 0x40100004, done"), "nothing was shot at");
    let told = text.lines().filter(|line| line.contains(" is 0x00, not ")).count();
    ensure!(told == 16 && text.contains("canary: 3 rounds, 16 bytes changed"), "of 16 bytes it has told {told}");
    ensure!(watch("")?.contains("canary: 3 rounds, 0 bytes changed"), "it sees what nobody has done");
    Ok(())
}

/// An empty disk.
pub(super) fn disk(case: &Case, name: &str) -> Result<PathBuf> {
    let path = case.path(name);
    File::create(&path)?.set_len(DISK)?;
    Ok(path)
}

fn disks(case: &Case) -> Result<()> {
    let nvme = Device::new(Kind::Nvme(disk(case, "nvme.img")?)).behind_port();
    let ahci = Device::new(Kind::Ahci(disk(case, "ahci.img")?));
    let text = linux(case, vec![nvme, ahci], "disk nvme0n1 16 + disk sda 16")?;
    every_order_is_done(&text, &["disk nvme0n1 16: ok, 16 MiB verified", "disk sda 16: ok, 16 MiB verified"])
}

fn nets(case: &Case) -> Result<()> {
    let e1000e = Device::new(Kind::E1000e(ECHO.into()));
    let igb = Device::new(Kind::Igb(ECHO.into())).behind_port();
    let text = linux(case, vec![e1000e, igb], "net e1000e 1 + functions igb 2 + net igbvf 1")?;
    every_order_is_done(&text, &["net e1000e 1: ok", "functions igb 2: ok, 2 at", "net igbvf 1: ok"])
}

/// Boots Linux with these devices and gives the script `passed` these orders.
fn linux(case: &Case, devices: Vec<Device>, orders: &str) -> Result<String> {
    setup::linux_guest_with_pci()?;
    let machine = Machine { devices, memory: "1G".into(), ..Machine::default() };
    let command_line = format!("console=ttyAMA0 quiet bulkhead.run=\"passed {orders}\"");
    case.bare(&machine, setup::LINUX_IMAGE, Some(setup::LINUX_INITRAMFS_WITH_PCI), &command_line)
}

/// Fails unless the script says this of each.
pub(super) fn every_order_is_done(text: &str, wanted: &[&str]) -> Result<()> {
    for line in wanted {
        ensure!(text.lines().any(|found| found.contains(&format!("passed: {line}"))), "no line says `passed: {line}`");
    }
    ensure!(!text.contains("FAILED"), "an order failed");
    Ok(())
}
