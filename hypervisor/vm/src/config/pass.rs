//! `pass`: which of the host's devices, where in the guest.
//!
//! Answers for: which of what the language can say of them is carried out, and what can be found wrong with it without looking at the
//! host. Does not answer for: what the host has (`assemble`), what brings it to rest (`rest`), nor for whose it is (the kernel asks
//! `host::ownership`).
//!
//! QNX: each `loc` says `d` or `n` where there is an SMMU. Here it always does, and `d` without an SMMU takes a word of its own,
//! `uncontained`: such a device reaches everybody's memory.

use super::addresses::Claim;
use super::vdevs::Line;
use super::{Reader, place_of};
use crate::assemble::{PassedDevice, PassedInterrupt, PassedRegion, Reach};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{
    Diagnostic, PassAttributes, PassedPlace, PciFunction, PciIdentity, Setting, SettingName, Span, Statement, Value,
};
use types::{IntId, Ipa, PAGE_SIZE, Pa, Range};
use vdev::WantedFunction;

/// Most devices that a VM gets; each costs a little on every interrupt.
const MAX_PASSED: usize = 32;
/// Most regions, and most interrupts, of a device.
const MAX_PARTS: usize = 16;
/// Most interrupts of all of them: the kernel has a bit for each.
const MAX_INTERRUPTS: usize = 32;

/// What a letter would mean that is known and not carried out.
const REFUSED: [(char, &str); 6] = [
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
    pub(super) functions: Vec<Function>,
}

/// A function of the machine's PCI Express.
pub(super) struct Function {
    /// Where on the guest's bus it is, if that is said.
    pub(super) slot: Option<PciFunction>,
    pub(super) wanted: WantedFunction,
    pub(super) without_reset: bool,
    pub(super) reach: Reach,
    pub(super) span: Span,
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
        if passed.devices.len().saturating_add(passed.functions.len()) >= MAX_PASSED
            || statement.settings.len() > MAX_PARTS
        {
            let message = format!("more than {MAX_PASSED} passed devices, or {MAX_PARTS} parts of one");
            return finish(reader, passed, statement.span, &message);
        }
        if is_function(statement) {
            functions(reader, statement, &mut passed.functions);
            continue;
        }
        if let Some(word) = of(statement, Keyword::WithoutReset).next() {
            reader.error(word.value_span(), "`without-reset` is about functions of PCI", "as in `pass loc pci:0:3.0`");
        }
        let mut device = PassedDevice {
            place: Some(place_of(statement.span)),
            reach: Reach::Nothing,
            regions: Vec::new(),
            interrupts: Vec::new(),
        };
        for setting in of(statement, Keyword::Loc) {
            let Some((region, reaches)) = region(reader, setting) else { continue };
            if reaches {
                device.reach = Reach::Own;
            }
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
        if let Some(setting) = of(statement, Keyword::Uncontained).next() {
            if device.reach == Reach::Nothing {
                let message = "`uncontained`: this device does not reach memory by itself";
                reader.error(setting.span, message, "leave it out, or say `d` in place of `n`");
            }
            device.reach = Reach::Everything;
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

/// Whether this is about a function of PCI, at least.
fn is_function(statement: &Statement) -> bool {
    of(statement, Keyword::Loc).any(|loc| matches!(loc.value(), Value::Passed(PassedPlace::Pci { .. })))
}

/// The function that a `pass` is about: it is all that this is about, since the rest of it comes from its bus.
fn functions(reader: &mut Reader<'_>, statement: &Statement, passed: &mut Vec<Function>) {
    let without_reset = of(statement, Keyword::WithoutReset).next().is_some();
    let mut places = of(statement, Keyword::Loc);
    let Some(setting) = places.next() else { return };
    let (first, rest) = (setting.value_span(), places.next().or(of(statement, Keyword::Intr).next()));
    if let Some(rest) = rest {
        let message = "a function of PCI is passed alone: registers and interrupts are part of it";
        return reader.conflict(rest.value_span(), message, first, "one of the two is such a function");
    }
    let Value::Passed(PassedPlace::Pci { guest, host }) = setting.value() else { return };
    // QNX: what a place means without `=` is not known; here it is the machine's, which is what has to be said.
    let (slot, wanted) = match (*guest, *host) {
        (wanted, None) => (None, wanted_function(wanted)),
        (PciIdentity::Place { bus: 0, device, function }, Some(wanted)) => {
            (Some(PciFunction { device, function }), wanted_function(wanted))
        }
        (PciIdentity::Place { bus, .. }, Some(_)) => {
            return reader.error(
                first,
                format!("the guest has no PCI bus {bus}"),
                "it has bus 0, as in pci:0:3.0=1:0.0",
            );
        }
        (PciIdentity::Kind { .. }, Some(_)) => {
            let hint = "as in pci:0:3.0=0x8086/0x10d3, or without `=`";
            return reader.error(first, "in front of `=` stands where the guest has the function", hint);
        }
    };
    if slot.is_some_and(|slot| slot.device == 0) {
        return reader.error(first, "device 0 of the guest's PCI bus is its host bridge", "1 to 31");
    }
    if let Some(other) = passed.iter().find(|other| other.wanted == wanted) {
        return reader.conflict(first, format!("pci:{wanted} of the machine is passed twice"), other.span, "here too");
    }
    let is_uncontained = of(statement, Keyword::Uncontained).next().is_some();
    let reach = if is_uncontained { Reach::Everything } else { Reach::Own };
    passed.push(Function { slot, wanted, without_reset, reach, span: first });
}

const fn wanted_function(identity: PciIdentity) -> WantedFunction {
    match identity {
        PciIdentity::Place { bus, device, function } => WantedFunction::Place { bus, device, function },
        PciIdentity::Kind { vendor, device } => WantedFunction::Kind { vendor, device },
    }
}

/// The region, and whether what is there reaches memory by itself.
fn region(reader: &mut Reader<'_>, setting: &Setting) -> Option<(PassedRegion, bool)> {
    let span = setting.value_span();
    let Value::Passed(place) = setting.value() else { return None };
    let PassedPlace::Memory { start, length, attributes, host } = *place else { return None };
    let writable = access(reader, attributes, span)?;
    let (guest, host) = (Range::new(Ipa(start), length), Range::new(Pa(host), length));
    let (Some(guest), Some(host)) = (guest, host) else {
        reader.error(span, "the region runs over the end of the address space", "");
        return None;
    };
    if guest.is_empty() || !guest.is_aligned(PAGE_SIZE) || !host.is_aligned(PAGE_SIZE) {
        let message = match guest.is_empty() {
            true => "the region has no bytes".to_string(),
            false => format!("{guest} to {host} is not whole pages"),
        };
        reader.error(span, message, "start, length and the host's address are multiples of 4K: less cannot be given");
        return None;
    }
    Some((PassedRegion { guest, host, writable, place: Some(place_of(span)) }, attributes.contains('d')))
}

/// Whether the guest may write it; `None` if it cannot have it in this way.
fn access(reader: &mut Reader<'_>, attributes: PassAttributes, span: Span) -> Option<bool> {
    if let Some((letter, why)) = REFUSED.iter().find(|(letter, _)| attributes.contains(*letter)) {
        reader.error(span, format!("attribute `{letter}`: {why}"), "");
        return None;
    }
    if !attributes.contains('n') && !attributes.contains('d') {
        let message = "attributes do not say whether the device reaches memory by itself";
        reader.error(span, message, "`n` for one that does not, `d` for one that does");
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
