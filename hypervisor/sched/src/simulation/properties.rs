//! Properties of every history of the machine, and of some that are made to be hard.

use super::*;

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
