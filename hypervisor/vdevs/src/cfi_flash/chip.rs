//! A bank of flash: two chips of 16 bits beside each other, on a bus of 32 bits.
//!
//! Answers for: the commands of the Intel/Sharp extended set (JEP137, identifier 0x0001) as Intel's 28F256P30 has them, the
//! status register, and what a chip says of itself (JESD68, "CFI query"). Does not answer for: block locks (a chip says that it
//! has none, and takes the commands without effect), suspending, nor for two chips that are told different things: all drivers
//! send a command to both at once, so there is one state for both, and the low byte of a store is the command.
//!
//! Offsets in the manuals count words of a chip; one of them is four bytes of the bus here.

use alloc::vec::Vec;
use core::{fmt, mem};
use types::AccessSize;

/// Bytes of the bank.
pub(super) const SIZE: u64 = 4 * BLOCK;
/// Bytes of a block, both chips' parts together.
const BLOCK: u64 = 256 << 10;
/// Words of the bus that the write buffer holds: 32 of each chip.
const BUFFER: usize = 32;
/// Bytes that are erased while the guest waits for one answer.
const STEP: u64 = 4 << 10;

/// The same in both chips, twice: as many lanes as the widest access has.
const LANES: u64 = 0x0001_0001_0001_0001;

/// Status register: ready.
const READY: u8 = 1 << 7;
/// Status register: an erase, or with [`PROGRAM_FAILED`] a sequence of commands, was wrong.
const ERASE_FAILED: u8 = 1 << 5;
/// Status register: likewise of a program.
const PROGRAM_FAILED: u8 = 1 << 4;

/// Confirms what was set up.
const CONFIRM: u8 = 0xd0;

/// Identifier codes: manufacturer Intel, a device as QEMU's virt machine has it, and no lock.
const IDENTIFIERS: [u8; 3] = [0x89, 0x18, 0x00];

/// The first word of [`QUERY`].
const QUERY_START: u64 = 0x10;

/// What a chip says of itself: a word of it for each byte.
#[rustfmt::skip]
const QUERY: [u8; 48] = [
    b'Q', b'R', b'Y',
    0x01, 0x00, 0x31, 0x00, // Command set, and where its own table begins.
    0x00, 0x00, 0x00, 0x00, // No other set.
    0x17, 0x20, 0x00, 0x00, // 1.7 to 2.0 V, no Vpp.
    0x08, 0x09, 0x0a, 0x00, // 2^n us for a word, 2^n us for the buffer, 2^n ms for a block,
    0x01, 0x01, 0x02, 0x00, // and 2^n times that at most.
    0x13,                   // 2^19 bytes.
    0x01, 0x00,             // 16 bits wide.
    0x06, 0x00,             // A buffer of 2^6 bytes.
    0x01, 0x03, 0x00, 0x00, 0x02, // One kind of block: 3 + 1 of them, of 0x200 times 256 bytes.
    // The command set's table, at 0x31: version 1.0, none of the features, 1.8 V, no protection registers.
    b'P', b'R', b'I', b'1', b'0', 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x18, 0x00, 0x00,
];

/// What loads get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// What is stored.
    Array,
    /// The status register.
    Status,
    /// Identifier codes.
    Identifier,
    /// [`QUERY`].
    Query,
}

/// What the next store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Command,
    /// What is to be programmed where it is stored.
    Word,
    /// The confirmation for erasing the block that begins there.
    Erase(u64),
    /// What is to become of a lock.
    Lock,
    /// How many words come for the buffer, less one.
    Count,
    /// So many more words for the buffer.
    Words(usize),
    /// The confirmation for programming what is in the buffer.
    Program,
}

/// A store that waits in the buffer.
#[derive(Clone, Copy, Debug)]
struct Store {
    offset: u64,
    size: AccessSize,
    value: u64,
}

/// The bank.
pub(super) struct Chip {
    /// What is stored, by eight bytes.
    array: Vec<u64>,
    mode: Mode,
    expected: Expected,
    /// The status register but for [`READY`].
    failures: u8,
    /// What is still to be erased: from where on, and to where.
    erasing: Option<(u64, u64)>,
    /// Never more than [`BUFFER`], for which it has room.
    buffer: Vec<Store>,
    /// Blocks erased so far, and stores programmed.
    erased: u32,
    programmed: u32,
}

impl Chip {
    /// A bank with these contents, blank behind them; `None` if that is more than it holds.
    pub(super) fn new(contents: &[u8]) -> Option<Self> {
        let words = usize::try_from(SIZE / 8).ok()?;
        let mut rest = contents.iter();
        let mut next_word = || {
            let mut bytes = [0xff; 8];
            bytes.iter_mut().zip(&mut rest).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(bytes)
        };
        let array = (0..words).map(|_| next_word()).collect();
        rest.next().is_none().then(|| Self {
            array,
            mode: Mode::Array,
            expected: Expected::Command,
            failures: 0,
            erasing: None,
            buffer: Vec::with_capacity(BUFFER),
            erased: 0,
            programmed: 0,
        })
    }

