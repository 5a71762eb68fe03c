//! Every word of the language, in tables.
//!
//! Answers for: which option words there are, in which context, with which arguments, and how far each is supported. The
//! parser, the suggestions and the reference in `docs/qvmconf.md` are made from these tables and from nothing else. Does
//! not answer for: the options of vdevs that this hypervisor has; those belong to their factories and come in as a
//! [`crate::Vocabulary`].
//!
//! Words and their contexts are those that the documentation of the QNX Hypervisor has for `qvm`.

mod markdown;
mod options;
mod variables;
mod vdevs;

pub use markdown::{Reference, VdevReference};
pub use options::ROWS;
pub use variables::VARIABLES;
pub use vdevs::VDEVS;

use core::fmt;

/// What an option word means to the rest of the program. Words that mean different things in different contexts, such as
/// `loc`, are one keyword in several rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each is the word of the same spelling; its meaning is in its row")]
pub enum Keyword {
    System,
    Ram,
    Rom,
    Reserve,
    Cpu,
    Load,
    Guest,
    Data,
    Initrd,
    Fdt,
    Acpi,
    Pass,
    Vdev,
    Cmdline,
    Entry,
    Set,
    Unsupported,
    Logger,
    Dump,
    Dryrun,
    OnExit,
    Debug,
    Safety,
    Smmu,
    User,
    Generate,
    Sched,
    Runmask,
    Cluster,
    Partition,
    Loc,
    Intr,
    Name,
    Log,
    Hostvector,
    WithoutReset,
    Uncontained,
}

/// What following options apply to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// The VM: where everything begins, and what options that need no other context apply to.
    Guest,
    /// The vCPU of the last `cpu`.
    Cpu,
    /// The virtual device of the last `vdev`.
    Vdev,
    /// The physical resource of the last `pass`.
    Pass,
    /// The reservation of the last `reserve`.
    Reserve,
}

impl Context {
    /// The word that opens it; nothing opens the guest context.
    #[must_use]
    pub const fn opener(self) -> Option<&'static str> {
        match self {
            Self::Guest => None,
            Self::Cpu => Some("cpu"),
            Self::Vdev => Some("vdev"),
            Self::Pass => Some("pass"),
            Self::Reserve => Some("reserve"),
        }
    }
}

/// What a word does besides saying what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing: the current context stays.
    Neither,
    /// It opens a context, and ends the one before.
    Opens(Context),
    /// It says what kind of thing the `load` or `pass` right behind it brings.
    Prefix,
}

/// What happens if it is said twice in one context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repeat {
    /// The last one wins.
    LastWins,
    /// The last one of those with the same first argument wins.
    LastWinsEach,
    /// All of them count.
    Accumulates,
}

/// How far it is supported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It takes effect.
    Supported,
    /// The original has it, this hypervisor does not have it yet: an error.
    NotYet,
    /// It can have no meaning here, for this reason: an error.
    Never(&'static str),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supported => f.write_str("supported"),
            Self::NotYet => f.write_str("known, not supported yet"),
            Self::Never(reason) => write!(f, "not here: {reason}"),
        }
    }
}

/// How an argument is spelt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Any text.
    Text,
    /// `[START,]LENGTH`.
    Region,
    /// `[ADDRESS,]FILE`.
    File,
    /// An address.
    Address,
    /// A size or another quantity in bytes.
    Size,
    /// A plain number.
    Number,
    /// `yes` or `no`, in four spellings.
    Boolean,
    /// `[mem:|io:]ADDRESS` or `pci:[[BUS:]DEVICE[.FUNCTION]]`.
    Place,
    /// `[mem:]START,LENGTH`.
    Range,
    /// `PIC:LINE`.
    Interrupt,
    /// `[mem:]REGION,LENGTH,ATTRIBUTES[=HOST]` or `pci:...[=...]`.
    PassedPlace,
    /// `PIC:LINE[,u][=HOST]`.
    PassedInterrupt,
    /// `PRIORITY[r|f|o]`, or the five numbers of a sporadic server.
    Scheduling,
    /// Numbers of CPUs, separated by commas.
    Cpus,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Message types, separated by commas.
    Filters,
    /// The name of a `set` variable.
    Variable,
    /// The value of the variable just named.
    VariableValue,
    /// The name of a vdev.
    Vdev,
}

