//! From places to streams.
//!
//! Answers for: what a configuration comes to on this machine, and that no two devices of it have one stream. Does not answer
//! for: what the machine has ([`Places`]).

use super::{Configuration, Spec};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use qvmconf::{Diagnostic, Diagnostics};
use types::{Pa, Range};

/// A stream of one of the machine's SMMUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which SMMU, as [`Places`] counts them.
    pub smmu: usize,
    /// Which of its streams.
    pub stream: u32,
}

/// What the machine has.
pub trait Places {
    /// The streams of what is there, at least one.
    ///
    /// # Errors
    /// A message: why there are none, or too many.
    fn streams(&self, spec: &Spec) -> Result<Vec<Place>, String>;

    /// Whether this memory can be given to a device of nobody's VM.
    ///
    /// # Errors
    /// A message: whose it is.
    fn may_give(&self, memory: Range<Pa>) -> Result<(), String>;

    /// What a stream is and who has it, or has what it cannot be kept apart from, if somebody has: part of a sentence.
    fn taken(&self, place: Place) -> Option<String>;
}

/// The streams of each device, in the order of [`Configuration::devices`].
///
/// # Errors
/// Everything that this machine does not have, streams that are two devices', and those that somebody has of devices that may reach something.
pub fn resolve(configuration: &Configuration, places: &impl Places) -> Result<Vec<Vec<Place>>, Diagnostics> {
    let mut found = Diagnostics::new();
    let mut taken = Vec::new();
    let mut all = Vec::new();
    for device in &configuration.devices {
        let mut streams: Vec<Place> = Vec::new();
        for (spec, span) in &device.places {
            let here = places.streams(spec).unwrap_or_else(|why| {
                found.push(Diagnostic::error(*span, format!("`{}`: {why}", device.name)));
                Vec::new()
            });
            for place in here {
                // Functions that cannot be told apart have one stream.
                let other = taken.iter().find(|(other, name, _)| *other == place && *name != device.name);
                if let Some((_, name, first)) = other {
                    let message = format!(
                        "{spec} sends by stream {:#x}, which is that of `{name}`: it cannot be `{}`, too",
                        place.stream, device.name
                    );
                    found.push(Diagnostic::error(*span, message).note(*first, format!("`{name}` is here")));
                } else if !streams.contains(&place) {
                    let reaches = device.bypass.is_some() || !device.allowed.is_empty();
                    if let Some(whose) = places.taken(place).filter(|_| reaches) {
                        let message = format!("`{}` cannot have stream {:#x}: {whose}", device.name, place.stream);
                        found.push(Diagnostic::error(*span, message));
                    }
                    streams.push(place);
                    taken.push((place, device.name.as_str(), *span));
                }
            }
        }
        for allowed in &device.allowed {
            if let Err(why) = places.may_give(allowed.memory.range) {
                let message = format!("`{}` cannot reach {}: {why}", device.name, allowed.memory.range);
                found.push(Diagnostic::error(allowed.memory.span, message));
            }
        }
        all.push(streams);
    }
    if found.has_errors() { Err(found) } else { Ok(all) }
}
