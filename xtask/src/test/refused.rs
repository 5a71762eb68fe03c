//! Machines that cannot be used, and boot loaders that do not keep to the protocol: each is told what to change.
//!
//! Answers for: trees with something missing, and a boot loader of a few instructions that hands them over, with the MMU on if
//! it is to.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Test;
use super::guests::configuration;
use super::machine::{Case, Ran};
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
    ]
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
