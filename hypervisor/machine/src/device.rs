//! Devices as somebody needs them who gives one away.
//!
//! Answers for: which nodes have registers that the CPUs reach, and what of such a node says something about the device alone: numbers
//! and strings, interrupts at the GIC, clocks that never change. Does not answer for: drivers, and for properties that refer to other
//! nodes, which mean nothing without them: they are left out. Streams are the exception, since they are for the hypervisor.
//!
//! Follows DTSpec 2.3, 2.4.1 and Linux' bindings `clock/fixed-clock.yaml`, `arm/primecell.yaml`; for what is the hypervisor's by its nature
//! `interrupt-controller/arm,gic*.yaml`, `iommu/arm,smmu*.yaml`.

use crate::{
    MachineError, Stream,
    index::{Index, NodeId},
    interrupts::Found,
    node::{self, Properties},
};
use alloc::{string::String, vec::Vec};
use types::{IntId, Pa, Range};

/// What the `interrupts` of a device say of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub intid: IntId,
    /// The third cell: 1 for a rising edge, 4 for a high level.
    pub flags: u32,
}

/// A clock of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClock {
    /// What the device calls it (`clock-names`), if it does.
    pub name: Option<String>,
    /// Hertz, of one that never changes.
    pub frequency: Option<u32>,
}

/// A usable node with registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its path.
    pub path: String,
    /// Its name, without where it is.
    pub name: String,
    /// All entries of its `reg`, as the CPUs see them.
    pub registers: Vec<Range<Pa>>,
    /// All its interrupts; `None` for one that does not go straight to the GIC.
    pub interrupts: Vec<Option<Line>>,
    /// What it calls them (`interrupt-names`), if it does.
    pub interrupt_names: Vec<String>,
    /// Its clocks.
    pub clocks: Vec<DeviceClock>,
    /// Those of its properties that are about nothing but itself ([`PROPERTIES`]).
    pub properties: Vec<(&'static str, Vec<u8>)>,
    /// Whether it is known to reach memory by itself. One that is not known to can do so all the same.
    pub reaches_memory: bool,
    /// The streams by which it does so through SMMUs (`iommus`); none if it is behind no SMMU.
    pub streams: Vec<Stream>,
    /// Whether it sees what is in CPUs' caches (`dma-coherent`, of it or of a bus above).
    pub is_coherent: bool,
    /// What it is to the hypervisor, if it can only be the hypervisor's.
    pub role: Option<&'static str>,
}

/// Properties that need no other node to be understood.
pub const PROPERTIES: [&str; 21] = [
    "compatible",
    "model",
    "label",
    "reg-names",
    "reg-shift",
    "reg-offset",
    "reg-io-width",
    "big-endian",
    "little-endian",
    "native-endian",
    "clock-frequency",
    "current-speed",
    "fifo-size",
    "auto-flow-control",
    "arm,primecell-periphid",
    "gpio-controller",
    "#gpio-cells",
    "ngpios",
    "gpio-line-names",
    "interrupt-controller",
    "#interrupt-cells",
];

/// Properties of nothing but what reaches memory by itself.
const MASTERS: [&str; 5] = ["dma-coherent", "iommus", "iommu-map", "#dma-cells", "memory-region"];

/// What is whose by its nature.
const ROLES: [(&str, &[&str]); 5] = [
    (
        "the machine's interrupt controller",
        &[
            "arm,gic-v3",
            "arm,gic-400",
            "arm,cortex-a15-gic",
            "arm,cortex-a7-gic",
            "arm,gic-v2",
            "arm,gic-v3-its",
            "arm,gic-v2m-frame",
        ],
    ),
    ("an SMMU", &["arm,smmu-v3", "arm,mmu-500", "arm,mmu-401", "arm,mmu-400", "arm,smmu-v2", "arm,smmu-v1"]),
    ("a timer of the CPUs", &["arm,armv7-timer-mem"]),
    ("memory of the machine's firmware", &["cfi-flash"]),
    ("a place for virtio devices", &VIRTIO),
];

