//! SMMUs: every stream refused before the first VM starts, those that cannot be used, and what `smmuman` is told.
//!
//! Answers for: QEMU's SMMUv3 with both stages and with the first one only, trees that say what it is not, and VMs' devices that are
//! behind it by such a tree. Does not answer for: DMA, which none of them does; what an SMMU does then is tested in `smmu` with one of
//! our own.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _};

use super::Test;
use super::linux;
use super::machine::{Case, Ran};
use super::scene::Scene;
use crate::qemu::machine::Machine;
use crate::qemu::raspberry::cells;
use crate::setup;

/// Where QEMU's is, and where there is flash memory.
const AT: u32 = 0x0905_0000;
const FLASH: u32 = 0x0400_0000;
/// RAM that the tree reserves in one of the tests, and how much.
const RESERVED: (u32, u32) = (0x9000_0000, 0x10_0000);

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("smmu/boot", "an SMMU refuses every stream, and VMs and the hypervisor's disks go on", boot),
        Test::hypervisor("smmu/unfit", "an SMMU without stage 2 is closed, named and not used", unfit),
        Test::hypervisor("smmu/liar", "registers that are no SMMU's are named, and not used", liar),
        Test::hypervisor("smmu/behind", "a disk of the hypervisor's behind an SMMU is left alone, and named", behind),
        Test::hypervisor(
            "smmu/smmuman",
            "good words of `smmuman` take effect, of bad ones both owners are named",
            words,
        ),
        Test::hypervisor(
            "smmu/passed",
            "a stream is one VM's, by the name of its device, until that VM is no more",
            passed,
        ),
        Test::hypervisor("smmu/balloon", "an SMMU is told of each page that goes, and gives nothing away", balloon),
        Test::hypervisor(
            "smmu/virtual",
            "Linux probes the SMMU of its VM, and puts no virtual device behind it",
            virtual_smmu,
        ),
        Test::hypervisor("smmu/allow", "a device may reach memory that the tree reserves, and no other", allow),
    ]
}

fn machine() -> Machine {
    Machine { smmu: true, ..Machine::default() }
}

/// A scene in which `hello` runs at the end.
fn hello(lines: &[&str]) -> Result<Scene> {
    let mut scene = Scene::new();
    for line in lines {
        scene.line(line);
    }
    scene.vm("hello", "hello", "2M", "")?.line("qvm @hello.qvmconf");
    Ok(scene)
}

fn goes_on(ran: &Ran) -> Result<()> {
    ran.expect_status(0)?.expect("hello| hello: good-bye")?;
    Ok(())
}

fn boot(case: &Case) -> Result<()> {
    for gic in [3, 2] {
        let disk = case.file("disk.img", vec![0; 1 << 20])?;
        let machine = Machine { gic, disks: vec![disk], ..machine() };
        let ran = hello(&["pidin smmu", "pidin disks"])?.run(case, &machine, None, 1)?;
        ran.in_order(&[
            "smmu0 at 0x9050000: SMMUv3 with stage 2, 65536 streams, all refused",
            "SMMU             EVENTS      LOST",
            "smmu0                 0         0",
            "    at 0x9050000, 65536 streams",
            "hd0 ",
            "hello| hello: good-bye",
        ])?;
        goes_on(&ran)?;
    }
    let ran = hello(&["pidin smmu"])?.run(case, &Machine::default(), None, 1)?;
    ensure!(!ran.text.contains("smmu0"), "there is none");
    goes_on(&ran)
}

fn unfit(case: &Case) -> Result<()> {
    // Later versions of the machine set the stage themselves.
    let more = ["-M", "virt-9.1,iommu=smmuv3", "-global", "arm-smmuv3.stage=1"].map(String::from).into();
    let machine = Machine { more, ..Machine::default() };
    let mut scene = hello(&["smmuman @host.smmu", "pidin smmu"])?;
    scene.file("host.smmu", b"device pci:0:2.0 disk\nallow disk bypass\n".into());
    let ran = scene.run(case, &machine, None, 1)?;
    let why = "it has no stage 2 (IDR0.S2P is 0), so it cannot keep a device inside a VM. It is closed: no device behind it does DMA";
    ran.in_order(&[
        &format!("smmu0 at 0x9050000 is not used: {why}. No device behind it can be given to a VM"),
        &format!("host.smmu:1:8: error: `disk`: smmu0 at 0x9050000 is not used: {why}"),
        "    at 0x9050000, not used: it has no stage 2",
    ])?;
    goes_on(&ran)
}

