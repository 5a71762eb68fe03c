//! One life of a VM, as it looks from outside: what it has, what has become of it, and how it is taken apart.
//!
//! Answers for: the memory and the heap of a VM, telling its own thread what is wanted of it, confining a failure in any of
//! its threads (`confine`), and the order of the end: stop the vCPUs, quiet the vdevs, bring passed devices to rest (`rest`), end their
//! interrupts, take stage 2 down, scrub, give back.
//! All of it runs in a host thread that executes none of the VM's code and waits for none of its locks ([`crate::qvm`]), so
//! it works whatever state the VM is in. Does not answer for: what the VM's threads do (`partition`, `vcpu`), when a VM is
//! started again (`qvm`).

mod confine;
mod rest;

pub(crate) use confine::{confine, here, kernel_work, wait};

use crate::disk::{self, DiskMemory};
use crate::guest_memory::GuestRam;
use crate::heap::VmHeap;
use crate::partition::{self, Partition};
use crate::qvm::{self, Qvm};
use crate::shared;
use crate::stage2::GuestSpace;
use crate::sync::{Lock, Rank};
use crate::thread::{self, Thread};
use crate::{files, function, messages, net, passed, smmuman, startup, trace, vsock};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use spin::Once;
use types::{Ticks, VcpuId, VmId};
use vdev::{Cause, DeviceId};
use vm::lifecycle::EndRecord;

/// How long a device may take to go quiet, a vCPU to stop, and a VM that is being built to notice that it is not wanted any
/// more, in microseconds.
const PATIENCE: u64 = 1_000_000;

/// How far the VM's own thread has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It puts the VM together.
    Building = 0,
    /// The VM can run.
    Ready = 1,
    /// The VM cannot be built, or is not to run; the reason is recorded.
    Refused = 2,
}

bitflags::bitflags! {
    /// What is wanted of the VM's own thread.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Requests: u32 {
        /// Something was typed.
        const INPUT = 1 << 0;
        /// There is room for output again.
        const ROOM = 1 << 1;
        /// Somebody presses the power button.
        const BUTTON = 1 << 2;
        /// Somebody wants to know how the VM and its devices are.
        const STATUS = 1 << 3;
        /// The devices are to go quiet; the thread ends then.
        const TERMINATE = 1 << 4;
        /// Another VM has come or gone.
        const NEWS = 1 << 5;
        /// The guest is to be dumped.
        const DUMP = 1 << 6;
        /// Devices that were woken have asked for something that takes long.
        const LATER = 1 << 7;
        /// The guest is to have another amount of memory.
        const BALLOON = 1 << 8;
    }
}

/// What a VM has of the machine's memory, besides its heap.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) space: Option<Arc<GuestSpace>>,
    pub(crate) ram: Option<Box<GuestRam>>,
    disks: Option<Arc<DiskMemory>>,
}

impl Memory {
    /// The guest's memory, as it reaches it and as it is.
    pub(crate) fn keep(&mut self, space: Arc<GuestSpace>, ram: Box<GuestRam>) {
        (self.space, self.ram) = (Some(space), Some(ram));
    }
}

/// One life of a VM.
pub(crate) struct Compartment {
    pub(crate) id: VmId,
    pub(crate) qvm: Arc<Qvm>,
    pub(crate) heap: VmHeap,
    /// Its heap could not give what one of its threads wanted.
    out_of_memory: AtomicBool,
    pub(crate) memory: Lock<Memory>,
    partition: Once<Partition>,
    phase: AtomicU8,
    requests: AtomicU32,
    /// The VM's own thread.
    worker: Lock<Option<Arc<Thread>>>,
    /// One of its threads has failed: the others stop where they wait for it.
    failed: AtomicBool,
    /// Why it ends, if that is not the guest's doing.
    end: Once<EndRecord>,
    /// Twice the number of the device that is to go quiet now, in the order of the configuration, and one if it has been
    /// told.
    quieting: AtomicU32,
    /// The first device that did not go quiet.
    hung: Once<DeviceId>,
    /// The device whose thread has failed.
    blamed: Once<DeviceId>,
    /// Those of the machine that it has.
    pub(crate) devices: rest::Devices,
}

pub(crate) fn deadline() -> Ticks {
    let ticks = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(PATIENCE));
    el2::cpu::counter().saturating_add(ticks)
}

// ---- for the VM's own threads

