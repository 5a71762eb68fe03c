//! One ITS: its queue, its tables, and the carrying out of procedures.
//!
//! Answers for: from whatever firmware has left to an ITS that translates nothing; the steps of each change, in their order; doing
//! them one after the other, waiting where the specification waits, and giving up in time. Does not answer for: which device has
//! which events and LPIs.

use crate::command::ITT_ALIGNMENT;
use crate::command_queue::CommandQueue;
use crate::lpis::{self, Target};
use crate::registers::{CTLR, CTLR_OFFSET};
use crate::{Command, Event, Features, Memory, Procedure, Progress, Registers, Step, Table, Trouble, Unfit};
use alloc::vec;
use alloc::vec::Vec;
use types::{IntId, Pa, Ticks};

/// What one ITS is given: shapes, memory (all zero, published), and patience.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Its table of devices, if it wants one: [`Table::bytes`] at a multiple of [`Table::page_bytes`].
    pub devices: Option<(Table, Pa)>,
    /// Its table of collections, likewise.
    pub collections: Option<(Table, Pa)>,
    /// The command queue: [`crate::QUEUE_BYTES`].
    pub commands: Pa,
    /// The configuration of all LPIs, which is that of the redistributors.
    pub configuration: Pa,
    /// The redistributors, whose LPIs are on: each has the collection of its place.
    pub targets: Vec<Target>,
    /// How long it may do nothing while a procedure waits for it.
    pub patience: Ticks,
}

/// One ITS, as the hypervisor sees it.
#[derive(Clone, Debug)]
pub struct Its {
    features: Features,
    layout: Layout,
    /// Which pages of the devices' second level there are.
    leaves: Vec<u64>,
    commands: CommandQueue,
}

/// Turns an ITS off, whatever it is doing, and waits until it is at rest: it accesses no table any more (`GITS_CTLR`).
///
/// # Errors
/// If it is not, in time.
pub fn close(registers: &mut impl Registers, now: impl Fn() -> Ticks, deadline: Ticks) -> Result<(), Unfit> {
    turn_off(registers);
    while registers.get(CTLR_OFFSET) & CTLR::Quiescent::SET.value == 0 {
        if now() > deadline {
            return Err(Unfit::Late);
        }
    }
    Ok(())
}

/// Turns an ITS off: no message becomes an LPI any more, soon. Nobody waits for that.
pub fn turn_off(registers: &mut impl Registers) {
    let control = registers.get(CTLR_OFFSET);
    registers.set(CTLR_OFFSET, control & !CTLR::Enabled::SET.value);
}

impl Its {
    /// Takes an ITS over that is off ([`close`]), and turns it on. It translates nothing yet, and its collections are those that the
    /// procedure maps.
    ///
    /// # Errors
    /// If it does not take its tables, or has too few collections.
    pub fn start(
        features: Features,
        layout: Layout,
        io: &mut (impl Registers + Memory),
    ) -> Result<(Self, Procedure), Unfit> {
        let count = u64::try_from(layout.targets.len()).unwrap_or(u64::MAX);
        let in_table = layout
            .collections
            .is_some_and(|(table, _)| u32::try_from(count).is_ok_and(|count| table.has(count.saturating_sub(1))));
        if count > 1_u64.wrapping_shl(features.collection_bits.into())
            || !in_table && count > u64::from(features.own_collections)
        {
            return Err(Unfit::FewCollections);
        }
        for (table, at) in [layout.devices, layout.collections].into_iter().flatten() {
            table.install(at, io)?;
        }
        let commands = CommandQueue::new(layout.commands);
        if !commands.install(io) {
            io.reads_past_caches();
        }
        io.publish();
        let control = io.get(CTLR_OFFSET);
        io.set(CTLR_OFFSET, control | CTLR::Enabled::SET.value);
        let its = Self { features, layout, leaves: Vec::new(), commands };
        let mut steps = Vec::new();
        for (collection, target) in its.targets() {
            // What a redistributor knows of an LPI is from nobody's time.
            steps.extend([Command::MapCollection { collection, target }, Command::InvalidateAll { collection }]);
        }
        let steps = steps.into_iter().map(Step::Issue).chain(its.synchronize()).collect();
        Ok((its, Procedure::new(steps)))
    }

