//! `cargo xtask check`: is a configuration right?
//!
//! Answers for: asking the code that EL2 runs, without booting anything. In-tree guests that are named are built first.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::artifacts::{self, Profile};
use crate::configuration::Configuration;

/// Options of `cargo xtask check`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration
    #[arg(value_name = "CONFIG.qvmconf", required = true)]
    configurations: Vec<PathBuf>,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    for path in &arguments.configurations {
        let configuration = Configuration::read(path, "", None)?;
        artifacts::provide(std::slice::from_ref(&configuration), &[], None, Profile::Release)?;
        configuration.check()?;
    }
    Ok(0)
}
