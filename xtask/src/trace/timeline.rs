//! What was when, from what was recorded.
//!
//! Answers for: which thread each CPU ran, and for each vCPU when it was in its guest, when an exit of it was handled, and when
//! it did not run meanwhile. Behind events that were lost nothing is made up: what had begun before them on that CPU has no end.
//! Does not answer for: what it looks like.
//!
//! Entries and exits carry the time of the last thing before and the first thing behind the guest, so time in the guest is
//! their difference, and what an exit costs is the time to the next entry without that in which the vCPU's thread did not run.

use std::collections::BTreeMap;

use ::trace::{Capture, Event, What};
use types::{Frequency, RawExit, RawExitKind, Ticks};
use vm::Reason;
use vm::exit::decode::{Exit, Rare};

/// ESR_ELx.EC of a trapped access to the vector registers (DDI 0487): answered before exits are counted.
const EC_FP: u32 = 0x07;
/// What such an exit is called.
const FP: &str = "fp";

/// A vCPU: its VM's number, its own.
pub(crate) type VcpuKey = (u8, u16);

/// Where something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Track {
    Cpu(u8),
    Vcpu(VcpuKey),
}

/// Something that lasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) track: Track,
    pub(crate) from: Ticks,
    pub(crate) to: Ticks,
    pub(crate) what: Lasting,
}

/// What can last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// A thread ran on the CPU.
    Thread(u16),
    /// The vCPU was in its guest.
    Guest { pc: u64 },
    /// The vCPU was out of its guest for this.
    Exit { reason: &'static str, detail: String, pc: u64, cost: Ticks },
    /// Its thread waited for something.
    Blocked,
    /// Its thread waited for a CPU.
    Ready,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instant {
    pub(crate) track: Track,
    pub(crate) at: Ticks,
    pub(crate) name: String,
}

/// How often, and what it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Exits in the capture.
    pub(crate) count: u64,
    /// Those of which the next entry is there as well.
    pub(crate) complete: u64,
    /// What those took together, and the one that took longest.
    pub(crate) total: Ticks,
    pub(crate) worst: Ticks,
}

/// What there is to say of a VM.
#[derive(Clone, Debug, Default)]
pub(crate) struct VmSummary {
    pub(crate) in_guest: Ticks,
    pub(crate) exits: BTreeMap<&'static str, Cost>,
}

/// What was when.
#[derive(Debug)]
pub(crate) struct Timeline {
    pub(crate) frequency: Frequency,
    pub(crate) start: Ticks,
    pub(crate) end: Ticks,
    pub(crate) cpus: u64,
    pub(crate) vm_names: BTreeMap<u8, String>,
    pub(crate) spans: Vec<Span>,
    pub(crate) instants: Vec<Instant>,
    pub(crate) vms: BTreeMap<u8, VmSummary>,
    /// Events in the file, those that were lost before, and those that this tool does not know.
    pub(crate) events: usize,
    pub(crate) lost: u64,
    pub(crate) unknown: usize,
    /// Entries and exits that did not come in turn although nothing was lost before them.
    pub(crate) out_of_turn: usize,
    thread_names: Vec<(Ticks, u16, String)>,
}

/// Where a vCPU is.
#[derive(Clone, Debug)]
enum Place {
    Guest { since: Ticks, pc: u64 },
    Out { since: Ticks, reason: &'static str, detail: String, pc: u64, away: Ticks },
}

/// A thread that does not run.
#[derive(Clone, Copy, Debug)]
struct Away {
    since: Ticks,
    ready: Option<Ticks>,
}

/// What is known while events are read.
#[derive(Default)]
struct State {
    /// What each CPU runs, and since when.
    running: BTreeMap<u8, (u16, Ticks)>,
    away: BTreeMap<u16, Away>,
    places: BTreeMap<VcpuKey, Place>,
    vcpus: BTreeMap<u16, VcpuKey>,
    threads: BTreeMap<VcpuKey, u16>,
}

impl Timeline {
    /// What a capture says.
    pub(crate) fn of(capture: &Capture<'_>) -> Timeline {
        let header = capture.header;
        let mut events: Vec<Event> = Vec::new();
        let mut unknown = 0;
        for event in capture.events() {
            match event {
                Some(event) => events.push(event),
                None => unknown += 1,
            }
        }
        // Those of one CPU stay in their order.
        events.sort_by_key(|event| event.at);
        let mut timeline = Timeline {
            frequency: header.frequency,
            start: header.start,
            end: events.last().map_or(header.start, |event| event.at.max(header.start)),
            cpus: header.cpus,
            vm_names: BTreeMap::new(),
            spans: Vec::new(),
            instants: Vec::new(),
            vms: BTreeMap::new(),
            events: events.len(),
            lost: 0,
            unknown,
            out_of_turn: 0,
            thread_names: Vec::new(),
        };
        let mut state = State::default();
        events.iter().for_each(|event| timeline.add(&mut state, event));
        timeline.close(&mut state);
        timeline
    }

