//! What a VM's own threads share, and do besides running vCPUs.
//!
//! Answers for: putting the VM together (memory, images, devices, tree; `build`), what its vCPUs share, carrying out what an exit or
//! a wake asked for, and what comes from outside (`serve`). Does not answer for: what a VM is (`vm`), when it ends and what is done about it (`compartment`, `qvm`), its vCPUs' exits (`vcpu`).
//!
//! All of it runs in threads of the VM: what they allocate is the VM's and is never dropped, but taken back with the VM's heap.

mod balloon;
mod build;
mod function;
mod hold;
mod passed;
mod serve;

pub(crate) use serve::{quiet, status, work};

use crate::compartment::{Compartment, Requests};
use crate::function::Handle;
use crate::guest_memory::GuestRam;
use crate::services::Services;
use crate::shared::{self, Share, Shares};
use crate::sync::{Masked, masked};
use crate::thread::Thread;
use crate::{console, messages, thread, vcpu};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use hold::{CALLED, DRY, DUMPING, ENDED, Hold, PAUSED, STOPPING, TRACED};
use host::console::Terminal;
use spin::Once;
use types::{CpuId, MAX_CPUS, Ticks, VcpuId, VcpuSet};
use vdev::{DeviceId, Effects, Wake};
use vm::Vm;
use vm::assemble::Description;
use vm::dump::Registers;
use vm::lifecycle::State;

/// Some vCPUs, each with its registers.
pub(crate) type Shown = Vec<(VcpuId, Box<Registers>)>;

/// What the vCPUs of a VM share.
pub(crate) struct Partition {
    /// Never dropped: it is in the VM's heap.
    pub(crate) vm: ManuallyDrop<Vm>,
    pub(crate) vttbr: u64,
    /// The vCPU that ran last on each CPU.
    residents: [AtomicU16; MAX_CPUS],
    pub(crate) exit_on_halt: bool,
    ram: &'static GuestRam,
    /// The device by which the guest gives memory back.
    balloon: Option<DeviceId>,
    terminal: ManuallyDrop<Arc<Terminal>>,
    watches: ManuallyDrop<Vec<(DeviceId, String)>>,
    shares: ManuallyDrop<Shares>,
    pub(crate) services: ManuallyDrop<Services>,
    /// Their threads.
    device_threads: Once<Vec<Arc<Thread>>>,
    /// Why vCPUs do not just run.
    hold: Hold,
    /// The vCPU that answers calls: the one that had to be kicked the last time.
    answers: AtomicU16,
    description: &'static Description,
    /// Interrupts of passed devices that have come and wait for a vCPU: a bit each.
    arrived: AtomicU32,
    /// Vectors of passed functions that have come, likewise.
    messages: [AtomicU64; messages::MOST / 64],
    /// The vCPU that took the last one.
    takes: AtomicU16,
    /// Functions of the machine's PCI Express that the VM has.
    functions: ManuallyDrop<Vec<Arc<Handle>>>,
    /// The CPU that they come to; none before the first.
    routed: AtomicU16,
    /// What vCPUs have shown for a dump.
    registers: ManuallyDrop<types::Lock<Shown>>,
    threads: Once<Vec<Arc<Thread>>>,
    /// The host's thread that looks after the VM.
    keeper: Option<Arc<Thread>>,
    /// The VM's own thread, which wakes its devices.
    worker: Option<Arc<Thread>>,
}

impl Partition {
    /// Whether another vCPU of this VM has run on `cpu` since `vcpu` did, which it does now.
    pub(crate) fn take_residence(&self, cpu: CpuId, vcpu: VcpuId) -> bool {
        self.residents.get(cpu.index()).is_none_or(|resident| resident.swap(vcpu.0, Ordering::Relaxed) != vcpu.0)
    }

    /// Whether the run loop has more to do than to run, which is `traced` or not.
    #[inline(always)]
    pub(crate) fn is_held(&self, traced: bool) -> bool {
        self.hold.is_any(traced)
    }

    /// Whether there is a reason for vCPUs to stay out of their guests.
    #[inline(always)]
    pub(crate) fn is_out(&self) -> bool {
        self.hold.is_out()
    }

