//! Arguments: from text to what it says.
//!
//! Answers for: the spelling of each [`Shape`] of argument, and for messages that name the part that is wrong. Does not
//! answer for: whether the value makes sense in its VM.

use crate::number::{address, boolean, number, size};
use crate::words::Shape;
use crate::{NumberError, nearest};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

mod pass;

pub use pass::{PassAttributes, PassedInterrupt, PassedPlace, PciIdentity};

/// Most CPUs in one list; a list is no longer than any machine is wide.
const MAX_CPU_LIST: usize = 64;

/// What an argument says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// It is wrong, and that has been reported: do not report what follows from it.
    Invalid,
    /// Text as it is.
    Text(String),
    /// A stretch of guest-physical addresses in bytes.
    Region {
        /// First address; `None` leaves it to the reader.
        start: Option<u64>,
        /// Bytes.
        length: u64,
    },
    /// A file.
    File {
        /// Where it goes; `None` leaves it to the reader.
        address: Option<u64>,
        /// Its path as it was written.
        path: String,
    },
    /// An address, a size or a number.
    Number(u64),
    /// Yes or no.
    Boolean(bool),
    /// Where something is.
    Place(Place),
    /// An interrupt.
    Interrupt(Interrupt),
    /// How a thread is scheduled.
    Scheduling(Scheduling),
    /// Numbers of CPUs as they were written: neither sorted nor unique.
    Cpus(Vec<u16>),
    /// One of the words that the option takes.
    Choice(&'static str),
    /// Types of messages.
    Filters(LogFilters),
    /// What of the host a guest gets, and where.
    Passed(PassedPlace),
    /// An interrupt of the host that a guest gets.
    PassedInterrupt(PassedInterrupt),
}

/// An address in one of a guest's spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Guest-physical memory.
    Memory(u64),
    /// An x86 port.
    Port(u64),
    /// The virtual PCI bus: this function of it, or one that is free.
    Pci(Option<PciFunction>),
}

/// A function of the virtual PCI bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciFunction {
    /// 0 to 31.
    pub device: u8,
    /// 0 to 7.
    pub function: u8,
}

/// An input of an interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// The name of the controller.
    pub controller: String,
    /// Which input. For a GIC, the INTID.
    pub line: u32,
}

/// Priority and policy of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheduling {
    /// 1 to 255, higher is more urgent.
    pub priority: u8,
    /// The policy.
    pub policy: SchedulingPolicy,
}

/// What happens among threads of one priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SchedulingPolicy {
    /// They take turns (`r`).
    #[default]
    RoundRobin,
    /// Each runs until it gives up the CPU (`f`).
    Fifo,
    /// Reserved in the original (`o`), where it acts as round robin; so it does here.
    Other,
    /// At its own priority for so much time in each period, at a lower one otherwise (`s`).
    Sporadic(SporadicServer),
}

/// The numbers of a sporadic server, which fit together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SporadicServer {
    /// Its priority when it has no budget, 1 to 254.
    pub low: u8,
    /// Most replenishments due at once, 1 to [`SporadicServer::MAX_REPLENISHMENTS`].
    pub max_replenishments: u8,
    /// How long after its use time comes back, in nanoseconds.
    pub period: u64,
    /// How much time there is in a period, in nanoseconds; at least [`SporadicServer::MIN_BUDGET`].
    pub budget: u64,
}

impl SporadicServer {
    /// Most replenishments that there is room for.
    pub const MAX_REPLENISHMENTS: u8 = 16;
    /// The least budget in nanoseconds: below it the hypervisor would be busy with nothing but beginnings and ends.
    pub const MIN_BUDGET: u64 = 10_000;
}

/// A set of message types: a set, not a level (`docs/qvmconf.md`, "Log").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogFilters(u8);

