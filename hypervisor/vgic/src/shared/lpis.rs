//! Locality-specific peripheral interrupts: state, and the order in which they are taken.
//!
//! Answers for: which LPIs are pending, enabled and in list registers, for which vCPU, and for finding the most urgent of those
//! that wait, in a time that does not depend on how many there are. Does not answer for: what makes one pending, and where its
//! configuration comes from (`its`).
//!
//! Follows IHI 0069, "LPIs": they are edge-triggered, of group 1, and have no active state: acknowledging one makes it inactive.
//! Those that wait hang in lists, one for each vCPU and priority, in the order in which they came.

use super::Shared;
use crate::bank::ENABLE_GROUP_1;
use crate::best::{Best, Key, MAX_LIST_REGISTERS};
use crate::registers::lr;
use crate::signals::{RESYNC, SHARED, Signals};
use crate::word::{all_if, allot, bit, low_byte};
use alloc::{vec, vec::Vec};
use types::VcpuId;

/// The first LPI (IHI 0069, "INTIDs").
pub(crate) const FIRST_LPI: u32 = 8192;
/// The bit of [`Shared`]'s `ready` that stands for LPIs. There are 31 banks of SPIs at most.
pub(super) const READY: u32 = 1 << 31;

/// No LPI.
const NONE: u16 = u16::MAX;
/// Priorities that an LPI can have: its configuration has six bits of them.
const LEVELS: usize = 64;

/// The configuration lets it pass.
const ENABLED: u8 = 1 << 0;
/// Pending, and not taken into a list register since.
const PENDING: u8 = 1 << 1;
/// In a list register of its holder.
const RESIDENT: u8 = 1 << 2;
/// It is still pending if it leaves its list register without having been acknowledged.
const CARRIED: u8 = 1 << 3;
/// In the list of its target and priority: exactly if it is pending, enabled and not resident.
const QUEUED: u8 = 1 << 4;

/// What the guest's table says of an LPI (IHI 0069, "LPI Configuration tables").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// It can be delivered.
    pub(crate) enabled: bool,
    /// Only bits 7 to 2.
    pub(crate) priority: u8,
}

impl Configuration {
    /// From a byte of the table, with the implemented bits of a priority.
    pub(crate) const fn new(byte: u8, priority_mask: u8) -> Self {
        Self { enabled: byte & 1 != 0, priority: byte & 0xfc & priority_mask }
    }
}

#[derive(Clone, Copy, Debug)]
struct Lpi {
    flags: u8,
    priority: u8,
    /// The vCPU that takes it.
    target: u8,
    /// The vCPU in whose list register it is, if it is resident.
    holder: u8,
    /// Neighbours in the list, if it is queued.
    next: u16,
    previous: u16,
}

impl Lpi {
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    const fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    const fn level(&self) -> usize {
        (self.priority / 4) as usize
    }
}

/// What waits for one vCPU.
#[derive(Clone, Debug)]
struct Queue {
    /// Which lists are not empty; the lowest bit is the most urgent priority.
    levels: u64,
    /// The first and the last LPI of each list.
    ends: [(u16, u16); LEVELS],
    length: u32,
}

/// Who has to look, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    vcpu: u8,
    flags: u32,
}

/// All LPIs of a VM. What names none of them does nothing.
#[derive(Debug, Default)]
pub(crate) struct Lpis {
    lpis: Vec<Lpi>,
    queues: Vec<Queue>,
}

impl Lpis {
    /// So many, for so many vCPUs.
    pub(crate) fn new(count: u16, vcpus: usize) -> Self {
        let lpi = Lpi { flags: 0, priority: 0, target: 0, holder: 0, next: NONE, previous: NONE };
        let queue = Queue { levels: 0, ends: [(NONE, NONE); LEVELS], length: 0 };
        Self { lpis: vec![lpi; count.into()], queues: vec![queue; vcpus] }
    }

    fn index(&self, intid: u32) -> Option<u16> {
        let index = u16::try_from(intid.checked_sub(FIRST_LPI)?).ok()?;
        (usize::from(index) < self.lpis.len()).then_some(index)
    }

