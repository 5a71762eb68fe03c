//! Machines that cannot be used, boot loaders that do not keep to the protocol, and VMs that cannot be: each is told what to change.
//!
//! Answers for: trees with something missing, and a boot loader of a few instructions that hands them over, with the MMU on if
//! it is to; configurations that only a machine can tell to be wrong, and some that the text alone tells. Does not answer for: every
//! mistake that there is in a text, which `vm` has tests of.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::guests::configuration;
use super::machine::{Case, Ran};
use super::scene::Scene;
use crate::qemu::machine::Machine;

/// Where the loader finds the image and the tree. It has its table of the MMU between them.
const IMAGE_AT: u64 = 0x4400_0000;
const TREE_AT: u64 = 0x4600_0000;

/// Jumps to the image, as `Documentation/arch/arm64/booting.rst` has it; but for the MMU.
const JUMP: [u32; 8] = [
    0x5800_0080, // ldr x0, tree
    0x5800_00a1, // ldr x1, image
    0xd61f_0020, // br x1
    0xd503_201f, // nop
    TREE_AT as u32,
    0,
    IMAGE_AT as u32,
    0,
];

/// Maps the first gibibyte as device memory and the second as memory, where they are, and turns EL2's MMU on.
const MMU_ON: [u32; 19] = [
    0xd2a8_e001, // mov  x1, #0x47000000
    0xd280_80a2, // mov  x2, #0x405       a block, accessed, of the second attribute
    0xf900_0022, // str  x2, [x1]
    0xd280_e022, // mov  x2, #0x701       a block, accessed, inner shareable, of the first attribute
    0xb262_0042, // orr  x2, x2, #0x40000000
    0xf900_0422, // str  x2, [x1, #8]
    0xd280_1fe2, // mov  x2, #0xff        write-back, and Device-nGnRnE
    0xd51c_a202, // msr  mair_el2, x2
    0xd286_a322, // mov  x2, #0x3519      39 bits, pages of 4 KiB
    0xf2b0_1042, // movk x2, #0x8082, lsl #16
    0xd51c_2042, // msr  tcr_el2, x2
    0xd51c_2001, // msr  ttbr0_el2, x1
    0xd50c_871f, // tlbi alle2
    0xd503_3f9f, // dsb  sy
    0xd503_3fdf, // isb
    0xd53c_1002, // mrs  x2, sctlr_el2
    0xb240_0042, // orr  x2, x2, #1
    0xd51c_1002, // msr  sctlr_el2, x2
    0xd503_3fdf, // isb
];

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("refused/tree", "a machine that lacks something is told what, at once", trees),
        Test::hypervisor("refused/cpu", "a CPU that does not start is named, the others go on", cpu),
        Test::hypervisor("refused/mmu", "a boot loader that leaves the MMU on is told to switch it off", mmu),
        Test::hypervisor("refused/disks", "a VM whose disk is not there or too small is told which", disks),
        Test::hypervisor("refused/addresses", "of two network devices with one address both are named", addresses),
        Test::hypervisor("refused/pci", "a PCI bus that has no room, or somebody else's, is told why", pci),
        Test::hypervisor("refused/its", "an ITS where there is none to be is told by what", its),
        Test::hypervisor("refused/numbers", "more queues or interrupts than there may be are told the limits", numbers),
    ]
}

/// The name of a VM, the options that it is refused for, from its fourth line on, and what is said of that.
pub(super) type Refused = (&'static str, &'static str, &'static [&'static str]);

/// Starts VMs, one after the other, behind what `scene` has begun and before the `last` line of its script, and finds that none of
/// them comes to be, and why.
pub(super) fn refuse(case: &Case, machine: &Machine, mut scene: Scene, last: &str, refused: &[Refused]) -> Result<()> {
    scene.guest("hello")?;
    for (name, options, _) in refused {
        let text = format!("system {name}\nram 0x80000000,4M\nload hello.elf\n{options}\n");
        scene.file(&format!("{name}.qvmconf"), text.into_bytes()).line(format!("qvm @{name}.qvmconf"));
    }
    scene.line(last);
    let ran = scene.run(case, machine, None, refused.len())?;
    for (name, options, words) in refused {
        let ended = format!("qvm: {name} ended: code 65 (");
        ran.expect(&ended).with_context(|| format!("`{options}` is not refused"))?;
        let start = format!("{name}.qvmconf:");
        let said: Vec<&str> = ran.text.lines().filter(|line| line.starts_with(&start)).collect();
        for word in *words {
            ensure!(said.iter().any(|line| line.contains(word)), "nothing says `{word}` of `{options}`: {said:?}");
        }
    }
    Ok(())
}

