//! Threads: the mechanism under the scheduler's policy.
//!
//! Answers for: stacks, blocking and waking without losing a wake-up; in [`switch`], from one to another; in [`timer`], timeouts
//! and EL2's timer. Does not answer for: who runs (`sched`), what a thread does.
//!
//! There is no idle thread. A CPU with nothing to run waits on the stack of the thread that blocked last, whose state stays
//! in the CPU: when that thread is woken it goes on at once. All of this runs with interrupts masked.

mod switch;
mod table;
mod timer;

pub(crate) use switch::{give_way, idle_loop, preempt_if_needed, reschedule};
pub(crate) use table::{define_share, for_each, redefine_share, share};
pub(crate) use timer::{set_deadline, timer_fired};

use crate::address_space::Stack;
use crate::compartment::Compartment;
use crate::cpu::{self, PerCpu};
use crate::sync::{HandoverLock, Masked};
use crate::{interrupt, trace, vcpu};
use ::trace::What;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, UnsafeCell};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use host::console::VmNumber;
use sched::{Parameters, Presence, Priority, Scheduler, ThreadId};
use switch::finish_switch;
use timer::Timeouts;
use types::Ticks;
use vdev::DeviceId;

/// Threads there can be: two for each of 64 VMs with one vCPU, and plenty more.
const MAX_THREADS: usize = 512;

/// Length of a time slice under round robin, in milliseconds.
const SLICE_MILLISECONDS: u64 = 4;

/// One thread of EL2.
pub(crate) struct Thread {
    pub(crate) name: String,
    id: Cell<Option<ThreadId>>,
    sp: Cell<usize>,
    presence: Presence,
    /// It is blocked (guarded by the scheduler's lock).
    blocked: Cell<bool>,
    /// When the thread wants EL2's timer while it runs.
    deadline: Cell<Ticks>,
    /// Its CPU has left its stack for good.
    ended: AtomicBool,
    /// Who waits for the end (guarded by the scheduler's lock).
    joiner: Cell<Option<ThreadId>>,
    stack: UnsafeCell<Option<Stack>>,
    entry: Cell<Option<Entry>>,
    /// The number of the VM whose thread it is.
    pub(crate) vm: Option<VmNumber>,
    /// That VM, or null. It outlives the thread.
    compartment: *const Compartment,
    /// The device that it works for, if it is one of a VM's that does.
    pub(crate) device: Cell<Option<DeviceId>>,
    /// How deep it is in work that is the kernel's, not its VM's.
    pub(crate) kernel_work: Cell<u32>,
    /// How often it has failed: it is about to be abandoned.
    pub(crate) deaths: Cell<u8>,
    /// It has been given up: it ends where it would be resumed.
    doomed: AtomicBool,
}

/// What a thread does.
enum Entry {
    Host(Box<dyn FnOnce() + Send>),
    /// In here is nothing to be dropped: the thread may never come to it.
    Contained(Contained, usize),
}

/// What a VM's thread does, with a number that it gets along.
pub(crate) type Contained = fn(&'static Compartment, usize);

// SAFETY: the cells are used by the thread itself, or under the scheduler's lock; the stack only before the start and after
// the end.
unsafe impl Sync for Thread {}
// SAFETY: nothing in it is bound to a CPU.
unsafe impl Send for Thread {}

/// A thread cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpawnError {
    /// No memory for a stack.
    NoMemory,
    /// Too many threads.
    TooMany,
}

struct Core {
    policy: Scheduler,
    /// By the index of their identifier.
    threads: Vec<Option<Arc<Thread>>>,
    timeouts: Timeouts,
}

static CORE: HandoverLock<Option<Core>> = HandoverLock::new(None);

impl Core {
    fn thread(&self, id: ThreadId) -> Option<&Arc<Thread>> {
        self.threads.get(id.index())?.as_ref()
    }

