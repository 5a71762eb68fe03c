//! `vdev`: which devices, where, with which interrupt.
//!
//! The interrupt controller is apart: it is in every VM, and naming it only changes its options.

use super::addresses::Claim;
use super::{Reader, controller, is_name_character, pass, pci, place_of, span_of};
use crate::assemble::{PassedDevice, PassedFunction, PciBus, Schedule, VdevDescription};
use crate::controller::Controller;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{
    Diagnostic, Interrupt, LogFilters, PciFunction, Place, Scheduling, SchedulingPolicy, Setting, SettingName, Sources,
    Span, Statement, Value, nearest,
};
use types::{IntId, Ipa, Range};
use vdev::{Factory, FactoryFlags, Given, Numbers, OptionError, Options, Safety};

/// Most devices of one VM.
const MAX_VDEVS: usize = 256;

/// The interrupt controller when nobody names it.
const IMPLICIT_CONTROLLER: &str = "gic";

/// What the bus wants of the address of a device: no register is split by it.
const REGISTER_ALIGNMENT: u64 = 8;

pub(super) struct Vdevs {
    pub(super) list: Vec<VdevDescription>,
    pub(super) spans: Vec<Span>,
    pub(super) controller: Controller,
    pub(super) gic: Option<Span>,
    /// Where its frame for messages is asked for.
    pub(super) frame: Option<Span>,
    /// `log`, by device.
    pub(super) messages: Vec<(String, LogFilters)>,
    /// `reserve intr`.
    pub(super) reserved: Vec<IntId>,
    /// Devices that have addresses.
    pub(super) claims: Vec<Claim>,
    /// `pass`.
    pub(super) passed: Vec<PassedDevice>,
    /// Those that are functions of PCI.
    pub(super) functions: Vec<PassedFunction>,
    pub(super) pci: pci::Bus,
}

impl Vdevs {
    /// No devices but the interrupt controller that is always there.
    const fn none() -> Self {
        Self {
            list: Vec::new(),
            spans: Vec::new(),
            controller: Controller::DEFAULT,
            gic: None,
            frame: None,
            messages: Vec::new(),
            reserved: Vec::new(),
            claims: Vec::new(),
            passed: Vec::new(),
            functions: Vec::new(),
            pci: pci::Bus::NONE,
        }
    }
}

/// Where a device is to be.
enum Where {
    /// At an address, or where there is room, or nowhere.
    Memory(Option<Ipa>),
    /// On the PCI bus, and where on it, and where that is said.
    Pci(Option<PciFunction>, Span),
}

/// What the interrupt controller of the VM is called.
struct Named {
    name: String,
    /// The place of its `vdev`, and which of them it is; `None` if nobody named it.
    named: Option<(usize, Span)>,
}

/// Numbers and paths as the language writes them.
struct Language<'a>(&'a Sources);

impl Numbers for Language<'_> {
    fn number(&self, text: &str) -> Result<u64, String> {
        qvmconf::number(text).map_err(|error| error.to_string())
    }
    fn size(&self, text: &str) -> Result<u64, String> {
        qvmconf::size(text).map_err(|error| error.to_string())
    }
    fn path(&self, text: &str, place: Option<vdev::Place>) -> Result<String, String> {
        let source = place.and_then(span_of).and_then(|span| self.0.get(span.source));
        qvmconf::resolve(source.map_or("", |source| source.folder()), text).map_err(|error| error.to_string())
    }
}

