//! Recording what happens: from CPUs' rings to a file in RAM.
//!
//! Answers for: which VMs are being traced, and writing events into the ring of the CPU where they happen. Does not answer
//! for: what events look like (`trace`), what of a vCPU is recorded (`follow`), taking records out of the rings and into a
//! file (`logger`).
//!
//! While nothing is traced there are no rings, and no VM's and no CPU's flag is set: vCPUs run in a loop that does not record
//! ([`crate::vcpu`]), and the few other places look at a flag of their CPU ([`PerCpu::is_traced`]), where it costs nothing that
//! counts. docs/design/019-tracing.md.

mod follow;
mod logger;

pub(crate) use follow::{Follower, Nobody, Onlooker};
pub(crate) use logger::{is_recording, progress, start, stop};

use crate::controller;
use crate::cpu::{self, PerCpu};
use crate::interrupt;
use crate::partition::Partition;
use crate::qvm::Qvm;
use crate::sync::{Lock, Masked, Rank};
use crate::thread::{self, Thread};
use ::trace::{Event, HOST, NAME_PART, Ring, What, name_part};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use host::console::VmNumber;
use types::{MAX_CPUS, Ticks, VcpuId};
use vdev::TraceSink;

/// What a CPU records into.
struct Slot {
    /// Null while nothing is traced.
    ring: AtomicPtr<Ring<'static>>,
    /// The CPU may be using the ring.
    is_writing: AtomicBool,
}

static SLOTS: [Slot; MAX_CPUS] =
    [const { Slot { ring: AtomicPtr::new(ptr::null_mut()), is_writing: AtomicBool::new(false) } }; MAX_CPUS];

impl Slot {
    /// Nobody uses the ring any more when this returns: a CPU does so for some hundred instructions, with interrupts masked.
    fn detach(&self) {
        self.ring.store(ptr::null_mut(), Ordering::SeqCst);
        while self.is_writing.load(Ordering::SeqCst) {
            el2::cpu::relax();
        }
    }
}

/// What is being traced: the names of the VMs, all if there are none. `None` if nothing is.
static CHOSEN: Lock<Option<Vec<String>>> = Lock::new(Rank::Trace, None);

/// Has a VM of this name traced, or not any more, as is right now.
pub(crate) fn choose(name: &str, partition: Option<&Partition>) {
    let chosen = CHOSEN.lock();
    let on = chosen.as_ref().is_some_and(|names| names.is_empty() || names.iter().any(|other| other == name));
    if let Some(partition) = partition.filter(|partition| partition.is_traced() != on) {
        partition.trace(on);
    }
}

/// Writes an event into the ring of this CPU, if it has one.
#[inline(never)]
fn write(event: &Event) {
    let _masked = Masked::new();
    let Some(slot) = SLOTS.get(cpu::this().id.index()) else { return };
    // Before the ring is looked for, and looked for before that is undone: `detach` sees the one or we see the other.
    slot.is_writing.store(true, Ordering::SeqCst);
    // SAFETY: null, or a ring that stays until `detach` has seen that we are done.
    if let Some(ring) = unsafe { slot.ring.load(Ordering::SeqCst).as_ref() } {
        ring.write(&event.encode(), |lost| Event { what: What::Lost(lost), ..*event }.encode());
    }
    slot.is_writing.store(false, Ordering::Release);
}

/// Records what happened at `at`, on this CPU.
fn record_at(at: Ticks, vm: u8, vcpu: VcpuId, what: What) {
    write(&Event { at, cpu: cpu::this().id.0 as u8, vm, vcpu, what });
}

/// Records something about a VM.
fn record(vm: u8, vcpu: VcpuId, what: What) {
    record_at(el2::cpu::counter(), vm, vcpu, what);
}

/// Records something that is about none.
#[cold]
#[inline(never)]
pub(crate) fn here(what: What) {
    record(HOST, VcpuId(0), what);
}

/// The host is about to take an interrupt. Of several that are pending at once the first is recorded.
pub(crate) fn interrupt() {
    let intid = controller::highest_pending();
    if !interrupt::is_special(intid) {
        here(What::Interrupt(intid));
    }
}

/// The CPU has switched to its current thread, or to none.
pub(crate) fn running(cpu: &PerCpu) {
    // SAFETY: null, or the thread that runs here, which lives.
    let thread = unsafe { cpu.current.get().as_ref() };
    here(What::Running(thread.and_then(Thread::index)));
}

/// What `thread::wait_for_work` does, and says so.
#[cold]
#[inline(never)]
pub(crate) fn wait_for_work(cpu: &PerCpu) {
    here(What::Running(None));
    while !cpu.need_reschedule.get() {
        el2::cpu::wait_for_interrupt();
        interrupt();
        interrupt::handle();
    }
    // Another one is announced by the switch to it.
    if thread::is_awake(cpu) {
        running(cpu);
    }
}

/// Records what a thread is called.
pub(crate) fn introduce_thread(thread: &Thread) {
    if let Some(index) = thread.index() {
        let vm = thread.vm.map_or(HOST, VmNumber::get);
        introduce(&thread.name, vm, |part, text| What::ThreadName { thread: index, part, text });
    }
}

/// Records what a VM is called.
pub(crate) fn introduce_vm(qvm: &Qvm) {
    introduce(&qvm.name, qvm.number.get(), |part, text| What::VmName { part, text });
}

fn introduce(name: &str, vm: u8, what: impl Fn(u16, [u8; NAME_PART]) -> What) {
    let mut part = 0;
    while let Some(text) = name_part(name, part) {
        record(vm, VcpuId(0), what(part, text));
        part += 1;
    }
}

/// Records which threads a VM's vCPUs are.
pub(crate) fn introduce_vcpus(qvm: &Qvm, threads: &[Arc<Thread>]) {
    for (number, thread) in (0..).zip(threads) {
        if let Some(thread) = thread.index() {
            record(qvm.number.get(), VcpuId(number), What::VcpuCreated { thread });
        }
    }
}

/// Where `vdev trace` puts what guests say.
pub(crate) struct Sink;

impl TraceSink for Sink {
    fn is_on(&self) -> bool {
        let thread = thread::current();
        thread.compartment().and_then(|compartment| compartment.partition()).is_some_and(Partition::is_traced)
    }

    fn event(&self, number: u32, value: u64) {
        let thread = thread::current();
        if let (Some(vm), Some(index), true) = (thread.vm, thread.index(), self.is_on()) {
            record(vm.get(), VcpuId(0), What::User { number, value, thread: index });
        }
    }
}
