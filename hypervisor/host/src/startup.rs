//! The start-up script: what the hypervisor does when it is up. The file `startup` of the boot archive, a command a line.
//!
//! Answers for: words and commands, from one table, and for saying where a line is wrong. Does not answer for: doing
//! anything; what a configuration says (`qvm` hands its words on as they are written).
//!
//! A line is words separated by white space; `#` begins a comment. Double quotes keep white space and `#` in a word, with
//! `\"` and `\\` inside. `&` at the end of a line: go on with the next without waiting for this one.

use ::log::LevelFilter;
use alloc::{format, string::String, vec::Vec};
use core::fmt;

/// The script's name in the archive.
pub const FILE: &str = "startup";
/// Most errors that are reported for one script.
const MOST_ERRORS: usize = 20;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Start a VM.
    Qvm(Qvm<'a>),
    /// No input, every line with its VM's name in front, power off when the last VM has ended.
    Batch,
    /// This VM is to be in the foreground.
    Console(&'a str),
    /// Log this and what is worse.
    Log(LevelFilter),
}

/// `qvm @FILE [option ...] [&]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qvm<'a> {
    /// What makes up the configuration, in order.
    pub parts: Vec<Part<'a>>,
    /// Go on without waiting for the VM's end.
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

/// Text of the script and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// The text, with quotes and all.
    pub text: &'a str,
    /// Its line, from 1.
    pub line: usize,
    /// Its first character in the line, from 1.
    pub column: usize,
}

/// A command and its line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Where it is.
    pub line: usize,
    /// What it is.
    pub command: Command<'a>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// Line, from 1.
    pub line: usize,
    /// Character in it, from 1.
    pub column: usize,
    /// What.
    pub message: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FILE}:{}:{}: error: {}", self.line, self.column, self.message)
    }
}

/// Reads a script.
///
/// # Errors
/// Everything that is wrong with it, up to a limit.
pub fn parse(script: &[u8]) -> Result<Vec<Step<'_>>, Vec<ScriptError>> {
    let mut steps = Vec::new();
    let mut errors = Vec::new();
    for (bytes, line) in script.split(|byte| *byte == b'\n').zip(1..) {
        match core::str::from_utf8(bytes) {
            Ok(text) => match command(text, line) {
                Ok(Some(command)) => steps.push(Step { line, command }),
                Ok(None) => {}
                Err(error) => errors.push(error),
            },
            Err(_) => errors.push(ScriptError { line, column: 1, message: "the line is not UTF-8".into() }),
        }
        if errors.len() >= MOST_ERRORS {
            break;
        }
    }
    if errors.is_empty() { Ok(steps) } else { Err(errors) }
}

/// A row of the table.
struct Row {
    word: &'static str,
    arguments: &'static str,
    help: &'static str,
    /// `None`: the original has something like it, we do not yet.
    read: Option<Read>,
}

type Read = for<'a> fn(&Word<'a>, &[Word<'a>]) -> Result<Command<'a>, ScriptError>;

/// Every command. Whatever knows commands knows them from here.
const COMMANDS: &[Row] = &[
    row("qvm", "@FILE [OPTION ...] [&]", "start a VM; `&`: and go on", read_qvm),
    row("batch", "", "no input, prefixed output, power off when the last VM has ended", read_batch),
    row("console", "NAME", "the VM that is in the foreground", read_console),
    row("log", "LEVEL", "error, warn, info, debug, trace or off", read_log),
    later("smmuman"),
    later("slay"),
    later("pidin"),
    later("slog2info"),
    later("dump"),
    later("wait"),
    later("status"),
    later("pause"),
    later("resume"),
    later("top"),
    later("use"),
    later("shm"),
    later("tracelogger"),
    later("shutdown"),
    later("reset"),
    later("help"),
];

const fn row(word: &'static str, arguments: &'static str, help: &'static str, read: Read) -> Row {
    Row { word, arguments, help, read: Some(read) }
}

const fn later(word: &'static str) -> Row {
    Row { word, arguments: "", help: "", read: None }
}

/// One line on each command that works.
pub fn help() -> impl Iterator<Item = String> {
    COMMANDS.iter().filter(|row| row.read.is_some()).map(|row| {
        let command = [row.word, row.arguments].join(" ");
        format!("{command:<28} {}", row.help)
    })
}

fn command(text: &str, line: usize) -> Result<Option<Command<'_>>, ScriptError> {
    let words = words(text, line)?;
    let Some((first, rest)) = words.split_first() else { return Ok(None) };
    match COMMANDS.iter().find(|row| row.word == first.text) {
        Some(Row { read: Some(read), .. }) => read(first, rest).map(Some),
        Some(_) => Err(first.error(format!("`{}` is known, not supported yet", first.text))),
        None => {
            let known: Vec<&str> = COMMANDS.iter().filter(|row| row.read.is_some()).map(|row| row.word).collect();
            Err(first.error(format!("unknown command `{}`; known are: {}", first.text, known.join(", "))))
        }
    }
}

