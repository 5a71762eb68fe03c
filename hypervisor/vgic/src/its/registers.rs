//! The ITS's registers: IHI 0069, "The ITS register map" and "ITS register descriptions".
//!
//! Answers for: the two frames, and the queue of commands. Does not answer for: what commands do (`commands`).
//!
//! Every offset and every size answers. What is reserved, not implemented, of the wrong size or not aligned reads as zero and
//! ignores writes. Registers of doublewords are reached by words as well.
//!
//! Cacheability and shareability of tables are fixed: the hypervisor reads them through its caches, as a part of the inner
//! shareable domain ("it is IMPLEMENTATION DEFINED whether this field has a fixed value or can be programmed by software").

use super::commands::{Command, Refused};
use super::tables::{COLLECTION_BITS, ID_BITS};
use super::{Its, Progress};
use crate::Vgic;
use crate::v3::{IIDR, identification};
use crate::word::{low, merge, part};
use types::{AccessSize, Ipa};
use vdev::GuestMemory;

const CTLR: u64 = 0x0000;
const TYPER: u64 = 0x0008;
const CBASER: u64 = 0x0080;
const CWRITER: u64 = 0x0088;
const CREADR: u64 = 0x0090;
const FIRST_BASER: u64 = 0x0100;
const END_BASER: u64 = FIRST_BASER + 8 * BASERS as u64;
/// The ITS's part number in `GITS_PIDR0`.
const PART: u32 = 0x94;

/// `GITS_CTLR.Enabled`.
const ENABLED: u32 = 1 << 0;
/// `GITS_CTLR.Quiescent`.
const QUIESCENT: u32 = 1 << 31;

/// How many `GITS_BASER<n>` there are; the others read as zero, which is "unimplemented".
pub(super) const BASERS: usize = 2;
/// Of devices, and of collections.
pub(super) const DEVICES: usize = 0;
pub(super) const COLLECTIONS: usize = 1;
/// Bytes of an entry in a table of the guest's, which stays empty.
pub(super) const ENTRY: u64 = 8;

/// Of `GITS_CBASER` and `GITS_BASER<n>`.
pub(super) const VALID: u64 = 1 << 63;
/// `GITS_BASER<n>.Indirect`: a table of two levels.
const INDIRECT: u64 = 1 << 62;
/// Inner Write-Back, Read-allocate, Write-allocate; outer the same; Inner Shareable. Where these are in all of the ITS's.
const ATTRIBUTES: u64 = 7 << 59 | 1 << 10;
/// `Physical_Address` of `GITS_CBASER`.
const QUEUE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// `Physical_Address` of `GITS_BASER<n>`.
const TABLE_ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Of both: how many pages, less one.
const SIZE: u64 = 0xff;
/// `GITS_BASER<n>.Page_Size`.
const PAGE_SIZE_SHIFT: u32 = 8;
/// 64 KiB, of two bits.
const PAGE_64K: u64 = 2;

/// What of `GITS_BASER<n>` is fixed: type and size of entries, and the attributes.
const fn fixed(kind: u64) -> u64 {
    kind << 56 | (ENTRY - 1) << 48 | ATTRIBUTES
}

/// `GITS_BASER<n>` after a reset.
pub(super) const BASES: [u64; BASERS] = [fixed(1), fixed(4)];

/// `GITS_CBASER`, `GITS_CREADR` and `GITS_CWRITER`.
#[derive(Debug)]
pub(super) struct Queue {
    base: u64,
    read: u64,
    write: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self { base: ATTRIBUTES, read: 0, write: 0 }
    }
}

impl Queue {
    /// In bytes.
    const fn size(&self) -> u64 {
        (self.base & SIZE).wrapping_add(1).wrapping_mul(types::PAGE_SIZE)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.base & VALID == 0 || self.read == self.write
    }

    /// The command that is to be done next.
    pub(super) fn next(&self, memory: &dyn GuestMemory) -> Result<Command, Refused> {
        let mut bytes = [0; Command::SIZE];
        let at = (self.base & QUEUE_ADDRESS).wrapping_add(self.read);
        match memory.read(Ipa(at), &mut bytes) {
            Ok(()) => Ok(Command::new(bytes)),
            Err(_) => Err(Refused::unreadable()),
        }
    }

    /// It has been done.
    pub(super) const fn advance(&mut self) {
        let next = self.read.wrapping_add(Command::SIZE as u64);
        self.read = if next >= self.size() { 0 } else { next };
    }

    fn set_base(&mut self, value: u64) {
        *self = Self { base: value & (VALID | QUEUE_ADDRESS | SIZE) | ATTRIBUTES, read: 0, write: 0 };
    }

    /// `GITS_CWRITER.Offset`. One that is not in the queue is ignored.
    fn set_write(&mut self, value: u64) {
        let offset = value & 0xf_ffe0;
        if offset < self.size() {
            self.write = offset;
        }
    }
}

