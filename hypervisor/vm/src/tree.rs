//! The guest's device tree.
//!
//! Answers for: a tree that describes what the guest can see ([`generate`]): memory, vCPUs, PSCI, timer, interrupt
//! controller, every vdev, and what the boot loader has to say in `/chosen`; and for merging a user's trees over it
//! (`merge`). Does not answer for: the nodes of vdevs, which describe themselves ([`vdev::Node`]).
//!
//! Follows the Devicetree Specification, Release v0.4 ("DTSpec"), and Linux' bindings: `arm/cpus.yaml`, `arm/psci.yaml`,
//! `arm/pmu.yaml`, `timer/arm,arch_timer.yaml`, `interrupt-controller/arm,gic-v3.yaml`, `clock/fixed-clock.yaml`.

mod merge;
pub mod passed;

use crate::controller::Frames;
use alloc::{format, string::String, vec::Vec};
use core::fmt;
use dtoolkit::{
    Node as _, Property as _, ToPropertyValue,
    model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty},
};
use types::{IntId, Ipa, Mpidr, Range, VcpuId};
use vdev::Node;
use vgic::Version;

/// All that goes into a tree.
#[derive(Debug)]
pub struct TreeInput<'a> {
    /// Name of the VM.
    pub name: &'a str,
    /// RAM; ROM has no node.
    pub ram: &'a [Range<Ipa>],
    /// Number of vCPUs.
    pub vcpus: usize,
    /// The interrupt controller's frames.
    pub gic: Frames,
    /// The first SPI for messages, and how many there are; `None` if there are none.
    pub messages: Option<(IntId, u32)>,
    /// A node whose children are those of the vdevs, in the order of the configuration.
    pub devices: Node,
    /// Devices of the host.
    pub passed: &'a [passed::PassedNode],
    /// The guest's command line. It wins over one in a user's tree.
    pub cmdline: Option<&'a str>,
    /// Where the initrd is. It wins over one in a user's tree.
    pub initrd: Option<Range<Ipa>>,
    /// Whether it has performance monitors.
    pub monitors: bool,
    /// Entropy for the guest: eight bytes for where its kernel goes, the rest for its generator; empty for none.
    pub seed: &'a [u8],
    /// Trees to be merged over the generated one, in this order.
    pub user: &'a [&'a [u8]],
}

/// Why there is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeError {
    /// Which of [`TreeInput::user`] it is about; `None` if about none of them.
    pub user: Option<usize>,
    /// What is wrong.
    pub problem: TreeProblem,
}

/// What is wrong with a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeProblem {
    /// It is malformed, or an overlay that does not fit; the text says what and where.
    Malformed(String),
    /// It counts the cells of a node that is in the generated tree in another way, which would change the meaning of that
    /// node's children.
    Cells(String),
    /// The merged tree is nested too deep.
    TooDeep,
    /// Two nodes have the same phandle.
    Phandle(u32),
    /// Nobody is the interrupt controller.
    NoInterruptController,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            TreeProblem::Malformed(what) => f.write_str(what),
            TreeProblem::Cells(node) => {
                write!(f, "device tree: {node}: `#address-cells` or `#size-cells` is not that of the generated tree")
            }
            TreeProblem::TooDeep => write!(f, "device tree: nested deeper than {} nodes", machine::MAX_DEPTH),
            TreeProblem::Phandle(phandle) => write!(f, "device tree: two nodes have the phandle {phandle:#x}"),
            TreeProblem::NoInterruptController => {
                f.write_str("device tree: the root's `interrupt-parent` is the phandle of no node")
            }
        }
    }
}

impl core::error::Error for TreeError {}

/// SMC64 function numbers where there are two (PSCI 1.1, DEN 0022, section 5).
const PSCI_FUNCTIONS: [(&str, u32); 3] =
    [("cpu_suspend", 0xc400_0001), ("cpu_off", 0x8400_0002), ("cpu_on", 0xc400_0003)];

/// The EL3 timer's private interrupt, which a guest never sees but the binding puts first.
const SECURE_TIMER: IntId = IntId(29);

/// Devices that can be the console from the first line on.
const CONSOLES: [&str; 3] = ["arm,pl011", "arm,sbsa-uart", "ns16550a"];

/// Generates the tree and merges the user's over it.
///
/// # Errors
/// If a user's tree is malformed or contradicts the generated one.
pub fn generate(input: &TreeInput<'_>) -> Result<Vec<u8>, TreeError> {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    set(root, "compatible", "bulkhead,vm");
    set(root, "model", &*format!("Bulkhead VM {}", input.name));
    set(root, "#address-cells", 2_u32);
    set(root, "#size-cells", 2_u32);
    set(root, "interrupt-parent", Node::INTERRUPT_CONTROLLER);
    // What emulated devices read and write goes through the same caches as the guest's own accesses.
    set(root, "dma-coherent", [0_u8; 0]);
    // The place of /chosen is the first, what is in it comes last.
    root.add_child(DeviceTreeNode::new_unchecked("chosen"));
    let devices = input.devices.clone().into_model();
    if let Some(console) = devices.children().find(|node| is_console(node)) {
        let path = format!("/{}", console.name());
        root.add_child(Node::new("aliases").text("serial0", &path).into_model());
        if let Some(chosen) = root.child_mut("chosen") {
            set(chosen, "stdout-path", &*path);
        }
    }
    root.add_child(cpus(input.vcpus));
    for range in input.ram {
        root.add_child(Node::at("memory", range.start()).text("device_type", "memory").reg(&[*range]).into_model());
    }
    root.add_child(psci());
    root.add_child(timer());
    if input.monitors {
        root.add_child(monitors());
    }
    root.add_child(clock());
    root.add_child(gic(input.gic, input.messages));
    for device in devices.children() {
        root.add_child(device.clone());
    }
    passed::nodes(input.passed).into_iter().for_each(|node| root.add_child(node));
    merge::all(&mut tree, input.user)?;
    chosen(&mut tree.root, input);
    merge::check(&tree)?;
    Ok(tree.to_dtb())
}

