//! A machine of threads under a simulated clock, driven at random, checked against what the policy promises.
//!
//! The simulated kernel keeps its own books: whose registers are where, which CPUs have been told to come, when their
//! timers fire. It believes nothing that the scheduler says about itself, but for who is out of budget in random histories;
//! that is what the properties at the end and the recorded schedules (`timeline`) are for.

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

#[derive(Clone, Debug)]
enum Step {
    Online(usize),
    Spawn(Parameters),
    Wake(usize),
    Block(usize),
    Yield(usize),
    Come(usize),
    Settle,
    Advance(u64),
    Priority(usize, Priority),
    Affinity(usize, CpuSet),
    Evict(usize),
    Remove(usize),
}

fn priority() -> impl Strategy<Value = Priority> {
    // Few different ones, so that there are equals; among them the ends of the words of the bitmap.
    select(vec![1, 63, 64, 64, 64, 255]).prop_map(|value| Priority::new(value).unwrap())
}

fn affinity(cpus: usize) -> impl Strategy<Value = CpuSet> {
    let all = CpuSet::first(cpus);
    prop_oneof![2 => Just(all), 1 => (1..=all.0).prop_map(CpuSet)]
}

fn parameters(cpus: usize) -> impl Strategy<Value = Parameters> {
    let sporadic = (1..=3_u8, 1..400_u64, 1..400_u64).prop_map(|(max_replenishments, a, b)| {
        let (budget, period) = (Ticks(a.min(b)), Ticks(a.max(b)));
        Policy::Sporadic(Sporadic { low: Priority::LOWEST, max_replenishments, period, budget })
    });
    let policy = prop_oneof![3 => Just(Policy::RoundRobin), 1 => Just(Policy::Fifo), 1 => sporadic];
    (priority(), policy, affinity(cpus), 0..3_u8).prop_map(|(priority, policy, affinity, share)| {
        let policy = if priority == Priority::LOWEST { Policy::Fifo } else { policy };
        Parameters { priority, policy, affinity, share: ShareId(share) }
    })
}

fn step(cpus: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..cpus).prop_map(Step::Online),
        4 => parameters(cpus).prop_map(Step::Spawn),
        12 => (0..CAPACITY).prop_map(Step::Wake),
        8 => (0..cpus).prop_map(Step::Block),
        3 => (0..cpus).prop_map(Step::Yield),
        5 => (0..cpus).prop_map(Step::Come),
        3 => Just(Step::Settle),
        5 => (1..250_u64).prop_map(Step::Advance),
        2 => (0..CAPACITY, priority()).prop_map(|(thread, priority)| Step::Priority(thread, priority)),
        2 => (0..CAPACITY, affinity(cpus)).prop_map(|(thread, affinity)| Step::Affinity(thread, affinity)),
        1 => (0..CAPACITY).prop_map(Step::Evict),
        1 => (0..CAPACITY).prop_map(Step::Remove),
    ]
}

/// Steps of the longest history. A run of few cases, as under Miri, is to be short in all.
fn length() -> usize {
    if ProptestConfig::default().cases < 16 { 12 } else { 120 }
}

/// Machines of 1 to 8 CPUs, some of which may never come online.
fn history() -> impl Strategy<Value = (usize, usize, bool, Vec<Step>)> {
    let steps = |cpus| collection::vec(step(cpus), 1..=length());
    (1..=8_usize).prop_flat_map(move |cpus| (Just(cpus), 1..=cpus, any::<bool>(), steps(cpus)))
}

impl Machine {
    pub(crate) fn spawn(&mut self, parameters: Parameters) -> Option<ThreadId> {
        let id = self.scheduler.spawn(parameters).inspect_err(|error| std::eprintln!("{error}")).ok()?;
        let thread =
            Thread { parameters, awake: false, ready_since: 0, waiting_time: 0, run_time: 0, urgent: Vec::new() };
        assert!(self.threads.insert(id, thread).is_none(), "an identifier was used twice");
        Some(id)
    }

