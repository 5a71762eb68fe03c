//! `vdev`: which devices, where, with which interrupt.
//!
//! The interrupt controller is apart: it is in every VM, and naming it only changes its options.

use super::{Reader, is_name_character, place_of, span_of};
use crate::assemble::VdevDescription;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{Interrupt, Place, Setting, SettingName, Span, Statement, Value, nearest};
use types::{IntId, Ipa};
use vdev::{Factory, FactoryFlags, Given, Numbers, OptionError, Options};

/// Where the distributor is unless `loc` says otherwise, and the redistributors unless `gicr` does: as on QEMU's virt
/// machine, so that guests made for it find them where they expect them.
const DISTRIBUTOR: Ipa = Ipa(0x0800_0000);
const REDISTRIBUTORS: Ipa = Ipa(0x080a_0000);

/// Most devices of one VM.
const MAX_VDEVS: usize = 256;

/// The interrupt controller when nobody names it.
const IMPLICIT_CONTROLLER: &str = "gic";

pub(super) struct Vdevs {
    pub(super) list: Vec<VdevDescription>,
    pub(super) spans: Vec<Span>,
    pub(super) distributor: Ipa,
    pub(super) redistributors: Ipa,
    pub(super) gic: Option<Span>,
}

/// Numbers as the language writes them.
struct Language;

impl Numbers for Language {
    fn number(&self, text: &str) -> Result<u64, String> {
        qvmconf::number(text).map_err(|error| error.to_string())
    }
    fn size(&self, text: &str) -> Result<u64, String> {
        qvmconf::size(text).map_err(|error| error.to_string())
    }
}

pub(super) fn read(reader: &mut Reader<'_>, factories: &[&'static Factory]) -> Vdevs {
    let mut vdevs = Vdevs {
        list: Vec::new(),
        spans: Vec::new(),
        distributor: DISTRIBUTOR,
        redistributors: REDISTRIBUTORS,
        gic: None,
    };
    let mut controller = IMPLICIT_CONTROLLER.to_string();
    let mut interrupts: Vec<(IntId, Span)> = Vec::new();
    for statement in reader.all(Keyword::Vdev) {
        let Value::Text(kind) = statement.value() else { continue };
        let Some(factory) = factories.iter().find(|factory| factory.name == kind) else { continue };
        let Some(options) = options(reader, factory, statement) else { continue };
        let name = name(reader, statement, kind);
        let (location, interrupt) =
            (location(reader, factory, statement), interrupt(reader, factory, statement, &controller));
        if factory.flags.contains(FactoryFlags::PIC) {
            if let Some(first) = vdevs.gic {
                reader.conflict(statement.span, "a second interrupt controller", first, "the first one");
                continue;
            }
            if !vdevs.list.is_empty() && name != IMPLICIT_CONTROLLER {
                reader.error(statement.span, "an interrupt controller stands before the devices that use it", "");
            }
            (vdevs.gic, controller) = (Some(statement.span), name);
            vdevs.distributor = location.unwrap_or(DISTRIBUTOR);
            vdevs.redistributors = options.address("gicr").unwrap_or(REDISTRIBUTORS);
            if options.number("version") == Some(2) {
                let place = options.place("version").and_then(span_of).unwrap_or(statement.span);
                reader.error(place, "`version 2`: known, not supported yet", "");
            }
            continue;
        }
        if let Some((intid, span)) = interrupt {
            if let Some((_, other)) = interrupts.iter().find(|(used, _)| *used == intid) {
                reader.conflict(span, format!("interrupt {} is used twice", intid.0), *other, "the other one");
            }
            interrupts.push((intid, span));
        }
        if vdevs.list.len() >= MAX_VDEVS {
            reader.error(statement.span, format!("more than {MAX_VDEVS} devices"), "");
            break;
        }
        let interrupt = interrupt.map(|(intid, _)| intid);
        let name = distinct(&vdevs.list, name);
        vdevs.list.push(VdevDescription { factory, name, location, interrupt, options });
        vdevs.spans.push(statement.span.to(statement.value_span()));
    }
    vdevs
}

