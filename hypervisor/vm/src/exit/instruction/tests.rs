//! Each form against words that an assembler made.

use super::*;
use Extension::{SignTo32, SignTo64, Zero};
use proptest::prelude::*;

const LOAD: bool = true;
const STORE: bool = false;
const SP: u8 = 31;

fn transfer(word: u32) -> Transfer {
    match Instruction::decode(word) {
        Instruction::Transfer(transfer) => transfer,
        refused => panic!("{word:#010x}: {refused:?}"),
    }
}

fn near(base: u8, offset: i64) -> Address {
    Address::Immediate { base, offset }
}

/// Checks a pair: direction, vector, scale, extension, registers, address, what is written back.
fn pair_is(
    word: u32,
    is_load: bool,
    part: (bool, u32, Extension),
    registers: (u8, u8),
    at: (u8, i64),
    back: Option<i64>,
) {
    let (is_vector, scale, extension) = part;
    let expected = Transfer {
        is_load,
        is_vector,
        scale,
        extension,
        first: registers.0,
        second: Some(registers.1),
        address: near(at.0, at.1),
        write_back: back,
    };
    assert_eq!(transfer(word), expected, "{word:#010x}");
}

#[test]
fn pairs_of_general_registers() {
    let (w, x, sw) = ((false, 2, Zero), (false, 3, Zero), (false, 2, SignTo64));
    pair_is(0xa940_0440, LOAD, x, (0, 1), (2, 0), None); // ldp x0, x1, [x2]
    pair_is(0x2960_13e3, LOAD, w, (3, 4), (SP, -256), None); // ldp w3, w4, [sp, #-256]
    pair_is(0x695f_98e5, LOAD, sw, (5, 6), (7, 252), None); // ldpsw x5, x6, [x7, #252]
    pair_is(0xa91f_fd28, STORE, x, (8, 31), (9, 504), None); // stp x8, xzr, [x9, #504]
    pair_is(0x29bf_2d8a, STORE, w, (10, 11), (12, -8), Some(-8)); // stp w10, w11, [x12, #-8]!
    pair_is(0xa8c1_39ed, LOAD, x, (13, 14), (15, 0), Some(16)); // ldp x13, x14, [x15], #16
    pair_is(0xa820_4650, STORE, x, (16, 17), (18, -512), None); // stnp x16, x17, [x18, #-512]
    pair_is(0x2841_52b3, LOAD, w, (19, 20), (21, 8), None); // ldnp w19, w20, [x21, #8]
}

#[test]
fn pairs_of_vector_registers() {
    let (s, d, q) = ((true, 2, Zero), (true, 3, Zero), (true, 4, Zero));
    pair_is(0xad7f_0440, LOAD, q, (0, 1), (2, -32), None); // ldp q0, q1, [x2, #-32]
    pair_is(0x6c81_0fe2, STORE, d, (2, 3), (SP, 0), Some(16)); // stp d2, d3, [sp], #16
    pair_is(0x2dff_94c4, LOAD, s, (4, 5), (6, -4), Some(-4)); // ldp s4, s5, [x6, #-4]!
    pair_is(0xac1f_fd07, STORE, q, (7, 31), (8, 1008), None); // stnp q7, q31, [x8, #1008]
}

/// Checks a single register: direction, vector, scale, extension, register, address, what is written back.
fn single_is(word: u32, is_load: bool, part: (bool, u32, Extension), first: u8, address: Address, back: Option<i64>) {
    let (is_vector, scale, extension) = part;
    let expected = Transfer { is_load, is_vector, scale, extension, first, second: None, address, write_back: back };
    assert_eq!(transfer(word), expected, "{word:#010x}");
}

#[test]
fn general_registers_with_write_back() {
    let zero = |scale| (false, scale, Zero);
    single_is(0xf840_8420, LOAD, zero(3), 0, near(1, 0), Some(8)); // ldr x0, [x1], #8
    single_is(0xb81f_cc62, STORE, zero(2), 2, near(3, -4), Some(-4)); // str w2, [x3, #-4]!
    single_is(0x38c0_14a4, LOAD, (false, 0, SignTo32), 4, near(5, 0), Some(1)); // ldrsb w4, [x5], #1
    single_is(0x3890_04a4, LOAD, (false, 0, SignTo64), 4, near(5, 0), Some(-256)); // ldrsb x4, [x5], #-256
    single_is(0x7840_2fe6, LOAD, zero(1), 6, near(SP, 2), Some(2)); // ldrh w6, [sp, #2]!
    single_is(0x78cf_fce6, LOAD, (false, 1, SignTo32), 6, near(7, 255), Some(255)); // ldrsh w6, [x7, #255]!
    single_is(0xb880_4528, LOAD, (false, 2, SignTo64), 8, near(9, 0), Some(4)); // ldrsw x8, [x9], #4
    single_is(0x3800_155f, STORE, zero(0), 31, near(10, 0), Some(1)); // strb wzr, [x10], #1
    single_is(0xf85f_f907, LOAD, zero(3), 7, near(8, -1), None); // ldtr x7, [x8, #-1]
    single_is(0x3800_1907, STORE, zero(0), 7, near(8, 1), None); // sttrb w7, [x8, #1]
}

