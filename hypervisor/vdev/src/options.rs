//! Options of a device: what a factory declares, and what a configuration gave.
//!
//! Answers for: the types of options, turning words into checked values, and the errors about them. Does not answer for:
//! the grammar around them or the way numbers are written (the configuration language's, handed in as [`Numbers`]), nor
//! for where a place in a file is ([`Place`] is carried, not understood).

use crate::HostDisk;
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;
use types::Ipa;

/// An option that a factory understands. One list of these per factory parses, checks, documents and lists them.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The word.
    pub name: &'static str,
    /// What follows it.
    pub kind: OptionKind,
    /// Whether each occurrence counts; else the last one wins.
    pub repeatable: bool,
    /// Whether a device cannot do without it.
    pub required: bool,
    /// What it is worth when it is not there, written as in a configuration.
    pub default: Option<&'static str>,
    /// Whether no two devices of the kind may have the same in one VM: its user knows them by it.
    pub unique: bool,
    /// Whether it works yet.
    pub status: OptionStatus,
    /// What it does, one line.
    pub help: &'static str,
}

impl OptionSpec {
    /// An option that may come once and has no default.
    #[must_use]
    pub const fn new(name: &'static str, kind: OptionKind, help: &'static str) -> Self {
        let (repeatable, required, unique, default) = (false, false, false, None);
        Self { name, kind, repeatable, required, default, unique, status: OptionStatus::Supported, help }
    }

    /// The same, each occurrence counting.
    #[must_use]
    pub const fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// The same, and a device cannot do without it.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same, and no two devices of the kind have the same in one VM.
    #[must_use]
    pub const fn unique(self) -> Self {
        Self { unique: true, ..self }
    }

    /// The same, with a default, written as in a configuration.
    #[must_use]
    pub const fn default(self, text: &'static str) -> Self {
        Self { default: Some(text), ..self }
    }

    /// The same, known from the original but not implemented: giving it is an error.
    #[must_use]
    pub const fn not_yet(self) -> Self {
        Self { status: OptionStatus::NotYet, ..self }
    }

    /// Whether a word follows the option.
    #[must_use]
    pub const fn takes_argument(&self) -> bool {
        !matches!(self.kind, OptionKind::Flag)
    }
}

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// Nothing.
    Flag,
    /// A number, both limits included.
    Number {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A number of bytes.
    Size,
    /// A guest-physical address.
    Address,
    /// Any word.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A name and a number of bytes: `NAME,SIZE`.
    NamedSize,
    /// Addresses: `START,SIZE`.
    Region,
    /// A back end: `[<|>]NAME`, see [`HostDevice`].
    HostDevice,
    /// A disk: `[<]NAME`, see [`HostDisk`].
    Disk,
    /// A file of the boot archive. A device gets its path from the archive's root, for [`crate::Setup::file`].
    File,
    /// A directory of the boot archive, with all that is in it. A device gets its path from the archive's root, for
    /// [`crate::Setup::directory`]. It is never the whole archive, in which other VMs have their files too.
    Directory,
}

/// Whether an option works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionStatus {
    /// It does.
    Supported,
    /// The original has it, we do not yet: an error, never silence.
    NotYet,
}

/// Options that every `vdev` context takes, whatever the device. The configuration's reader handles them itself, by
/// [`crate::FactoryFlags`]; they are listed here for their arity and help.
pub const GENERAL_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("loc", OptionKind::Text, "where its registers are: [mem:]ADDRESS or pci:DEVICE[.FUNCTION]"),
    OptionSpec::new("intr", OptionKind::Text, "the interrupt it raises: CONTROLLER:LINE"),
    OptionSpec::new("name", OptionKind::Text, "what this device is called"),
    OptionSpec::new("sched", OptionKind::Text, "priority and policy of threads that work for it, as in 30 or 30f"),
    OptionSpec::new("log", OptionKind::Text, "which of its messages are kept, as in `error,warn`"),
    OptionSpec::new("set", OptionKind::Text, "`set debug off` keeps it out of status reports"),
];