pub(super) fn read(reader: &mut Reader<'_>, factories: &[&'static Factory]) -> Vdevs {
    let mut vdevs = Vdevs::none();
    let known: Vec<(usize, &Statement, &'static Factory)> = reader
        .all(Keyword::Vdev)
        .enumerate()
        .filter_map(|(index, statement)| Some((index, statement, factory_of(factories, statement)?)))
        .collect();
    let names = Names::read(reader, &known);
    let named = the_controller(reader, &known, &names);
    refuse_twins(reader, &known, &names);
    let mut interrupts: Vec<(IntId, Span)> = Vec::new();
    for &(index, statement, factory) in &known {
        refuse_unqualified(reader, factory, statement);
        let options = options(reader, factory, statement);
        let (location, on_bus) = match location(reader, factory, statement) {
            Where::Memory(location) => (location, None),
            Where::Pci(function, span) => (None, Some((function, span))),
        };
        let interrupt = interrupt(reader, factory, (index, statement), on_bus.is_some(), &named);
        let Some(options) = options else { continue };
        if factory.flags.contains(FactoryFlags::PIC) {
            if named.named.is_some_and(|(named, _)| named == index) {
                controller::place(reader, &mut vdevs, statement, location, &options);
            }
            continue;
        }
        let is_host = factory.flags.contains(FactoryFlags::PCI_HOST);
        note_lines(reader, factory, interrupt, &mut interrupts);
        if vdevs.list.len() >= MAX_VDEVS {
            reader.error(statement.span, format!("more than {MAX_VDEVS} devices"), "");
            break;
        }
        let name = names.of(index, factory.name, &vdevs.list);
        let span = statement.span.to(statement.value_span());
        if let Some(range) = location.and_then(|at| region(reader, factory, at, statement)) {
            vdevs.claims.push(Claim { what: names.shown(index, factory.name), range, span: Some(span) });
        }
        if let Some(Value::Filters(filters)) = statement.setting(Keyword::Log).map(Setting::value) {
            vdevs.messages.push((name.clone(), *filters));
        }
        let reports = !matches!(statement.variable("debug").map(Setting::value), Some(Value::Boolean(false)));
        let schedule = schedule(reader, statement);
        let index = vdevs.list.len();
        if is_host {
            pci::read_host(reader, &mut vdevs, (index, span), (statement, &options), (location, interrupt));
        }
        if let Some((function, span)) = on_bus {
            vdevs.pci.functions.push((index, function, span));
        }
        // Its pin is not among the lines of the host bridge.
        let interrupt = interrupt.filter(|_| !is_host).map(|(intid, _)| intid);
        // Known when all are.
        let slot = None;
        vdevs.list.push(VdevDescription { factory, name, location, slot, interrupt, schedule, reports, options });
        vdevs.spans.push(span);
    }
    let passed = pass::read(reader, &Line(&named), &interrupts);
    interrupts.extend(passed.interrupts);
    vdevs.claims.extend(passed.claims);
    vdevs.passed = passed.devices;
    passed.functions.iter().for_each(|function| add_function(&mut vdevs, function, &names));
    vdevs.reserved = reserved_interrupts(reader, &named, &interrupts);
    controller::keep_messages_apart(reader, &mut vdevs, &interrupts);
    vdevs
}

/// A function of the machine is a device of the guest's bus, like others.
fn add_function(vdevs: &mut Vdevs, function: &pass::Function, names: &Names) {
    let factory = &::pci::PASSED;
    let pass::Function { slot, wanted, without_reset, reach, span } = *function;
    let index = vdevs.list.len();
    vdevs.functions.push(PassedFunction { vdev: index, wanted, without_reset, reach, place: Some(place_of(span)) });
    vdevs.pci.functions.push((index, slot, span));
    vdevs.spans.push(span);
    vdevs.list.push(VdevDescription {
        factory,
        name: names.of(usize::MAX, factory.name, &vdevs.list),
        location: None,
        slot: None,
        interrupt: None,
        schedule: None,
        reports: true,
        options: Options::default(),
    });
}

/// The lines that a device has by its `intr`: one, or those of the PCI bus. Another's among them is worth a word.
fn note_lines(
    reader: &mut Reader<'_>,
    factory: &Factory,
    interrupt: Option<(IntId, Span)>,
    known: &mut Vec<(IntId, Span)>,
) {
    let Some((first, span)) = interrupt else { return };
    let count = if factory.flags.contains(FactoryFlags::PCI_HOST) { PciBus::LINES } else { 1 };
    for intid in (0..count).map(|line| IntId(first.0.saturating_add(line))) {
        if let Some((_, other)) = known.iter().find(|(used, _)| *used == intid) {
            let warning =
                Diagnostic::warning(span, format!("`vdev {}`: interrupt {} is shared", factory.name, intid.0));
            reader.diagnostics.push(warning.note(*other, "also used here"));
        }
        known.push((intid, span));
    }
}

/// `safety`: no vdev is part of the VM that is not of that class.
fn refuse_unqualified(reader: &mut Reader<'_>, factory: &Factory, statement: &Statement) {
    if let (Some(safety), Safety::Unqualified) = (reader.last(Keyword::Safety), factory.safety) {
        let message =
            format!("`vdev {}` is not `{}`", factory.name, safety.arguments.first().map_or("", |it| &it.text));
        let span = safety.span.to(safety.value_span());
        reader.conflict(statement.span.to(statement.value_span()), message, span, "which this asks for");
    }
}

/// No two devices of a kind have the same where that is what they are known by ([`vdev::OptionSpec::unique`]); and a device of the machine is
/// behind one SMMU.
fn refuse_twins(reader: &mut Reader<'_>, known: &[(usize, &Statement, &'static Factory)], names: &Names) {
    let mut smmus = known.iter().filter(|(.., factory)| factory.flags.contains(FactoryFlags::SMMU));
    if let Some((_, first, _)) = smmus.next() {
        smmus.for_each(|(_, other, _)| reader.conflict(other.span, "a second SMMU", first.span, "the first one"));
    }
    let mut seen: Vec<(&str, &str, &str, Span, String)> = Vec::new();
    for (index, statement, factory) in known {
        for spec in factory.options.iter().filter(|spec| spec.unique) {
            let given = statement.settings.iter().rev().find(|setting| setting.name == SettingName::Vdev(spec.name));
            let Some(argument) = given.and_then(|setting| setting.argument.as_ref()) else { continue };
            let (text, own) = (argument.text.as_str(), names.shown(*index, factory.name));
            let is_same = |(kind, option, other, ..): &&(&str, &str, &str, _, _)| {
                (*kind, *option, *other) == (factory.name, spec.name, text)
            };
            if let Some((.., span, other)) = seen.iter().find(is_same) {
                let message = format!("{own} and {other} have the same `{}`, `{text}`", spec.name);
                reader.conflict(argument.span, message, *span, "the other one");
            }
            seen.push((factory.name, spec.name, text, argument.span, own));
        }
    }
}