/// What Linux has to say of an SMMU, and who is behind it: the second is nobody.
fn virtual_smmu(case: &Case) -> Result<()> {
    const LOOK: &str = "dmesg | grep arm-smmu-v3; ls /sys/class/iommu; ls /sys/bus/pci/devices; \
                        grep arm-smmu-v3 /proc/interrupts; echo groups: $(ls /sys/kernel/iommu_groups | wc -l); \
                        echo complaints: $(dmesg -r | grep -E '^<[0-4]>' | grep -c -i smmu)";
    setup::linux_guest()?;
    let text = linux::configuration("linux", 1, LOOK) + "vdev pci-dummy\nvdev smmu\n";
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?;
    ran.in_order(&[
        "arm-smmu-v3 1d000000.iommu: ias 44-bit, oas 44-bit",
        "arm-smmu-v3 1d000000.iommu: allocated 256 entries for cmdq",
        "arm-smmu-v3 1d000000.iommu: allocated 128 entries for evtq",
        "linux| smmu3.0x000000001d000000",
        "linux| 0000:00:00.0",
        "arm-smmu-v3-combined-irq",
        "linux| groups: 0",
        "linux| complaints: 0",
    ])
}

/// Boots with the tree that `change` makes of QEMU's.
pub(super) fn with_tree(
    case: &Case,
    machine: Machine,
    scene: &Scene,
    change: impl FnOnce(&mut DeviceTreeNode) -> Option<()>,
) -> Result<Ran> {
    let blob = case.tree(&machine, &scene.archive(case)?)?;
    let fdt = Fdt::new(&blob).ok().context("QEMU's device tree is none")?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    change(&mut tree.root).context("QEMU's device tree is not as it was: this test has to follow it")?;
    let path = case.path("changed.dtb");
    fs::write(&path, tree.to_dtb())?;
    let more = machine.more.iter().cloned().chain(["-dtb".into(), path.display().to_string()]).collect();
    scene.run(case, &Machine { more, ..machine }, None, 1)
}

/// A tree that has the SMMU where empty flash memory is, and one that has only a part of it.
fn liar(case: &Case) -> Result<()> {
    let elsewhere = |root: &mut DeviceTreeNode| {
        let smmu = root.child_mut(&format!("smmuv3@{AT:x}"))?;
        smmu.property_mut("reg")?.set_value(cells(&[0, FLASH, 0, 0x2_0000]));
        Some(())
    };
    let ran = with_tree(case, machine(), &hello(&["pidin smmu"])?, elsewhere)?;
    ran.expect("smmu0 at 0x4000000 is not used: it has no stage 2")?;
    goes_on(&ran)?;
    let small = |root: &mut DeviceTreeNode| {
        let smmu = root.child_mut(&format!("smmuv3@{AT:x}"))?;
        smmu.property_mut("reg")?.set_value(cells(&[0, AT, 0, 0x1000]));
        Some(())
    };
    let ran = with_tree(case, machine(), &hello(&["pidin smmu"])?, small)?;
    ran.expect("smmu0 at 0x9050000 is not used: its registers, 0x9050000-0x9050fff, are too few")?;
    goes_on(&ran)
}

fn behind(case: &Case) -> Result<()> {
    let disk = case.file("disk.img", vec![0; 1 << 20])?;
    let machine = Machine { disks: vec![disk], ..machine() };
    // By the way: a stream that QEMU's SMMU has not.
    let iommus = |root: &mut DeviceTreeNode| {
        let smmu = root.child(&format!("smmuv3@{AT:x}"))?.property("phandle")?.value().to_vec();
        let iommus = DeviceTreeProperty::new("iommus", [smmu, cells(&[0x2_0000])].concat()).ok()?;
        root.child_mut("virtio_mmio@a000000")?.add_property(iommus);
        Some(())
    };
    let ran = with_tree(case, machine, &hello(&["pidin smmu", "pidin disks"])?, iommus)?;
    ran.in_order(&[
        "smmu0 at 0x9050000: SMMUv3 with stage 2, 65536 streams, all refused",
        "the virtio disk at 0xa000000 is left alone: an SMMU is in front of it, which refuses it",
    ])?;
    ensure!(!ran.text.lines().any(|line| line.starts_with("hd0 ")), "it is in use");
    goes_on(&ran)
}

