//! Threads of a VM besides its vCPUs and its own thread: those that wake a device whose configuration gives it a priority, and
//! those of devices' workers.
//!
//! Answers for: what they do from the guest's start to the VM's end, and how they are told that there is something. Does not
//! answer for: what a device or a worker does (`vdevs`), starting and joining threads (`compartment`), timers and back ends of
//! devices that have no thread of their own (`partition`).

mod hand;

use crate::compartment::Compartment;
use crate::partition::Partition;
use crate::thread::{self, Thread};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use hand::Hand;
use spin::Once;
use types::Ticks;
use vdev::{BackendError, DeviceId, NewWorker, PULSES, PulseSink, WORKERS, Wake};

/// Most workers of one VM.
const MOST_WORKERS: usize = 32;

/// Its back end has something for the device; the bits below are pulses.
const BACKEND: u32 = 1 << 31;
/// Its interrupt has ended.
const ENDED: u32 = 1 << 30;
const _: () = assert!(PULSES <= 30);

/// What a device is to be woken for, by the thread that does so.
pub(crate) struct Inbox {
    pub(crate) device: DeviceId,
    what: AtomicU32,
    /// There from the guest's start on; what comes before is looked at then. The partition keeps it: what is in the VM's heap is never
    /// dropped, and must have nothing of the kernel's.
    thread: Once<&'static Thread>,
}

impl Inbox {
    pub(crate) fn new(device: DeviceId) -> Self {
        Self { device, what: AtomicU32::new(0), thread: Once::new() }
    }

    fn put(&self, what: u32) {
        self.what.fetch_or(what, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread::notify(thread);
        }
    }

    /// Its back end has something for the device.
    pub(crate) fn put_backend(&self) {
        self.put(BACKEND);
    }

    /// Its interrupt has ended.
    pub(crate) fn put_ended(&self) {
        self.put(ENDED);
    }

    /// Wakes the device for all there is. Says whether there was anything.
    pub(crate) fn deliver(&self, partition: &Partition) -> bool {
        let what = self.what.swap(0, Ordering::SeqCst);
        if what & BACKEND != 0 {
            partition.wake(self.device, Wake::Backend);
        }
        if what & ENDED != 0 {
            partition.wake(self.device, Wake::InterruptEnded);
        }
        for code in (0..PULSES).filter(|code| what >> code & 1 != 0) {
            partition.wake(self.device, Wake::Pulse(code));
        }
        what != 0
    }
}

impl PulseSink for Inbox {
    fn send(&self, code: u8) {
        self.put(1 << code.min(PULSES - 1));
    }
}

/// All of one VM. In its heap, and never dropped.
#[derive(Default)]
pub(crate) struct Services {
    /// Of devices that have a thread of their own, or workers.
    inboxes: Vec<Arc<Inbox>>,
    /// Those of `inboxes` that have a thread.
    served: Vec<Arc<Inbox>>,
    hands: Vec<Hand>,
}

/// A thread to be started: what it is called, whose device it works for, and what it does, with a number.
pub(crate) type Post = (String, DeviceId, thread::Contained, usize);

impl Services {
    /// Gives a device a worker.
    pub(crate) fn add_worker(&mut self, device: DeviceId, new: NewWorker) -> Result<(), BackendError> {
        let own = self.hands.iter().filter(|hand| hand.device() == device).count();
        if own >= WORKERS || self.hands.len() >= MOST_WORKERS {
            let message = format!("more than {WORKERS} workers of a device, or {MOST_WORKERS} of a VM");
            return Err(BackendError(message));
        }
        let inbox = self.inbox(device);
        self.hands.push(Hand::new(inbox, new));
        Ok(())
    }

    /// A device is to be woken by a thread of its own.
    pub(crate) fn serve(&mut self, device: DeviceId) {
        let inbox = self.inbox(device);
        self.served.push(inbox);
    }

    fn inbox(&mut self, device: DeviceId) -> Arc<Inbox> {
        match self.inboxes.iter().find(|inbox| inbox.device == device) {
            Some(inbox) => Arc::clone(inbox),
            None => {
                let inbox = Arc::new(Inbox::new(device));
                self.inboxes.push(Arc::clone(&inbox));
                inbox
            }
        }
    }