    fn thread(&self, number: usize) -> Option<ThreadId> {
        self.threads.keys().find(|id| id.index() == number).copied()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Online(cpu) => self.pick(cpu),
            Step::Spawn(parameters) => {
                let has_shares = self.scheduler.shares.are_defined();
                let share = if has_shares { parameters.share } else { ShareId::SYSTEM };
                let before = self.threads.len();
                let spawned = self.spawn(Parameters { share, ..parameters });
                assert_eq!(spawned.is_some(), before < CAPACITY);
            }
            Step::Wake(number) => _ = self.thread(number).map(|id| self.wake(id)),
            Step::Block(cpu) => self.block(cpu),
            Step::Yield(cpu) if self.cores[cpu].online => self.pick_or_yield(cpu, true),
            Step::Come(cpu) if self.cores[cpu].told => self.pick(cpu),
            Step::Yield(_) | Step::Come(_) => {}
            Step::Settle => {
                self.settle();
                self.check_settled();
            }
            Step::Advance(ticks) => self.advance(ticks),
            Step::Priority(number, priority) => {
                let Some(id) = self.thread(number) else { return };
                let thread = self.threads.get_mut(&id).unwrap();
                if matches!(thread.parameters.policy, Policy::Sporadic(_)) && priority == Priority::LOWEST {
                    return;
                }
                thread.parameters.priority = priority;
                let told = self.scheduler.set_priority(id, priority);
                self.tell(told);
            }
            Step::Affinity(number, affinity) => {
                let Some(id) = self.thread(number) else { return };
                let told = self.scheduler.set_affinity(id, affinity).unwrap();
                self.threads.get_mut(&id).unwrap().parameters.affinity = affinity;
                self.tell(told);
            }
            Step::Evict(number) => {
                let told = self.thread(number).and_then(|id| self.scheduler.evict(id));
                self.tell(told);
            }
            Step::Remove(number) => {
                let Some(id) = self.thread(number) else { return };
                let allowed = !self.threads[&id].awake && self.cores.iter().all(|core| core.stack != Some(id));
                assert_eq!(self.scheduler.remove(id).is_ok(), allowed);
                if allowed {
                    self.threads.remove(&id);
                }
            }
        }
    }
}