    fn wake(&mut self, id: ThreadId, now: Ticks) {
        // Whoever wakes has read the identifier without the lock: its place may be another thread's by now.
        let Some(thread) = self.thread(id).filter(|thread| thread.id.get() == Some(id)) else { return };
        if !thread.blocked.replace(false) {
            return;
        }
        self.timeouts.remove(id);
        if cpu::this().is_traced() {
            trace::here(What::Ready(id.index() as u16));
        }
        if let Some(cpu) = self.policy.wake(id, now) {
            interrupt::request_reschedule(cpu);
        }
    }

    fn notify(&mut self, thread: &Thread) {
        match (thread.presence.announce(), thread.id.get()) {
            (Some(cpu), _) => interrupt::kick(cpu),
            (None, Some(id)) => self.wake(id, el2::cpu::counter()),
            (None, None) => {}
        }
    }
}

impl Thread {
    /// Its place in the scheduler's table, for traces. `None` once it is gone.
    pub(crate) fn index(&self) -> Option<u16> {
        self.id.get().map(|id| id.index() as u16)
    }

    /// The VM whose thread it is, for that thread itself.
    #[inline]
    pub(crate) fn compartment(&self) -> Option<&'static Compartment> {
        // SAFETY: null, or what outlives the thread (`spawn_contained`).
        unsafe { self.compartment.as_ref() }
    }
}

fn with_core<R>(work: impl FnOnce(&mut Core) -> R) -> Option<R> {
    CORE.with(|core| core.as_mut().map(work))
}

/// Prepares scheduling on `cpus` CPUs.
pub(crate) fn initialise(cpus: usize, frequency: types::Frequency) {
    let slice = frequency.microseconds(SLICE_MILLISECONDS * 1000);
    let core = Core {
        policy: Scheduler::new(cpus, slice, MAX_THREADS),
        threads: (0..MAX_THREADS).map(|_| None).collect(),
        timeouts: Timeouts::new(),
    };
    CORE.with(|slot| *slot = Some(core));
}

/// The thread that runs here.
///
/// # Panics
/// On a CPU that runs none: only boot code and the idle loop are not in a thread.
pub(crate) fn current() -> &'static Thread {
    let current = cpu::this().current.get();
    // SAFETY: the current thread lives at least until it has been switched away from for good.
    unsafe { current.as_ref() }.expect("no thread runs here")
}

/// The same, to be kept.
pub(crate) fn current_shared() -> Option<Arc<Thread>> {
    let id = current().id.get()?;
    with_core(|core| core.thread(id).cloned()).flatten()
}

/// How long the calling thread has been ready without a CPU.
pub(crate) fn waiting_time() -> Ticks {
    let id = current().id.get();
    let status = with_core(|core| core.policy.status(id?, el2::cpu::counter()));
    status.flatten().map_or(Ticks(0), |status| status.waiting_time)
}

/// Makes a thread and lets it run `entry`.
///
/// # Errors
/// If there is no memory for its stack, or there are too many threads.
pub(crate) fn spawn(
    name: String,
    parameters: Parameters,
    entry: impl FnOnce() + Send + 'static,
) -> Result<Arc<Thread>, SpawnError> {
    start(name, parameters, ptr::null(), Entry::Host(Box::new(entry)))
}

/// Makes a thread of a VM: what it allocates is the VM's, and should it fail, the VM ends and nothing else.
///
/// # Errors
/// As [`spawn`].
///
/// # Safety
/// The compartment lives until the thread has been joined.
pub(crate) unsafe fn spawn_contained(
    name: String,
    parameters: Parameters,
    compartment: &Compartment,
    run: Contained,
    argument: usize,
) -> Result<Arc<Thread>, SpawnError> {
    start(name, parameters, ptr::from_ref(compartment), Entry::Contained(run, argument))
}