    fn get(&self, index: u16) -> Option<&Lpi> {
        self.lpis.get(usize::from(index))
    }

    fn get_mut(&mut self, index: u16) -> Option<&mut Lpi> {
        self.lpis.get_mut(usize::from(index))
    }

    /// Whether it is pending for `vcpu`, in a list register or not.
    pub(crate) fn is_pending_for(&self, intid: u32, vcpu: u8) -> bool {
        let lpi = self.index(intid).and_then(|index| self.get(index));
        lpi.is_some_and(|lpi| lpi.target == vcpu && lpi.has(PENDING | CARRIED))
    }

    /// It becomes pending for `vcpu`.
    pub(crate) fn trigger(&mut self, intid: u32, vcpu: u8) -> Option<Told> {
        let index = self.index(intid)?;
        self.move_to(index, vcpu);
        let lpi = self.get_mut(index)?;
        lpi.set(PENDING, true);
        if lpi.has(RESIDENT) {
            // It may have been acknowledged: its holder knows. If it has not, it goes where it is to be now.
            return Some(Told { vcpu: lpi.holder, flags: if lpi.holder == vcpu { SHARED } else { RESYNC } });
        }
        self.settle(index)
    }

    /// It is not pending any more.
    pub(crate) fn clear(&mut self, intid: u32) -> Option<Told> {
        let index = self.index(intid)?;
        let lpi = self.get_mut(index)?;
        lpi.set(PENDING | CARRIED, false);
        if lpi.has(RESIDENT) {
            return Some(Told { vcpu: lpi.holder, flags: RESYNC });
        }
        self.settle(index)
    }

    /// Its configuration has been read anew.
    pub(crate) fn configure(&mut self, intid: u32, new: Configuration) -> Option<Told> {
        let index = self.index(intid)?;
        let lpi = self.get(index)?;
        if lpi.priority != new.priority {
            self.dequeue(index);
        }
        let lpi = self.get_mut(index)?;
        lpi.priority = new.priority;
        let is_withdrawn = lpi.has(ENABLED) && !new.enabled;
        lpi.set(ENABLED, new.enabled);
        if lpi.has(RESIDENT) {
            return is_withdrawn.then_some(Told { vcpu: lpi.holder, flags: RESYNC });
        }
        self.settle(index)
    }

    /// From now on `vcpu` takes it, also if it is pending already.
    pub(crate) fn retarget(&mut self, intid: u32, vcpu: u8) -> Option<Told> {
        let index = self.index(intid)?;
        self.move_to(index, vcpu);
        let lpi = self.get(index)?;
        if lpi.has(RESIDENT) {
            return (lpi.holder != vcpu).then_some(Told { vcpu: lpi.holder, flags: RESYNC });
        }
        self.settle(index)
    }

    fn move_to(&mut self, index: u16, vcpu: u8) {
        if self.get(index).is_some_and(|lpi| lpi.target != vcpu) {
            self.dequeue(index);
        }
        if let Some(lpi) = self.get_mut(index) {
            lpi.target = vcpu;
        }
    }

    /// Its list register is empty: the guest has acknowledged it.
    fn release(&mut self, intid: u32) -> Option<Told> {
        let index = self.index(intid)?;
        self.get_mut(index)?.set(RESIDENT | CARRIED, false);
        self.settle(index)
    }

    /// It leaves its list register, which holds `value`.
    fn fold(&mut self, intid: u32, value: u64) -> Option<Told> {
        let index = self.index(intid)?;
        let lpi = self.get_mut(index)?;
        if value & lr::PENDING != 0 && lpi.has(CARRIED) {
            lpi.set(PENDING, true);
        }
        lpi.set(RESIDENT | CARRIED, false);
        self.settle(index)
    }

