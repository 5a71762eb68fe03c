//! Options of a device: what a factory declares, and what a configuration gave.
//!
//! Answers for: turning words into checked values of the types that were declared, and the errors about them. Does not answer for:
//! the grammar around them or the way numbers are written (the configuration language's, handed in as [`Numbers`]), nor
//! for where a place in a file is ([`Place`] is carried, not understood).

mod host_device;
mod spec;

pub use host_device::{Direction, HostDevice};
pub use spec::{GENERAL_OPTIONS, OptionKind, OptionSpec, OptionStatus};

use crate::HostDisk;
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;
use types::Ipa;

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
    Numbers(Vec<u64>),
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

    /// All values of those of the options `names` that are [`OptionKind::Numbers`], in the order in which they were given: which one,
    /// its numbers, and where.
    pub fn numbers_in_order(
        &self,
        names: &[&'static str],
    ) -> impl Iterator<Item = (&'static str, &[u64], Option<Place>)> {
        self.entries.iter().filter_map(move |entry| match &entry.value {
            Value::Numbers(numbers) if names.contains(&entry.spec.name) => {
                Some((entry.spec.name, numbers.as_slice(), entry.place))
            }
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
        OptionKind::Numbers(form) => {
            let parsed: Result<Vec<u64>, String> = text.split(',').map(|number| numbers.number(number)).collect();
            let parsed = parsed.map_err(prefixed)?;
            match parsed.len() == form.split(',').count() {
                true => Ok(Value::Numbers(parsed)),
                false => Err(prefixed(format!("expected {form}"))),
            }
        }
        OptionKind::HostDevice => HostDevice::parse(text, place).map(Value::HostDevice).map_err(prefixed),
        OptionKind::Disk => HostDisk::parse(text, place, numbers).map(Value::Disk).map_err(prefixed),
    }
}

#[cfg(test)]
mod tests;
