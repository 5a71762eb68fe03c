//! One SMMU: its queues, its table, and the carrying out of procedures.
//!
//! Answers for: doing the steps of a procedure one after the other, waiting where the specification waits, and giving up in
//! time. Does not answer for: which steps those are, and who may change what ([`crate::Streams`]).

use crate::command_queue::CommandQueue;
use crate::registers::{GERROR, GERROR_OFFSET, GERRORN_OFFSET};
use crate::{
    Command, EventQueue, Features, Geometry, Memory, Procedure, Progress, Registers, Signal, Step, Trouble, Walks,
};
use alloc::vec;
use alloc::vec::Vec;
use tock_registers::LocalRegisterCopy;
use types::{Ipa, Pa, Ticks};

/// What one SMMU is given: its shape, memory (all zero, published, aligned to its size), and patience.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The shape of its stream table.
    pub geometry: Geometry,
    /// The stream table, or its first level: [`Geometry::bytes`].
    pub table: Pa,
    /// The command queue: 16 bytes times two to the power of `command_bits`.
    pub command_queue: Pa,
    /// At least 1, and not more than the SMMU has.
    pub command_bits: u8,
    /// The event queue: 32 bytes times two to the power of `event_bits`.
    pub event_queue: Pa,
    /// Not more than the SMMU has.
    pub event_bits: u8,
    /// How long a step of a procedure may take. Not the whole: who carries it out may be kept from that meanwhile.
    pub patience: Ticks,
}

/// What has gone wrong with an SMMU as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GlobalErrors {
    /// `SFM_ERR`: nothing may be expected of it any more. It aborts all traffic (12.3).
    pub failed: bool,
    /// `EVENTQ_ABT_ERR`: events could not be written.
    pub events_lost: bool,
}

/// One SMMU, as the hypervisor sees it.
#[derive(Clone, Debug)]
pub struct Smmu {
    pub(crate) features: Features,
    pub(crate) layout: Layout,
    /// Where the leaves of the stream table are.
    leaves: Vec<Option<Pa>>,
    pub(crate) commands: CommandQueue,
    /// What it has recorded.
    pub events: EventQueue,
}

impl Smmu {
    /// One that has to be started: [`Smmu::start`].
    #[must_use]
    pub fn new(features: Features, layout: Layout) -> Self {
        Self {
            features,
            layout,
            leaves: vec![None; layout.geometry.leaves()],
            commands: CommandQueue::new(layout.command_queue, layout.command_bits),
            events: EventQueue::new(layout.event_queue, layout.event_bits),
        }
    }

