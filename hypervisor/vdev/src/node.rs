//! A device's part of the guest's device tree.
//!
//! Answers for: writing the properties that devices need, in the cells that the generated tree uses: two address and two
//! size cells, three interrupt cells (Devicetree Specification 0.4; Linux `arm,gic-v3` binding). Does not answer for: the
//! rest of the tree (`vm::tree`).

use alloc::{format, string::String, vec::Vec};
use dtoolkit::{
    ToPropertyValue,
    model::{DeviceTreeNode, DeviceTreeProperty},
};
use types::{IntId, Ipa, Range};

/// How a device's interrupt is signalled (Linux `arm,gic-v3` binding, third cell).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Rising edge.
    Edge,
    /// High level.
    Level,
}

/// A node of the tree.
#[derive(Clone, Debug)]
pub struct Node {
    node: DeviceTreeNode,
}

impl Node {
    /// The phandle of the interrupt controller's node. Compilers of device trees count from 1: the numbers of the
    /// generated tree are out of the way of those in a user's tree that is merged over it.
    pub const INTERRUPT_CONTROLLER: u32 = 0x8001;
    /// The phandle of the fixed 24 MHz clock that PrimeCells take for both of their clocks. Its node is the tree's.
    pub const APB_CLOCK: u32 = 0x8002;
    /// The phandle of the ITS's node, if there is one: whom a bus sends its functions' messages to (`msi-parent`, `msi-map`).
    pub const ITS: u32 = 0x8004;
    /// The phandle of the frame for messages beside a GICv2.
    pub const MESSAGE_FRAME: u32 = 0x8003;
    /// The phandle of the virtual SMMU's node, if there is one: whose streams devices are (`iommus`, `iommu-map`).
    pub const SMMU: u32 = 0x8005;

    /// A node called `name`, with unit address if there is one: `serial@9000000`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { node: DeviceTreeNode::new_unchecked(name) }
    }

    /// A node called after what it is and where: `kind@start`.
    #[must_use]
    pub fn at(kind: &str, start: Ipa) -> Self {
        Self::new(format!("{kind}@{:x}", start.0))
    }

    /// The node as the tree model has it.
    #[must_use]
    pub fn into_model(self) -> DeviceTreeNode {
        self.node
    }

    /// Adds a child; one of the same name is replaced.
    pub fn add(&mut self, child: Self) {
        self.node.add_child(child.node);
    }

    /// `compatible`, the most specific first.
    #[must_use]
    pub fn compatible(self, list: &[&str]) -> Self {
        self.with("compatible", list)
    }

    /// `reg`: ranges of guest-physical addresses.
    #[must_use]
    pub fn reg(self, ranges: &[Range<Ipa>]) -> Self {
        let cells: Vec<u32> = ranges
            .iter()
            .flat_map(|range| [range.start().0 >> 32, range.start().0, range.length() >> 32, range.length()])
            .map(low_word)
            .collect();
        self.with("reg", cells)
    }

    /// `interrupts`: one interrupt of the GIC.
    #[must_use]
    pub fn interrupt(self, intid: IntId, trigger: Trigger) -> Self {
        let flags = match trigger {
            Trigger::Edge => 1,
            Trigger::Level => 4,
        };
        // Type 0 is an SPI, counted from 32; type 1 a PPI, counted from 16.
        let (kind, first) = if intid.is_private() { (1, 16) } else { (0, IntId::FIRST_SPI) };
        self.with("interrupts", [kind, intid.0.wrapping_sub(first), flags])
    }

    /// A property of one 32-bit cell.
    #[must_use]
    pub fn number(self, name: &str, value: u32) -> Self {
        self.with(name, value)
    }

    /// A property of 32-bit cells.
    #[must_use]
    pub fn numbers(self, name: &str, values: &[u32]) -> Self {
        self.with(name, values)
    }

    /// A property of one string.
    #[must_use]
    pub fn text(self, name: &str, value: &str) -> Self {
        self.with(name, value)
    }

    /// A property that is a list of strings.
    #[must_use]
    pub fn texts(self, name: &str, values: &[&str]) -> Self {
        self.with(name, values)
    }

    /// A property without value, whose presence is the message.
    #[must_use]
    pub fn flag(self, name: &str) -> Self {
        self.with(name, [0_u8; 0])
    }

    fn with(mut self, name: &str, value: impl ToPropertyValue) -> Self {
        self.node.add_property(DeviceTreeProperty::new_unchecked(name, value));
        self
    }
}

/// Bits 31 to 0.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
const fn low_word(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::{Node as _, Property as _};

    fn property(node: &DeviceTreeNode, name: &str) -> Vec<u8> {
        node.properties().find(|p| p.name() == name).map(|p| p.value().to_vec()).unwrap()
    }

    #[test]
    fn a_device_node_has_64_bit_cells_and_gic_interrupt_cells() {
        let range = Range::new(Ipa(0x1_1c09_0000), 0x1000).unwrap();
        let node = Node::at("serial", range.start())
            .compatible(&["arm,pl011", "arm,primecell"])
            .reg(&[range])
            .interrupt(IntId(37), Trigger::Level)
            .flag("dma-coherent")
            .into_model();
        assert_eq!(node.name(), "serial@11c090000");
        assert_eq!(property(&node, "compatible"), b"arm,pl011\0arm,primecell\0");
        assert_eq!(property(&node, "reg"), [0, 0, 0, 1, 0x1c, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);
        assert_eq!(property(&node, "interrupts"), [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 4]);
        assert_eq!(property(&node, "dma-coherent"), [0_u8; 0]);
    }

    #[test]
    fn private_interrupts_are_counted_from_16() {
        let node = Node::new("timer").interrupt(IntId(27), Trigger::Edge).into_model();
        assert_eq!(property(&node, "interrupts"), [0, 0, 0, 1, 0, 0, 0, 11, 0, 0, 0, 1]);
    }
}