proptest! {
    // No file of past failures: a failure prints the steps.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The most urgent ready threads run, each on one CPU that it may run on, and none is lost.
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn a_random_history_keeps_every_promise((cpus, online, has_shares, steps) in history()) {
        let mut machine = Machine::new(cpus);
        if has_shares {
            for percent in [20, 30] {
                machine.scheduler.define_share(percent, Ticks(WINDOW)).unwrap();
            }
        }
        for cpu in 0..online {
            machine.pick(cpu);
        }
        for step in &steps {
            machine.step(step);
            machine.check();
        }
        machine.settle();
        machine.check_settled();
    }

    /// Threads of one priority under round robin all get on, whatever CPUs they are bound to.
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn equals_do_not_starve(cpus in 1..=4_usize, affinities in collection::vec(1..16_u64, 2..CAPACITY), wakes in collection::vec(0..500_u64, CAPACITY)) {
        let mut machine = Machine::online(cpus);
        let all = CpuSet::first(cpus);
        for (affinity, wake) in affinities.iter().zip(wakes) {
            let affinity = Some(CpuSet(*affinity).intersection(all)).filter(|set| !set.is_empty()).unwrap_or(all);
            let priority = Priority::new(10).unwrap();
            machine.step(&Step::Spawn(Parameters { priority, policy: Policy::RoundRobin, affinity, share: ShareId::SYSTEM }));
            let id = *machine.threads.keys().next_back().unwrap();
            machine.wake(id);
            machine.settle();
            machine.advance(wake);
        }
        machine.check_settled();
        let before: Vec<u64> = machine.threads.values().map(|thread| thread.run_time).collect();
        // Each waits for at most a slice of every other, and the one that is at work.
        let rounds = 8;
        machine.advance(rounds * SLICE * affinities.len() as u64);
        for cpu in 0..cpus {
            machine.charge(cpu);
        }
        for (thread, before) in machine.threads.values().zip(before) {
            prop_assert!(thread.run_time - before >= (rounds - 2) * SLICE, "{} of {}", thread.run_time - before, rounds * SLICE);
        }
    }

    /// In no period does a server run at its own priority for longer than its budget, whatever it and others do.
    #[test]
    fn a_budget_is_never_exceeded(
        period in 50..400_u64,
        percent in 1..=100_u64,
        max_replenishments in 1..=4_u8,
        steps in collection::vec((0..5_u8, 1..60_u64), 1..=length()),
    ) {
        let mut machine = Machine::online(1);
        let budget = (period * percent / 100).max(1);
        let low = Priority::new(5).unwrap();
        let server = Sporadic { low, max_replenishments, period: Ticks(period), budget: Ticks(budget) };
        let spawn = |machine: &mut Machine, priority, policy| {
            let (priority, affinity) = (Priority::new(priority).unwrap(), CpuSet::first(1));
            machine.spawn(Parameters { priority, policy, affinity, share: ShareId::SYSTEM }).unwrap()
        };
        let server = spawn(&mut machine, 20, Policy::Sporadic(server));
        let others = [10, 20, 30].map(|priority| spawn(&mut machine, priority, Policy::RoundRobin));
        for (what, ticks) in steps {
            match usize::from(what) {
                0 => machine.block(0),
                1 => machine.wake(server),
                other => machine.wake(others[other - 2]),
            }
            machine.settle();
            machine.advance(ticks);
        }
        machine.charge(0);
        let runs = &machine.threads[&server].urgent;
        for &(start, _) in runs {
            // The worst windows begin with a run.
            let within = |&(from, to): &(u64, u64)| to.min(start + period).saturating_sub(from.max(start));
            let used: u64 = runs.iter().map(within).sum();
            prop_assert!(used <= budget, "{used} of {budget} in {period} from {start}: {runs:?}");
        }
    }

    /// A server that always wants to run gets its whole budget in every period, and it alone: nothing of it is ever lost.
    #[test]
    fn a_greedy_server_gets_its_budget(period in 20..400_u64, percent in 1..=100_u64, max_replenishments in 1..=4_u8) {
        let mut machine = Machine::online(1);
        let budget = (period * percent / 100).max(1);
        let low = Priority::new(5).unwrap();
        let server = Sporadic { low, max_replenishments, period: Ticks(period), budget: Ticks(budget) };
        let (priority, affinity, share) = (Priority::new(20).unwrap(), CpuSet::first(1), ShareId::SYSTEM);
        let server = machine.spawn(Parameters { priority, policy: Policy::Sporadic(server), affinity, share }).unwrap();
        let (priority, policy) = (Priority::new(10).unwrap(), Policy::RoundRobin);
        let other = machine.spawn(Parameters { priority, policy, affinity, share }).unwrap();
        machine.wake(server);
        machine.wake(other);
        machine.settle();
        machine.advance(10 * period);
        machine.charge(0);
        prop_assert_eq!(machine.threads[&server].run_time, 10 * budget);
        prop_assert_eq!(machine.threads[&other].run_time, 10 * (period - budget));
    }

    /// Under load each share gets what it is guaranteed, whatever the priorities; what one does not want the others get.
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn shares_get_their_part(
        cpus in 1..=3_usize,
        percents in collection::vec(5..=30_u8, 1..=3),
        priorities in collection::vec(1..=3_u8, 4),
        idle in 0..5_usize,
    ) {
        let mut machine = Machine::online(cpus);
        let shares: Vec<ShareId> =
            percents.iter().map(|percent| machine.scheduler.define_share(*percent, Ticks(WINDOW)).unwrap()).collect();
        let all = core::iter::once(ShareId::SYSTEM).chain(shares);
        let mut members = BTreeMap::new();
        for (number, share) in all.enumerate() {
            let (priority, affinity) = (Priority::new(priorities[number]).unwrap(), CpuSet::first(cpus));
            for _ in 0..cpus {
                let id = machine.spawn(Parameters { priority, policy: Policy::RoundRobin, affinity, share }).unwrap();
                members.insert(id, number);
                if number != idle {
                    machine.wake(id);
                    machine.settle();
                }
            }
        }
        let windows = if length() < 100 { 2 } else { 10 };
        machine.advance(WINDOW);
        let before: Vec<u64> = machine.threads.values().map(|thread| thread.run_time).collect();
        machine.advance(windows * WINDOW);
        (0..cpus).for_each(|cpu| machine.charge(cpu));
        let mut used = [0; 4];
        for ((id, thread), before) in machine.threads.iter().zip(before) {
            used[members[id]] += thread.run_time - before;
        }
        let capacity = windows * WINDOW * cpus as u64;
        // A CPU charges when it picks, which is at least once in a slot.
        let tolerance = SLICE * cpus as u64 + capacity / 100;
        let total: u64 = used.iter().sum();
        prop_assert!(total + tolerance * 2 >= capacity, "{total} of {capacity}: time was given to nobody");
        let left = 100 - percents.iter().sum::<u8>();
        for (number, percent) in core::iter::once(left).chain(percents).enumerate().filter(|(number, _)| *number != idle) {
            let guaranteed = capacity * u64::from(percent) / 100;
            prop_assert!(used[number] + tolerance >= guaranteed, "{number}: {used:?}, {percent} % of {capacity}");
        }
    }
}
