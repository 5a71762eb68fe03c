//! What it costs that VMs share a CPU: switching between them, preempting one, and being late because of it.
//!
//! Answers for: the VMs that measure it together (`guests/bench/src/company.rs`), all pinned to one CPU of two, and what
//! follows from what each of them says. Does not answer for: how a VM notices.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};

use super::{Bench, Budget, INSTRUCTIONS, LIMIT, Profile, Row, counting, folder};
use crate::configuration::Configuration;
use crate::qemu::{Mode, batch, pack};

/// vCPU switch, two VMs that take turns: by yielding, and when a slice is over.
pub(super) const YIELD: (&str, Budget) = ("switch-yield", Budget::AtMost(700.0));
pub(super) const SLICE: (&str, Budget) = ("switch-slice", Budget::AtMost(900.0));
/// From the tick of an urgent VM's timer to its handler, while another VM runs.
pub(super) const PREEMPT: (&str, Budget) = ("preempt", Budget::None);
/// The worst lateness of a timer of 1 kHz, of a VM alone and of an urgent one beside eight busy vCPUs.
pub(super) const PERIODIC: (&str, Budget) = ("periodic", Budget::None);
pub(super) const CROWD: &str = "periodic-crowd";
/// From a VM's store to another one's interrupt handler on the other CPU, which is busy, or asleep.
pub(super) const DOORBELLS: [&str; 2] = ["doorbell", "doorbell-wfi"];
/// What a VM measures alone: the path of an interrupt through the host to a guest that sleeps.
const WAKE: &str = "timer-late-wfi";

/// Everything that is measured here.
pub(super) const NAMES: [&str; 7] = [YIELD.0, SLICE.0, PREEMPT.0, PERIODIC.0, CROWD, DOORBELLS[0], DOORBELLS[1]];

/// When it begins, in milliseconds after the machine does, by then all VMs run; how long yields and slices last.
const START: u64 = 100;
const YIELDS: u64 = 10;
const SLICES: u64 = 200;
/// How long the timer is watched.
const TICKS: u64 = 300;

type Measured = BTreeMap<String, f64>;

