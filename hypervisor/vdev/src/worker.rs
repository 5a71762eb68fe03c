//! Work that a device does not do itself.
//!
//! Answers for: what a worker is, how it and its device reach each other, and what they share. Does not answer for: the thread
//! that a worker runs in (the kernel's), nor for back ends, which have their own.
//!
//! A device is called with its lock held and interrupts masked, so nothing that it does may take long. A worker runs in a thread
//! of its own, with interrupts on, and may be preempted anywhere. What both reach is in a [`Shared`], which a worker enters with
//! interrupts masked ([`Work::with`]), and a device while it is called ([`Shared::with`]): neither can wait for the other's thread.
//! In there a worker has what a device has in a call: its line, messages, the log. What takes a device's own state is done by
//! the device: a pulse wakes it.

use crate::{Context, GuestMemory};
use alloc::{boxed::Box, sync::Arc};
use core::cell::Cell;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use types::{Lock, Ticks};

/// Most workers of a device.
pub const WORKERS: usize = 4;

/// Codes of pulses are below this.
pub const PULSES: u8 = 30;

/// Work that is done step by step, in a thread: its own, or, for one step after the device has rung, that of the vCPU whose access it
/// was. It begins when the guest does, and ends with its VM between two steps, without
/// having to be asked.
pub trait Worker: Send {
    /// A part of the work, as short as it can be well done: the VM's end waits for it, a second at most.
    fn step(&mut self, work: &mut Work<'_>) -> Step;

    /// Whether a step may wait for something but locks: then it is done in its own thread only, so that no vCPU waits. Asked once.
    fn waits(&self) -> bool {
        false
    }
}

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next one.
    Again,
    /// The next one when the device has rung ([`Context::ring`]), which it may have done meanwhile.
    Wait,
    /// The next one then, or when the device has rung.
    Until(Ticks),
}

/// Runs what it is given, once, with interrupts masked and what the device may reach; and then does what that asked for.
type Gate<'a> = &'a dyn Fn(&mut dyn FnMut(&mut Context<'_>));

/// What a worker may reach during a step.
pub struct Work<'a> {
    /// The system counter when the step began.
    pub now: Ticks,
    memory: &'a dyn GuestMemory,
    gate: Gate<'a>,
    sink: &'a dyn PulseSink,
    /// Requests that have been taken in this step.
    requests: Cell<u32>,
}

impl fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("now", &self.now).finish_non_exhaustive()
    }
}

impl<'a> Work<'a> {
    /// For whoever runs workers. `gate` has to run what it is given, before it returns.
    #[must_use]
    pub fn new(now: Ticks, memory: &'a dyn GuestMemory, gate: Gate<'a>, sink: &'a dyn PulseSink) -> Self {
        Self { now, memory, gate, sink, requests: Cell::new(0) }
    }

    /// The VM's memory.
    #[must_use]
    pub fn memory(&self) -> &'a dyn GuestMemory {
        self.memory
    }

    /// Does something with what is shared with the device, which does not get at it meanwhile; it may be called otherwise. Short:
    /// interrupts are masked. What `work` asks of its context is done when it returns.
    ///
    /// # Panics
    /// If the gate does not run it, which is a mistake of whoever runs workers.
    #[expect(clippy::expect_used, reason = "a promise of the constructor's caller, never of a guest's")]
    pub fn with<T, R>(&self, shared: &Shared<T>, work: impl FnOnce(&mut T, &mut Context<'_>) -> R) -> R {
        let (mut work, mut result) = (Some(work), None);
        (self.gate)(&mut |context| result = work.take().map(|work| shared.with(context, work)));
        result.expect("the gate runs what it is given")
    }

    /// A request has been taken: for whoever runs workers, who may want to know whether they come one at a time.
    pub fn count_request(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
    }

    /// How many requests have been taken in this step.
    #[must_use]
    pub const fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// Has the device woken with [`crate::Wake::Pulse`] and this code, below [`PULSES`]; others come as the highest. The same code
    /// twice may come once.
    pub fn pulse(&self, code: u8) {
        self.sink.send(code.min(PULSES.saturating_sub(1)));
    }
}

/// Where pulses go.
pub trait PulseSink: Send + Sync {
    /// Has a device woken with a pulse.
    fn send(&self, code: u8);
}

/// What a device and its worker both reach; clones are handles of the same.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<Lock<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Shared<T> {
    /// Shares `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(Lock::new(value)))
    }

    /// Does something with it in a device's call, of which `context` is, or in its worker's [`Work::with`].
    pub fn with<R>(&self, context: &mut Context<'_>, work: impl FnOnce(&mut T, &mut Context<'_>) -> R) -> R {
        work(&mut self.0.lock(), context)
    }
}

/// What a device wakes its worker with ([`Context::ring`]).
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<AtomicBool>);

impl Bell {
    /// Rings: for devices ([`Context::ring`]), and for owners of back ends, who wake the worker's thread themselves.
    pub fn ring(&self) {
        self.0.store(true, Release);
    }

    /// Whether it has rung since this was last asked: for whoever runs the worker.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.swap(false, AcqRel)
    }

    /// Whether it has rung.
    #[must_use]
    pub fn has_rung(&self) -> bool {
        self.0.load(Acquire)
    }
}

/// A worker on its way to its thread.
pub struct NewWorker {
    /// What is done.
    pub worker: Box<dyn Worker>,
    /// What wakes it.
    pub bell: Bell,
}