fn start(
    name: String,
    parameters: Parameters,
    compartment: *const Compartment,
    entry: Entry,
) -> Result<Arc<Thread>, SpawnError> {
    let stack = Stack::new().ok_or(SpawnError::NoMemory)?;
    let end = stack.end();
    let thread = Arc::new(Thread {
        name,
        id: Cell::new(None),
        sp: Cell::new(0),
        presence: Presence::new(),
        blocked: Cell::new(true),
        deadline: Cell::new(Ticks::NEVER),
        ended: AtomicBool::new(false),
        joiner: Cell::new(None),
        stack: UnsafeCell::new(Some(stack)),
        entry: Cell::new(Some(entry)),
        // SAFETY: null, or what the caller has promised (`spawn_contained`).
        vm: unsafe { compartment.as_ref() }.map(|compartment| compartment.qvm.number),
        compartment,
        device: Cell::new(None),
        kernel_work: Cell::new(0),
        deaths: Cell::new(0),
        doomed: AtomicBool::new(false),
    });
    // SAFETY: the stack is the new thread's, which does not run yet.
    thread.sp.set(unsafe { el2::thread::prepare_stack(end, Arc::as_ptr(&thread) as usize) });
    let now = el2::cpu::counter();
    let keep = Arc::clone(&thread);
    with_core(|core| {
        let id = core.policy.spawn(parameters).map_err(|_| SpawnError::TooMany)?;
        if core.timeouts.reserve(id.index() + 1).is_err() {
            let _ = core.policy.remove(id);
            return Err(SpawnError::NoMemory);
        }
        keep.id.set(Some(id));
        if let Some(slot) = core.threads.get_mut(id.index()) {
            *slot = Some(keep);
        }
        trace::introduce_thread(&thread);
        core.wake(id, now);
        Ok(())
    })
    .unwrap_or(Err(SpawnError::TooMany))?;
    Ok(thread)
}

/// Where `el2` starts every new thread, with interrupts masked and the scheduler's lock held.
#[unsafe(no_mangle)]
extern "C" fn kernel_thread_main(thread: *const Thread) -> ! {
    finish_switch();
    // SAFETY: made by `spawn`; the list of threads keeps it alive.
    let thread = unsafe { &*thread };
    if let Some(entry) = thread.entry.take() {
        // SAFETY: no lock is held, and a thread may be preempted.
        unsafe { el2::cpu::unmask_interrupts() };
        match (entry, thread.compartment()) {
            (Entry::Host(run), _) => run(),
            (Entry::Contained(run, argument), Some(compartment)) => run(compartment, argument),
            (Entry::Contained(..), None) => {}
        }
    }
    el2::cpu::mask_interrupts();
    exit(thread)
}

fn exit(thread: &Thread) -> ! {
    let cpu = cpu::this();
    with_core(|core| {
        core.policy.block(cpu.id, el2::cpu::counter());
        // Not even idle may this CPU stay on a stack that is about to be freed.
        if let Some(id) = thread.id.get()
            && core.policy.evict(id).is_some()
        {
            cpu.ended.set(thread);
            cpu.after_switch.fetch_or(cpu::ENDED, Ordering::Relaxed);
        }
    });
    reschedule();
    unreachable!("a thread that has ended was resumed")
}

/// Ends the calling thread where it is, for good. What it has is left as it is. Interrupts are masked, no kernel lock is held.
pub(crate) fn abandon() -> ! {
    let cpu = cpu::this();
    vcpu::discard(cpu);
    cpu.locks.clear();
    exit(current())
}

/// Gives another thread up: it ends where it next would be resumed, holding no lock of the kernel's. One that runs with
/// interrupts masked is not reached before it unmasks them.
pub(crate) fn give_up(thread: &Thread) {
    thread.doomed.store(true, Ordering::SeqCst);
    let _masked = Masked::new();
    with_core(|core| match (thread.presence.place(), thread.id.get()) {
        (Some(cpu), _) => interrupt::request_reschedule(cpu),
        (None, Some(id)) => core.wake(id, el2::cpu::counter()),
        (None, None) => {}
    });
}

/// Gives a thread another priority.
pub(crate) fn set_priority(thread: &Thread, priority: u8) {
    let _masked = Masked::new();
    with_core(|core| {
        if let (Some(id), Some(priority)) = (thread.id.get(), Priority::new(priority))
            && let Some(cpu) = core.policy.set_priority(id, priority)
        {
            interrupt::request_reschedule(cpu);
        }
    });
}