/// Where in the configuration something was written: a source and a range of bytes in it. Whoever made it can turn it
/// into file, line and column; nobody here can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// Which source.
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// First byte behind.
    pub end: u32,
}

/// One option as it was given.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The option's word.
    pub name: &'a str,
    /// The word behind it, if the option takes one.
    pub argument: Option<&'a str>,
    /// Where: the argument if there is one, else the option.
    pub place: Place,
}

/// How numbers and paths are written in the configuration language. Errors say what is wrong, without repeating the text.
pub trait Numbers {
    /// A plain number.
    ///
    /// # Errors
    /// If it is not one, or does not fit 64 bits.
    fn number(&self, text: &str) -> Result<u64, String>;
    /// An address or a number of bytes, with the language's suffixes.
    ///
    /// # Errors
    /// If it is not one, or does not fit 64 bits.
    fn size(&self, text: &str) -> Result<u64, String>;
    /// The path, from the archive's root, of a file that is named at `place`; without other texts there are no folders.
    ///
    /// # Errors
    /// If it leads out of the archive.
    fn path(&self, text: &str, _place: Option<Place>) -> Result<String, String> {
        Ok(text.to_string())
    }
}

/// A back end as `hostdev` names it: `[<|>]NAME`. `<` is input only, `>` output only, neither is both; the name `-` is the
/// VM's console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Which way bytes go.
    pub direction: Direction,
    /// The name, without the sign. Never empty.
    pub name: String,
    /// Where it was written; `None` if it is a default.
    pub place: Option<Place>,
}

/// Which way bytes go through a back end, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest reads.
    Input,
    /// The guest writes.
    Output,
    /// Both.
    Both,
}

impl Direction {
    /// Whether the guest reads from it.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Input | Self::Both)
    }

    /// Whether the guest writes to it.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Output | Self::Both)
    }
}

impl HostDevice {
    /// The VM's own console, both ways.
    #[must_use]
    pub fn console() -> Self {
        Self { direction: Direction::Both, name: "-".to_string(), place: None }
    }

    /// Whether it is the VM's own console.
    #[must_use]
    pub fn is_console(&self) -> bool {
        self.name == "-"
    }

    /// What `[<|>]NAME` names, which was written at `place`.
    ///
    /// # Errors
    /// If there is no name: what is wrong, in words.
    pub fn parse(text: &str, place: Option<Place>) -> Result<Self, String> {
        let (direction, name) = match text.as_bytes().first() {
            Some(b'<') => (Direction::Input, text.get(1..)),
            Some(b'>') => (Direction::Output, text.get(1..)),
            _ => (Direction::Both, Some(text)),
        };
        match name {
            Some(name) if !name.is_empty() => Ok(Self { direction, name: name.to_string(), place }),
            _ => Err(format!("`{text}` names no back end: expected NAME, <NAME or >NAME")),
        }
    }
}

impl fmt::Display for HostDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.direction {
            Direction::Input => "<",
            Direction::Output => ">",
            Direction::Both => "",
        };
        write!(f, "{sign}{}", self.name)
    }
}

/// What is wrong with an option, or with a device as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// Which option, if it is about one.
    pub option: Option<&'static str>,
    /// Where it was given, if it was.
    pub place: Option<Place>,
    /// What is wrong, without the device's name: whoever reports it puts that in front.
    pub message: String,
}

