//! The register file (IHI 0070, chapter 6).
//!
//! Answers for: what is read and written at every offset and in every size, when a write counts, and what a reset leaves. Does not
//! answer for: what follows from it (`unit`).
//!
//! What is reserved or not implemented reads as zero and ignores writes; so do accesses of bytes and halfwords, and of two registers of 32 bits at
//! once (6.2: CONSTRAINED UNPREDICTABLE). Registers of 64 bits are reached whole or by halves. A register that must not be written
//! while it is in use keeps its value then: one of the choices that the specification leaves.

use crate::queue::Queue;
use crate::shape::{COMMAND_BITS, EVENT_BITS, Shape};
use smmu::registers::{
    CMDQ_BASE_OFFSET, CMDQ_CONS, CMDQ_CONS_OFFSET, CMDQ_PROD_OFFSET, CR0, CR0_OFFSET, CR0ACK_OFFSET, CR1_OFFSET, CR2,
    CR2_OFFSET, EVENTQ_BASE_OFFSET, EVENTQ_CONS_OFFSET, EVENTQ_PROD, EVENTQ_PROD_OFFSET, GBPA, GBPA_OFFSET, GERROR,
    GERROR_OFFSET, GERRORN_OFFSET, IRQ_CTRL, IRQ_CTRL_OFFSET, IRQ_CTRLACK_OFFSET, STRTAB_BASE_CFG_OFFSET,
    STRTAB_BASE_OFFSET,
};
use types::AccessSize;

/// What of `CR0` is implemented.
const CR0_BITS: u32 = CR0_CMDQEN | CR0_EVENTQEN | CR0_SMMUEN;
pub(crate) const CR0_CMDQEN: u32 = CR0::CMDQEN::SET.value;
pub(crate) const CR0_EVENTQEN: u32 = CR0::EVENTQEN::SET.value;
pub(crate) const CR0_SMMUEN: u32 = CR0::SMMUEN::SET.value;
/// Of `CR1`: how queues are accessed, and how tables are. Kept, and of no effect: here all accesses are coherent.
const CR1_QUEUES: u32 = 0x3f;
const CR1_TABLES: u32 = 0x3f << 6;
/// `IRQ_CTRL`: all that there is an interrupt for.
const IRQ_BITS: u32 = IRQ_CTRL::EVENTQ_IRQEN::SET.value | IRQ_CTRL::GERROR_IRQEN::SET.value;
/// `STRTAB_BASE`: RA and ADDR.
const TABLE_BASE: u64 = 1 << 62 | 0x000f_ffff_ffff_ffc0;
/// `STRTAB_BASE_CFG`: FMT, SPLIT and LOG2SIZE.
const TABLE_SHAPE: u32 = 3 << 16 | 0x7ff;
/// `CMDQ_BASE`, `EVENTQ_BASE`: RA or WA, ADDR and LOG2SIZE.
const QUEUE_BASE: u64 = 1 << 62 | 0x000f_ffff_ffff_ffff;
/// A position in a queue.
const POSITION: u32 = CMDQ_CONS::RD::SET.value;
/// `OVFLG` and `OVACKFLG`.
const OVERFLOW: u32 = EVENTQ_PROD::OVFLG::SET.value;
/// Bytes of a command and of a record, as a power of two.
const COMMAND: u8 = 4;
const RECORD: u8 = 5;

/// All registers that can be written, as after a reset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) cr0: u32,
    pub(crate) cr0ack: u32,
    cr1: u32,
    cr2: u32,
    /// `GBPA.ABORT`. 6.3.14 leaves the reset value to the implementation: devices reach the VM's memory, for guests that do not
    /// know what this is.
    pub(crate) aborts: bool,
    /// `GBPA.UPDATE`: the new value has not taken effect yet.
    pub(crate) is_updating: bool,
    irq_ctrl: u32,
    gerror: u32,
    gerrorn: u32,
    pub(crate) strtab_base: u64,
    pub(crate) strtab_base_cfg: u32,
    cmdq_base: u64,
    pub(crate) cmdq_prod: u32,
    pub(crate) cmdq_cons: u32,
    eventq_base: u64,
    pub(crate) eventq_prod: u32,
    pub(crate) eventq_cons: u32,
}