impl LogFilters {
    /// The types, the most serious first.
    pub const NAMES: [&'static str; 7] = ["fatal", "internal", "error", "warn", "info", "debug", "verbose"];

    /// What is logged if nothing is said: `fatal`, `internal`, `error`, `warn`, `info`.
    pub const DEFAULT: Self = Self(0b1_1111);

    /// Whether messages of type `name` are in it.
    #[must_use]
    pub fn contains(self, name: &str) -> bool {
        self.0 & Self::bit(name).unwrap_or(0) != 0
    }

    /// Those in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn bit(name: &str) -> Option<u8> {
        let index = Self::NAMES.iter().position(|known| *known == name)?;
        1_u8.checked_shl(u32::try_from(index).ok()?)
    }
}

/// What is wrong with an argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ValueError {
    /// What is wrong.
    pub(crate) message: String,
    /// The wrong part of the text; all of it if empty.
    pub(crate) part: core::ops::Range<usize>,
    /// What to do, if it is not what the shape expects anyway.
    pub(crate) hint: Option<String>,
}

impl ValueError {
    fn new(message: String) -> Self {
        Self { message, part: 0..0, hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Reads `text` as `shape`. `Vdev`, `Variable` and `VariableValue` are for the parser, which has the tables: here they are
/// text.
pub(crate) fn read(shape: Shape, text: &str) -> Result<Value, ValueError> {
    let substitution = text.contains("$asinfo_");
    if substitution && !matches!(shape, Shape::Text | Shape::File) {
        return Err(ValueError::new("`$asinfo_...` is known, not supported yet".into()).hint("write the number"));
    }
    let whole = |kind, read: fn(&str) -> Result<u64, NumberError>| quantity(kind, text, text, read);
    match shape {
        Shape::Text | Shape::Vdev | Shape::Variable | Shape::VariableValue => Ok(Value::Text(text.to_string())),
        Shape::Region => region(text),
        Shape::File => file(text),
        Shape::Address => whole("address", address).map(Value::Number),
        Shape::Size => whole("size", size).map(Value::Number),
        Shape::Number => whole("number", number).map(Value::Number),
        Shape::Boolean => {
            boolean(text).map(Value::Boolean).ok_or_else(|| ValueError::new(format!("`{text}` is neither yes nor no")))
        }
        Shape::Place => place(text),
        Shape::Range => match region(text.strip_prefix("mem:").unwrap_or(text))? {
            Value::Region { start: None, .. } => Err(ValueError::new(format!("`{text}` has no length"))),
            range => Ok(range),
        },
        Shape::Interrupt => interrupt(text).map(Value::Interrupt),
        Shape::Scheduling => read_scheduling(text).map(Value::Scheduling),
        Shape::Cpus => cpus(text),
        Shape::Choice(words) => match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Value::Choice(word)),
            None => Err(choice_error(text, words)),
        },
        Shape::Filters => filters(text),
        Shape::PassedPlace => pass::place(text).map(Value::Passed),
        Shape::PassedInterrupt => pass::interrupt(text).map(Value::PassedInterrupt),
    }
}

fn choice_error(text: &str, words: &[&'static str]) -> ValueError {
    let listed = words.join(", ");
    let hint = match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? It is one of: {listed}"),
        None => format!("expected one of: {listed}"),
    };
    ValueError::new(format!("`{text}` is none of the words that may stand here")).hint(hint)
}

/// `part`, which is a slice of `text`, as a number; errors point at it.
fn quantity(kind: &str, text: &str, part: &str, read: fn(&str) -> Result<u64, NumberError>) -> Result<u64, ValueError> {
    read(part).map_err(|error| {
        let start = text.find(part).unwrap_or(0);
        let error_text =
            if part.is_empty() { format!("the {kind} is missing") } else { format!("`{part}` is no {kind}: {error}") };
        let hint = match error {
            NumberError::NoPrefix => Some(format!("write 0x{part}")),
            NumberError::Ambiguous => Some(format!("write 0x{part} or 0d{part}")),
            NumberError::BadDigit('t' | 'T') => Some("suffixes are K, M and G".into()),
            _ => None,
        };
        ValueError { message: error_text, part: start..start.saturating_add(part.len()), hint }
    })
}

fn region(text: &str) -> Result<Value, ValueError> {
    match text.split_once(',') {
        None => Ok(Value::Region { start: None, length: quantity("size", text, text, size)? }),
        Some((start, length)) => Ok(Value::Region {
            start: Some(quantity("address", text, start, address)?),
            length: quantity("size", text, length, size)?,
        }),
    }
}

fn file(text: &str) -> Result<Value, ValueError> {
    // A path whose name begins with a digit and has a comma is written `./1,x`.
    let (address_text, path) = match text.split_once(',') {
        Some((start, path)) if start.starts_with(|c: char| c.is_ascii_digit()) => (Some(start), path),
        _ => (None, text),
    };
    if path.is_empty() {
        return Err(ValueError::new("the file's path is missing".into()));
    }
    if path.contains("$asinfo_") || address_text.is_some_and(|text| text.contains('$')) {
        return Err(ValueError::new("`$asinfo_...` is known, not supported yet".into()).hint("write the number"));
    }
    let address = address_text.map(|start| quantity("address", text, start, address)).transpose()?;
    Ok(Value::File { address, path: path.to_string() })
}

fn place(text: &str) -> Result<Value, ValueError> {
    let place = match text.split_once(':') {
        Some(("pci", "")) => Place::Pci(None),
        Some(("pci", function)) => Place::Pci(Some(pci_function(text, function)?)),
        Some(("io", port)) => Place::Port(quantity("address", text, port, address)?),
        Some(("mem", start)) => Place::Memory(quantity("address", text, start, address)?),
        Some((space, _)) => {
            return Err(ValueError::new(format!("`{space}` is no address space")).hint("mem, io or pci"));
        }
        None => Place::Memory(quantity("address", text, text, address)?),
    };
    Ok(Value::Place(place))
}

/// `[BUS:]DEVICE[.FUNCTION]`. There is one bus, number 0.
fn pci_function(text: &str, function: &str) -> Result<PciFunction, ValueError> {
    if function.contains('/') {
        let error = ValueError::new(format!("`{function}` is not where on the PCI bus something is"));
        return Err(error.hint("`pci:DEVICE[.FUNCTION]`, as in `pci:3` or `pci:3.1`"));
    }
    let (bus, rest) = function.split_once(':').unwrap_or(("0", function));
    let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
    let below = |kind: &str, part: &str, end: u8| {
        let value = quantity(kind, text, part, number)?;
        let value = u8::try_from(value).ok().filter(|value| *value < end);
        value.ok_or_else(|| ValueError::new(format!("`{part}` is no {kind}: there are 0 to {}", end.saturating_sub(1))))
    };
    if quantity("PCI bus", text, bus, number)? != 0 {
        return Err(ValueError::new(format!("`{bus}` is no PCI bus: there is bus 0 only")));
    }
    Ok(PciFunction { device: below("PCI device", device, 32)?, function: below("function", function, 8)? })
}

fn interrupt(text: &str) -> Result<Interrupt, ValueError> {
    let Some((controller, line)) = text.rsplit_once(':') else {
        return Err(ValueError::new(format!("`{text}` does not say which line of which interrupt controller")));
    };
    if controller.is_empty() {
        return Err(ValueError::new(format!("`{text}` names no interrupt controller")));
    }
    // QNX: such a controller exists under that name, but nobody can refer to it.
    if controller.contains(':') {
        return Err(ValueError::new(format!(
            "`{controller}`: an interrupt controller with a colon in its name cannot be named here"
        )));
    }
    let value = quantity("interrupt line", text, line, number)?;
    let line = u32::try_from(value).map_err(|_| ValueError::new(format!("`{line}` is no interrupt line")))?;
    Ok(Interrupt { controller: controller.to_string(), line })
}

/// Reads how a thread is scheduled, as behind `sched`: a priority with `r`, `f`, `o` or nothing behind it, or the five numbers of a
/// sporadic server.
///
/// # Errors
/// What is wrong with it.
pub fn scheduling(text: &str) -> Result<Scheduling, String> {
    read_scheduling(text).map_err(|error| error.message)
}

fn read_scheduling(text: &str) -> Result<Scheduling, ValueError> {
    if text.contains(',') {
        return sporadic(text.strip_suffix('s').unwrap_or(text));
    }
    let (digits, policy) = match text.char_indices().last() {
        Some((at, 'r')) => (text.get(..at), SchedulingPolicy::RoundRobin),
        Some((at, 'f')) => (text.get(..at), SchedulingPolicy::Fifo),
        Some((at, 'o')) => (text.get(..at), SchedulingPolicy::Other),
        _ => (Some(text), SchedulingPolicy::default()),
    };
    let priority = priority(text, digits.unwrap_or(""))?;
    Ok(Scheduling { priority, policy })
}

fn priority(text: &str, part: &str) -> Result<u8, ValueError> {
    let value = quantity("priority", text, part, number)?;
    let priority = u8::try_from(value).ok().filter(|priority| *priority > 0);
    priority.ok_or_else(|| ValueError::new(format!("priority {value} is not within 1 to 255")))
}

/// `HI,LO,MAXREPL,PERIOD,BUDGET`.
fn sporadic(text: &str) -> Result<Scheduling, ValueError> {
    const HINT: &str = "HI,LO,MAXREPL,PERIOD,BUDGET s, the times in nanoseconds, as in 20,5,4,10000000,2000000 s";
    let wrong = |message: String| Err(ValueError::new(message).hint(HINT));
    let mut parts = text.split(',');
    let mut next = || parts.next().unwrap_or("");
    let (high, low, replenishments, period, budget) = (next(), next(), next(), next(), next());
    if budget.is_empty() || parts.next().is_some() {
        return wrong("a sporadic server has five numbers".into());
    }
    let (high, low) = (priority(text, high)?, priority(text, low)?);
    let count = quantity("number", text, replenishments, number)?;
    let (period, budget) = (quantity("time", text, period, number)?, quantity("time", text, budget, number)?);
    let max = SporadicServer::MAX_REPLENISHMENTS;
    let min = SporadicServer::MIN_BUDGET;
    if low >= high {
        return wrong(format!("the low priority {low} is not below {high}"));
    }
    let Some(max_replenishments) = u8::try_from(count).ok().filter(|count| (1..=max).contains(count)) else {
        return wrong(format!("{count} replenishments are not 1 to {max}"));
    };
    if !(min..=period).contains(&budget) {
        return wrong(format!("a budget of {budget} ns is not within {min} ns and the period"));
    }
    let policy = SchedulingPolicy::Sporadic(SporadicServer { low, max_replenishments, period, budget });
    Ok(Scheduling { priority: high, policy })
}

fn cpus(text: &str) -> Result<Value, ValueError> {
    let mut list = Vec::new();
    for part in text.split(',') {
        let value = quantity("number of a CPU", text, part, number)?;
        let cpu = u16::try_from(value).map_err(|_| ValueError::new(format!("CPU {value} is no CPU")))?;
        if list.len() >= MAX_CPU_LIST {
            return Err(ValueError::new(format!("more than {MAX_CPU_LIST} CPUs")));
        }
        list.push(cpu);
    }
    Ok(Value::Cpus(list))
}

fn filters(text: &str) -> Result<Value, ValueError> {
    let mut set = LogFilters::default();
    for part in text.split(',') {
        let bit = LogFilters::bit(part).ok_or_else(|| choice_error(part, &LogFilters::NAMES))?;
        set = set.union(LogFilters(bit));
    }
    Ok(Value::Filters(set))
}

#[cfg(test)]
mod tests;
