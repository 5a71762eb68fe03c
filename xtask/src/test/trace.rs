//! Traces, from the guest to the timeline.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Test;
use super::dump::received;
use super::machine::{Case, Ran};
use super::scene::Scene;
use crate::qemu::machine::Machine;
use crate::trace::{self, Timeline};

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("trace/whole", "a VM's whole life is in a trace, exit by exit", whole),
        Test::hypervisor("trace/choice", "traces of some VMs, one after the other, too small rings, refusals", choice),
    ]
}

fn timeline(folder: &Path, name: &str) -> Result<Timeline> {
    trace::read(&std::fs::read(folder.join(name)).with_context(|| format!("{name} was not received"))?)
}

/// The counts in the report of `status`, by vCPU's line: all of them, added up by reason.
fn counted(ran: &Ran) -> Vec<(&str, u64)> {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for line in ran.text.lines() {
        let Some((_, counts)) = line.split_once(": exits ") else { continue };
        for (reason, count) in counts.split(' ').filter_map(|word| word.split_once('=')) {
            let count = count.trim().parse().unwrap_or(0);
            match sums.iter_mut().find(|(other, _)| *other == reason) {
                Some((_, sum)) => *sum += count,
                None => sums.push((reason, count)),
            }
        }
    }
    sums
}

/// Traced from before its first instruction to a pause: the trace has every exit that was counted, in turn with the entries.
fn whole(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("hello", "hello", "2M", "cpu cpu\ncmdline \"ticks=1000 trace=0x1c0a0000\"\nvdev trace loc 0x1c0a0000")?;
    scene.vm("other", "hello", "2M", "cmdline ticks=1000")?;
    scene.line("qvm @other.qvmconf &").line("sleep 0.2").line("tracelogger &").line("qvm @hello.qvmconf &");
    scene.line("sleep 1.5").line("pause hello").line("sleep 0.2").line("tracelogger stop").line("status hello");
    scene.line("sleep 0.3").line("send trace.events").line("slay -s QUIT hello other").line("wait");
    let ran = scene.run(case, &Machine { cpus: 2, ..Machine::default() }, None, 2)?;
    ran.expect("traced to `trace.events`: ")?.expect("event 2: 0x")?;
    let folder = received(case, &ran.text)?;
    let timeline = timeline(&folder, "trace.events")?;
    ensure!(timeline.lost == 0 && timeline.unknown == 0, "{} lost, {} unknown", timeline.lost, timeline.unknown);
    ensure!(timeline.out_of_turn == 0, "{} entries and exits did not come in turn", timeline.out_of_turn);
    let (number, _) = timeline.vm_names.iter().find(|(_, name)| *name == "hello").context("`hello` has no name")?;
    let vm = timeline.vms.get(number).context("nothing of `hello` was traced")?;
    let counts = counted(&ran);
    ensure!(counts.iter().any(|(reason, count)| *reason == "mmio" && *count > 100), "nothing was counted: {counts:?}");
    for (reason, count) in counts {
        let traced = vm.exits.get(reason).map_or(0, |cost| cost.count);
        ensure!(traced == count, "{count} exits for `{reason}` were counted, {traced} traced");
    }
    ensure!(vm.in_guest.0 > 0 && vm.in_guest < timeline.end.saturating_sub(timeline.start));
    let named = |wanted: &str| timeline.instants.iter().any(|instant| instant.name.starts_with(wanted));
    for wanted in ["interrupt 27 asserted", "interrupt 27 taken", "timer 27 armed", "timer 27 fired", "event 2: 0x"] {
        ensure!(named(wanted), "there is no `{wanted}`");
    }
    check_json(&trace::json(&timeline)?)
}

/// The timeline is JSON with a track for each CPU and each vCPU, and in each track what lasts either follows or contains.
fn check_json(text: &[u8]) -> Result<()> {
    let json: Value = serde_json::from_slice(text)?;
    let events = json.get("traceEvents").and_then(Value::as_array).context("no events")?;
    let is = |event: &Value, phase: &str| event.get("ph").and_then(Value::as_str) == Some(phase);
    let names: Vec<&str> = events
        .iter()
        .filter(|event| is(event, "M"))
        .filter_map(|event| event.pointer("/args/name").and_then(Value::as_str))
        .collect();
    for wanted in ["CPUs", "CPU 0", "CPU 1", "VM 2: hello", "VM 1: other", "vcpu0"] {
        ensure!(names.contains(&wanted), "no track `{wanted}` among {names:?}");
    }
    let number = |event: &Value, key: &str| event.get(key).and_then(Value::as_f64).context("a number is missing");
    let mut open: Vec<(u64, u64, f64)> = Vec::new();
    for event in events.iter().filter(|event| is(event, "X")) {
        let (pid, tid) = (number(event, "pid")? as u64, number(event, "tid")? as u64);
        let (from, length) = (number(event, "ts")?, number(event, "dur")?);
        open.retain(|(a, b, end)| (*a, *b) != (pid, tid) || *end > from + 0.0005);
        let outer = open.iter().rfind(|(a, b, _)| (*a, *b) == (pid, tid));
        ensure!(outer.is_none_or(|(_, _, end)| from + length < end + 0.002), "{event} does not end inside");
        open.push((pid, tid, from + length));
    }
    Ok(())
}

fn choice(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("a", "hello", "2M", "cmdline ticks=1000")?.vm("b", "hello", "2M", "cmdline ticks=1000")?;
    scene.vm("busy", "bench", "16M", "cmdline hypercall\ncpu sched 30 runmask 0")?;
    scene.line("qvm @a.qvmconf &").line("qvm @b.qvmconf &").line("sleep 0.2");
    scene.line("tracelogger stop").line("tracelogger -s 0.3 -f only a nobody").line("tracelogger -f only");
    scene.line("tracelogger &").line("tracelogger").line("tracelogger stop").line("tracelogger -s 0.1");
    // More important than the thread that empties the rings, and nothing but exits.
    scene.line("tracelogger -b 4 -f small &").line("qvm @busy.qvmconf").line("tracelogger stop");
    scene.line("files").line("send only").line("send small").line("slay -s QUIT a b").line("wait");
    let ran = scene.run(case, &Machine { cpus: 1, ..Machine::default() }, None, 3)?;
    for wanted in [
        "shell: nothing is being traced",
        "shell: there is no VM `nobody`",
        "shell: no trace: there is a file of that name",
        "shell: no trace: one is being recorded already",
        "traced to `trace.events`: ",
        "traced to `trace-1.events`: ",
        "traced to `small`: ",
    ] {
        ran.expect(wanted)?;
    }
    let folder = received(case, &ran.text)?;
    let only = timeline(&folder, "only")?;
    let followed: Vec<&str> = only.vms.keys().filter_map(|vm| only.vm_names.get(vm)).map(String::as_str).collect();
    ensure!(followed == ["a"], "followed: {followed:?}");
    let length = only.frequency.to_nanoseconds(only.end.saturating_sub(only.start));
    ensure!((300_000_000..3_000_000_000).contains(&length), "it took {length} ns");
    let small = timeline(&folder, "small")?;
    ensure!(small.lost > 0 && small.out_of_turn == 0, "{} lost, {} not in turn", small.lost, small.out_of_turn);
    Ok(())
}
