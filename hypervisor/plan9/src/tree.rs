//! Files by path as a tree of directories.
//!
//! Answers for: who is in which directory, under which name. Does not answer for: what a client sees of it (`server`). A directory
//! is there because a file is in it: there are no empty ones but an empty tree's root.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// Most bytes of the name of a file or directory, as on Linux (`NAME_MAX`).
pub const LONGEST_NAME: usize = 255;

/// A file or directory of a tree. Its number is its inode's: the same each time for the same paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// The directory that all others are in.
    pub const ROOT: Self = Self(0);
}

/// Why there can be no such tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// A part of this path cannot be a name: it is empty, `.`, `..` or longer than [`LONGEST_NAME`].
    Name(String),
    /// This is a file, and there are files in it; or it is there twice.
    Twice(String),
    /// There are more than can be counted, or than there is memory for.
    TooMany,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(path) => write!(f, "`{path}` cannot be a file's name"),
            Self::Twice(path) => write!(f, "`{path}` is there twice, as a file and as something else"),
            Self::TooMany => f.write_str("it has more files than there is memory for"),
        }
    }
}

#[derive(Debug)]
enum What {
    File(&'static [u8]),
    /// Their numbers, by name.
    Directory(Range<u32>),
}

#[derive(Debug)]
struct Node {
    name: &'static str,
    parent: NodeId,
    what: What,
}

/// Files and directories. Nothing in it changes.
#[derive(Debug)]
pub struct Tree {
    /// The root first; what is in one directory together, by name.
    nodes: Vec<Node>,
    /// Bytes in all files.
    bytes: u64,
}

/// A directory whose content has not been looked at.
struct Pending {
    node: NodeId,
    /// Its files.
    files: Range<usize>,
    /// Bytes of its own path, the slash behind it included.
    prefix: usize,
}

impl Tree {
    /// Of files by their paths, relative to the root, with single slashes, in any order.
    ///
    /// # Errors
    /// If a path is none, or two are at odds.
    pub fn new(mut files: Vec<(&'static str, &'static [u8])>) -> Result<Self, TreeError> {
        // By parts: in the order of bytes `a-b` would come between `a` and `a/b`.
        types::sort_by(&mut files, |(one, _), (other, _)| one.split('/').cmp(other.split('/')));
        let bytes = files.iter().fold(0_u64, |sum, (_, data)| sum.saturating_add(length(data)));
        let root = Node { name: "", parent: NodeId::ROOT, what: What::Directory(1..1) };
        let mut tree = Self { nodes: Vec::new(), bytes };
        tree.add(root)?;
        let mut pending = Vec::from([Pending { node: NodeId::ROOT, files: 0..files.len(), prefix: 0 }]);
        let mut next = 0_usize;
        while let Some(Pending { node, files: range, prefix }) = pending.get_mut(next).map(core::mem::take) {
            next = next.saturating_add(1);
            tree.fill(node, &files, range, prefix, &mut pending)?;
        }
        Ok(tree)
    }

    /// Adds what is in a directory; other directories among it are `pending`.
    fn fill(
        &mut self,
        directory: NodeId,
        files: &[(&'static str, &'static [u8])],
        range: Range<usize>,
        prefix: usize,
        pending: &mut Vec<Pending>,
    ) -> Result<(), TreeError> {
        let first = self.count()?;
        let mut at = range.start;
        while let Some((path, data)) = files.get(at).filter(|_| at < range.end) {
            let rest = path.get(prefix..).unwrap_or_default();
            let (name, is_file) = rest.split_once('/').map_or((rest, true), |(name, _)| (name, false));
            if name.is_empty() || name == "." || name == ".." || name.len() > LONGEST_NAME {
                return Err(TreeError::Name((*path).to_string()));
            }
            let is_same = |(path, _): &&(&str, &[u8])| {
                let rest = path.get(prefix..).unwrap_or_default();
                rest.split('/').next() == Some(name)
            };
            let same = files.get(at..range.end).unwrap_or_default().iter().take_while(is_same).count().max(1);
            let end = at.saturating_add(same);
            let what = match is_file {
                true if same > 1 => return Err(TreeError::Twice((*path).to_string())),
                true => What::File(data),
                false => What::Directory(0..0),
            };
            let node = self.add(Node { name, parent: directory, what })?;
            if !is_file {
                let prefix = prefix.saturating_add(name.len()).saturating_add(1);
                pending.try_reserve(1).map_err(|_| TreeError::TooMany)?;
                pending.push(Pending { node, files: at..end, prefix });
            }
            at = end;
        }
        let children = first..self.count()?;
        if let Some(node) = self.nodes.get_mut(index(directory)) {
            node.what = What::Directory(children);
        }
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<NodeId, TreeError> {
        let id = NodeId(self.count()?);
        self.nodes.try_reserve(1).map_err(|_| TreeError::TooMany)?;
        self.nodes.push(node);
        Ok(id)
    }

    fn count(&self) -> Result<u32, TreeError> {
        u32::try_from(self.nodes.len()).map_err(|_| TreeError::TooMany)
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(index(id))
    }

    /// How many files and directories there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes in all files together.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is called `name` in a directory.
    #[must_use]
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let Range { start, end } = self.children(directory)?;
        let (start, end) = (index(NodeId(start)), index(NodeId(end)));
        let children = self.nodes.get(start..end)?;
        let place = children.binary_search_by(|child| child.name.as_bytes().cmp(name)).ok()?;
        u32::try_from(start.checked_add(place)?).ok().map(NodeId)
    }

