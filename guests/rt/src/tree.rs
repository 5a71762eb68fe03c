//! The device tree, as far as a guest reads it.
//!
//! Answers for: walking the nodes of a flattened tree in one pass, without recursion or allocation, never past its end.
//! Does not answer for: what the nodes mean (`machine`).
//!
//! Devicetree Specification 0.4, chapter 5 (flattened format) and section 2.3 (standard properties).

use core::ops::Range;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
/// Deeper nodes are not looked at.
const MAX_DEPTH: usize = 16;
/// The boot protocol's own limit.
const MAX_SIZE: usize = 2 << 20;

/// A flattened device tree in memory.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    bytes: &'static [u8],
}

/// One node.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    tree: Tree,
    /// Its name with the unit address; empty for the root.
    pub name: &'static str,
    /// 0 for the root.
    pub depth: usize,
    /// `#address-cells` and `#size-cells` of its parent: how to read its `reg`.
    pub cells: (usize, usize),
    properties: usize,
}

impl Tree {
    /// The tree at `address`.
    ///
    /// # Errors
    ///
    /// There is none: no magic number, or a size that cannot be.
    ///
    /// # Safety
    ///
    /// `address` is what the boot protocol passed: readable memory, which nobody writes.
    pub unsafe fn at(address: usize) -> Result<Self, &'static str> {
        if address == 0 || !address.is_multiple_of(8) {
            return Err("no device tree: x0 is not an aligned address");
        }
        // SAFETY: the caller's promise; the header is 40 bytes.
        let header = unsafe { core::slice::from_raw_parts(address as *const u8, 40) };
        let size = word(header, 4) as usize;
        if word(header, 0) != MAGIC || !(40..=MAX_SIZE).contains(&size) {
            return Err("no device tree: wrong magic number or size");
        }
        // SAFETY: the caller's promise; the header gives the size.
        let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, size) };
        Ok(Self { bytes })
    }

    /// The memory it occupies.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        let start = self.bytes.as_ptr() as u64;
        start..start + self.bytes.len() as u64
    }

    /// All nodes, parents before children.
    pub fn nodes(self) -> impl Iterator<Item = Node> {
        let mut position = word(self.bytes, 8) as usize;
        let mut depth = 0_usize;
        // What the node at each depth says about its children; the defaults of section 2.3.5.
        let mut cells = [(2, 1); MAX_DEPTH + 1];
        core::iter::from_fn(move || {
            loop {
                let (token, next) = self.token(position)?;
                position = next;
                match token {
                    BEGIN_NODE => {
                        let name = self.text(position);
                        position = (position + name.len() + 4) & !3;
                        depth += 1;
                        if depth > MAX_DEPTH {
                            continue;
                        }
                        let node =
                            Node { tree: self, name, depth: depth - 1, cells: cells[depth - 1], properties: position };
                        cells[depth] = (
                            node.number("#address-cells").map_or(2, |cells| cells as usize),
                            node.number("#size-cells").map_or(1, |cells| cells as usize),
                        );
                        return Some(node);
                    }
                    END_NODE => depth = depth.checked_sub(1)?,
                    PROPERTY => position = self.property(position)?.2,
                    NOP => {}
                    _ => return None,
                }
            }
        })
    }

    fn token(&self, position: usize) -> Option<(u32, usize)> {
        (position + 4 <= self.bytes.len()).then(|| (word(self.bytes, position), position + 4))
    }

    /// Name, value and end of the property whose length field is at `position`.
    fn property(&self, position: usize) -> Option<(&'static str, &'static [u8], usize)> {
        let length = word(self.bytes, position) as usize;
        let name = word(self.bytes, 12) as usize + word(self.bytes, position + 4) as usize;
        let value = self.bytes.get(position + 8..position.checked_add(8 + length)?)?;
        Some((self.text(name), value, (position + 8 + length + 3) & !3))
    }

    fn text(&self, position: usize) -> &'static str {
        text(self.bytes.get(position..).unwrap_or(&[]))
    }
}

impl Node {
    /// Its properties.
    pub fn properties(self) -> impl Iterator<Item = (&'static str, &'static [u8])> {
        let mut position = self.properties;
        core::iter::from_fn(move || {
            loop {
                let (token, next) = self.tree.token(position)?;
                match token {
                    NOP => position = next,
                    PROPERTY => {
                        let (name, value, end) = self.tree.property(next)?;
                        position = end;
                        return Some((name, value));
                    }
                    _ => return None,
                }
            }
        })
    }

    /// The value of the property `name`.
    #[must_use]
    pub fn property(self, name: &str) -> Option<&'static [u8]> {
        self.properties().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    /// A property of one or two cells.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u64> {
        let value = self.property(name)?;
        match value.len() {
            4 | 8 => Some(number(value)),
            _ => None,
        }
    }

    /// A property that is a string.
    #[must_use]
    pub fn string(self, name: &str) -> Option<&'static str> {
        self.property(name).map(text)
    }

    /// Whether one of its `compatible` strings is `wanted`.
    #[must_use]
    pub fn is_compatible(self, wanted: &str) -> bool {
        let list = self.property("compatible").unwrap_or(&[]);
        list.split(|byte| *byte == 0).any(|candidate| candidate == wanted.as_bytes())
    }

    /// Entry `index` of `reg`: address and size.
    #[must_use]
    pub fn reg(self, index: usize) -> Option<Range<u64>> {
        let (address, size) = (self.cells.0 * 4, self.cells.1 * 4);
        let entry = self.property("reg")?.chunks_exact((address + size).max(4)).nth(index)?;
        let start = number(entry.get(..address)?);
        Some(start..start.saturating_add(number(entry.get(address..)?)))
    }

    /// The INTID of entry `index` of `interrupts`, in the three-cell format of a GIC.
    #[must_use]
    pub fn interrupt(self, index: usize) -> Option<u32> {
        let entry = self.property("interrupts")?.chunks_exact(12).nth(index)?;
        let line = word(entry, 4);
        match word(entry, 0) {
            0 => Some(line + 32),
            1 => Some(line + 16),
            _ => None,
        }
    }

    /// The first window of `ranges` with addresses of 32 bits, of a PCI host bridge whose parent has addresses of 64 bits: where
    /// its devices may be put (IEEE 1275 PCI binding, 2.2.1.1).
    #[must_use]
    pub fn pci_window(self) -> Option<Range<u64>> {
        let mut entries = self.property("ranges")?.chunks_exact(28);
        entries.find_map(|entry| {
            let (space, start, length) = (word(entry, 0) >> 24 & 3, number(&entry[12..20]), number(&entry[20..28]));
            (space == 2).then_some(start..start.saturating_add(length))
        })
    }
}

/// The big-endian word at `position`; zero past the end.
fn word(bytes: &[u8], position: usize) -> u32 {
    bytes.get(position..position + 4).map_or(0, |word| number(word) as u32)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Up to the terminating zero.
fn text(bytes: &[u8]) -> &str {
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.get(..length).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
}
