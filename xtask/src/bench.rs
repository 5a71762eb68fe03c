//! `cargo xtask bench`: what the hypervisor costs, beside the bare machine, against the budgets of the design.
//!
//! Answers for: running `guests/bench` both ways under deterministic instruction counting, and the table with its verdict.
//! Does not answer for: how a thing is measured (`guests/bench`). An instruction count is not time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::artifacts::{self, Board};
use crate::configuration::Configuration;
use crate::qemu::machine::{Machine, PACKAGE, set_default_gic};
use crate::qemu::{Mode, batch, pack};
use crate::setup;
use crate::workspace::{root, target};

mod company;
mod disk;
mod filesystem;
mod net;
mod pci;
mod profile;

use profile::Profile;

/// Options of `cargo xtask bench`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Print one JSON array in place of the table
    #[arg(long)]
    json: bool,
    /// Print which functions of the hypervisor execute how many instructions meanwhile
    #[arg(long)]
    profile: bool,
    /// Version of the machines' interrupt controller
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    gic: u8,
    /// Things to measure, by the names of the first column; none: all
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
    ("vdev-read", Budget::AtMost(250.0)),
    ("ipi", Budget::AtMost(1000.0)),
    ("irq-ack-eoi", Budget::AsBare),
    ("timer-late", Budget::AtMost(500.0)),
    ("device-irq", Budget::AtMost(1_650.0)),
    ("uart-byte", Budget::AtMost(600.0)),
    ("virtio-console-byte", Budget::AtMost(12.0)),
];
/// What the design allows on a GICv2, where that is not the same.
const ON_GICV2: &[(&str, Budget)] = &[("ipi", Budget::AtMost(950.0)), ("timer-late", Budget::AtMost(350.0))];
/// From the first instruction at EL2 to the first of a guest with 128 MiB of RAM on one CPU.
const BOOT: (&str, Budget) = ("boot", Budget::AtMost(4_000_000.0));
/// The hypervisor's share of a Linux boot from the kernel's entry to `/init`, by vCPUs and CPUs.
const LINUX: [(&str, u32, Budget); 2] =
    [("linux-boot-1", 1, Budget::AtMost(0.08)), ("linux-boot-2", 2, Budget::AtMost(0.25))];
/// RAM that nobody has any more while that VM runs on two CPUs, beside the VM's own.
const MEMORY: (&str, Budget) = ("memory", Budget::AtMost(3072.0));
/// What a VM costs from its configuration to its end, on average, when so many are started at once; and how much more it may
/// be among many than among few.
const LIVES: [(&str, u32); 2] = [("vm-life-of-8", 8), ("vm-life-of-64", 64)];
const CONSTANT: f64 = 1.15;
/// What a guest measures while it is traced, with all the work of its recording: beside the same untraced, shown only.
const TRACED: [(&str, &str); 2] = [("hypercall-traced", "hypercall"), ("vdev-read-traced", "vdev-read")];
/// The size of the file.
const IMAGE: (&str, Budget) = ("image", Budget::AtMost(384.0));

/// The plainest exit, whose cost is taken apart.
const HYPERCALL: &str = "hypercall";
/// No benchmark has this name.
const NOTHING: &str = "nothing";
/// How many functions a profile names.
const FUNCTIONS: usize = 60;
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
    set_default_gic(arguments.gic);
    let guests = ["bench".to_string(), "hello".to_string()];
    let board =
        artifacts::build(Some(PACKAGE), &guests, artifacts::Profile::Release)?.context("the board was not built")?;
    let bench = Bench { board, names: &arguments.names, profile: arguments.profile };
    let mut rows = bench.guest()?;
    rows.extend(bench.traced()?);
    rows.extend(bench.company()?);
    rows.extend(bench.disk()?);
    rows.extend(bench.net()?);
    rows.extend(bench.filesystem()?);
    rows.extend(bench.pci()?);
    if bench.wants(BOOT.0) {
        rows.push(bench.boot()?);
    }
    for (name, cpus, budget) in LINUX {
        if bench.wants(name) {
            rows.push(bench.linux(name, cpus, budget)?);
        }
    }
    if bench.wants(MEMORY.0) {
        rows.push(bench.memory()?);
    }
    if LIVES.iter().any(|(name, _)| bench.wants(name)) {
        rows.extend(bench.lives()?);
    }
    if bench.wants(IMAGE.0) {
        let kibibytes = std::fs::metadata(&bench.board.image)?.len().div_ceil(1024) as f64;
        rows.push(Row { name: IMAGE.0.into(), unit: "KiB", bare: None, ours: Some(kibibytes), budget: IMAGE.1 });
    }
    if arguments.json {
        println!("{}", json(&rows));
    } else {
        print!("{}", table(&rows));
    }
    Ok(u8::from(rows.iter().any(|row| row.verdict() == Some(false))))
}