fn words(case: &Case) -> Result<()> {
    let bad: &[(&str, &str, &[&str])] = &[
        (
            "word.smmu",
            "devise pci:0:2.0 net",
            &["word.smmu:1:1: error: unknown word `devise`", "did you mean `device`?"],
        ),
        (
            "twice.smmu",
            "device pci:0:2.0 net\ndevice pci:0:2.0 disk",
            &[
                "twice.smmu:2:8: error: pci:0:2.0 is `net` already: it cannot be `disk`, too",
                "twice.smmu:1:8: note: `net` is here",
            ],
        ),
        (
            "same.smmu",
            "device pci:0:2.0 net\ndevice stream:0x10 disk",
            &[
                "sends by stream 0x10, which is that of `net`: it cannot be `disk`, too",
                "same.smmu:1:8: note: `net` is here",
            ],
        ),
        (
            "nowhere.smmu",
            "device mmio:0xa000000 net\ndevice stream:0x10000 far\ndevice stream:0-0x1000 many",
            &[
                "nowhere.smmu:1:8: error: `net`: by the device tree there is nothing at mmio:0xa000000, or it is behind no SMMU",
                "nowhere.smmu:2:8: error: `far`: smmu0 has no stream 0x10000: there are 65536",
                "nowhere.smmu:3:8: error: `many`: more than 256 streams",
            ],
        ),
        (
            "memory.smmu",
            "device pci:0:2.0 net\nallow net 0x50000000,64K",
            &[
                "memory.smmu:2:11: error: `net` cannot reach 0x50000000-0x5000ffff: it is not memory that the device tree reserves",
            ],
        ),
        (
            "safe.smmu",
            "device pci:0:2.0 net\nallow net bypass\nsafety",
            &["`net` cannot be let through: `safety` forbids it"],
        ),
    ];
    let mut scene = Scene::new();
    for (name, text, _) in bad {
        scene.file(name, text.as_bytes().into()).line(format!("smmuman @{name}"));
    }
    scene.line("smmuman @absent.smmu").line("pidin smmu");
    let good = "debug 2\ndevice pci:0:2.0 net\nallow net bypass\ndevice stream:0x123-0x124 raw\n";
    scene.file("good.smmu", good.into()).line("smmuman @good.smmu").line("pidin smmu").line("smmuman @good.smmu");
    scene.vm("hello", "hello", "2M", "")?.line("qvm @hello.qvmconf");
    let ran = scene.run(case, &machine(), None, 1)?;
    for (name, _, messages) in bad {
        messages.iter().try_for_each(|message| ran.expect(message).map(drop)).with_context(|| format!("of {name}"))?;
    }
    ran.in_order(&[
        "there is no file `absent.smmu` in the boot archive",
        "    at 0x9050000, 65536 streams",
        "    at 0x9050000, 65536 streams",
        "    0x10              0          net: let through by smmuman",
        "    0x123             0          raw: refused",
        "    0x124             0          raw: refused",
        "smmuman: it has a configuration already, which lasts",
    ])?;
    // The log has its own pace.
    ran.in_order(&[
        "smmu0: 13 steps in ",
        "smmuman: `net` is let through: it reaches all memory",
        "smmuman: `raw` is",
    ])?;
    goes_on(&ran)?;
    let mut scene = hello(&["smmuman @good.smmu"])?;
    scene.file("good.smmu", good.into());
    let ran = scene.run(case, &Machine::default(), None, 1)?;
    ran.expect("smmuman: this machine has no SMMU: devices cannot be confined")?;
    goes_on(&ran)
}

