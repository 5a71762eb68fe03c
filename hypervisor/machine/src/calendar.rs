//! The clock that knows the time of day.

use crate::{index::Index, node};
use types::{Pa, Range};

/// The registers of the first PL031 (`rtc/arm,pl031.yaml`) that is enabled and can be reached.
pub(crate) fn calendar(index: &Index<'_>) -> Option<Range<Pa>> {
    index.all().find_map(|(id, node)| {
        let lineage = index.lineage(id);
        let usable = node::is_compatible(&node, &["arm,pl031"]) && lineage.iter().all(node::is_enabled);
        usable.then(|| node::registers(&lineage, 0).ok()).flatten()
    })
}