impl OptionError {
    /// About the device as a whole.
    #[must_use]
    pub const fn general(message: String) -> Self {
        Self { option: None, place: None, message }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Flag,
    Number(u64),
    Text(String),
    Choice(&'static str),
    NamedSize(String, u64),
    Region(u64, u64),
    HostDevice(HostDevice),
    Disk(HostDisk),
}

#[derive(Clone, Debug)]
struct Entry {
    spec: &'static OptionSpec,
    value: Value,
    place: Option<Place>,
}

/// The options of one device, checked. Asking for an option under another type than its declaration's finds nothing.
#[derive(Clone, Debug, Default)]
pub struct Options {
    entries: Vec<Entry>,
}

impl Options {
    /// Checks `given` against `specs` and fills in defaults.
    ///
    /// # Errors
    /// Everything that is wrong, in the order it was given.
    pub fn parse<'a>(
        specs: &'static [OptionSpec],
        given: impl IntoIterator<Item = Given<'a>>,
        numbers: &dyn Numbers,
    ) -> Result<Self, Vec<OptionError>> {
        let mut options = Self::default();
        let mut errors = Vec::new();
        for option in given {
            match check(specs, &option, numbers) {
                Ok(entry) => options.add(entry),
                Err(error) => errors.push(error),
            }
        }
        for spec in specs {
            let wrong = errors.iter().any(|error| error.option == Some(spec.name));
            if wrong || options.has(spec.name) {
                continue;
            }
            let value = match spec.default {
                Some(text) => value(spec, Some(text), None, numbers),
                None if spec.required => Err(format!("option `{}` is missing", spec.name)),
                None => continue,
            };
            match value {
                Ok(value) => options.add(Entry { spec, value, place: None }),
                Err(message) => errors.push(OptionError { option: Some(spec.name), place: None, message }),
            }
        }
        if errors.is_empty() { Ok(options) } else { Err(errors) }
    }

    /// Whether the option was given (or has a default).
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// The value of a [`OptionKind::Number`].
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.first(name)? {
            Entry { spec: OptionSpec { kind: OptionKind::Number { .. }, .. }, value: Value::Number(n), .. } => Some(*n),
            _ => None,
        }
    }

    /// The value of a [`OptionKind::Size`], in bytes.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        match self.first(name)? {
            Entry { spec: OptionSpec { kind: OptionKind::Size, .. }, value: Value::Number(n), .. } => Some(*n),
            _ => None,
        }
    }

    /// The value of a [`OptionKind::Address`].
    #[must_use]
    pub fn address(&self, name: &str) -> Option<Ipa> {
        match self.first(name)? {
            Entry { spec: OptionSpec { kind: OptionKind::Address, .. }, value: Value::Number(n), .. } => Some(Ipa(*n)),
            _ => None,
        }
    }

    /// The value of a [`OptionKind::Text`], [`OptionKind::Choice`], [`OptionKind::File`] or [`OptionKind::Directory`].
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.first(name)?.value {
            Value::Text(text) => Some(text),
            Value::Choice(word) => Some(word),
            _ => None,
        }
    }

    /// All values of a repeatable [`OptionKind::Text`] or [`OptionKind::Choice`], in order.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.all(name).filter_map(|entry| match &entry.value {
            Value::Text(text) => Some(text.as_str()),
            Value::Choice(word) => Some(*word),
            _ => None,
        })
    }

    /// All values of a [`OptionKind::NamedSize`], in order: the name, and so many bytes.
    pub fn named_sizes(&self, name: &str) -> impl Iterator<Item = (&str, u64, Option<Place>)> {
        self.all(name).filter_map(|entry| match &entry.value {
            Value::NamedSize(name, size) => Some((name.as_str(), *size, entry.place)),
            _ => None,
        })
    }

    /// The value of a [`OptionKind::Disk`].
    #[must_use]
    pub fn disk(&self, name: &str) -> Option<&HostDisk> {
        match &self.first(name)?.value {
            Value::Disk(disk) => Some(disk),
            _ => None,
        }
    }

    /// All values of a [`OptionKind::Region`], in order: the start, and so many bytes.
    pub fn regions(&self, name: &str) -> impl Iterator<Item = (Ipa, u64, Option<Place>)> {
        self.all(name).filter_map(|entry| match entry.value {
            Value::Region(start, size) => Some((Ipa(start), size, entry.place)),
            _ => None,
        })
    }

    /// All values of a [`OptionKind::HostDevice`], in order.
    pub fn host_devices(&self, name: &str) -> impl Iterator<Item = &HostDevice> {
        self.all(name).filter_map(|entry| match &entry.value {
            Value::HostDevice(device) => Some(device),
            _ => None,
        })
    }

    /// Where the option was given; `None` for a default and for an option that is not there.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<Place> {
        self.first(name)?.place
    }

    /// An error about an option, at its place.
    #[must_use]
    pub fn error(&self, name: &'static str, message: String) -> OptionError {
        OptionError { option: Some(name), place: self.place(name), message }
    }

    fn add(&mut self, entry: Entry) {
        if !entry.spec.repeatable {
            self.entries.retain(|earlier| earlier.spec.name != entry.spec.name);
        }
        self.entries.push(entry);
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.spec.name == name)
    }

    fn first(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.spec.name == name)
    }
}

