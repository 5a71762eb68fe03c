//! A run for a script: no input, every VM's lines prefixed with its name.
//!
//! Answers for: reading the hypervisor's words on the serial line, and the exit status that follows from them: the first
//! code that is not zero in the order of the configurations, else 0; 124 when the time is over; 70 when the hypervisor
//! failed; 1 when QEMU did. The words are: `qvm: NAME ended: code N (WORDS)`, `bulkhead: all VMs have ended`, `bulkhead: panic ...`. A line
//! of a VM begins with `NAME| ` and is never mistaken for one of them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::child::{Guarded, Input, Output};
use crate::failure;
use crate::symbols::Epitaph;

const ALL_ENDED: &str = "bulkhead: all VMs have ended";
/// How long QEMU may take to power off when nothing more is to come, or to finish an epitaph.
const GRACE: Duration = Duration::from_secs(3);

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Each VM that ended, in the order of their ends.
    pub(crate) ends: Vec<(String, u8)>,
    /// Whether the hypervisor said that it was done.
    pub(crate) all_ended: bool,
    /// Whether the time was over.
    pub(crate) late: bool,
    /// How QEMU ended, if it was not content.
    failed: Option<ExitStatus>,
    /// What the hypervisor said when it failed.
    epitaph: Epitaph,
}

impl Outcome {
    /// The exit status, for VMs of these names in this order.
    pub(crate) fn status(&self, names: &[&str]) -> u8 {
        if self.epitaph.seen() {
            return failure::HYPERVISOR;
        }
        if self.late {
            return failure::TIMEOUT;
        }
        if self.failed.is_some() {
            return failure::TOOL;
        }
        if !self.all_ended {
            return failure::HYPERVISOR;
        }
        let mut ends: Vec<_> = self.ends.iter().collect();
        let mut first = 0;
        for name in names {
            // Two VMs of one name: the first to end counts for the first.
            let Some(index) = ends.iter().position(|(ended, _)| ended == name) else { return failure::HYPERVISOR };
            let (_, code) = ends.remove(index);
            if first == 0 {
                first = *code;
            }
        }
        first
    }

    /// Tells the user what the output does not, and returns the exit status.
    pub(crate) fn explain(&self, names: &[&str], elf: &Path) -> u8 {
        if self.epitaph.seen() {
            eprint!("{}", self.epitaph_with_names(elf));
        } else if self.late {
            eprintln!("error: the time given by --timeout is over");
        } else if let Some(status) = self.failed {
            eprintln!("error: QEMU failed ({status})");
        } else if !self.all_ended {
            eprintln!("error: the machine stopped before all VMs had ended");
        } else if let Some(name) = names.iter().find(|name| self.ends.iter().all(|(ended, _)| ended != *name)) {
            eprintln!("error: the hypervisor reported no end of the VM `{name}`");
        }
        self.status(names)
    }

    /// The names behind the addresses of the epitaph; empty if there is none.
    pub(crate) fn epitaph_with_names(&self, elf: &Path) -> String {
        epitaph_with_names(&self.epitaph, elf)
    }

    fn line(&mut self, line: &str) {
        self.epitaph.line(line);
        self.all_ended |= line == ALL_ENDED;
        self.ends.extend(end(line));
    }
}

/// What there is to say of an epitaph, in whole lines; empty if there is none.
pub(crate) fn epitaph_with_names(epitaph: &Epitaph, elf: &Path) -> String {
    if !epitaph.seen() {
        return String::new();
    }
    match epitaph.explain(elf) {
        Ok(text) if text.is_empty() => "error: the hypervisor failed\n".into(),
        Ok(text) => format!("error: the hypervisor failed; its backtrace with names:\n{text}"),
        Err(error) => format!("error: the hypervisor failed; no names for its backtrace: {error:#}\n"),
    }
}

/// Name and code of `qvm: NAME ended: code N (WORDS)`, if that was the end.
fn end(line: &str) -> Option<(String, u8)> {
    let (name, rest) = line.strip_prefix("qvm: ")?.split_once(" ended: code ")?;
    let (code, words) = rest.split_once(' ')?;
    // A VM that is started again has not ended for good (`on-exit`).
    if words.contains("); starting it again (") {
        return None;
    }
    Some((name.to_string(), code.parse().ok()?))
}

