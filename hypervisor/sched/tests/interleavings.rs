//! Sleeping, waking and the scheduler's lock under every kind of interleaving.
//!
//! `shuttle` runs each test many times with its own atomics and decides at each of them who goes on. What is tested is the
//! source that the kernel runs: the lock-free modules are compiled here once more, with those atomics in place of the
//! hardware's. Orderings weaker than sequential consistency are not explored.

#![allow(unreachable_pub, dead_code, missing_docs, reason = "modules of the crate, compiled as a part of this test")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}
#[path = "../src/presence.rs"]
mod presence;
#[path = "../src/turnstile.rs"]
mod turnstile;

use presence::Presence;
use sched::{Parameters, Policy, Priority, Scheduler, ShareId, ThreadId};
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use shuttle::{sync::Arc, thread};
use std::cell::RefCell;
use turnstile::Turnstile;
use types::{CpuId, CpuSet, Ticks};

const RUNS: usize = 3000;

/// Runs `test` under two schedulers: any choice at any time, and few switches at unlikely places.
fn explore(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), RUNS);
    shuttle::check_pct(test, RUNS, 3);
}

/// The policy behind its lock, as in the kernel.
struct Core {
    lock: Turnstile,
    policy: std::sync::Mutex<RefCell<Scheduler>>,
}

impl Core {
    fn new(cpus: usize) -> Self {
        let policy = Scheduler::new(cpus, Ticks(100), 8);
        Self { lock: Turnstile::new(), policy: std::sync::Mutex::new(RefCell::new(policy)) }
    }

    fn enter(&self) {
        self.lock.enter(thread::yield_now);
    }

    /// The lock is held. That nobody else comes in is what the other lock, which must never be contended, says.
    fn held<R>(&self, work: impl FnOnce(&mut Scheduler) -> R) -> R {
        let policy = self.policy.try_lock().expect("two at once in what the turnstile guards");
        work(&mut policy.borrow_mut())
    }

    fn with<R>(&self, work: impl FnOnce(&mut Scheduler) -> R) -> R {
        self.enter();
        let result = self.held(work);
        self.lock.leave();
        result
    }
}

/// What two CPUs and the threads on them share.
struct Machine {
    core: Core,
    presence: Presence,
    /// Interrupts on their way to each CPU.
    rung: [AtomicBool; 2],
}

const SLEEPER: CpuId = CpuId(0);
const WAKER: CpuId = CpuId(1);

impl Machine {
    fn new() -> (Arc<Self>, ThreadId, ThreadId) {
        let rung = [AtomicBool::new(false), AtomicBool::new(false)];
        let machine = Self { core: Core::new(2), presence: Presence::new(), rung };
        let threads = machine.core.with(|policy| {
            [SLEEPER, WAKER].map(|cpu| {
                let _ = policy.pick(cpu, false, Ticks(0));
                let (priority, policy_, affinity) = (Priority::LOWEST, Policy::RoundRobin, CpuSet::of(cpu));
                let parameters = Parameters { priority, policy: policy_, affinity, share: ShareId::SYSTEM };
                let id = policy.spawn(parameters).unwrap();
                assert_eq!(policy.wake(id, Ticks(0)), Some(cpu));
                assert_eq!(policy.pick(cpu, false, Ticks(0)).thread, Some(id));
                id
            })
        });
        machine.presence.arrive(SLEEPER);
        (Arc::new(machine), threads[0], threads[1])
    }

    fn ring(&self, cpu: CpuId) {
        self.rung[cpu.index()].store(true, Ordering::SeqCst);
    }

    /// As `notify` in the kernel's threads.
    fn notify(&self, id: ThreadId) {
        match self.presence.announce() {
            Some(cpu) => self.ring(cpu),
            None => {
                let called = self.core.with(|policy| policy.wake(id, Ticks(0)));
                called.into_iter().for_each(|cpu| self.ring(cpu));
            }
        }
    }

    /// As `sleep_until` and `reschedule` in the kernel's threads, without a deadline. The CPU has nothing else to run.
    fn sleep(&self, id: ThreadId) {
        if self.presence.take_token() {
            return;
        }
        let blocked = self.core.with(|policy| {
            let may = self.presence.try_sleep(SLEEPER);
            if may {
                policy.block(SLEEPER, Ticks(0));
            }
            may
        });
        if blocked {
            self.reschedule(id);
        }
        self.presence.drop_token();
    }

