//! `pass`: which of the host's devices, where in the guest.
//!
//! Answers for: which of what the language can say of them is carried out, and what can be found wrong with it without looking at the
//! host. Does not answer for: what the host has (`assemble`), what brings it to rest (`rest`), nor for whose it is (the kernel asks
//! `host::ownership`).
//!
//! QNX: each `loc` says `d` or `n` where there is an SMMU. Here it always does: a device that reaches memory by itself would reach
//! everybody's, and is refused.

use super::addresses::Claim;
use super::vdevs::Line;
use super::{Reader, place_of};
use crate::assemble::{PassedDevice, PassedInterrupt, PassedRegion};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{Diagnostic, PassAttributes, PassedPlace, Setting, SettingName, Span, Statement, Value};
use types::{IntId, Ipa, PAGE_SIZE, Pa, Range};

/// Most devices that a VM gets; each costs a little on every interrupt.
const MAX_PASSED: usize = 32;
/// Most regions, and most interrupts, of a device.
const MAX_PARTS: usize = 16;
/// Most interrupts of all of them: the kernel has a bit for each.
const MAX_INTERRUPTS: usize = 32;

/// What a letter would mean that is known and not carried out.
const REFUSED: [(char, &str); 7] = [
    ('d', "no SMMU confines what the device does to memory: it could reach everybody's"),
    ('m', "RAM cannot be passed; `ram` gives memory"),
    ('x', "known, not supported yet: nothing is run from registers"),
    ('c', "known, not supported yet: registers are not cached"),
    ('e', "known, not supported yet: `unsupported reference` says what becomes of other accesses"),
    ('s', "known, not supported yet: meaning not published"),
    ('t', "known, not supported yet: meaning not published"),
];

/// What is passed, and what it takes of the guest's addresses and interrupts.
#[derive(Default)]
pub(super) struct Passed {
    pub(super) devices: Vec<PassedDevice>,
    pub(super) claims: Vec<Claim>,
    pub(super) interrupts: Vec<(IntId, Span)>,
}

/// Reads all of it. `line` finds an input of the guest's interrupt controller; `used` are those that vdevs have.
pub(super) fn read(reader: &mut Reader<'_>, line: &Line<'_>, used: &[(IntId, Span)]) -> Passed {
    let mut passed = Passed::default();
    let mut hosts: Vec<(Range<Pa>, Span)> = Vec::new();
    let mut lines: Vec<(IntId, Span)> = Vec::new();
    for statement in reader.all(Keyword::Pass) {
        if let Some(prefix) = statement.prefix {
            let word = format!("{prefix:?}").to_lowercase();
            reader.error(statement.span, format!("`{word} pass`: known, not supported yet"), "`load` brings a file");
        }
        if statement.settings.is_empty() && !reader.document.diagnostics.has_errors() {
            let hint = "as in `pass loc 0x09010000,4K,rwn intr gic:34`";
            reader.error(statement.span, "`pass` of nothing", hint);
        }
        if passed.devices.len() >= MAX_PASSED || statement.settings.len() > MAX_PARTS {
            let message = format!("more than {MAX_PASSED} passed devices, or {MAX_PARTS} parts of one");
            return finish(reader, passed, statement.span, &message);
        }
        let mut device =
            PassedDevice { place: Some(place_of(statement.span)), regions: Vec::new(), interrupts: Vec::new() };
        for setting in of(statement, Keyword::Loc) {
            let Some(region) = region(reader, setting) else { continue };
            let span = setting.value_span();
            if let Some((_, other)) = hosts.iter().find(|(host, _)| host.overlaps(&region.host)) {
                reader.conflict(span, format!("{} of the machine is passed twice", region.host), *other, "here too");
            }
            hosts.push((region.host, span));
            passed.claims.push(Claim { what: "`pass`".to_string(), range: region.guest, span: Some(span) });
            device.regions.push(region);
        }
        for setting in of(statement, Keyword::Intr) {
            let Some(interrupt) = interrupt(reader, setting, line) else { continue };
            let span = setting.value_span();
            if let Some((_, other)) = lines.iter().find(|(host, _)| *host == interrupt.host) {
                let message = format!("interrupt {} of the machine is passed twice", interrupt.host.0);
                reader.conflict(span, message, *other, "here too");
            }
            // A line that ends for the one has not ended for the other.
            if let Some((_, other)) = used.iter().chain(&passed.interrupts).find(|(used, _)| *used == interrupt.guest) {
                let message = format!("interrupt {} of the guest has another source", interrupt.guest.0);
                reader.conflict(span, message, *other, "this one");
            }
            lines.push((interrupt.host, span));
            passed.interrupts.push((interrupt.guest, span));
            device.interrupts.push(interrupt);
        }
        if passed.interrupts.len() > MAX_INTERRUPTS {
            let message = format!("more than {MAX_INTERRUPTS} interrupts of passed devices");
            return finish(reader, passed, statement.span, &message);
        }
        passed.devices.push(device);
    }
    passed
}

