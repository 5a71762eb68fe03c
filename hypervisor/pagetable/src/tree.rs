//! The tree both stages share: its root, its bounds, and looking things up in it.
//!
//! Answers for: what is mapped at an address. Does not answer for: changes (`map`, `unmap`, `split`), attributes
//! (`stage2`, `el2_stage1`).

use crate::{
    change::MapError,
    descriptor::{ENTRIES, Entry, Format, Table, output},
    pool::{Idle, TablePool},
};
use core::marker::PhantomData;
use types::{Address, PAGE_SIZE, Pa, Range};

/// What one block or page maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping<A, T> {
    /// The input addresses of the whole block or page.
    pub range: Range<A>,
    /// Where its first byte is.
    pub to: Pa,
    /// What it allows.
    pub attributes: T,
}

/// A translation table tree with leaves in format `F`.
///
/// Every table except the root holds at least one valid descriptor: changes keep it so. That bounds a search for the
/// first mapping, and lets a block go where everything has been unmapped.
#[derive(Debug)]
pub(crate) struct Tree<F> {
    pub(crate) root: Table,
    root_pages: usize,
    input_end: u64,
    output_end: u64,
    /// Pages of tables in use, the root's among them.
    pub(crate) tables: usize,
    format: PhantomData<F>,
}

impl<F: Format> Tree<F> {
    /// An empty tree. `root.mask` says how many tables the root takes. Bits: 32 to 48.
    pub(crate) fn new(root: Table, input_bits: u32, output_bits: u32) -> Self {
        let root_pages = root.pages();
        let (input_end, output_end) = (1_u64.wrapping_shl(input_bits), 1_u64.wrapping_shl(output_bits));
        Self { root, root_pages, input_end, output_end, tables: root_pages, format: PhantomData }
    }

    /// First and end address of a range that may be worked on.
    pub(crate) fn check(&self, range: Range<F::Input>) -> Result<(u64, u64), MapError<F::Input>> {
        if !range.is_aligned(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        if range.end().as_u64() > self.input_end {
            return Err(MapError::InputOutOfRange);
        }
        Ok((range.start().as_u64(), range.end().as_u64()))
    }

    /// Checks that `length` bytes from `to` on are physical addresses a descriptor can hold.
    pub(crate) fn check_output(&self, to: Pa, length: u64) -> Result<(), MapError<F::Input>> {
        if !to.is_aligned(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        match to.0.checked_add(length) {
            Some(end) if end <= self.output_end => Ok(()),
            _ => Err(MapError::OutputOutOfRange),
        }
    }

    /// The block or page that maps `at`.
    pub(crate) fn lookup(&self, at: F::Input, pool: &impl TablePool) -> Option<Mapping<F::Input, F::Attributes>> {
        let at = at.as_u64();
        if at >= self.input_end {
            return None;
        }
        let mut table = self.root;
        loop {
            // Each turn goes a level down, and level 3 has no tables below it.
            let (page, index) = table.slot(at);
            match table.entry(pool.read(page, index)) {
                Entry::Invalid => return None,
                Entry::Table(below) => table = below,
                Entry::Leaf(leaf) => {
                    let start = F::Input::from_u64(table.level.align_down(at));
                    let range = Range::new(start, table.level.size())?;
                    return Some(Mapping { range, to: output(leaf), attributes: F::decode(leaf) });
                }
            }
        }
    }

    /// Frees every table. No walker uses them any more.
    pub(crate) fn destroy(mut self, pool: &mut impl TablePool) {
        // Without a limit the first call completes; from a page-aligned start to the end it cannot fail.
        let everything = Range::between(F::Input::from_u64(0), F::Input::from_u64(self.input_end));
        let _complete = self.unmap(everything, usize::MAX, pool, &mut Idle);
        pool.free(self.root.pa, self.root_pages);
    }
}

impl Table {
    /// How many pages it takes: more than one only for a concatenated root.
    pub(crate) const fn pages(&self) -> usize {
        ((self.mask >> 9) & 0xf).wrapping_add(1) as usize
    }

    /// Whether there is no valid descriptor in it (a single table).
    pub(crate) fn is_empty(&self, pool: &impl TablePool) -> bool {
        (0..ENTRIES).all(|index| matches!(self.entry(pool.read(self.pa, index)), Entry::Invalid))
    }
}
