//! The tables of an ITS that `GITS_BASER<n>` name: devices and collections (IHI 0069, "The ITS tables", `GITS_BASER<n>`).
//!
//! Answers for: their shape, as far as an ITS lets one choose: one level or two, pages of which size, how many; and where an entry of
//! a first level is. What is in the tables is the ITS's own (there: their format is IMPLEMENTATION DEFINED); they are given as zeroes.
//! Does not answer for: memory.

use crate::Registers;
use crate::registers::{BASER, BASER_OFFSET, BASERS, INNER_SHAREABLE, NON_CACHEABLE, WRITE_BACK};
use crate::{Memory, Unfit};
use tock_registers::LocalRegisterCopy;
use types::Pa;

/// Bytes of an entry of a first level, and its bit 63: there is a page.
const LEVEL1_BYTES: u64 = 8;
const LEVEL1_VALID: u64 = 1 << 63;
/// Most pages that a register can say.
const MOST_PAGES: u64 = 256;
/// The largest table in one level, in bytes: more is not worth what it is for.
const MOST_BYTES: u64 = 1 << 20;

/// What a table is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// DeviceIDs.
    Devices,
    /// Collections.
    Collections,
}

/// A table that an ITS wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// Which `GITS_BASER<n>` it has.
    register: usize,
    entry_bytes: u64,
    /// `Page_Size`, and the bytes that it means.
    page_code: u64,
    page_bytes: u64,
    /// Entries stand in pages of a second level, which exist only where one is wanted.
    is_two_level: bool,
    /// How many numbers there is room for.
    room: u64,
}

/// Where the page of a number is said to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The offset in the first level.
    pub(crate) offset: u64,
    /// Which entry that is: numbers with the same share a page.
    pub index: u64,
}

impl Table {
    /// The table of this kind, for numbers 0 to `highest` as far as it goes; `None` if the ITS wants none: it keeps them itself. The ITS
    /// is off.
    pub fn of(kind: Kind, highest: u32, registers: &mut impl Registers) -> Option<Self> {
        let wanted = match kind {
            Kind::Devices => BASER::Type::Devices.value,
            Kind::Collections => BASER::Type::Collections.value,
        };
        let offset = |register: usize| BASER_OFFSET.saturating_add(register.saturating_mul(8));
        let register = (0..BASERS).find(|register| {
            let found = registers.get_wide(offset(*register));
            found & BASER::Type.mask << BASER::Type.shift == wanted
        })?;
        let numbers = u64::from(highest).saturating_add(1);
        // Small pages first: what is not kept there is fixed, or the next size is tried.
        for (page_code, page_bytes) in [(0, 0x1000_u64), (1, 0x4000), (2, 0x1_0000)] {
            let wish = BASER::Page_Size.val(page_code).value | BASER::Indirect::SET.value;
            registers.set_wide(offset(register), wish);
            let kept = LocalRegisterCopy::<u64, BASER::Register>::new(registers.get_wide(offset(register)));
            if kept.read(BASER::Page_Size) != page_code {
                continue;
            }
            let entry_bytes = kept.read(BASER::Entry_Size).saturating_add(1);
            let table = Self { register, entry_bytes, page_code, page_bytes, is_two_level: false, room: 0 };
            let can_be_two_level = kept.is_set(BASER::Indirect) && kind == Kind::Devices;
            return Some(table.shaped(numbers, can_be_two_level));
        }
        None
    }

    /// One level where that fits a page, two where there can be.
    fn shaped(self, numbers: u64, can_be_two_level: bool) -> Self {
        let per_page = self.page_bytes.checked_div(self.entry_bytes).unwrap_or(0);
        let is_two_level = can_be_two_level && numbers > per_page;
        let most = if is_two_level {
            per_page.saturating_mul(MOST_PAGES.saturating_mul(self.page_bytes) / LEVEL1_BYTES)
        } else {
            MOST_PAGES.saturating_mul(self.page_bytes).min(MOST_BYTES).checked_div(self.entry_bytes).unwrap_or(0)
        };
        Self { is_two_level, room: numbers.min(most), ..self }
    }

    /// Whether it has room for `number`.
    #[must_use]
    pub const fn has(&self, number: u32) -> bool {
        (number as u64) < self.room
    }

    /// Bytes of the table, or of its first level: whole pages of the ITS.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = if self.is_two_level {
            self.room.div_ceil(self.per_page()).saturating_mul(LEVEL1_BYTES)
        } else {
            self.room.saturating_mul(self.entry_bytes)
        };
        bytes.max(1).checked_next_multiple_of(self.page_bytes).unwrap_or(self.page_bytes)
    }

    /// Bytes of its pages, to which all that it is given is aligned.
    #[must_use]
    pub const fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    fn per_page(&self) -> u64 {
        self.page_bytes.checked_div(self.entry_bytes).unwrap_or(1).max(1)
    }

    /// Where the page of `number` is to be said to be, if it needs one.
    #[must_use]
    pub fn place(&self, number: u32) -> Option<Place> {
        let index = u64::from(number).checked_div(self.per_page())?;
        self.is_two_level.then_some(Place { index, offset: index.saturating_mul(LEVEL1_BYTES) })
    }

    /// What is said there.
    pub(crate) const fn descriptor(page: Pa) -> u64 {
        LEVEL1_VALID | page.0
    }

    /// Gives the ITS, which is off, the memory at `at`.
    ///
    /// # Errors
    /// If it does not take it.
    pub(crate) fn install(&self, at: Pa, io: &mut (impl Registers + Memory)) -> Result<(), Unfit> {
        let pages = self.bytes().checked_div(self.page_bytes).unwrap_or(1).saturating_sub(1);
        let value = |shareability, cache| {
            let shape =
                BASER::Valid::SET.value | BASER::Size.val(pages).value | BASER::Page_Size.val(self.page_code).value;
            let way = BASER::Shareability.val(shareability).value | BASER::InnerCache.val(cache).value;
            shape | way | BASER::Indirect.val(self.is_two_level.into()).value | at.0
        };
        let register = BASER_OFFSET.saturating_add(self.register.saturating_mul(8));
        io.set_wide(register, value(INNER_SHAREABLE, WRITE_BACK));
        let kept = LocalRegisterCopy::<u64, BASER::Register>::new(io.get_wide(register));
        if kept.read(BASER::Shareability) != INNER_SHAREABLE {
            io.set_wide(register, value(0, NON_CACHEABLE));
            io.reads_past_caches();
        }
        let kept = io.get_wide(register);
        let fixed = BASER::Valid::SET.value | BASER::Indirect::SET.value | BASER::Size.mask | 0x0000_ffff_ffff_f000;
        if kept & fixed == value(0, 0) & fixed { Ok(()) } else { Err(Unfit::Table) }
    }
}
