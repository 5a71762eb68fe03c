//! The start-up script: what the hypervisor does when it is up. The file `startup` of the boot archive, a command a line.

use super::{
    Command, CommandError,
    command::{Place, read_at},
};
use alloc::vec::Vec;

/// The script's name in the archive.
pub const FILE: &str = "startup";
/// Most errors that are reported for one script.
const MOST_ERRORS: usize = 20;

/// A command and its line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Where it is.
    pub line: usize,
    /// What it is.
    pub command: Command<'a>,
}

/// Reads a script.
///
/// # Errors
/// Everything that is wrong with it, up to a limit.
pub fn parse(script: &[u8]) -> Result<Vec<Step<'_>>, Vec<CommandError>> {
    let mut steps = Vec::new();
    let mut errors = Vec::new();
    for (bytes, line) in script.split(|byte| *byte == b'\n').zip(1..) {
        match core::str::from_utf8(bytes) {
            Ok(text) => match read_at(text, Place::Script, line) {
                Ok(Some(command)) => steps.push(Step { line, command }),
                Ok(None) => {}
                Err(error) => errors.push(error),
            },
            Err(_) => errors.push(CommandError { line, column: 1, message: "the line is not UTF-8".into() }),
        }
        if errors.len() >= MOST_ERRORS {
            break;
        }
    }
    if errors.is_empty() { Ok(steps) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::{Part, Pidin, Qvm, Signal, Word};
    use ::log::LevelFilter;
    use alloc::{
        string::{String, ToString},
        vec,
    };

    fn file(text: &str, line: usize, column: usize) -> Part<'_> {
        Part::File(Word { text, line, column })
    }

    fn errors(script: &str) -> Vec<String> {
        parse(script.as_bytes()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_script_becomes_steps_with_their_lines() {
        let script = b"# what to do\r\nbatch\n\n  log debug # more\nconsole linux\nqvm @/vms/linux.qvmconf &\n\
            sleep 0.25\nwait\nslay -s USR1 linux\npidin threads\nshutdown\n";
        let steps = parse(script).unwrap();
        let qvm = Qvm { parts: vec![file("vms/linux.qvmconf", 6, 5)], background: true };
        let expected = [
            (2, Command::Batch),
            (4, Command::Log(LevelFilter::Debug)),
            (5, Command::Console("linux")),
            (6, Command::Qvm(qvm)),
            (7, Command::Sleep { milliseconds: 250 }),
            (8, Command::Wait(vec![])),
            (9, Command::Slay(Signal::Usr1, vec!["linux"])),
            (10, Command::Pidin(Pidin::Threads)),
            (11, Command::End { reset: false, force: false }),
        ];
        assert!(steps.into_iter().map(|step| (step.line, step.command)).eq(expected));
    }

    #[test]
    fn options_on_the_line_are_handed_on_as_they_are_written() {
        let script = "qvm @a.qvmconf cmdline \"x # \\\" y\" @/b ram 1M\ndryrun @a &";
        let steps = parse(script.as_bytes()).unwrap();
        let parts = |step: usize| {
            let Command::Qvm(qvm) = &steps[step].command else { panic!("not a qvm") };
            let text = |part: &Part<'static>| match part {
                Part::File(word) => (true, word.text),
                Part::Inline(word) => (false, word.text),
            };
            (qvm.parts.iter().map(text).collect::<Vec<(bool, &str)>>(), qvm.background)
        };
        let inline = |text| (false, text);
        let expected = vec![
            (true, "a.qvmconf"),
            inline("cmdline"),
            inline("\"x # \\\" y\""),
            (true, "b"),
            inline("ram"),
            inline("1M"),
        ];
        assert_eq!(parts(0), (expected, false));
        assert_eq!(parts(1), (vec![(true, "a"), inline("dryrun")], true));
    }

    #[test]
    fn errors_say_where_and_come_all_at_once() {
        let script = "qwm @a\nbatch now\nconsole\nlog loud\nqvm\n qvm & @a\nqvm @\nqvm \"x\nsmmuman\nlog info x\n\
            frobnicate\ntop\ndryrun\n";
        let expected = [
            "startup:1:1: error: unknown command `qwm`; did you mean `qvm`?",
            "startup:2:7: error: `batch` takes no argument",
            "startup:3:1: error: usage: `console NAME`",
            "startup:4:5: error: `loud` is no level: error, warn, info, debug, trace or off",
            "startup:5:1: error: `qvm` needs a configuration: `qvm @FILE`",
            "startup:6:6: error: `&` must be the last word of the line",
            "startup:7:5: error: `@` needs a file's name right behind it",
            "startup:8:5: error: a quote without end",
            "startup:9:1: error: `smmuman` needs a configuration: `smmuman @FILE`",
            "startup:10:10: error: usage: `log LEVEL`",
            "startup:11:1: error: unknown command `frobnicate`; `help` lists them all",
            "startup:12:1: error: `top` is for the shell, not for a script",
            "startup:13:1: error: `dryrun` needs a configuration: `dryrun @FILE`",
        ];
        assert_eq!(errors(script), expected);
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(errors("console ü x")[0], "startup:1:11: error: usage: `console NAME`");
    }

    #[test]
    fn what_is_no_text_is_an_error_and_errors_are_bounded() {
        let binary: Vec<u8> = b"\xff\n".repeat(100);
        assert_eq!(parse(&binary).unwrap_err().len(), MOST_ERRORS);
        assert_eq!(errors("qvm \x07")[0], "startup:1:5: error: a control character");
        assert_eq!(parse(b"").unwrap(), []);
    }
}