/// What is to be measured, on what.
struct Bench<'a> {
    board: Board,
    names: &'a [String],
    profile: bool,
}

impl Bench<'_> {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }

    /// What the bench guest measures itself.
    fn guest(&self) -> Result<Vec<Row>> {
        let elsewhere = [BOOT.0, IMAGE.0, MEMORY.0, LINUX[0].0, LINUX[1].0, LIVES[0].0, LIVES[1].0];
        let is_traced = |name: &&str| TRACED.iter().any(|(traced, _)| traced == name);
        let elsewhere = |name: &&str| {
            let others =
                [company::NAMES.as_slice(), &disk::NAMES, &net::NAMES, &filesystem::NAMES, &pci::NAMES].concat();
            elsewhere.contains(name) || others.contains(name) || is_traced(name)
        };
        let names: Vec<&str> = self.names.iter().map(String::as_str).filter(|name| !elsewhere(name)).collect();
        if names.is_empty() && !self.names.is_empty() {
            return Ok(Vec::new());
        }
        let machine = counting(2);
        let words = names.join(" ");
        eprintln!("bench: the guest on the bare machine ...");
        let bare = measure(machine.boot_bare(&root().join(FLAT), None, &words), None)?;
        eprintln!("bench: the guest in a VM ...");
        let options = if words.is_empty() { String::new() } else { format!("cmdline \"{words}\"") };
        let vm = Configuration::read(&root().join(CONFIGURATION), &options, None)?;
        let archive = pack(std::slice::from_ref(&vm), Mode::Batch, &[])?;
        let command = machine.boot(&self.board.image, archive.path())?;
        let ours = measure(command, Some((&vm.name, &self.board.elf)))?;
        // One thing can be taken apart at a time: the plainest, or the one that is asked for.
        let (apart, wanted) = match names.as_slice() {
            [] => (HYPERCALL, true),
            [name] => (*name, true),
            _ => (HYPERCALL, false),
        };
        if wanted {
            eprintln!("bench: {apart} taken apart ...");
            let counts = |words: &str| {
                let vm = Configuration::read(&root().join(CONFIGURATION), &format!("cmdline {words}"), None)?;
                Profile::take(&self.board, &machine, &[vm], None)
            };
            self.explain(apart, &counts(apart)?.without(&counts(NOTHING)?))?;
        }
        Ok(rows(Machine::default().gic, &bare, &ours, &names))
    }

    /// The same guest as above, being traced.
    fn traced(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, plain) in TRACED.into_iter().filter(|(name, _)| self.wants(name)) {
            eprintln!("bench: the guest in a VM that is traced ...");
            let vm = Configuration::read(&root().join(CONFIGURATION), &format!("cmdline {plain}"), None)?;
            let archive = pack(std::slice::from_ref(&vm), Mode::Traced(None), &[])?;
            let command = counting(2).boot(&self.board.image, archive.path())?;
            let ours = measure(command, Some((&vm.name, &self.board.elf)))?.get(plain).copied();
            rows.push(Row { name: name.into(), unit: INSTRUCTIONS, bare: None, ours, budget: Budget::None });
            if self.profile {
                let counts = Profile::take_as(Mode::Traced(None), &self.board, &counting(2), &[vm], None)?;
                self.explain(name, &counts)?;
            }
        }
        Ok(rows)
    }

    fn boot(&self) -> Result<Row> {
        eprintln!("bench: from the first instruction to a guest's first ...");
        let vm = Configuration::read(&scratch("boot", "load ../../guests/hello.elf", 1, 128, "")?, "", None)?;
        let counts = Profile::take(&self.board, &counting(1), &[vm], None)?;
        let (name, budget) = BOOT;
        let ours = Some(counts.boot() as f64);
        if self.profile {
            self.explain(name, &counts.of_boot())?;
        }
        Ok(Row { name: name.into(), unit: INSTRUCTIONS, bare: None, ours, budget })
    }

    fn memory(&self) -> Result<Row> {
        eprintln!("bench: memory gone with one VM ...");
        let vm = Configuration::read(&scratch("memory", "load ../../guests/hello.elf", 1, 128, "")?, "", None)?;
        let archive = pack(&[vm], Mode::Debugged, &[])?;
        let mut text = Vec::new();
        batch::run(counting(2).boot(&self.board.image, archive.path())?, Some(LIMIT), &mut text)?;
        let text = String::from_utf8_lossy(&text);
        let gone = text.lines().find_map(memory_gone).with_context(|| format!("nothing is said of memory:\n{text}"))?;
        let (name, budget) = MEMORY;
        Ok(Row { name: name.into(), unit: "KiB", bare: None, ours: Some(gone - f64::from(128 << 10)), budget })
    }

    /// Both, whichever is asked for: the first is the second's budget.
    fn lives(&self) -> Result<Vec<Row>> {
        let [(few, fewer), (many, more)] = LIVES;
        let (among_few, among_many) = (self.life_among(fewer)?, self.life_among(more)?);
        let row = |name: &str, ours, budget| Row {
            name: name.into(),
            unit: INSTRUCTIONS,
            bare: None,
            ours: Some(ours),
            budget,
        };
        let budget = Budget::AtMost(among_few * CONSTANT);
        Ok([row(few, among_few, Budget::None), row(many, among_many, budget)].into())
    }

    fn life_among(&self, vms: u32) -> Result<f64> {
        eprintln!("bench: {vms} VMs at once ...");
        let vm = |number| {
            let path = scratch(&format!("life{number}"), "load ../../guests/hello.elf", 1, 2, "ticks=0")?;
            Configuration::read(&path, "", None)
        };
        let configurations: Vec<Configuration> = (0..vms).map(vm).collect::<Result<_>>()?;
        let archive = pack(&configurations, Mode::Debugged, &[])?;
        let mut text = Vec::new();
        batch::run(counting(1).boot(&self.board.image, archive.path())?, Some(LIMIT), &mut text)?;
        let text = String::from_utf8_lossy(&text);
        let seconds = |what: &str| {
            let line =
                text.lines().rev().find(|line| line.contains(what)).with_context(|| format!("no `{what}`:\n{text}"));
            Ok::<f64, anyhow::Error>(
                line?.trim_start_matches(['[', ' ']).split(']').next().unwrap_or_default().parse()?,
            )
        };
        // An instruction takes a nanosecond.
        Ok((seconds(" is gone: ")? - seconds("Bulkhead ")?) * 1e9 / f64::from(vms))
    }

    fn linux(&self, name: &str, cpus: u32, budget: Budget) -> Result<Row> {
        eprintln!("bench: Linux from its entry to /init, {cpus} vCPU(s) ...");
        setup::linux_guest()?;
        let load = "load ../../guests/linux/Image\ninitrd load ../../guests/linux/initramfs.cpio.gz";
        let vm = Configuration::read(&scratch(name, load, cpus, 256, "console=ttyAMA0 quiet")?, "", None)?;
        // `/init` is a script: the first that runs of it is its shell.
        let init = profile::entry_point(&setup::linux_shell())?;
        let counts = Profile::take(&self.board, &counting(cpus), &[vm], Some(init))?;
        self.explain(name, &counts)?;
        Ok(Row { name: name.into(), unit: "%", bare: None, ours: Some(counts.share()), budget })
    }

    /// Tells on the standard error what is behind a count.
    fn explain(&self, name: &str, counts: &Profile) -> Result<()> {
        let elf = std::fs::read(&self.board.elf)?;
        let kinds = counts.kinds(&elf)?;
        let each = |count: u64| count as f64 / kinds.returns.max(1) as f64;
        eprintln!(
            "bench: {name}: {} returns from EL2; for each {:.1} instructions, of them {:.2} system register accesses, {:.2} \
             barriers, {:.2} TLB invalidations",
            kinds.returns,
            each(counts.hypervisor()),
            each(kinds.system_register),
            each(kinds.barrier),
            each(kinds.tlb)
        );
        if self.profile {
            for (function, count) in counts.functions(&elf)?.iter().take(FUNCTIONS) {
                eprintln!("bench: {name}: {count:>12} {:>8.2}  {function}", each(*count));
            }
        }
        Ok(())
    }
}