impl Bench<'_> {
    /// The rows of `NAMES` that are asked for.
    pub(super) fn company(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let wants_periodic = [PREEMPT.0, PERIODIC.0, CROWD].iter().any(|name| self.wants(name));
        let mut slice = 0.0;
        if self.wants(YIELD.0) || self.wants(SLICE.0) || wants_periodic {
            let (by_yield, by_slice) = self.switches()?;
            slice = by_slice;
            rows.push(row(YIELD.0, by_yield, YIELD.1));
            rows.push(row(SLICE.0, by_slice, SLICE.1));
        }
        if wants_periodic {
            rows.extend(self.lateness(slice)?);
        }
        if DOORBELLS.iter().any(|name| self.wants(name)) {
            rows.extend(self.doorbells()?);
        }
        rows.retain(|row| self.wants(&row.name));
        Ok(rows)
    }

    fn switches(&self) -> Result<(f64, f64)> {
        eprintln!("bench: two VMs on one CPU ...");
        let (middle, end) = (START + YIELDS, START + YIELDS + 1 + SLICES);
        let words = format!("switch {START} {middle} {end}");
        let vms = [vm("a", "sched 10 runmask 0", 1, &words)?, vm("b", "sched 10 runmask 0", 1, &words)?];
        let [a, b] = self.together(&vms, YIELD.0)?;
        let both = |name: &str| Ok::<_, anyhow::Error>((value(&a, name)?, value(&b, name)?));
        let (yields_a, yields_b) = both("yields")?;
        if (yields_a - yields_b).abs() > 2.0 {
            bail!("the VMs did not take turns: they yielded {yields_a} and {yields_b} times");
        }
        let ((own_a, own_b), (turns_a, turns_b)) = (both("own-ticks")?, both("turns")?);
        let second = value(&a, "ticks-per-second")?;
        let instructions = |ticks: f64| ticks * 1e9 / second;
        let lost = SLICES as f64 * 1e6 - instructions(own_a + own_b);
        Ok((YIELDS as f64 * 1e6 / (yields_a + yields_b), lost / (turns_a + turns_b)))
    }

    fn doorbells(&self) -> Result<Vec<Row>> {
        eprintln!("bench: two VMs that share memory, each on its CPU ...");
        let with_device = |name: &str, cpu: u32, words: &str| {
            let schedule = format!("sched 10 runmask {cpu} vdev shmem loc 0x1c050000 intr gic:43");
            vm(name, &schedule, 1, words)
        };
        let vms = [with_device("ring", 0, "ring")?, with_device("answer", 1, "answer")?];
        let [ring, _] = self.together(&vms, DOORBELLS[0])?;
        DOORBELLS.iter().map(|name| Ok(row(name, value(&ring, name)?, Budget::None))).collect()
    }

    fn lateness(&self, slice: f64) -> Result<Vec<Row>> {
        let urgent = |name| vm(name, "sched 20 runmask 0", 1, &format!("periodic {START} {}", START + TICKS));
        eprintln!("bench: a timer of 1 kHz, alone ...");
        let [alone] = self.together(&[urgent("alone")?], PERIODIC.0)?;
        eprintln!("bench: a timer of 1 kHz beside eight busy vCPUs ...");
        let busy = vm("busy", "sched 5 runmask 0", 8, &format!("busy {START} {}", START + TICKS))?;
        let [crowd, _] = self.together(&[urgent("urgent")?, busy], CROWD)?;
        let (alone_worst, crowd_worst) = (value(&alone, "periodic-worst")?, value(&crowd, "periodic-worst")?);
        // What may come in between: the timer's own way through the host, which a switch by slice includes, and the switch.
        let most = alone_worst + value(&alone, "periodic-mean")? + slice;
        eprintln!(
            "bench: {CROWD}: {:.0} more than alone; one interrupt path ({WAKE}) and one switch by slice are {:.0}",
            crowd_worst - alone_worst,
            most - alone_worst
        );
        Ok(vec![
            row(PREEMPT.0, value(&crowd, "periodic-mean")?, PREEMPT.1),
            row(PERIODIC.0, alone_worst, PERIODIC.1),
            row(CROWD, crowd_worst, Budget::AtMost(most)),
        ])
    }

    /// What VMs measure that run at the same time.
    fn together<const N: usize>(&self, vms: &[Configuration; N], name: &str) -> Result<[Measured; N]> {
        let machine = counting(2);
        let archive = pack(vms, Mode::Batch, &[])?;
        let mut text = Vec::new();
        let outcome = batch::run(machine.boot(&self.board.image, archive.path())?, Some(LIMIT), &mut text)?;
        let text = String::from_utf8_lossy(&text);
        let names: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
        if outcome.status(&names) != 0 {
            bail!("the VMs did not end well:\n{text}{}", outcome.epitaph_with_names(&self.board.elf));
        }
        if self.profile {
            self.explain(name, &Profile::take(&self.board, &machine, vms, None)?)?;
        }
        let of = |name: &str| {
            let prefix = format!("{name}| ");
            let lines = text.lines().filter_map(|line| line.strip_prefix(prefix.as_str()));
            lines.filter_map(super::measurement).collect()
        };
        let measured: Vec<Measured> = names.iter().map(|name| of(name)).collect();
        if measured.iter().any(BTreeMap::is_empty) {
            bail!("a VM measured nothing:\n{text}");
        }
        measured.try_into().ok().context("as many as there are VMs")
    }
}

fn value(measured: &Measured, name: &str) -> Result<f64> {
    measured.get(name).copied().with_context(|| format!("the guest has not measured {name}"))
}

fn row(name: &str, ours: f64, budget: Budget) -> Row {
    Row { name: name.into(), unit: INSTRUCTIONS, bare: None, ours: Some(ours), budget }
}

/// A VM with the bench guest whose vCPUs are all scheduled alike.
fn vm(name: &str, cpu: &str, vcpus: u32, words: &str) -> Result<Configuration> {
    let mut text = format!("system {name}\nram 0x80000000,16M\n");
    for _ in 0..vcpus {
        writeln!(text, "cpu {cpu}")?;
    }
    write!(
        text,
        "load ../../guests/bench.elf\ncmdline \"{words}\"\nset counter-offset 0\nvdev pl011 loc 0x1c090000 intr gic:37\n"
    )?;
    let path = folder()?.join(format!("{name}.qvmconf"));
    std::fs::write(&path, text)?;
    Configuration::read(&path, "", None)
}
