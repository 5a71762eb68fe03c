//! The device tree of QEMU's Raspberry Pi 4.
//!
//! Answers for: the tree that comes with Linux, completed as the firmware of a Raspberry Pi and QEMU would have to: neither is
//! there to do it; and where QEMU's is another machine. Does not answer for: what QEMU does to it itself: it tells where the initrd is, replaces the node
//! `memory` by one for the lower 960 MiB, and takes out what it does not emulate.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _};

use crate::artifacts::write_changed;
use crate::setup;
use crate::workspace::{root, target};

/// CPUs it has.
pub(crate) const CPUS: u32 = 4;
/// RAM from 1 GiB on that QEMU has and does not tell of: up to 2 GiB.
const UPPER: (u32, u32) = (0x4000_0000, 0x4000_0000);
/// Its controllers of SD cards. A real one's card is behind the second, QEMU's behind the first (`hw/arm/bcm2838_peripherals.c`), which is a
/// real one's wireless network's; QEMU emulates both alike.
const CONTROLLERS: [&str; 2] = ["/soc/mmc@7e300000", "/emmc2bus/mmc@7e340000"];
/// Where QEMU's is for its bus: address, length.
const CARD: [u32; 3] = [0, 0x7e30_0000, 0x100];

/// A device tree, to be changed.
pub(crate) struct Tree(DeviceTree);

impl Tree {
    /// Sets a property of the node at `path`, or adds it.
    ///
    /// # Panics
    /// If there is no such node: the caller knows the tree.
    #[track_caller]
    pub(crate) fn set(&mut self, path: &str, property: &str, value: &[u8]) {
        match self.0.find_node_mut(path) {
            Some(node) => node.add_property(DeviceTreeProperty::new_unchecked(property, value.to_vec())),
            None => panic!("the Raspberry Pi's device tree has no node {path}"),
        }
    }

    /// Which of the serial ports that QEMU has `stdout-path` names, by the numbers of the aliases.
    fn port(&self) -> usize {
        let chosen = self.0.find_node("/chosen");
        let path = chosen.and_then(|chosen| Some(chosen.property("stdout-path")?.value().starts_with(b"serial0")));
        usize::from(path != Some(true))
    }
}

/// A node's cells.
pub(crate) fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

/// Writes the tree of a machine with so many CPUs, and whatever `alter` does to it. Says where it is, and which serial port is
/// the console.
pub(super) fn tree(cpus: u32, alter: fn(&mut Tree)) -> Result<(PathBuf, usize)> {
    setup::linux_guest()?;
    let original = root().join(setup::RPI4_TREE);
    let blob = fs::read(&original).with_context(|| format!("cannot read {}", original.display()))?;
    let mut tree = complete(&blob, cpus).with_context(|| format!("{} is no device tree", original.display()))?;
    alter(&mut tree);
    let port = tree.port();
    let blob = tree.0.to_dtb();
    // Each its own file: machines with others may be running.
    let mut sum = flate2::Crc::new();
    sum.update(&blob);
    let path = target().join("images").join(format!("rpi4-{:08x}.dtb", sum.sum()));
    write_changed(&path, &blob)?;
    Ok((path, port))
}

fn complete(blob: &[u8], cpus: u32) -> Option<Tree> {
    let mut tree = Tree(DeviceTree::from_fdt(&Fdt::new(blob).ok()?));
    let mut upper = DeviceTreeNode::new(format!("upper-memory@{:x}", UPPER.0)).ok()?;
    upper.add_property(DeviceTreeProperty::new("device_type", "memory").ok()?);
    upper.add_property(DeviceTreeProperty::new("reg", cells(&[0, UPPER.0, UPPER.1])).ok()?);
    tree.0.root.add_child(upper);
    let [wireless, card] = CONTROLLERS;
    tree.set(wireless, "status", b"disabled\0");
    tree.set(card, "reg", &cells(&CARD));
    for cpu in cpus..CPUS {
        tree.set(&format!("/cpus/cpu@{cpu}"), "status", b"disabled\0");
    }
    Some(tree)
}
