//! `cargo xtask bench`: what the hypervisor costs, beside the bare machine, against the budgets of the design.
//!
//! Answers for: running `guests/bench` both ways under deterministic instruction counting, and the table with its verdict.
//! Does not answer for: how a thing is measured (`guests/bench`). An instruction count is not time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::artifacts::{self, Profile};
use crate::configuration::Configuration;
use crate::qemu::machine::{Machine, PACKAGE};
use crate::qemu::{Mode, batch, pack};
use crate::setup;
use crate::workspace::root;

/// Options of `cargo xtask bench`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print one JSON array in place of the table
    #[arg(long)]
    json: bool,
    /// Tests to run, by the names of the first column; none: all
    names: Vec<String>,
}

/// How much a thing may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Budget {
    /// At most this.
    AtMost(f64),
    /// No more than on the bare machine: no exit may be behind it.
    AsBare,
    /// Shown only.
    None,
}

/// A row of the design's table that the bench guest fills.
const BUDGETS: &[(&str, Budget)] = &[
    ("hypercall", Budget::AtMost(180.0)),
    ("unknown-hypercall", Budget::AtMost(180.0)),
    ("gicd-read", Budget::AtMost(220.0)),
    ("gicr-read", Budget::AtMost(220.0)),
    ("vdev-read", Budget::AtMost(250.0)),
    ("ipi", Budget::AtMost(1000.0)),
    ("irq-ack-eoi", Budget::AsBare),
    ("timer-late", Budget::AtMost(500.0)),
    ("uart-byte", Budget::AtMost(600.0)),
];
/// The same by size.
const IMAGE_KIB: f64 = 384.0;

const INSTRUCTIONS: &str = "instructions";
const LIMIT: Duration = Duration::from_secs(300);
const CONFIGURATION: &str = "guests/bench/bench.qvmconf";
const FLAT: &str = "target/guests/bench.bin";

/// A measured thing.
#[derive(Debug)]
struct Row {
    name: String,
    unit: &'static str,
    bare: Option<f64>,
    ours: Option<f64>,
    budget: Budget,
}

impl Row {
    /// Whether the budget is kept; `None` without one.
    fn verdict(&self) -> Option<bool> {
        match self.budget {
            Budget::None => None,
            Budget::AtMost(most) => Some(self.ours.is_some_and(|ours| ours <= most)),
            // Half an instruction: the guest's averages have a fraction.
            Budget::AsBare => Some(self.ours.zip(self.bare).is_some_and(|(ours, bare)| ours <= bare + 0.5)),
        }
    }

    fn most(&self) -> Option<f64> {
        match self.budget {
            Budget::AtMost(most) => Some(most),
            Budget::AsBare => self.bare,
            Budget::None => None,
        }
    }
}

/// The task: status 1 if a budget is not kept.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    setup::rust_target()?;
    setup::qemu()?;
    let board = artifacts::build(Some(PACKAGE), &["bench".to_string()], Profile::Release)?
        .context("the board was not built")?;
    let machine = Machine { count_instructions: true, ..Machine::default() };
    let words = arguments.names.join(" ");
    eprintln!("bench: on the bare machine ...");
    let bare = measure(machine.boot_bare(&root().join(FLAT), None, &words), None)?;
    eprintln!("bench: in a VM ...");
    let options = if words.is_empty() { String::new() } else { format!("cmdline \"{words}\"") };
    let vm = Configuration::read(&root().join(CONFIGURATION), &options)?;
    let archive = pack(std::slice::from_ref(&vm), Mode::Batch, &[])?;
    let ours = measure(machine.boot(&board.image, archive.path()), Some((&vm.name, &board.elf)))?;
    let mut rows = rows(&bare, &ours, &arguments.names);
    if arguments.names.is_empty() {
        rows.push(image_size(&board.image)?);
    }
    if arguments.json {
        println!("{}", json(&rows));
    } else {
        print!("{}", table(&rows));
    }
    Ok(u8::from(rows.iter().any(|row| row.verdict() == Some(false))))
}

/// Runs a machine and collects what its guest measures. `vm`: the name of the VM that is to end well, and the symbols.
fn measure(command: std::process::Command, vm: Option<(&str, &Path)>) -> Result<BTreeMap<String, f64>> {
    let mut text = Vec::new();
    let outcome = batch::run(command, Some(LIMIT), &mut text)?;
    let text = String::from_utf8_lossy(&text);
    if let Some((name, elf)) = vm
        && outcome.status(&[name]) != 0
    {
        bail!("the VM did not end well:\n{text}{}", outcome.epitaph_with_names(elf));
    }
    let prefix = vm.map_or(String::new(), |(name, _)| format!("{name}| "));
    let measured: BTreeMap<String, f64> =
        text.lines().filter_map(|line| measurement(line.strip_prefix(prefix.as_str())?)).collect();
    if measured.is_empty() {
        bail!("the guest measured nothing:\n{text}");
    }
    Ok(measured)
}

