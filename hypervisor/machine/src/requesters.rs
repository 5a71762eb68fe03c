//! Which number a PCI function has with something behind its host: an SMMU, an ITS.
//!
//! Answers for: the form that `iommu-map` and `msi-map` have in common, with their masks (bindings `pci/pci-iommu.txt`,
//! `pci/pci-msi.txt`). Does not answer for: what the numbers are.

use crate::{
    index::{Index, Node, NodeId},
    node::{self, Properties},
};
use alloc::{vec, vec::Vec};
use types::RequesterId;

/// Spans of requesters, each with its numbers at one of several targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requesters {
    /// The bits of a requester's number that count.
    mask: u32,
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    requester: u32,
    target: usize,
    id: u32,
    count: u32,
}

impl Requesters {
    /// A property `map`: first requester, phandle, first number, how many; and `mask`. `None` if it is no sense, or names none of
    /// `targets`.
    pub(crate) fn read(
        index: &Index<'_>,
        targets: &[NodeId],
        node: &Node<'_, '_>,
        [map, mask]: [&str; 2],
    ) -> Option<Self> {
        let mut value = node.value(map)?;
        let mask = node.value(mask).map_or(Some(u32::MAX), |mask| node::cell(mask).map(|(mask, _)| mask))?;
        let mut spans = Vec::new();
        while !value.is_empty() {
            let (requester, rest) = node::cell(value)?;
            let (phandle, rest) = node::cell(rest)?;
            let (id, rest) = node::cell(rest)?;
            let (count, rest) = node::cell(rest)?;
            let node = index.by_phandle(phandle)?;
            if let Some(target) = targets.iter().position(|id| *id == node) {
                spans.push(Span { requester, target, id, count });
            }
            value = rest;
        }
        (!spans.is_empty()).then_some(Self { mask, spans })
    }

    /// All requesters at one target, each by its own number.
    pub(crate) fn all_at(target: usize) -> Self {
        Self { mask: u32::MAX, spans: vec![Span { requester: 0, target, id: 0, count: 1 << 16 }] }
    }

    /// Where a requester's number counts, and the number. Several may have one: then they cannot be told apart.
    pub(crate) fn find(&self, requester: RequesterId) -> Option<(usize, u32)> {
        let requester = u32::from(requester.0) & self.mask;
        self.spans.iter().find_map(|span| {
            let offset = requester.checked_sub(span.requester).filter(|offset| *offset < span.count)?;
            Some((span.target, span.id.checked_add(offset)?))
        })
    }

    /// The highest number at `target` that a requester can have.
    pub(crate) fn highest(&self, target: usize) -> Option<u32> {
        let spans = self.spans.iter().filter(|span| span.target == target && span.count > 0);
        // No requester has more than 16 bits.
        let last = |span: &Span| {
            let behind = (self.mask & 0xffff).checked_sub(span.requester)?.min(span.count.checked_sub(1)?);
            Some(span.id.saturating_add(behind))
        };
        spans.filter_map(last).max()
    }
}
