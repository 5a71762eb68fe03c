//! `ram`, `rom`, `reserve`.
//!
//! A region without a start begins just above the highest one given before it, the first at 0x8000_0000 (`docs/qvmconf.md`, "Memory and addresses"), and
//! above what is reserved there: that start is this hypervisor's choice, and `reserve` is there to keep such choices away.
//! Memory stands before the `load` that uses it.

use super::Reader;
use alloc::format;
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{Diagnostic, SettingName, Span, Value};
use types::{Ipa, PAGE_SIZE, Range};

/// Where memory starts if nobody says so: the original's examples have it there.
const FIRST_RAM: u64 = 0x8000_0000;

/// Most regions of memory, and most reserved ones; each costs a little on every lookup.
const MAX_REGIONS: usize = 64;

#[derive(Default)]
pub(super) struct Memory {
    pub(super) ram: Vec<Range<Ipa>>,
    pub(super) ram_spans: Vec<Span>,
    pub(super) rom: Vec<Range<Ipa>>,
    pub(super) rom_spans: Vec<Span>,
    pub(super) reserved: Vec<Range<Ipa>>,
    pub(super) reserved_spans: Vec<Span>,
    /// A region is wrong, or a word that may have been one: what seems to be missing may only be unknown.
    unknown: bool,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Memory {
    let known = |statement: &qvmconf::Statement| {
        matches!(statement.keyword, Keyword::Ram | Keyword::Rom) && matches!(statement.value(), Value::Region { .. })
    };
    let document = reader.document;
    let unknown = document.diagnostics.has_errors() && !document.statements.iter().any(known);
    let mut memory = Memory { unknown, ..Memory::default() };
    read_reserved(reader, &mut memory);
    let mut next = None;
    let mut early = Vec::new();
    for statement in &document.statements {
        match statement.keyword {
            Keyword::Load => {
                let address = match statement.value() {
                    Value::File { address, .. } => address.map(Ipa),
                    _ => None,
                };
                if !memory.unknown && !address.map_or(!memory.regions_empty(), |address| memory.contains(address)) {
                    early.push((statement.span, address));
                }
            }
            Keyword::Ram | Keyword::Rom => {
                let region = region(reader, &memory, statement.value(), next, statement.value_span());
                let Some(range) = region else {
                    memory.unknown = true;
                    continue;
                };
                next = Some(next.unwrap_or(0).max(range.end().0));
                let (list, spans) = if statement.keyword == Keyword::Ram {
                    (&mut memory.ram, &mut memory.ram_spans)
                } else {
                    (&mut memory.rom, &mut memory.rom_spans)
                };
                if list.len() >= MAX_REGIONS {
                    reader.error(statement.span, format!("more than {MAX_REGIONS} regions of memory"), "");
                    break;
                }
                list.push(range);
                spans.push(statement.value_span());
            }
            _ => {}
        }
    }
    check_order(reader, &memory, &early);
    memory
}

impl Memory {
    fn regions_empty(&self) -> bool {
        self.ram.is_empty() && self.rom.is_empty()
    }

    fn contains(&self, address: Ipa) -> bool {
        self.ram.iter().chain(&self.rom).any(|range| range.contains(address))
    }
}

/// What stands before its memory, and whether there is any. An address that no region has is the loader's to report.
fn check_order(reader: &mut Reader<'_>, memory: &Memory, early: &[(Span, Option<Ipa>)]) {
    let hint = "put `ram` before it";
    for (span, address) in early {
        match address {
            Some(address) if memory.contains(*address) => {
                reader.error(*span, format!("`load` to {address} before the memory that is there"), hint);
            }
            _ if memory.regions_empty() || address.is_some() => {}
            _ => reader.error(*span, "`load` before any `ram` or `rom`: there is nowhere to load to", hint),
        }
    }
    if memory.ram.is_empty() && !memory.unknown {
        let message = "the VM has no `ram`";
        reader.diagnostics.push(Diagnostic::error_nowhere(message).hint("as in `ram 0x80000000,128M`"));
    }
}

fn read_reserved(reader: &mut Reader<'_>, memory: &mut Memory) {
    for statement in reader.all(Keyword::Reserve) {
        if statement.settings.is_empty() && !reader.document.diagnostics.has_errors() {
            reader.error(statement.span, "`reserve` of nothing", "as in `reserve loc 0x1c000000,64K`");
        }
        let loc = |setting: &&qvmconf::Setting| setting.name == SettingName::Keyword(Keyword::Loc);
        for setting in statement.settings.iter().filter(loc) {
            let Value::Region { start: Some(start), length } = setting.value() else { continue };
            let Some(range) = within_space(reader, *start, *length, setting.value_span()) else { continue };
            if memory.reserved.len() >= MAX_REGIONS {
                return reader.error(setting.span, format!("more than {MAX_REGIONS} reserved regions"), "");
            }
            memory.reserved.push(range);
            memory.reserved_spans.push(setting.value_span());
        }
    }
}

/// A region of memory; one without a start goes to `next`.
fn region(
    reader: &mut Reader<'_>,
    memory: &Memory,
    value: &Value,
    next: Option<u64>,
    span: Span,
) -> Option<Range<Ipa>> {
    let Value::Region { start, length } = value else { return None };
    let start = start.unwrap_or_else(|| above_reserved(memory, next.unwrap_or(FIRST_RAM), *length));
    let range = within_space(reader, start, *length, span)?;
    if !range.is_aligned(PAGE_SIZE) {
        reader.error(span, format!("{range} is not whole pages"), "start and length are multiples of 4K");
        return None;
    }
    Some(range)
}

/// The first address from `start` on where `length` bytes are clear of what is reserved.
fn above_reserved(memory: &Memory, start: u64, length: u64) -> u64 {
    let mut start = Ipa(start);
    // Every round but the last goes past at least one reserved range for good.
    for _ in 0..=memory.reserved.len() {
        let Some(range) = Range::new(start, length) else { break };
        let in_the_way = memory.reserved.iter().find(|reserved| reserved.overlaps(&range));
        let Some(above) = in_the_way.and_then(|reserved| reserved.end().align_up(PAGE_SIZE)) else { break };
        start = above;
    }
    start.0
}

fn within_space(reader: &mut Reader<'_>, start: u64, length: u64, span: Span) -> Option<Range<Ipa>> {
    if length == 0 {
        reader.error(span, "a region of no bytes", "the length is at least one page, 4K");
        return None;
    }
    let range = Range::new(Ipa(start), length);
    if range.is_none() {
        reader.error(span, format!("{length:#x} bytes from {start:#x} on run over the end of the address space"), "");
    }
    range
}
