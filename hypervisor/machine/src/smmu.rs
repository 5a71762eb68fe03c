//! SMMUs, and which devices are behind them.
//!
//! Answers for: where an SMMUv3 is, and which stream a device or a PCI function sends by. Follows the bindings
//! `iommu/arm,smmu-v3.yaml`, `iommu/iommu.txt` and `pci/pci-iommu.txt`. Does not answer for: which streams an SMMU has room for; its
//! registers say that. What a tree says of a device's streams and is no sense counts as not said: such a device is behind no
//! SMMU.

use crate::{
    index::{Index, Node, NodeId},
    interrupts::Found,
    node::{self, Properties},
    requesters::Requesters,
};
use alloc::{string::String, vec::Vec};
use types::{IntId, Pa, Range, RequesterId};

/// An SMMUv3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smmu {
    /// Its registers.
    pub registers: Range<Pa>,
    /// The interrupt of its event queue.
    pub eventq: Option<IntId>,
    /// Its interrupt for global errors.
    pub gerror: Option<IntId>,
    /// Its interrupt for the completion of commands.
    pub cmdq_sync: Option<IntId>,
    /// Its one interrupt for all of these, where it has only one.
    pub combined: Option<IntId>,
    /// Whether it reads tables and queues through the CPUs' caches (`dma-coherent`, DTSpec 2.3.10; said of it or of a bus above).
    pub is_coherent: bool,
}

/// A stream of an SMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Which SMMU: an index into [`crate::Machine::smmus`].
    pub smmu: usize,
    /// Which of its streams.
    pub id: u32,
}

/// Something whose transactions go through an SMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// The path of its node.
    pub path: String,
    /// The first of its registers, if it has any that can be reached.
    pub registers: Option<Range<Pa>>,
    /// Its own streams (`iommus`).
    pub streams: Vec<Stream>,
    /// For a PCI host, those of the functions behind it (`iommu-map`).
    pub functions: Option<RequesterMap>,
}

/// Which streams the functions of a PCI host send by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequesterMap(Requesters);

impl RequesterMap {
    /// The stream of a function, if it goes through an SMMU. Several functions may have one: then they cannot be told apart.
    #[must_use]
    pub fn stream(&self, requester: RequesterId) -> Option<Stream> {
        self.0.find(requester).map(|(smmu, id)| Stream { smmu, id })
    }

    /// The highest stream of this SMMU that a function can have.
    #[must_use]
    pub fn highest(&self, smmu: usize) -> Option<u32> {
        self.0.highest(smmu)
    }
}

/// All of them, and all that is behind them.
pub(crate) fn smmus(index: &Index<'_>, gic: &Found) -> (Vec<Smmu>, Vec<Master>) {
    let found = found(index);
    let smmus = found.iter().filter_map(|id| smmu(index, gic, *id)).collect();
    let masters = if found.is_empty() {
        Vec::new()
    } else {
        index.all().filter_map(|(id, node)| master(index, &found, id, &node)).collect()
    };
    (smmus, masters)
}

/// The streams that a device sends by itself (`iommus`).
pub(crate) fn streams(index: &Index<'_>, node: &Node<'_, '_>) -> Vec<Stream> {
    let streams = node.value("iommus").and_then(|value| own(index, &found(index), value));
    streams.unwrap_or_default()
}

/// All SMMUs, in the order in which they have their numbers.
fn found(index: &Index<'_>) -> Vec<NodeId> {
    index.compatible(&["arm,smmu-v3"]).map(|(id, _)| id).filter(|id| index.registers(*id, 0).is_ok()).collect()
}

fn smmu(index: &Index<'_>, gic: &Found, id: NodeId) -> Option<Smmu> {
    let names = index.node(id)?.value("interrupt-names").unwrap_or_default();
    let interrupt = |name: &str| {
        let position = node::strings(names).position(|found| found == name)?;
        gic.interrupt_of(index, id, position)
    };
    Some(Smmu {
        registers: index.registers(id, 0).ok()?,
        eventq: interrupt("eventq"),
        gerror: interrupt("gerror"),
        cmdq_sync: interrupt("cmdq-sync"),
        combined: interrupt("combined"),
        is_coherent: index.lineage(id).iter().any(|node| node.value("dma-coherent").is_some()),
    })
}

fn master(index: &Index<'_>, smmus: &[NodeId], id: NodeId, node: &Node<'_, '_>) -> Option<Master> {
    let streams = node.value("iommus").and_then(|value| own(index, smmus, value)).unwrap_or_default();
    let functions = Requesters::read(index, smmus, node, ["iommu-map", "iommu-map-mask"]).map(RequesterMap);
    if streams.is_empty() && functions.is_none() || !index.lineage(id).iter().all(node::is_enabled) {
        return None;
    }
    Some(Master { path: index.path(id), registers: index.registers(id, 0).ok(), streams, functions })
}

/// `iommus`: a phandle each, with as many cells as the IOMMU says; one for an SMMUv3, the stream.
fn own(index: &Index<'_>, smmus: &[NodeId], mut value: &[u8]) -> Option<Vec<Stream>> {
    let mut streams = Vec::new();
    while !value.is_empty() {
        let (phandle, rest) = node::cell(value)?;
        let iommu = index.by_phandle(phandle)?;
        let cells = node::whole_number(index.node(iommu)?.value("#iommu-cells")?)?;
        let (specifier, rest) = rest.split_at_checked(usize::try_from(cells).ok()?.checked_mul(4)?)?;
        if let (Some(smmu), 1) = (smmus.iter().position(|id| *id == iommu), cells) {
            streams.push(Stream { smmu, id: node::cell(specifier)?.0 });
        }
        value = rest;
    }
    Some(streams)
}