/// `sched`: how threads are scheduled that work for the device.
fn schedule(reader: &mut Reader<'_>, statement: &Statement) -> Option<Schedule> {
    let setting = statement.setting(Keyword::Sched)?;
    let Value::Scheduling(Scheduling { priority, policy }) = setting.value() else { return None };
    if let SchedulingPolicy::Sporadic(_) = policy {
        reader.error(setting.value_span(), "a vdev's threads have no budget", "as in `sched 30` or `sched 30f`");
    }
    Some(Schedule { priority: *priority, fifo: matches!(policy, SchedulingPolicy::Fifo) })
}

fn factory_of(factories: &[&'static Factory], statement: &Statement) -> Option<&'static Factory> {
    let Value::Text(kind) = statement.value() else { return None };
    factories.iter().find(|factory| factory.name == kind).copied()
}

/// The one interrupt controller that there is.
fn the_controller(reader: &mut Reader<'_>, known: &[(usize, &Statement, &'static Factory)], names: &Names) -> Named {
    let mut controller = Named { name: IMPLICIT_CONTROLLER.to_string(), named: None };
    for &(index, statement, factory) in known.iter().filter(|(_, _, factory)| factory.flags.contains(FactoryFlags::PIC))
    {
        match controller.named {
            Some((_, first)) => {
                reader.conflict(statement.span, "a second interrupt controller", first, "the first one");
            }
            None => {
                let name = names.explicit(index).unwrap_or(factory.name).to_string();
                controller = Named { name, named: Some((index, statement.span)) };
            }
        }
    }
    controller
}

/// Where the registers of a device are.
fn region(reader: &mut Reader<'_>, factory: &Factory, at: Ipa, statement: &Statement) -> Option<Range<Ipa>> {
    let span = statement.setting(Keyword::Loc).map_or(statement.span, Setting::value_span);
    if !at.is_aligned(REGISTER_ALIGNMENT) {
        reader.error(span, format!("no device can be at {at}"), "addresses of devices are multiples of 8");
        return None;
    }
    let range = Range::new(at, factory.region_size);
    if range.is_none() {
        reader.error(span, format!("`vdev {}` at {at} runs over the end of the address space", factory.name), "");
    }
    range
}

/// `reserve intr`: interrupts that neither a device that does not ask for them nor messages are given.
fn reserved_interrupts(reader: &mut Reader<'_>, controller: &Named, used: &[(IntId, Span)]) -> Vec<IntId> {
    let mut reserved = Vec::new();
    for statement in reader.all(Keyword::Reserve) {
        let intr = |setting: &&Setting| setting.name == SettingName::Keyword(Keyword::Intr);
        for setting in statement.settings.iter().filter(intr) {
            let Value::Interrupt(interrupt) = setting.value() else { continue };
            let span = setting.value_span();
            let Some(intid) = line(reader, interrupt, span, controller, None) else { continue };
            if let Some((_, user)) = used.iter().find(|(used, _)| *used == intid) {
                let warning = Diagnostic::warning(*user, format!("interrupt {} is reserved", intid.0));
                reader.diagnostics.push(warning.note(span, "reserved here"));
            }
            reserved.push(intid);
        }
    }
    reserved
}

