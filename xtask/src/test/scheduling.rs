//! That scheduling takes effect: busy VMs that share CPUs, and what each of them had of the time.
//!
//! Each VM says of each of its vCPUs how many thousandths of a stretch of time it ran, and how much it did then
//! (`guests/bench/src/company.rs`). The machine counts instructions, so that a run is the same on every PC. Its CPUs take turns
//! of some milliseconds then; so time is measured with one CPU busy, and of two the work is compared.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, bail};

use super::Test;
use super::interface::archive_with;
use super::machine::{Case, PATIENCE, Ran};
use crate::qemu::machine::Machine;
use crate::workspace::target;

/// The stretch, in milliseconds after the machine starts: all VMs are up by then. Whole windows of partitions.
const STRETCH: (u64, u64) = (100, 700);
/// How far off a part may be, in thousandths: the host's own threads want a little, and a stretch begins within a turn.
const TOLERANCE: u64 = 15;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("scheduling/priority", "a busy vCPU leaves nothing to a less urgent one", |case| {
            shares(case, 2, "", &[("high", 1, "sched 30 runmask 0", &[1000]), ("low", 1, "sched 10 runmask 0", &[0])])
        }),
        Test::hypervisor("scheduling/sporadic", "a sporadic server has its budget, and no more", |case| {
            let server = "sched 30,5,4,10000000,2000000 s runmask 0";
            shares(case, 2, "", &[("server", 1, server, &[200]), ("other", 1, "sched 10 runmask 0", &[800])])
        }),
        Test::hypervisor("scheduling/crowd", "sixteen vCPUs on one CPU all get on alike", |case| {
            let cpu = "cluster _cpu-0";
            shares(case, 2, "", &[("a", 8, cpu, &[62; 8]), ("b", 8, cpu, &[62; 8])])
        }),
        Test::hypervisor(
            "scheduling/partition",
            "under load each partition has its share, whatever the priorities",
            |case| {
                let script = "partition most 30\npartition most 60\n";
                let vms: [Vm<'_>; 2] = [
                    ("most", 1, "sched 10 runmask 0 partition most", &[600]),
                    ("system", 1, "sched 30 runmask 0", &[400]),
                ];
                shares(case, 1, script, &vms)
            },
        ),
        Test::hypervisor("scheduling/free-time", "what a partition does not want others have", |case| {
            let script = "partition idle 30\npartition busy 5\n";
            shares(case, 1, script, &[("busy", 1, "sched 10 runmask 0 partition busy", &[1000])])
        }),
        Test::hypervisor(
            "scheduling/runmask",
            "two vCPUs share the CPU they are bound to, a third goes to the other",
            runmask,
        ),
        Test::hypervisor("scheduling/names", "65 for a cluster and a partition that the host has not", names),
    ]
}

/// A VM, how many vCPUs it has, how each of them is scheduled, and what part of the time each is to have.
type Vm<'a> = (&'a str, usize, &'a str, &'a [u64]);

fn configuration((name, vcpus, cpu, _): Vm<'_>) -> Result<String> {
    let (start, end) = STRETCH;
    let mut text = format!("system {name}\nram 0x80000000,16M\n");
    for _ in 0..vcpus {
        writeln!(text, "cpu {cpu}")?;
    }
    write!(
        text,
        "load bench.elf\ncmdline \"busy {start} {end}\"\nset counter-offset 0\n\
         vdev pl011 loc 0x1c090000 intr gic:37\n"
    )?;
    Ok(text)
}

/// Runs VMs on a machine with so many CPUs. `script` stands before the commands that start them.
fn run(case: &Case, cpus: u32, script: &str, vms: &[Vm<'_>]) -> Result<Ran> {
    let guest = fs::read(target().join("guests/bench.elf")).context("guests/bench.elf")?;
    let texts = vms.iter().map(|vm| Ok((vm.0, configuration(*vm)?))).collect::<Result<Vec<_>>>()?;
    let commands: String = vms.iter().map(|vm| format!("qvm @/{}.qvmconf &\n", vm.0)).collect();
    let archive = archive_with(&format!("batch\n{script}{commands}"), &texts, &[("bench.elf", &guest)])?;
    let names: Vec<&str> = vms.iter().map(|vm| vm.0).collect();
    let machine = Machine { cpus, count_instructions: true, ..Machine::default() };
    case.boot(&machine, &case.file("boot.tar", archive)?, &names, PATIENCE)
}

/// What vCPU `index` of a VM says after `name`.
fn said(ran: &Ran, vm: &str, name: &str, index: usize) -> Result<u64> {
    let prefix = format!("bench: {name}-{index} ");
    let line = ran.of(vm).find_map(|line| line.strip_prefix(prefix.as_str()));
    Ok(line.with_context(|| format!("{vm} says no {name} of vCPU {index}"))?.trim().parse()?)
}

fn shares(case: &Case, cpus: u32, script: &str, vms: &[Vm<'_>]) -> Result<()> {
    let ran = run(case, cpus, script, vms)?;
    ran.expect_status(0)?;
    for (name, vcpus, _, expected) in vms {
        for (index, expected) in (0..*vcpus).zip(*expected) {
            let had = said(&ran, name, "busy", index)?;
            if had.abs_diff(*expected) > TOLERANCE {
                bail!("vCPU {index} of {name} had {had} thousandths of the time, not {expected}");
            }
        }
    }
    Ok(())
}

fn runmask(case: &Case) -> Result<()> {
    let vms: [Vm<'_>; 3] =
        [("a", 1, "runmask 0", &[]), ("b", 1, "cluster _cpu-0", &[]), ("c", 1, "cluster cluster0", &[])];
    let ran = run(case, 2, "", &vms)?;
    ran.expect_status(0)?;
    let (a, b, c) = (said(&ran, "a", "work", 0)?, said(&ran, "b", "work", 0)?, said(&ran, "c", "work", 0)?);
    // On one CPU each would do a third.
    if a.abs_diff(b) * 10 > a || c < a + b {
        bail!("a, b and c did {a}, {b} and {c}; a and b share one CPU, c has the other");
    }
    Ok(())
}

fn names(case: &Case) -> Result<()> {
    let vms: [Vm<'_>; 2] = [("lost", 1, "cluster cluster7", &[]), ("poor", 1, "partition nobody", &[])];
    let ran = run(case, 2, "cluster fast 1\ncluster slow 7\npartition a 80\npartition b 30\n", &vms)?;
    ran.expect("shell: cluster `slow`: the machine has not got all of these CPUs")?;
    ran.expect("shell: partition `b`: only 20 % are left")?;
    ran.expect_status(65)?.expect("lost.qvmconf:3:13: error: the host has no cluster `cluster7`")?;
    ran.expect("did you mean `cluster0`? There are cluster0, fast")?;
    ran.expect("poor.qvmconf:3:15: error: there is no adaptive partition `nobody`")?.expect("there are System, a")?;
    Ok(())
}