    /// The collections and their redistributors.
    fn targets(&self) -> impl Iterator<Item = (u16, u64)> {
        let by_address = self.features.by_address;
        (0..).zip(&self.layout.targets).map(move |(collection, target)| (collection, target.rdbase(by_address)))
    }

    /// All that came before has happened, wherever it has to be seen.
    fn synchronize(&self) -> impl Iterator<Item = Step> {
        let each = self.targets().map(|(_, target)| Step::Issue(Command::Synchronize { target }));
        each.chain([Step::Await])
    }

    /// What it can do.
    #[must_use]
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// Whether it has room for this DeviceID.
    #[must_use]
    pub fn has(&self, device: u32) -> bool {
        u64::from(device) >> self.features.device_bits == 0
            && self.layout.devices.is_none_or(|(table, _)| table.has(device))
    }

    /// How much memory, aligned likewise, has to be given ([`Its::give_leaf`]) before `device` can be mapped.
    #[must_use]
    pub fn lacks_leaf(&self, device: u32) -> Option<u64> {
        let (table, _) = self.layout.devices?;
        let place = table.place(device)?;
        (!self.leaves.contains(&place.index)).then_some(table.page_bytes())
    }

    /// Gives the page in which `device` and its neighbours will stand. It is all zero, published, and stays for ever. Says whether it is used: if it is
    /// not, there is one, and this one is not the ITS's. When this returns the devices can be mapped, whoever does that: nothing of it is left
    /// to a procedure, which others might overtake.
    #[must_use]
    pub fn give_leaf(&mut self, device: u32, page: Pa, io: &mut impl Memory) -> bool {
        let Some((table, at)) = self.layout.devices else { return false };
        let Some(place) = table.place(device).filter(|place| !self.leaves.contains(&place.index)) else {
            return false;
        };
        io.store(Pa(at.0.saturating_add(place.offset)), Table::descriptor(page));
        io.publish();
        self.leaves.push(place.index);
        true
    }

    /// Bytes of the table for a device's `count` events, at a multiple of 256; `None` if it has no room for so many.
    #[must_use]
    pub fn events_bytes(&self, count: u32) -> Option<u64> {
        let bits = bits_for(count);
        let bytes = u64::from(self.features.event_bytes).checked_shl(bits.into())?;
        (count > 0 && bits <= self.features.event_bits).then_some(bytes.checked_next_multiple_of(ITT_ALIGNMENT)?)
    }

    /// `device` gets events 0 to `count` - 1, in the table at `table`, which become the LPIs from `first` on, enabled, at the
    /// redistributor of `collection`.
    pub fn map(&self, device: u32, table: Pa, count: u32, first: IntId, collection: u16) -> Procedure {
        let mut steps = vec![Step::Issue(Command::MapDevice { device, table, bits: bits_for(count) })];
        for number in 0..count {
            let (event, lpi) = (Event { device, event: number }, lpi(first, number));
            steps.extend(self.configure(lpi, true));
            // INV: a redistributor may have read the byte for the LPI's last owner.
            steps.push(Step::Issue(Command::MapEvent { event, lpi, collection }));
            steps.push(Step::Issue(Command::Invalidate(event)));
        }
        steps.extend(self.synchronize());
        Procedure::new(steps)
    }

    /// `device` has no events any more; none of their LPIs comes when this is done, and the table is nobody's.
    pub fn unmap(&self, device: u32, count: u32) -> Procedure {
        // Each by itself: MAPD does not take back what is pending ("MAPD", "DISCARD").
        let each = (0..count).map(|event| Command::Discard(Event { device, event }));
        let steps = each.chain([Command::UnmapDevice { device }]).map(Step::Issue);
        Procedure::new(steps.chain(self.synchronize()).collect())
    }

    fn configure(&self, lpi: IntId, is_enabled: bool) -> Option<Step> {
        let at = lpis::configuration_at(self.layout.configuration, lpi)?;
        Some(Step::StoreByte { at, byte: lpis::configuration(is_enabled) })
    }

