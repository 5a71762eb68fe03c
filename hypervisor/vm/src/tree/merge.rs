//! A user's device tree over the generated one.
//!
//! Answers for: two kinds of trees. A plain one is laid over node by node and property by property, both by name: what it
//! has is added or replaces. An overlay (nodes `fragment` with an `__overlay__` inside, as `dtc -@` makes of `/plugin/`) is
//! applied by `dtoolkit`; for its references there are the symbols `gic`, `timer`, `psci` and `apb_pclk`. Neither kind can
//! take something away; `status = "disabled"` does what can be done. Does not answer for: whether what a user says is
//! true.

use super::{TreeError, TreeProblem};
use alloc::{format, string::String, vec, vec::Vec};
use dtoolkit::{
    Node as _, Property as _,
    model::{DeviceTree, DeviceTreeNode, overlay::OverlayApplier},
};
use machine::MAX_DEPTH;

const CELLS: [&str; 2] = ["#address-cells", "#size-cells"];
const SYMBOLS: &str = "__symbols__";
/// Largest tree that is taken. In memory it is some twenty times its size.
const MAX_BYTES: usize = 256 * 1024;

/// Lays `user` over `tree`, one after the other.
pub(super) fn all(tree: &mut DeviceTree, user: &[&[u8]]) -> Result<(), TreeError> {
    for (index, blob) in user.iter().enumerate() {
        let failed = |problem| TreeError { user: Some(index), problem };
        one(tree, blob).map_err(failed)?;
        if depth(&tree.root) > MAX_DEPTH {
            return Err(failed(TreeProblem::TooDeep));
        }
    }
    Ok(())
}

fn one(tree: &mut DeviceTree, blob: &[u8]) -> Result<(), TreeProblem> {
    if blob.len() > MAX_BYTES {
        return Err(TreeProblem::Malformed(format!(
            "device tree: {} bytes, at most {MAX_BYTES} are taken",
            blob.len()
        )));
    }
    // The depth is bounded by this, hence every recursion below.
    let blob = machine::validate(blob).map_err(|error| TreeProblem::Malformed(format!("{error}")))?;
    let user = DeviceTree::from_fdt(&blob);
    if user.root.children().any(|node| node.name_without_address() == "fragment" && node.child("__overlay__").is_some())
    {
        add_symbols(tree);
        let applied = OverlayApplier::new(tree).apply_overlay_tree(user);
        return applied.map_err(|error| TreeProblem::Malformed(format!("device tree overlay: {error}")));
    }
    over(&mut tree.root, &user.root, "/")?;
    tree.memory_reservations.extend(user.memory_reservations);
    Ok(())
}

fn over(node: &mut DeviceTreeNode, user: &DeviceTreeNode, path: &str) -> Result<(), TreeProblem> {
    for property in user.properties() {
        let name = property.name();
        if CELLS.contains(&name) && value(node, name).is_some_and(|ours| ours != property.value()) {
            return Err(TreeProblem::Cells(path.into()));
        }
        node.add_property(property.clone());
    }
    for child in user.children() {
        match node.child_mut(child.name()) {
            Some(ours) => over(ours, child, &format!("{}/{}", path.trim_end_matches('/'), child.name()))?,
            None => node.add_child(child.clone()),
        }
    }
    Ok(())
}

fn value<'a>(node: &'a DeviceTreeNode, name: &str) -> Option<&'a [u8]> {
    node.properties().find(|property| property.name() == name)?.value_as().ok()
}

/// Gives overlays the names that they may refer to, and each of those nodes a phandle: the applier would hand out
/// numbers that the overlay's own phandles, moved behind the highest there is, take as well.
fn add_symbols(tree: &mut DeviceTree) {
    let is_controller = |node: &&DeviceTreeNode| value(node, "interrupt-controller").is_some();
    let gic: Option<String> = tree.root.children().find(is_controller).map(|node| format!("/{}", node.name()));
    let named = [("timer", "/timer"), ("psci", "/psci"), ("apb_pclk", "/apb-pclk")];
    let symbols = tree.root.add_child_mut(DeviceTreeNode::new_unchecked(SYMBOLS));
    for (name, path) in named.into_iter().chain(gic.as_deref().map(|path| ("gic", path))) {
        if value(symbols, name).is_none() {
            super::set(symbols, name, path);
        }
    }
    let path = |value: &[u8]| Some(String::from(core::str::from_utf8(value.strip_suffix(b"\0")?).ok()?));
    let paths: Vec<String> = symbols.properties().filter_map(|property| path(property.value())).collect();
    let mut highest = phandles(tree).iter().filter_map(|phandle| number(phandle)).max().unwrap_or(0);
    for path in paths {
        let Some(node) = tree.find_node_mut(&path) else { continue };
        if value(node, "phandle").is_none() {
            highest = highest.saturating_add(1);
            super::set(node, "phandle", highest);
        }
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// All phandles, unsorted.
fn phandles(tree: &DeviceTree) -> Vec<&[u8]> {
    let mut phandles = Vec::new();
    let mut open = vec![&tree.root];
    while let Some(node) = open.pop() {
        phandles.extend(value(node, "phandle"));
        open.extend(node.children());
    }
    phandles
}

/// What must hold of the finished tree: no phandle twice, and an interrupt controller.
pub(super) fn check(tree: &DeviceTree) -> Result<(), TreeError> {
    let failed = |problem| Err(TreeError { user: None, problem });
    let mut phandles = phandles(tree);
    types::sort_by(&mut phandles, Ord::cmp);
    if let Some([twice, _]) = phandles.array_windows().find(|[a, b]| a == b) {
        return failed(TreeProblem::Phandle(number(twice).unwrap_or_default()));
    }
    match value(&tree.root, "interrupt-parent") {
        Some(parent) if phandles.binary_search(&parent).is_ok() => Ok(()),
        _ => failed(TreeProblem::NoInterruptController),
    }
}

/// Levels of nodes, counted without recursion.
fn depth(root: &DeviceTreeNode) -> usize {
    let mut open = vec![(1_usize, root)];
    let mut deepest = 0;
    while let Some((depth, node)) = open.pop() {
        deepest = deepest.max(depth);
        open.extend(node.children().map(|child| (depth.saturating_add(1), child)));
    }
    deepest
}