    /// It is in a list register, and the guest has not acknowledged it: that it has become pending once more means nothing.
    fn merge(&mut self, intid: u32) {
        if let Some(lpi) = self.index(intid).and_then(|index| self.get_mut(index))
            && lpi.has(CARRIED)
        {
            lpi.set(PENDING, false);
        }
    }

    /// Moves it into a list register of `vcpu`: what to write there.
    fn take(&mut self, index: u16, vcpu: u8) -> u64 {
        self.dequeue(index);
        let Some(lpi) = self.get_mut(index) else { return 0 };
        lpi.set(PENDING, false);
        lpi.set(RESIDENT | CARRIED, true);
        lpi.holder = vcpu;
        let intid = u64::from(index).wrapping_add(FIRST_LPI.into());
        lr::PENDING | lr::GROUP | u64::from(lpi.priority).wrapping_shl(lr::PRIORITY_SHIFT) | intid
    }

    /// How many wait for `vcpu`.
    fn length(&self, vcpu: VcpuId) -> u32 {
        self.queues.get(vcpu.index()).map_or(0, |queue| queue.length)
    }

    /// The most urgent one that waits for `vcpu`.
    fn first(&self, vcpu: VcpuId) -> Option<u16> {
        let queue = self.queues.get(vcpu.index())?;
        queue.ends.get(queue.levels.trailing_zeros() as usize).map(|(first, _)| *first)
    }

    /// The one that waits behind it.
    fn after(&self, index: u16) -> Option<u16> {
        let lpi = self.get(index)?;
        if lpi.next != NONE {
            return Some(lpi.next);
        }
        let queue = self.queues.get(usize::from(lpi.target))?;
        let later = u64::MAX.checked_shl(u32::try_from(lpi.level()).ok()?.checked_add(1)?)?;
        queue.ends.get((queue.levels & later).trailing_zeros() as usize).map(|(first, _)| *first)
    }

    /// Puts it into its list, or takes it out, as its state says. Returns who has to look.
    fn settle(&mut self, index: u16) -> Option<Told> {
        let lpi = *self.get(index)?;
        let waits = lpi.flags & (PENDING | ENABLED | RESIDENT) == PENDING | ENABLED;
        match (lpi.has(QUEUED), waits) {
            (false, true) => {
                self.enqueue(index);
                Some(Told { vcpu: lpi.target, flags: SHARED })
            }
            (true, false) => {
                self.dequeue(index);
                None
            }
            _ => None,
        }
    }

    fn enqueue(&mut self, index: u16) {
        let Some(lpi) = self.lpis.get_mut(usize::from(index)) else { return };
        let (target, level) = (usize::from(lpi.target), lpi.level());
        let Some(queue) = self.queues.get_mut(target) else { return };
        let Some((first, last)) = queue.ends.get_mut(level) else { return };
        lpi.set(QUEUED, true);
        (lpi.previous, lpi.next) = (*last, NONE);
        if let Some(before) = self.lpis.get_mut(usize::from(*last)) {
            before.next = index;
        } else {
            *first = index;
        }
        *last = index;
        queue.levels |= level_bit(level);
        queue.length = queue.length.wrapping_add(1);
    }

    fn dequeue(&mut self, index: u16) {
        let Some(lpi) = self.get_mut(index) else { return };
        if !lpi.has(QUEUED) {
            return;
        }
        lpi.set(QUEUED, false);
        let Lpi { next, previous, target, .. } = *lpi;
        let level = lpi.level();
        if let Some(before) = self.get_mut(previous) {
            before.next = next;
        }
        if let Some(behind) = self.get_mut(next) {
            behind.previous = previous;
        }
        let Some(queue) = self.queues.get_mut(usize::from(target)) else { return };
        queue.length = queue.length.wrapping_sub(1);
        let Some((first, last)) = queue.ends.get_mut(level) else { return };
        if previous == NONE {
            *first = next;
        }
        if next == NONE {
            *last = previous;
        }
        if *first == NONE {
            queue.levels &= !level_bit(level);
        }
    }
}

fn level_bit(level: usize) -> u64 {
    1_u64.wrapping_shl(u32::try_from(level).unwrap_or(0))
}

