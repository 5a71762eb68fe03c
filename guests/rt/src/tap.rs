//! Test results, as the Test Anything Protocol wants them (version 14).
//!
//! Answers for: running a list of tests, numbering, one line each, the plan at the end, a summary that scripts can judge.
//! Does not answer for: an exit code; a guest has none.

use core::fmt;

use arrayvec::ArrayString;

use crate::machine::Machine;
use crate::println;

/// Why a test did not pass.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The machine cannot show it.
    Skip(&'static str),
    /// It is wrong, and how.
    Fail(ArrayString<112>),
}

/// What a test returns.
pub type Outcome = Result<(), Verdict>;

/// One test: a sentence that it proves, and the proof.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// `area: sentence`.
    pub name: &'static str,
    /// The proof.
    pub run: fn(&'static Machine) -> Outcome,
}

impl Verdict {
    /// A failure; a text that is too long is cut.
    #[must_use]
    pub fn fail(message: fmt::Arguments<'_>) -> Self {
        let mut text = ArrayString::new();
        let _ = fmt::Write::write_fmt(&mut text, message);
        Self::Fail(text)
    }
}

/// Runs the selected tests, prints the results, returns how many failed.
pub fn run(suite: &str, machine: &'static Machine, tests: impl Iterator<Item = &'static Test>) -> usize {
    let (mut number, mut failed, mut skipped) = (0, 0, 0);
    println!("TAP version 14");
    for test in tests.filter(|test| machine.selects(test.name)) {
        number += 1;
        match (test.run)(machine) {
            Ok(()) => println!("ok {number} - {}", test.name),
            Err(Verdict::Skip(reason)) => {
                skipped += 1;
                println!("ok {number} - {} # SKIP {reason}", test.name);
            }
            Err(Verdict::Fail(message)) => {
                failed += 1;
                println!("not ok {number} - {}\n  # {message}", test.name);
            }
        }
    }
    println!("1..{number}");
    println!("# pass {}", number - failed - skipped);
    println!("# skip {skipped}");
    println!("# fail {failed}");
    if failed == 0 {
        println!("# {suite}: PASSED {number}");
    } else {
        println!("# {suite}: FAILED {failed}");
    }
    failed
}

/// Fails the test unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::tap::Verdict::fail(format_args!($($message)+)));
        }
    };
}

/// Fails the test unless both are equal; numbers are shown in hexadecimal.
#[macro_export]
macro_rules! check_equal {
    ($found:expr, $wanted:expr, $what:expr) => {{
        let (found, wanted) = ($found, $wanted);
        if found != wanted {
            return Err($crate::tap::Verdict::fail(format_args!("{}: found {found:#x?}, wanted {wanted:#x?}", $what)));
        }
    }};
}
