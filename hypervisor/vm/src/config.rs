//! From a parsed configuration to the description of a VM.
//!
//! Answers for: what the options of the language mean, and all that can be found wrong with them without looking at files
//! or making devices: memory that is not whole pages, two things at one address, controllers nobody has, interrupts and
//! names used twice, CPUs the host does not have. Does not answer for: the language (`qvmconf`), images and how many
//! address bits there are (`load`, `assemble`), whose errors it gives their place in the text ([`Spans::diagnostic`]).
//!
//! Everything that is wrong is reported in one go. Facts 1.5 to 1.10 and 2.2.

mod addresses;
mod assign;
mod controller;
mod cpus;
mod groups;
mod memory;
mod on_exit;
mod pass;
mod pci;
mod rest;
mod vdevs;

use crate::Files;
use crate::assemble::{AssembleError, Description, Subject};
use crate::load::{BlobKind, Load};
use crate::policy::{Action, Unsupported};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use qvmconf::words::Keyword;
use qvmconf::{
    Diagnostic, Diagnostics, Document, LogFilters, SourceId, Sources, Span, Statement, Value, VdevOption, VdevWords,
    Vocabulary,
};
use types::Ipa;
use vdev::{Factory, OptionStatus};

use addresses::Claim;
use memory::Memory;
use vdevs::Vdevs;

pub use cpus::{CpuConfig, CpuPolicy};
pub use groups::{GroupError, Groups, SYSTEM_PARTITION};
pub use on_exit::{OnExit, Then, When};

/// Longest name of a VM: it stands in front of every line it prints.
const MAX_NAME: usize = 32;

/// The variable that says where the device tree goes.
const TREE_AT: &str = "fdt-address";

/// What a VM is called that neither says so nor has a file with a name.
const NAMELESS: &str = "vm";

/// What a configuration is checked against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits<'a> {
    /// How many CPUs the host has; `None` where it is not known, on a PC.
    pub cpus: Option<usize>,
    /// Its clusters and adaptive partitions; `None` where they are not known.
    pub groups: Option<&'a Groups>,
}

/// A configuration that makes sense as far as can be said without its files.
#[derive(Debug)]
pub struct Configuration {
    /// The machine.
    pub description: Description,
    /// How each vCPU is scheduled; as many as [`Description::vcpus`].
    pub cpus: Vec<CpuConfig>,
    /// `set exit-on-halt`: WFI leaves the guest.
    pub exit_on_halt: bool,
    /// `logger`: which of the VM's messages are logged; `None` if the configuration leaves that to the host.
    pub messages: Option<Messages>,
    /// `log` of devices, by their names: which of their messages are logged.
    pub device_messages: Vec<(String, LogFilters)>,
    /// `on-exit`: whether it is started again when it has ended.
    pub on_exit: OnExit,
    /// `dryrun`: everything is checked, and nothing runs.
    pub dryrun: bool,
    /// `dump`: where a dump of the guest goes.
    pub dump: Option<String>,
    /// Where it all stands.
    pub spans: Spans,
}

/// Where the messages about a VM go (`docs/qvmconf.md`, "Log"). Those of type `fatal` and `internal` are no matter of choice: what becomes
/// of a VM is told by the last line about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// To the console, and kept.
    pub console: LogFilters,
    /// Kept for `slog2info`.
    pub slog: LogFilters,
}

/// Where in the text the parts of a [`Description`] stand, by the same indices.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    ram: Vec<Span>,
    rom: Vec<Span>,
    loads: Vec<Span>,
    entry: Option<Span>,
    tree: Option<Span>,
    vdevs: Vec<Span>,
    gic: Option<Span>,
}

impl Spans {
    fn of(&self, subject: Subject) -> Option<Span> {
        match subject {
            Subject::Vm => None,
            Subject::Ram(index) => self.ram.get(index).copied(),
            Subject::Rom(index) => self.rom.get(index).copied(),
            Subject::Load(index) => self.loads.get(index).copied(),
            Subject::Entry => self.entry,
            Subject::Tree => self.tree,
            Subject::Vdev(index) => self.vdevs.get(index).copied(),
            Subject::InterruptController => self.gic,
        }
    }

