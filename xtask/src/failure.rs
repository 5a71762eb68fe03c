//! Exit statuses of the tool.
//!
//! Answers for: the numbers that scripts rely on, and for carrying one of them inside an `anyhow::Error`. 64 and 65 are
//! `EX_USAGE` and `EX_DATAERR` of `sysexits.h`, 70 is `EX_SOFTWARE`; 124 is what `timeout(1)` answers.

use std::fmt;

/// A build or a tool failed; so says every error that asks for nothing else.
pub(crate) const TOOL: u8 = 1;
/// The request itself is wrong, or asks for what is not supported yet.
pub(crate) const USAGE: u8 = 64;
/// A configuration, or a file that it names, is wrong.
pub(crate) const DATA: u8 = 65;
/// The hypervisor itself failed.
pub(crate) const HYPERVISOR: u8 = 70;
/// The time given by `--timeout` is over.
pub(crate) const TIMEOUT: u8 = 124;

/// An error that asks for a certain exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// An error with the exit status 64.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure { status: USAGE, message: message.into() }.into()
}

/// An error with the exit status 65.
pub(crate) fn data(message: impl Into<String>) -> anyhow::Error {
    Failure { status: DATA, message: message.into() }.into()
}

/// The exit status that `error` asks for; 1 when it asks for none.
pub(crate) fn status(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Failure>().map_or(1, |failure| failure.status)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    #[test]
    fn a_status_survives_added_context() {
        let error = Err::<(), _>(super::data("no such file")).context("guests/hello/hello.qvmconf").unwrap_err();
        assert_eq!(super::status(&error), 65);
        assert_eq!(super::status(&anyhow::anyhow!("anything else")), 1);
    }
}