fn finish(reader: &mut Reader<'_>, passed: Passed, span: Span, message: &str) -> Passed {
    reader.error(span, message, "");
    passed
}

fn of(statement: &Statement, keyword: Keyword) -> impl Iterator<Item = &Setting> {
    statement.settings.iter().filter(move |setting| setting.name == SettingName::Keyword(keyword))
}

fn region(reader: &mut Reader<'_>, setting: &Setting) -> Option<PassedRegion> {
    let span = setting.value_span();
    let Value::Passed(place) = setting.value() else { return None };
    let PassedPlace::Memory { start, length, attributes, host } = *place else {
        reader.error(span, "`pass loc pci:`: known, not supported yet", "devices on the host's PCI bus are not passed");
        return None;
    };
    let writable = access(reader, attributes, span)?;
    let (guest, host) = (Range::new(Ipa(start), length), Range::new(Pa(host), length));
    let (Some(guest), Some(host)) = (guest, host) else {
        reader.error(span, "the region runs over the end of the address space", "");
        return None;
    };
    if guest.is_empty() || !guest.is_aligned(PAGE_SIZE) || !host.is_aligned(PAGE_SIZE) {
        let message = format!("{guest} to {host} is not whole pages");
        reader.error(span, message, "start, length and the host's address are multiples of 4K: less cannot be given");
        return None;
    }
    Some(PassedRegion { guest, host, writable, place: Some(place_of(span)) })
}

/// Whether the guest may write it; `None` if it cannot have it in this way.
fn access(reader: &mut Reader<'_>, attributes: PassAttributes, span: Span) -> Option<bool> {
    if let Some((letter, why)) = REFUSED.iter().find(|(letter, _)| attributes.contains(*letter)) {
        reader.error(span, format!("attribute `{letter}`: {why}"), "");
        return None;
    }
    if !attributes.contains('n') {
        let message = "attributes do not say whether the device reaches memory by itself";
        reader.error(span, message, "`n` for one that does not; one that does (`d`) is refused");
        return None;
    }
    if !attributes.contains('r') {
        reader.error(span, "registers that cannot be read are no use", "add `r`");
        return None;
    }
    Some(attributes.contains('w'))
}

fn interrupt(reader: &mut Reader<'_>, setting: &Setting, line: &Line<'_>) -> Option<PassedInterrupt> {
    let Value::PassedInterrupt(passed) = setting.value() else { return None };
    let span = setting.value_span();
    let guest = line.find(reader, &passed.guest, span)?;
    let host = IntId(passed.host);
    if !host.is_spi() {
        let message = format!("{} is no shared interrupt of the machine", host.0);
        let diagnostic = Diagnostic::error(span, message).hint("INTIDs 32 to 1019: SPI n is n + 32");
        reader.diagnostics.push(diagnostic);
        return None;
    }
    Some(PassedInterrupt { guest, host, edge: passed.unmasked, place: Some(place_of(span)) })
}