/// A place where a virtio device may be.
const VIRTIO: [&str; 1] = ["virtio,mmio"];

/// What a bus of devices is that can be passed one by one.
const HOST_BRIDGE: &str = "a PCI host bridge";

/// All usable nodes of the tree in `blob` that have registers, in its order.
///
/// # Errors
/// As for [`crate::Machine::from_device_tree`], if the blob is not a sound tree or has no GIC.
pub fn devices(blob: &[u8]) -> Result<Vec<Device>, MachineError> {
    let sound = crate::blob::Sound::check(blob)?;
    let index = Index::of(&sound)?;
    let gic = crate::interrupts::gic(&index)?;
    Ok(index.all().filter_map(|(id, _)| device(&index, &gic, id)).collect())
}

fn device(index: &Index<'_>, gic: &Found, id: NodeId) -> Option<Device> {
    let lineage = index.lineage(id);
    let node = index.node(id)?;
    if !lineage.iter().all(node::is_enabled) || node.value("device_type").and_then(node::string) == Some("memory") {
        return None;
    }
    let registers = node::raw_registers(&lineage).ok()?;
    let registers = registers.filter_map(|(address, size)| node::translate(&lineage, address, size).ok());
    let registers: Vec<_> = registers.filter(|range| !range.is_empty()).collect();
    if registers.is_empty() {
        return None;
    }
    let is = |names: &[&str]| node::is_compatible(&node, names);
    let has = |name| node.value(name).is_some();
    let names = |property| node::strings(node.value(property).unwrap_or_default()).map(String::from).collect();
    let bus = node.value("device_type").and_then(node::string) == Some("pci");
    Some(Device {
        path: index.path(id),
        name: String::from(node.name.split('@').next().unwrap_or_default()),
        registers,
        interrupts: gic.lines_of(index, id),
        interrupt_names: names("interrupt-names"),
        clocks: clocks(index, id),
        properties: PROPERTIES.iter().filter_map(|name| Some((*name, node.value(name)?.to_vec()))).collect(),
        // What is said of a bus is not said of each device on it.
        reaches_memory: bus || MASTERS.into_iter().any(has) || is(&VIRTIO),
        streams: crate::smmu::streams(index, &node),
        is_coherent: lineage.iter().any(|node| node.value("dma-coherent").is_some()),
        role: ROLES.iter().find(|(_, names)| is(names)).map(|(role, _)| *role).or(bus.then_some(HOST_BRIDGE)),
    })
}

/// `clocks`, as far as it can be understood: each entry is as long as its provider says.
fn clocks(index: &Index<'_>, id: NodeId) -> Vec<DeviceClock> {
    let Some(node) = index.node(id) else { return Vec::new() };
    let mut names = node::strings(node.value("clock-names").unwrap_or_default()).map(String::from);
    let (mut clocks, mut rest) = (Vec::new(), node.value("clocks").unwrap_or_default());
    // Each round takes a cell at least.
    while let Some((frequency, after)) = clock(index, rest) {
        clocks.push(DeviceClock { name: names.next(), frequency });
        rest = after;
    }
    clocks
}

fn clock<'v>(index: &Index<'_>, value: &'v [u8]) -> Option<(Option<u32>, &'v [u8])> {
    let (phandle, rest) = node::number(value, 1)?;
    let provider = index.node(index.by_phandle(u32::try_from(phandle).ok()?)?)?;
    let cells = usize::try_from(node::whole_number(provider.value("#clock-cells")?)?).ok()?;
    let rest = rest.get(cells.checked_mul(4)?..)?;
    let fixed = node::is_compatible(&provider, &["fixed-clock"]);
    let frequency = provider.value("clock-frequency").and_then(node::whole_number).filter(|_| fixed);
    Some((frequency.and_then(|frequency| u32::try_from(frequency).ok()), rest))
}
