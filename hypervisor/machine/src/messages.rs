//! ITSs, and who sends messages to them.
//!
//! Answers for: where a GICv3's ITS is, and which DeviceID a device or a PCI function has there. Follows the bindings
//! `interrupt-controller/arm,gic-v3.yaml`, `interrupt-controller/msi.txt` and `pci/pci-msi.txt`. Does not answer for: which DeviceIDs an
//! ITS has room for; its registers say that. What a tree says of a device's messages and is no sense counts as not said: such a
//! device sends none.

use crate::{
    Gic,
    index::{Index, Node, NodeId},
    node::{self, Properties},
    requesters::Requesters,
};
use alloc::{string::String, vec::Vec};
use types::{Pa, Range, RequesterId};

/// An Interrupt Translation Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Its {
    /// Its registers, those of the frame with `GITS_TRANSLATER` among them.
    pub registers: Range<Pa>,
    /// Whether it may read and write its tables through the CPUs' caches: unless the tree says `dma-noncoherent` of it or of the
    /// controller. Its registers say more.
    pub is_coherent: bool,
}

/// To whom a message is sent, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTarget {
    /// Which ITS: an index into [`crate::Machine::its`].
    pub its: usize,
    /// The DeviceID that the sender has there.
    pub device: u32,
}

/// Something that sends messages to an ITS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageSender {
    /// The path of its node.
    pub path: String,
    /// The first of its registers, if it has any that can be reached.
    pub registers: Option<Range<Pa>>,
    /// Its own (`msi-parent`).
    pub targets: Vec<MessageTarget>,
    /// For a PCI host, those of the functions behind it (`msi-map`, or `msi-parent` for all of them).
    pub functions: Option<MessageMap>,
}

/// To which ITS the functions of a PCI host send, and with which DeviceIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageMap(Requesters);

impl MessageMap {
    /// Where a function's messages go, if anywhere. Several functions may have one DeviceID: then they cannot be told apart.
    #[must_use]
    pub fn target(&self, requester: RequesterId) -> Option<MessageTarget> {
        self.0.find(requester).map(|(its, device)| MessageTarget { its, device })
    }

    /// The highest DeviceID that a function can have at this ITS.
    #[must_use]
    pub fn highest(&self, its: usize) -> Option<u32> {
        self.0.highest(its)
    }
}

/// All of them, and all that sends to them.
pub(crate) fn all(index: &Index<'_>, gic: &Gic) -> (Vec<Its>, Vec<MessageSender>) {
    if matches!(gic, Gic::V2 { .. }) {
        return (Vec::new(), Vec::new());
    }
    let found: Vec<(NodeId, Its)> =
        index.compatible(&["arm,gic-v3-its"]).filter_map(|(id, _)| Some((id, its(index, id)?))).collect();
    let nodes: Vec<NodeId> = found.iter().map(|(id, _)| *id).collect();
    let senders = index.all().filter_map(|(id, node)| sender(index, &nodes, id, &node));
    let senders = if nodes.is_empty() { Vec::new() } else { senders.collect() };
    (found.into_iter().map(|(_, its)| its).collect(), senders)
}

fn its(index: &Index<'_>, id: NodeId) -> Option<Its> {
    let is_coherent = index.lineage(id).iter().all(|node| node.value("dma-noncoherent").is_none());
    Some(Its { registers: index.registers(id, 0).ok()?, is_coherent })
}

fn sender(index: &Index<'_>, its: &[NodeId], id: NodeId, node: &Node<'_, '_>) -> Option<MessageSender> {
    let is_host = node.value("device_type").and_then(node::string) == Some("pci");
    let parents = node.value("msi-parent").and_then(|value| parents(index, its, value)).unwrap_or_default();
    // A map is the whole truth about functions; without one they are who they are on their bus.
    let functions = match (node.value("msi-map"), parents.first()) {
        (Some(_), _) => Requesters::read(index, its, node, ["msi-map", "msi-map-mask"]),
        (None, Some((its, _))) if is_host => Some(Requesters::all_at(*its)),
        _ => None,
    };
    let own = |(its, device): (usize, Option<u32>)| Some(MessageTarget { its, device: device? });
    let targets: Vec<_> = if is_host { Vec::new() } else { parents.into_iter().filter_map(own).collect() };
    if targets.is_empty() && functions.is_none() || !index.lineage(id).iter().all(node::is_enabled) {
        return None;
    }
    let functions = functions.map(MessageMap);
    Some(MessageSender { path: index.path(id), registers: index.registers(id, 0).ok(), targets, functions })
}

/// `msi-parent`: a phandle each, with as many cells as the controller says (`#msi-cells`, none by default); one for an ITS, the
/// DeviceID.
fn parents(index: &Index<'_>, its: &[NodeId], mut value: &[u8]) -> Option<Vec<(usize, Option<u32>)>> {
    let mut parents = Vec::new();
    while !value.is_empty() {
        let (phandle, rest) = node::cell(value)?;
        let controller = index.by_phandle(phandle)?;
        let cells = index.node(controller)?.value("#msi-cells").map_or(Some(0), node::whole_number)?;
        let (specifier, rest) = rest.split_at_checked(usize::try_from(cells).ok()?.checked_mul(4)?)?;
        if let Some(its) = its.iter().position(|id| *id == controller) {
            parents.push((its, node::cell(specifier).map(|(device, _)| device).filter(|_| cells == 1)));
        }
        value = rest;
    }
    Some(parents)
}
