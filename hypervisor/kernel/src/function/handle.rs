//! How a guest's mediator reaches a function of the machine.
//!
//! Answers for: carrying out what `pci::Passed` decides, in one of the VM's threads with the lock of its device held: so nothing here
//! waits, and no lock of the kernel's is taken but those of stage 2. Does not answer for: what is decided, nor for giving and
//! taking back ([`super`]).

use crate::compartment::{Compartment, kernel_work};
use crate::cpu;
use crate::pcie::{self, Unfit, Unresettable};
use crate::stage2::GuestSpace;
use crate::sync::masked;
use ::pcie::{LineEnd, PciAddress};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use drivers::Mmio;
use spin::Once;
use types::{AccessSize, IntId, Ipa, PAGE_SIZE, Pa, Range};
use vdev::{AccessFault, DeviceId, FunctionPart, FunctionSignal, GuestMessage, HostFunction};

/// A pin that functions of one VM have in common. It is active from when it comes until none of them has it asserted.
pub(crate) struct Line {
    pub(crate) intid: IntId,
    shared: ::pcie::Line,
    /// All have ended it.
    ended: AtomicBool,
    /// It is not to come again.
    useless: AtomicBool,
    /// The CPU that it comes to; none before the first.
    routed: AtomicU16,
}

impl Line {
    pub(super) const fn new(intid: IntId) -> Self {
        let (ended, useless) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { intid, shared: ::pcie::Line::new(), ended, useless, routed: AtomicU16::new(u16::MAX) }
    }

    /// It has come, for these functions.
    pub(crate) fn begin(&self, functions: u32) {
        self.shared.begin(functions);
    }

    /// The function `number` has ended it. Says whether a vCPU has something to do for it.
    fn end(&self, number: usize, was_asserted: bool) -> bool {
        let end = self.shared.end(number, was_asserted);
        match end {
            LineEnd::NotYet => {}
            LineEnd::Over => self.ended.store(true, Ordering::SeqCst),
            LineEnd::Useless => self.useless.store(true, Ordering::SeqCst),
        }
        end != LineEnd::NotYet
    }

    /// Whether all functions have ended it since somebody looked.
    pub(crate) fn take_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) && self.ended.swap(false, Ordering::SeqCst)
    }

    /// Whether it has turned out to be of no use since somebody looked.
    pub(crate) fn take_useless(&self) -> bool {
        self.useless.load(Ordering::Relaxed) && self.useless.swap(false, Ordering::SeqCst)
    }

    /// Whether it has to be told that it comes to this CPU from now on.
    pub(crate) fn moves_here(&self) -> bool {
        let here = cpu::this().id.0;
        self.routed.swap(here, Ordering::Relaxed) != here
    }
}

/// What the hypervisor reaches of one of the function's regions.
#[derive(Clone)]
pub(super) struct Registers {
    bar: u8,
    /// The first byte.
    offset: u64,
    length: u64,
    window: Option<Mmio>,
}

impl Registers {
    /// Those that are mapped at `range`.
    pub(super) fn new(bar: u8, offset: u64, range: Option<Range<Pa>>) -> Self {
        // SAFETY: mapped, for good, as the caller has seen to; the function is the VM's, and nobody else uses it.
        let window = range.map(|range| unsafe { Mmio::of(&range) });
        Self { bar, offset, length: range.map_or(0, |range| range.length()), window }
    }
}

/// What there is from the moment that the VM has its memory.
pub(super) struct Attached {
    pub(super) stage2: &'static GuestSpace,
    pub(super) registers: Vec<Registers>,
    /// Where the function stores what, by vector.
    pub(super) targets: Vec<(u64, u32)>,
    /// Where the guest's own SMMU is to lead its messages to, if it is behind one: what the guest's driver writes is an address before that.
    pub(super) page: Option<Ipa>,
}

/// A function of the machine that a VM has.
pub(crate) struct Handle {
    compartment: &'static Compartment,
    /// The device that stands for it.
    pub(crate) device: DeviceId,
    /// Which of the VM's functions it is.
    pub(super) number: usize,
    pub(crate) address: PciAddress,
    pub(super) unresettable: Unresettable,
    /// Its regions, where the machine has them.
    pub(super) bars: Vec<(u8, Range<Pa>)>,
    pub(crate) line: Option<Arc<Line>>,
    /// Something has come that the device does not know yet: its pin, or, without one, a reset of its physical function.
    news: AtomicBool,
    /// The guest wants it reset.
    reset: AtomicBool,
    attached: Once<Attached>,
    /// What the guest's driver has written, by vector.
    messages: types::Lock<Vec<Option<GuestMessage>>>,
}

