//! The command queue (IHI 0070, 3.5, 4, 7.1).
//!
//! Answers for: taking commands out, each copied once and then checked, which of them an SMMU like this one has, and how the queue
//! stops at one that it has not. Does not answer for: what the host makes of them.

use crate::host::{Batch, Invalidation, Order};
use crate::registers::CR0_CMDQEN;
use crate::unit::Smmu;
use smmu::{Command, Illegal, Reach, Signal};
use vdev::GuestMemory;

/// Most commands of a batch.
pub const COMMANDS: usize = 16;

/// 7.1: the command is none, and it could not be read.
const CERROR_ILL: u32 = 1;
const CERROR_ABT: u32 = 2;

/// What a command asks for.
enum Asked {
    Nothing,
    /// To look at the entries of these streams anew, and at their context descriptors.
    Look {
        first: u32,
        last: u32,
    },
    /// To forget a stream's context descriptors.
    ForgetContexts(u32),
    Invalidate(Invalidation),
    /// To wait for all that.
    Synchronize {
        interrupts: bool,
    },
}

impl Asked {
    /// `None` if it is none that an SMMU like this one takes.
    fn of(command: &Command) -> Option<Self> {
        Some(match *command {
            Command::Prefetch { .. } => Self::Nothing,
            Command::CfgiSte { stream, .. } => Self::Look { first: stream, last: stream },
            Command::CfgiSteRange { stream, range } => {
                // 4.3.2: 2^(range + 1) streams, and the lower bits of the StreamID are ignored.
                let mask = u32::MAX.checked_shr(31_u32.saturating_sub(range.into())).unwrap_or(u32::MAX);
                Self::Look { first: stream & !mask, last: stream | mask }
            }
            Command::CfgiAll => Self::Look { first: 0, last: u32::MAX },
            Command::CfgiCd { stream, .. } | Command::CfgiCdAll { stream } => Self::ForgetContexts(stream),
            // VMIDs are IGNORED where there is no stage 2 (4.4), and so is what there is of other VMs and of EL2.
            Command::TlbiNhAll { .. } | Command::TlbiNsnhAll => Self::Invalidate(Invalidation::All),
            Command::TlbiNhAsid { asid, .. } => Self::Invalidate(Invalidation::Asid(asid)),
            Command::TlbiNhVa { asid, reach, .. } => Self::address(Some(asid), reach),
            Command::TlbiNhVaa { reach, .. } => Self::address(None, reach),
            // 4.7.3: without messages an interrupt is the wire, whatever the command says of one; without SEV there is none.
            Command::Sync(signal) => Self::Synchronize { interrupts: matches!(signal, Signal::Irq { .. }) },
            // CERROR_ILL without EL2, without stage 2, without ATS, without PRI, and without stalls.
            Command::TlbiEl2All
            | Command::TlbiS12Vmall { .. }
            | Command::TlbiS2Ipa { .. }
            | Command::AtcInv { .. }
            | Command::PriResp { .. }
            | Command::Resume { .. }
            | Command::StallTerm { .. } => return None,
        })
    }

    const fn address(asid: Option<u16>, reach: Reach) -> Self {
        Self::Invalidate(Invalidation::Address { asid, reach })
    }
}

impl Smmu {
    /// Whether there are commands to be taken.
    pub(crate) fn has_commands(&self) -> bool {
        let registers = &self.registers;
        let is_going = registers.is_on(CR0_CMDQEN) && !registers.is_stopped();
        is_going && !registers.commands().is_empty(registers.cmdq_prod, registers.command_position())
    }

    /// Takes commands, as many as a batch has, until one has to wait for what is in the batch.
    pub(crate) fn take_commands(&mut self, batch: &mut Batch, memory: &dyn GuestMemory) {
        let queue = self.registers.commands();
        for _ in 0..COMMANDS {
            if !self.has_commands() || !batch.has_room() {
                return;
            }
            let position = self.registers.command_position();
            let mut bytes = [0; 16];
            if memory.read(queue.entry(position), &mut bytes).is_err() {
                self.signals.gerror |= self.registers.stop(CERROR_ABT);
                return;
            }
            let Some(asked) = decode(bytes).ok().and_then(|command| Asked::of(&command)) else {
                self.refused = self.refused.saturating_add(1);
                self.signals.gerror |= self.registers.stop(CERROR_ILL);
                return;
            };
            if matches!(asked, Asked::Synchronize { .. }) && (!batch.is_empty() || self.is_any_stale()) {
                return;
            }
            self.obey(&asked, batch);
            self.taken = self.taken.saturating_add(1);
            self.registers.consumed(queue.next(position));
        }
    }

    fn obey(&mut self, asked: &Asked, batch: &mut Batch) {
        match *asked {
            Asked::Nothing => {}
            Asked::Look { first, last } => {
                let streams = self.streams.iter_mut().filter(|stream| (first..=last).contains(&stream.number));
                streams.for_each(|stream| stream.is_stale = true);
            }
            Asked::ForgetContexts(number) => {
                if self.streams.iter().any(|stream| stream.number == number) {
                    batch.push(Order::ForgetContexts { stream: number });
                }
            }
            Asked::Invalidate(what) => batch.push(Order::Invalidate(what)),
            Asked::Synchronize { interrupts } => self.signals.sync |= interrupts,
        }
    }
}

/// The command in these bytes.
fn decode(bytes: [u8; 16]) -> Result<Command, Illegal> {
    match bytes.as_chunks::<8>().0 {
        [first, second] => Command::decode([u64::from_le_bytes(*first), u64::from_le_bytes(*second)]),
        _ => Err(Illegal),
    }
}