/// What `change` of LPIs means to vCPUs, and how list registers come by them.
impl Shared {
    /// There are `count` LPIs.
    pub(crate) fn add_lpis(&mut self, count: u16) {
        self.lpis = Lpis::new(count, self.ready.len());
    }

    /// Does `change`, and tells those who have to look.
    pub(crate) fn change_lpis(&mut self, signals: &mut Signals<'_>, change: impl FnOnce(&mut Lpis) -> Option<Told>) {
        if let Some(Told { vcpu, flags }) = change(&mut self.lpis) {
            if let Some(ready) = self.ready.get_mut(usize::from(vcpu)) {
                *ready |= READY;
            }
            signals.notify(vcpu, flags);
        }
    }

    /// Whether LPIs may be something new to `vcpu`.
    #[inline(always)]
    pub(crate) fn has_lpis_for(&self, vcpu: VcpuId) -> bool {
        self.ready.get(vcpu.index()).is_some_and(|ready| ready & READY != 0)
    }

    /// The list register with LPI `intid` still holds it.
    #[cold]
    pub(crate) fn keep_lpi(&mut self, intid: u32) {
        self.lpis.merge(intid);
    }

    /// The guest has acknowledged LPI `intid`, which was in a list register.
    #[cold]
    pub(crate) fn release_lpi(&mut self, intid: u32, signals: &mut Signals<'_>) {
        self.change_lpis(signals, |lpis| lpis.release(intid));
    }

    #[cold]
    pub(super) fn fold_lpi(&mut self, intid: u32, value: u64, signals: &mut Signals<'_>) {
        self.change_lpis(signals, |lpis| lpis.fold(intid, value));
    }

    #[cold]
    pub(super) fn take_lpi(&mut self, intid: u32, vcpu: VcpuId) -> u64 {
        let vcpu = low_byte(vcpu.0.into());
        self.lpis.index(intid).map_or(0, |index| self.lpis.take(index, vcpu))
    }

    /// Allots free list registers of `vcpu` to the LPIs that wait for it; `None` if there are not enough.
    #[cold]
    pub(super) fn allot_lpis(lpis: &Lpis, vcpu: VcpuId, groups: u32, ready: &mut u32, free: u32) -> Option<u32> {
        match lpis.length(vcpu) {
            0 => {
                *ready &= !READY;
                Some(free)
            }
            _ if groups & ENABLE_GROUP_1 == 0 => Some(free),
            // As many bits as there are.
            length @ 1..=16 => allot(free, bit(length).wrapping_sub(1)),
            _ => None,
        }
    }

    /// Moves all that wait for `vcpu` into list registers.
    #[cold]
    pub(super) fn take_lpis(&mut self, vcpu: VcpuId, groups: u32, put: &mut dyn FnMut(u32, u64)) {
        let few = MAX_LIST_REGISTERS & (all_if(groups & ENABLE_GROUP_1 != 0) as usize);
        for _ in 0..few {
            let Some(index) = self.lpis.first(vcpu) else { return };
            put(FIRST_LPI.wrapping_add(index.into()), self.lpis.take(index, low_byte(vcpu.0.into())));
        }
    }

    /// Collects those that wait for `vcpu`: the most urgent, as many as can matter and one more, so that it shows that there are.
    #[cold]
    pub(super) fn collect_lpis(&self, vcpu: VcpuId, groups: u32, masked: u32, best: &mut Best) {
        if groups & ENABLE_GROUP_1 == 0 {
            return;
        }
        let first = self.lpis.first(vcpu);
        let waiting = core::iter::successors(first, |index| self.lpis.after(*index));
        for index in waiting.take(MAX_LIST_REGISTERS.saturating_add(1)) {
            let priority = self.lpis.get(index).map_or(0, |lpi| lpi.priority);
            let intid = FIRST_LPI.wrapping_add(index.into());
            best.push(Key::new(masked & ENABLE_GROUP_1 != 0, priority, intid, 1));
        }
    }
}