/// Runs QEMU to its end or the end of the time; what it prints goes to `sink` as it comes, with plain line ends.
pub(crate) fn run(command: Command, limit: Option<Duration>, sink: &mut dyn Write) -> Result<Outcome> {
    let mut child = Guarded::start(command, Input::None)?;
    let mut deadline = limit.map(|limit| Instant::now() + limit);
    let mut outcome = Outcome::default();
    let mut line = Vec::new();
    let mut closing = false;
    loop {
        match child.read(deadline) {
            Output::Bytes(mut bytes) => {
                bytes.retain(|byte| *byte != b'\r');
                sink.write_all(&bytes)?;
                sink.flush()?;
                for byte in bytes {
                    match byte {
                        b'\n' => {
                            outcome.line(&String::from_utf8_lossy(&line));
                            line.clear();
                        }
                        _ => line.push(byte),
                    }
                }
            }
            Output::Late => break outcome.late = !closing,
            Output::End => break,
        }
        if !closing && (outcome.all_ended || outcome.epitaph.seen()) {
            // What is still to come comes at once.
            closing = true;
            let grace = Instant::now() + GRACE;
            deadline = Some(deadline.map_or(grace, |deadline| deadline.min(grace)));
        }
    }
    // A last line without its end: a machine that was cut off.
    outcome.line(&String::from_utf8_lossy(&line));
    // Dead already, unless it is late.
    let status = child.finish(if outcome.late { Duration::ZERO } else { Duration::from_secs(1) })?;
    // One that was killed has no code: here, or by somebody who had a reason.
    outcome.failed = Some(status).filter(|status| status.code().is_some_and(|code| code != 0));
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome of a machine that prints `text`, and what went to the sink.
    fn outcome(text: &str) -> (Outcome, String) {
        let mut command = Command::new("printf");
        command.args(["%b", text]);
        let mut sink = Vec::new();
        let outcome = run(command, Some(Duration::from_secs(20)), &mut sink).unwrap();
        (outcome, String::from_utf8(sink).unwrap())
    }

    #[test]
    fn the_status_is_the_first_code_that_is_not_zero_in_the_order_of_the_configurations() {
        let text = "qvm: b ended: code 3 (power cut)\r\nqvm: a ended: code 0 (normal)\r\n\
                    qvm: c ended: code 5 (unsupported)\r\nbulkhead: all VMs have ended\r\n";
        let (outcome, shown) = outcome(text);
        assert_eq!(outcome.status(&["a", "b", "c"]), 3);
        assert_eq!(outcome.status(&["a", "c", "b"]), 5);
        assert_eq!(outcome.status(&["a"]), 0);
        assert!(!shown.contains('\r'));
    }

    #[test]
    fn a_line_of_a_vm_is_not_taken_for_the_hypervisors() {
        let text = "a| qvm: a ended: code 9 (x)\\na| bulkhead: panic\\na| bulkhead: all VMs have ended\\n";
        let (outcome, _) = outcome(text);
        assert!(outcome.ends.is_empty() && !outcome.all_ended);
        assert_eq!(outcome.status(&["a"]), 70, "ended without a word");
    }

    #[test]
    fn a_panic_is_70_whatever_else_was_said() {
        let (outcome, _) = outcome("bulkhead: panic on CPU 0\\nbulkhead: all VMs have ended\\n");
        assert_eq!(outcome.status(&[]), 70);
    }

    #[test]
    fn a_machine_that_cannot_be_used_is_70_even_if_it_stays_on() {
        let mut command = crate::child::guarded("sh");
        command.args(["-c", "echo 'bulkhead: cannot run here: no GICv3'; exec sleep 600"]);
        assert_eq!(run(command, None, &mut Vec::new()).unwrap().status(&[]), 70);
    }

    #[test]
    fn a_qemu_that_fails_is_1() {
        let mut command = crate::child::guarded("sh");
        command.args(["-c", "echo 'unable to find CPU model' >&2; exit 1"]);
        assert_eq!(run(command, None, &mut Vec::new()).unwrap().status(&["a"]), 1);
    }

    #[test]
    fn a_vm_without_an_end_is_70() {
        assert_eq!(outcome("bulkhead: all VMs have ended\\n").0.status(&["a"]), 70);
    }

    #[test]
    fn two_vms_of_one_name_count_one_after_the_other() {
        let (outcome, _) = outcome(
            "qvm: a ended: code 0 (normal)\\nqvm: a ended: code 4 (watchdog)\\nbulkhead: all VMs have ended\\n",
        );
        assert_eq!(outcome.status(&["a", "a"]), 4);
    }

    #[test]
    fn a_machine_that_runs_on_is_late() {
        let mut command = crate::child::guarded("sh");
        command.args(["-c", "echo 'qvm: a ended: code 0 (normal)'; exec sleep 600"]);
        let outcome = run(command, Some(Duration::from_millis(300)), &mut Vec::new()).unwrap();
        assert_eq!(outcome.status(&["a"]), 124);
    }
}
