//! The little that is needed of the tree before there is a heap.
//!
//! Answers for: somewhere to print, and where RAM is, without allocating: the blob is validated by `dtoolkit`, which needs
//! no heap and no recursion for it, and read by it. Does not answer for: saying what is wrong.
//! [`crate::Machine::from_device_tree`] will.

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

/// A validated tree, for more than one question.
#[derive(Clone, Copy, Debug)]
pub struct Early<'a>(Fdt<'a>);

impl<'a> Early<'a> {
    /// The tree at the start of `blob`; `None` if it is not sound.
    #[must_use]
    pub fn of(blob: &'a [u8]) -> Option<Self> {
        Fdt::new(blob::trim(blob)?).ok().map(Self)
    }

    /// What has been validated.
    pub(crate) fn validated(self) -> Fdt<'a> {
        self.0
    }

    /// The serial port that `stdout-path` names, without its interrupt. `None` if there is none or no driver for it.
    #[must_use]
    pub fn console(self) -> Option<Console> {
        let chosen = self.0.find_node("/chosen")?;
        let path = text(&chosen, "stdout-path").or_else(|| text(&chosen, "linux,stdout-path"))?;
        let path = without_options(path);
        let path = if path.starts_with('/') { path } else { text(&self.0.find_node("/aliases")?, path)? };
        let lineage = descend(self.0, path)?;
        let kind = ConsoleKind::of(lineage.last()?)?;
        Some(Console { kind, registers: node::registers(&lineage, 0).ok()?, intid: None })
    }

    /// Whether there is PSCI firmware to call by `smc`, as [`crate::Machine::psci`] will say: for a machine that is refused before
    /// that is known, so only where everybody puts it, in `/psci`.
    #[must_use]
    pub fn has_psci(self) -> bool {
        let node = self.0.find_node("/psci");
        node.is_some_and(|node| text(&node, "method") == Some("smc") && node::is_compatible(&node, crate::cpus::PSCI))
    }

    /// The bank of RAM that `address` is in, the running image's for instance.
    #[must_use]
    pub fn memory_at(self, address: Pa) -> Option<Range<Pa>> {
        self.banks().find(|bank| bank.contains(address))
    }

    fn banks(self) -> impl Iterator<Item = Range<Pa>> + use<'a> {
        let root = self.0.root();
        root.children().filter(memory::is_memory).flat_map(move |node| {
            let registers = node::raw_registers(&[root, node]).ok();
            registers.into_iter().flatten().filter_map(|(address, size)| Range::new(Pa(address), size))
        })
    }
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