fn read_qvm<'a>(first: &Word<'a>, rest: &[Word<'a>]) -> Result<Command<'a>, ScriptError> {
    let (rest, background) = match rest.split_last() {
        Some((last, before)) if last.text == "&" => (before, true),
        _ => (rest, false),
    };
    let mut parts: Vec<Part<'a>> = Vec::new();
    for word in rest {
        let part = match word.text.strip_prefix('@') {
            Some(path) => match path.trim_start_matches('/') {
                "" => return Err(word.error("`@` needs a file's name right behind it".into())),
                path => Part::File(Word { text: path, ..*word }),
            },
            None if word.text == "&" => return Err(word.error("`&` must be the last word of the line".into())),
            None => Part::Inline(*word),
        };
        parts.push(part);
    }
    if parts.is_empty() {
        return Err(first.error("`qvm` needs a configuration: `qvm @FILE`".into()));
    }
    Ok(Command::Qvm(Qvm { parts, background }))
}

fn read_batch<'a>(_: &Word<'a>, rest: &[Word<'a>]) -> Result<Command<'a>, ScriptError> {
    match rest.first() {
        None => Ok(Command::Batch),
        Some(word) => Err(word.error("`batch` takes no argument".into())),
    }
}

fn read_console<'a>(first: &Word<'a>, rest: &[Word<'a>]) -> Result<Command<'a>, ScriptError> {
    only(first, rest, "a VM's name").map(|word| Command::Console(word.text))
}

fn read_log<'a>(first: &Word<'a>, rest: &[Word<'a>]) -> Result<Command<'a>, ScriptError> {
    let word = only(first, rest, "a level")?;
    match crate::log::level(word.text) {
        Some(level) => Ok(Command::Log(level)),
        None => Err(word.error(format!("`{}` is no level: error, warn, info, debug, trace or off", word.text))),
    }
}

/// The one argument that `first` takes.
fn only<'w, 'a>(first: &Word<'a>, rest: &'w [Word<'a>], what: &str) -> Result<&'w Word<'a>, ScriptError> {
    match rest {
        [word] => Ok(word),
        [] => Err(first.error(format!("`{}` needs {what}", first.text))),
        [_, extra, ..] => Err(extra.error(format!("`{}` takes one argument", first.text))),
    }
}

impl Word<'_> {
    fn error(&self, message: String) -> ScriptError {
        ScriptError { line: self.line, column: self.column, message }
    }
}

/// Cuts a line into words; quotes stay where they are.
fn words(text: &str, line: usize) -> Result<Vec<Word<'_>>, ScriptError> {
    let mut words = Vec::new();
    // Where the current word starts, in bytes and in characters.
    let mut start: Option<(usize, usize)> = None;
    let (mut quoted, mut escaped) = (None, false);
    for (column, (at, character)) in (1..).zip(text.char_indices()) {
        if quoted.is_some() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = None,
                _ => {}
            }
            continue;
        }
        let ends = character.is_whitespace() || character == '#' && start.is_none();
        if character.is_control() && !character.is_whitespace() {
            return Err(ScriptError { line, column, message: "a control character".into() });
        }
        if character == '"' {
            quoted = Some(column);
        }
        match start {
            None if character == '#' => return Ok(words),
            None if !ends => start = Some((at, column)),
            Some((first, column)) if ends => {
                words.extend(text.get(first..at).map(|text| Word { text, line, column }));
                start = None;
            }
            _ => {}
        }
    }
    if let Some(column) = quoted {
        return Err(ScriptError { line, column, message: "a quote without end".into() });
    }
    if let Some((first, column)) = start {
        words.extend(text.get(first..).map(|text| Word { text, line, column }));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::ToString, vec};

    fn file(text: &str, line: usize, column: usize) -> Part<'_> {
        Part::File(Word { text, line, column })
    }

    fn errors(script: &str) -> Vec<String> {
        parse(script.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_script_becomes_steps_with_their_lines() {
        let script = b"# what to do\r\nbatch\n\n  log debug # more\nconsole linux\nqvm @/vms/linux.qvmconf &\n";
        let steps = parse(script).unwrap();
        let qvm = Qvm { parts: vec![file("vms/linux.qvmconf", 6, 5)], background: true };
        let expected = [
            (2, Command::Batch),
            (4, Command::Log(LevelFilter::Debug)),
            (5, Command::Console("linux")),
            (6, Command::Qvm(qvm)),
        ];
        assert!(steps.into_iter().map(|step| (step.line, step.command)).eq(expected));
    }

    #[test]
    fn options_on_the_line_are_handed_on_as_they_are_written() {
        let script = "qvm @a.qvmconf cmdline \"x # \\\" y\" @/b ram 1M";
        let steps = parse(script.as_bytes()).unwrap();
        let Command::Qvm(qvm) = &steps[0].command else { panic!("not a qvm") };
        let texts: Vec<(bool, &str)> = qvm
            .parts
            .iter()
            .map(|part| match part {
                Part::File(word) => (true, word.text),
                Part::Inline(word) => (false, word.text),
            })
            .collect();
        let inline = |text| (false, text);
        let expected = [
            (true, "a.qvmconf"),
            inline("cmdline"),
            inline("\"x # \\\" y\""),
            (true, "b"),
            inline("ram"),
            inline("1M"),
        ];
        assert_eq!(texts, expected);
        assert!(!qvm.background);
    }

    #[test]
    fn errors_say_where_and_come_all_at_once() {
        let script = "qwm @a\nbatch now\nconsole\nlog loud\nqvm\n qvm & @a\nqvm @\nqvm \"x\nslay linux\nlog info x\n";
        let expected = [
            "startup:1:1: error: unknown command `qwm`; known are: qvm, batch, console, log",
            "startup:2:7: error: `batch` takes no argument",
            "startup:3:1: error: `console` needs a VM's name",
            "startup:4:5: error: `loud` is no level: error, warn, info, debug, trace or off",
            "startup:5:1: error: `qvm` needs a configuration: `qvm @FILE`",
            "startup:6:6: error: `&` must be the last word of the line",
            "startup:7:5: error: `@` needs a file's name right behind it",
            "startup:8:5: error: a quote without end",
            "startup:9:1: error: `slay` is known, not supported yet",
            "startup:10:10: error: `log` takes one argument",
        ];
        assert_eq!(errors(script), expected);
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(errors("console ü x")[0], "startup:1:11: error: `console` takes one argument");
    }

    #[test]
    fn what_is_no_text_is_an_error_and_errors_are_bounded() {
        let binary: Vec<u8> = b"\xff\n".repeat(100);
        assert_eq!(parse(&binary).unwrap_err().len(), MOST_ERRORS);
        assert_eq!(errors("qvm \x07")[0], "startup:1:5: error: a control character");
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn every_command_that_works_is_in_the_help() {
        let help: Vec<String> = help().collect();
        assert_eq!(help.len(), 4);
        assert!(help[0].starts_with("qvm @FILE [OPTION ...] [&]"));
    }
}
