//! The kernel's own locks, and the gate to portable code that takes its own.
//!
//! A holder runs with interrupts masked and so is never preempted. Locks have ranks, and may only be taken in rising
//! order: whoever breaks the order is stopped at once, on every run, not only when the deadlock happens.
//!
//! Portable code has a simple lock of its own (`types::Lock`), without ranks. All of those together have one place in the
//! order, [`Rank::Portable`]: they are taken with kernel locks held, the console's around its multiplexer and the
//! scheduler's around the interrupt controller of a vCPU that leaves its CPU, and while one is held there are only the
//! heap and the page frames behind it. [`masked`] enforces that for whatever the portable code may call back; the exit
//! path, which has no hooks but the same ones, does without.

use crate::cpu::{self, PerCpu};
use core::cell::{Cell, UnsafeCell};
use core::ops::{Deref, DerefMut};
use sched::Turnstile;
use spin::RelaxStrategy;

/// What a CPU does while another one holds the lock it wants.
struct Relax;

impl RelaxStrategy for Relax {
    #[inline]
    fn relax() {
        el2::cpu::relax();
    }
}

type TicketMutex<T> = spin::mutex::TicketMutex<T, Relax>;
type TicketMutexGuard<'a, T> = spin::mutex::TicketMutexGuard<'a, T, Relax>;

/// The order in which kernel locks nest, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Rank {
    /// The console's multiplexer and UART.
    Console,
    /// The physical distributor.
    Distributor,
    /// The list of VMs.
    Qvms,
    /// Which life a VM is in.
    Life,
    /// What one VM has in one life.
    Compartment,
    /// The numbers of VMs.
    Numbers,
    /// The VMIDs.
    Vmids,
    /// The names of clusters and adaptive partitions.
    Groups,
    /// The files in RAM.
    Files,
    /// Shared memory, and who is attached to it.
    Regions,
    /// The networks of VMs.
    Net,
    /// A network card.
    Cards,
    /// The sockets of VMs.
    Vsock,
    /// A real disk's requests, or who has which.
    Disks,
    /// Which VM has which streams; or what becomes of faults.
    Streams,
    /// The functions of the machine's PCI Express, and who has which.
    Functions,
    /// Who has which device of the machine.
    Passed,
    /// Whose messages of the machine's devices are.
    Messages,
    /// An ITS, and which devices have events there.
    Its,
    /// What is being traced.
    Trace,
    /// Threads, ready queues, timeouts.
    Scheduler,
    /// Any lock of a portable crate.
    Portable,
    /// Which shared memory there is.
    Directory,
    /// The log's, which threads of VMs take as well.
    Log,
    /// Which of its RAM a guest has given back.
    Loan,
    /// The stage 2 of a VM.
    Stage2,
    /// An SMMU: its queues and tables, and whose its streams are. Told of a change while that is made.
    Smmus,
    /// The small heaps.
    Heap,
    /// EL2's address space.
    AddressSpace,
    /// Page frames.
    Frames,
}

/// The ranks of the locks that one CPU holds.
pub(crate) struct Ranks(Cell<u32>);

impl Ranks {
    pub(crate) const fn none() -> Self {
        Self(Cell::new(0))
    }

    /// Whether a lock of the kernel is held, one that is not a VM's own.
    #[inline]
    pub(crate) fn are_kernel(&self) -> bool {
        self.0.get() & !(1 << Rank::Portable as u8) != 0
    }

    /// Forgets the VM's own locks: whoever held them is abandoned.
    pub(crate) fn clear(&self) {
        self.0.set(0);
    }

    #[inline(always)]
    fn enter(&self, rank: Rank) {
        let held = self.0.get();
        if held >> rank as u8 != 0 {
            refuse(rank, held);
        }
        self.0.set(held | 1 << rank as u8);
    }

    /// Enters portable code. Says whether it is not the inside of portable code already.
    fn enter_portable(&self) -> bool {
        let is_outermost = self.0.get() & 1 << Rank::Portable as u8 == 0;
        if is_outermost {
            self.enter(Rank::Portable);
        }
        is_outermost
    }

    #[inline(always)]
    fn leave(&self, rank: Rank) {
        self.0.set(self.0.get() & !(1 << rank as u8));
    }
}

#[cold]
#[inline(never)]
fn refuse(rank: Rank, held: u32) -> ! {
    panic!("lock order: {rank:?} taken while {held:#b} are held");
}

