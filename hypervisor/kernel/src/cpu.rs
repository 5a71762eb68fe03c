//! What each CPU has for itself.
//!
//! Answers for: the per-CPU block that TPIDR_EL2 points to, and which CPU this is. Does not answer for: scheduling, which
//! keeps its own state per CPU.

use crate::controller;
use crate::sync::Ranks;
use crate::thread::Thread;
use crate::vcpu::LoadedVcpu;
use alloc::boxed::Box;
use core::cell::{Cell, UnsafeCell};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};
use machine::errata::Hardening;
use types::{CpuId, IntId, MAX_CPUS, Mpidr, Ticks};

/// See [`PerCpu::after_switch`]: there is a thread in [`PerCpu::ended`].
pub(crate) const ENDED: u8 = 1 << 0;
/// The same: what threads do here is recorded.
const TRACED: u8 = 1 << 1;

/// One CPU's own. Only that CPU touches the cells, with interrupts masked; the layout's beginning is known to `vectors.S`.
#[repr(C)]
pub(crate) struct PerCpu {
    /// Where a fault finds a stack when the thread's own has overflowed: its end.
    emergency_stack: Cell<usize>,
    /// What the hardened vectors do on a guest's exit: so many branches, and this firmware call. The second word.
    hardening: Cell<[u32; 2]>,
    /// And whether they doubt that a fault is stage 2's. At the beginning of the third word.
    doubts_stage_2: Cell<u32>,
    pub(crate) id: CpuId,
    pub(crate) mpidr: Mpidr,
    /// Kernel locks held by what runs here.
    pub(crate) locks: Ranks,
    /// It takes an interrupt: what happens now is not the current thread's doing.
    pub(crate) in_interrupt: Cell<bool>,
    /// Something more important than the current thread may be ready.
    pub(crate) need_reschedule: Cell<bool>,
    /// What is to be done after a switch from one thread to another, beside going on: [`ENDED`], [`TRACED`]. One place for
    /// all of it, so that a plain switch looks once.
    pub(crate) after_switch: AtomicU8,
    /// The thread that runs here, or that waits for this CPU on its stack.
    pub(crate) current: Cell<*const Thread>,
    /// The thread that has ended here, until the switch away from it is complete.
    pub(crate) ended: Cell<*const Thread>,
    /// SP of the idle loop on the CPU's first stack.
    pub(crate) idle_sp: Cell<usize>,
    /// The vCPU whose registers are in this CPU.
    pub(crate) loaded: Cell<*mut LoadedVcpu>,
    /// End of the current thread's time slice.
    pub(crate) slice_end: Cell<Ticks>,
    /// What EL2's timer is set to.
    pub(crate) armed: Cell<Ticks>,
    /// The private half of the interrupt controller.
    pub(crate) private_interrupts: UnsafeCell<Option<controller::Private>>,
    /// Its bit in lists of CPUs of a GICv2.
    pub(crate) interface: AtomicU8,
    /// What its list registers stand for without being linked to it, where they are not (`vcpu::interface`).
    pub(crate) unlinked: [Cell<Option<IntId>>; 4],
    /// It runs and answers interrupts.
    pub(crate) online: AtomicBool,
    /// It could not be started.
    pub(crate) refused: Cell<bool>,
    /// It prints an epitaph, or has been told to stop.
    pub(crate) failing: Cell<bool>,
}

impl PerCpu {
    pub(crate) const fn new(id: CpuId, mpidr: Mpidr) -> Self {
        Self {
            emergency_stack: Cell::new(0),
            hardening: Cell::new([1, 0]),
            doubts_stage_2: Cell::new(0),
            id,
            mpidr,
            locks: Ranks::none(),
            in_interrupt: Cell::new(false),
            need_reschedule: Cell::new(false),
            current: Cell::new(ptr::null()),
            after_switch: AtomicU8::new(0),
            ended: Cell::new(ptr::null()),
            idle_sp: Cell::new(0),
            loaded: Cell::new(ptr::null_mut()),
            slice_end: Cell::new(Ticks::NEVER),
            armed: Cell::new(Ticks::NEVER),
            private_interrupts: UnsafeCell::new(None),
            interface: AtomicU8::new(0),
            unlinked: [const { Cell::new(None) }; 4],
            online: AtomicBool::new(false),
            refused: Cell::new(false),
            failing: Cell::new(false),
        }
    }

    /// Whether what threads do here is recorded.
    #[inline(always)]
    pub(crate) fn is_traced(&self) -> bool {
        self.after_switch.load(Ordering::Relaxed) & TRACED != 0
    }

    /// Has it recorded from now on, or not any more. From any CPU.
    pub(crate) fn trace(&self, on: bool) {
        if on {
            self.after_switch.fetch_or(TRACED, Ordering::Relaxed);
        } else {
            self.after_switch.fetch_and(!TRACED, Ordering::Relaxed);
        }
    }

    /// Has this done on each exit of a guest from this CPU, which runs this.
    pub(crate) fn harden(&self, hardening: Hardening, doubts_stage_2: bool) {
        self.hardening.set([hardening.branches.max(1), hardening.call]);
        self.doubts_stage_2.set(doubts_stage_2.into());
        el2::cpu::harden_exits();
    }

    pub(crate) fn set_emergency_stack(&self, end: usize) {
        self.emergency_stack.set(end);
    }
}

const _: () =
    assert!(core::mem::offset_of!(PerCpu, emergency_stack) == 0 && core::mem::offset_of!(PerCpu, hardening) == 8);
const _: () = assert!(core::mem::offset_of!(PerCpu, doubts_stage_2) == 16);

// SAFETY: the cells are used by the owning CPU alone (module rule); what others read is atomic or constant.
unsafe impl Sync for PerCpu {}

static CPUS: [AtomicPtr<PerCpu>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];

/// This CPU's block. Interrupts are masked, or the caller does not mind to be told about the CPU it has just left.
#[inline(always)]
pub(crate) fn this() -> &'static PerCpu {
    // SAFETY: set first thing on every CPU (`enter`), to a block that is never freed.
    unsafe { &*el2::cpu::per_cpu().cast::<PerCpu>() }
}

/// Makes `block` this CPU's.
pub(crate) fn enter(block: &'static PerCpu) {
    // SAFETY: the block lives for ever, and each CPU has its own.
    unsafe { el2::cpu::set_per_cpu(ptr::from_ref(block).cast_mut().cast()) };
}

/// Lists `block` as the one of its number, so that others find it.
pub(crate) fn register(block: &'static PerCpu) {
    if let Some(slot) = CPUS.get(block.id.index()) {
        slot.store(ptr::from_ref(block).cast_mut(), Ordering::Release);
    }
}

/// A new block for a CPU that is about to be started.
pub(crate) fn create(id: CpuId, mpidr: Mpidr) -> &'static PerCpu {
    let block: &'static PerCpu = Box::leak(Box::new(PerCpu::new(id, mpidr)));
    register(block);
    block
}

/// The block of another CPU, if it has been created.
pub(crate) fn of(id: CpuId) -> Option<&'static PerCpu> {
    let pointer = CPUS.get(id.index())?.load(Ordering::Acquire);
    // SAFETY: null, or a block that lives for ever.
    unsafe { pointer.as_ref() }
}

/// All CPUs that run.
pub(crate) fn online() -> impl Iterator<Item = &'static PerCpu> {
    (0..MAX_CPUS as u16).filter_map(|n| of(CpuId(n))).filter(|cpu| cpu.online.load(Ordering::Acquire))
}
