//! The ITS's commands: IHI 0069, "ITS commands".
//!
//! Answers for: what a command says, what it does, and what is left to do of one that concerns many LPIs or events. Does not answer
//! for: where commands come from (`registers`).

use super::registers::{COLLECTIONS, DEVICES, Table};
use super::tables::{ID_BITS, Translation, collection_number, event_number};
use super::{CHUNK, Its, Surroundings, intid_of, is_memory};
use crate::word::low;
use core::fmt;
use types::RequesterId;
use vdev::GuestMemory;

const MOVI: u64 = 0x01;
const INT: u64 = 0x03;
const CLEAR: u64 = 0x04;
const SYNC: u64 = 0x05;
const MAPD: u64 = 0x08;
const MAPC: u64 = 0x09;
const MAPTI: u64 = 0x0a;
const MAPI: u64 = 0x0b;
const INV: u64 = 0x0c;
const INVALL: u64 = 0x0d;
const MOVALL: u64 = 0x0e;
const DISCARD: u64 = 0x0f;

/// Bytes of an entry in a device's table in the guest's memory (`GITS_TYPER.ITT_entry_size`).
const TRANSLATION_ENTRY: u64 = super::registers::ENTRY;

/// A command as it was in the guest's memory once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command([u64; 4]);

/// A command that could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its doublewords, if it could be read.
    pub command: [u64; 4],
    /// Why.
    pub reason: &'static str,
}

impl Refused {
    pub(super) const fn unreadable() -> Self {
        Self { command: [0; 4], reason: "it is not in the VM's memory" }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command: [first, second, third, fourth], reason } = self;
        write!(f, "ITS command {first:#x} {second:#x} {third:#x} {fourth:#x} is skipped: {reason}")
    }
}

/// What is left of a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// MAPD: the device's events are to be forgotten, and then it is mapped anew, if it has so many bits.
    Unmap(RequesterId, Option<u32>),
    /// INVALL: the configurations are to be read from here on.
    Invalidate(u16),
    /// MOVALL: what is pending for one vCPU is another's, from here on.
    Move { from: u8, to: u8, next: u16 },
}

/// Bits `first` to `last` of a doubleword.
const fn field(word: u64, last: u32, first: u32) -> u64 {
    word.wrapping_shl(63_u32.wrapping_sub(last)).wrapping_shr(63_u32.wrapping_sub(last).wrapping_add(first))
}

impl Command {
    /// In bytes.
    pub(super) const SIZE: usize = 32;

    pub(super) fn new(bytes: [u8; Self::SIZE]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    fn number(&self) -> u64 {
        self.0[0] & 0xff
    }

    fn device(&self) -> Result<RequesterId, &'static str> {
        u16::try_from(field(self.0[0], 63, 32)).map(RequesterId).map_err(|_| "there is no such DeviceID")
    }

    fn event(&self) -> Result<u16, &'static str> {
        event_number(self.0[1]).ok_or("there is no such EventID")
    }

    fn collection(&self) -> Result<u8, &'static str> {
        collection_number(self.0[2]).ok_or("there is no such collection")
    }

    fn is_valid(&self) -> bool {
        self.0[2] >> 63 != 0
    }
}