/// The device's own options, checked against its factory.
fn options(reader: &mut Reader<'_>, factory: &'static Factory, statement: &Statement) -> Option<Options> {
    let own = |setting: &'_ Setting| match setting.name {
        SettingName::Vdev(name) => Some(name),
        SettingName::Keyword(_) | SettingName::Variable(_) => None,
    };
    let given = statement.settings.iter().filter_map(|setting| {
        let name = own(setting)?;
        let argument = setting.argument.as_ref().map(|argument| argument.text.as_str());
        Some(Given { name, argument, place: place_of(setting.value_span()) })
    });
    match Options::parse(factory.options, given, &Language(reader.sources)) {
        Ok(options) => Some(options),
        Err(errors) => {
            for OptionError { place, message, .. } in errors {
                let span = place.and_then(span_of).unwrap_or(statement.span);
                reader.error(span, format!("`vdev {}`: {message}", factory.name), "");
            }
            None
        }
    }
}

/// What the devices are called that say so, by the index of their `vdev`.
struct Names(Vec<(usize, String)>);

impl Names {
    fn read(reader: &mut Reader<'_>, known: &[(usize, &Statement, &'static Factory)]) -> Self {
        let mut names: Vec<(usize, String, Span)> = Vec::new();
        for (index, statement, _) in known {
            let Some(setting) = statement.setting(Keyword::Name) else { continue };
            let (Value::Text(name), span) = (setting.value(), setting.value_span()) else { continue };
            // QNX: a colon is allowed too, though nobody can refer to such an interrupt controller.
            if name.is_empty() || !name.chars().all(|c| is_name_character(c) || matches!(c, '/' | ':')) {
                let hint = "letters, digits, `-`, `_`, `.`, `:` and `/`";
                reader.error(span, format!("`{name}` cannot name a device"), hint);
            } else if let Some((_, _, other)) = names.iter().find(|(_, taken, _)| taken == name) {
                reader.conflict(span, format!("two devices are called `{name}`"), *other, "the other one");
            } else {
                names.push((*index, name.clone(), span));
            }
        }
        Self(names.into_iter().map(|(index, name, _)| (index, name)).collect())
    }

    fn explicit(&self, index: usize) -> Option<&str> {
        self.0.iter().find(|(named, _)| *named == index).map(|(_, name)| name.as_str())
    }

    /// What messages call it.
    fn shown(&self, index: usize, kind: &str) -> String {
        match self.explicit(index) {
            Some(name) => format!("`vdev {kind} name {name}`"),
            None => format!("`vdev {kind}`"),
        }
    }

    /// Its name; devices of one kind that do not say are told apart by a number.
    fn of(&self, index: usize, kind: &str, list: &[VdevDescription]) -> String {
        if let Some(name) = self.explicit(index) {
            return name.to_string();
        }
        let taken = |candidate: &str| {
            self.0.iter().any(|(_, name)| name == candidate) || list.iter().any(|vdev| vdev.name == candidate)
        };
        if !taken(kind) {
            return kind.to_string();
        }
        let numbered = (2..=MAX_VDEVS.saturating_mul(2)).map(|n| format!("{kind}-{n}"));
        numbered.into_iter().find(|candidate| !taken(candidate)).unwrap_or_default()
    }
}

