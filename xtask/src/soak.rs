//! `cargo xtask soak`: the ordeals of `cargo xtask test` in full, for hours, and a table of what came of them.
//!
//! Answers for: choosing among them, progress, the table. Does not answer for: what they do (`test::ordeals`).

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::artifacts::{self, Profile};
use crate::qemu::machine::PACKAGE;
use crate::setup;
use crate::test::machine::{Case, with_tail};
use crate::test::ordeals::{self, ORDEALS, Ordeal};

/// Options of `cargo xtask soak`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only the ordeals that have this in their name
    filter: Option<String>,
    /// How often each, instead of as often as it should
    #[arg(long)]
    times: Option<usize>,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let filter = arguments.filter.as_deref().unwrap_or_default();
    let chosen: Vec<&Ordeal> = ORDEALS.iter().filter(|ordeal| ordeal.name.contains(filter)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ORDEALS.iter().map(|ordeal| ordeal.name).collect();
        bail!("no ordeal has `{filter}` in its name; there are {}", names.join(", "));
    }
    setup::rust_target()?;
    setup::qemu()?;
    let board = artifacts::build(Some(PACKAGE), &artifacts::guests()?, Profile::Release)?;
    let mut table = Vec::new();
    let mut failed = 0;
    for ordeal in chosen {
        let times = arguments.times.unwrap_or(ordeal.full);
        eprintln!("soak: {} x {times}: {} ...", ordeal.name, ordeal.about);
        let (start, log) = (Instant::now(), ordeals::log(ordeal));
        let case = Case::new(&format!("soak/{}", ordeal.name), &log, board.as_ref())?;
        let row = match ordeal.endure(&case, times) {
            Ok(figures) => {
                let verdict = Ordeal::judge(&figures);
                failed += u8::from(verdict.is_err());
                let word = if verdict.is_ok() { "ok" } else { "FAILED" };
                format!("{} {word}", ordeals::row(ordeal, &figures, start.elapsed().as_secs_f32()))
            }
            Err(error) => {
                failed += 1;
                eprintln!("{:#}\noutput: {}", with_tail(error, &log), log.display());
                format!("{:12} FAILED", ordeal.name)
            }
        };
        eprintln!("soak: {row}");
        table.push(row);
    }
    println!(
        "{:12} {:>7} {:>9} {:>10} {:>9} {:>7} {:>7} {:>7} {:>7} {:>7} {:>10}",
        "", "ends", "KiB lost", "bytes lost", "ticks", "missed", "late us", "rounds", "changed", "faults", "took"
    );
    table.iter().for_each(|row| println!("{row}"));
    Ok(u8::from(failed > 0))
}