    /// Whether vCPUs wait for somebody outside, and not just have something to do before they go on.
    pub(crate) fn is_kept_out(&self) -> bool {
        self.hold.has(PAUSED | DUMPING | DRY)
    }

    /// Whether what the vCPUs do is recorded.
    pub(crate) fn is_traced(&self) -> bool {
        self.hold.has(TRACED)
    }

    /// Has what the vCPUs do recorded, or not any more.
    pub(crate) fn trace(&self, on: bool) {
        self.hold.trace(on);
        self.notify_all();
    }

    /// Whether the VM is to end: its vCPUs leave their guests for good.
    #[inline(always)]
    pub(crate) fn is_stopping(&self) -> bool {
        self.hold.has(STOPPING)
    }

    /// Whether all vCPUs have their threads: none starts before it could wake every other.
    pub(crate) fn is_complete(&self) -> bool {
        self.threads.is_completed()
    }

    /// From now on the vCPUs can run.
    pub(crate) fn set_threads(&self, threads: Vec<Arc<Thread>>) {
        let count = self.threads.call_once(|| threads).len();
        self.notify(VcpuSet::first(count));
    }

    pub(crate) fn threads(&self) -> &[Arc<Thread>] {
        self.threads.get().map_or(&[], |threads| threads)
    }

    /// The thread of a vCPU.
    pub(crate) fn thread(&self, vcpu: VcpuId) -> Option<&Thread> {
        self.threads.get()?.get(vcpu.index()).map(|thread| &**thread)
    }

    /// Tells these vCPUs that there is something new. `own` sees for itself, unless that is that interrupts have ended.
    #[inline(always)]
    pub(crate) fn kick(&self, vcpus: VcpuSet, own: VcpuId) {
        if vcpus.contains(own) {
            return self.kick_all(vcpus, own);
        }
        self.notify(vcpus);
    }

    #[cold]
    #[inline(never)]
    fn kick_all(&self, mut vcpus: VcpuSet, own: VcpuId) {
        if !self.note_ended_interrupts() {
            vcpus.remove(own);
        }
        self.notify(vcpus);
    }

    /// If interrupts have ended that devices want to hear of, a vCPU is to tell them. Says whether that is so. Takes no lock.
    #[cold]
    pub(crate) fn note_ended_interrupts(&self) -> bool {
        let ended = self.vm.gic.has_ended();
        if ended {
            self.hold.add(ENDED);
        }
        ended
    }

    fn notify_all(&self) {
        self.notify(VcpuSet::first(self.vm.gic.vcpus()));
    }

    #[unsafe(link_section = ".text.exits")]
    fn notify(&self, vcpus: VcpuSet) {
        vcpus.iter().filter_map(|vcpu| self.thread(vcpu)).for_each(thread::notify);
    }

    /// Cleans all of the VM's memory out of the caches, in steps, as long as `go_on` says so.
    pub(crate) fn clean_caches(&self, go_on: impl FnMut() -> bool) {
        self.ram.clean_caches(go_on);
    }

    /// Does what an exit, or a wake, asked for, but for what takes its time ([`Effects::takes_long`]).
    pub(crate) fn apply(&self, effects: &Effects, from: Option<VcpuId>) {
        match from {
            Some(own) => self.kick(effects.kicked(), own),
            None => self.notify(effects.kicked()),
        }
        if effects.has_output() {
            console::answer_bell();
        }
        if effects.has_alarm() {
            if let Some(worker) = &self.worker {
                thread::notify_at(worker, self.vm.bus.alarm(None));
            }
            self.services.notify_at(self);
        }
        if effects.tells() {
            self.services.answer_bells();
            shared::tell(self);
        }
        if effects.has_dump() {
            self.begin_dump();
        }
        if effects.stop().is_some() {
            self.stop();
        }
    }

