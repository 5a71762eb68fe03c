//! Who is where: memory, devices, the interrupt controller, reservations.
//!
//! Answers for: no two things at one address. Does not answer for: what is loaded into memory (`load`), nor how many
//! address bits the host has (`assemble`).

use super::Reader;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use qvmconf::{Diagnostic, Span};
use types::{Ipa, Range};

/// What an error about the interrupt controller's own choice of addresses advises.
const MOVE_CONTROLLER: &str = "`vdev gic loc DISTRIBUTOR gicr REDISTRIBUTORS` puts the interrupt controller elsewhere";

/// Something that has addresses of its own.
#[derive(Clone)]
pub(super) struct Claim {
    /// What it is, as messages call it.
    pub(super) what: String,
    pub(super) range: Range<Ipa>,
    /// Where it was said; `None` for the interrupt controller that nobody named.
    pub(super) span: Option<Span>,
}

/// Reports all that is in the way of something else.
pub(super) fn check(reader: &mut Reader<'_>, mut claims: Vec<Claim>, reserved: &[(Range<Ipa>, Span)]) {
    claims.retain(|claim| !claim.range.is_empty());
    // Two at one address stay in the order of the text.
    let mut claims: Vec<(usize, Claim)> = claims.into_iter().enumerate().collect();
    types::sort_by(&mut claims, |(first, a), (second, b)| (a.range.start(), first).cmp(&(b.range.start(), second)));
    // Of those so far, the one that reaches highest: whatever starts below its end is in its way.
    let mut highest: Option<&Claim> = None;
    for (_, claim) in &claims {
        if let Some(before) = highest.filter(|before| before.range.overlaps(&claim.range)) {
            conflict(reader, before, claim);
        }
        highest = highest.filter(|before| before.range.end() >= claim.range.end()).or(Some(claim));
    }
    for (_, claim) in &claims {
        let Some((range, reservation)) = reserved.iter().find(|(range, _)| range.overlaps(&claim.range)) else {
            continue;
        };
        let Claim { what, range: at, span } = claim;
        match span {
            // QNX: a reservation is for what is placed automatically; what the configuration places itself is its business.
            Some(span) => reader.diagnostics.push(
                Diagnostic::warning(*span, format!("{what} at {at} is in {range}, which is reserved"))
                    .note(*reservation, "reserved here"),
            ),
            None => reader.diagnostics.push(
                Diagnostic::error(*reservation, format!("{what} is at {at}: {range} cannot be reserved"))
                    .hint(MOVE_CONTROLLER),
            ),
        }
    }
}

fn conflict(reader: &mut Reader<'_>, one: &Claim, other: &Claim) {
    // The later one in the text is the one that came into a place that was taken.
    let (first, second) = if one.span <= other.span { (one, other) } else { (other, one) };
    let message = format!("{} at {} overlaps {} at {}", second.what, second.range, first.what, first.range);
    let diagnostic = match second.span.or(first.span) {
        Some(span) => Diagnostic::error(span, message),
        None => Diagnostic::error_nowhere(message),
    };
    reader.diagnostics.push(match first.span {
        Some(span) => diagnostic.note(span, "the other one"),
        None => diagnostic.hint(MOVE_CONTROLLER),
    });
}
