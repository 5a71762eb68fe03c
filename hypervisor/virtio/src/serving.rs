//! The worker's side of a device.
//!
//! Answers for: when a service is called, and how it reaches queues and buffers. Does not answer for: what it does with them.
//!
//! One rule makes a reset safe: memory of the guest is touched only while the queue's lock is held, with interrupts masked, and only
//! after a look whether the queue still lives the life that the request is of; and never for long ([`crate::STEP_BYTES`]). So when a
//! reset's store has completed nothing is written any more for what came before it.

mod state;

pub(crate) use state::{Lane, State};

use crate::model::{Next, Service};
use crate::{Chain, Queue, RingError};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::fmt;
use types::{Ipa, Range, Ticks};
use vdev::{Context, GuestMemory, Shared, Step, Work, Worker};

/// How a transport tells the driver that something has happened. Called in the device's calls and in its workers' threads.
pub trait Signals: Send + Sync {
    /// There are used buffers in this queue, and the driver wants to know (2.3, "used buffer notification").
    fn used(&self, queue: u16, context: &mut Context<'_>);

    /// The configuration space has changed ("configuration change notification"). Called in the device's calls only.
    fn changed(&self, context: &mut Context<'_>);

    /// The device needs a reset (2.1.2): the driver hears of it in the same way.
    fn failed(&self, context: &mut Context<'_>) {
        self.changed(context);
    }
}

/// Storage for a request, for as long as a service has it.
#[derive(Debug)]
pub struct Request {
    chain: Chain,
    origin: Origin,
}

/// Which queue a request is of, and which of that queue's lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Origin {
    queue: u16,
    incarnation: u32,
}

impl Request {
    /// Storage for the requests of queues of at most so many entries.
    #[must_use]
    pub fn new(queue_size: u16) -> Self {
        Self { chain: Chain::new(queue_size), origin: Origin::default() }
    }

    /// Bytes that are left to read.
    #[must_use]
    pub fn readable(&mut self) -> u64 {
        self.chain.reader().remaining()
    }

    /// Bytes that there is still room for.
    #[must_use]
    pub fn writable(&mut self) -> u64 {
        self.chain.writer().remaining()
    }

    /// Where there is room next: [`crate::Writer::area`].
    #[must_use]
    pub fn writable_area(&mut self) -> Option<Range<Ipa>> {
        self.chain.writer().area()
    }

    /// Goes on reading so many bytes further on.
    pub fn skip_readable(&mut self, bytes: u64) {
        self.chain.reader().skip(bytes);
    }

    /// Goes on writing so many bytes further on; see [`crate::Writer::skip`].
    pub fn skip_writable(&mut self, bytes: u64) {
        self.chain.writer().skip(bytes);
    }
}

/// The request is void: its queue has been reset, or its driver has made a mistake. There is nothing to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// One queue, while it is served.
pub struct Serving<'a, 'w> {
    work: &'a mut Work<'w>,
    lane: &'a Shared<Lane>,
    state: &'a State,
    queue: u16,
    /// The device's life that the service knows of.
    life: u32,
    /// The driver has not been told of all that has been completed.
    completed: bool,
}

impl fmt::Debug for Serving<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Serving<'_, '_> {
    /// Which queue it is.
    #[must_use]
    pub const fn queue(&self) -> u16 {
        self.queue
    }

    /// The system counter when this step began.
    #[must_use]
    pub const fn now(&self) -> Ticks {
        self.work.now
    }

