//! Commands, and the one table of them.
//!
//! Answers for: every word the shell knows, with its arguments, its help and how it is read. The script, what is typed,
//! `help` and completion know commands from here. Each argument is checked as far as that can be done without looking at
//! the machine.

use super::{
    CommandError, Pci, Shm, Signal, TYPED, Uplink, Word,
    argument::{self, cpus, milliseconds, names, number, plain},
    pci, shm, uplink,
    words::words,
};
use ::log::LevelFilter;
use alloc::{borrow::ToOwned, format, vec::Vec};
use core::fmt;
use types::CpuSet;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Start a VM.
    Qvm(Qvm<'a>),
    /// Report on VMs.
    Pidin(Pidin<'a>),
    /// Send these VMs, at least one, a signal.
    Slay(Signal, Vec<&'a str>),
    /// Go on when these VMs have ended, or all if none is named.
    Wait(Vec<&'a str>),
    /// Show what was logged, of this VM or of all and the host.
    Slog2info(Option<&'a str>),
    /// Dump a guest.
    Dump {
        /// The VM.
        name: &'a str,
        /// Where to; `None` is where its configuration says.
        to: Option<&'a str>,
    },
    /// List the files in RAM.
    Files,
    /// Send a file in RAM over the console.
    Send(&'a str),
    /// Take a file in RAM away.
    Remove(&'a str),
    /// Report the state of a VM and of its devices here.
    Status(&'a str),
    /// This VM is to be in the foreground.
    Console(&'a str),
    /// Stop a VM's vCPUs for now.
    Pause(&'a str),
    /// Let them run again.
    Resume(&'a str),
    /// Report what VMs do, again and again until a key is pressed.
    Top {
        /// From one report to the next.
        milliseconds: u64,
    },
    /// Do something with a function of the machine's PCI Express.
    Pci(Pci),
    /// Have a VM make do with so much memory.
    Balloon {
        /// Its name.
        name: &'a str,
        /// The size.
        bytes: u64,
    },
    /// The end of everything.
    End {
        /// And the board begins anew.
        reset: bool,
        /// Without asking the VMs first.
        force: bool,
    },
    /// Do nothing for a while.
    Sleep {
        /// For so long.
        milliseconds: u64,
    },
    /// No input, every line with its VM's name in front, power off when the last VM has ended.
    Batch,
    /// Log this and what is worse.
    Log(LevelFilter),
    /// Make a partition of the CPUs' time, or change it.
    Partition {
        /// What it is called.
        name: &'a str,
        /// Its share of the time of all CPUs, at most 100.
        percent: u8,
    },
    /// Name some CPUs.
    Cluster {
        /// What they are called.
        name: &'a str,
        /// At least one.
        cpus: CpuSet,
    },
    /// Connect a network card with a switch.
    Uplink(Uplink<'a>),
    /// Tell the SMMUs what devices may reach that are no VM's.
    Smmuman(Vec<Part<'a>>),
    /// Record what happens.
    Record(Record<'a>),
    /// Record no more.
    StopRecording,
    /// Something with shared memory.
    Shm(Shm),
    /// Explain a vdev's options, or list the vdevs.
    Use(Option<&'a str>),
    /// Explain a command that there is, or all of them: [`help`] has the text.
    Help(Option<&'a str>),
}

/// `qvm @FILE [option ...] [&]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qvm<'a> {
    /// What makes up the configuration, in order.
    pub parts: Vec<Part<'a>>,
    /// Go on without waiting for the VM's end.
    pub background: bool,
}

/// `tracelogger [-s SECONDS] [-b KIBIBYTES] [-f FILE] [NAME ...] [&]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// For so long; `None` is until [`Command::StopRecording`].
    pub milliseconds: Option<u64>,
    /// The size of each CPU's ring.
    pub kibibytes: usize,
    /// Where to; `None` is a name that is free.
    pub file: Option<&'a str>,
    /// The VMs whose vCPUs are followed; all if none is named.
    pub vms: Vec<&'a str>,
    /// Go on without waiting for the end.
    pub background: bool,
}

/// A part of a configuration on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// `@FILE`: the name in the archive, without `@` and leading slashes.
    File(Word<'a>),
    /// Options as they are written, for the configuration language to read.
    Inline(Word<'a>),
}

/// What `pidin` reports on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pidin<'a> {
    /// All VMs.
    All,
    /// One VM.
    Vm(&'a str),
    /// All threads, VMs' and the host's.
    Threads,
    /// Where the memory is.
    Memory,
    /// The machine's disks, and who has them.
    Disks,
    /// The machine's network cards, and the ports of networks.
    Net,
    /// The machine's SMMUs, and who has which stream.
    Smmu,
    /// The machine's ITSs, and who sends messages to them.
    Its,
    /// The functions of the machine's PCI Express, and who has which.
    Pci,
}

/// Where a command may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the start-up script.
    Script,
    /// At the console.
    Shell,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) word: &'static str,
    /// What stands behind it, for people, and for completion: `NAME` is a VM's name, `@FILE` a file of the boot archive,
    /// `VDEV` a vdev, `WORD` a command, `SIGNAL` a signal, `LEVEL` a level of the log; small letters mean themselves.
    pub(super) arguments: &'static str,
    help: &'static str,
    /// Where it may stand; `None`: in either place.
    only: Option<Place>,
    read: Reader,
}

impl Row {
    /// Whether it may stand there.
    pub(super) fn may_be(&self, place: Place) -> bool {
        self.only.is_none_or(|only| only == place)
    }
}

type Reader = for<'a> fn(&Call<'_, 'a>) -> Result<Command<'a>, CommandError>;

/// What comes of a line: nothing, if there was nothing in it, or a command.
pub type Read<'a> = Result<Option<Command<'a>>, CommandError>;

const fn row(word: &'static str, arguments: &'static str, help: &'static str, read: Reader) -> Row {
    Row { word, arguments, help, only: None, read }
}

const fn only(place: Place, row: Row) -> Row {
    Row { only: Some(place), ..row }
}

/// Where in a line of help the explanation begins.
const HELP_COLUMN: usize = 30;

/// Every command.
pub(super) const COMMANDS: &[Row] = &[
    row("qvm", "@FILE [OPTION ...] [&]", "start a VM; `&`: do not wait for its end", |call| qvm(call, None)),
    row("dryrun", "@FILE [OPTION ...] [&]", "check a VM's configuration, start nothing", |call| {
        qvm(call, Some("dryrun"))
    }),
    row(
        "pidin",
        "[NAME|threads|memory|disks|net|smmu|its|pci]",
        "report on VMs, threads, memory, devices, DMA",
        |call| {
            Ok(Command::Pidin(match call.optional()? {
                None => Pidin::All,
                Some(Word { text: "threads", .. }) => Pidin::Threads,
                Some(Word { text: "memory", .. }) => Pidin::Memory,
                Some(Word { text: "disks", .. }) => Pidin::Disks,
                Some(Word { text: "net", .. }) => Pidin::Net,
                Some(Word { text: "smmu", .. }) => Pidin::Smmu,
                Some(Word { text: "its", .. }) => Pidin::Its,
                Some(Word { text: "pci", .. }) => Pidin::Pci,
                Some(name) => Pidin::Vm(plain(name)?),
            }))
        },
    ),
    row("slay", "[-s SIGNAL] NAME ...", "send VMs a signal; SIGTERM if none is named", slay),
    row("wait", "[NAME ...]", "until these VMs have ended, or all", |call| Ok(Command::Wait(names(call.words)?))),
    row("slog2info", "[NAME]", "show what was logged, of one VM or all", |call| {
        Ok(Command::Slog2info(call.optional()?.map(plain).transpose()?))
    }),
    row("dump", "NAME [FILE]", "dump a VM's memory and registers", |call| match call.words {
        [name, to @ ..] if to.len() <= 1 => {
            Ok(Command::Dump { name: plain(name)?, to: to.first().map(plain).transpose()? })
        }
        _ => call.usage(1),
    }),
    row("files", "", "the files in RAM", |call| match call.words {
        [] => Ok(Command::Files),
        _ => call.usage(0),
    }),
    row("send", "FILE", "send a file in RAM over the console", |call| call.name().map(Command::Send)),
    row("rm", "FILE", "take a file in RAM away", |call| call.name().map(Command::Remove)),
    row("tracelogger", "[stop|NAME ...]", "record events: -s SECONDS, -b KIB, -f FILE, &", tracelogger),
    row("status", "NAME", "report on a VM and its devices", |call| call.name().map(Command::Status)),
    row("console", "NAME", "the VM that is in the foreground", |call| call.name().map(Command::Console)),
    row("pause", "NAME", "stop a VM for now", |call| call.name().map(Command::Pause)),
    row("resume", "NAME", "let it run again", |call| call.name().map(Command::Resume)),
    row("balloon", "NAME SIZE", "the memory that a VM has to do with, as in 96M", |call| {
        let [name, size] = call.words else { return call.usage(2) };
        Ok(Command::Balloon { name: plain(name)?, bytes: argument::size(size)? })
    }),
    only(
        Place::Shell,
        row("top", "[SECONDS]", "what VMs do, until a key is pressed", |call| {
            let milliseconds = call.optional()?.map_or(Ok(1000), milliseconds)?;
            // Shorter ones would show the report and little else.
            Ok(Command::Top { milliseconds: milliseconds.max(200) })
        }),
    ),
    row("shutdown", "[-f]", "end all VMs, power off; -f: do not ask them", |call| end(call, false)),
    row("reset", "[-f]", "end all VMs, reset the board; -f: do not ask them", |call| end(call, true)),
    row("sleep", "SECONDS", "do nothing for a while, as in 0.5", |call| {
        Ok(Command::Sleep { milliseconds: milliseconds(call.one()?)? })
    }),
    only(
        Place::Script,
        row("batch", "", "no input, prefixed output, power off at the end", |call| match call.words {
            [] => Ok(Command::Batch),
            [word, ..] => Err(word.error("`batch` takes no argument")),
        }),
    ),
    row("log", "LEVEL", "error, warn, info, debug, trace or off", |call| {
        let word = call.one()?;
        let no_level = || word.error(format!("`{}` is no level: error, warn, info, debug, trace or off", word.text));
        crate::log::level(word.text).map(Command::Log).ok_or_else(no_level)
    }),
    row("partition", "PARTITION PERCENT", "give a partition its share of the CPUs' time", |call| {
        let [name, share] = call.words else { return call.usage(2) };
        let percent = number(&Word { text: share.text.trim_end_matches('%'), ..*share }, 0, 100)?;
        Ok(Command::Partition { name: plain(name)?, percent: percent.try_into().unwrap_or(100) })
    }),
    row("cluster", "CLUSTER CPU[,CPU...]", "name some CPUs", |call| {
        let [name, list] = call.words else { return call.usage(2) };
        Ok(Command::Cluster { name: plain(name)?, cpus: cpus(list)? })
    }),
    row("uplink", uplink::ARGUMENTS, "lead a switch out of the machine", |call| {
        uplink::read(call).map(Command::Uplink)
    }),
    row("smmuman", "@FILE [OPTION ...]", "what devices may reach that are no VM's", |call| match parts(call)? {
        (parts, false) => Ok(Command::Smmuman(parts)),
        (_, true) => call.usage(call.words.len().saturating_sub(1)),
    }),
    row("pci", pci::ARGUMENTS, "bring a device to rest, or divide it", |call| pci::read(call).map(Command::Pci)),
    row("shm", shm::ARGUMENTS, "shared memory; alone: list it", |call| shm::read(call).map(Command::Shm)),
    row("use", "[VDEV]", "the options of a vdev, or all vdevs", |call| {
        Ok(Command::Use(call.optional()?.map(plain).transpose()?))
    }),
    row("help", "[WORD]", "explain a command, or all", |call| match call.optional()? {
        Some(word) => find(word).map(|row| Command::Help(Some(row.word))),
        None => Ok(Command::Help(None)),
    }),
];

/// Explains the command `word`, or all that there are, a line each.
///
/// # Errors
/// If `out` fails.
pub fn help(word: Option<&str>, out: &mut dyn fmt::Write) -> fmt::Result {
    for row in COMMANDS.iter().filter(|row| word.is_none_or(|word| word == row.word)) {
        let Row { word, arguments, help, .. } = row;
        let used = word.len().saturating_add(arguments.len()).saturating_add(1);
        // Long ones have a line to themselves.
        let (end, used) = if used < HELP_COLUMN { ("", used) } else { ("\n", 0) };
        let pad = HELP_COLUMN.saturating_sub(used);
        writeln!(out, "{word} {arguments}{end}{:pad$}{help}", "")?;
    }
    Ok(())
}

/// Reads a line that was typed.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read(text: &str) -> Read<'_> {
    read_at(text, Place::Shell, TYPED)
}

pub(super) fn read_at(text: &str, place: Place, line: usize) -> Read<'_> {
    let words = words(text, line)?;
    let Some((first, words)) = words.split_first() else { return Ok(None) };
    let row = find(first)?;
    match row.only {
        Some(Place::Script) if place == Place::Shell => {
            Err(first.error(format!("`{}` is for the start-up script", first.text)))
        }
        Some(Place::Shell) if place == Place::Script => {
            Err(first.error(format!("`{}` is for the shell, not for a script", first.text)))
        }
        _ => (row.read)(&Call { first, words, row }).map(Some),
    }
}

/// The row of a command.
fn find(word: &Word<'_>) -> Result<&'static Row, CommandError> {
    COMMANDS.iter().find(|row| row.word == word.text).ok_or_else(|| {
        let known = COMMANDS.iter().map(|row| row.word);
        let hint = match qvmconf::nearest(word.text, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`help` lists them all".to_owned(),
        };
        word.error(format!("unknown command `{}`; {hint}", word.text))
    })
}

/// A command's words.
pub(super) struct Call<'w, 'a> {
    pub(super) first: &'w Word<'a>,
    /// Those behind it.
    pub(super) words: &'w [Word<'a>],
    row: &'static Row,
}

impl<'w, 'a> Call<'w, 'a> {
    /// There are too few words, or more than `most`.
    pub(super) fn usage<T>(&self, most: usize) -> Result<T, CommandError> {
        let word = self.words.get(most).unwrap_or(self.first);
        Err(word.error(format!("usage: `{} {}`", self.row.word, self.row.arguments)))
    }

    fn optional(&self) -> Result<Option<&'w Word<'a>>, CommandError> {
        if self.words.len() > 1 { self.usage(1) } else { Ok(self.words.first()) }
    }

    fn one(&self) -> Result<&'w Word<'a>, CommandError> {
        self.optional()?.map_or_else(|| self.usage(1), Ok)
    }

    fn name(&self) -> Result<&'a str, CommandError> {
        self.one().and_then(plain)
    }
}

fn qvm<'a>(call: &Call<'_, 'a>, option: Option<&'static str>) -> Result<Command<'a>, CommandError> {
    let (mut parts, background) = parts(call)?;
    parts.extend(option.map(|text| Part::Inline(Word { text, ..*call.first })));
    Ok(Command::Qvm(Qvm { parts, background }))
}

/// A configuration, and whether there is a `&` behind it.
fn parts<'a>(call: &Call<'_, 'a>) -> Result<(Vec<Part<'a>>, bool), CommandError> {
    let (words, background) = match call.words.split_last() {
        Some((last, before)) if last.text == "&" => (before, true),
        _ => (call.words, false),
    };
    let mut parts: Vec<Part<'a>> = Vec::new();
    for word in words {
        let part = match word.text.strip_prefix('@') {
            Some(path) => match path.trim_start_matches('/') {
                "" => return Err(word.error("`@` needs a file's name right behind it")),
                path => Part::File(Word { text: path, ..*word }),
            },
            None if word.text == "&" => return Err(word.error("`&` must be the last word of the line")),
            None => Part::Inline(*word),
        };
        parts.push(part);
    }
    if parts.is_empty() {
        let word = call.first;
        return Err(word.error(format!("`{0}` needs a configuration: `{0} @FILE`", word.text)));
    }
    Ok((parts, background))
}

fn slay<'a>(call: &Call<'_, 'a>) -> Result<Command<'a>, CommandError> {
    let (signal, vms) = match call.words {
        [Word { text: "-s", .. }, signal, vms @ ..] => {
            let known = Signal::from_word(signal.text);
            let unknown = || {
                let message = format!("`{}` is none of SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2", signal.text);
                signal.error(message)
            };
            (known.ok_or_else(unknown)?, vms)
        }
        vms => (Signal::Term, vms),
    };
    if vms.is_empty() { call.usage(usize::MAX) } else { Ok(Command::Slay(signal, names(vms)?)) }
}

fn tracelogger<'a>(call: &Call<'_, 'a>) -> Result<Command<'a>, CommandError> {
    /// A second, in rings of 8192 events.
    const MILLISECONDS: u64 = 1000;
    const KIBIBYTES: usize = 256;
    let (mut words, background) = match call.words.split_last() {
        Some((last, before)) if last.text == "&" => (before, true),
        _ => (call.words, false),
    };
    if let [Word { text: "stop", .. }] = call.words {
        return Ok(Command::StopRecording);
    }
    let mut record = Record {
        // In the background somebody says when it is enough.
        milliseconds: (!background).then_some(MILLISECONDS),
        kibibytes: KIBIBYTES,
        file: None,
        vms: Vec::new(),
        background,
    };
    while let [Word { text: option @ ("-s" | "-b" | "-f"), .. }, value, rest @ ..] = words {
        match *option {
            "-s" => record.milliseconds = Some(milliseconds(value)?),
            "-b" => {
                record.kibibytes = number(value, 4, 1 << 14)?;
            }
            _ => record.file = Some(plain(value)?),
        }
        words = rest;
    }
    record.vms = names(words)?;
    Ok(Command::Record(record))
}

fn end<'a>(call: &Call<'_, 'a>, reset: bool) -> Result<Command<'a>, CommandError> {
    match call.optional()? {
        Some(word) if word.text != "-f" => call.usage(0),
        force => Ok(Command::End { reset, force: force.is_some() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use std::vec;

    fn typed(text: &str) -> Command<'_> {
        read(text).unwrap().unwrap()
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    fn record<'a>(
        milliseconds: Option<u64>,
        kibibytes: usize,
        file: Option<&'a str>,
        vms: &[&'a str],
        background: bool,
    ) -> Command<'a> {
        Command::Record(Record { milliseconds, kibibytes, file, vms: vms.to_vec(), background })
    }

    #[test]
    fn every_command_can_be_typed() {
        let file = Part::File(Word { text: "etc/host.smmu", line: TYPED, column: 9 });
        let safety = Word { text: "safety", line: TYPED, column: 25 };
        let expected = [
            ("pidin", Command::Pidin(Pidin::All)),
            ("pidin linux", Command::Pidin(Pidin::Vm("linux"))),
            ("pidin memory", Command::Pidin(Pidin::Memory)),
            ("slay a b", Command::Slay(Signal::Term, vec!["a", "b"])),
            ("slay -s 3 a", Command::Slay(Signal::Quit, vec!["a"])),
            ("wait a b", Command::Wait(vec!["a", "b"])),
            ("slog2info", Command::Slog2info(None)),
            ("slog2info a", Command::Slog2info(Some("a"))),
            ("dump a", Command::Dump { name: "a", to: None }),
            ("files", Command::Files),
            ("send a.gcore", Command::Send("a.gcore")),
            ("rm dumps/a.gcore", Command::Remove("dumps/a.gcore")),
            ("dump a vblk0", Command::Dump { name: "a", to: Some("vblk0") }),
            ("tracelogger", record(Some(1000), 256, None, &[], false)),
            ("tracelogger &", record(None, 256, None, &[], true)),
            ("tracelogger -s 0.5 -b 64 -f t.events a b &", record(Some(500), 64, Some("t.events"), &["a", "b"], true)),
            ("tracelogger stop", Command::StopRecording),
            ("tracelogger stop a", record(Some(1000), 256, None, &["stop", "a"], false)),
            ("status a", Command::Status("a")),
            ("console a", Command::Console("a")),
            ("pause a", Command::Pause("a")),
            ("resume a", Command::Resume("a")),
            ("balloon a 96M", Command::Balloon { name: "a", bytes: 96 << 20 }),
            ("balloon a 4096", Command::Balloon { name: "a", bytes: 4096 }),
            ("top", Command::Top { milliseconds: 1000 }),
            ("top 0.5", Command::Top { milliseconds: 500 }),
            ("top 0", Command::Top { milliseconds: 200 }),
            ("shutdown -f", Command::End { reset: false, force: true }),
            ("reset", Command::End { reset: true, force: false }),
            ("sleep 1.25", Command::Sleep { milliseconds: 1250 }),
            ("log off", Command::Log(LevelFilter::Off)),
            ("partition drivers 20%", Command::Partition { name: "drivers", percent: 20 }),
            ("cluster big 2,3", Command::Cluster { name: "big", cpus: CpuSet(0b1100) }),
            ("pidin net", Command::Pidin(Pidin::Net)),
            ("pidin smmu", Command::Pidin(Pidin::Smmu)),
            ("pidin its", Command::Pidin(Pidin::Its)),
            ("pidin pci", Command::Pidin(Pidin::Pci)),
            ("smmuman @/etc/host.smmu safety", Command::Smmuman(vec![file, Part::Inline(safety)])),
            ("use", Command::Use(None)),
            ("use pl011", Command::Use(Some("pl011"))),
            ("help slay", Command::Help(Some("slay"))),
            ("help", Command::Help(None)),
        ];
        for (text, command) in expected {
            assert_eq!(typed(text), command, "{text}");
        }
        assert_eq!(read("  # nothing"), Ok(None));
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn a_typed_line_is_told_what_is_wrong_without_its_place() {
        let expected = [
            ("pdin", "shell: unknown command `pdin`; did you mean `pidin`?"),
            ("pidin a b", "shell: usage: `pidin [NAME|threads|memory|disks|net|smmu|its|pci]`"),
            ("slay", "shell: usage: `slay [-s SIGNAL] NAME ...`"),
            ("slay -s TERM", "shell: usage: `slay [-s SIGNAL] NAME ...`"),
            ("slay -s KILL a", "shell: `KILL` is none of SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2"),
            ("slay -f a", "shell: unknown option `-f`"),
            ("status \"a\"", "shell: no quotes here"),
            ("wait a &", "shell: only `qvm` and `dryrun` can go on without waiting"),
            ("dump", "shell: usage: `dump NAME [FILE]`"),
            ("tracelogger -s", "shell: unknown option `-s`"),
            ("tracelogger -s soon", "shell: `soon` is no number of seconds, as in 2 or 0.5"),
            ("tracelogger -b 3", "shell: `3` is no number from 4 to 16384"),
            ("tracelogger -n 3", "shell: unknown option `-n`"),
            ("balloon a", "shell: usage: `balloon NAME SIZE`"),
            ("balloon a M", "shell: `M`: there are no digits"),
            ("balloon a 1.5G", "shell: `1.5G`: `.` is not a digit"),
            ("balloon a +1K", "shell: `+1K`: `+` is not a digit"),
            ("balloon a 99999999999999G", "shell: `99999999999999G`: the number does not fit in 64 bits"),
            ("shutdown now", "shell: usage: `shutdown [-f]`"),
            ("sleep", "shell: usage: `sleep SECONDS`"),
            ("sleep -1", "shell: `-1` is no number of seconds, as in 2 or 0.5"),
            ("sleep 1.2345", "shell: `1.2345` is no number of seconds, as in 2 or 0.5"),
            ("sleep +1", "shell: `+1` is no number of seconds, as in 2 or 0.5"),
            ("sleep .", "shell: `.` is no number of seconds, as in 2 or 0.5"),
            ("partition a 101", "shell: `101` is no number from 0 to 100"),
            ("partition a", "shell: usage: `partition PARTITION PERCENT`"),
            ("cluster a 1,,2", "shell: `` is no CPU: they are numbered from 0"),
            ("cluster a 16", "shell: `16` is no CPU: they are numbered from 0"),
            ("cluster a +1", "shell: `+1` is no CPU: they are numbered from 0"),
            ("partition a +1", "shell: `+1` is no number from 0 to 100"),
            ("batch", "shell: `batch` is for the start-up script"),
            ("help sley", "shell: unknown command `sley`; did you mean `slay`?"),
            ("smmuman", "shell: `smmuman` needs a configuration: `smmuman @FILE`"),
            ("smmuman @", "shell: `@` needs a file's name right behind it"),
            ("smmuman @a &", "shell: usage: `smmuman @FILE [OPTION ...]`"),
            ("smmuman @a & b", "shell: `&` must be the last word of the line"),
        ];
        for (text, message) in expected {
            assert_eq!(error(text), message);
        }
    }

    #[test]
    fn help_has_a_line_of_80_characters_for_every_command_that_works() {
        let mut text = String::new();
        help(None, &mut text).unwrap();
        assert_eq!(text.lines().count(), COMMANDS.len() + 4);
        for line in text.lines() {
            assert!(line.len() <= 80, "{line}");
            if ["shm ", "pci ", "pidin ", "uplink "].iter().any(|long| line.starts_with(long)) {
                assert!(line.len() > HELP_COLUMN, "it needs no line of its own");
                continue;
            }
            let (usage, explanation) = line.split_at(HELP_COLUMN);
            assert!(usage.ends_with(' ') && explanation.starts_with(|first: char| first != ' '), "{line}");
        }
        text.clear();
        help(Some("slay"), &mut text).unwrap();
        assert_eq!(text, "slay [-s SIGNAL] NAME ...     send VMs a signal; SIGTERM if none is named\n");
    }
}