impl Compartment {
    /// What the vCPUs share; there from the moment the VM can run.
    #[inline]
    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.partition.get()
    }

    pub(crate) fn set_partition(&self, partition: Partition) {
        self.partition.call_once(|| partition);
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Building,
            1 => Phase::Ready,
            _ => Phase::Refused,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.qvm.notify();
    }

    /// Keeps why the VM ends; the first reason counts.
    pub(crate) fn record(&self, record: EndRecord) {
        self.end.call_once(|| record);
        self.qvm.notify();
    }

    /// A page that the guest had given back is wanted, and there is none for it: the VM ends soon. From anywhere; takes no lock.
    pub(crate) fn run_dry(&self) {
        if let Some(partition) = self.partition.get() {
            partition.run_dry();
        }
    }

    /// Whether there is a reason for the VM's end: what takes long is given up then.
    pub(crate) fn is_ending(&self) -> bool {
        self.end.is_completed()
    }

    pub(crate) fn take_requests(&self) -> Requests {
        Requests::from_bits_retain(self.requests.swap(0, Ordering::SeqCst))
    }

    /// The devices are told to go quiet, from the one that is next. Each is noted before, for whoever waits.
    pub(crate) fn quiet_devices(&self, vm: &vm::Vm) {
        let (first, _) = progress(self.quieting.load(Ordering::SeqCst));
        for id in vm.bus.devices().skip(first as usize) {
            let device = u32::from(id.0);
            self.quieting.store(2 * device + 1, Ordering::SeqCst);
            if vm.terminate(id, el2::cpu::counter()) {
                self.note_quiet(id);
            }
            self.quieting.store(2 * (device + 1), Ordering::SeqCst);
        }
    }

    /// What it was to be.
    pub(crate) fn description(&self) -> &vm::assemble::Description {
        &self.qvm.configuration.description
    }

    /// What its disks keep their pages in.
    pub(crate) fn disk_memory(&self) -> Arc<DiskMemory> {
        kernel_work(|| Arc::clone(self.memory.lock().disks.get_or_insert_with(|| Arc::new(DiskMemory::new()))))
    }

    pub(crate) fn note_out_of_memory(&self) {
        self.out_of_memory.store(true, Ordering::Relaxed);
    }

    /// The compartment for somebody who may outlive this life of its VM.
    pub(crate) fn shared(&self) -> Option<Arc<Self>> {
        self.qvm.life()
    }

    /// Its memory, in use and altogether: heap, and RAM with tables, in bytes.
    pub(crate) fn heap_statistics(&self) -> (usize, usize) {
        self.heap.statistics()
    }
}

// ---- for the host's thread that looks after the VM

impl Compartment {
    pub(crate) fn new(id: VmId, qvm: &Arc<Qvm>) -> Arc<Self> {
        let compartment = Arc::new(Self {
            id,
            qvm: Arc::clone(qvm),
            heap: VmHeap::new(id),
            out_of_memory: AtomicBool::new(false),
            memory: Lock::new(Rank::Compartment, Memory::default()),
            partition: Once::new(),
            phase: AtomicU8::new(Phase::Building as u8),
            requests: AtomicU32::new(0),
            worker: Lock::new(Rank::Compartment, None),
            failed: AtomicBool::new(false),
            end: Once::new(),
            quieting: AtomicU32::new(0),
            hung: Once::new(),
            blamed: Once::new(),
            devices: rest::Devices::new(),
        });
        // SAFETY: in its `Arc` it stays where it is, and whoever drops that has called `take_down`.
        unsafe { compartment.heap.register() };
        compartment
    }