    /// What a thread was called at a time; the index may have been another's before and after.
    pub(crate) fn thread_name(&self, index: u16, at: Ticks) -> String {
        let mut named = self.thread_names.iter().filter(|(_, thread, _)| *thread == index);
        // Those that were there from the beginning are named a little later.
        let last = named.clone().rfind(|(from, _, _)| *from <= at).or_else(|| named.next());
        last.map_or_else(|| format!("thread {index}"), |(_, _, name)| name.clone())
    }

    fn add(&mut self, state: &mut State, event: &Event) {
        let (at, key) = (event.at, (event.vm, event.vcpu.0));
        let (cpu, vcpu) = (Track::Cpu(event.cpu), Track::Vcpu(key));
        match event.what {
            What::Lost(count) => self.lose(state, event, count),
            What::Interrupt(intid) => self.mark(cpu, at, format!("interrupt {intid}")),
            What::Running(thread) => self.switch(state, event.cpu, thread, at),
            What::Ready(thread) => {
                if let Some(away) = state.away.get_mut(&thread) {
                    away.ready.get_or_insert(at);
                }
            }
            What::VmName { part, text } => append(self.vm_names.entry(event.vm).or_default(), part, &text),
            What::ThreadName { thread, part, text } => {
                match self.thread_names.iter_mut().rfind(|(_, index, _)| *index == thread) {
                    Some((_, _, name)) if part > 0 => append(name, part, &text),
                    _ => {
                        let mut name = String::new();
                        append(&mut name, part, &text);
                        self.thread_names.push((at, thread, name));
                    }
                }
            }
            What::User { number, value, thread } => {
                let track = state.vcpus.get(&thread).map_or(cpu, |key| Track::Vcpu(*key));
                self.mark(track, at, format!("event {number}: {value:#x}"));
            }
            What::VcpuCreated { thread } => {
                state.vcpus.insert(thread, key);
                state.threads.insert(key, thread);
            }
            What::Entry { pc } => self.enter(state, key, at, pc),
            What::Exit { kind, syndrome, pc, payload } => {
                let reason = reason(kind, syndrome);
                let detail = detail(kind, syndrome, payload);
                self.leave(state, key, at, Place::Out { since: at, reason, detail, pc, away: Ticks(0) });
            }
            What::Asserted(intid) => self.mark(vcpu, at, format!("interrupt {intid} asserted")),
            What::Deasserted(intid) => self.mark(vcpu, at, format!("interrupt {intid} taken")),
            What::TimerArmed { timer, at: when } => {
                let wait = self.frequency.to_nanoseconds(when.saturating_sub(at));
                self.mark(vcpu, at, format!("timer {timer} armed, fires in {wait} ns"));
            }
            What::TimerFired { timer } => self.mark(vcpu, at, format!("timer {timer} fired")),
        }
    }

    fn mark(&mut self, track: Track, at: Ticks, name: String) {
        self.instants.push(Instant { track, at, name });
    }

    /// What was going on on that CPU has gone on in a way that nobody knows.
    fn lose(&mut self, state: &mut State, event: &Event, count: u64) {
        if count == 0 {
            return;
        }
        self.lost = self.lost.saturating_add(count);
        self.mark(Track::Cpu(event.cpu), event.at, format!("{count} events lost"));
        state.running.remove(&event.cpu);
        // Threads and vCPUs that were elsewhere may have come and gone as well.
        state.places.clear();
        state.away.clear();
    }

    fn switch(&mut self, state: &mut State, cpu: u8, next: Option<u16>, at: Ticks) {
        if let Some((thread, since)) = state.running.remove(&cpu) {
            self.spans.push(Span { track: Track::Cpu(cpu), from: since, to: at, what: Lasting::Thread(thread) });
            state.away.insert(thread, Away { since: at, ready: None });
        }
        let Some(next) = next else { return };
        state.running.insert(cpu, (next, at));
        let Some(away) = state.away.remove(&next) else { return };
        let Some(key) = state.vcpus.get(&next) else { return };
        // One that was never made ready again has been so all the time.
        let ready = away.ready.unwrap_or(away.since);
        for (from, to, what) in [(away.since, ready, Lasting::Blocked), (ready, at, Lasting::Ready)] {
            if to > from {
                self.spans.push(Span { track: Track::Vcpu(*key), from, to, what });
            }
        }
        if let Some(Place::Out { since, away: sum, .. }) = state.places.get_mut(key) {
            *sum = sum.saturating_add(at.saturating_sub(away.since.max(*since)));
        }
    }