    /// As after switching it on; what is stored stays.
    pub(super) fn reset(&mut self) {
        while self.erasing.is_some() {
            self.erase_step();
        }
        (self.mode, self.expected, self.failures) = (Mode::Array, Expected::Command, 0);
    }

    /// A load, which is within the bank and aligned.
    pub(super) fn read(&mut self, offset: u64, size: AccessSize) -> u64 {
        if self.mode == Mode::Array {
            return self.word(offset).map_or(0, |word| *word) >> shift(offset) & size.mask();
        }
        let index = (offset % BLOCK / 4) & !1;
        let pair = match self.mode {
            Mode::Array | Mode::Status => {
                self.erase_step();
                u64::from(self.status()).wrapping_mul(LANES)
            }
            Mode::Identifier => pair(&IDENTIFIERS, 0, index),
            Mode::Query => pair(&QUERY, QUERY_START, index),
        };
        pair >> shift(offset) & size.mask()
    }

    /// A store, likewise.
    pub(super) fn write(&mut self, offset: u64, size: AccessSize, value: u64) {
        // SPEC: a chip that is busy takes nothing but a suspension, which there is none of here.
        if self.erasing.is_some() {
            return;
        }
        let [command, ..] = value.to_le_bytes();
        let store = Store { offset, size, value };
        match mem::replace(&mut self.expected, Expected::Command) {
            Expected::Command => self.command(command, offset),
            Expected::Word => self.program(store),
            Expected::Erase(start) if command == CONFIRM => {
                self.erasing = Some((start, start.saturating_add(BLOCK)));
                self.erased = self.erased.saturating_add(1);
            }
            Expected::Lock if matches!(command, 0x01 | 0x2f | CONFIRM) => {}
            Expected::Count if usize::from(command) < BUFFER => {
                self.buffer.clear();
                self.expected = Expected::Words(usize::from(command).saturating_add(1));
            }
            Expected::Words(left) => {
                self.buffer.push(store);
                let left = left.saturating_sub(1);
                self.expected = if left == 0 { Expected::Program } else { Expected::Words(left) };
            }
            Expected::Program if command == CONFIRM => {
                let buffer = mem::take(&mut self.buffer);
                buffer.iter().for_each(|store| self.program(*store));
                self.buffer = buffer;
            }
            Expected::Erase(_) | Expected::Lock | Expected::Count | Expected::Program => {
                self.failures |= ERASE_FAILED | PROGRAM_FAILED;
            }
        }
    }

    fn command(&mut self, command: u8, offset: u64) {
        self.expected = match command {
            0x10 | 0x40 => Expected::Word,
            0x20 => Expected::Erase(offset.saturating_sub(offset % BLOCK)),
            0x60 => Expected::Lock,
            0xe8 => Expected::Count,
            _ => Expected::Command,
        };
        self.mode = match command {
            0x50 => {
                self.failures = 0;
                return;
            }
            0x90 => Mode::Identifier,
            0x98 => Mode::Query,
            0x70 => Mode::Status,
            _ if self.expected != Expected::Command => Mode::Status,
            // 0xff; and whatever else drivers of other chips try.
            _ => Mode::Array,
        };
    }

    fn status(&self) -> u8 {
        if self.erasing.is_some() { 0 } else { READY | self.failures }
    }

    /// Programming makes zeroes of ones, and never the other way round.
    fn program(&mut self, Store { offset, size, value }: Store) {
        let ones = !(size.mask() << shift(offset)) | (value & size.mask()) << shift(offset);
        if let Some(word) = self.word(offset) {
            *word &= ones;
        }
        self.programmed = self.programmed.saturating_add(1);
    }

    /// Goes on erasing, if there is something to be erased: the guest waits for it, by a load for each step.
    fn erase_step(&mut self) {
        let Some((start, end)) = self.erasing else { return };
        let next = start.saturating_add(STEP);
        self.erasing = (next < end).then_some((next, end));
        let index = |offset: u64| usize::try_from(offset / 8).unwrap_or(usize::MAX);
        if let Some(words) = self.array.get_mut(index(start)..index(next)) {
            words.fill(u64::MAX);
        }
    }

    fn word(&mut self, offset: u64) -> Option<&mut u64> {
        self.array.get_mut(usize::try_from(offset / 8).ok()?)
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, erased, programmed, .. } = self;
        write!(f, "{mode:?}, status {:#x}; {erased} blocks erased, {programmed} words programmed", self.status())
    }
}

/// Where in eight bytes the byte at `offset` begins, in bits.
const fn shift(offset: u64) -> u64 {
    (offset % 8) << 3
}

/// What both chips have in the words `index` and the next of a table that begins at `start`; zero outside.
fn pair(table: &[u8], start: u64, index: u64) -> u64 {
    let byte = |index: u64| {
        let place = index.checked_sub(start).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| table.get(place)).map_or(0, |byte| u64::from(*byte) * 0x0001_0001)
    };
    byte(index) | byte(index.saturating_add(1)) << 32
}