/// A machine of which each run is the same.
fn counting(cpus: u32) -> Machine {
    Machine { cpus, count_instructions: true, ..Machine::default() }
}

/// Where configurations for one measurement lie: one below `target/test`, so that `../../guests` is where the guests are.
fn folder() -> Result<PathBuf> {
    let folder = target().join("test").join("bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Writes a configuration for one measurement.
fn scratch(name: &str, load: &str, cpus: u32, mebibytes: u32, command_line: &str) -> Result<PathBuf> {
    let path = folder()?.join(format!("{name}.qvmconf"));
    let cpus = "cpu\n".repeat(cpus as usize);
    let text = format!(
        "system {name}\nram 0x80000000,{mebibytes}M\n{cpus}{load}\ncmdline \"{command_line}\"\n\
         vdev pl011 loc 0x1c090000 intr gic:37\n"
    );
    std::fs::write(&path, text)?;
    Ok(path)
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
    // Some devices are there in a VM only.
    let nothing_there = vm.is_none() && text.lines().any(|line| line.trim() == "bench: # done");
    if measured.is_empty() && !nothing_there {
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

/// KiB that are not free, from the line that says so when a VM starts.
fn memory_gone(line: &str) -> Option<f64> {
    let words: Vec<&str> = line.split_once(" runs: ")?.1.split(' ').collect();
    match words.as_slice() {
        [free, "of", total, "KiB", "RAM", "free,", ..] => Some(total.parse::<f64>().ok()? - free.parse::<f64>().ok()?),
        _ => None,
    }
}

/// The budgeted rows first, in the design's order, then what else was measured. `names`: the only ones asked for.
fn rows(gic: u8, bare: &BTreeMap<String, f64>, ours: &BTreeMap<String, f64>, names: &[&str]) -> Vec<Row> {
    let on_this = |name: &str, otherwise| {
        let own = ON_GICV2.iter().find(|(own, _)| gic == 2 && *own == name);
        own.map_or(otherwise, |(_, budget)| *budget)
    };
    let row = |name: &str, budget| Row {
        name: name.to_string(),
        unit: INSTRUCTIONS,
        bare: bare.get(name).copied(),
        ours: ours.get(name).copied(),
        budget,
    };
    let is_wanted = |name: &str| names.is_empty() || names.contains(&name);
    let budgeted =
        BUDGETS.iter().filter(|(name, _)| is_wanted(name)).map(|(name, budget)| row(name, on_this(name, *budget)));
    let others = ours.keys().filter(|name| BUDGETS.iter().all(|(budgeted, _)| budgeted != name));
    budgeted.chain(others.map(|name| row(name, Budget::None))).collect()
}

fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>| {
        value.map_or("-".to_string(), |value| if value < 1.0 { format!("{value:.3}") } else { format!("{value:.1}") })
    };
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
    fn what_is_not_free_is_gone() {
        let line =
            "[   0.093] debug: memory runs: 1900 of 2000 KiB RAM free, 50 KiB the hypervisor's, of them 1 KiB heap";
        assert_eq!(memory_gone(line), Some(100.0));
        assert_eq!(memory_gone("hello: runs: on and on"), None);
    }

    #[test]
    fn a_budget_is_kept_or_not_and_what_was_not_measured_is_not_kept() {
        let rows = rows(
            3,
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
        assert_eq!(rows(3, &ours, &ours, &["ipi"]).len(), 1);
    }

    #[test]
    fn the_json_form_has_a_field_for_each_column() {
        let ours = measured(&[("hypercall", 100.0)]);
        let value = json(&rows(3, &ours, &ours, &["hypercall"]));
        assert_eq!(
            value[0],
            json!({"name": "hypercall", "unit": "instructions", "bare": 100.0, "ours": 100.0, "budget": 180.0, "ok": true})
        );
    }
}
