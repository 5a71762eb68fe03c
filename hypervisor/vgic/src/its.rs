//! The Interrupt Translation Service: messages of devices become LPIs.
//!
//! Answers for: the ITS's registers and commands, the redistributors' registers for LPIs, and what they have to read in the guest's
//! memory. Does not answer for: the state of LPIs and their order ([`crate::shared`]), where the frames are (`vm`).
//!
//! Follows IHI 0069, "The Interrupt Translation Service and LPIs". Why it is made as it is: docs/design/027-its.md.
//!
//! # Who believes what
//!
//! A guest's tables of devices, collections and events stay empty: their contents are IMPLEMENTATION DEFINED, and what there is to
//! know is kept here. Read are commands, which are copied and then checked; the configuration of LPIs, a byte each, which is
//! copied when the guest says that it has changed; and once the table of pending LPIs. What is not the VM's memory reads as
//! "disabled", "not pending", and as a command that does not exist.
//!
//! # What takes how long
//!
//! An access, and each call of [`Vgic::go_on`], does a bounded piece of work ([`COMMANDS`] commands, or [`CHUNK`] LPIs or events
//! of a command that concerns many) and says whether there is more. It goes on while interrupts are taken between pieces, and
//! before the guest's instruction that called for it is over.
//!
//! # Errors
//!
//! A command that cannot be done is skipped, counted and reported: [`Progress::refused`]. (IHI 0069, "Command errors": to stall or
//! to ignore it is IMPLEMENTATION DEFINED; a stalled queue would keep the guest from all that comes behind.)

mod commands;
mod redistributors;
mod registers;
mod tables;
mod tree;

pub use commands::Refused;

use crate::shared::{Configuration, FIRST_LPI, Shared};
use crate::signals::Signals;
use crate::{Version, Vgic, VgicError, v3};
use alloc::boxed::Box;
use commands::Job;
use core::fmt;
use redistributors::Redistributors;
use registers::{BASERS, Queue};
use tables::Tables;
use types::{IntId, Ipa, Lock, Range, RequesterId, VcpuId, VcpuSet};
use vdev::GuestMemory;

/// Commands of a piece of work.
const COMMANDS: u32 = 16;
/// LPIs or events of a piece of work; a multiple of 8.
const CHUNK: u16 = 64;

/// What an access, or a piece of work, has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// The vCPUs that have something new to see, the one that makes the access perhaps among them.
    pub kick: VcpuSet,
    /// There is more to do: call [`Vgic::go_on`] before the access is over.
    pub more: bool,
    /// The first command that could not be done, if there was one.
    pub refused: Option<Refused>,
}

/// How an ITS is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItsStatus {
    /// Where it is.
    pub at: Ipa,
    /// Devices that are mapped.
    pub devices: usize,
    /// Events that are mapped.
    pub events: usize,
    /// How many there can be, and how many LPIs there are.
    pub lpis: usize,
    /// Commands that could not be done.
    pub refused: u64,
}

impl fmt::Display for ItsStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, devices, events, lpis, refused } = self;
        write!(f, "ITS at {at}: {devices} devices, {events} events, {lpis} LPIs, {refused} commands skipped")
    }
}

/// What the rest of the interrupt controller has of it.
#[derive(Debug)]
pub(crate) struct Unit {
    at: Ipa,
    pub(crate) its: Lock<Its>,
}

/// The ITS, and the LPI side of the redistributors.
#[derive(Debug)]
pub(crate) struct Its {
    /// How many LPIs there are: a power of two.
    lpis: u16,
    priority_mask: u8,
    enabled: bool,
    queue: Queue,
    /// `GITS_BASER<n>` of devices and of collections.
    bases: [u64; BASERS],
    tables: Tables,
    redistributors: Redistributors,
    /// A command that concerns many, half done.
    job: Option<Job>,
    /// The guest has another table of devices: what is known of them is to be forgotten.
    forgets: bool,
    refused: u64,
}

/// What a piece of work reaches besides the ITS itself.
struct Surroundings<'a> {
    memory: &'a dyn GuestMemory,
    shared: &'a Lock<Shared>,
    signals: Signals<'a>,
}