fn disks(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.file("empty.img", Vec::new()).file("short.img", vec![0; 511]);
    let refused: &[Refused] = &[
        (
            "absent",
            "vdev virtio-blk hostdev nowhere.img",
            &[":4:25: error: ", "there is no file `nowhere.img` in the boot archive"],
        ),
        ("folder", "vdev virtio-blk hostdev </images/", &[":4:25: error: "]),
        (
            "empty",
            "vdev virtio-blk hostdev empty.img",
            &[":4:25: error: ", "too small for a disk: 0 bytes of at least 512"],
        ),
        ("short", "vdev virtio-blk hostdev <short.img", &["too small for a disk: 511 bytes of at least 512"]),
        ("memory", "vdev virtio-blk hostdev /dev/ram,511", &["too small for a disk: 511 bytes of at least 512"]),
        ("nothing", "vdev virtio-blk", &[":4:1: error: ", "`hostdev`"]),
    ];
    refuse(case, &Machine::default(), scene, "", refused)
}

fn addresses(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    // One that is there has an address on a switch, and one on a link.
    let there = "vdev virtio-net name port peer /dev/vswitch0 mac 02:00:00:00:00:01\n\
                 vdev virtio-net name link peer /dev/qvm/linked/link mac 02:00:00:00:00:02";
    scene.vm("there", "witness", "2M", there)?.line("qvm @there.qvmconf &").line("sleep 0.5");
    let refused: &[Refused] = &[
        (
            "twice",
            "vdev virtio-net name one peer /dev/vswitch1 mac 02:00:00:00:00:03\n\
             vdev virtio-net name two peer /dev/vswitch1 mac 02:00:00:00:00:03",
            &[":5:31: error: ", "/dev/qvm/twice/two and /dev/qvm/twice/one have the same address, 02:00:00:00:00:03"],
        ),
        (
            "same",
            "vdev virtio-net name port peer /dev/vswitch0 mac 02:00:00:00:00:01",
            &["/dev/qvm/same/port and /dev/qvm/there/port have the same address, 02:00:00:00:00:01"],
        ),
        (
            "linked",
            "vdev virtio-net name link peer /dev/qvm/there/link mac 02:00:00:00:00:02",
            &["/dev/qvm/linked/link and /dev/qvm/there/link have the same address, 02:00:00:00:00:02"],
        ),
        ("group", "vdev virtio-net mac 03:00:00:00:00:01", &["`03:00:00:00:00:01` is no address of a station"]),
        ("none", "vdev virtio-net mac 00:00:00:00:00:00", &["`00:00:00:00:00:00` is no address of a station"]),
    ];
    refuse(case, &Machine::default(), scene, "slay -s QUIT there", refused)
}

fn pci(case: &Case) -> Result<()> {
    let functions: &'static str = "vdev pci-dummy\n".repeat(32).leak();
    let refused: &[Refused] = &[
        ("ecam-on-ram", "vdev pci-host loc 0x80000000", &[":4:1: error: ", "overlaps `ram`"]),
        (
            "window-on-ram",
            "vdev pci-host window 0x80000000,1M",
            &["overlaps `ram`", "a window of `vdev pci-host`", ":2:5: note: the other one"],
        ),
        (
            "window-on-device",
            "vdev pci-host window 0x1c000000,1M\nvdev pl011 loc 0x1c090000",
            &["`vdev pl011`", "overlaps"],
        ),
        (
            "ecam-too-high",
            "vdev pci-host loc 0x100000000000",
            &["goes beyond 0x100000000000: the host's addresses have 44 bits"],
        ),
        ("window-too-high", "vdev pci-host window 0x100000000000,1G", &["goes beyond 0x100000000000"]),
        (
            "slot-twice",
            "vdev pci-dummy loc pci:3\nvdev shmem loc pci:3",
            &[":5:16: error: `vdev pci-dummy` is at pci:3.0 already", ":4:20: note: this one"],
        ),
        ("functions", functions, &[":35:1: error: more than 31 devices on the PCI bus"]),
        ("slot-32", "vdev pci-dummy loc pci:32", &["there are 0 to 31"]),
    ];
    refuse(case, &Machine { cpu: "cortex-a72".into(), ..Machine::default() }, Scene::new(), "", refused)
}

fn its(case: &Case) -> Result<()> {
    let version_2: &[Refused] = &[
        ("its", "vdev gic its 0x08080000 num-lpis 64", &["error: ", "GICv2"]),
        ("three", "vdev gic version 3", &["error: ", "GICv2"]),
        (
            "both",
            "vdev gic version 2 its 0x08080000 num-lpis 64",
            &[":4:24: error: `its`: a GICv2 has none", ":4:18: note: it is one by this"],
        ),
    ];
    refuse(case, &Machine { gic: 2, ..Machine::default() }, Scene::new(), "", version_2)
}