#[test]
fn vector_registers_of_all_sizes() {
    let part = |scale| (true, scale, Zero);
    single_is(0x3d40_0020, LOAD, part(0), 0, near(1, 0), None); // ldr b0, [x1]
    single_is(0x7d40_0462, LOAD, part(1), 2, near(3, 2), None); // ldr h2, [x3, #2]
    single_is(0xbd3f_fca4, STORE, part(2), 4, near(5, 16380), None); // str s4, [x5, #16380]
    single_is(0xfc40_8ce6, LOAD, part(3), 6, near(7, 8), Some(8)); // ldr d6, [x7, #8]!
    single_is(0x3c9f_0528, STORE, part(4), 8, near(9, 0), Some(-16)); // str q8, [x9], #-16
    single_is(0x3dff_fd6a, LOAD, part(4), 10, near(11, 65520), None); // ldr q10, [x11, #65520]
    single_is(0x3cdf_d1ac, LOAD, part(4), 12, near(13, -3), None); // ldur q12, [x13, #-3]
}

#[test]
fn indexed_addresses() {
    let at = |base, index, is_word, is_signed, shift| Address::Register { base, index, is_word, is_signed, shift };
    let part = |scale| (true, scale, Zero);
    single_is(0x3cb0_79ee, STORE, part(4), 14, at(15, 16, false, false, 4), None); // str q14, [x15, x16, lsl #4]
    single_is(0xfc73_5a51, LOAD, part(3), 17, at(18, 19, true, false, 3), None); // ldr d17, [x18, w19, uxtw #3]
    single_is(0xbc76_cab4, LOAD, part(2), 20, at(21, 22, true, true, 0), None); // ldr s20, [x21, w22, sxtw]
    single_is(0x3c3f_ebf7, STORE, part(0), 23, at(SP, 31, false, true, 0), None); // str b23, [sp, xzr, sxtx]
    single_is(0x7c63_6841, LOAD, part(1), 1, at(2, 3, false, false, 0), None); // ldr h1, [x2, x3]
    single_is(0xf866_d8a4, LOAD, (false, 3, Zero), 4, at(5, 6, true, true, 3), None); // ldr x4, [x5, w6, sxtw #3]
}

#[test]
fn literals() {
    let at = |offset| Address::Literal { offset };
    single_is(0x187f_ffe0, LOAD, (false, 2, Zero), 0, at(1_048_572), None); // ldr w0, .+1048572
    single_is(0x5880_0001, LOAD, (false, 3, Zero), 1, at(-1_048_576), None); // ldr x1, .-1048576
    single_is(0x9800_0042, LOAD, (false, 2, SignTo64), 2, at(8), None); // ldrsw x2, .+8
    single_is(0x9c00_0083, LOAD, (true, 4, Zero), 3, at(16), None); // ldr q3, .+16
    single_is(0x1c00_0083, LOAD, (true, 2, Zero), 3, at(16), None); // ldr s3, .+16
}

#[test]
fn what_cannot_be_split_gets_the_architectures_answer() {
    let status = |word| match Instruction::decode(word) {
        Instruction::Refused { status } => status,
        transfer => panic!("{word:#010x}: {transfer:?}"),
    };
    // ldxr, stlxr, ldxp, cas, ldadd, swp
    for word in [0xc85f_7c20, 0xc800_fc41, 0xc87f_0440, 0xc8a0_7c41, 0xf820_0041, 0xb820_8041] {
        assert_eq!(status(word), 0b11_0101, "{word:#010x}: unsupported exclusive or atomic access");
    }
    assert_eq!(status(0xd50b_7423), 0b10_0001, "dc zva, x3: alignment");
    // ld1 {v0.16b}; st1 {v0.16b, v1.16b}, post-indexed; ld1 of a lane; prfm, also literal; ldraa with write-back;
    // add; nop; stgp; zero.
    for word in [
        0x4c40_7020,
        0x4c9f_a020,
        0x0d40_0420,
        0xf980_0000,
        0xd800_0040,
        0xf820_1c20,
        0x8b02_0020,
        0xd503_201f,
        0x6900_0000,
        0,
    ] {
        assert_eq!(status(word), 0b01_0000, "{word:#010x}: external abort");
    }
}

#[test]
fn a_load_fills_its_register_as_it_says() {
    assert_eq!(Zero.extend(AccessSize::Byte, 0xffff_ff80), 0x80);
    assert_eq!(SignTo32.extend(AccessSize::Byte, 0x80), 0xffff_ff80);
    assert_eq!(SignTo64.extend(AccessSize::Word, 0x8000_0000), 0xffff_ffff_8000_0000);
    assert_eq!(Zero.extend(AccessSize::Doubleword, u64::MAX), u64::MAX);
}

proptest! {
    #[test]
    fn any_word_is_a_sensible_transfer_or_refused(word: u32) {
        if let Instruction::Transfer(transfer) = Instruction::decode(word) {
            prop_assert!(transfer.scale <= 4 && (transfer.is_vector || transfer.scale <= 3));
            prop_assert!(transfer.first < 32 && transfer.second.is_none_or(|second| second < 32));
            prop_assert!(!transfer.is_vector || transfer.extension == Zero);
            prop_assert!(transfer.is_load || transfer.extension == Zero);
        }
    }

    #[test]
    fn pairs_and_singles_are_found_wherever_they_are(fields: u32) {
        // Load/store register, unsigned offset, 64 bits; pair with offset, 64 bits: every value of the other fields.
        let pairs = [0xf900_0000_u32, 0xa900_0000].map(|word| match Instruction::decode(word | fields & 0x007f_ffff) {
            Instruction::Transfer(transfer) => Some(transfer.second.is_some()),
            Instruction::Refused { .. } => None,
        });
        prop_assert_eq!(pairs, [Some(false), Some(true)]);
    }
}
