//! The life of a VM, from the outside.
//!
//! Answers for: taking memory, loading, starting the vCPUs' threads, and at the end, whatever ended it, the fixed order:
//! stop the vCPUs, quiet the devices, take stage 2 down, scrub, give everything back, report. All of it runs in a thread of
//! the VM's own (the original's `qvm` main thread), so a slow end delays nobody else. Does not answer for: what a VM is
//! (`vm`), where its configuration comes from (`startup`).

use crate::frames::MAX_VMS;
use crate::guest_memory::{GuestRam, Loading};
use crate::stage2::GuestSpace;
use crate::sync::{Lock, Masked, Rank, masked};
use crate::{console, thread, vcpu};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use host::console::{Stream, VmNumber};
use sched::Parameters;
use spin::Once;
use types::{AccessSize, Ipa, PAGE_SIZE, Range, Ticks, VcpuId, VcpuSet, VmId};
use vdev::{Cause, Effects, GuestMemory, MemoryFault, Wake};
use vm::Vm;

/// A VM that exists.
pub(crate) struct Partition {
    pub(crate) vm: Vm,
    pub(crate) vttbr: u64,
    pub(crate) vtcr: u64,
    pub(crate) exit_on_halt: bool,
    number: VmNumber,
    stream: Arc<Stream>,
    ram: Arc<GuestRam>,
    stopping: AtomicBool,
    threads: Once<Vec<Arc<thread::Thread>>>,
    main: Once<Arc<thread::Thread>>,
}

static PARTITIONS: Lock<Vec<Arc<Partition>>> = Lock::new(Rank::Partitions, Vec::new());

/// Numbers of VMs in use.
static NUMBERS: Lock<u128> = Lock::new(Rank::Numbers, 0);

/// The number of a VM, its own until dropped.
pub(crate) struct Number(pub(crate) VmId);

impl Number {
    /// `None` if there are too many VMs.
    pub(crate) fn new() -> Option<Self> {
        let mut used = NUMBERS.lock();
        let free = used.trailing_ones();
        if free as usize >= MAX_VMS {
            return None;
        }
        *used |= 1 << free;
        Some(Self(VmId(free as u16)))
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        *NUMBERS.lock() &= !(1 << self.0.0);
    }
}

impl Partition {
    /// Whether the VM is to end: its vCPUs leave their guests for good.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether all vCPUs have their threads: none starts before it could wake every other.
    pub(crate) fn is_complete(&self) -> bool {
        self.threads.is_completed()
    }

    /// The thread of a vCPU.
    pub(crate) fn thread(&self, vcpu: VcpuId) -> Option<&thread::Thread> {
        self.threads.get()?.get(vcpu.index()).map(|thread| &**thread)
    }

    /// Tells these vCPUs, except `own`, that there is something new.
    #[inline]
    pub(crate) fn kick(&self, vcpus: VcpuSet, own: VcpuId) {
        let mut others = vcpus;
        others.remove(own);
        if !others.is_empty() {
            self.notify(others);
        }
    }

    fn notify(&self, vcpus: VcpuSet) {
        vcpus.iter().filter_map(|vcpu| self.thread(vcpu)).for_each(thread::notify);
    }

    /// Cleans all of the VM's memory out of the caches, in steps, as long as `go_on` says so.
    pub(crate) fn clean_caches(&self, go_on: impl FnMut() -> bool) {
        self.ram.clean_caches(go_on);
    }

    /// Does what an exit, or a wake, asked for, but for [`Partition::clean_caches`], which takes its time.
    pub(crate) fn apply(&self, effects: &Effects, from: Option<VcpuId>) {
        let mut kick = effects.kicked();
        if let Some(own) = from {
            kick.remove(own);
        }
        self.notify(kick);
        if effects.has_output() {
            console::answer_bell();
        }
        if effects.stop().is_some() {
            self.stop();
        }
    }

    /// Asks the VM to end; its main thread sees to the rest.
    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.notify(VcpuSet::first(self.vm.gic.vcpus()));
        if let Some(main) = self.main.get() {
            thread::notify(main);
        }
    }

    fn wake(&self, device: vdev::DeviceId) {
        let _masked = Masked::new();
        let mut effects = Effects::default();
        masked(|| self.vm.wake(device, Wake::Backend, el2::cpu::counter(), &mut effects));
        self.apply(&effects, None);
    }
}

fn by_number(number: VmNumber) -> Option<Arc<Partition>> {
    PARTITIONS.lock().iter().find(|partition| partition.number == number).cloned()
}

/// Something was typed for this VM.
pub(crate) fn wake_reader(number: VmNumber) {
    if let Some(partition) = by_number(number)
        && let Some(device) = partition.stream.reader()
    {
        partition.wake(device);
    }
}

/// There is room again for this VM's output.
pub(crate) fn wake_writers(number: VmNumber) {
    if let Some(partition) = by_number(number) {
        masked(|| partition.stream.writers()).into_iter().for_each(|device| partition.wake(device));
    }
}

/// The VM's memory as its devices have it.
struct Shared(Arc<GuestRam>);

impl GuestMemory for Shared {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.0.read(from, into)
    }
    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.0.write(to, from)
    }
    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        self.0.load(from, size)
    }
    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        self.0.store(to, size, value)
    }
}

/// Everything that has been decided about a VM, before anything has been taken for it.
pub(crate) struct Plan {
    pub(crate) vm: Vm,
    pub(crate) id: Number,
    /// RAM and ROM; `true` is read-only.
    pub(crate) memory: Vec<(Range<Ipa>, bool)>,
    /// How each vCPU's thread is scheduled.
    pub(crate) vcpus: Vec<Parameters>,
    pub(crate) exit_on_halt: bool,
    pub(crate) number: VmNumber,
    pub(crate) stream: Arc<Stream>,
}