impl Registers {
    /// A read at `offset`, anywhere.
    pub(crate) fn read(&self, offset: usize, size: AccessSize, shape: &Shape) -> u64 {
        match size {
            AccessSize::Word => self.word(offset, shape).into(),
            AccessSize::Doubleword if is_wide(offset) => {
                let high = self.word(offset.saturating_add(4), shape);
                u64::from(high) << 32 | u64::from(self.word(offset, shape))
            }
            _ => 0,
        }
    }

    /// A write at `offset`, anywhere.
    pub(crate) fn write(&mut self, offset: usize, size: AccessSize, value: u64) {
        match size {
            AccessSize::Word => self.set_word(offset, low(value)),
            AccessSize::Doubleword if is_wide(offset) => {
                self.set_word(offset, low(value));
                self.set_word(offset.saturating_add(4), low(value >> 32));
            }
            _ => {}
        }
    }

    fn word(&self, offset: usize, shape: &Shape) -> u32 {
        let half = |register: u64| if offset & 4 == 0 { low(register) } else { low(register >> 32) };
        match offset {
            CR0_OFFSET => self.cr0,
            CR0ACK_OFFSET => self.cr0ack,
            CR1_OFFSET => self.cr1,
            CR2_OFFSET => self.cr2,
            GBPA_OFFSET => GBPA::UPDATE.val(self.is_updating.into()).value | GBPA::ABORT.val(self.aborts.into()).value,
            IRQ_CTRL_OFFSET | IRQ_CTRLACK_OFFSET => self.irq_ctrl,
            GERROR_OFFSET => self.gerror,
            GERRORN_OFFSET => self.gerrorn,
            CMDQ_PROD_OFFSET => self.cmdq_prod,
            CMDQ_CONS_OFFSET => self.cmdq_cons,
            STRTAB_BASE_CFG_OFFSET => self.strtab_base_cfg,
            EVENTQ_PROD_OFFSET => self.eventq_prod,
            EVENTQ_CONS_OFFSET => self.eventq_cons,
            _ => match offset & !4 {
                STRTAB_BASE_OFFSET => half(self.strtab_base),
                CMDQ_BASE_OFFSET => half(self.cmdq_base),
                EVENTQ_BASE_OFFSET => half(self.eventq_base),
                _ => shape.identification(offset),
            },
        }
    }

    fn set_word(&mut self, offset: usize, value: u32) {
        // In use from being asked for until the end has been acknowledged.
        let used = self.cr0 | self.cr0ack;
        let are_tables_free = used & CR0_SMMUEN == 0;
        match offset {
            CR0_OFFSET => self.cr0 = value & CR0_BITS,
            CR1_OFFSET => {
                let queues = if used & (CR0_CMDQEN | CR0_EVENTQEN) == 0 { CR1_QUEUES } else { 0 };
                let free = if are_tables_free { queues | CR1_TABLES } else { queues };
                self.cr1 = self.cr1 & !free | value & free;
            }
            CR2_OFFSET if are_tables_free => self.cr2 = value & CR2::RECINVSID::SET.value,
            GBPA_OFFSET if value & GBPA::UPDATE::SET.value != 0 && !self.is_updating => {
                self.is_updating = true;
                self.aborts = value & GBPA::ABORT::SET.value != 0;
            }
            IRQ_CTRL_OFFSET => self.irq_ctrl = value & IRQ_BITS,
            GERRORN_OFFSET => {
                // 6.3.20: software toggles what is active; toggling anything else is CONSTRAINED UNPREDICTABLE, and ignored.
                let active = self.gerror ^ self.gerrorn;
                self.gerrorn = self.gerrorn & !active | value & active;
            }
            CMDQ_PROD_OFFSET => self.cmdq_prod = value & POSITION,
            CMDQ_CONS_OFFSET if used & CR0_CMDQEN == 0 => self.cmdq_cons = value & POSITION,
            STRTAB_BASE_CFG_OFFSET if are_tables_free => self.strtab_base_cfg = value & TABLE_SHAPE,
            EVENTQ_PROD_OFFSET if used & CR0_EVENTQEN == 0 => self.eventq_prod = value & (OVERFLOW | POSITION),
            EVENTQ_CONS_OFFSET => self.eventq_cons = value & (OVERFLOW | POSITION),
            _ => match offset & !4 {
                STRTAB_BASE_OFFSET if are_tables_free => set_half(&mut self.strtab_base, offset, value, TABLE_BASE),
                CMDQ_BASE_OFFSET if used & CR0_CMDQEN == 0 => {
                    set_half(&mut self.cmdq_base, offset, value, QUEUE_BASE);
                }
                EVENTQ_BASE_OFFSET if used & CR0_EVENTQEN == 0 => {
                    set_half(&mut self.eventq_base, offset, value, QUEUE_BASE);
                }
                _ => {}
            },
        }
    }

