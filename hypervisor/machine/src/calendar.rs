//! The clock that knows the time of day.

use crate::index::Index;
use types::{Pa, Range};

/// The registers of the first PL031 (`rtc/arm,pl031.yaml`) that is enabled and can be reached.
pub(crate) fn calendar(index: &Index<'_>) -> Option<Range<Pa>> {
    index.compatible(&["arm,pl031"]).find_map(|(id, _)| index.registers(id, 0).ok())
}