/// Puts the images into the memory, and says where the guest starts and with what in X0.
pub(crate) type Load<'a> = &'a mut dyn FnMut(&dyn GuestMemory) -> Result<(Ipa, Ipa), Failure>;

/// A VM that did not come to life: the code it counts with, and why.
pub(crate) type Failure = (Cause, String);

/// The whole life of a VM. Returns when nothing is left of it but how it ended.
pub(crate) fn live(plan: Plan, load: Load<'_>) -> Result<(Cause, String), Failure> {
    let Plan { mut vm, id, memory, vcpus, exit_on_halt, number, stream } = plan;
    let no_memory = || (Cause::Fatal, format!("not enough memory for {}", Megabytes(&memory)));
    // What cannot be had is not even begun: meanwhile it would be missing elsewhere.
    let wanted = memory.iter().fold(0_u64, |sum, (range, _)| sum.saturating_add(range.length()));
    if wanted > crate::frames::statistics().0 as u64 * PAGE_SIZE {
        return Err(no_memory());
    }
    let regions: Vec<Range<Ipa>> = memory.iter().map(|(range, _)| *range).collect();
    let ram = Arc::new(GuestRam::allocate(id.0, &regions).ok_or_else(no_memory)?);
    let mut space = GuestSpace::new(id.0).ok_or_else(no_memory)?;
    ram.scrub();
    for (guest, host) in ram.pieces() {
        let read_only = memory.iter().any(|(range, read_only)| *read_only && range.contains(guest.start()));
        space.map_memory(guest, host, read_only).map_err(|error| (Cause::Fatal, format!("stage 2: {error}")))?;
    }
    let refused = |error: vm::DeviceError| (Cause::Fatal, format!("{error}"));
    masked(|| vm.configure(Box::new(Shared(Arc::clone(&ram))), el2::cpu::counter())).map_err(refused)?;
    let (entry, argument) = load(&Loading(&ram))?;
    el2::cache::invalidate_instructions();
    masked(|| vm.start(entry, argument.0, el2::cpu::counter())).map_err(refused)?;
    let partition = Arc::new(Partition {
        vm,
        vttbr: space.vttbr(),
        vtcr: GuestSpace::vtcr(),
        exit_on_halt,
        number,
        stream,
        ram,
        stopping: AtomicBool::new(false),
        threads: Once::new(),
        main: Once::new(),
    });
    PARTITIONS.lock().push(Arc::clone(&partition));
    let end = run(&partition, &vcpus);
    PARTITIONS.lock().retain(|other| !Arc::ptr_eq(other, &partition));
    // Stage 2 goes first, and with it what CPUs have cached of it; then the memory is nobody's and can be overwritten.
    drop(space);
    partition.ram.scrub();
    partition.vm.ended();
    end
}

/// What there is left of the machine, for people, for `cargo xtask bench`, and for the test that it all comes back.
fn report_memory(vm: &str, does: &str) {
    let (free, total) = crate::frames::statistics();
    let kernel = crate::frames::Owner::Kernel.pages();
    let (used, size) = crate::heap::statistics();
    log::debug!(
        "{vm} {does}: {} of {} KiB RAM free, {} KiB the hypervisor's, of them {} KiB heap, {} KiB in use",
        kibibytes(free),
        kibibytes(total),
        kibibytes(kernel),
        size >> 10,
        used >> 10
    );
}

const fn kibibytes(pages: usize) -> u64 {
    pages as u64 * (PAGE_SIZE >> 10)
}

/// From the first vCPU's start until the last one has stopped and the devices are quiet.
fn run(partition: &Arc<Partition>, vcpus: &[Parameters]) -> Result<(Cause, String), Failure> {
    if let Some(main) = thread::current_shared() {
        partition.main.call_once(|| main);
    }
    let mut threads = Vec::new();
    let mut failure = None;
    for (index, parameters) in vcpus.iter().enumerate() {
        let id = VcpuId(index as u16);
        let Some(vcpu) = partition.vm.vcpu(id) else { break };
        let of = Arc::clone(partition);
        let name = format!("{}/{id}", partition.vm.name());
        match thread::spawn(name, *parameters, move || vcpu::run(&of, vcpu)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                failure = Some((Cause::Fatal, format!("{id}: no thread: {error:?}")));
                partition.stopping.store(true, Ordering::SeqCst);
                break;
            }
        }
    }
    let threads = partition.threads.call_once(|| threads);
    report_memory(partition.vm.name(), "runs");
    partition.notify(VcpuSet::first(vcpus.len()));
    while !partition.is_stopping() {
        thread::sleep_until(Ticks::NEVER);
    }
    partition.stop();
    threads.iter().for_each(thread::join);
    masked(|| partition.vm.terminate(el2::cpu::counter()));
    match (failure, partition.vm.lifecycle.end()) {
        (Some(failure), _) => Err(failure),
        (None, Some(record)) => {
            let detail = if record.cause.code() == 0 { String::new() } else { format!("{record}") };
            Ok((record.cause, detail))
        }
        (None, None) => Ok((Cause::Unexpected, String::new())),
    }
}

struct Megabytes<'a>(&'a [(Range<Ipa>, bool)]);

impl core::fmt::Display for Megabytes<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let bytes: u64 = self.0.iter().map(|(range, _)| range.length()).sum();
        let (free, _) = crate::frames::statistics();
        write!(f, "{} KiB of RAM ({} KiB are free)", bytes >> 10, kibibytes(free))
    }
}