impl Handle {
    pub(super) fn new(
        (compartment, device, number): (&'static Compartment, DeviceId, usize),
        (address, unresettable): (PciAddress, Unresettable),
        bars: Vec<(u8, Range<Pa>)>,
        line: Option<Arc<Line>>,
    ) -> Self {
        Self {
            compartment,
            device,
            number,
            address,
            unresettable,
            bars,
            line,
            news: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            attached: Once::new(),
            messages: types::Lock::new(Vec::new()),
        }
    }

    pub(super) fn attach(&self, attached: Attached) {
        let count = attached.targets.len();
        masked(|| *self.messages.lock() = vec![None; count]);
        self.attached.call_once(|| attached);
    }

    /// What its pin is, if the VM takes that.
    pub(super) fn pin(&self) -> Option<IntId> {
        self.line.as_ref().map(|line| line.intid)
    }

    /// Its pin has come, or it has been reset with its physical function.
    pub(crate) fn note_news(&self) {
        self.news.store(true, Ordering::SeqCst);
    }

    /// Whether that was so since somebody looked.
    pub(crate) fn take_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::SeqCst)
    }

    /// What message `vector` is to the guest. In one of the VM's threads, with interrupts masked.
    pub(crate) fn guest_message(&self, vector: usize) -> Option<GuestMessage> {
        self.messages.lock().get(vector).copied().flatten()
    }

    /// Resets it, if the guest has asked for that, as long as `go_on` says so. Says whether it is as after a reset: if not, nobody is to
    /// reach it. Takes long, and the thread sleeps.
    pub(crate) fn reset_if_wanted(&self, go_on: &dyn Fn() -> bool) -> bool {
        if !self.reset.swap(false, Ordering::SeqCst) {
            return false;
        }
        match kernel_work(|| super::bring_to_rest(self.address, self.unresettable, go_on)) {
            Ok(()) => return true,
            Err(_) if !go_on() => {}
            Err(Unfit { why, .. }) => {
                log::error!(target: &self.compartment.qvm.origin(), "{why}: its guest does not have it any more");
            }
        }
        false
    }
}

impl HostFunction for Handle {
    fn configuration(&self, at: u16, size: AccessSize, store: Option<u32>) -> u32 {
        let Some(space) = pcie::space(self.address) else { return u32::MAX };
        let Some(value) = store else {
            return match size {
                AccessSize::Byte => space.byte(at).into(),
                AccessSize::Halfword => space.half(at).into(),
                AccessSize::Word | AccessSize::Doubleword => space.word(at),
            };
        };
        if self.attached.is_completed() {
            match size {
                AccessSize::Byte => space.set_byte(at, value as u8),
                AccessSize::Halfword => space.set_half(at, value as u16),
                AccessSize::Word | AccessSize::Doubleword => space.set_word(at, value),
            }
        }
        0
    }

    fn registers(&self, bar: u8, offset: u64, size: AccessSize, store: Option<u64>) -> Result<u64, AccessFault> {
        let has = |it: &&Registers| it.bar == bar && offset.wrapping_sub(it.offset) < it.length;
        let registers = self.attached.get().and_then(|it| it.registers.iter().find(has));
        let Some((window, first)) = registers.and_then(|it| Some((it.window?, it.offset))) else { return Ok(0) };
        let at = (offset - first) as usize;
        match store {
            None => window.load(at, size).ok_or(AccessFault::Bus),
            Some(value) if window.store(at, size, value) => Ok(0),
            Some(_) => Err(AccessFault::Bus),
        }
    }

    fn map(&self, at: Ipa, part: FunctionPart, reach: bool) -> bool {
        let FunctionPart { bar, offset, length } = part;
        let Some(attached) = self.attached.get() else { return false };
        let own = self.bars.iter().find(|(index, _)| *index == bar).map(|(_, range)| *range);
        let from = own
            .and_then(|own| Range::new(own.start().checked_add(offset)?, length).filter(|it| own.contains_range(it)));
        let (Some(from), Some(guest)) = (from, Range::new(at, length)) else { return false };
        if reach {
            return attached.stage2.map_passed(guest, from.start(), true).is_ok();
        }
        attached.stage2.unmap(guest, usize::MAX).is_none()
    }

    fn message(&self, vector: u16, to: GuestMessage) -> Option<(u64, u32)> {
        let attached = self.attached.get()?;
        let (address, data) = *attached.targets.get(usize::from(vector))?;
        let (requester, wanted, guest_data) = to;
        let (address, to) = match attached.page {
            None => (address, to),
            // If it leads elsewhere the message gets lost there, as the guest wants it.
            Some(page) => (wanted.0, (requester, Ipa(page.0 | (wanted.0 & (PAGE_SIZE - 1))), guest_data)),
        };
        *self.messages.lock().get_mut(usize::from(vector))? = Some(to);
        Some((address, data))
    }

    fn signal(&self, signal: FunctionSignal) {
        match signal {
            FunctionSignal::Reset => self.reset.store(true, Ordering::SeqCst),
            FunctionSignal::PinEnded | FunctionSignal::PinIdle => {
                let was_asserted = signal == FunctionSignal::PinEnded;
                let is_over = self.line.as_ref().is_some_and(|line| line.end(self.number, was_asserted));
                if is_over && let Some(partition) = self.compartment.partition() {
                    partition.note_pin_ended();
                }
            }
        }
    }
}