impl Shape {
    /// What a diagnostic says was expected.
    #[must_use]
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Text => "text, in double quotes if it holds white space",
            Self::Region => "[START,]LENGTH, as in 0x80000000,128M",
            Self::File => "[ADDRESS,]FILE, as in 0x80000000,hello.bin",
            Self::Address => "an address, as in 0x80000000",
            Self::Size => "a size, as in 64K",
            Self::Number => "a number, decimal or with 0x",
            Self::Boolean => "yes or no (1 or 0, on or off, true or false)",
            Self::Place => "[mem:]ADDRESS, as in 0x1c090000, or pci:DEVICE[.FUNCTION], as in pci:3",
            Self::Range => "START,LENGTH, as in 0x1c000000,64K",
            Self::Interrupt => "PIC:LINE, as in gic:37",
            Self::PassedPlace => {
                "[mem:]REGION,LENGTH,ATTRIBUTES[=HOST], as in 0x09010000,4K,rwn, or pci:BUS:DEVICE[.FUNCTION]"
            }
            Self::PassedInterrupt => "PIC:LINE[,u][=HOST], as in gic:40=34",
            Self::Scheduling => {
                "PRIORITY (1 to 255), with r, f or o behind it for the policy, as in 10r; or a sporadic server's HI,LO,MAXREPL,PERIOD,BUDGET s"
            }
            Self::Cpus => "numbers of CPUs from 0, separated by commas without white space, as in 0,1",
            Self::Choice(_) => "one of a few words",
            Self::Filters => "fatal, internal, error, warn, info, debug, verbose: some, separated by commas",
            Self::Variable => "the name of a variable",
            Self::VariableValue => "a value",
            Self::Vdev => "the name of a virtual device",
        }
    }
}

/// One argument of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// How usage lines call it.
    pub name: &'static str,
    /// How it is spelt.
    pub shape: Shape,
}

/// An option word in one context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// What it means to the program.
    pub keyword: Keyword,
    /// The word.
    pub spelling: &'static str,
    /// The context it applies to. [`Context::Guest`] ones can stand anywhere.
    pub within: Context,
    /// What it does to the context.
    pub effect: Effect,
    /// Its arguments.
    pub parameters: &'static [Parameter],
    /// What saying it twice means.
    pub repeat: Repeat,
    /// How far it is supported.
    pub status: Status,
    /// What it is for, in one line.
    pub help: &'static str,
}

impl Row {
    /// The row of `spelling` in the current context: the one of that context itself, else the one that stands anywhere.
    #[must_use]
    pub fn find(spelling: &str, context: Context) -> Option<&'static Self> {
        let within = |context| ROWS.iter().find(move |row| row.spelling == spelling && row.within == context);
        within(context).or_else(|| within(Context::Guest))
    }

    /// Whether any context has this word.
    #[must_use]
    pub fn is_word(spelling: &str) -> bool {
        ROWS.iter().any(|row| row.spelling == spelling)
    }
}

impl fmt::Display for Row {
    /// As `ram [START,]LENGTH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spelling)?;
        self.parameters.iter().try_for_each(|parameter| write!(f, " {}", parameter.name))
    }
}

/// A variable of `set`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The context in which the original looks for it.
    pub context: &'static str,
    /// How its value is spelt.
    pub shape: Shape,
    /// Its value if nobody sets it, in words.
    pub default: &'static str,
    /// How far it is supported.
    pub status: Status,
    /// What it is for, in one line.
    pub help: &'static str,
}

impl Variable {
    /// The variable `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|variable| variable.name == name)
    }
}

/// An option of a vdev of the original.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownOption {
    /// The word.
    pub name: &'static str,
    /// Its argument as usage lines call it; empty if it takes none.
    pub argument: &'static str,
}

/// A vdev of the original.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownVdev {
    /// The word behind `vdev`.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Why it can never be here, if it cannot. Whether it is here is what the [`crate::Vocabulary`] says.
    pub never: Option<&'static str>,
    /// Its own options, besides those that every vdev takes.
    pub options: &'static [KnownOption],
}

impl KnownVdev {
    /// The vdev `name` of the original.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        VDEVS.iter().find(|vdev| vdev.name == name)
    }

    /// Its option `name`.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&'static KnownOption> {
        self.options.iter().find(|option| option.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_stands_twice_in_a_context() {
        for (index, row) in ROWS.iter().enumerate() {
            let again =
                ROWS.iter().skip(index + 1).find(|other| other.spelling == row.spelling && other.within == row.within);
            assert_eq!(again, None);
        }
        for (index, variable) in VARIABLES.iter().enumerate() {
            assert!(!VARIABLES[index + 1..].iter().any(|other| other.name == variable.name), "{}", variable.name);
        }
        for (index, vdev) in VDEVS.iter().enumerate() {
            assert!(!VDEVS[index + 1..].iter().any(|other| other.name == vdev.name), "{}", vdev.name);
        }
    }

    #[test]
    fn a_word_of_the_current_context_hides_the_one_that_stands_anywhere() {
        assert_eq!(Row::find("loc", Context::Reserve).unwrap().within, Context::Reserve);
        assert_eq!(Row::find("loc", Context::Vdev).unwrap().within, Context::Vdev);
        assert_eq!(Row::find("ram", Context::Cpu).unwrap().within, Context::Guest);
        assert_eq!(Row::find("loc", Context::Cpu), None);
    }

    #[test]
    fn openers_open_their_context() {
        for context in [Context::Cpu, Context::Vdev, Context::Pass, Context::Reserve] {
            let row = Row::find(context.opener().unwrap(), Context::Guest).unwrap();
            assert_eq!(row.effect, Effect::Opens(context));
        }
    }
}
