//! Which device is on which page.
//!
//! Answers for: the table by which the bus finds a device without a search, where that can be had for little memory. Does not answer
//! for: the search.

use alloc::vec::Vec;
use types::{Ipa, PAGE_SIZE, Range};

/// Most pages from the first device to the last for which there is a table. Beyond that, and where devices share a page,
/// the search below is fast enough.
const TABLE_PAGES: u64 = 4096;

/// For each page which region, by its place in order, has it: the first page's number, and the table. `None` if that would
/// be too long, or two regions share a page.
pub(super) fn table(regions: impl Iterator<Item = Range<Ipa>>) -> Option<(u64, Vec<u16>)> {
    let mut first = None;
    let mut table = Vec::new();
    for (region, index) in regions.zip(0_u16..) {
        let page = region.start().0 / PAGE_SIZE;
        let end = region.end().align_up(PAGE_SIZE)?.0 / PAGE_SIZE;
        let base = *first.get_or_insert(page);
        let (from, to) = (page.checked_sub(base)?, end.checked_sub(base)?);
        if to > TABLE_PAGES || from < u64::try_from(table.len()).ok()? {
            return None;
        }
        table.resize(usize::try_from(from).ok()?, u16::MAX);
        table.resize(usize::try_from(to).ok()?, index);
    }
    first.map(|first| (first, table))
}
