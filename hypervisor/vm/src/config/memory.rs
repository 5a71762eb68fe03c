//! `ram`, `rom`, `reserve`.
//!
//! A region without a start begins just above the highest one given before it, the first at 0x8000_0000 (facts 1.5).

use super::Reader;
use alloc::format;
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{SettingName, Span, Value};
use types::{Ipa, PAGE_SIZE, Range};

/// Where memory starts if nobody says so: the original's examples have it there.
const FIRST_RAM: u64 = 0x8000_0000;

/// Most regions of memory; each costs a little on every lookup.
const MAX_REGIONS: usize = 64;

#[derive(Default)]
pub(super) struct Memory {
    pub(super) ram: Vec<Range<Ipa>>,
    pub(super) ram_spans: Vec<Span>,
    pub(super) rom: Vec<Range<Ipa>>,
    pub(super) rom_spans: Vec<Span>,
    pub(super) reserved: Vec<Range<Ipa>>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Memory {
    let mut memory = Memory::default();
    let mut next = None;
    let mut loaded_early = None;
    for statement in &reader.document.statements {
        match statement.keyword {
            Keyword::Load if memory.ram.is_empty() && memory.rom.is_empty() => {
                loaded_early.get_or_insert(statement.span);
            }
            Keyword::Ram | Keyword::Rom => {
                let Value::Region { start, length } = statement.value() else { continue };
                let (start, span) = (start.or(next).unwrap_or(FIRST_RAM), statement.value_span());
                let Some(range) = checked(reader, start, *length, span) else { continue };
                next = Some(next.unwrap_or(0).max(range.end().0));
                let (list, spans) = if statement.keyword == Keyword::Ram {
                    (&mut memory.ram, &mut memory.ram_spans)
                } else {
                    (&mut memory.rom, &mut memory.rom_spans)
                };
                if list.len() >= MAX_REGIONS {
                    reader.error(span, format!("more than {MAX_REGIONS} regions of memory"), "");
                    break;
                }
                list.push(range);
                spans.push(span);
            }
            Keyword::Reserve => {
                let loc = |setting: &&qvmconf::Setting| setting.name == SettingName::Keyword(Keyword::Loc);
                for setting in statement.settings.iter().filter(loc) {
                    if let Value::Region { start: Some(start), length } = setting.value() {
                        match Range::new(Ipa(*start), *length) {
                            Some(range) => memory.reserved.push(range),
                            None => reader.error(setting.value_span(), "runs over the end of the address space", ""),
                        }
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(span) = loaded_early {
        reader.error(span, "`load` before any `ram` or `rom`: there is nowhere to load to", "put `ram` before it");
    } else if memory.ram.is_empty() && !reader.diagnostics.has_errors() {
        let message = "the VM has no `ram`";
        reader.diagnostics.push(qvmconf::Diagnostic::error_nowhere(message).hint("as in `ram 0x80000000,128M`"));
    }
    memory
}

fn checked(reader: &mut Reader<'_>, start: u64, length: u64, span: Span) -> Option<Range<Ipa>> {
    let hint = "start and length are multiples of 4K";
    if length == 0 {
        reader.error(span, "a region of no bytes", hint);
        return None;
    }
    let Some(range) = Range::new(Ipa(start), length) else {
        reader.error(span, format!("{length:#x} bytes from {start:#x} on run over the end of the address space"), "");
        return None;
    };
    if !range.is_aligned(PAGE_SIZE) {
        reader.error(span, format!("{range} is not whole pages"), hint);
        return None;
    }
    Some(range)
}
