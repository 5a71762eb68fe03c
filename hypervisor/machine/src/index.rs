//! All nodes of the tree with their parents.
//!
//! Answers for: going from a node to its ancestors, its children, its path, and from a phandle to a node, which `fdt`
//! itself cannot or only in ways that may panic or never end. Does not answer for: what nodes mean.

use crate::{
    Flaw, MAX_DEPTH, MachineError,
    node::{self, Lineage, Properties},
};
use alloc::{string::String, vec, vec::Vec};
use fdt::node::FdtNode;
use types::{Pa, Range};

struct Entry<'t, 'a> {
    node: FdtNode<'t, 'a>,
    parent: Option<usize>,
}

/// A node's number: its place in the tree, depth first.
pub(crate) type NodeId = usize;

pub(crate) struct Index<'t, 'a> {
    entries: Vec<Entry<'t, 'a>>,
}

impl<'t, 'a> Index<'t, 'a> {
    pub(crate) fn of(tree: &'t fdt::Fdt<'a>) -> Result<Self, MachineError> {
        let root = tree.find_node("/").ok_or(MachineError::NoNode("/"))?;
        let mut entries = vec![Entry { node: root, parent: None }];
        let mut open = vec![(0, root.children())];
        while let Some((parent, children)) = open.last_mut() {
            let parent = *parent;
            let Some(node) = children.next() else {
                open.pop();
                continue;
            };
            // The scan has bounded this; the lineage relies on it.
            if open.len() >= MAX_DEPTH {
                return Err(MachineError::TooLarge);
            }
            open.push((entries.len(), node.children()));
            entries.push(Entry { node, parent: Some(parent) });
        }
        Ok(Self { entries })
    }

    pub(crate) fn root(&self) -> Option<FdtNode<'t, 'a>> {
        self.node(0)
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<FdtNode<'t, 'a>> {
        self.entries.get(id).map(|entry| entry.node)
    }

    pub(crate) fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.entries.get(id)?.parent
    }

    /// All nodes, depth first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, FdtNode<'t, 'a>)> {
        self.entries.iter().enumerate().map(|(id, entry)| (id, entry.node))
    }

    /// The children of `id`, in the order of the tree.
    pub(crate) fn children(&self, id: NodeId) -> impl Iterator<Item = (NodeId, FdtNode<'t, 'a>)> {
        let children = self.entries.iter().enumerate().filter(move |(_, entry)| entry.parent == Some(id));
        children.map(|(id, entry)| (id, entry.node))
    }

    /// Usable nodes that are compatible with one of `wanted`, none of whose ancestors is switched off.
    pub(crate) fn compatible<'i>(
        &'i self,
        wanted: &'i [&str],
    ) -> impl Iterator<Item = (NodeId, FdtNode<'t, 'a>)> + use<'i, 't, 'a> {
        self.all().filter(move |(id, node)| {
            node::is_compatible(node, wanted) && self.lineage(*id).iter().all(node::is_enabled)
        })
    }

    /// The node at `path`, which begins with a slash. A component without unit address matches the first node of that name.
    pub(crate) fn at(&self, path: &str) -> Option<NodeId> {
        let path = path.strip_prefix('/')?;
        path.split('/').filter(|name| !name.is_empty()).try_fold(0, |parent, name| {
            let matches = |found: &str| found == name || found.split('@').next() == Some(name);
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
        let is = |node: &FdtNode<'_, '_>, name| node.value(name) == Some(phandle.to_be_bytes().as_slice());
        self.all().find(|(_, node)| is(node, "phandle") || is(node, "linux,phandle")).map(|(id, _)| id)
    }

    pub(crate) fn lineage(&self, id: NodeId) -> Lineage<FdtNode<'t, 'a>> {
        let mut lineage = Lineage::new();
        let mut next = Some(id);
        while let Some(entry) = next.and_then(|id| self.entries.get(id)) {
            // Construction has bounded the depth.
            let _ = lineage.try_push(entry.node);
            next = entry.parent;
        }
        lineage.reverse();
        lineage
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