    /// What it can do.
    #[must_use]
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// The shape of its stream table.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.layout.geometry
    }

    /// Whether a page has to be given before `stream` can have an owner.
    #[must_use]
    pub fn lacks_leaf(&self, stream: u32) -> bool {
        self.layout.geometry.is_two_level() && self.leaf(stream).is_none()
    }

    /// Gives the page in which the entry of `stream` and of its neighbours will stand. It is all zero, published, and stays for
    /// ever.
    pub fn give_leaf(&mut self, stream: u32, page: Pa) {
        let index = self.layout.geometry.leaf_of(stream);
        if let Some(leaf) = self.leaves.get_mut(index) {
            leaf.get_or_insert(page);
        }
    }

    /// Where the entry of `stream` is; with two levels only once its leaf has been given.
    pub(crate) fn entry_at(&self, stream: u32) -> Option<Pa> {
        let geometry = self.layout.geometry;
        let leaf = if geometry.is_two_level() { self.leaf(stream)? } else { self.layout.table };
        geometry.has(stream).then(|| geometry.entry_at(leaf, stream))
    }

    /// What makes its leaf known to the SMMU, if it has one.
    pub(crate) fn descriptor_of(&self, stream: u32) -> Option<Step> {
        let at = self.layout.geometry.descriptor_at(self.layout.table, stream);
        self.leaf(stream).map(|leaf| Step::Store { at, word: Geometry::descriptor(leaf) })
    }

    fn leaf(&self, stream: u32) -> Option<Pa> {
        self.leaves.get(self.layout.geometry.leaf_of(stream)).copied().flatten()
    }

    /// What makes it forget its translations of `range` for the VM with this VMID, which have been taken out of the tables.
    pub fn invalidate(&self, vmid: u16, range: types::Range<Ipa>, walks: Walks) -> Procedure {
        crate::invalidate::procedure(vmid, range, walks, &self.features)
    }

    /// What makes it forget what a guest has `asked` it to forget of its stage 1; at most 32 commands. Those about context descriptors
    /// have the machine's number of the stream; all others are of the VM with this VMID, whatever they say.
    pub fn forget_stage1(&self, vmid: u16, asked: &[Command]) -> Procedure {
        crate::invalidate::stage1(vmid, asked, &self.features)
    }

    /// Carries on with `procedure`, as far as the SMMU lets it. Several procedures may be under way at once; a command that is
    /// not taken fails all of them.
    pub fn advance(&mut self, procedure: &mut Procedure, now: Ticks, io: &mut (impl Registers + Memory)) -> Progress {
        let deadline = now.saturating_add(self.layout.patience);
        let (mut due, errors) = *procedure.begun.get_or_insert((deadline, self.commands.errors));
        // As often as there are steps: each time one is done, or it returns.
        while procedure.trouble.is_none() {
            let Some(step) = procedure.steps.get(procedure.next).copied() else { return Progress::Done };
            match self.step(step, &mut procedure.ticket, io) {
                Err(trouble) => procedure.trouble = Some(trouble),
                Ok(_) if self.commands.errors != errors => {
                    procedure.trouble = self.commands.last_error.map(Trouble::Command);
                }
                Ok(true) => {
                    procedure.next = procedure.next.saturating_add(1);
                    due = deadline;
                    procedure.begun = Some((due, errors));
                }
                Ok(false) if now > due => procedure.trouble = Some(Trouble::Late(step)),
                Ok(false) => return Progress::Waiting,
            }
        }
        procedure.trouble.map_or(Progress::Done, Progress::Failed)
    }

    /// Whether it is done.
    fn step(
        &mut self,
        step: Step,
        ticket: &mut Option<u64>,
        io: &mut (impl Registers + Memory),
    ) -> Result<bool, Trouble> {
        match step {
            Step::Store { at, word } => io.store(at, word),
            Step::Set { .. } | Step::Copy { .. } | Step::Await { .. } => return Ok(step.touch(io)),
            Step::Issue(command) => return self.issue(&command, io).map(|number| number.is_some()),
            Step::Synchronize => {
                if ticket.is_none() {
                    *ticket = self.issue(&Command::Sync(Signal::None), io)?;
                    self.commands.ring(io);
                }
                self.commands.look(io)?;
                let is_done = ticket.is_some_and(|number| self.commands.has_consumed(number));
                if is_done {
                    *ticket = None;
                }
                return Ok(is_done);
            }
        }
        Ok(true)
    }

    /// Looks how far the SMMU is only where there is no room.
    fn issue(&mut self, command: &Command, io: &mut (impl Registers + Memory)) -> Result<Option<u64>, Trouble> {
        if let Some(number) = self.commands.push(command, io) {
            return Ok(Some(number));
        }
        self.commands.look(io)?;
        Ok(self.commands.push(command, io))
    }

    /// Which global errors there have been since the last time (`SMMU_GERROR`, 7.5), acknowledged. A stopped command queue is
    /// not among them: it is set going where it is waited for.
    pub fn global_errors(&mut self, io: &mut (impl Registers + Memory)) -> GlobalErrors {
        let (gerror, gerrorn) = (io.get(GERROR_OFFSET), io.get(GERRORN_OFFSET));
        let active = (gerror ^ gerrorn) & !GERROR::CMDQ_ERR::SET.value;
        if active != 0 {
            io.set(GERRORN_OFFSET, gerrorn ^ active);
        }
        let active = LocalRegisterCopy::<u32, GERROR::Register>::new(active);
        GlobalErrors { failed: active.is_set(GERROR::SFM_ERR), events_lost: active.is_set(GERROR::EVENTQ_ABT_ERR) }
    }
}