/// Devices of QEMU's that its SMMU is in front of by the tree, and two that are nowhere else: clock and GPIO have one stream.
fn masters(root: &mut DeviceTreeNode) -> Option<()> {
    let smmu = root.child(&format!("smmuv3@{AT:x}"))?.property("phandle")?.value().to_vec();
    let iommus = |stream| DeviceTreeProperty::new("iommus", [smmu.clone(), cells(&[stream])].concat()).ok();
    root.child_mut("pl031@9010000")?.add_property(iommus(0x123)?);
    root.child_mut("pl061@9030000")?.add_property(iommus(0x123)?);
    for (at, stream) in [(0x0b00_0000_u32, 0x2_0000), (0x0b00_1000, 0x124)] {
        let mut node = DeviceTreeNode::new(format!("nowhere@{at:x}")).ok()?;
        node.add_property(DeviceTreeProperty::new("reg", cells(&[0, at, 0, 0x1000])).ok()?);
        node.add_property(iommus(stream)?);
        root.add_child(node);
    }
    Some(())
}

/// The clock, which is as good as one that does DMA.
const CLOCK: &str = "pass loc 0x1c170000,4K,rwd=0x09010000 intr gic:41=34\n";

fn passed(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.file("host.smmu", b"device stream:0x124 held\nallow held bypass\nset on-fault terminate\n".into());
    scene.line("smmuman @host.smmu");
    let other = "pass loc 0x1c170000,4K,rwd=0x09030000";
    scene.vm("one", "witness", "2M", CLOCK)?.vm("two", "witness", "2M", other)?;
    scene.vm("far", "witness", "2M", "pass loc 0x1c170000,4K,rwd=0x0b000000")?;
    scene.vm("held", "witness", "2M", "pass loc 0x1c170000,4K,rwd=0x0b001000")?;
    scene.vm("wild", "witness", "2M", &format!("{other} uncontained"))?;
    scene.line("qvm @one.qvmconf &").line("sleep 0.5").line("pidin smmu");
    scene.line("qvm @two.qvmconf").line("qvm @far.qvmconf").line("qvm @held.qvmconf").line("qvm @wild.qvmconf");
    scene.line("slay -s QUIT one").line("wait one").line("pidin smmu");
    // It is the next one's, as often as it likes.
    for _ in 0..3 {
        scene.line("qvm @two.qvmconf &").line("sleep 0.3").line("pidin smmu").line("slay -s QUIT two").line("wait two");
    }
    scene.vm("clock", "selftest", "32M", &format!("cmdline \"passed:\"\n{CLOCK}"))?.line("qvm @clock.qvmconf");
    let ran = with_tree(case, machine(), &scene, masters)?;
    let cannot = "error: `pass`: VM `two` cannot have /pl061@9030000: `/pl061@9030000` (stream 0x123) belongs to `one`: \
                  `two` cannot have it, too";
    let wanted = "`/nowhere@b001000` (stream 0x124) belongs to `smmuman`: `held` cannot have it, too";
    ran.in_order(&[
        "    0x123             0          /pl031@9010000: VM `one`'s",
        "qvm: two ended: code 65 (",
        "qvm: far ended: code 65 (",
        "qvm: held ended: code 65 (",
        "qvm: wild ended: code 65 (",
        "qvm: one ended: code 3 (",
        "    0x124             0          held: let through by smmuman",
        "    0x123             0          /pl061@9030000: VM `two`'s",
        "    0x123             0          /pl061@9030000: VM `two`'s",
        "    0x123             0          /pl061@9030000: VM `two`'s",
        "qvm: clock ended: code 0 (",
    ])?;
    for said in [
        cannot,
        "VM `far` cannot have /nowhere@b000000: smmu0 has no stream 0x20000: there are 65536",
        wanted,
        "`pass`: /pl061@9030000 is behind an SMMU, which confines it",
    ] {
        ran.expect(said)?;
    }
    let mut scene = Scene::new();
    scene.vm("one", "witness", "2M", CLOCK)?.line("qvm @one.qvmconf");
    let more = ["-M", "virt-9.1,iommu=smmuv3", "-global", "arm-smmuv3.stage=1"].map(String::from).into();
    let unfit = Machine { more, ..Machine::default() };
    let ran = with_tree(case, unfit, &scene, masters)?;
    ran.in_order(&[
        "VM `one` cannot have /pl031@9010000: smmu0 at 0x9050000 is not used: it has no stage 2",
        "code 65 (",
    ])?;
    let old = Machine { gic: 2, ..machine() };
    let ran = with_tree(case, old, &scene, masters)?;
    ran.in_order(&[
        "one.qvmconf:5:10: error: `pass`: the device at 0x9010000 reaches memory by itself, and would reach the interrupt controller (GICv2), too",
        "qvm: one ended: code 65 (",
    ])?;
    Ok(())
}

