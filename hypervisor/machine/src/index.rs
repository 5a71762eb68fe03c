//! All nodes of the tree with their properties and parents.
//!
//! Answers for: reading the tree once, front to back, by `fdt`, and then going from a node to its properties, its
//! ancestors, its children, its path, and from a phandle to a node. `fdt` itself would read the tree again for each of
//! these, or cannot do it, or only in ways that may panic or never end. Does not answer for: what nodes mean.

use crate::{
    Flaw, MAX_DEPTH, MachineError,
    blob::Sound,
    node::{self, Lineage, Properties},
};
use alloc::{string::String, vec, vec::Vec};
use arrayvec::ArrayVec;
use core::iter::successors;
use types::{Pa, Range};

/// A node's number: its place in the tree, depth first.
pub(crate) type NodeId = usize;

struct Entry<'a> {
    name: &'a str,
    parent: Option<NodeId>,
    /// Where its properties begin in [`Index::properties`]; they end where the next node's begin.
    properties: usize,
    // What everybody asks for, of all nodes:
    /// What `phandle` and its old name `linux,phandle` say.
    phandles: [Option<u32>; 2],
    /// The value of `compatible`.
    compatible: &'a [u8],
    /// Whether that is what it was for the node before: buses for virtio come by dozens.
    is_another: bool,
    /// Whether neither this node nor one above is switched off.
    is_enabled: bool,
}

/// A property by its places in the blob, not by slices: there are thousands, and all there is for them is early boot's heap.
struct Property {
    name: u32,
    value: u32,
    length: u32,
}

pub(crate) struct Index<'a> {
    blob: &'a [u8],
    entries: Vec<Entry<'a>>,
    properties: Vec<Property>,
}

/// A node of the index.
#[derive(Clone, Copy)]
pub(crate) struct Node<'i, 'a> {
    pub(crate) name: &'a str,
    blob: &'a [u8],
    properties: &'i [Property],
}

impl<'a> Properties<'a> for Node<'_, 'a> {
    fn value(&self, name: &str) -> Option<&'a [u8]> {
        let from = |offset: u32| self.blob.get(usize::try_from(offset).ok()?..);
        // Its end first: where that is, it is hardly ever another name.
        let is = |found: &&Property| {
            from(found.name)
                .is_some_and(|found| found.get(name.len()) == Some(&0) && found.starts_with(name.as_bytes()))
        };
        let found = self.properties.iter().find(is)?;
        from(found.value)?.get(..usize::try_from(found.length).ok()?)
    }
}

impl<'a> Index<'a> {
    pub(crate) fn of(sound: &'a Sound<'_>) -> Result<Self, MachineError> {
        let tree = sound.reader()?;
        let (mut entries, mut properties): (Vec<Entry<'a>>, _) = (Vec::new(), Vec::new());
        // There is only early boot's heap.
        entries.try_reserve_exact(sound.depths().len()).map_err(|_| MachineError::TooLarge)?;
        properties.try_reserve_exact(sound.properties()).map_err(|_| MachineError::TooLarge)?;
        let blob = sound.bytes();
        // What `fdt` gives are parts of the blob.
        let place =
            |part: &[u8]| u32::try_from(part.as_ptr().addr().saturating_sub(blob.as_ptr().addr())).unwrap_or(u32::MAX);
        // The nodes that enclose the one being read: their numbers, the root first.
        let mut open: Vec<NodeId> = vec![];
        for (node, depth) in tree.all_nodes().zip(sound.depths()) {
            open.truncate(usize::from(*depth).saturating_sub(1));
            let first = properties.len();
            let parent = open.last().copied();
            open.push(entries.len());
            properties.extend(node.properties().map(|property| Property {
                name: place(property.name.as_bytes()),
                value: place(property.value),
                length: u32::try_from(property.value.len()).unwrap_or(u32::MAX),
            }));
            let read = Node { name: node.name, blob, properties: properties.get(first..).unwrap_or_default() };
            let phandles = ["phandle", "linux,phandle"].map(|name| node::exact_cell(read.value(name)?));
            let compatible = read.value("compatible").unwrap_or_default();
            let is_another = entries.last().is_some_and(|before| before.compatible == compatible);
            let above = parent.and_then(|parent| entries.get(parent)).is_none_or(|entry| entry.is_enabled);
            entries.push(Entry {
                name: node.name,
                parent,
                properties: first,
                phandles,
                compatible,
                is_another,
                is_enabled: above && node::is_enabled(&read),
            });
        }
        if entries.len() != sound.depths().len() {
            return Err(MachineError::Malformed("structure block: nodes out of place".into()));
        }
        Ok(Self { blob, entries, properties })
    }

    pub(crate) fn root(&self) -> Option<Node<'_, 'a>> {
        self.node(0)
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<Node<'_, 'a>> {
        let entry = self.entries.get(id)?;
        let end = self.entries.get(id.saturating_add(1)).map_or(self.properties.len(), |next| next.properties);
        Some(Node { name: entry.name, blob: self.blob, properties: self.properties.get(entry.properties..end)? })
    }

    pub(crate) fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.entries.get(id)?.parent
    }

    /// All nodes, depth first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, Node<'_, 'a>)> {
        (0..self.entries.len()).filter_map(|id| Some((id, self.node(id)?)))
    }

