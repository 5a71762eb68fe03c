//! What does not answer: devices that only the device tree has, and accesses of a size that a device does not take.
//!
//! Answers for: that each is told to whom it concerns, and that EL2 goes on. Does not answer for: registers that are something else's
//! (`smmu/liar`), and for functions that do not answer because they are not there (`pcie`).

use anyhow::{Result, ensure};
use dtoolkit::model::{DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _};

use super::Test;
use super::machine::Case;
use super::scene::Scene;
use super::smmu::with_tree;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;
use crate::qemu::raspberry::cells;

/// QEMU's machine has nothing there, and 16 MiB of that, as long as it has no secure memory.
const HOLE: u32 = 0x0b00_0000;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("unanswered/tree", "devices that only the tree has are named, and nobody gets them", tree),
        Test::hypervisor("unanswered/gic", "an interrupt controller that only the tree has is refused", gic),
        Test::hypervisor("unanswered/sizes", "a guest that a device does not answer has an abort, not EL2", sizes),
        Test::hypervisor("unanswered/steps", "a device that answers no step is not at rest", steps),
    ]
}

/// Moves the registers of the node at this path, the first that it has, to so far behind the hole's beginning.
fn moved(root: &mut DeviceTreeNode, path: &[&str], offset: u32, length: u32) -> Option<()> {
    let node = path.iter().try_fold(root, |node, name| node.child_mut(name))?;
    let rest = node.property("reg")?.value().get(16..)?.to_vec();
    node.property_mut("reg")?.set_value([cells(&[0, HOLE + offset, 0, length]), rest].concat());
    Some(())
}

fn tree(case: &Case) -> Result<()> {
    let machine = Machine { smmu: true, devices: vec![Device::new(Kind::Edu)], ..Machine::default() };
    let lie = |root: &mut DeviceTreeNode| {
        let smmu = root.child("smmuv3@9050000")?.property("phandle")?.value().to_vec();
        let iommus = DeviceTreeProperty::new("iommus", [smmu, cells(&[0x123])].concat()).ok()?;
        root.child_mut("pl061@9030000")?.add_property(iommus);
        moved(root, &["smmuv3@9050000"], 0, 0x2_0000)?;
        moved(root, &["intc@8000000", "its@8080000"], 0x10_0000, 0x2_0000)?;
        moved(root, &["virtio_mmio@a000000"], 0x20_0000, 0x200)?;
        moved(root, &["pl031@9010000"], 0x30_0000, 0x1000)?;
        moved(root, &["pcie@10000000"], 0x80_0000, 0x80_0000)?;
        root.child_mut("pcie@10000000")?.property_mut("bus-range")?.set_value(cells(&[0, 7]));
        Some(())
    };
    let mut scene = Scene::new();
    scene.vm("behind", "witness", "2M", "pass loc 0x1c170000,4K,rwd=0x09030000")?;
    scene.vm("edu", "witness", "2M", "pass loc pci:0:1.0")?;
    scene.vm("hello", "hello", "2M", "")?;
    scene.line("pidin smmu").line("pidin its").line("pidin pci");
    scene.line("qvm @behind.qvmconf").line("qvm @edu.qvmconf").line("qvm @hello.qvmconf");
    let ran = with_tree(case, machine, &scene, lie)?;
    for said in [
        "smmu0 at 0xb000000 is not used: it does not answer. No device behind it can be given to a VM",
        "its0 at 0xb100000 is not used: it does not answer",
        "the virtio device at 0xb200000 does not answer",
        "/pcie@10000000: no PCI function answers",
        "VM `behind` cannot have /pl061@9030000: smmu0 at 0xb000000 is not used: it does not answer",
        "the machine has no PCI function 0:1.0",
        "hello| hello: good-bye",
    ] {
        ran.expect(said)?;
    }
    // There, but where no register can be; and beyond all addresses that the CPU has.
    for (at, said) in [
        ([0, 0x0905_0002], "smmu0 at 0x9050002 is not used: it does not answer"),
        ([0x0010_0000, 0], "smmu0 at 0x10000000000000 is not used: its registers, "),
    ] {
        let lie = |root: &mut DeviceTreeNode| {
            let smmu = root.child_mut("smmuv3@9050000")?;
            smmu.property_mut("reg")?.set_value([cells(&at), cells(&[0, 0x2_0000])].concat());
            Some(())
        };
        let mut scene = Scene::new();
        scene.vm("hello", "hello", "2M", "")?.line("qvm @hello.qvmconf");
        let ran = with_tree(case, Machine { smmu: true, ..Machine::default() }, &scene, lie)?;
        ran.expect(said)?.expect("hello| hello: good-bye")?;
    }
    Ok(())
}

