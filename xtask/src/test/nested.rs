//! VMs with an SMMU of their own, and functions of the machine behind it.
//!
//! Answers for: Linux that confines disks and network cards by its own tables, faults at those being the guest's and nobody else's, and
//! guests that lie to their SMMU. Does not answer for: what an SMMU of a VM's is without a device behind it (`smmu/virtual`).

use std::fs;

use anyhow::{Result, ensure};

use super::Test;
use super::bare_pci::{ECHO, disk, every_order_is_done};
use super::machine::Case;
use super::scene::Scene;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::root;

/// QEMU's edu, which has no reset on the first bus.
const EDU: &str = "pass loc pci:0x1234/0x11e8 without-reset";
const NVME: &str = "pass loc pci:0x1b36/0x0010";
const E1000E: &str = "pass loc pci:0x8086/0x10d3";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "smmu/nested",
            "Linux has a disk and a card behind its VM's SMMU, and hears of faults at its own tables",
            nested,
        ),
        Test::hypervisor(
            "smmu/nested-liar",
            "a guest whose stream table or context descriptors are nowhere harms itself",
            liar,
        ),
    ]
}

fn machine(devices: Vec<Device>) -> Machine {
    Machine { smmu: true, devices, ..Machine::default() }
}

/// A Linux guest with an SMMU of its own and these functions, which gives the script `passed` these orders.
fn linux(scene: &mut Scene, controller: &str, (words, orders): (&str, &str), functions: &[&str]) -> Result<()> {
    setup::linux_guest_with_pci()?;
    for (file, path) in [("Image", setup::LINUX_IMAGE), ("initramfs", setup::LINUX_INITRAMFS_WITH_PCI)] {
        scene.file(file, fs::read(root().join(path))?);
    }
    let functions = functions.join("\n");
    let text = format!(
        "system linux\nram 0x80000000,768M\ncpu\ncpu\nload Image\ninitrd load initramfs\n{controller}\n\
         cmdline \"console=ttyAMA0 quiet {words} bulkhead.run=\\\"passed {orders}\\\"\"\n\
         vdev pl011 loc 0x1c090000 intr gic:37\nvdev smmu loc 0x1d000000 intr gic:60\n{functions}\n"
    );
    scene.file("linux.qvmconf", text.into());
    Ok(())
}

fn nested(case: &Case) -> Result<()> {
    let orders = "groups + disk nvme0n1 8 + net e1000e 1 + stray";
    for (controller, words) in [("vdev gic its 0x08080000 num-lpis 256", ""), ("", "pci=nomsi")] {
        let nvme = Device::new(Kind::Nvme(disk(case, "nvme.img")?)).behind_port();
        let e1000e = Device::new(Kind::E1000e(ECHO.into())).behind_port();
        let mut scene = Scene::new();
        let words = format!("{words} iommu.passthrough=0 iommu.strict=1");
        linux(&mut scene, controller, (&words, orders), &[NVME, E1000E])?;
        // A second life finds all of it as the first has.
        scene.line("qvm @linux.qvmconf").line("pidin smmu").line("qvm @linux.qvmconf &").line("sleep 4");
        scene.line("status linux").line("pidin smmu").line("wait linux");
        let ran = scene.run(case, &machine(vec![nvme, e1000e]), None, 8)?;
        every_order_is_done(&ran.text, &["groups: ok, 2", "disk nvme0n1 8: ok, 8 MiB verified", "net e1000e 1: ok"])?;
        let count = |what: &str| ran.text.lines().filter(|line| line.contains(what)).count();
        for function in ["0x1b36 0x0010", "0x8086 0x10d3"] {
            let groups = count(&format!("passed: group: {function} DMA"));
            ensure!(groups == 2, "{function} is translated in {groups} of two lives");
        }
        let heard = count("passed: stray: ok, event 0x10 received");
        ensure!(heard == 2, "the guest has heard of its faults in {heard} of two lives");
        ensure!(count("smmu0: stream") == 0, "the hypervisor tells of what is the guest's");
        ran.expect("behind VM `linux`'")?;
    }
    Ok(())
}

fn liar(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let words = "mem=512M initcall_blacklist=arm_smmu_driver_init";
    linux(&mut scene, "", (words, "liar"), &[EDU])?;
    scene.vm("hello", "hello", "2M", "")?;
    scene.line("qvm @linux.qvmconf").line("pidin smmu").line("qvm @hello.qvmconf");
    let ran = scene.run(case, &machine(vec![Device::new(Kind::Edu)]), None, 4)?;
    // F_STE_FETCH is the guest's to know; that its descriptor is beyond its VM is not.
    every_order_is_done(&ran.text, &["liar: ok, event 0x03, then 0 more"])?;
    ran.expect("is not mapped by stage 2, at a context descriptor")?;
    ran.expect("hello| hello: good-bye")?;
    Ok(())
}