    /// Does something with what the service shares with its model: [`Work::with`]. Queues and buffers are not to be reached from there.
    pub fn with<T, R>(&self, shared: &Shared<T>, work: impl FnOnce(&mut T, &mut Context<'_>) -> R) -> R {
        self.work.with(shared, work)
    }

    /// Has the model told ([`crate::Event::Woken`]) with a pulse: [`Work::pulse`].
    pub fn pulse(&self, code: u8) {
        self.work.pulse(code);
    }

    /// Takes the next request. If there is none the driver is told of what has been completed, and is to notify of the next one. While
    /// the device is held ([`crate::Core::hold`]) there is none.
    pub fn pop(&mut self, request: &mut Request) -> bool {
        self.pop_reading(request, &mut []).is_some()
    }

    /// The same, and copies the first bytes of the request into `into`, as far as they are in one of the steps of [`Serving::read`].
    /// Says how many those are.
    pub fn pop_reading(&mut self, request: &mut Request, into: &mut [u8]) -> Option<usize> {
        // All queues are looked at again when it is not held any more.
        if self.state.is_held() {
            return None;
        }
        let (chain, completed) = (&mut request.chain, &mut self.completed);
        let (state, number) = (self.state, self.queue);
        let popped = enter(self.work, self.lane, (state, number, self.life), None, |queue, context| {
            let memory = context.memory();
            let mut popped = queue.pop(memory, chain)?;
            if popped {
                queue.expect_notification(memory, false)?;
            } else {
                if core::mem::take(completed) {
                    announce(queue, state, number, context)?;
                }
                if queue.expect_notification(memory, true)? {
                    popped = queue.pop(memory, chain)?;
                }
            }
            if popped { chain.reader().read(memory, into).map(Some) } else { Ok(None) }
        });
        let (read, origin) = popped.ok()?;
        request.origin = origin;
        let read = read?;
        self.work.count_request();
        Some(read)
    }

    /// Copies the next bytes of a request into `into`, and says how many: as many as there are.
    ///
    /// # Errors
    /// If the request is void.
    pub fn read(&mut self, request: &mut Request, into: &mut [u8]) -> Result<usize, Stopped> {
        let mut done = 0_usize;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let chain = &mut request.chain;
            let (step, _) = self.enter(request.origin, |_, memory| chain.reader().read(memory, rest))?;
            if step == 0 {
                break;
            }
            done = done.saturating_add(step);
        }
        Ok(done)
    }

    /// Copies bytes into a request's buffers, and says how many: as many as there is room for.
    ///
    /// # Errors
    /// If the request is void.
    pub fn write(&mut self, request: &mut Request, from: &[u8]) -> Result<usize, Stopped> {
        let mut done = 0_usize;
        while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
            let chain = &mut request.chain;
            let (step, _) = self.enter(request.origin, |_, memory| chain.writer().write(memory, rest))?;
            if step == 0 {
                break;
            }
            done = done.saturating_add(step);
        }
        Ok(done)
    }

    /// Gives a request back, with what has been written up to the first gap.
    ///
    /// # Errors
    /// If it is void.
    pub fn complete(&mut self, request: &Request) -> Result<(), Stopped> {
        let chain = &request.chain;
        self.enter(request.origin, |queue, memory| queue.push(memory, chain, chain.written()))?;
        self.completed = true;
        Ok(())
    }

    /// The same, having copied last bytes into its buffers as [`Serving::write`] does, and a few, `end`, behind them: the request is
    /// given back in the step that copies the last of them.
    ///
    /// # Errors
    /// If it is void.
    pub fn complete_writing(&mut self, request: &mut Request, from: &[u8], end: &[u8]) -> Result<(), Stopped> {
        let mut from = from;
        while !self.completed_step(request, &mut from, end)? {}
        self.completed = true;
        Ok(())
    }

    /// A step of it, behind which `from` is what is left. Says whether it was the last.
    fn completed_step(&mut self, request: &mut Request, from: &mut &[u8], end: &[u8]) -> Result<bool, Stopped> {
        let chain = &mut request.chain;
        let step = self.enter(request.origin, |queue, memory| {
            let done = chain.writer().write(memory, from)?;
            *from = from.get(done..).unwrap_or_default();
            let is_last = from.is_empty() || done == 0;
            if is_last {
                chain.writer().write(memory, end)?;
                queue.push(memory, chain, chain.written())?;
            }
            Ok(is_last)
        });
        step.map(|(is_last, _)| is_last)
    }

    /// Gives several requests of this queue back, of which the driver sees all or none: parts of one thing (5.1.6.4.1, "num_buffers").
    ///
    /// # Errors
    /// If one of them is void.
    pub fn complete_together(&mut self, requests: &[Request]) -> Result<(), Stopped> {
        let Some(first) = requests.first() else { return Ok(()) };
        if requests.iter().any(|request| request.origin != first.origin) {
            return Err(Stopped);
        }
        let chains = || requests.iter().map(|request| &request.chain);
        self.enter(first.origin, |queue, memory| queue.push_together(memory, &mut chains()))?;
        self.completed = true;
        Ok(())
    }

    /// Does something because of a request, while it is not void: its driver does not go on without it before this returns. Short:
    /// interrupts are masked, and the queue is locked.
    ///
    /// # Errors
    /// If it is void; then nothing has been done.
    pub fn while_alive<R>(&mut self, request: &Request, work: impl FnOnce() -> R) -> Result<R, Stopped> {
        self.enter(request.origin, |_, _| Ok(work())).map(|(result, _)| result)
    }

    /// Whether a request is not void.
    #[must_use]
    pub fn is_alive(&mut self, request: &Request) -> bool {
        self.enter(request.origin, |_, _| Ok(())).is_ok()
    }