fn gic(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("hello", "hello", "2M", "")?.line("qvm @hello.qvmconf");
    let no_redistributor = |root: &mut DeviceTreeNode| {
        let gic = root.child_mut("intc@8000000")?;
        let distributor = gic.property("reg")?.value().get(..16)?.to_vec();
        gic.property_mut("reg")?.set_value([distributor, cells(&[0, HOLE, 0, 0x10_0000])].concat());
        Some(())
    };
    let version_3 = Machine { gic: 3, ..Machine::default() };
    // The second is at no page, the third where no register can be.
    for offset in [0, 0x800, 2] {
        let lie = |root: &mut DeviceTreeNode| moved(root, &["intc@8000000"], offset, 0x1_0000);
        let ran = with_tree(case, version_3.clone(), &scene, lie)?;
        ran.expect("bulkhead: cannot run here: the interrupt controller is not a GICv3 (GICD_PIDR2.ArchRev)")?;
    }
    let ran = with_tree(case, version_3, &scene, no_redistributor)?;
    ran.expect("bulkhead: cannot run here: no redistributor has this CPU's affinity (GICR_TYPER)")?;
    // GICD, GICC, GICH.
    for part in 0..3 {
        let lie = |root: &mut DeviceTreeNode| {
            let gic = root.child_mut("intc@8000000")?;
            let mut value = gic.property("reg")?.value().to_vec();
            value.get_mut(16 * part..16 * part + 8)?.copy_from_slice(&cells(&[0, HOLE]));
            gic.property_mut("reg")?.set_value(value);
            Some(())
        };
        let ran = with_tree(case, Machine { gic: 2, ..Machine::default() }, &scene, lie)?;
        ran.expect(
            "bulkhead: cannot run here: the interrupt controller's registers need more room than its `reg` has",
        )?;
    }
    Ok(())
}

/// QEMU's edu takes 4 and 8 bytes and no others. Where another one is at the same place the hypervisor makes the guest's accesses.
fn sizes(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.guest("edu")?;
    let passed = "pass loc pci:0:5.0=0:1.0 without-reset\npass loc pci:0:6.0=0:2.0 without-reset";
    let text = format!(
        "system edu\nram 0x80000000,32M\nload edu.elf\ncmdline sizes\nvdev pl011 loc 0x1c090000 intr gic:37\n{passed}\n"
    );
    scene.file("edu.qvmconf", text.into()).line("qvm @edu.qvmconf");
    let devices = vec![Device::new(Kind::Edu), Device::new(Kind::Edu)];
    let ran = scene.run(case, &Machine { smmu: true, devices, ..Machine::default() }, None, 1)?;
    let found = "[(1, false), (2, false), (4, true), (8, true)], it is 0x10000ed";
    ran.in_order(&[
        &format!("edu| edu: sizes alone: {found}"),
        &format!("edu| edu: sizes below another: {found}"),
        "qvm: edu ended: code 0 (",
    ])?;
    Ok(())
}

/// A step that nothing answers says so, and nobody gets the device.
fn steps(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let passed = format!("pass loc 0x1c170000,4K,rwn={HOLE:#x}\nvdev quiesce region 0x1c170000 write 0x10,4,0\n");
    for vm in ["first", "second"] {
        scene.vm(vm, "hello", "2M", &passed)?.line(format!("qvm @{vm}.qvmconf"));
    }
    let nowhere = |root: &mut DeviceTreeNode| {
        let mut node = DeviceTreeNode::new(format!("nowhere@{HOLE:x}")).ok()?;
        node.add_property(DeviceTreeProperty::new("reg", cells(&[0, HOLE, 0, 0x1000])).ok()?);
        root.add_child(node);
        Some(())
    };
    let ran = with_tree(case, Machine::default(), &scene, nowhere)?;
    ran.in_order(&[
        "vdev `quiesce`: 0xb000000-0xb000fff is not at rest: `write 0x10,4,0x0`: the device answers with a bus error",
        "qvm: first ended: code 0 (",
        "VM `second` cannot have 0xb000000-0xb000fff of the machine: VM `first`, which has ended without",
    ])?;
    ensure!(!ran.text.contains("in EL2"), "EL2 has taken an abort");
    Ok(())
}
