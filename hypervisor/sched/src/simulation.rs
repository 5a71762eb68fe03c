//! A machine of threads under a simulated clock, driven at random, checked against what the policy promises.
//!
//! The simulated kernel keeps its own books: whose registers are where, which CPUs have been told to come, when their
//! timers fire. It believes nothing that the scheduler says about itself, but for who is out of budget in random histories;
//! that is what the properties and the recorded schedules (`timeline`) are for.

mod properties;

use crate::{Choice, Parameters, Policy, Priority, Scheduler, ShareId, Sporadic, State, ThreadId};
use proptest::{collection, prelude::*, sample::select};
use std::{collections::BTreeMap, vec, vec::Vec};
use types::{CpuId, CpuSet, Ticks};

pub(crate) const SLICE: u64 = 100;
const CAPACITY: usize = 12;
/// Of shares: 20 slots of a slice each.
pub(crate) const WINDOW: u64 = 2000;

/// What the kernel knows of a thread.
pub(crate) struct Thread {
    parameters: Parameters,
    /// Whether it wants to run.
    awake: bool,
    /// Since when it has been ready, without a break, while it did not run.
    ready_since: u64,
    waiting_time: u64,
    pub(crate) run_time: u64,
    /// When it ran at its own priority.
    urgent: Vec<(u64, u64)>,
}

/// What the kernel knows of a CPU.
#[derive(Clone, Copy, Default)]
pub(crate) struct Core {
    online: bool,
    pub(crate) current: Option<ThreadId>,
    /// Whose stack it is on.
    stack: Option<ThreadId>,
    timer: Option<u64>,
    told: bool,
    since: u64,
    /// The current thread has its own priority.
    pub(crate) urgent: bool,
}

pub(crate) struct Machine {
    pub(crate) scheduler: Scheduler,
    pub(crate) threads: BTreeMap<ThreadId, Thread>,
    pub(crate) cores: Vec<Core>,
    pub(crate) now: u64,
}

impl Machine {
    fn new(cpus: usize) -> Self {
        let scheduler = Scheduler::new(cpus, Ticks(SLICE), CAPACITY);
        let cores = vec![Core::default(); cpus];
        Self { scheduler, threads: BTreeMap::new(), cores, now: 0 }
    }

    pub(crate) fn online(cpus: usize) -> Self {
        let mut machine = Self::new(cpus);
        for cpu in 0..cpus {
            machine.pick(cpu);
        }
        machine
    }

    pub(crate) fn spawn(&mut self, parameters: Parameters) -> Option<ThreadId> {
        let id = self.scheduler.spawn(parameters).inspect_err(|error| std::eprintln!("{error}")).ok()?;
        let thread =
            Thread { parameters, awake: false, ready_since: 0, waiting_time: 0, run_time: 0, urgent: Vec::new() };
        assert!(self.threads.insert(id, thread).is_none(), "an identifier was used twice");
        Some(id)
    }

    fn tell(&mut self, cpu: Option<CpuId>) {
        if let Some(cpu) = cpu {
            assert!(self.cores[cpu.index()].online, "told a CPU that is not there");
            self.cores[cpu.index()].told = true;
        }
    }

    fn charge(&mut self, cpu: usize) {
        let core = &mut self.cores[cpu];
        if let Some(id) = core.current {
            let thread = self.threads.get_mut(&id).unwrap();
            thread.run_time += self.now - core.since;
            if core.urgent && self.now > core.since {
                thread.urgent.push((core.since, self.now));
            }
        }
        core.since = self.now;
    }

    /// What a CPU does on every interrupt that tells it to reschedule.
    fn pick(&mut self, cpu: usize) {
        self.pick_or_yield(cpu, false);
    }

    fn pick_or_yield(&mut self, cpu: usize, yields: bool) {
        self.charge(cpu);
        let Choice { thread, until, vacate, kick } = self.scheduler.pick(CpuId(cpu as u16), yields, Ticks(self.now));
        if let Some(id) = thread {
            let elsewhere = self.cores.iter().enumerate().find(|&(other, core)| other != cpu && core.stack == Some(id));
            assert!(elsewhere.is_none(), "picked a thread whose registers are on another CPU");
            let thread = self.threads.get_mut(&id).expect("picked a thread that does not exist");
            assert!(thread.awake, "picked a blocked thread");
            assert!(thread.parameters.affinity.contains(CpuId(cpu as u16)), "picked a thread that may not run here");
            if self.cores[cpu].current != Some(id) {
                thread.waiting_time += self.now - thread.ready_since;
            }
        }
        let urgent = thread.is_some_and(|id| {
            let status = self.scheduler.status(id, Ticks(self.now)).unwrap();
            status.priority == status.parameters.priority
        });
        let core = &mut self.cores[cpu];
        let (before, stack) = (core.current, core.stack);
        if thread.is_some() || vacate {
            core.stack = thread;
        }
        assert!(!vacate || (thread.is_none() && stack.is_some()), "told to leave a stack it is not on");
        *core = Core {
            online: true,
            current: thread,
            timer: (until != Ticks::NEVER).then_some(until.0),
            told: false,
            since: self.now,
            urgent,
            ..*core
        };
        assert!(core.timer.is_none_or(|timer| timer > self.now), "a timer in the past");
        if before != thread
            && let Some(before) = before.and_then(|id| self.threads.get_mut(&id))
        {
            before.ready_since = self.now;
        }
        for other in kick.iter() {
            assert_ne!(other.index(), cpu, "told itself");
            self.tell(Some(other));
        }
        self.check();
    }