    fn enter(&mut self, state: &mut State, key: VcpuKey, at: Ticks, pc: u64) {
        match state.places.insert(key, Place::Guest { since: at, pc }) {
            Some(Place::Out { since, reason, detail, pc, away }) => {
                let cost = at.saturating_sub(since).saturating_sub(away);
                let entry = self.vms.entry(key.0).or_default().exits.entry(reason).or_default();
                entry.complete += 1;
                entry.total = entry.total.saturating_add(cost);
                entry.worst = entry.worst.max(cost);
                let what = Lasting::Exit { reason, detail, pc, cost };
                self.spans.push(Span { track: Track::Vcpu(key), from: since, to: at, what });
            }
            Some(Place::Guest { .. }) => self.out_of_turn += 1,
            None => {}
        }
    }

    fn leave(&mut self, state: &mut State, key: VcpuKey, at: Ticks, out: Place) {
        let Place::Out { reason, .. } = out else { return };
        let vm = self.vms.entry(key.0).or_default();
        vm.exits.entry(reason).or_default().count += 1;
        match state.places.insert(key, out) {
            Some(Place::Guest { since, pc }) => {
                vm.in_guest = vm.in_guest.saturating_add(at.saturating_sub(since));
                let what = Lasting::Guest { pc };
                self.spans.push(Span { track: Track::Vcpu(key), from: since, to: at, what });
            }
            Some(Place::Out { .. }) => self.out_of_turn += 1,
            None => {}
        }
    }

    /// What still goes on at the end has lasted until then.
    fn close(&mut self, state: &mut State) {
        let end = self.end;
        for (cpu, (thread, since)) in std::mem::take(&mut state.running) {
            self.spans.push(Span { track: Track::Cpu(cpu), from: since, to: end, what: Lasting::Thread(thread) });
        }
        for (key, place) in std::mem::take(&mut state.places) {
            let away = state.threads.get(&key).and_then(|thread| state.away.get(thread));
            let (since, what) = match place {
                Place::Guest { since, pc } => (since, Lasting::Guest { pc }),
                Place::Out { since, reason, detail, pc, away: sum } => {
                    let now = away.map_or(Ticks(0), |away| end.saturating_sub(away.since.max(since)));
                    let cost = end.saturating_sub(since).saturating_sub(sum).saturating_sub(now);
                    (since, Lasting::Exit { reason, detail, pc, cost })
                }
            };
            self.spans.push(Span { track: Track::Vcpu(key), from: since, to: end, what });
            if let Some(away) = away {
                self.spans.push(Span { track: Track::Vcpu(key), from: away.since, to: end, what: Lasting::Blocked });
            }
        }
    }
}

/// Appends a part of a name; the first begins it.
fn append(name: &mut String, part: u16, text: &[u8]) {
    if part == 0 {
        name.clear();
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    name.push_str(&String::from_utf8_lossy(text.get(..end).unwrap_or_default()));
}

/// Why a guest was left, in the words of `status` and `pidin`.
fn reason(kind: RawExitKind, syndrome: u32) -> &'static str {
    if kind == RawExitKind::Synchronous && syndrome >> 26 == EC_FP {
        return FP;
    }
    let reason = match Exit::decode(&RawExit { kind, esr: syndrome.into(), far: 0, hpfar: 0 }) {
        Exit::Irq => Reason::Interrupt,
        Exit::Call(_) => Reason::Call,
        // Stores to a ROM are rare.
        Exit::Mmio(_) | Exit::Store(_) => Reason::Mmio,
        Exit::Sysreg(_) => Reason::Sysreg,
        Exit::Wfx(_) => Reason::Wait,
        Exit::Rare(Rare::DataAbort(_) | Rare::InstructionAbort(_)) => Reason::Abort,
        Exit::Rare(Rare::SystemError(_)) => Reason::SystemError,
        Exit::Rare(Rare::Debug(_) | Rare::IllegalState | Rare::Undefined) => Reason::Undefined,
    };
    reason.name()
}

/// More of it.
fn detail(kind: RawExitKind, syndrome: u32, payload: u64) -> String {
    match Exit::decode(&RawExit { kind, esr: syndrome.into(), far: 0, hpfar: 0 }) {
        Exit::Mmio(access) => format!("{} {payload:#x}", if access.is_write() { "write" } else { "read" }),
        Exit::Store(_) => format!("write at virtual {payload:#x}"),
        Exit::Rare(Rare::DataAbort(_) | Rare::InstructionAbort(_)) => format!("{payload:#x}"),
        Exit::Call(_) => format!("function {payload:#x}"),
        Exit::Sysreg(access) => {
            let (op0, op1, crn, crm, op2) = access.encoding();
            let verb = if access.is_read() { "read" } else { "write" };
            format!("{verb} S{op0}_{op1}_C{crn}_C{crm}_{op2}")
        }
        _ => String::new(),
    }
}