    /// The directory that something is in; the root is in itself.
    #[must_use]
    pub fn parent(&self, id: NodeId) -> NodeId {
        self.node(id).map_or(NodeId::ROOT, |node| node.parent)
    }

    /// What it is called in its directory; the root has no name.
    #[must_use]
    pub fn name(&self, id: NodeId) -> &'static str {
        self.node(id).map_or("", |node| node.name)
    }

    /// What is in a file; `None` if it is none.
    #[must_use]
    pub fn contents(&self, id: NodeId) -> Option<&'static [u8]> {
        match self.node(id)?.what {
            What::File(data) => Some(data),
            What::Directory(_) => None,
        }
    }

    /// The numbers of what is in a directory, by name; `None` if it is none.
    pub(crate) fn children(&self, id: NodeId) -> Option<Range<u32>> {
        match &self.node(id)?.what {
            What::File(_) => None,
            What::Directory(children) => Some(children.clone()),
        }
    }

    /// How many directories are in a directory.
    pub(crate) fn subdirectories(&self, id: NodeId) -> u64 {
        let children = self.children(id).unwrap_or_default();
        let directories = children.filter(|child| self.children(NodeId(*child)).is_some());
        u64::try_from(directories.count()).unwrap_or(u64::MAX)
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self { node: NodeId::ROOT, files: 0..0, prefix: 0 }
    }
}

fn index(id: NodeId) -> usize {
    usize::try_from(id.0).unwrap_or(usize::MAX)
}

fn length(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn tree(paths: &[&'static str]) -> Result<Tree, TreeError> {
        Tree::new(paths.iter().map(|path| (*path, path.as_bytes())).collect())
    }

    /// All paths, as the tree has them; directories end with a slash.
    fn paths(tree: &Tree, at: NodeId, before: &str) -> Vec<String> {
        let Some(children) = tree.children(at) else { return vec![before.to_string()] };
        let mut all = vec![alloc::format!("{before}/")];
        for child in children.map(NodeId) {
            assert_eq!((tree.parent(child), tree.child(at, tree.name(child).as_bytes())), (at, Some(child)));
            all.extend(paths(tree, child, &alloc::format!("{before}/{}", tree.name(child))));
        }
        all
    }

    #[test]
    fn directories_are_where_files_are() {
        let tree = tree(&["b/x", "a-b", "a/z/1", "a", "a/y"].map(|path| if path == "a" { "c" } else { path })).unwrap();
        let all = paths(&tree, NodeId::ROOT, "");
        assert_eq!(all, ["/", "/a/", "/a/y", "/a/z/", "/a/z/1", "/a-b", "/b/", "/b/x", "/c"]);
        let z = tree.child(tree.child(NodeId::ROOT, b"a").unwrap(), b"z").unwrap();
        assert_eq!((tree.name(z), tree.contents(z)), ("z", None));
        assert_eq!(tree.contents(tree.child(z, b"1").unwrap()), Some(&b"a/z/1"[..]));
        assert_eq!((tree.size(), tree.bytes()), (9, 3 + 3 + 5 + 1 + 3));
        assert_eq!((tree.subdirectories(NodeId::ROOT), tree.subdirectories(z)), (2, 0));
        for name in [&b""[..], b".", b"..", b"a/y", b"a-", b"\xff"] {
            assert_eq!(tree.child(NodeId::ROOT, name), None);
        }
        assert_eq!(tree.child(tree.child(NodeId::ROOT, b"c").unwrap(), b"x"), None, "nothing is in a file");
        assert_eq!(tree.parent(NodeId::ROOT), NodeId::ROOT);
    }

    #[test]
    fn the_order_in_which_files_come_does_not_matter() {
        let mut all = ["b/x", "a-b", "a/z/1", "c", "a/y"];
        let one = paths(&tree(&all).unwrap(), NodeId::ROOT, "");
        all.reverse();
        assert_eq!(paths(&tree(&all).unwrap(), NodeId::ROOT, ""), one);
    }

    #[test]
    fn paths_that_are_none_or_at_odds_are_errors() {
        for path in ["", "/a", "a//b", "a/", "./a", "a/..", "../a"] {
            assert_eq!(tree(&[path]).err(), Some(TreeError::Name(path.to_string())), "{path}");
        }
        let long: &'static str = "x".repeat(256).leak();
        assert_eq!(tree(&[long]).err(), Some(TreeError::Name(long.to_string())));
        assert!(tree(&[&long[1..]]).is_ok());
        assert_eq!(tree(&["a", "a/b"]).err(), Some(TreeError::Twice("a".to_string())));
        assert_eq!(tree(&["a", "a"]).err(), Some(TreeError::Twice("a".to_string())));
        assert_eq!(tree(&[]).map(|tree| tree.size()).ok(), Some(1));
    }

    #[test]
    fn what_is_deep_is_no_trouble() {
        let deep: &'static str = "d/".repeat(5000).leak();
        let tree = tree(&[alloc::format!("{deep}f").leak()]).unwrap();
        assert_eq!(tree.size(), 5002);
    }
}