    /// Tells the driver of what has been completed, if it wants to know: also done when [`Service::serve`] returns.
    pub fn flush(&mut self) {
        if core::mem::take(&mut self.completed) {
            let (state, number) = (self.state, self.queue);
            // A queue that has been closed meanwhile has nobody to be told.
            let _ = enter(self.work, self.lane, (state, number, self.life), None, |queue, context| {
                announce(queue, state, number, context)
            });
        }
    }

    /// Has another queue of the same service served soon, as if its driver had notified.
    pub fn serve_too(&mut self, queue: u16) {
        let _exists = self.state.note(queue);
    }

    /// Does something with the queue and the guest's memory if the request is not void, which else is the result.
    fn enter<R>(
        &mut self,
        of: Origin,
        work: impl FnOnce(&mut Queue, &dyn GuestMemory) -> Result<R, RingError>,
    ) -> Result<(R, Origin), Stopped> {
        let who = (self.state, self.queue, self.life);
        enter(self.work, self.lane, who, Some(of), |queue, context| work(queue, context.memory()))
    }
}

/// Does something with a queue if it lives, and lives this life, or even the one that a request is of.
fn enter<R>(
    worker: &Work<'_>,
    lane: &Shared<Lane>,
    (state, number, life): (&State, u16, u32),
    of: Option<Origin>,
    work: impl FnOnce(&mut Queue, &mut Context<'_>) -> Result<R, RingError>,
) -> Result<(R, Origin), Stopped> {
    worker.with(lane, |lane, context| {
        let origin = Origin { queue: number, incarnation: lane.incarnation };
        let lives = lane.life == life && of.is_none_or(|of| of == origin) && !state.needs_reset();
        let queue = lane.queue.as_mut().filter(|_| lives).ok_or(Stopped)?;
        match work(queue, context) {
            Ok(result) => Ok((result, origin)),
            Err(error) => {
                state.fail(number, error, context);
                Err(Stopped)
            }
        }
    })
}

/// Tells the driver that requests of a queue have been completed, if it wants to know.
fn announce(queue: &mut Queue, state: &State, number: u16, context: &mut Context<'_>) -> Result<(), RingError> {
    if queue.wants_interrupt(context.memory())? {
        state.signals.used(number, context);
    }
    Ok(())
}

/// A service in its thread.
pub(crate) struct Post {
    service: Box<dyn Service>,
    /// Its queues, and when each is to be served next.
    queues: Vec<(u16, Shared<Lane>, Next)>,
    state: Arc<State>,
    /// The life that the service knows of.
    life: u32,
}

impl Post {
    pub(crate) fn new(
        service: Box<dyn Service>,
        numbers: core::ops::Range<u16>,
        lanes: &[Shared<Lane>],
        state: &Arc<State>,
    ) -> Self {
        let lane = |number: u16| Some((number, lanes.get(usize::from(number))?.clone(), Next::Idle));
        Self { service, queues: numbers.filter_map(lane).collect(), state: Arc::clone(state), life: 0 }
    }
}

impl Worker for Post {
    fn waits(&self) -> bool {
        self.service.waits()
    }

    fn step(&mut self, work: &mut Work<'_>) -> Step {
        let state = &*self.state;
        // Notes stay, and whoever lets it go on rings.
        if state.is_held() {
            return Step::Wait;
        }
        let mut step = Step::Wait;
        for (number, lane, next) in &mut self.queues {
            let due = match *next {
                Next::Again | Next::Rung => true,
                Next::Until(when) => when <= work.now,
                Next::Idle => false,
            };
            if state.take_note(*number) || due {
                // Of the life that the note is of, or of a later one, of which there will be another note.
                let life = state.life();
                if life != self.life {
                    self.life = life;
                    self.service.begin(state.features());
                }
                let mut serving = Serving { work, lane, state, queue: *number, life, completed: false };
                *next = self.service.serve(&mut serving);
                serving.flush();
            }
            step = match (*next, step) {
                (Next::Again, _) | (_, Step::Again) => Step::Again,
                (Next::Until(when), Step::Until(first)) => Step::Until(when.min(first)),
                (Next::Until(when), Step::Wait) => Step::Until(when),
                (Next::Idle | Next::Rung, step) => step,
            };
        }
        // Queues behind which the service has had to look at an earlier one.
        if self.queues.iter().any(|(number, ..)| state.has_note(*number)) { Step::Again } else { step }
    }
}

#[cfg(test)]
mod tests;
