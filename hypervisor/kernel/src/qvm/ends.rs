//! The last ends of VMs.
//!
//! Answers for: remembering them, for who waits for one or watches a VM and comes to look later. Does not answer for: telling
//! anybody (`qvm`).

use crate::sync::{Lock, Rank};
use alloc::vec::Vec;
use arrayvec::ArrayString;
use vm::lifecycle::EndRecord;

/// Ends that are remembered for `wait` and `pidin`.
const MEMORY: usize = 64;

/// A VM's name (`vm::config` allows no longer ones).
type Name = ArrayString<32>;

/// The end of a life of a VM.
struct End {
    name: Name,
    code: u8,
    /// The first was 1.
    sequence: u64,
}

/// The last ones, the latest last.
static ENDS: Lock<Vec<End>> = Lock::new(Rank::Qvms, Vec::new());

/// Remembers an end.
pub(super) fn note(name: &str, end: &EndRecord) {
    let mut ends = ENDS.lock();
    let sequence = ends.last().map_or(0, |end| end.sequence) + 1;
    let room = MEMORY.saturating_sub(ends.len());
    ends.reserve_exact(room);
    if ends.len() >= MEMORY {
        ends.remove(0);
    }
    ends.push(End { name: Name::from(name).unwrap_or_default(), code: end.cause.code(), sequence });
}

/// The first end of a VM of that name behind the end number `sequence`, with its exit code, as far as they are remembered.
pub(crate) fn next_end(name: &str, sequence: u64) -> Option<(u64, u8)> {
    let ends = ENDS.lock();
    let next = ends.iter().find(|end| end.sequence > sequence && &*end.name == name)?;
    Some((next.sequence, next.code))
}

/// The number of the last end of any VM; 0 before the first.
pub(crate) fn last_sequence() -> u64 {
    ENDS.lock().last().map_or(0, |end| end.sequence)
}