/// The calling thread is notified when `thread` has ended.
pub(crate) fn watch(thread: &Thread) {
    let me = current().id.get();
    with_core(|_| thread.joiner.set(me));
}

/// Whether its CPU has left its stack for good.
pub(crate) fn has_ended(thread: &Thread) -> bool {
    thread.ended.load(Ordering::Acquire)
}

/// Waits until a thread has ended, and frees what it had. The waiting thread is another one.
pub(crate) fn join(thread: &Arc<Thread>) {
    let _ended = join_until(thread, Ticks::NEVER);
}

/// As [`join`], but waits until `deadline` at most. Says whether the thread has ended.
#[must_use]
pub(crate) fn join_until(thread: &Arc<Thread>, deadline: Ticks) -> bool {
    watch(thread);
    while !has_ended(thread) {
        if el2::cpu::counter() >= deadline {
            return false;
        }
        sleep_until(deadline);
    }
    with_core(|core| {
        if let Some(id) = thread.id.take() {
            let removed = core.policy.remove(id);
            debug_assert!(removed.is_ok(), "{removed:?}");
            core.timeouts.remove(id);
            if let Some(slot) = core.threads.get_mut(id.index()) {
                *slot = None;
            }
        }
    });
    // SAFETY: its CPU has left the stack for good (`ended`), and nobody else looks at it.
    drop(unsafe { (*thread.stack.get()).take() });
    true
}

/// Whether the thread on whose stack this CPU waits has been woken, and is to go on.
pub(crate) fn is_awake(cpu: &PerCpu) -> bool {
    // SAFETY: null, or the thread on whose stack this CPU is.
    unsafe { cpu.current.get().as_ref() }.is_some_and(|thread| !thread.blocked.get())
}

/// Waits until somebody notifies the calling thread, or `deadline`. A notification that came before is consumed at once.
/// May return early: the caller looks at what it waits for in a loop.
pub(crate) fn sleep_until(deadline: Ticks) {
    let _masked = Masked::new();
    let thread = current();
    if thread.presence.take_token() {
        return;
    }
    let cpu = cpu::this();
    let blocked = with_core(|core| {
        if !thread.presence.try_sleep(cpu.id) {
            return false;
        }
        thread.blocked.set(true);
        if deadline != Ticks::NEVER
            && let Some(id) = thread.id.get()
        {
            core.timeouts.add(cpu.id, deadline, id);
        }
        core.policy.block(cpu.id, el2::cpu::counter());
        true
    });
    if blocked == Some(true) {
        reschedule();
    }
    thread.presence.drop_token();
}

/// Wakes a thread, or keeps it from blocking next; if it runs on another CPU, in a guest perhaps, brings it to EL2.
#[inline]
#[unsafe(link_section = ".text.exits")]
pub(crate) fn notify(thread: &Thread) {
    let _masked = Masked::new();
    match (thread.presence.announce(), thread.id.get()) {
        (Some(cpu), _) if cpu == cpu::this().id => {}
        (Some(cpu), _) => interrupt::kick(cpu),
        (None, Some(id)) => _ = with_core(|core| core.wake(id, el2::cpu::counter())),
        (None, None) => {}
    }
}

/// Wakes a blocked thread at `when`; one that is not blocked will not block next.
pub(crate) fn notify_at(thread: &Thread, when: Ticks) {
    let _masked = Masked::new();
    with_core(|core| match thread.id.get() {
        Some(id) if thread.blocked.get() => {
            let cpu = cpu::this();
            core.timeouts.add(cpu.id, when, id);
            core.arm(cpu);
        }
        _ => thread.presence.leave_token(),
    });
}

/// Wakes the thread on whose stack this CPU waits, if it does; one that runs sees for itself.
pub(crate) fn notify_waiting(thread: &Thread) {
    if thread.blocked.get()
        && let Some(id) = thread.id.get()
    {
        with_core(|core| core.wake(id, el2::cpu::counter()));
    }
}

/// Consumes a notification: what it was about is looked at next.
#[inline]
pub(crate) fn take_notification(thread: &Thread) {
    thread.presence.drop_token();
}
