//! Loads and stores as the guest's code spells them.
//!
//! Answers for: taking an A64 instruction word apart that moves registers to or from memory (DDI 0487, "Loads and stores").
//! Does not answer for: fetching it, nor for carrying it out (`emulate`). Exclusive and atomic instructions, structures of
//! vectors and what clears whole blocks are recognised, because the architecture has an answer of its own for some of them
//! where there is no memory; they are not taken apart.

use super::syndrome::fault;
use types::AccessSize;

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Moves one or two registers.
    Transfer(Transfer),
    /// Something that cannot be split into plain accesses.
    Refused {
        /// The fault status that a machine answers with where no memory is.
        status: u64,
    },
}

/// A load or store of one or two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// From memory to registers.
    pub is_load: bool,
    /// Vector registers; general ones otherwise, where 31 is the zero register.
    pub is_vector: bool,
    /// Log2 of the bytes of one register's part, 0 to 4.
    pub scale: u32,
    /// How a load fills a general register.
    pub extension: Extension,
    /// The first register; its part has the lower address.
    pub first: u8,
    /// The second register of a pair.
    pub second: Option<u8>,
    /// Where it goes.
    pub address: Address,
    /// What is added to the base register afterwards.
    pub write_back: Option<i64>,
}

/// What a load leaves above what it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Zeros.
    Zero,
    /// The sign, up to 32 bits, then zeros.
    SignTo32,
    /// The sign.
    SignTo64,
}

impl Extension {
    /// What a load of `value` leaves in the register.
    #[must_use]
    pub const fn extend(self, size: AccessSize, value: u64) -> u64 {
        match self {
            Self::Zero => value & size.mask(),
            Self::SignTo32 => size.sign_extend(value) & 0xffff_ffff,
            Self::SignTo64 => size.sign_extend(value),
        }
    }
}

/// How the address is formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// A base register (31 is the stack pointer) and a constant.
    Immediate {
        /// `Rn`.
        base: u8,
        /// In bytes.
        offset: i64,
    },
    /// A base register (31 is the stack pointer) and an index register (31 is the zero register).
    Register {
        /// `Rn`.
        base: u8,
        /// `Rm`.
        index: u8,
        /// Of the index, its lower half alone counts.
        is_word: bool,
        /// That half has a sign.
        is_signed: bool,
        /// By how many bits the index is moved up.
        shift: u32,
    },
    /// The instruction's own address and a constant.
    Literal {
        /// In bytes.
        offset: i64,
    },
}

const OTHER: Instruction = Instruction::Refused { status: fault::EXTERNAL };
/// No exclusive monitor watches what is not memory.
const EXCLUSIVE: Instruction = Instruction::Refused { status: fault::UNSUPPORTED_EXCLUSIVE_OR_ATOMIC };
/// DC ZVA takes what is not Normal memory for misaligned.
const ZEROING: Instruction = Instruction::Refused { status: fault::ALIGNMENT };

impl Instruction {
    /// What the word `word` means. Never fails: what is no load or store at all is refused as well.
    #[must_use]
    pub const fn decode(word: u32) -> Self {
        /// `DC ZVA, Xt`.
        const DC_ZVA: u32 = 0xd50b_7420;
        if word & !0x1f == DC_ZVA {
            return ZEROING;
        }
        // Bits 29:27 and 25 tell the groups apart; 31, 30, 26 and 24 belong to them.
        match (field(word, 27, 3), field(word, 25, 1)) {
            (0b001, 0) if !vector(word) && field(word, 24, 1) == 0 => EXCLUSIVE,
            (0b011, 0) if field(word, 24, 1) == 0 => literal(word),
            (0b101, _) => pair(word),
            (0b111, 0) => single(word),
            _ => OTHER,
        }
    }
}

const fn field(word: u32, lowest: u32, bits: u32) -> u32 {
    (word >> lowest) & !(u32::MAX << bits)
}

/// The same with a sign.
const fn signed(word: u32, lowest: u32, bits: u32) -> i64 {
    let above = 64_u32.wrapping_sub(bits);
    ((field(word, lowest, bits) as i64) << above) >> above
}

/// A register's number.
const fn register(word: u32, lowest: u32) -> u8 {
    ((word >> lowest) & 0x1f) as u8
}

/// `V`.
const fn vector(word: u32) -> bool {
    field(word, 26, 1) != 0
}