    /// Lets every CPU that was told come.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            let Some(cpu) = self.cores.iter().position(|core| core.told) else { return };
            self.pick(cpu);
        }
        panic!("CPUs keep telling each other to come");
    }

    pub(crate) fn wake(&mut self, id: ThreadId) {
        let told = self.scheduler.wake(id, Ticks(self.now));
        if let Some(thread) = self.threads.get_mut(&id)
            && !thread.awake
        {
            thread.awake = true;
            thread.ready_since = self.now;
        }
        self.tell(told);
    }

    /// The current thread waits, if it does: a wake may have come first.
    pub(crate) fn block(&mut self, cpu: usize) {
        self.charge(cpu);
        let Some(id) = self.cores[cpu].current else { return };
        self.scheduler.block(CpuId(cpu as u16), Ticks(self.now));
        if self.scheduler.status(id, Ticks(self.now)).unwrap().state == State::Blocked {
            self.threads.get_mut(&id).unwrap().awake = false;
            self.cores[cpu].current = None;
        }
        self.pick(cpu);
    }

    /// Lets time pass, timers firing when they are due.
    pub(crate) fn advance(&mut self, ticks: u64) {
        let end = self.now + ticks;
        loop {
            let due = |core: &Core| core.timer.filter(|&timer| timer <= end);
            let next = (0..self.cores.len()).filter_map(|cpu| Some((due(&self.cores[cpu])?, cpu))).min();
            let Some((timer, cpu)) = next else { break };
            self.now = self.now.max(timer);
            self.pick(cpu);
            self.settle();
        }
        self.now = end;
    }

    /// What holds at every moment.
    fn check(&self) {
        let now = Ticks(self.now);
        for (cpu, core) in self.cores.iter().enumerate() {
            assert_eq!(self.scheduler.current(CpuId(cpu as u16)), core.current);
        }
        assert!(self.scheduler.threads().eq(self.threads.keys().copied()), "a thread was lost or made up");
        for (&id, thread) in &self.threads {
            let status = self.scheduler.status(id, now).unwrap();
            let running = self.cores.iter().position(|core| core.current == Some(id));
            let expected = match running {
                Some(cpu) => State::Running(CpuId(cpu as u16)),
                None if thread.awake => State::Ready,
                None => State::Blocked,
            };
            assert_eq!(status.state, expected);
            let stack = self.cores.iter().position(|core| core.stack == Some(id));
            assert_eq!(status.resident.map(CpuId::index), stack);
            assert_eq!(status.parameters, thread.parameters);
            let running_time = running.map_or(0, |cpu| self.now - self.cores[cpu].since);
            assert_eq!(status.run_time.0, thread.run_time + running_time);
            let waiting_time = if expected == State::Ready { self.now - thread.ready_since } else { 0 };
            assert_eq!(status.waiting_time.0, thread.waiting_time + waiting_time);
        }
    }

    /// What holds when every CPU that was told has come.
    fn check_settled(&self) {
        self.check();
        let rank = |id: ThreadId| {
            let thread = self.scheduler.threads.get(id.index() as u16).unwrap();
            self.scheduler.queues.rank(thread)
        };
        for (&id, thread) in self.threads.iter().filter(|(_, thread)| thread.awake) {
            if self.cores.iter().any(|core| core.current == Some(id)) {
                continue;
            }
            let may_run =
                |&(cpu, core): &(usize, &Core)| core.online && thread.parameters.affinity.contains(CpuId(cpu as u16));
            let equal = rank(id);
            let (mut robins, mut limited) = (0, 0);
            for (cpu, core) in self.cores.iter().enumerate().filter(may_run) {
                let level = core.current.map_or(0, rank);
                assert!(level >= equal, "CPU {cpu} runs rank {level} while {equal} could run there");
                if let Some(current) = core.current.filter(|_| level == equal) {
                    let robin = self.threads[&current].parameters.policy == Policy::RoundRobin;
                    robins += usize::from(robin);
                    limited += usize::from(robin && core.timer.is_some());
                }
            }
            assert!(robins == 0 || limited > 0, "a thread waits for its turn and no slice is limited");
        }
    }
}
