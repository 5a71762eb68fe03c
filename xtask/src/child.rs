//! Child processes that never outlive the tool.
//!
//! Answers for: a QEMU that ends when the tool ends, however the tool ends (return, panic, signal, `kill -9`), and for
//! reading its output against a deadline. Does not answer for: what the output means.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::workspace::{describe, find_program};

/// How many bytes are read from a child at a time.
const CHUNK: usize = 1 << 16;
/// How long more is waited for: QEMU writes byte by byte, and a reader that wakes for each slows it down several times.
const PAUSE: Duration = Duration::from_millis(1);

/// Where a child's standard input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The user's terminal.
    Terminal,
    /// Nothing: end of file at once.
    None,
    /// [`Guarded::send`].
    Piped,
}

/// A command which the kernel of the user's machine kills when the thread that started it ends.
///
/// `prctl(PR_SET_PDEATHSIG)` has to be called between `fork` and `exec`, which needs `unsafe`; `setpriv(1)` does it for us
/// and then becomes the program. Where there is no such tool the program runs as it is.
pub(crate) fn guarded(program: impl AsRef<OsStr>) -> Command {
    match find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// A running child: killed when dropped. Drop and start it on the same thread.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
}

/// What [`Guarded::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Some bytes, never none.
    Bytes(Vec<u8>),
    /// Nothing until the deadline.
    Late,
    /// The child has closed its output.
    End,
}

impl Guarded {
    /// Starts `command`; its standard output is for [`Guarded::read`], its standard error for the user.
    pub(crate) fn start(mut command: Command, input: Input) -> Result<Guarded> {
        command.stdin(match input {
            Input::Terminal => Stdio::inherit(),
            Input::None => Stdio::null(),
            Input::Piped => Stdio::piped(),
        });
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", describe(&command)))?;
        let input = child.stdin.take();
        let mut stdout = child.stdout.take().context("the child has no standard output")?;
        let (sender, output) = channel();
        // Ends with the pipe, or when nobody listens any more.
        std::thread::spawn(move || {
            let mut chunk = [0; CHUNK];
            while let Ok(count @ 1..) = stdout.read(&mut chunk) {
                if sender.send(chunk.get(..count).unwrap_or_default().to_vec()).is_err() {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        });
        Ok(Guarded { child, input, output })
    }

    /// Waits for output until `deadline`, for ever without one.
    pub(crate) fn read(&self, deadline: Option<Instant>) -> Output {
        let received = match deadline {
            None => self.output.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok(bytes) => Output::Bytes(bytes),
            Err(RecvTimeoutError::Timeout) => Output::Late,
            Err(RecvTimeoutError::Disconnected) => Output::End,
        }
    }

    /// Writes to the standard input of a child started with [`Input::Piped`].
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let input = self.input.as_mut().context("this child takes no input")?;
        input.write_all(bytes).and_then(|()| input.flush()).context("cannot write to the child")
    }

    /// Waits for the child to end by itself, at most `limit`; then kills it.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Either fails only when the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = guarded("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_arrives_while_the_child_runs_and_then_its_end() {
        let mut child = Guarded::start(shell("echo one; read word; echo $word"), Input::Piped).unwrap();
        assert_eq!(child.read(None), Output::Bytes(b"one\n".to_vec()));
        child.send(b"two\n").unwrap();
        assert_eq!(child.read(None), Output::Bytes(b"two\n".to_vec()));
        assert_eq!(child.read(None), Output::End);
        assert!(child.finish(Duration::from_secs(5)).unwrap().success());
    }

    #[test]
    fn a_silent_child_is_late_and_is_killed() {
        let mut child = Guarded::start(shell("exec sleep 600"), Input::None).unwrap();
        assert_eq!(child.read(Some(Instant::now() + Duration::from_millis(20))), Output::Late);
        assert!(!child.finish(Duration::from_millis(10)).unwrap().success());
    }

    #[test]
    fn dropping_a_child_ends_it() {
        let child = Guarded::start(shell("echo $$; exec sleep 600"), Input::None).unwrap();
        let Output::Bytes(identifier) = child.read(None) else { panic!("no output") };
        drop(child);
        let identifier = String::from_utf8(identifier).unwrap();
        assert!(!std::path::Path::new("/proc").join(identifier.trim()).exists());
    }
}
