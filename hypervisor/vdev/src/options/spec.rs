//! What a factory declares of an option.
//!
//! Answers for: an option's name, type, default and help, from which it is parsed, checked, documented and listed. Does not answer
//! for: what a configuration gave ([`super::Options`]).

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
    /// As many numbers, with commas, as this has words: `OFFSET,SIZE,VALUE`.
    Numbers(&'static str),
    /// A back end: `[<|>]NAME`, see [`crate::HostDevice`].
    HostDevice,
    /// A disk: `[<]NAME`, see [`crate::HostDisk`].
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