    /// The threads that there are to be.
    pub(crate) fn posts(&self, partition: &Partition) -> Vec<Post> {
        let name = |device| format!("{}/{}", partition.vm.name(), partition.vm.bus.name(device).unwrap_or_default());
        let served = self.served.iter().enumerate();
        let served =
            served.map(|(number, inbox)| (name(inbox.device), inbox.device, serve as thread::Contained, number));
        let hands = self.hands.iter().enumerate();
        let hands = hands.map(|(number, hand)| {
            (format!("{}+{number}", name(hand.device())), hand.device(), hand::labour as thread::Contained, number)
        });
        served.chain(hands).collect()
    }

    /// These are the threads, in the order of the posts; what is not served is looked after by `own`.
    ///
    /// # Safety
    /// They are there for as long as this is used.
    pub(crate) unsafe fn set_threads(&self, threads: &[Arc<Thread>], own: Option<&Arc<Thread>>) {
        // SAFETY: the caller's promise.
        let kept = |thread: &Arc<Thread>| unsafe { &*Arc::as_ptr(thread) };
        let (served, hands) = threads.split_at(self.served.len().min(threads.len()));
        served.iter().zip(&self.served).for_each(|(thread, inbox)| _ = inbox.thread.call_once(|| kept(thread)));
        hands.iter().zip(&self.hands).for_each(|(thread, hand)| hand.set_thread(kept(thread)));
        if let Some(own) = own {
            self.inboxes.iter().for_each(|inbox| _ = inbox.thread.call_once(|| kept(own)));
        }
        threads.iter().chain(own).for_each(|thread| thread::notify(thread));
    }

    /// The inbox of a device that has a thread of its own.
    pub(crate) fn served(&self, device: DeviceId) -> Option<&Inbox> {
        self.served.iter().find(|inbox| inbox.device == device).map(|inbox| &**inbox)
    }

    /// Wakes the devices that have no thread of their own for what their workers have sent.
    pub(crate) fn deliver(&self, partition: &Partition) {
        for inbox in self.inboxes.iter().filter(|inbox| self.served(inbox.device).is_none()) {
            inbox.deliver(partition);
        }
    }

    /// A timer of a device has been set to an earlier time than its thread knows of, if it has a thread.
    pub(crate) fn notify_at(&self, partition: &Partition) {
        for inbox in &self.served {
            if let Some(thread) = inbox.thread.get() {
                match partition.vm.bus.alarm(Some(inbox.device)) {
                    Ticks::NEVER => {}
                    at => thread::notify_at(thread, at),
                }
            }
        }
    }

    /// Somebody else has something for a device's first worker.
    pub(crate) fn ring_first(&self, device: DeviceId) {
        if let Some(hand) = self.hands.iter().find(|hand| hand.device() == device) {
            hand.bell.ring();
            hand.notify();
        }
    }

    /// The back end of a device that has workers has something for the device.
    pub(crate) fn put_backend(&self, device: DeviceId) {
        if let Some(inbox) = self.inboxes.iter().find(|inbox| inbox.device == device) {
            inbox.put_backend();
        }
    }

    /// Devices may have rung: their workers look.
    pub(crate) fn answer_bells(&self) {
        self.hands.iter().filter(|hand| hand.bell.has_rung()).for_each(Hand::notify);
    }

    /// A guest's access may have made devices ring: the vCPU whose access it was does the first step of what there is to do, rather
    /// than have a thread woken and wait for it. Not for a device whose configuration says how it is scheduled, nor for a worker
    /// that waits for others. Interrupts are on.
    pub(crate) fn lend_a_hand(&self, partition: &Partition) {
        for hand in self.hands.iter().filter(|hand| hand.bell.has_rung()) {
            if hand.waits || self.served(hand.device()).is_some() {
                hand.notify();
            } else {
                hand.help(partition);
            }
        }
    }
}

/// The life of a thread that wakes a device.
fn serve(compartment: &'static Compartment, number: usize) {
    let Some(partition) = compartment.partition() else { return };
    let Some(inbox) = partition.services.served.get(number) else { return };
    thread::current().device.set(Some(inbox.device));
    while !partition.is_stopping() {
        let woken = inbox.deliver(partition);
        let deadline = partition.expire_timers_of(inbox.device);
        if !woken {
            thread::sleep_until(deadline);
        }
    }
}