/// The abuser gives back what it can do without, twenty times, and has its memory as it left it.
fn balloon(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let balloon = "vdev virtio-balloon loc 0x1c0d0000 intr gic:46";
    let options = format!("cmdline \"balloon cycles=20\"\ncpu\n{balloon}\n{CLOCK}");
    scene.vm("careful", "abuser", "32M", &options)?;
    scene.vm("lender", "abuser", "32M", &options.replace("gic:46", "gic:46 lend"))?;
    for _ in 0..3 {
        scene.line("qvm @careful.qvmconf");
    }
    scene.line("qvm @lender.qvmconf").line("pidin memory").line("pidin smmu");
    // By the way: tables are cleaned for an SMMU that does not see what is in caches.
    let not_coherent = |root: &mut DeviceTreeNode| {
        root.remove_property("dma-coherent");
        root.child_mut(&format!("smmuv3@{AT:x}"))?.remove_property("dma-coherent");
        masters(root)
    };
    let ran = with_tree(case, machine(), &scene, not_coherent)?;
    let good = ran.of("careful").filter(|line| line.contains("balloon: 0 wrong of ")).count();
    ensure!(good == 3, "{good} of 3 guests found their memory as they had left it");
    ran.in_order(&[
        "`pass`: the device at 0x9010000 reaches memory by itself, and does not bring back pages from a balloon that lends",
        "qvm: lender ended: code 65 (",
    ])?;
    ran.expect("         0 promised to VMs")?;
    ensure!(!ran.text.contains("is not used") && !ran.text.contains("are lost"), "it did not answer");
    let left: Vec<_> = super::ordeals::left(&ran, "careful").into_iter().map(|(free, _)| free).collect();
    match left.as_slice() {
        [_, second, third] if second == third => Ok(()),
        left => bail!("something is lost: {left:?}"),
    }
}

fn allow(case: &Case) -> Result<()> {
    let (start, length) = RESERVED;
    let reserve = |root: &mut DeviceTreeNode| {
        let mut region = DeviceTreeNode::new(format!("video@{start:x}")).ok()?;
        region.add_property(DeviceTreeProperty::new("reg", cells(&[0, start, 0, length])).ok()?);
        let mut parent = DeviceTreeNode::new("reserved-memory").ok()?;
        for name in ["#address-cells", "#size-cells"] {
            parent.add_property(DeviceTreeProperty::new(name, cells(&[2])).ok()?);
        }
        parent.add_property(DeviceTreeProperty::new("ranges", Vec::<u8>::new()).ok()?);
        parent.add_child(region);
        root.add_child(parent);
        Some(())
    };
    let mut scene = hello(&["smmuman @beyond.smmu", "smmuman @good.smmu", "pidin smmu"])?;
    let beyond = format!("device pci:0:2.0 video\nallow video {start:#x},2M\n");
    let good = format!("device pci:0:2.0 video\nallow video {start:#x},512K\nallow video 0x90080000,512K,r\n");
    scene.file("beyond.smmu", beyond.into()).file("good.smmu", good.into());
    let ran = with_tree(case, machine(), &scene, reserve)?;
    ran.in_order(&[
        "beyond.smmu:2:13: error: `video` cannot reach 0x90000000-0x901fffff: ",
        "    at 0x9050000, 65536 streams",
        "    0x10              0          video: confined by smmuman",
    ])?;
    goes_on(&ran)
}