    /// A device wants the guest dumped, which does not go on before that. If it is not to be, whatever was to come after it comes
    /// now.
    #[cold]
    fn begin_dump(&self) {
        let hold = || self.hold_for_dump(true);
        let compartment = thread::current().compartment();
        let begun = compartment.is_some_and(|compartment| compartment.qvm.dump_for_device(compartment, hold));
        if !begun && self.vm.end_after_dump() {
            self.stop();
        }
    }

    /// Has the vCPUs end; the host's thread sees to the rest.
    pub(crate) fn stop(&self) {
        self.hold.add(STOPPING);
        self.notify_all();
        self.device_threads().iter().for_each(|thread| thread::notify(thread));
        if let Some(keeper) = &self.keeper {
            thread::notify(keeper);
        }
    }

    /// Keeps the vCPUs out of their guests, or lets them in again. Says whether that was the case already.
    pub(crate) fn pause(&self, pause: bool) -> bool {
        let was_paused = if pause {
            let _ = self.vm.lifecycle.advance(State::Paused);
            self.hold.add(PAUSED)
        } else {
            let _ = self.vm.lifecycle.advance(State::Running);
            self.hold.remove(PAUSED)
        };
        self.notify_all();
        // Timers that were due meanwhile.
        self.worker.iter().chain(self.device_threads()).for_each(|thread| thread::notify(thread));
        was_paused == pause
    }

    /// Keeps the vCPUs out of their guests for a dump, whether the VM is paused or not, or lets them go on.
    pub(crate) fn hold_for_dump(&self, hold: bool) {
        if hold {
            masked(|| self.registers.lock().clear());
            self.hold.add(DUMPING);
        } else {
            self.hold.remove(DUMPING);
        }
        self.notify_all();
    }

    /// A vCPU that stays out of its guest shows its registers, if somebody wants to see them.
    pub(crate) fn show_registers(&self, id: VcpuId, registers: impl FnOnce() -> Registers) {
        if self.hold.has(DUMPING) {
            let registers = Box::new(registers());
            masked(|| {
                let mut shown = self.registers.lock();
                if shown.iter().all(|(other, _)| *other != id) {
                    shown.push((id, registers));
                }
            });
        }
    }

    /// Looks at what vCPUs have shown.
    pub(crate) fn shown<R>(&self, look: impl FnOnce(&mut Shown) -> R) -> R {
        masked(|| look(&mut self.registers.lock()))
    }

    /// Does something with the VM's devices in one of its threads, outside of an exit, and then what that asked for: what takes long
    /// is for the VM's own thread. `own` is the vCPU whose thread it is, if it is one's. Says which vCPUs were kicked.
    pub(crate) fn with_effects<R>(
        &self,
        own: Option<VcpuId>,
        work: impl FnOnce(&Vm, Ticks, &mut Effects) -> R,
    ) -> (R, VcpuSet) {
        let _masked = Masked::new();
        let mut effects = Effects::default();
        let result = work(&self.vm, el2::cpu::counter(), &mut effects);
        self.end_if_dry();
        if effects.none() {
            return (result, VcpuSet::EMPTY);
        }
        self.apply(&effects, own);
        if effects.takes_long()
            && let Some(compartment) = thread::current().compartment()
        {
            compartment.request(Requests::LATER);
        }
        (result, effects.kicked())
    }

    /// Has the devices look that share memory with others: a vCPU of this VM wakes them, or their own thread, if they have one.
    /// From any thread; one that is another VM's does not wait for anything of this one's.
    pub(crate) fn call(&self) {
        let mut by_vcpu = false;
        for share in self.shares() {
            match self.services.served(share.device()) {
                Some(inbox) => inbox.put_backend(),
                None => by_vcpu = true,
            }
        }
        if by_vcpu {
            self.hold.add(CALLED);
            if let Some(thread) = self.thread(VcpuId(self.answers.load(Ordering::Relaxed))) {
                thread::notify(thread);
            }
        }
    }