/// Masks interrupts while it lives; puts back what was before.
pub(crate) struct Masked {
    was_masked: bool,
}

impl Masked {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { was_masked: el2::cpu::mask_interrupts() }
    }
}

impl Drop for Masked {
    #[inline]
    fn drop(&mut self) {
        if !self.was_masked {
            // SAFETY: they were unmasked when this began, so this is a thread that may be preempted, and by the order of
            // drops it no longer holds the lock.
            unsafe { el2::cpu::unmask_interrupts() };
        }
    }
}

/// Runs `work` with interrupts masked: the gate through which host threads enter portable code that takes locks. Of ours,
/// it can take only those behind [`Rank::Portable`].
#[inline]
pub(crate) fn masked<R>(work: impl FnOnce() -> R) -> R {
    let _masked = Masked::new();
    let locks = &cpu::this().locks;
    let is_outermost = locks.enter_portable();
    let result = work();
    if is_outermost {
        locks.leave(Rank::Portable);
    }
    result
}

/// Runs `work`, which takes the log's lock, with interrupts masked.
pub(crate) fn logging<R>(work: impl FnOnce() -> R) -> R {
    let _masked = Masked::new();
    let locks = &cpu::this().locks;
    locks.enter(Rank::Log);
    let result = work();
    locks.leave(Rank::Log);
    result
}

/// A ticket lock with a rank.
pub(crate) struct Lock<T> {
    rank: Rank,
    inner: TicketMutex<T>,
}

impl<T> Lock<T> {
    pub(crate) const fn new(rank: Rank, value: T) -> Self {
        Self { rank, inner: TicketMutex::new(value) }
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let masked = Masked::new();
        cpu::this().locks.enter(self.rank);
        Guard { inner: Some(self.inner.lock()), rank: self.rank, _masked: masked }
    }
}

/// Access to what a [`Lock`] guards.
pub(crate) struct Guard<'a, T> {
    inner: Option<TicketMutexGuard<'a, T>>,
    rank: Rank,
    _masked: Masked,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("the guard is only emptied when it is dropped"),
        }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.inner {
            Some(inner) => inner,
            None => unreachable!("the guard is only emptied when it is dropped"),
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.inner = None;
        cpu::this().locks.leave(self.rank);
    }
}

/// The scheduler's lock, of rank [`Rank::Scheduler`]: one thread takes it, the next, after the switch, releases it.
pub(crate) struct HandoverLock<T> {
    lock: Turnstile,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only between `acquire` and `release`, by one CPU at a time.
unsafe impl<T: Send> Sync for HandoverLock<T> {}

impl<T> HandoverLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { lock: Turnstile::new(), value: UnsafeCell::new(value) }
    }

    /// Takes the lock for `cpu`, this one, until [`HandoverLock::release`]. Interrupts are masked, and stay masked until then.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the lock is what makes it unique")]
    pub(crate) fn acquire(&self, cpu: &PerCpu) -> &mut T {
        cpu.locks.enter(Rank::Scheduler);
        self.lock.enter(el2::cpu::relax);
        // SAFETY: the lock is ours, and nobody else has a reference.
        unsafe { &mut *self.value.get() }
    }

    /// What the lock guards, for the thread that comes after a switch.
    ///
    /// # Safety
    /// The lock is held on this CPU, and no other reference is in use.
    #[expect(clippy::mut_from_ref, reason = "the lock is what makes it unique")]
    pub(crate) unsafe fn held(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.value.get() }
    }

    /// Gives the lock back that this CPU took, perhaps while the thread before us ran. References from `acquire` are not used afterwards.
    #[inline(always)]
    pub(crate) fn release(&self, cpu: &PerCpu) {
        self.lock.leave();
        cpu.locks.leave(Rank::Scheduler);
    }

    /// Runs `work` with the lock held and interrupts masked.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let _masked = Masked::new();
        let result = work(self.acquire_far());
        self.release_far();
        result
    }

    /// [`HandoverLock::acquire`] as a call, for the many places that are not in a hurry.
    #[inline(never)]
    fn acquire_far(&self) -> &mut T {
        self.acquire(cpu::this())
    }

    /// [`HandoverLock::release`] likewise.
    #[inline(never)]
    fn release_far(&self) {
        self.release(cpu::this());
    }
}
