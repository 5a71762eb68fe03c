//! A timeline in the Trace Event Format (the JSON of `chrome://tracing`, which Perfetto reads as well).
//!
//! One process for the CPUs with a track for each, one for each VM with a track for each vCPU. Times are microseconds since the
//! trace began, to the nanosecond.

use std::collections::BTreeSet;
use std::io::{BufWriter, Result, Write};

use serde_json::{Value, json};
use types::Ticks;

use super::timeline::{Instant, Lasting, Span, Timeline, Track};

/// The process of the CPUs; a VM's is its number behind this.
const CPUS: u64 = 1;
const VMS: u64 = 100;

/// Writes it, an event a line.
pub(crate) fn write(timeline: &Timeline, to: impl Write) -> Result<()> {
    let mut out = BufWriter::new(to);
    out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
    let mut separator = "";
    let mut put = |value: Value| -> Result<()> {
        write!(out, "{separator}{value}")?;
        separator = ",\n";
        Ok(())
    };
    names(timeline).into_iter().try_for_each(&mut put)?;
    // Those that began earlier, and of those the longer ones, come first: so the inner ones are inside.
    let mut spans: Vec<&Span> = timeline.spans.iter().collect();
    spans.sort_by_key(|span| (span.from, std::cmp::Reverse(span.to)));
    spans.into_iter().try_for_each(|span| put(lasting(timeline, span)))?;
    timeline.instants.iter().try_for_each(|instant| put(moment(timeline, instant)))?;
    out.write_all(b"\n]}\n")?;
    out.flush()
}

fn place(track: Track) -> (u64, u64) {
    match track {
        Track::Cpu(cpu) => (CPUS, cpu.into()),
        Track::Vcpu((vm, vcpu)) => (VMS + u64::from(vm), vcpu.into()),
    }
}

/// What processes and threads are called, in the viewer's sense.
fn names(timeline: &Timeline) -> Vec<Value> {
    let of_cpus = (0..timeline.cpus.min(256)).map(|cpu| Track::Cpu(cpu as u8));
    let of_spans = timeline.spans.iter().map(|span| span.track);
    let of_instants = timeline.instants.iter().map(|instant| instant.track);
    let tracks: BTreeSet<Track> = of_cpus.chain(of_spans).chain(of_instants).collect();
    let mut values = Vec::new();
    let mut processes = BTreeSet::new();
    for track in tracks {
        let (pid, tid) = place(track);
        let (process, thread) = match track {
            Track::Cpu(cpu) => ("CPUs".to_string(), format!("CPU {cpu}")),
            Track::Vcpu((vm, vcpu)) => {
                let name = timeline.vm_names.get(&vm).map_or("?", String::as_str);
                (format!("VM {vm}: {name}"), format!("vcpu{vcpu}"))
            }
        };
        if processes.insert(pid) {
            values.push(json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": process}}));
            values.push(json!({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}));
        }
        values.push(json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": thread}}));
        values
            .push(json!({"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}));
    }
    values
}

fn lasting(timeline: &Timeline, span: &Span) -> Value {
    let ((pid, tid), ts) = (place(span.track), microseconds(timeline, span.from.saturating_sub(timeline.start)));
    let dur = microseconds(timeline, span.to.saturating_sub(span.from));
    let (name, category, args) = match &span.what {
        Lasting::Thread(index) => (timeline.thread_name(*index, span.from), "cpu", json!({})),
        Lasting::Guest { pc } => ("guest".into(), "guest", json!({"entered at": hexadecimal(*pc)})),
        Lasting::Exit { reason, detail, pc, cost } => {
            let cost = timeline.frequency.to_nanoseconds(*cost);
            ((*reason).into(), "exit", json!({"left at": hexadecimal(*pc), "detail": detail, "cost in ns": cost}))
        }
        Lasting::Blocked => ("blocked".into(), "thread", json!({})),
        Lasting::Ready => ("ready".into(), "thread", json!({})),
    };
    json!({"ph": "X", "name": name, "cat": category, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args})
}

fn moment(timeline: &Timeline, instant: &Instant) -> Value {
    let ((pid, tid), ts) = (place(instant.track), microseconds(timeline, instant.at.saturating_sub(timeline.start)));
    json!({"ph": "i", "name": instant.name, "s": "t", "pid": pid, "tid": tid, "ts": ts})
}

fn hexadecimal(value: u64) -> String {
    format!("{value:#x}")
}

fn microseconds(timeline: &Timeline, ticks: Ticks) -> f64 {
    timeline.frequency.to_nanoseconds(ticks) as f64 / 1000.0
}