    /// An error of assembly at its place in the text.
    pub fn diagnostic(&self, error: &AssembleError) -> Diagnostic {
        let place = error.place.and_then(span_of).or_else(|| self.of(error.subject));
        let mut diagnostic = match place {
            Some(span) => Diagnostic::error(span, error.message.clone()),
            None => Diagnostic::error_nowhere(error.message.clone()),
        };
        if let Some(hint) = error.hint {
            diagnostic = diagnostic.hint(hint);
        }
        match error.other.and_then(|other| self.of(other)) {
            Some(other) => diagnostic.note(other, "the other one"),
            None => diagnostic,
        }
    }
}

fn span_of(place: vdev::Place) -> Option<Span> {
    let source = SourceId::from_u32(place.source)?;
    Some(Span { source, start: place.start, end: place.end })
}

fn place_of(span: Span) -> vdev::Place {
    vdev::Place { source: span.source.as_u32(), start: span.start, end: span.end }
}

/// The words of these vdevs, for the parser.
#[must_use]
pub fn vocabulary(factories: &[&'static Factory]) -> Vocabulary {
    let option = |spec: &'static vdev::OptionSpec| VdevOption {
        name: spec.name,
        takes_argument: spec.takes_argument(),
        repeatable: spec.repeatable,
    };
    let supported = |spec: &&'static vdev::OptionSpec| spec.status == OptionStatus::Supported;
    let words = |factory: &&'static Factory| VdevWords {
        name: factory.name,
        options: factory.options.iter().filter(supported).map(option).collect(),
    };
    Vocabulary { vdevs: factories.iter().map(words).collect() }
}

/// Included files come from where images come from.
pub struct Includes<'a>(pub &'a dyn Files);

impl core::fmt::Debug for Includes<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Includes")
    }
}

impl qvmconf::Loader for Includes<'_> {
    fn load(&mut self, path: &str) -> Option<Vec<u8>> {
        self.0.file(path).map(<[u8]>::to_vec)
    }
}