    /// Without waiting: the event's LPI goes to the redistributor of another collection. Says whether there was room for the command.
    ///
    /// # Errors
    /// If the ITS is not to be used any more.
    pub fn send_to(
        &mut self,
        event: Event,
        collection: u16,
        io: &mut (impl Registers + Memory),
    ) -> Result<bool, Trouble> {
        self.post(Command::MoveEvent { event, collection }, io)
    }

    /// Without waiting: the event's LPI comes from now on, or stays pending until it does. Says whether there was room for the command;
    /// if not, nothing has changed.
    ///
    /// # Errors
    /// If the ITS is not to be used any more.
    pub fn enable(
        &mut self,
        (event, lpi): (Event, IntId),
        is_enabled: bool,
        io: &mut (impl Registers + Memory),
    ) -> Result<bool, Trouble> {
        if !self.has_room(io)? {
            return Ok(false);
        }
        if let Some(Step::StoreByte { at, byte }) = self.configure(lpi, is_enabled) {
            io.store_byte(at, byte);
        }
        self.post(Command::Invalidate(event), io)
    }

    /// Without waiting: the event happens, as if the device had sent it. Says whether there was room for the command.
    ///
    /// # Errors
    /// If the ITS is not to be used any more.
    pub fn raise(&mut self, event: Event, io: &mut (impl Registers + Memory)) -> Result<bool, Trouble> {
        self.post(Command::Raise(event), io)
    }

    fn has_room(&mut self, io: &mut (impl Registers + Memory)) -> Result<bool, Trouble> {
        if !self.commands.has_room() {
            self.commands.look(io)?;
        }
        Ok(self.commands.has_room())
    }

    fn post(&mut self, command: Command, io: &mut (impl Registers + Memory)) -> Result<bool, Trouble> {
        let is_posted = self.has_room(io)? && self.commands.push(&command, io).is_some();
        self.commands.ring(io);
        Ok(is_posted)
    }

    /// Carries on with `procedure`, as far as the ITS lets it. Several procedures may be under way at once. It fails if the ITS does not
    /// do a single command for as long as its patience is.
    pub fn advance(&mut self, procedure: &mut Procedure, now: Ticks, io: &mut (impl Registers + Memory)) -> Progress {
        let later = now.saturating_add(self.layout.patience);
        procedure.deadline.get_or_insert(later);
        // As often as there are steps: each time one is done, or it returns.
        while procedure.trouble.is_none() {
            let Some(step) = procedure.steps.get(procedure.next).copied() else { break };
            let before = self.commands.consumed();
            let done = self.step(step, &mut procedure.last, io);
            if self.commands.consumed() != before {
                procedure.deadline = Some(later);
            }
            match done {
                Err(trouble) => procedure.trouble = Some(trouble),
                Ok(true) => procedure.next = procedure.next.saturating_add(1),
                Ok(false) if procedure.deadline.is_some_and(|deadline| now > deadline) => {
                    procedure.trouble = Some(Trouble::Late);
                }
                Ok(false) => return Progress::Waiting,
            }
        }
        // Nobody may have waited for the last of them.
        self.commands.ring(io);
        io.publish();
        procedure.trouble.map_or(Progress::Done, Progress::Failed)
    }

    /// Whether it is done.
    fn step(&mut self, step: Step, last: &mut u64, io: &mut (impl Registers + Memory)) -> Result<bool, Trouble> {
        match step {
            Step::StoreByte { at, byte } => io.store_byte(at, byte),
            Step::Issue(command) => {
                if !self.has_room(io)? {
                    self.commands.ring(io);
                    return Ok(false);
                }
                *last = self.commands.push(&command, io).unwrap_or(*last);
            }
            Step::Await => {
                self.commands.ring(io);
                self.commands.look(io)?;
                return Ok(self.commands.has_consumed(*last));
            }
        }
        Ok(true)
    }
}

/// Bits of EventIDs below `count`; an ITS knows no device without any.
fn bits_for(count: u32) -> u8 {
    let last = count.saturating_sub(1);
    u8::try_from(last.checked_ilog2().map_or(1, |bit| bit.saturating_add(1))).unwrap_or(u8::MAX)
}

fn lpi(first: IntId, number: u32) -> IntId {
    IntId(first.0.saturating_add(number))
}