fn check(specs: &'static [OptionSpec], given: &Given<'_>, numbers: &dyn Numbers) -> Result<Entry, OptionError> {
    let place = Some(given.place);
    let Some(spec) = specs.iter().find(|spec| spec.name == given.name) else {
        return Err(OptionError { option: None, place, message: format!("unknown option `{}`", given.name) });
    };
    let fail = |message| OptionError { option: Some(spec.name), place, message };
    if spec.status == OptionStatus::NotYet {
        return Err(fail(format!("option `{}` is known, not supported yet", spec.name)));
    }
    let value = value(spec, given.argument, place, numbers).map_err(fail)?;
    Ok(Entry { spec, value, place })
}

fn value(
    spec: &OptionSpec,
    argument: Option<&str>,
    place: Option<Place>,
    numbers: &dyn Numbers,
) -> Result<Value, String> {
    let name = spec.name;
    if spec.kind == OptionKind::Flag {
        return match argument {
            None => Ok(Value::Flag),
            Some(_) => Err(format!("`{name}` takes no argument")),
        };
    }
    let Some(text) = argument else {
        return Err(format!("`{name}` needs an argument"));
    };
    let prefixed = |message: String| format!("`{name} {text}`: {message}");
    match spec.kind {
        OptionKind::Flag => Ok(Value::Flag),
        OptionKind::Number { min, max } => match numbers.number(text).map_err(prefixed)? {
            n if n < min || n > max => Err(prefixed(format!("must be from {min} to {max}"))),
            n => Ok(Value::Number(n)),
        },
        OptionKind::Size | OptionKind::Address => numbers.size(text).map(Value::Number).map_err(prefixed),
        OptionKind::Text => Ok(Value::Text(text.to_string())),
        OptionKind::File | OptionKind::Directory => numbers.path(text, place).map(Value::Text).map_err(prefixed),
        OptionKind::Choice(words) => match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Value::Choice(word)),
            None => Err(prefixed(format!("must be one of: {}", words.join(", ")))),
        },
        OptionKind::NamedSize => {
            let (name, size) = text.rsplit_once(',').ok_or_else(|| prefixed("expected NAME,SIZE".to_string()))?;
            numbers.size(size).map(|size| Value::NamedSize(name.to_string(), size)).map_err(prefixed)
        }
        OptionKind::Region => {
            let (start, size) = text.split_once(',').ok_or_else(|| prefixed("expected START,SIZE".to_string()))?;
            let start = numbers.size(start).map_err(prefixed)?;
            numbers.size(size).map(|size| Value::Region(start, size)).map_err(prefixed)
        }
        OptionKind::HostDevice => HostDevice::parse(text, place).map(Value::HostDevice).map_err(prefixed),
        OptionKind::Disk => HostDisk::parse(text, place, numbers).map(Value::Disk).map_err(prefixed),
    }
}

#[cfg(test)]
mod tests;
