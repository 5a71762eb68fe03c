//! From whatever firmware has left to an SMMU that refuses every stream (IHI 0070, 3.11, 6.3.9, 6.3.14).
//!
//! Answers for: the order of register writes, so that there is no moment at which traffic passes that did not pass before; and
//! for closing one that is not to be started. Does not answer for: memory (zeroed before), and streams that are to be something
//! else than refused.

use crate::registers::{
    CMDQ_BASE_OFFSET, CMDQ_CONS_OFFSET, CMDQ_PROD_OFFSET, CR0, CR0_OFFSET, CR0ACK_OFFSET, CR1, CR1_OFFSET, CR2,
    CR2_OFFSET, EVENTQ_BASE_OFFSET, EVENTQ_CONS_OFFSET, EVENTQ_IRQ_CFG0_OFFSET, EVENTQ_PROD_OFFSET, GBPA, GBPA_OFFSET,
    GERROR_IRQ_CFG0_OFFSET, GERROR_OFFSET, GERRORN_OFFSET, IRQ_CTRL, IRQ_CTRL_OFFSET, IRQ_CTRLACK_OFFSET,
    STRTAB_BASE_CFG_OFFSET, STRTAB_BASE_OFFSET,
};
use crate::{Command, Procedure, Registers, Smmu, Step, Trouble};
use types::Ticks;

/// The bits of `SMMU_CR0` that are acknowledged and that anything here sets.
const CR0_MASK: u32 = 0b1_1111;

impl Smmu {
    /// Takes it over. From the first step on traffic is aborted, and when it is done every stream is refused until
    /// [`crate::Streams`] says something else.
    pub fn start(&self) -> Procedure {
        let mut procedure = disabled();
        self.set_up(&mut procedure);
        self.enable(&mut procedure);
        procedure
    }

    fn set_up(&self, procedure: &mut Procedure) {
        let tables = CR1::TABLE_SH::Inner.value | CR1::TABLE_OC::WriteBack.value | CR1::TABLE_IC::WriteBack.value;
        let queues = CR1::QUEUE_SH::Inner.value | CR1::QUEUE_OC::WriteBack.value | CR1::QUEUE_IC::WriteBack.value;
        let value = if self.features.coherent { tables | queues } else { 0 };
        procedure.then(Step::Set { register: CR1_OFFSET, value });
        // Broadcast invalidations of the CPUs are not heeded: each has its commands, and a CPU would wait for the SMMU (3.17).
        let value = CR2::RECINVSID::SET.value | CR2::PTM::SET.value;
        procedure.then(Step::Set { register: CR2_OFFSET, value });
        let geometry = self.layout.geometry;
        wide(procedure, STRTAB_BASE_OFFSET, geometry.base_register(self.layout.table));
        procedure.then(Step::Set { register: STRTAB_BASE_CFG_OFFSET, value: geometry.configuration_register() });
        wide(procedure, CMDQ_BASE_OFFSET, self.commands.base_register());
        wide(procedure, EVENTQ_BASE_OFFSET, self.events.base_register());
        for register in [CMDQ_PROD_OFFSET, CMDQ_CONS_OFFSET, EVENTQ_PROD_OFFSET, EVENTQ_CONS_OFFSET] {
            procedure.then(Step::Set { register, value: 0 });
        }
        // Wires, no messages.
        wide(procedure, GERROR_IRQ_CFG0_OFFSET, 0);
        wide(procedure, EVENTQ_IRQ_CFG0_OFFSET, 0);
    }

    fn enable(&self, procedure: &mut Procedure) {
        let mut on = CR0::CMDQEN::SET.value;
        switch(procedure, on);
        // In any order: while nothing is translated, nothing comes back (6.3.9.6).
        procedure.then_all([Step::Issue(Command::CfgiAll), Step::Issue(Command::TlbiNsnhAll)]);
        if self.features.el2_stage1 {
            procedure.then(Step::Issue(Command::TlbiEl2All));
        }
        procedure.then(Step::Synchronize);
        on |= CR0::EVENTQEN::SET.value;
        switch(procedure, on);
        let interrupts = IRQ_CTRL::EVENTQ_IRQEN::SET.value | IRQ_CTRL::GERROR_IRQEN::SET.value;
        procedure.then_all([
            Step::Set { register: IRQ_CTRL_OFFSET, value: interrupts },
            Step::Await { register: IRQ_CTRLACK_OFFSET, mask: interrupts, value: interrupts },
        ]);
        // Checked from the first transaction on: it may be cached with an entry (3.9.2).
        if self.features.ats {
            on |= CR0::ATSCHK::SET.value;
            switch(procedure, on);
        }
        switch(procedure, on | CR0::SMMUEN::SET.value);
    }
}

/// Traffic is aborted, nothing is walked, queues stand still.
fn disabled() -> Procedure {
    let mut procedure = Procedure::default();
    let idle = Step::Await { register: GBPA_OFFSET, mask: GBPA::UPDATE::SET.value, value: 0 };
    let abort = Step::Set { register: GBPA_OFFSET, value: GBPA::UPDATE::SET.value | GBPA::ABORT::SET.value };
    procedure.then_all([idle, abort, idle]);
    switch(&mut procedure, 0);
    procedure.then_all([
        Step::Set { register: IRQ_CTRL_OFFSET, value: 0 },
        Step::Await { register: IRQ_CTRLACK_OFFSET, mask: 0b111, value: 0 },
        // Errors of somebody else's time; one of the command queue would keep it from going.
        Step::Copy { from: GERROR_OFFSET, to: GERRORN_OFFSET },
    ]);
    procedure
}

/// Closes an SMMU that is not to be started, or has not started: all traffic is aborted, whatever else it can do or cannot. Asks
/// again and again until it is so, or `now` is past `deadline`.
///
/// # Errors
/// What it has not done in time; then nobody knows what passes.
pub fn close(registers: &mut impl Registers, now: impl Fn() -> Ticks, deadline: Ticks) -> Result<(), Trouble> {
    let procedure = disabled();
    for step in procedure.steps() {
        while !step.touch(registers) {
            if now() > deadline {
                return Err(Trouble::Late(*step));
            }
        }
    }
    Ok(())
}

/// Turns an SMMU off that has been started, in whatever state it is: traffic is aborted from when it sees this on, because
/// `SMMU_GBPA` has said so since the start (6.3.14). Nobody waits for that: it is for when nothing else counts any more.
pub fn turn_off(registers: &mut impl Registers) {
    registers.set(CR0_OFFSET, 0);
}

/// Sets `SMMU_CR0`, and waits until it is so.
fn switch(procedure: &mut Procedure, value: u32) {
    procedure.then_all([
        Step::Set { register: CR0_OFFSET, value },
        Step::Await { register: CR0ACK_OFFSET, mask: CR0_MASK, value },
    ]);
}

/// Sets a 64-bit register.
fn wide(procedure: &mut Procedure, register: usize, value: u64) {
    let half = |shift: u32| u32::try_from(value.wrapping_shr(shift) & 0xffff_ffff).unwrap_or(0);
    procedure.then(Step::Set { register, value: half(0) });
    procedure.then(Step::Set { register: register.saturating_add(4), value: half(32) });
}
