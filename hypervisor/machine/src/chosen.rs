//! What the boot loader has to say: `/chosen` (DTSpec section 3.6; the initrd and seeds as Linux' `dt-schema` has them).

use crate::{
    Flaw, MachineError,
    index::Index,
    node::{self, Properties},
};
use alloc::{string::String, vec::Vec};
use types::{Pa, Range};

fn value<'a>(index: &Index<'a>, name: &str) -> Option<&'a [u8]> {
    index.node(index.at("/chosen")?)?.value(name)
}

pub(crate) fn bootargs(index: &Index<'_>) -> Option<String> {
    value(index, "bootargs").and_then(node::string).map(String::from)
}

pub(crate) fn seed(index: &Index<'_>) -> Vec<u8> {
    let parts = ["rng-seed", "kaslr-seed"].map(|name| value(index, name).unwrap_or_default());
    parts.concat()
}

pub(crate) fn initrd(index: &Index<'_>) -> Result<Option<Range<Pa>>, MachineError> {
    let Some(chosen) = index.at("/chosen") else { return Ok(None) };
    let end = |property| match value(index, property) {
        None => Ok(None),
        Some(value) => node::whole_number(value).ok_or(Flaw::Length).map_err(index.flawed(chosen, property)).map(Some),
    };
    match (end("linux,initrd-start")?, end("linux,initrd-end")?) {
        (Some(start), Some(end)) if start < end => Ok(Some(Range::between(Pa(start), Pa(end)))),
        (Some(start), Some(end)) if start > end => Err(index.flawed(chosen, "linux,initrd-end")(Flaw::Wraps)),
        (Some(_), None) => Err(index.flawed(chosen, "linux,initrd-end")(Flaw::Missing)),
        _ => Ok(None),
    }
}