    /// Returns when the thread is picked.
    fn reschedule(&self, id: ThreadId) {
        loop {
            let choice = self.core.with(|policy| {
                let choice = policy.pick(SLEEPER, false, Ticks(0));
                if choice.thread.is_some() {
                    self.presence.arrive(SLEEPER);
                }
                choice
            });
            if choice.thread == Some(id) {
                break;
            }
            while !self.rung[0].swap(false, Ordering::SeqCst) {
                thread::yield_now();
            }
        }
    }
}

/// A wake that comes before, while or after its thread goes to sleep is never lost: shuttle reports a run in which nobody
/// gets on any more.
#[test]
fn no_wake_is_lost() {
    explore(|| {
        let (machine, sleeper, _) = Machine::new();
        let work = Arc::new(AtomicU32::new(0));
        let giver = {
            let (machine, work) = (Arc::clone(&machine), Arc::clone(&work));
            thread::spawn(move || {
                for _ in 0..2 {
                    work.fetch_add(1, Ordering::SeqCst);
                    machine.notify(sleeper);
                }
            })
        };
        let mut done = 0;
        while done < 2 {
            let given = work.load(Ordering::SeqCst);
            if given == done {
                machine.sleep(sleeper);
            }
            done = given;
        }
        giver.join().unwrap();
    });
}

/// Two that wake one thread at once: it comes back, once, and the policy is sound.
#[test]
fn two_wakes_at_once_are_one() {
    explore(|| {
        let (machine, sleeper, _) = Machine::new();
        let work = Arc::new(AtomicU32::new(0));
        let givers = [(); 2].map(|()| {
            let (machine, work) = (Arc::clone(&machine), Arc::clone(&work));
            thread::spawn(move || {
                work.fetch_add(1, Ordering::SeqCst);
                machine.notify(sleeper);
            })
        });
        while work.load(Ordering::SeqCst) < 2 {
            machine.sleep(sleeper);
        }
        givers.into_iter().for_each(|giver| giver.join().unwrap());
        assert_eq!(machine.core.with(|policy| policy.current(SLEEPER)), Some(sleeper));
    });
}

/// The lock lets one in at a time, also where another one leaves than has entered, and what the first has done is there for
/// the next.
#[test]
fn the_lock_is_handed_over() {
    explore(|| {
        let core = Arc::new((Turnstile::new(), AtomicU32::new(0), AtomicBool::new(false)));
        let add = |core: &(Turnstile, AtomicU32, AtomicBool)| {
            assert!(!core.2.swap(true, Ordering::SeqCst), "two at once");
            let value = core.1.load(Ordering::SeqCst);
            thread::yield_now();
            core.1.store(value + 1, Ordering::SeqCst);
            core.2.store(false, Ordering::SeqCst);
        };
        let others = [(); 2].map(|()| {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                core.0.enter(thread::yield_now);
                add(&core);
                core.0.leave();
            })
        });
        core.0.enter(thread::yield_now);
        let next = {
            let core = Arc::clone(&core);
            // The thread that comes to the CPU leaves in place of the one that went.
            thread::spawn(move || {
                add(&core);
                core.0.leave();
            })
        };
        next.join().unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(core.1.load(Ordering::SeqCst), 3);
    });
}

/// The test can fail: with the token looked for before the place is left, `shuttle` finds the wake that is lost.
#[test]
#[should_panic(expected = "asleep for ever")]
fn the_order_of_the_two_flags_matters() {
    shuttle::check_random(
        || {
            let presence = Arc::new(Presence::new());
            presence.arrive(SLEEPER);
            let giver = {
                let presence = Arc::clone(&presence);
                thread::spawn(move || presence.announce())
            };
            let slept = if presence.take_token() {
                false
            } else {
                presence.depart();
                true
            };
            let told = giver.join().unwrap();
            // Away, and whoever woke it believed it was there.
            assert!(!(slept && told.is_some()), "asleep for ever");
        },
        RUNS,
    );
}