/// `bench: NAME VALUE [UNIT]`; a `#` in the name's place is a remark.
fn measurement(line: &str) -> Option<(String, f64)> {
    let mut words = line.trim().strip_prefix("bench: ")?.split_whitespace();
    let name = words.next().filter(|name| !name.starts_with('#'))?;
    Some((name.to_string(), words.next()?.parse().ok()?))
}

/// The budgeted rows first, in the design's order, then what else was measured. `names`: the only ones asked for.
fn rows(bare: &BTreeMap<String, f64>, ours: &BTreeMap<String, f64>, names: &[String]) -> Vec<Row> {
    let row = |name: &str, budget| Row {
        name: name.to_string(),
        unit: INSTRUCTIONS,
        bare: bare.get(name).copied(),
        ours: ours.get(name).copied(),
        budget,
    };
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let budgeted = BUDGETS.iter().filter(|(name, _)| is_wanted(name)).map(|(name, budget)| row(name, *budget));
    let others = ours.keys().filter(|name| BUDGETS.iter().all(|(budgeted, _)| budgeted != name));
    budgeted.chain(others.map(|name| row(name, Budget::None))).collect()
}

fn image_size(image: &Path) -> Result<Row> {
    let kibibytes = std::fs::metadata(image)?.len().div_ceil(1024) as f64;
    Ok(Row { name: "image".into(), unit: "KiB", bare: None, ours: Some(kibibytes), budget: Budget::AtMost(IMAGE_KIB) })
}

fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.1}"));
    let mut text = format!("{:20} {:>12} {:>12} {:>12}\n", "", "bare", "ours", "at most");
    for row in rows {
        let verdict = match row.verdict() {
            Some(true) => "ok",
            Some(false) => "OVER",
            None => "",
        };
        let unit = if row.unit == INSTRUCTIONS { "" } else { row.unit };
        let line = format!(
            "{:20} {:>12} {:>12} {:>12} {verdict:5}{unit}",
            row.name,
            number(row.bare),
            number(row.ours),
            number(row.most())
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| json!({ "name": row.name, "unit": row.unit, "bare": row.bare, "ours": row.ours, "budget": row.most(), "ok": row.verdict() });
    Value::Array(rows.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, value)| ((*name).to_string(), *value)).collect()
    }

    fn verdict(rows: &[Row], name: &str) -> Option<bool> {
        rows.iter().find(|row| row.name == name).unwrap().verdict()
    }

    #[test]
    fn lines_of_the_guest_are_read_and_remarks_are_not() {
        assert_eq!(measurement("bench: ipi 998.5 instructions"), Some(("ipi".into(), 998.5)));
        assert_eq!(measurement("bench: # timer-late: worst of 20: 700 instructions"), None);
        assert_eq!(measurement("hello: tick 1"), None);
    }

    #[test]
    fn a_budget_is_kept_or_not_and_what_was_not_measured_is_not_kept() {
        let rows = rows(
            &measured(&[("irq-ack-eoi", 21.2)]),
            &measured(&[("hypercall", 180.0), ("gicd-read", 220.1), ("irq-ack-eoi", 21.6), ("extra", 5.0)]),
            &[],
        );
        assert_eq!(verdict(&rows, "hypercall"), Some(true));
        assert_eq!(verdict(&rows, "gicd-read"), Some(false));
        assert_eq!(verdict(&rows, "vdev-read"), Some(false));
        assert_eq!(verdict(&rows, "irq-ack-eoi"), Some(true));
        assert_eq!(verdict(&rows, "extra"), None);
    }

    #[test]
    fn only_the_rows_asked_for_are_judged() {
        let ours = measured(&[("ipi", 5.0)]);
        assert_eq!(rows(&ours, &ours, &["ipi".to_string()]).len(), 1);
    }

    #[test]
    fn the_json_form_has_a_field_for_each_column() {
        let ours = measured(&[("hypercall", 100.0)]);
        let value = json(&rows(&ours, &ours, &["hypercall".to_string()]));
        assert_eq!(
            value[0],
            json!({"name": "hypercall", "unit": "instructions", "bare": 100.0, "ours": 100.0, "budget": 180.0, "ok": true})
        );
    }
}