impl Vgic {
    /// Where an ITS has `GITS_TRANSLATER`.
    pub const TRANSLATER: u64 = 0x1_0040;
    /// Size of an ITS's window in bytes: its registers' frame, and that of `GITS_TRANSLATER`.
    pub const ITS_SIZE: u64 = 0x2_0000;
    /// Most LPIs.
    pub const MOST_LPIS: u32 = 8192;
    /// Fewest LPIs that there are if there are any.
    const FEWEST_LPIS: u32 = 32;

    /// Has an ITS at `at`, and at least `lpis` LPIs: as many as the next power of two from 32 on, since that is what `GICD_TYPER`
    /// can say. They are 8192 and those behind it.
    ///
    /// # Errors
    /// If there are to be none, or more than [`Vgic::MOST_LPIS`]; or if it is not a GICv3.
    pub fn with_its(mut self, at: Ipa, lpis: u32) -> Result<Self, VgicError> {
        let most = (1..=Self::MOST_LPIS).contains(&lpis) && self.version == Version::V3;
        let count = lpis.max(Self::FEWEST_LPIS).checked_next_power_of_two().and_then(|lpis| u16::try_from(lpis).ok());
        let count = count.filter(|_| most).ok_or(VgicError::Lpis(self.version, lpis))?;
        self.shared.get_mut().add_lpis(count);
        let its = Its {
            lpis: count,
            priority_mask: self.priority_mask,
            enabled: false,
            queue: Queue::default(),
            bases: registers::BASES,
            tables: Tables::new(count),
            redistributors: Redistributors::new(self.cells.len()),
            job: None,
            forgets: false,
            refused: 0,
        };
        self.typer = v3::typer_with_lpis(self.typer, count);
        self.unit = Some(Box::new(Unit { at, its: Lock::new(its) }));
        Ok(self)
    }

    /// The offset of `at` in the ITS's window, if there is one and it is there.
    #[must_use]
    pub fn in_its(&self, at: Ipa) -> Option<u64> {
        let offset = at.0.wrapping_sub(self.unit.as_ref()?.at.0);
        (offset < Self::ITS_SIZE).then_some(offset)
    }

    /// Does a piece of what is left to do, if anything is. `memory` is the VM's.
    pub fn go_on(&self, memory: &dyn GuestMemory) -> Progress {
        self.with_unit(memory, |_, _| ())
    }

    /// How its ITS is doing, if there is one.
    #[must_use]
    pub fn its_status(&self) -> Option<ItsStatus> {
        let unit = self.unit.as_ref()?;
        let its = unit.its.lock();
        let (devices, events, lpis) = its.tables.sizes();
        Some(ItsStatus { at: unit.at, devices, events, lpis, refused: its.refused })
    }

    /// A message of `device` to `GITS_TRANSLATER`. `None` if `address` is another.
    pub(crate) fn translate(&self, device: Option<RequesterId>, address: Ipa, event: u32) -> Option<VcpuSet> {
        let unit = self.unit.as_ref()?;
        if address.0.wrapping_sub(unit.at.0) != Self::TRANSLATER {
            return None;
        }
        // SPEC: what DeviceID a CPU's store has is IMPLEMENTATION DEFINED: none. Only devices raise interrupts here.
        let (Some(device), Ok(event)) = (device, u16::try_from(event)) else { return Some(VcpuSet::EMPTY) };
        let its = unit.its.lock();
        let mut signals = self.signals(None);
        if its.enabled
            && !its.forgets
            && let Ok((lpi, vcpu)) = its.find(device, event)
        {
            self.shared.lock().change_lpis(&mut signals, |lpis| lpis.trigger(lpi.0, vcpu));
        }
        Some(signals.kick)
    }

    /// Makes a change, and then does a piece of what it calls for.
    fn with_unit(&self, memory: &dyn GuestMemory, change: impl FnOnce(&mut Its, &mut Surroundings<'_>)) -> Progress {
        let Some(unit) = self.unit.as_ref() else { return Progress::default() };
        let mut around = Surroundings { memory, shared: &self.shared, signals: self.signals(None) };
        let mut its = unit.its.lock();
        change(&mut its, &mut around);
        let refused = its.work(&mut around);
        Progress { kick: around.signals.kick, more: its.has_work(), refused }
    }
}

impl Surroundings<'_> {
    /// Does a change to LPIs.
    fn change(&mut self, change: impl FnOnce(&mut crate::shared::Lpis) -> Option<crate::shared::Told>) {
        self.shared.lock().change_lpis(&mut self.signals, change);
    }
}