    /// Asks the VM's own thread for something.
    pub(crate) fn request(&self, requests: Requests) {
        self.requests.fetch_or(requests.bits(), Ordering::SeqCst);
        if let Some(worker) = &*self.worker.lock() {
            thread::notify(worker);
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Starts a thread of the VM's own.
    fn start(&self, run: thread::Contained) -> Option<Arc<Thread>> {
        // SAFETY: `run` below joins it, or keeps the compartment for good.
        let spawned = unsafe {
            thread::spawn_contained(self.qvm.name.clone(), startup::host_parameters(startup::PRIORITY), self, run, 0)
        };
        match spawned {
            Ok(thread) => {
                thread::watch(&thread);
                *self.worker.lock() = Some(Arc::clone(&thread));
                Some(thread)
            }
            Err(error) => {
                self.record(EndRecord::new(Cause::Fatal, None, None, format_args!("no thread: {error:?}")));
                None
            }
        }
    }

    /// The whole life. Says whether all of its threads are gone: if not, nothing of it may be given to anybody else.
    pub(crate) fn live(&self) -> bool {
        let Some(worker) = self.start(partition::work) else { return true };
        self.wait_until_built(&worker);
        let mut all_gone = true;
        if self.phase() == Phase::Ready && !self.has_failed() {
            self.start_vcpus();
            while !self.is_over() {
                self.qvm.take_signals(self);
                thread::sleep_until(Ticks::NEVER);
            }
            all_gone = self.stop_vcpus();
        }
        // A device must not go quiet, and become somebody else's, while a vCPU could still use it.
        let all_gone = all_gone && self.stop_worker(worker);
        // In any case: a device that nobody stops goes on.
        self.bring_to_rest() && all_gone
    }

    fn is_over(&self) -> bool {
        self.has_failed() || self.is_ending() || self.partition().is_some_and(Partition::is_stopping)
    }

    fn wait_until_built(&self, worker: &Arc<Thread>) {
        let mut limit = Ticks::NEVER;
        while self.phase() == Phase::Building && !thread::has_ended(worker) {
            self.qvm.take_signals(self);
            if self.is_ending() && limit == Ticks::NEVER {
                limit = deadline();
            }
            if el2::cpu::counter() >= limit {
                return;
            }
            thread::sleep_until(limit);
        }
    }

    /// The threads of devices and workers, and then those of the vCPUs.
    fn start_vcpus(&self) {
        let (Some(partition), parameters) = (self.partition(), self.qvm.vcpu_parameters()) else { return };
        let mut device_threads = Vec::new();
        for (name, device, run, number) in partition.services.posts(partition) {
            let parameters = self.qvm.service_parameters(device);
            // SAFETY: `stop_vcpus` joins it, or keeps the compartment for good.
            match unsafe { thread::spawn_contained(name, parameters, self, run, number) } {
                Ok(thread) => device_threads.push(thread),
                Err(error) => {
                    self.record(EndRecord::new(Cause::Fatal, None, None, format_args!("no thread: {error:?}")));
                    break;
                }
            }
        }
        partition.set_device_threads(device_threads);
        let mut threads = Vec::new();
        for (number, parameters) in parameters.into_iter().enumerate() {
            let name = format!("{}/{}", self.qvm.name, VcpuId(number as u16));
            // SAFETY: `stop_vcpus` joins it, or keeps the compartment for good.
            match unsafe { thread::spawn_contained(name, parameters, self, partition::run_vcpu, number) } {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.record(EndRecord::new(Cause::Fatal, None, None, format_args!("no thread: {error:?}")));
                    break;
                }
            }
        }
        qvm::report_memory(&self.qvm.name, "runs");
        trace::introduce_vcpus(&self.qvm, &threads);
        partition.set_threads(threads);
        passed::enable(self.description());
        function::enable(self);
    }

    /// Says whether all vCPUs have stopped.
    fn stop_vcpus(&self) -> bool {
        let Some(partition) = self.partition() else { return true };
        partition.stop();
        let limit = deadline();
        let mut stopped = true;
        for thread in partition.device_threads() {
            // In a step that takes too long: it goes no further.
            if !thread::join_until(thread, limit) {
                thread::give_up(thread);
                if !thread::join_until(thread, deadline()) {
                    log::error!("{} does not stop; what its VM has is lost", thread.name);
                    stopped = false;
                }
            }
        }
        partition.threads().iter().all(|thread| {
            let gone = thread::join_until(thread, limit);
            if !gone {
                log::error!("{} does not stop; what its VM has is lost", thread.name);
            }
            gone
        }) && stopped
    }

    /// Has the devices go quiet and waits for the end of the VM's own thread; if a device hangs, or takes the thread with
    /// it, another thread goes on with the next device. Says whether the last thread is gone.
    fn stop_worker(&self, mut worker: Arc<Thread>) -> bool {
        let devices = self.partition().map_or(0, |partition| partition.vm.bus.devices().count() as u32);
        // A dump may have lowered it: there is no time to wait for others.
        thread::set_priority(&worker, startup::PRIORITY);
        loop {
            self.request(Requests::TERMINATE);
            let gone = self.wait_until_quiet(&worker);
            *self.worker.lock() = None;
            if !gone {
                thread::give_up(&worker);
                if !thread::join_until(&worker, deadline()) {
                    log::error!("{} does not stop; what its VM has is lost", worker.name);
                    return false;
                }
            }
            let (device, was_told) = progress(self.quieting.load(Ordering::SeqCst));
            if was_told && let Some(partition) = self.partition() {
                let name = partition.vm.bus.name(DeviceId(device as u16)).unwrap_or_default();
                log::error!(target: partition.vm.origin(), "vdev `{name}` did not go quiet");
                self.hung.call_once(|| DeviceId(device as u16));
                self.quieting.store(2 * (device + 1), Ordering::SeqCst);
            }
            if device + u32::from(was_told) >= devices {
                return true;
            }
            match self.start(partition::quiet) {
                Some(thread) => worker = thread,
                None => return true,
            }
        }
    }

    /// Waits for the end of the VM's own thread for as long as one device after the other answers. Says whether it came.
    fn wait_until_quiet(&self, worker: &Arc<Thread>) -> bool {
        loop {
            let before = self.quieting.load(Ordering::SeqCst);
            if thread::join_until(worker, deadline()) {
                return true;
            }
            if self.quieting.load(Ordering::SeqCst) == before {
                return false;
            }
        }
    }

    /// How the VM has ended. All of its threads are gone.
    pub(crate) fn end(&self) -> EndRecord {
        self.note_restless(self.reason())
    }

    /// Why it has ended, and what did not go quiet.
    fn reason(&self) -> EndRecord {
        let vm = self.partition().map(|partition| &*partition.vm);
        let own = vm.and_then(|vm| vm.lifecycle.end());
        let device = |id| vm.and_then(|vm| vm.bus.name(id));
        let busy = vm.and_then(|vm| vm.bus.busy()).filter(|_| self.has_failed());
        let busy = self.blamed.get().copied().or(busy);
        let record = match (own, self.end.get()) {
            (Some(record), _) => record,
            (None, Some(record)) => match busy.and_then(device) {
                Some(name) => {
                    let cause = if record.cause == Cause::Unexpected { Cause::Vdev } else { record.cause };
                    let failed = EndRecord::new(cause, None, None, format_args!("vdev `{name}`: {record}"));
                    // Nobody expects it to have gone quiet.
                    if self.hung.get() == busy.as_ref() {
                        return failed;
                    }
                    failed
                }
                None => record.clone(),
            },
            (None, None) => EndRecord::new(Cause::Unexpected, None, None, format_args!("nobody said why")),
        };
        match self.hung.get().and_then(|id| device(*id)) {
            Some(name) => record.with(format_args!("vdev `{name}` did not go quiet")),
            None => record,
        }
    }

    /// Takes the VM's devices from it, those of the machine: first their interrupts, then the streams by which they reach memory. What
    /// brings a device itself to rest comes before both. No vCPU runs.
    ///
    /// # Errors
    /// Which device may go on reaching the VM's memory, and why.
    pub(crate) fn release_devices(&self) -> Result<(), String> {
        let rest = function::end(self);
        passed::end(self);
        messages::end(self.id);
        rest.and(self.uncontained_at_rest()).and(smmuman::take_back(self))
    }

    /// Gives back what the VM had. Stage 2 goes first, and with it what CPUs have cached of it; then the memory is nobody's
    /// and is overwritten; its tables and the heap go last.
    ///
    /// # Safety
    /// All of its threads are gone, nobody else looks at what it has, and [`Compartment::release_devices`] has been without error.
    pub(crate) unsafe fn take_down(&self) {
        files::abandon(self.id);
        let Memory { space, ram, disks } = core::mem::take(&mut *self.memory.lock());
        if let Some(space) = &space {
            space.invalidate();
        }
        shared::end(self);
        net::end(self);
        vsock::end(self);
        disk::end(self.id);
        if let Some(ram) = ram {
            ram.scrub(|| true);
        }
        drop(space);
        passed::release(self);
        function::release(self.id);
        if let Some(disks) = &disks {
            disks.give_back();
        }
        // SAFETY: the caller's promise.
        unsafe { self.heap.destroy() };
    }
}

/// Which device is next, and whether it has been told.
const fn progress(quieting: u32) -> (u32, bool) {
    (quieting / 2, quieting % 2 == 1)
}