/// The device's own options, checked against its factory.
fn options(reader: &mut Reader<'_>, factory: &'static Factory, statement: &Statement) -> Option<Options> {
    let own = |setting: &'_ Setting| match setting.name {
        SettingName::Vdev(name) => Some(name),
        SettingName::Keyword(_) => None,
    };
    let given = statement.settings.iter().filter_map(|setting| {
        let name = own(setting)?;
        let argument = setting.argument.as_ref().map(|argument| argument.text.as_str());
        Some(Given { name, argument, place: place_of(setting.value_span()) })
    });
    match Options::parse(factory.options, given, &Language) {
        Ok(options) => Some(options),
        Err(errors) => {
            for OptionError { place, message, .. } in errors {
                let span = place.and_then(span_of).unwrap_or(statement.span);
                reader.error(span, message, "");
            }
            None
        }
    }
}

fn name(reader: &mut Reader<'_>, statement: &Statement, kind: &str) -> String {
    let Some(setting) = statement.setting(Keyword::Name) else { return kind.to_string() };
    match setting.value() {
        Value::Text(name) if !name.is_empty() && name.chars().all(|c| is_name_character(c) || c == '/') => name.clone(),
        Value::Text(name) => {
            let hint = "letters, digits, `-`, `_`, `.` and `/`";
            reader.error(setting.value_span(), format!("`{name}` cannot name a device"), hint);
            kind.to_string()
        }
        _ => kind.to_string(),
    }
}

/// Two devices of one kind without a `name` are told apart by a number.
fn distinct(list: &[VdevDescription], name: String) -> String {
    let taken = |candidate: &str| list.iter().any(|vdev| vdev.name == candidate);
    if !taken(&name) {
        return name;
    }
    (2..=MAX_VDEVS).map(|n| format!("{name}-{n}")).find(|candidate| !taken(candidate)).unwrap_or(name)
}

fn location(reader: &mut Reader<'_>, factory: &Factory, statement: &Statement) -> Option<Ipa> {
    let Some(setting) = statement.setting(Keyword::Loc) else {
        let needs = factory.flags.contains(FactoryFlags::LOC_MEM)
            && !factory.flags.intersects(FactoryFlags::LOC_PCI | FactoryFlags::IMPLICIT);
        if needs {
            let message = format!("`vdev {}` needs a `loc`", factory.name);
            reader.error(statement.span, message, "as in `loc 0x1c090000`");
        }
        return None;
    };
    let span = setting.value_span();
    match setting.value() {
        _ if factory.flags.contains(FactoryFlags::LOC_FORBIDDEN) => {
            reader.error(span, format!("`vdev {}` has no registers to be placed by `loc`", factory.name), "");
            None
        }
        Value::Place(Place::Memory(address)) => Some(Ipa(*address)),
        Value::Place(Place::Port(_)) => {
            reader.error(span, "`io:` is for x86 machines", "an Arm machine has memory addresses only");
            None
        }
        Value::Place(Place::Pci) => {
            reader.error(span, "`pci:`: known, not supported yet", "");
            None
        }
        _ => None,
    }
}

fn interrupt(
    reader: &mut Reader<'_>,
    factory: &Factory,
    statement: &Statement,
    controller: &str,
) -> Option<(IntId, Span)> {
    let Some(setting) = statement.setting(Keyword::Intr) else {
        if factory.flags.intersects(FactoryFlags::INTR_REQUIRED | FactoryFlags::INTR_UNLESS_PCI) {
            let message = format!("`vdev {}` needs an `intr`", factory.name);
            reader.error(statement.span, message, "as in `intr gic:37`");
        }
        return None;
    };
    let span = setting.value_span();
    if factory.flags.contains(FactoryFlags::INTR_FORBIDDEN) {
        reader.error(span, format!("`vdev {}` raises no interrupt", factory.name), "");
        return None;
    }
    let Value::Interrupt(Interrupt { controller: named, line }) = setting.value() else { return None };
    if named != controller {
        let hint = match nearest(named, [controller]) {
            Some(near) => format!("did you mean `{near}:{line}`?"),
            None => format!("the interrupt controller is called `{controller}`, as in `{controller}:{line}`"),
        };
        reader.error(span, format!("there is no interrupt controller `{named}` before this"), &hint);
        return None;
    }
    let intid = IntId(*line);
    if !intid.is_spi() {
        let message = format!("`{controller}:{line}` is no shared interrupt");
        reader.error(span, message, "lines are INTIDs, 32 to 1019: SPI n is n + 32");
        return None;
    }
    Some((intid, span))
}