fn location(reader: &mut Reader<'_>, factory: &Factory, statement: &Statement) -> Where {
    let flags = factory.flags;
    let Some(setting) = statement.setting(Keyword::Loc) else {
        if flags.contains(FactoryFlags::LOC_PCI) && factory.default_location.is_none() {
            return Where::Pci(None, statement.span.to(statement.value_span()));
        }
        let found = FactoryFlags::IMPLICIT | FactoryFlags::ASSIGN | FactoryFlags::PCI_HOST;
        let needs = factory.default_location.is_none() && flags.contains(FactoryFlags::LOC_MEM);
        if needs && !flags.intersects(found) {
            let message = format!("`vdev {}` needs a `loc`", factory.name);
            reader.error(statement.span, message, "as in `loc 0x1c090000`");
        }
        return Where::Memory(factory.default_location);
    };
    let span = setting.value_span();
    let name = factory.name;
    match setting.value() {
        _ if flags.contains(FactoryFlags::LOC_FORBIDDEN) => {
            reader.error(span, format!("`vdev {name}` has no registers to be placed by `loc`"), "");
        }
        Value::Place(Place::Memory(address)) if flags.contains(FactoryFlags::LOC_MEM) => {
            return Where::Memory(Some(Ipa(*address)));
        }
        Value::Place(Place::Memory(_)) => {
            let hint = "leave `loc` out, or say where on the bus, as in `loc pci:3`";
            reader.error(span, format!("`vdev {name}` is on the PCI bus only"), hint);
        }
        Value::Place(Place::Port(_)) => {
            reader.error(span, "`io:` is for x86 machines", "an Arm machine has memory addresses only");
        }
        Value::Place(Place::Pci(function)) if flags.contains(FactoryFlags::LOC_PCI) => {
            return Where::Pci(*function, span);
        }
        Value::Place(Place::Pci(_)) => {
            reader.error(span, format!("`vdev {name}` is no device of the PCI bus"), "as in `loc 0x1c090000`");
        }
        _ => {}
    }
    Where::Memory(None)
}

fn interrupt(
    reader: &mut Reader<'_>,
    factory: &Factory,
    (index, statement): (usize, &Statement),
    is_on_bus: bool,
    controller: &Named,
) -> Option<(IntId, Span)> {
    let Some(setting) = statement.setting(Keyword::Intr) else {
        // A place that is none may have been one on the bus.
        let may_be_on_bus =
            is_on_bus || statement.setting(Keyword::Loc).is_some_and(|loc| matches!(loc.value(), Value::Invalid));
        let required = factory.flags.contains(FactoryFlags::INTR_REQUIRED) && !is_on_bus
            || factory.flags.contains(FactoryFlags::INTR_UNLESS_PCI) && !may_be_on_bus;
        if required && !factory.flags.contains(FactoryFlags::ASSIGN) {
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
    if is_on_bus {
        let message = format!("`vdev {}` is on the PCI bus, and has its interrupt from there", factory.name);
        reader.error(span, message, "leave `intr` out, or give it a place in memory, as in `loc 0x1c0d0000`");
        return None;
    }
    let Value::Interrupt(interrupt) = setting.value() else { return None };
    line(reader, interrupt, span, controller, Some((index, factory))).map(|intid| (intid, span))
}

/// Where the inputs of the guest's interrupt controller are looked up.
pub(super) struct Line<'a>(&'a Named);

impl Line<'_> {
    /// The INTID of an input that something which is no vdev has.
    pub(super) fn find(&self, reader: &mut Reader<'_>, interrupt: &Interrupt, span: Span) -> Option<IntId> {
        line(reader, interrupt, span, self.0, None)
    }
}

/// The INTID of a line of the interrupt controller, named by a `vdev`, which is that of this index, or by nobody's.
fn line(
    reader: &mut Reader<'_>,
    Interrupt { controller: named, line }: &Interrupt,
    span: Span,
    controller: &Named,
    user: Option<(usize, &Factory)>,
) -> Option<IntId> {
    let of = user.map_or(String::new(), |(_, factory)| format!("`vdev {}`: ", factory.name));
    if *named != controller.name {
        let Named { name, .. } = controller;
        let hint = match nearest(named, [name.as_str()]) {
            Some(near) => format!("did you mean `{near}:{line}`?"),
            None => format!("the interrupt controller is called `{name}`, as in `{name}:{line}`"),
        };
        reader.error(span, format!("{of}there is no interrupt controller `{named}`"), &hint);
        return None;
    }
    if let (Some((at, place)), Some((index, _))) = (controller.named, user)
        && at > index
    {
        let message = format!("{of}`{named}:{line}`: the interrupt controller stands before the devices that use it");
        reader.conflict(span, message, place, "it is here");
    }
    let intid = IntId(*line);
    if !intid.is_spi() {
        let message = format!("{of}`{named}:{line}` is no shared interrupt");
        reader.error(span, message, "lines are INTIDs, 32 to 1019: SPI n is n + 32");
        return None;
    }
    Some(intid)
}