impl fmt::Debug for NewWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWorker").field("bell", &self.bell).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{ANY_SIZE, Rig, Wires};
    use crate::{AccessFault, Control, ControlError, Factory, Node, OptionError, Options, Setup, Vdev, Wake};
    use types::{AccessSize, Ipa};

    /// Adds up words of guest memory, as many as it is told, a word a step.
    struct Adder {
        order: Shared<Order>,
        bell: Bell,
        done: u64,
    }

    #[derive(Debug, Default)]
    struct Order {
        at: u64,
        count: u64,
        sum: u64,
    }

    struct Arithmetic(Shared<Order>);

    impl Worker for Arithmetic {
        fn step(&mut self, work: &mut Work<'_>) -> Step {
            let Some(at) = work.with(&self.0, |order, _| (order.count > 0).then_some(order.at)) else {
                return Step::Wait;
            };
            let value = work.memory().load(Ipa(at), AccessSize::Doubleword).unwrap_or(0);
            let left = work.with(&self.0, |order, _| {
                (order.sum, order.at, order.count) = (order.sum + value, order.at + 8, order.count - 1);
                order.count
            });
            if left == 0 {
                work.pulse(7);
            }
            Step::Again
        }
    }

    fn create(_: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
        let order = Shared::<Order>::default();
        let bell = setup.worker(Box::new(Arithmetic(order.clone())))?;
        Ok(Box::new(Adder { order, bell, done: 0 }))
    }

    static ADDER: Factory = Factory { name: "adder", access_sizes: ANY_SIZE, ..Factory::new(create) };

    impl Vdev for Adder {
        fn read(&mut self, offset: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
            Ok(if offset == 0 { self.done } else { self.order.with(context, |order, _| order.sum) })
        }
        fn write(&mut self, at: u64, _: AccessSize, value: u64, cx: &mut Context<'_>) -> Result<(), AccessFault> {
            self.order.with(cx, |order, _| *order = Order { at: 0x8000_0000 + at, count: value, sum: 0 });
            cx.ring(&self.bell);
            Ok(())
        }
        fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
            Ok(())
        }
        fn wake(&mut self, wake: Wake, _: &mut Context<'_>) {
            if wake == Wake::Pulse(7) {
                self.done += 1;
            }
        }
        fn describe(&self, _: &mut Node) {}
    }

    #[test]
    fn a_worker_does_what_it_is_rung_for_and_says_so() {
        let mut wires = Wires::default();
        let mut rig = Rig::new(&ADDER, &[], &mut wires).unwrap();
        for (at, value) in [(0x10, 1), (0x18, 20), (0x20, 300)] {
            rig.ram.store(Ipa(0x8000_0000 + at), AccessSize::Doubleword, value).unwrap();
        }
        assert_eq!(rig.work(&wires.crew), 0, "nobody has rung");
        rig.try_write(0x10, AccessSize::Doubleword, 3).unwrap();
        assert!(rig.take_effects().tells());
        assert_eq!(rig.try_read(8, AccessSize::Doubleword), Ok(0), "not yet");
        assert_eq!(rig.work(&wires.crew), 4);
        assert_eq!(rig.try_read(8, AccessSize::Doubleword), Ok(321));
        assert_eq!(rig.try_read(0, AccessSize::Doubleword), Ok(1));
        assert_eq!(rig.work(&wires.crew), 0);
    }

    /// Raises the device's line, and says so.
    struct Ringer(Shared<u32>);

    impl Worker for Ringer {
        fn step(&mut self, work: &mut Work<'_>) -> Step {
            let inner = Shared::new(7);
            work.with(&self.0, |count, context| {
                *count += 1;
                context.set_line(true);
                // What is shared may nest.
                inner.with(context, |data, context| context.message(None, Ipa(0x1000), *data));
            });
            Step::Wait
        }
    }

    /// Whatever is stored has its worker ring; loads say how often it has.
    struct Doorbell(Shared<u32>, Bell);

    static DOORBELL: Factory = Factory {
        name: "doorbell",
        access_sizes: ANY_SIZE,
        ..Factory::new(|_, setup| {
            let count = Shared::default();
            let bell = setup.worker(Box::new(Ringer(count.clone())))?;
            Ok(Box::new(Doorbell(count, bell)))
        })
    };

    impl Vdev for Doorbell {
        fn read(&mut self, _: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
            Ok(self.0.with(context, |count, _| u64::from(*count)))
        }
        fn write(&mut self, _: u64, _: AccessSize, _: u64, cx: &mut Context<'_>) -> Result<(), AccessFault> {
            cx.ring(&self.1);
            Ok(())
        }
        fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
            Ok(())
        }
        fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}
        fn describe(&self, _: &mut Node) {}
    }

    #[test]
    fn a_worker_raises_its_devices_interrupt_by_itself() {
        let mut wires = Wires::default();
        let mut rig = Rig::new(&DOORBELL, &[], &mut wires).unwrap();
        rig.try_write(0, AccessSize::Word, 1).unwrap();
        let _effects = rig.take_effects();
        assert!(!rig.line());
        assert_eq!(rig.work(&wires.crew), 1);
        assert!(rig.line());
        assert_eq!(rig.lines.take_messages(), [(None, Ipa(0x1000), 7)]);
        assert!(!rig.take_effects().kicked().is_empty(), "and the vCPU is kicked that takes it");
        assert_eq!(rig.try_read(0, AccessSize::Word), Ok(1));
    }
}
