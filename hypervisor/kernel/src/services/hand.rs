//! A device's worker, and who does its steps.
//!
//! Answers for: that one thread at a time does, and that nothing it was rung for is forgotten. That thread is the worker's own, or, for
//! a first step, a vCPU's: a guest that asks for one thing at a time waits for it, and two switches of threads cost more than what most
//! steps do. One that asks for many gets on with that meanwhile, and does not have to say so each time if nobody is too quick
//! (docs/design/029-virtio.md). Does not answer for: what a step does (`vdevs`).

use super::Inbox;
use crate::compartment::Compartment;
use crate::partition::Partition;
use crate::sync::masked;
use crate::thread::{self, Thread};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, Ordering};
use spin::Once;
use types::Ticks;
use vdev::{Bell, Context, DeviceId, NewWorker, Step, Work, Worker};

/// How many steps vCPUs do before the worker's thread has one that the guest does not wait for.
const TURNS: u8 = 64;

/// A worker, and the way to its thread.
pub(super) struct Hand {
    pub(super) bell: Bell,
    /// Its steps may wait for something.
    pub(super) waits: bool,
    /// Where its pulses go.
    inbox: Arc<Inbox>,
    /// Whoever does a step takes it out for as long.
    worker: types::Lock<Option<Box<Idle>>>,
    /// How often a vCPU still does the step itself before the worker's thread looks again what the guest is like.
    turns: AtomicU8,
    /// The partition keeps it, as an inbox's.
    thread: Once<&'static Thread>,
}

/// A worker that nobody has, and what came of its last step.
struct Idle {
    worker: Box<dyn Worker>,
    next: Step,
}

impl Hand {
    pub(super) fn new(inbox: Arc<Inbox>, new: NewWorker) -> Self {
        let NewWorker { worker, bell } = new;
        let waits = worker.waits();
        let worker = types::Lock::new(Some(Box::new(Idle { worker, next: Step::Wait })));
        Self { bell, waits, inbox, worker, turns: AtomicU8::new(TURNS), thread: Once::new() }
    }

    pub(super) fn device(&self) -> DeviceId {
        self.inbox.device
    }

    pub(super) fn set_thread(&self, thread: &'static Thread) {
        self.thread.call_once(|| thread);
    }

    /// Has its thread look.
    pub(super) fn notify(&self) {
        if let Some(thread) = self.thread.get() {
            thread::notify(thread);
        }
    }

    /// A step in the calling thread, which is a vCPU's, if the guest asks for one thing at a time. What comes after it the worker's own
    /// thread sees to.
    pub(super) fn help(&self, partition: &Partition) {
        let turns = self.turns.load(Ordering::Relaxed);
        if turns == 0 {
            return self.notify();
        }
        self.turns.store(turns - 1, Ordering::Relaxed);
        let thread = thread::current();
        thread.device.set(Some(self.device()));
        if self.step(partition, false).is_some_and(|next| next != Step::Wait) {
            self.notify();
        }
        thread.device.set(None);
    }

    /// Does a step, if there is something to do, and says what comes next. `None`: somebody else is at it, and looks again whether it
    /// has been rung meanwhile. `learns`: from how much there is when it has been rung follows who is to do the next steps.
    fn step(&self, partition: &Partition, learns: bool) -> Option<Step> {
        let mut idle = masked(|| self.worker.lock().take())?;
        let now = el2::cpu::counter();
        let is_due = match idle.next {
            Step::Again => true,
            Step::Wait => false,
            Step::Until(when) => when <= now,
        };
        let has_rung = self.bell.take();
        if has_rung || is_due {
            let gate = |work: &mut dyn FnMut(&mut Context<'_>)| {
                partition.with_effects(None, |vm, now, effects| vm.enter(self.device(), now, effects, work));
            };
            let mut work = Work::new(now, partition.vm.memory(), &gate, &*self.inbox);
            idle.next = idle.worker.step(&mut work);
            if learns && has_rung && work.requests() > 0 {
                self.turns.store(if work.requests() == 1 { TURNS } else { 0 }, Ordering::Relaxed);
            }
        }
        let next = idle.next;
        masked(|| *self.worker.lock() = Some(idle));
        // Who rang while the worker was out has found nobody.
        Some(if self.bell.has_rung() { Step::Again } else { next })
    }
}

/// The life of a worker's thread.
pub(super) fn labour(compartment: &'static Compartment, number: usize) {
    let Some(partition) = compartment.partition() else { return };
    let Some(hand) = partition.services.hands.get(number) else { return };
    thread::current().device.set(Some(hand.device()));
    while !partition.is_stopping() {
        match hand.step(partition, true) {
            Some(Step::Again) => {}
            Some(Step::Until(when)) => thread::sleep_until(when),
            Some(Step::Wait) | None => thread::sleep_until(Ticks::NEVER),
        }
    }
}