/// What a `GITS_BASER<n>` says of its table.
pub(super) struct Table {
    pub(super) at: u64,
    pub(super) size: u64,
    /// How many entries it can have.
    pub(super) entries: u64,
}

impl Table {
    /// `None` if it is not valid.
    pub(super) fn new(base: u64) -> Option<Self> {
        if base & VALID == 0 {
            return None;
        }
        let (page, at) = match base.wrapping_shr(PAGE_SIZE_SHIFT) & 3 {
            0 => (0x1000, base & TABLE_ADDRESS),
            1 => (0x4000, base & TABLE_ADDRESS & !0x3fff),
            // Bits 15 to 12 are bits 51 to 48 of the address.
            _ => (0x1_0000_u64, base & TABLE_ADDRESS & !0xffff | (base & 0xf000).wrapping_shl(36)),
        };
        let size = (base & SIZE).wrapping_add(1).wrapping_mul(page);
        let reach = if base & INDIRECT == 0 { 1 } else { page / ENTRY };
        Some(Self { at, size, entries: (size / ENTRY).wrapping_mul(reach) })
    }
}

impl Vgic {
    /// A read in the ITS's window, at `offset` below [`Vgic::ITS_SIZE`].
    #[must_use]
    pub fn read_its(&self, offset: u64, size: AccessSize) -> u64 {
        let Some(unit) = &self.unit else { return 0 };
        if size == AccessSize::Word {
            match offset {
                CTLR => return unit.its.lock().control().into(),
                0x0004 => return IIDR.into(),
                0xffd0..0x1_0000 => return identification(offset, PART).into(),
                _ => {}
            }
        }
        let its = unit.its.lock();
        let value = match offset & !7 {
            TYPER => typer(),
            CBASER => its.queue.base,
            CWRITER => its.queue.write,
            CREADR => its.queue.read,
            FIRST_BASER..END_BASER => base_index(offset).and_then(|index| its.bases.get(index)).copied().unwrap_or(0),
            _ => 0,
        };
        part(value, offset, size)
    }

    /// A write in the ITS's window, at `offset` below [`Vgic::ITS_SIZE`]. `memory` is the VM's.
    pub fn write_its(&self, offset: u64, size: AccessSize, value: u64, memory: &dyn GuestMemory) -> Progress {
        self.with_unit(memory, |its, _| its.write(offset, size, value))
    }
}

impl Its {
    fn control(&self) -> u32 {
        match (self.enabled, self.is_busy()) {
            (true, _) => ENABLED,
            (false, true) => 0,
            (false, false) => QUIESCENT,
        }
    }

    fn write(&mut self, offset: u64, size: AccessSize, value: u64) {
        // A base that is written while it is in use has UNPREDICTABLE effects: none.
        let is_quiet = !self.enabled && !self.is_busy();
        match offset & !7 {
            CTLR if offset == CTLR && size == AccessSize::Word => self.enabled = low(value) & ENABLED != 0,
            CBASER if is_quiet => self.queue.set_base(merge(self.queue.base, offset, size, value)),
            CWRITER => self.queue.set_write(merge(self.queue.write, offset, size, value)),
            FIRST_BASER..END_BASER if is_quiet => self.set_base(offset, size, value),
            _ => {}
        }
    }

    /// A write of `GITS_BASER<n>`. What is in another table is not known, so it is not what was in this one.
    fn set_base(&mut self, offset: u64, size: AccessSize, value: u64) {
        let Some(index) = base_index(offset) else { return };
        let (Some(base), Some(reset)) = (self.bases.get_mut(index), BASES.get(index)) else { return };
        let levels = if index == DEVICES { INDIRECT } else { 0 };
        let page = 3 << PAGE_SIZE_SHIFT;
        let mut new = merge(*base, offset, size, value) & (VALID | levels | TABLE_ADDRESS | page | SIZE) | reset;
        if new & page == page {
            // Reserved, and treated as what is next to it.
            new = new & !page | PAGE_64K << PAGE_SIZE_SHIFT;
        }
        if core::mem::replace(base, new) == new {
            return;
        }
        match index {
            DEVICES => self.forgets = true,
            _ => self.tables.forget_collections(),
        }
    }
}

/// Which `GITS_BASER<n>` is at `offset`.
fn base_index(offset: u64) -> Option<usize> {
    usize::try_from(offset.checked_sub(FIRST_BASER)? / 8).ok()
}

/// `GITS_TYPER`: physical LPIs, the size of an entry, bits of EventIDs, DeviceIDs and collections; redistributors are named by
/// their number (`PTA` is 0), and all collections are in memory (`HCC` is 0).
const fn typer() -> u64 {
    const PHYSICAL: u64 = 1 << 0;
    const CIL: u64 = 1 << 36;
    const IDS: u64 = (ID_BITS as u64 - 1) << 8 | (ID_BITS as u64 - 1) << 13;
    const COLLECTIONS: u64 = (COLLECTION_BITS as u64 - 1) << 32;
    PHYSICAL | (ENTRY - 1) << 4 | IDS | COLLECTIONS | CIL
}