/// Load register (literal).
const fn literal(word: u32) -> Instruction {
    let opc = field(word, 30, 2);
    if opc == 0b11 {
        return OTHER; // PRFM, or not allocated
    }
    let (scale, extension) = match (vector(word), opc) {
        (false, 0b10) => (2, Extension::SignTo64),
        _ => (opc.wrapping_add(2), Extension::Zero),
    };
    Instruction::Transfer(Transfer {
        is_load: true,
        is_vector: vector(word),
        scale,
        extension,
        first: register(word, 0),
        second: None,
        address: Address::Literal { offset: signed(word, 5, 19) << 2 },
        write_back: None,
    })
}

/// Load/store register pair, and no-allocate pair.
const fn pair(word: u32) -> Instruction {
    let opc = field(word, 30, 2);
    let (mode, is_load) = (field(word, 23, 3), field(word, 22, 1) != 0);
    let (scale, extension) = match (vector(word), opc) {
        // LDPSW; without L it is STGP, and without allocation nothing.
        (false, 0b01) if is_load && mode != 0 => (2, Extension::SignTo64),
        (_, 0b11) | (false, 0b01) => return OTHER,
        (true, _) => (opc.wrapping_add(2), Extension::Zero),
        (false, _) => (2 | opc >> 1, Extension::Zero),
    };
    let distance = signed(word, 15, 7) << scale;
    let (offset, write_back) = match mode {
        0b000 | 0b010 => (distance, None),
        0b001 => (0, Some(distance)),
        0b011 => (distance, Some(distance)),
        _ => return OTHER,
    };
    Instruction::Transfer(Transfer {
        is_load,
        is_vector: vector(word),
        scale,
        extension,
        first: register(word, 0),
        second: Some(register(word, 10)),
        address: Address::Immediate { base: register(word, 5), offset },
        write_back,
    })
}

/// Load/store register in all its addressing modes.
const fn single(word: u32) -> Instruction {
    let (size, opc) = (field(word, 30, 2), field(word, 22, 2));
    let scale = if vector(word) { size | (opc & 2) << 1 } else { size };
    let (is_load, extension) = match (vector(word), opc) {
        (true, _) if scale > 4 => return OTHER,
        (true, _) => (opc & 1 != 0, Extension::Zero),
        (false, 0b00) => (false, Extension::Zero),
        (false, 0b01) => (true, Extension::Zero),
        (false, 0b10) if size < 3 => (true, Extension::SignTo64),
        (false, 0b11) if size < 2 => (true, Extension::SignTo32),
        (false, _) => return OTHER, // PRFM, or not allocated
    };
    let base = register(word, 5);
    let near = signed(word, 12, 9);
    let is_scaled = field(word, 24, 1) != 0;
    let (address, write_back) = match (is_scaled, field(word, 21, 1), field(word, 10, 2)) {
        (true, ..) => (Address::Immediate { base, offset: (field(word, 10, 12) as i64) << scale }, None),
        // Unscaled, and that of an EL0 access by EL1, which vectors do not have.
        (false, 0, 0b00) => (Address::Immediate { base, offset: near }, None),
        (false, 0, 0b10) if !vector(word) => (Address::Immediate { base, offset: near }, None),
        (false, 0, 0b01) => (Address::Immediate { base, offset: 0 }, Some(near)),
        (false, 0, 0b11) => (Address::Immediate { base, offset: near }, Some(near)),
        (false, 1, 0b00) if !vector(word) => return EXCLUSIVE, // LDADD, SWP and their kin
        (false, 1, 0b10) => match indexed(word, scale) {
            Some(address) => (address, None),
            None => return OTHER,
        },
        // LDRAA, LDRAB; not allocated.
        _ => return OTHER,
    };
    Instruction::Transfer(Transfer {
        is_load,
        is_vector: vector(word),
        scale,
        extension,
        first: register(word, 0),
        second: None,
        address,
        write_back,
    })
}

const fn indexed(word: u32, scale: u32) -> Option<Address> {
    let (is_word, is_signed) = match field(word, 13, 3) {
        0b010 => (true, false),
        0b011 => (false, false),
        0b110 => (true, true),
        0b111 => (false, true),
        _ => return None,
    };
    let shift = if field(word, 12, 1) != 0 { scale } else { 0 };
    Some(Address::Register { base: register(word, 5), index: register(word, 16), is_word, is_signed, shift })
}

#[cfg(test)]
mod tests;