/// Gives a parsed configuration its meaning. Warnings of the document and of this stay in the list that is returned with
/// either outcome.
///
/// # Errors
/// Everything that is wrong, the parser's findings among it, in the order of the text.
pub fn build(
    document: &Document,
    sources: &Sources,
    factories: &[&'static Factory],
    limits: Limits<'_>,
) -> Result<(Configuration, Diagnostics), Diagnostics> {
    let mut reader = Reader { document, sources, diagnostics: document.diagnostics.clone() };
    let name = reader.name();
    let memory = memory::read(&mut reader);
    let (loads, load_spans) = reader.loads();
    let cpus = cpus::read(&mut reader, limits);
    let mut vdevs = vdevs::read(&mut reader, factories);
    let reserved = core::mem::take(&mut vdevs.reserved);
    let mut taken = assign::assign(&mut reader, &mut vdevs, &memory, &reserved, cpus.len());
    let pci = pci::settle(&mut reader, &mut vdevs, factories, &mut taken);
    let rests = rest::read(&mut reader, &vdevs);
    reader.addresses(&memory, &mut vdevs, cpus.len());
    let description = Description {
        name,
        ram: memory.ram,
        rom: memory.rom,
        reserved: memory.reserved,
        reserved_interrupts: reserved,
        vcpus: cpus.len(),
        loads,
        cmdline: reader.last(Keyword::Cmdline).map(Statement::value).and_then(text),
        entry: reader.last(Keyword::Entry).and_then(|statement| number(statement.value())).map(Ipa),
        controller: vdevs.controller,
        tree_at: reader.variable(TREE_AT).and_then(number).map(Ipa),
        vdevs: vdevs.list,
        passed: vdevs.passed,
        functions: vdevs.functions,
        rests,
        pci,
        policy: reader.policy(),
        monitors: !matches!(reader.variable("pmu"), Some(Value::Boolean(false))),
        counter_offset: reader.variable("counter-offset").and_then(number).filter(|offset| *offset != u64::MAX),
    };
    let exit_on_halt = !matches!(reader.variable("exit-on-halt"), Some(Value::Boolean(false)));
    let messages = reader.messages();
    let on_exit = reader.on_exit();
    let dryrun = reader.last(Keyword::Dryrun).is_some();
    let dump = reader.dump();
    reader.diagnostics.sort();
    if reader.diagnostics.has_errors() {
        return Err(reader.diagnostics);
    }
    let spans = Spans {
        ram: memory.ram_spans,
        rom: memory.rom_spans,
        loads: load_spans,
        entry: reader.last(Keyword::Entry).map(Statement::value_span),
        tree: reader.set(TREE_AT).map(|value| value.span),
        vdevs: vdevs.spans,
        gic: vdevs.gic,
    };
    let device_messages = vdevs.messages;
    Ok((
        Configuration { description, cpus, exit_on_halt, messages, device_messages, on_exit, dryrun, dump, spans },
        reader.diagnostics,
    ))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

/// The statements, and what is found wrong with them.
struct Reader<'a> {
    document: &'a Document,
    sources: &'a Sources,
    diagnostics: Diagnostics,
}

impl<'a> Reader<'a> {
    fn all(&self, keyword: Keyword) -> impl Iterator<Item = &'a Statement> + use<'a> {
        self.document.statements.iter().filter(move |statement| statement.keyword == keyword)
    }

    fn last(&self, keyword: Keyword) -> Option<&'a Statement> {
        self.all(keyword).last()
    }

    fn error(&mut self, span: Span, message: impl Into<String>, hint: &str) {
        let diagnostic = Diagnostic::error(span, message);
        self.diagnostics.push(if hint.is_empty() { diagnostic } else { diagnostic.hint(hint) });
    }

    /// An error between two parties.
    fn conflict(&mut self, span: Span, message: impl Into<String>, other: Span, note: &str) {
        self.diagnostics.push(Diagnostic::error(span, message).note(other, note));
    }

    fn variable(&self, name: &str) -> Option<&'a Value> {
        self.set(name).map(|argument| &argument.value)
    }

    /// What a variable is set to.
    fn set(&self, name: &str) -> Option<&'a qvmconf::Argument> {
        let named = |statement: &&Statement| statement.arguments.first().is_some_and(|first| first.text == name);
        self.all(Keyword::Set).find(named)?.arguments.get(1)
    }

    fn name(&mut self) -> String {
        if let Some(statement) = self.last(Keyword::System)
            && let Some(name) = text(statement.value()).filter(|name| !is_name(name))
        {
            let message = format!("`{name}` cannot name a VM");
            let hint = format!("up to {MAX_NAME} letters, digits, `-`, `_` and `.`");
            self.error(statement.value_span(), message, &hint);
        }
        name_of(self.document)
    }

    /// Sees that no two things are at one address.
    fn addresses(&mut self, memory: &Memory, vdevs: &mut Vdevs, vcpus: usize) {
        let ram = memory.ram.iter().zip(&memory.ram_spans).map(|(range, span)| ("`ram`", Some(*range), Some(*span)));
        let rom = memory.rom.iter().zip(&memory.rom_spans).map(|(range, span)| ("`rom`", Some(*range), Some(*span)));
        let frames = vdevs.controller.claims(vcpus).map(|(what, range)| (what, range, vdevs.gic));
        let claims = ram.chain(rom).chain(frames).filter_map(|(what, range, span)| {
            // One that runs over the end of the address space is `assemble`'s to report: it is beyond the host's bits.
            Some(Claim { what: what.to_string(), range: range?, span })
        });
        let claims = claims.chain(vdevs.claims.drain(..)).collect();
        let reserved: Vec<_> = memory.reserved.iter().copied().zip(memory.reserved_spans.iter().copied()).collect();
        addresses::check(self, claims, &reserved);
    }

    fn loads(&mut self) -> (Vec<Load>, Vec<Span>) {
        let (mut loads, mut spans) = (Vec::new(), Vec::new());
        for statement in self.all(Keyword::Load) {
            let Value::File { address, path } = statement.value() else { continue };
            let folder = self.sources.get(statement.value_span().source).map_or("", |source| source.folder());
            let path = match qvmconf::resolve(folder, path) {
                Ok(path) => path,
                Err(error) => {
                    self.error(statement.value_span(), format!("`{path}`: {error}"), "");
                    continue;
                }
            };
            let kind = match statement.prefix {
                Some(Keyword::Guest) => BlobKind::Guest,
                Some(Keyword::Data) => BlobKind::Data,
                Some(Keyword::Initrd) => BlobKind::Initrd,
                Some(Keyword::Fdt) => BlobKind::Fdt,
                _ => BlobKind::Detect,
            };
            loads.push(Load { kind, address: address.map(Ipa), path });
            spans.push(statement.value_span());
        }
        (loads, spans)
    }

    fn policy(&self) -> Unsupported {
        let mut policy = Unsupported::default();
        for statement in self.all(Keyword::Unsupported) {
            let choice = |index: usize| match statement.arguments.get(index).map(|argument| &argument.value) {
                Some(Value::Choice(word)) => Some(*word),
                _ => None,
            };
            let action = match choice(1) {
                Some("abort") => Action::Abort,
                Some("fail") => Action::Fail,
                Some("ignore") => Action::Ignore,
                _ => continue,
            };
            match choice(0) {
                Some("instruction") => policy.instruction = action,
                Some("reference") => policy.reference = action,
                Some("register") => policy.register = action,
                _ => {}
            }
        }
        policy
    }

    fn on_exit(&mut self) -> OnExit {
        let Some(statement) = self.last(Keyword::OnExit) else { return OnExit::default() };
        on_exit::read(&text(statement.value()).unwrap_or_default()).unwrap_or_else(|message| {
            let hint = "as in never, on-failure, always,5/60 or on-failure,5/60,reset";
            self.error(statement.value_span(), message, hint);
            OnExit::default()
        })
    }

    /// QNX: `|COMMAND` there is a program that gets the dump.
    fn dump(&mut self) -> Option<String> {
        let statement = self.last(Keyword::Dump)?;
        let folder = text(statement.value())?;
        if folder.starts_with('|') {
            let hint = "name a folder for files in RAM, as in `dump dumps`; they are packed anyway";
            self.error(statement.value_span(), "there are no commands here", hint);
        }
        Some(folder)
    }

    /// QNX: `stdout` and `stderr` are one here, the console. Any destination but `none` replaces the default; `none` takes
    /// away from what goes to the console.
    fn messages(&self) -> Option<Messages> {
        let [mut console, mut slog, mut none] = [None::<LogFilters>; 3];
        for statement in self.all(Keyword::Logger) {
            let argument = |index: usize| statement.arguments.get(index).map(|argument| &argument.value);
            let (Some(Value::Filters(filters)), Some(Value::Choice(to))) = (argument(0), argument(1)) else { continue };
            let into = match *to {
                "none" => &mut none,
                "slog" => &mut slog,
                _ => &mut console,
            };
            *into = Some(into.map_or(*filters, |before| before.union(*filters)));
        }
        if console.is_none() && slog.is_none() {
            none?;
            console = Some(LogFilters::DEFAULT);
        }
        let console = console.unwrap_or_default().without(none.unwrap_or_default());
        Some(Messages { console, slog: slog.unwrap_or_default() })
    }
}

/// What a VM is called, even if nothing else can be made of its configuration: what `system` says, or what its file is
/// called.
#[must_use]
pub fn name_of(document: &Document) -> String {
    let mut systems = document.statements.iter().filter(|statement| statement.keyword == Keyword::System);
    if let Some(name) = systems.next_back().and_then(|statement| text(statement.value())).filter(|name| is_name(name)) {
        return name;
    }
    let stem = document.stem.as_deref().unwrap_or_default();
    let name: String = stem.chars().filter(|c| is_name_character(*c)).take(MAX_NAME).collect();
    if name.is_empty() { NAMELESS.to_string() } else { name }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(is_name_character)
}

/// What names consist of: they stand in front of lines, in paths and in messages.
fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests;