    /// A vCPU's thread, which is not in its guest, answers a call, if there is one.
    pub(crate) fn answer_call(&self, own: VcpuId) {
        self.end_if_dry();
        if self.hold.has(ENDED) && self.hold.remove(ENDED) {
            // Most that comes is something else. Whoever has ended one has said so before this was asked for.
            if self.vm.gic.has_ended() {
                self.report_ended_interrupts();
            }
            self.take_passed_interrupts(own);
            self.take_messages(own);
            self.take_pins();
        }
        if !self.hold.has(CALLED) || !self.hold.remove(CALLED) {
            return;
        }
        for share in self.shares() {
            let wake = |vm: &Vm, now, effects: &mut Effects| vm.wake(share.device(), Wake::Backend, now, effects);
            let ((), kicked) = self.with_effects(Some(own), wake);
            if let Some(vcpu) = kicked.iter().next() {
                self.answers.store(vcpu.0, Ordering::Relaxed);
            }
        }
    }

    /// Wakes the devices whose interrupts have ended, or has their own threads do so.
    fn report_ended_interrupts(&self) {
        let ended = masked(|| self.vm.gic.take_ended());
        self.deactivate_passed();
        for (device, _) in self.vm.bus.listeners().iter().filter(|(_, intid)| ended.contains(*intid)) {
            match self.services.served(*device) {
                Some(inbox) => inbox.put_ended(),
                None => self.wake(*device, Wake::InterruptEnded),
            }
        }
    }

    /// What its devices have of shared memory.
    pub(crate) fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.iter().map(|share| &**share)
    }

    /// Does what takes long and the guest or devices have asked for, in one of the VM's threads, of `own` if it is a vCPU's; see
    /// [`Vm::go_on`] and [`shared::work`].
    #[cold]
    pub(crate) fn do_later(&self, own: Option<VcpuId>, go_on: &mut dyn FnMut() -> bool) {
        while self.with_effects(own, |vm, _, effects| vm.go_on(effects)).0 {
            if !go_on() {
                return;
            }
        }
        if let Some(compartment) = thread::current().compartment() {
            shared::work(self, compartment, go_on);
            self.reset_functions();
        }
    }

    pub(crate) fn wake(&self, device: DeviceId, wake: Wake) {
        self.with_effects(None, |vm, now, effects| vm.wake(device, wake, now, effects));
    }

    /// Wakes the devices whose timers are due and that have no thread of their own, one at a time with interrupts masked, and
    /// returns when the next one is.
    fn expire_timers(&self) -> Ticks {
        let bus = &self.vm.bus;
        self.expire(bus.devices().filter(|device| self.services.served(*device).is_none()));
        if self.is_paused() { Ticks::NEVER } else { bus.next_deadline(None) }
    }

    /// The same for a device that has a thread of its own, in that.
    pub(crate) fn expire_timers_of(&self, device: DeviceId) -> Ticks {
        self.expire(core::iter::once(device));
        if self.is_paused() { Ticks::NEVER } else { self.vm.bus.next_deadline(Some(device)) }
    }

    /// While the VM is paused none is woken: the guest could not answer, and a watchdog would take that for its death.
    fn expire(&self, devices: impl Iterator<Item = DeviceId>) {
        for device in devices.take_while(|_| !self.is_paused()) {
            if self.vm.bus.deadline(device) <= el2::cpu::counter() {
                self.with_effects(None, |vm, now, effects| vm.expire_timers(device, now, effects));
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.hold.has(PAUSED)
    }

    /// From now on its devices' threads and workers run.
    pub(crate) fn set_device_threads(&self, threads: Vec<Arc<Thread>>) {
        let threads = self.device_threads.call_once(|| threads);
        // SAFETY: the partition keeps them, and they are not used without it.
        unsafe { self.services.set_threads(threads, self.worker.as_ref()) };
    }

    /// The threads of its devices and workers.
    pub(crate) fn device_threads(&self) -> &[Arc<Thread>] {
        self.device_threads.get().map_or(&[], |threads| threads)
    }
}

/// The life of a vCPU's thread.
pub(crate) fn run_vcpu(compartment: &'static Compartment, number: usize) {
    let Some(partition) = compartment.partition() else { return };
    if let Some(vcpu) = partition.vm.vcpu(VcpuId(number as u16)) {
        vcpu::run(partition, vcpu);
    }
}