    /// The children of `id`, in the order of the tree.
    pub(crate) fn children(&self, id: NodeId) -> impl Iterator<Item = (NodeId, Node<'_, 'a>)> {
        let children = self.entries.iter().enumerate().skip(id).filter(move |(_, entry)| entry.parent == Some(id));
        children.filter_map(|(id, _)| Some((id, self.node(id)?)))
    }

    /// Usable nodes that are compatible with one of `wanted`, none of whose ancestors is switched off.
    pub(crate) fn compatible<'i>(
        &'i self,
        wanted: &'i [&str],
    ) -> impl Iterator<Item = (NodeId, Node<'i, 'a>)> + use<'i, 'a> {
        let mut is_wanted = false;
        let found = self.entries.iter().enumerate().filter(move |(_, entry)| {
            if !entry.is_another {
                is_wanted = node::is_one_of(entry.compatible, wanted);
            }
            is_wanted && entry.is_enabled
        });
        found.filter_map(|(id, _)| Some((id, self.node(id)?)))
    }

    /// The node at `path`, which begins with a slash. A component without unit address matches the first node of that name.
    pub(crate) fn at(&self, path: &str) -> Option<NodeId> {
        let path = path.strip_prefix('/')?;
        path.split('/').filter(|name| !name.is_empty()).try_fold(0, |parent, name| {
            let matches =
                |found: &str| found.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'));
            self.children(parent).find(|(_, child)| matches(child.name)).map(|(id, _)| id)
        })
    }

    /// The node that a path or the name of an alias stands for (DTSpec 3.3; the path behind an alias is absolute).
    pub(crate) fn at_path_or_alias(&self, name: &str) -> Option<NodeId> {
        if name.starts_with('/') {
            return self.at(name);
        }
        self.at(node::string(self.node(self.at("/aliases")?)?.value(name)?)?)
    }

    pub(crate) fn by_phandle(&self, phandle: u32) -> Option<NodeId> {
        self.entries.iter().position(|entry| entry.phandles.contains(&Some(phandle)))
    }

    pub(crate) fn lineage(&self, id: NodeId) -> Lineage<Node<'_, 'a>> {
        // The scan of the blob has bounded the depth.
        let path = successors(Some(id), |id| self.parent(*id)).take(MAX_DEPTH);
        let path: ArrayVec<NodeId, MAX_DEPTH> = path.collect();
        path.iter().rev().filter_map(|id| self.node(*id)).collect()
    }

    pub(crate) fn path(&self, id: NodeId) -> String {
        let mut path = String::new();
        for node in self.lineage(id).iter().skip(1) {
            path.push('/');
            path.push_str(node.name);
        }
        if path.is_empty() { "/".into() } else { path }
    }

    /// The `n`-th entry of a node's `reg`, translated.
    pub(crate) fn registers(&self, id: NodeId, n: usize) -> Result<Range<Pa>, MachineError> {
        node::registers(&self.lineage(id), n).map_err(self.flawed(id, "reg"))
    }

    /// Turns a flaw of a property into the error that names it.
    pub(crate) fn flawed(&self, id: NodeId, property: &'static str) -> impl FnOnce(Flaw) -> MachineError {
        move |flaw| MachineError::Property { node: self.path(id), property, flaw }
    }
}
