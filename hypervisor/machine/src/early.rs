//! The little that is needed of the tree before there is a heap.
//!
//! Answers for: somewhere to print, and where RAM is, without allocating: the blob is validated by `dtoolkit`, which needs
//! no heap and no recursion for it, and read by it. Each call validates anew; there are two or three of them in the life
//! of a machine. Does not answer for: saying what is wrong. [`crate::Machine::from_device_tree`] will.

use crate::{
    Console, ConsoleKind, blob,
    console::without_options,
    memory,
    node::{self, Lineage},
};
use dtoolkit::{
    Node as _,
    fdt::{Fdt, FdtNode},
};
use types::{Pa, Range};

/// The serial port that `stdout-path` names, without its interrupt. `None` if there is none, or no driver for it, or the
/// blob is not sound.
#[must_use]
pub fn early_console(blob: &[u8]) -> Option<Console> {
    let tree = sound(blob)?;
    let chosen = tree.find_node("/chosen")?;
    let path = text(&chosen, "stdout-path").or_else(|| text(&chosen, "linux,stdout-path"))?;
    let path = without_options(path);
    let path = if path.starts_with('/') { path } else { text(&tree.find_node("/aliases")?, path)? };
    let lineage = descend(tree, path)?;
    let kind = ConsoleKind::of(lineage.last()?)?;
    Some(Console { kind, registers: node::registers(&lineage, 0).ok()?, intid: None })
}

/// The first bank of RAM in the tree's order that is not empty. `None` if there is none or the blob is not sound.
#[must_use]
pub fn first_memory(blob: &[u8]) -> Option<Range<Pa>> {
    banks(sound(blob)?).find(|bank| !bank.is_empty())
}

/// The bank of RAM that `address` is in, the running image's for instance. `None` if it is in none or the blob is not
/// sound.
#[must_use]
pub fn memory_at(blob: &[u8], address: Pa) -> Option<Range<Pa>> {
    banks(sound(blob)?).find(|bank| bank.contains(address))
}

fn sound(blob: &[u8]) -> Option<Fdt<'_>> {
    Fdt::new(blob::trim(blob)?).ok()
}

fn banks(tree: Fdt<'_>) -> impl Iterator<Item = Range<Pa>> {
    let root = tree.root();
    root.children().filter(memory::is_memory).flat_map(move |node| {
        let registers = node::raw_registers(&[root, node]).ok();
        registers.into_iter().flatten().filter_map(|(address, size)| Range::new(Pa(address), size))
    })
}

fn text<'a>(node: &FdtNode<'a>, property: &str) -> Option<&'a str> {
    node::string(node::Properties::value(node, property)?)
}

fn descend<'a>(tree: Fdt<'a>, path: &str) -> Option<Lineage<FdtNode<'a>>> {
    let mut lineage = Lineage::new();
    let mut node = tree.root();
    lineage.try_push(node).ok()?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        node = node.child(name)?;
        lineage.try_push(node).ok()?;
    }
    Some(lineage)
}