fn numbers(case: &Case) -> Result<()> {
    let refused: &[Refused] = &[
        ("queues-17", "vdev virtio-blk hostdev /dev/ram,1M queues 17", &["`queues 17`: must be from 1 to 16"]),
        ("queues-0", "vdev virtio-blk hostdev /dev/ram,1M queues 0", &["`queues 0`: must be from 1 to 16"]),
        ("threads", "vdev virtio-blk hostdev /dev/ram,1M threads 33", &["`threads 33`: must be from 1 to 32"]),
        ("lpis", "vdev gic its 0x08080000 num-lpis 8193", &["`num-lpis 8193`: must be from 1 to 8192"]),
        ("no-lpis", "vdev gic its 0x08080000 num-lpis 0", &["`num-lpis 0`: must be from 1 to 8192"]),
        ("groups", "vdev virtio-net peer /dev/vswitch0 group 4095", &["`group 4095`: must be from 0 to 4094"]),
    ];
    refuse(case, &Machine::default(), Scene::new(), "", refused)
}

/// Boots `hello` with the tree that `change` makes of QEMU's.
fn boot(case: &Case, machine: &Machine, loader: &[u32], change: impl Fn(&mut Vec<u8>) -> Option<()>) -> Result<Ran> {
    let hello = case.file("hello.qvmconf", configuration("hello", "hello", 1, "").replace("128M", "16M"))?;
    let archive = case.pack(&[hello])?;
    let mut tree = case.tree(machine, archive.path())?;
    change(&mut tree).context("QEMU's device tree is not as it was: this test has to follow it")?;
    let tree: PathBuf = case.file("changed.dtb", tree)?;
    let words: Vec<u8> = loader.iter().flat_map(|word| word.to_le_bytes()).collect();
    let loader = case.file("loader.bin", words)?;
    case.boot_by(&loader, (IMAGE_AT, &tree, TREE_AT), machine, archive.path())
}

/// Where in the tree these bytes are, behind `from`.
fn find(tree: &[u8], from: usize, bytes: &[u8]) -> Option<usize> {
    Some(from + tree.get(from..)?.windows(bytes.len()).position(|window| window == bytes)?)
}

/// Replaces what is at `at`.
fn put(tree: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    tree.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    Some(())
}

fn trees(case: &Case) -> Result<()> {
    let version_3 = Machine { gic: 3, ..Machine::default() };
    let version_2 = Machine { gic: 2, ..Machine::default() };
    // The loader is right: it is the tree's fault what follows.
    boot(case, &version_3, &JUMP, |_| Some(()))?.expect_status(0)?.expect("hello| hello: good-bye")?;
    let without_memory = boot(case, &version_3, &JUMP, |tree| {
        let device_type = find(tree, 0, b"memory\0")?;
        put(tree, device_type, b"nomore\0")
    })?;
    without_memory
        .expect_status(70)?
        .expect("bulkhead: cannot run here: the device tree names no RAM at 0x44000000, where this image is")?;
    let without_interface = boot(case, &version_2, &JUMP, |tree| {
        // The `reg` of four entries that begins with the distributor's address: two remain, in place of the rest is FDT_NOP.
        let reg = find(tree, 0, &[0, 0, 0, 0, 8, 0, 0, 0])?;
        put(tree, reg - 8, &32_u32.to_be_bytes())?;
        (reg + 32..reg + 64).step_by(4).try_for_each(|at| put(tree, at, &[0, 0, 0, 4]))
    })?;
    without_interface
        .expect_status(70)?
        .expect("bulkhead: cannot run here: device tree: no usable virtual interface of the GICv2: GICH and GICV")?;
    Ok(())
}

fn cpu(case: &Case) -> Result<()> {
    let ran = boot(case, &Machine { cpus: 2, ..Machine::default() }, &JUMP, |tree| {
        let node = find(tree, 0, b"cpu@1\0")?;
        let method = find(tree, node, b"psci\0")?;
        put(tree, method, b"magic")
    })?;
    ran.expect_status(0)?.expect("cpu1 stays off: ")?.expect("hello| hello: good-bye")?;
    Ok(())
}

fn mmu(case: &Case) -> Result<()> {
    let loader = [MMU_ON.as_slice(), &[0xd503_201f], &JUMP].concat();
    let ran = boot(case, &Machine::default(), &loader, |_| Some(()))?;
    ran.expect_status(70)?.expect("bulkhead: cannot run here: entered with the MMU on (SCTLR_EL2.M)")?;
    Ok(())
}