    /// The command queue.
    pub(crate) fn commands(&self) -> Queue {
        Queue::new(self.cmdq_base, COMMAND, COMMAND_BITS)
    }

    /// The event queue.
    pub(crate) fn events(&self) -> Queue {
        Queue::new(self.eventq_base, RECORD, EVENT_BITS)
    }

    /// Both asked for and acknowledged.
    pub(crate) const fn is_on(&self, bit: u32) -> bool {
        self.cr0 & self.cr0ack & bit != 0
    }

    /// `CR2.RECINVSID`: transactions of streams beyond the table are recorded.
    pub(crate) const fn records_unknown_streams(&self) -> bool {
        self.cr2 & CR2::RECINVSID::SET.value != 0
    }

    /// An error becomes active (7.5). Says whether that is an interrupt: it is if the error was not, and the guest wants one.
    pub(crate) const fn raise(&mut self, error: u32) -> bool {
        if self.is_active(error) {
            return false;
        }
        self.gerror ^= error;
        self.irq_ctrl & IRQ_CTRL::GERROR_IRQEN::SET.value != 0
    }

    /// Whether an error is active, and not acknowledged.
    pub(crate) const fn is_active(&self, error: u32) -> bool {
        (self.gerror ^ self.gerrorn) & error != 0
    }

    /// The command queue stands still (7.1).
    pub(crate) const fn is_stopped(&self) -> bool {
        self.is_active(GERROR::CMDQ_ERR::SET.value)
    }

    /// The guest wants to hear of events.
    pub(crate) const fn announces_events(&self) -> bool {
        self.irq_ctrl & IRQ_CTRL::EVENTQ_IRQEN::SET.value != 0
    }

    /// The next command is that at `position`.
    pub(crate) const fn consumed(&mut self, position: u32) {
        self.cmdq_cons = position;
    }

    /// The command queue stops at the next command, for this reason (`CMDQ_CONS.ERR`). Says whether that is an interrupt.
    pub(crate) fn stop(&mut self, reason: u32) -> bool {
        self.cmdq_cons = self.cmdq_cons & POSITION | CMDQ_CONS::ERR.val(reason).value;
        self.raise(GERROR::CMDQ_ERR::SET.value)
    }

    /// Where the next command is.
    pub(crate) const fn command_position(&self) -> u32 {
        self.cmdq_cons & POSITION
    }

    /// Where the next record goes, as far as there is room: `None` if the queue is full, which is noted (7.4).
    pub(crate) const fn event_position(&mut self, queue: &Queue) -> Option<u32> {
        let (produced, consumed) = (self.eventq_prod, self.eventq_cons);
        if !queue.is_full(produced, consumed) {
            return Some(produced & POSITION);
        }
        if (produced ^ consumed) & OVERFLOW == 0 {
            self.eventq_prod ^= OVERFLOW;
        }
        None
    }

    /// There is a record at `position`. Says whether it is the first one.
    pub(crate) const fn produced(&mut self, position: u32, queue: &Queue) -> bool {
        let was_empty = queue.is_empty(self.eventq_prod, self.eventq_cons);
        self.eventq_prod = self.eventq_prod & OVERFLOW | queue.next(position);
        was_empty
    }
}

/// Whether a register of 64 bits begins there.
const fn is_wide(offset: usize) -> bool {
    matches!(offset, STRTAB_BASE_OFFSET | CMDQ_BASE_OFFSET | EVENTQ_BASE_OFFSET)
}

/// Sets the half of a register that is at `offset`, as far as it is implemented.
const fn set_half(register: &mut u64, offset: usize, value: u32, implemented: u64) {
    let shift = if offset & 4 == 0 { 0 } else { 32 };
    let half = 0xffff_ffff_u64 << shift;
    *register = (*register & !half | (value as u64) << shift) & implemented;
}

/// Bits 31 to 0.
const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