impl Its {
    fn has_work(&self) -> bool {
        self.is_busy() || self.redistributors.are_busy() || self.enabled && !self.queue.is_empty()
    }

    /// Whether something is half done.
    fn is_busy(&self) -> bool {
        self.forgets || self.job.is_some()
    }

    /// A piece of work. Returns the first command that could not be done.
    fn work(&mut self, around: &mut Surroundings<'_>) -> Option<Refused> {
        let mut refused = None;
        for _ in 0..COMMANDS {
            if self.work_for_redistributors(around) {
                break;
            }
            if self.forgets {
                self.forgets = (0..CHUNK).all(|_| self.tables.forget_some());
                break;
            }
            if let Some(job) = self.job.take() {
                self.job = self.continue_job(job, around);
                if self.job.is_none() {
                    self.queue.advance();
                }
                break;
            }
            if !self.enabled || self.queue.is_empty() {
                break;
            }
            let result = self.queue.next(around.memory).and_then(|command| self.execute(&command, around));
            match result {
                Ok(job) => self.job = job,
                Err(error) => {
                    self.refused = self.refused.saturating_add(1);
                    refused = refused.or(Some(error));
                }
            }
            if self.job.is_none() {
                self.queue.advance();
            }
        }
        refused
    }

    /// The LPI of an event and the vCPU that takes it, if it can be delivered there.
    fn find(&self, device: RequesterId, event: u16) -> Result<(IntId, u8), &'static str> {
        let translation = self.tables.event(device, event).ok_or("the event is not mapped")?;
        let vcpu = self.tables.collection(translation.collection).ok_or("the collection is not mapped")?;
        if !self.redistributors.is_enabled(vcpu) {
            return Err("the redistributor's LPIs are not enabled");
        }
        Ok((intid_of(translation.lpi), vcpu))
    }

    /// Reads the configuration of one LPI.
    fn reload(&self, lpi: u16, around: &mut Surroundings<'_>) {
        let mut byte = [0];
        self.read_configurations(lpi, &mut byte, around);
        let [byte] = byte;
        let new = Configuration::new(byte, self.priority_mask);
        around.change(|lpis| lpis.configure(intid_of(lpi).0, new));
    }

    /// Reads the configurations of the LPIs from `first` on, of as many as a piece of work can. Returns where the rest begins.
    fn reload_some(&self, first: u16, around: &mut Surroundings<'_>) -> Option<u16> {
        let mut bytes = [0; CHUNK as usize];
        let (end, next) = self.chunk(first);
        let count = usize::from(end.saturating_sub(first));
        let bytes = bytes.get_mut(..count)?;
        self.read_configurations(first, bytes, around);
        let mut shared = around.shared.lock();
        for (lpi, byte) in (first..end).zip(bytes) {
            let new = Configuration::new(*byte, self.priority_mask);
            shared.change_lpis(&mut around.signals, |lpis| lpis.configure(intid_of(lpi).0, new));
        }
        next
    }

    /// The bytes of the guest's table from LPI `first` on: all zero, which is "disabled", if they are not all there.
    fn read_configurations(&self, first: u16, bytes: &mut [u8], around: &Surroundings<'_>) {
        let at = self.redistributors.configurations(first, bytes.len());
        if at.is_none_or(|at| around.memory.read(at, bytes).is_err()) {
            bytes.fill(0);
        }
    }

    /// The end of the piece of work that begins with LPI `first`, and where the next begins, if there is one.
    fn chunk(&self, first: u16) -> (u16, Option<u16>) {
        let end = first.saturating_add(CHUNK).min(self.lpis);
        (end, (end < self.lpis).then_some(end))
    }
}

/// The INTID of an LPI that is `lpi` behind the first.
fn intid_of(lpi: u16) -> IntId {
    IntId(FIRST_LPI.wrapping_add(lpi.into()))
}

/// Whether a table is the VM's memory.
fn is_memory(memory: &dyn GuestMemory, at: u64, size: u64) -> bool {
    Range::new(Ipa(at), size).is_some_and(|range| memory.contains(range))
}

/// A vCPU's number as tables have it.
fn number_of(vcpu: VcpuId) -> u8 {
    crate::word::low_byte(vcpu.0.into())
}

#[cfg(test)]
mod tests;