/// Names here are constants, or come from checked trees: valid without being checked again.
fn set(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

fn is_console(node: &DeviceTreeNode) -> bool {
    let compatible = node.properties().find(|property| property.name() == "compatible");
    compatible.is_some_and(|property| {
        property.value().split(|&byte| byte == 0).any(|name| CONSOLES.iter().any(|console| console.as_bytes() == name))
    })
}

fn cpus(count: usize) -> DeviceTreeNode {
    let mut cpus = Node::new("cpus").number("#address-cells", 1).number("#size-cells", 0);
    for id in (0..count).filter_map(|n| u16::try_from(n).ok()).map(VcpuId) {
        // Affinity level 3 of a vCPU is zero: one cell is enough (arm/cpus.yaml, `reg`).
        let Ok(reg) = u32::try_from(Mpidr::of_vcpu(id).0) else { continue };
        let cpu = Node::new(format!("cpu@{reg:x}"))
            .text("device_type", "cpu")
            .compatible(&["arm,armv8"])
            .number("reg", reg)
            .text("enable-method", "psci");
        cpus.add(cpu);
    }
    cpus.into_model()
}

fn psci() -> DeviceTreeNode {
    let node = Node::new("psci").compatible(&["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]).text("method", "hvc");
    // For guests that only know PSCI 0.1, which left the numbers to the tree.
    PSCI_FUNCTIONS.iter().fold(node, |node, (name, function)| node.number(name, *function)).into_model()
}

fn timer() -> DeviceTreeNode {
    let interrupts = [SECURE_TIMER, IntId::PHYSICAL_TIMER, IntId::VIRTUAL_TIMER, IntId::HYPERVISOR_TIMER];
    // Type 1 is a PPI, counted from 16; 4 is level-sensitive, active high.
    let cells: Vec<u32> = interrupts.iter().flat_map(|intid| [1, intid.0.saturating_sub(16), 4]).collect();
    Node::new("timer")
        .compatible(&["arm,armv8-timer", "arm,armv7-timer"])
        .numbers("interrupts", &cells)
        .flag("always-on")
        .into_model()
}

fn monitors() -> DeviceTreeNode {
    Node::new("pmu")
        .compatible(&["arm,armv8-pmuv3"])
        .numbers("interrupts", &[1, IntId::MONITORS.0.saturating_sub(16), 4])
        .into_model()
}

fn clock() -> DeviceTreeNode {
    Node::new("apb-pclk")
        .compatible(&["fixed-clock"])
        .number("#clock-cells", 0)
        .number("clock-frequency", 24_000_000)
        .text("clock-output-names", "clk24mhz")
        .number("phandle", Node::APB_CLOCK)
        .into_model()
}

fn gic(frames: Frames, messages: Option<(IntId, u32)>) -> DeviceTreeNode {
    let compatible: &[&str] = match frames.version {
        // Firmware looks for the second.
        Version::V2 => &["arm,gic-400", "arm,cortex-a15-gic"],
        Version::V3 => &["arm,gic-v3"],
    };
    let node = Node::at("interrupt-controller", frames.distributor.start())
        .compatible(compatible)
        .reg(&[frames.distributor, frames.interface])
        .flag("interrupt-controller")
        .number("#interrupt-cells", 3)
        .number("#address-cells", 2)
        .number("#size-cells", 2)
        .flag("ranges")
        .number("phandle", Node::INTERRUPT_CONTROLLER);
    let node = match messages {
        // Sent to GICD_SETSPI_NSR, wherever the distributor is (`mbi-alias`).
        Some((first, count)) => node.flag("msi-controller").numbers("mbi-ranges", &[first.0, count]),
        None => node,
    };
    let mut node = node.into_model();
    if let Some(frame) = frames.messages {
        let (first, count) = frame.interrupts();
        node.add_child(
            Node::at("v2m", frame.region().start())
                .compatible(&["arm,gic-v2m-frame"])
                .reg(&[frame.region()])
                .flag("msi-controller")
                .number("phandle", Node::MESSAGE_FRAME)
                .number("arm,msi-base-spi", first.0)
                .number("arm,msi-num-spis", count)
                .into_model(),
        );
    }
    if let Some(its) = frames.its {
        node.add_child(
            Node::at("msi-controller", its.start())
                .compatible(&["arm,gic-v3-its"])
                .reg(&[its])
                .flag("msi-controller")
                .number("#msi-cells", 1)
                .number("phandle", Node::ITS)
                .into_model(),
        );
    }
    node
}

fn chosen(root: &mut DeviceTreeNode, input: &TreeInput<'_>) {
    let Some(chosen) = root.child_mut("chosen") else { return };
    if let Some(cmdline) = input.cmdline {
        set(chosen, "bootargs", cmdline);
    }
    if let Some(initrd) = input.initrd {
        set(chosen, "linux,initrd-start", initrd.start().0);
        set(chosen, "linux,initrd-end", initrd.end().0);
    }
    if let Some((place, rest)) = input.seed.split_first_chunk::<8>() {
        set(chosen, "kaslr-seed", *place);
        set(chosen, "rng-seed", rest);
    }
}

#[cfg(test)]
mod tests;