impl Its {
    /// Does a command, or begins to.
    pub(super) fn execute(
        &mut self,
        command: &Command,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<Job>, super::Refused> {
        self.obey(command, around).map_err(|reason| Refused { command: command.0, reason })
    }

    fn obey(&mut self, command: &Command, around: &mut Surroundings<'_>) -> Result<Option<Job>, &'static str> {
        match command.number() {
            MAPD => return self.map_device(command, around.memory),
            MAPC => self.map_collection(command, around.memory)?,
            MAPTI => self.map_event(command, field(command.0[1], 63, 32), around)?,
            MAPI => self.map_event(command, field(command.0[1], 31, 0), around)?,
            MOVI => self.move_event(command, around)?,
            INV => {
                let translation = self.translation(command)?;
                self.reload(translation.lpi, around);
            }
            INT => {
                let (lpi, vcpu) = self.find(command.device()?, command.event()?)?;
                around.change(|lpis| lpis.trigger(lpi.0, vcpu));
            }
            CLEAR => {
                let lpi = intid_of(self.translation(command)?.lpi);
                around.change(|lpis| lpis.clear(lpi.0));
            }
            DISCARD => {
                let event = self.tables.forget_event(command.device()?, command.event()?);
                let lpi = intid_of(event.ok_or("the event is not mapped")?.lpi);
                around.change(|lpis| lpis.clear(lpi.0));
            }
            INVALL => {
                self.tables.collection(command.collection()?).ok_or("the collection is not mapped")?;
                return Ok(Some(Job::Invalidate(0)));
            }
            MOVALL => {
                let (from, to) = (self.redistributor(command.0[2])?, self.redistributor(command.0[3])?);
                return Ok((from != to).then_some(Job::Move { from, to, next: 0 }));
            }
            // Nothing that has been done is still on its way to a redistributor.
            SYNC => {}
            _ => return Err("there is no such command"),
        }
        Ok(None)
    }

    /// Does a piece of what is left of a command. Returns what is left then.
    pub(super) fn continue_job(&mut self, job: Job, around: &mut Surroundings<'_>) -> Option<Job> {
        match job {
            Job::Unmap(device, bits) => {
                for _ in 0..CHUNK {
                    if !self.tables.forget_event_of(device) {
                        self.tables.unmap_device(device);
                        // There is room: its own.
                        let _ = bits.map(|bits| self.tables.map_device(device, bits));
                        return None;
                    }
                }
                Some(job)
            }
            Job::Invalidate(first) => self.reload_some(first, around).map(Job::Invalidate),
            Job::Move { from, to, next } => {
                let (end, rest) = self.chunk(next);
                let mut shared = around.shared.lock();
                for lpi in (next..end).map(|lpi| intid_of(lpi).0) {
                    shared.change_lpis(&mut around.signals, |lpis| {
                        if lpis.is_pending_for(lpi, from) { lpis.retarget(lpi, to) } else { None }
                    });
                }
                rest.map(|next| Job::Move { from, to, next })
            }
        }
    }

    fn map_device(&mut self, command: &Command, memory: &dyn GuestMemory) -> Result<Option<Job>, &'static str> {
        let device = command.device()?;
        if !command.is_valid() {
            return Ok(self.tables.device(device).map(|_| Job::Unmap(device, None)));
        }
        self.check_table(DEVICES, device.0.into(), memory)?;
        let bits = low(field(command.0[1], 4, 0)).wrapping_add(1);
        if bits > ID_BITS {
            return Err("there are no so large EventIDs");
        }
        let table = field(command.0[2], 51, 8).wrapping_shl(8);
        if !is_memory(memory, table, TRANSLATION_ENTRY.wrapping_shl(bits)) {
            return Err("the device's table is not the VM's memory");
        }
        if self.tables.device(device).is_some() {
            return Ok(Some(Job::Unmap(device, Some(bits))));
        }
        self.tables.map_device(device, bits).map(|()| None).map_err(|_| "there are too many devices")
    }

    fn map_collection(&mut self, command: &Command, memory: &dyn GuestMemory) -> Result<(), &'static str> {
        let collection = command.collection()?;
        self.check_table(COLLECTIONS, collection.into(), memory)?;
        let vcpu = if command.is_valid() { Some(self.redistributor(command.0[2])?) } else { None };
        self.tables.map_collection(collection, vcpu);
        Ok(())
    }

    fn map_event(&mut self, command: &Command, intid: u64, around: &mut Surroundings<'_>) -> Result<(), &'static str> {
        let (device, event, collection) = (command.device()?, command.event()?, command.collection()?);
        let bits = self.tables.device(device).ok_or("the device is not mapped")?;
        if u32::from(event).checked_shr(bits).is_some_and(|rest| rest != 0) {
            return Err("the device's table has no such event");
        }
        let lpi = intid.checked_sub(crate::shared::FIRST_LPI.into()).and_then(|lpi| u16::try_from(lpi).ok());
        let lpi = lpi.filter(|lpi| *lpi < self.lpis).ok_or("there is no such LPI")?;
        let translation = Translation { lpi, collection };
        self.tables.map_event(device, event, translation).map_err(|_| "there are too many events")?;
        self.reload(lpi, around);
        Ok(())
    }

    fn move_event(&mut self, command: &Command, around: &mut Surroundings<'_>) -> Result<(), &'static str> {
        let (device, event) = (command.device()?, command.event()?);
        let Translation { lpi, .. } = self.translation(command)?;
        let collection = command.collection()?;
        let vcpu = self.tables.collection(collection).ok_or("the collection is not mapped")?;
        // There is room: its own.
        let _ = self.tables.map_event(device, event, Translation { lpi, collection });
        if self.redistributors.is_enabled(vcpu) {
            around.change(|lpis| lpis.retarget(intid_of(lpi).0, vcpu));
        }
        Ok(())
    }

    fn translation(&self, command: &Command) -> Result<Translation, &'static str> {
        self.tables.event(command.device()?, command.event()?).ok_or("the event is not mapped")
    }

    /// The vCPU that `RDbase` of a doubleword names: by its number (`GITS_TYPER.PTA` is 0).
    fn redistributor(&self, word: u64) -> Result<u8, &'static str> {
        let number = u8::try_from(field(word, 50, 16)).ok();
        let number = number.filter(|number| usize::from(*number) < self.redistributors.count());
        number.ok_or("there is no such redistributor")
    }

    /// Whether the guest has given memory for entry `id` of a table, which is not used.
    fn check_table(&self, which: usize, id: u64, memory: &dyn GuestMemory) -> Result<(), &'static str> {
        let table = self.bases.get(which).and_then(|base| Table::new(*base)).ok_or("there is no table for it")?;
        if id >= table.entries {
            return Err("its table is too small");
        }
        if !is_memory(memory, table.at, table.size) {
            return Err("its table is not the VM's memory");
        }
        Ok(())
    }
}
