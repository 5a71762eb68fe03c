//! Loads and stores that only the instruction describes.

use crate::policy::{Action, Unsupported};
use crate::testing::{DEVICE, DISTRIBUTOR, NOWHERE, Probe, RAM, ROM, World, data_abort};
use crate::vcpu::{El1Register, Next};
use types::{AccessSize, Ipa, Pstate};
use vdev::Cause;

const WNR: u64 = 1 << 6;
const TRANSLATION: u64 = 0x07;
const PERMISSION: u64 = 0x0f;
const UPPER: u64 = 0xffff_0000_0000_0000;

const LDP_X0_X1: u32 = 0xa940_0440; // ldp x0, x1, [x2]
const LDP_X13_X14_POST_16: u32 = 0xa8c1_39ed; // ldp x13, x14, [x15], #16
const STP_X8_XZR_504: u32 = 0xa91f_fd28; // stp x8, xzr, [x9, #504]
const STP_W10_W11_PRE_8: u32 = 0x29bf_2d8a; // stp w10, w11, [x12, #-8]!
const LDPSW_X5_X6_252: u32 = 0x695f_98e5; // ldpsw x5, x6, [x7, #252]
const LDRSB_W4_POST_1: u32 = 0x38c0_14a4; // ldrsb w4, [x5], #1
const STRB_WZR_POST_1: u32 = 0x3800_155f; // strb wzr, [x10], #1
const LDRH_W6_SP_PRE_2: u32 = 0x7840_2fe6; // ldrh w6, [sp, #2]!
const STR_Q8_POST: u32 = 0x3c9f_0528; // str q8, [x9], #-16
const LDR_S20_SXTW: u32 = 0xbc76_cab4; // ldr s20, [x21, w22, sxtw]
const LDR_Q3_LITERAL_16: u32 = 0x9c00_0083; // ldr q3, .+16
const LDXR_X0: u32 = 0xc85f_7c20; // ldxr x0, [x1]
const DC_ZVA_X3: u32 = 0xd50b_7423;

fn probe(offset: u64) -> Ipa {
    Ipa(DEVICE.0 + offset)
}

/// Runs `word` in `world`, whose registers make it access `at`.
fn run(world: &mut World, word: u32, at: Ipa, iss: u64) -> Next {
    let pc = Ipa(world.pc() & !UPPER);
    world.vm.memory().store(pc, AccessSize::Word, word.into()).unwrap();
    world.exit(data_abort(at, iss))
}

fn step(world: &mut World, word: u32, at: Ipa, iss: u64) {
    let pc = world.pc();
    assert_eq!(run(world, word, at, iss), Next::Resume);
    assert_eq!(world.pc(), pc + 4, "{word:#010x}");
}

fn with_policy(reference: Action, instruction: Action) -> World {
    World::with_policy(Unsupported { reference, instruction, ..Unsupported::default() })
}

#[test]
fn a_pair_is_two_accesses_of_a_device() {
    let mut world = World::new();
    world.vcpus[0].context.x[9] = UPPER | DEVICE.0.wrapping_sub(504);
    world.vcpus[0].context.x[8] = 7;
    step(&mut world, STP_X8_XZR_504, probe(0), TRANSLATION | WNR);
    // The second register goes to RUBBISH, which keeps it: the device has one cell.
    world.vcpus[0].context.x[2] = UPPER | DEVICE.0;
    world.vcpus[0].context.x[0] = 1;
    step(&mut world, LDP_X0_X1, probe(0), TRANSLATION);
    assert_eq!((world.x(0), world.x(1)), (0, u64::MAX), "what XZR stored, and what the second register reads");
    assert_eq!(world.x(2), UPPER | DEVICE.0, "no write-back");
}

#[test]
fn write_back_moves_the_base_register_before_or_after() {
    let mut world = World::new();
    world.vcpus[0].context.x[12] = UPPER | probe(8).0;
    world.vcpus[0].context.x[10] = 0xaaaa_0000_0001;
    world.vcpus[0].context.x[11] = 0xbbbb_0000_0002;
    step(&mut world, STP_W10_W11_PRE_8, probe(0), TRANSLATION | WNR);
    assert_eq!(world.x(12), UPPER | probe(0).0);
    world.vcpus[0].context.x[15] = UPPER | probe(0).0;
    step(&mut world, LDP_X13_X14_POST_16, probe(0), TRANSLATION);
    assert_eq!((world.x(13), world.x(14)), (2, u64::MAX), "the last word stored, cut to its size");
    assert_eq!(world.x(15), UPPER | probe(16).0);
}

#[test]
fn loads_extend_as_their_instruction_says() {
    let mut world = World::new();
    world.vcpus[0].context.x[5] = UPPER | probe(Probe::RUBBISH).0;
    world.vcpus[0].context.x[4] = 0;
    step(&mut world, LDRSB_W4_POST_1, probe(Probe::RUBBISH), TRANSLATION);
    assert_eq!(world.x(4), 0xffff_ffff, "a W register");
    assert_eq!(world.x(5), UPPER | probe(Probe::RUBBISH + 1).0);
    world.vcpus[0].context.x[7] = UPPER | probe(Probe::RUBBISH).0.wrapping_sub(252);
    step(&mut world, LDPSW_X5_X6_252, probe(Probe::RUBBISH), TRANSLATION);
    assert_eq!(world.x(5), u64::MAX);
    assert_eq!(world.x(6), 0, "offset 12 is the device's cell");
}

#[test]
fn register_31_is_zero_as_data_and_the_stack_pointer_in_use_as_a_base() {
    let mut world = World::new();
    world.vcpus[0].context.x[10] = UPPER | DEVICE.0;
    step(&mut world, STRB_WZR_POST_1, probe(0), TRANSLATION | WNR);
    assert_eq!(world.x(10), UPPER | probe(1).0);
    for (pstate, used, other) in [
        (Pstate::EL1H, El1Register::SpEl1, El1Register::SpEl0),
        (Pstate::EL1T, El1Register::SpEl0, El1Register::SpEl1),
        (Pstate::EL0T, El1Register::SpEl0, El1Register::SpEl1),
    ] {
        let mut world = World::new();
        world.vcpus[0].context.pstate = pstate;
        world.cpus[0].el1.insert(used, UPPER | NOWHERE.0 | 0xe);
        step(&mut world, LDRH_W6_SP_PRE_2, Ipa(NOWHERE.0 | 0x10), TRANSLATION);
        assert_eq!(world.x(6), 0xffff);
        assert_eq!((world.el1(used), world.el1(other)), (UPPER | NOWHERE.0 | 0x10, 0), "{pstate:#x}");
    }
}

#[test]
fn vector_registers_travel_in_halves_and_what_is_above_a_part_is_cleared() {
    let mut world = World::new();
    world.vcpus[0].context.x[9] = UPPER | DEVICE.0;
    world.cpus[0].vectors[8] = 5 << 64 | 9;
    step(&mut world, STR_Q8_POST, probe(0), TRANSLATION | WNR);
    assert_eq!(world.x(9), UPPER | (DEVICE.0 - 16));
    world.vcpus[0].context.x[21] = UPPER | (DEVICE.0 + 4);
    world.vcpus[0].context.x[22] = 0x1234_0000_ffff_fffc; // -4
    world.cpus[0].vectors[20] = u128::MAX;
    step(&mut world, LDR_S20_SXTW, probe(0), TRANSLATION);
    assert_eq!(world.cpus[0].vectors[20], 5, "the upper half went to offset 8, the same cell, last");
}

#[test]
fn the_interrupt_controller_is_reached_as_well() {
    let mut world = World::new();
    world.vcpus[0].context.x[12] = UPPER | (DISTRIBUTOR.0 + 0x100 + 8);
    world.vcpus[0].context.x[10] = 0;
    world.vcpus[0].context.x[11] = 0x8000_0001;
    // GICD_ISENABLER0 and 1; the first is the redistributors' and ignored.
    step(&mut world, STP_W10_W11_PRE_8, Ipa(DISTRIBUTOR.0 + 0x100), TRANSLATION | WNR);
    world.vcpus[0].context.x[7] = UPPER | (DISTRIBUTOR.0 + 0x100 - 252);
    step(&mut world, LDPSW_X5_X6_252, Ipa(DISTRIBUTOR.0 + 0x100), TRANSLATION);
    assert_eq!((world.x(5), world.x(6)), (0, 0xffff_ffff_8000_0001));
}

#[test]
fn where_nothing_is_each_part_follows_the_reference_policy() {
    let mut world = with_policy(Action::Ignore, Action::Abort);
    world.vcpus[0].context.pc = UPPER | RAM.0;
    step(&mut world, LDR_Q3_LITERAL_16 & !0x00ff_ffe0, RAM, TRANSLATION);
    assert_eq!(world.cpus[0].vectors[3], u128::MAX);
    world.vcpus[0].context.x[2] = UPPER | NOWHERE.0;
    step(&mut world, LDP_X0_X1, NOWHERE, TRANSLATION);
    assert_eq!((world.x(0), world.x(1)), (u64::MAX, u64::MAX));

    let mut world = with_policy(Action::Fail, Action::Ignore);
    world.vcpus[0].context.x[15] = UPPER | NOWHERE.0;
    let pc = world.pc();
    assert_eq!(run(&mut world, LDP_X13_X14_POST_16, NOWHERE, TRANSLATION), Next::Resume);
    assert_eq!(world.el1(El1Register::Esr), 0x25 << 26 | 1 << 25 | 0x10);
    assert_eq!(world.el1(El1Register::Elr), pc);
    assert_eq!(world.x(15), UPPER | NOWHERE.0, "no effect of an instruction that has failed");

    let mut world = with_policy(Action::Abort, Action::Ignore);
    world.vcpus[0].context.x[2] = UPPER | NOWHERE.0;
    assert_eq!(run(&mut world, LDP_X0_X1, NOWHERE, TRANSLATION), Next::Stop);
    assert_eq!(world.vm.lifecycle.end().unwrap().cause, Cause::Unsupported);
}

#[test]
fn a_bus_error_and_the_end_of_the_vm_come_through() {
    let mut world = World::new();
    world.vcpus[0].context.x[2] = UPPER | probe(Probe::END).0;
    world.vcpus[0].context.x[0] = 3;
    let _ = run(&mut world, LDP_X0_X1, probe(Probe::END), TRANSLATION);
    assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x10, "the second access is a bus error");
    assert_eq!(world.x(0), 3, "and the first leaves no trace in the registers");
    let mut world = World::new();
    world.vcpus[0].context.x[10] = UPPER | probe(Probe::END).0;
    assert_eq!(run(&mut world, STRB_WZR_POST_1, probe(Probe::END), TRANSLATION | WNR), Next::Stop);
    assert_eq!(world.vm.lifecycle.end().unwrap().cause, Cause::Custom(40));
}

#[test]
fn what_is_not_emulated_follows_the_instruction_policy() {
    let syndrome = |word, iss| {
        let mut world = World::new();
        let _ = run(&mut world, word, NOWHERE, TRANSLATION | iss);
        world.el1(El1Register::Esr)
    };
    assert_eq!(syndrome(LDXR_X0, 0), 0x25 << 26 | 1 << 25 | 0x35, "exclusives need memory");
    assert_eq!(syndrome(DC_ZVA_X3, WNR), 0x25 << 26 | 1 << 25 | WNR | 0x21, "as if misaligned");
    assert_eq!(syndrome(0x4c40_7020, 0), 0x25 << 26 | 1 << 25 | 0x10, "ld1: an external abort");
    let mut world = with_policy(Action::Abort, Action::Ignore);
    step(&mut world, LDXR_X0, NOWHERE, TRANSLATION);
    let mut world = with_policy(Action::Ignore, Action::Abort);
    assert_eq!(run(&mut world, LDXR_X0, NOWHERE, TRANSLATION), Next::Stop);
    let end = world.vm.lifecycle.end().unwrap();
    assert!(end.detail.contains("0xc85f7c20"), "{end}");
}

#[test]
fn aarch32_is_not_emulated() {
    let mut world = World::new();
    world.vcpus[0].context.pstate = 0x10;
    world.vcpus[0].context.x[2] = UPPER | NOWHERE.0;
    let _ = run(&mut world, LDP_X0_X1, NOWHERE, TRANSLATION);
    assert_eq!(world.el1(El1Register::Esr), 0x24 << 26 | 1 << 25 | 0x10);
}

#[test]
fn a_pair_may_be_loaded_from_two_pages_whichever_of_them_aborts() {
    for at in [Ipa(DEVICE.0 - 8), DEVICE] {
        let mut world = World::new();
        world.vcpus[0].context.x[2] = UPPER | (DEVICE.0 - 8);
        step(&mut world, LDP_X0_X1, at, TRANSLATION);
        assert_eq!((world.x(0), world.x(1)), (u64::MAX, 0), "nobody, then the device");
    }
}

#[test]
fn what_else_crosses_a_page_is_not_emulated() {
    let refused = |word, start: u64, iss, pstate| {
        let mut world = World::new();
        world.vcpus[0].context.pstate = pstate;
        // Bases of `ldp x0, x1, [x2]` and of `stp x8, xzr, [x9, #504]`.
        (world.vcpus[0].context.x[2], world.vcpus[0].context.x[9]) = (UPPER | start, UPPER | (start - 504));
        let _ = run(&mut world, word, Ipa(start), iss);
        assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x10, "{word:#x} at {start:#x}");
    };
    refused(STP_X8_XZR_504, DEVICE.0 - 8, TRANSLATION | WNR, Pstate::EL1H); // the tables may forbid it
    refused(LDP_X0_X1, DEVICE.0 - 8, TRANSLATION, Pstate::EL0T); // likewise
    refused(LDP_X0_X1, RAM.0 - 8, TRANSLATION, Pstate::EL1H); // half of it is memory
    refused(LDP_X0_X1, DEVICE.0 - 4, TRANSLATION, Pstate::EL1H); // a register in two pages
}

#[test]
fn a_guest_that_changes_its_code_or_tables_meanwhile_meets_what_is_there() {
    let untouched = |world: &mut World, word, iss| {
        let before = world.vcpus[0].context.clone();
        assert_eq!(run(world, word, probe(0), iss), Next::Resume);
        let after = &world.vcpus[0].context;
        assert_eq!((before.x, before.pc), (after.x, after.pc));
    };
    let mut world = World::new();
    world.vcpus[0].context.x[2] = UPPER | NOWHERE.0;
    untouched(&mut world, LDP_X0_X1, TRANSLATION); // somewhere else
    world.vcpus[0].context.x[2] = UPPER | DEVICE.0;
    untouched(&mut world, LDP_X0_X1, TRANSLATION | WNR); // in the other direction
    world.cpus[0].unmapped = true;
    untouched(&mut world, LDP_X0_X1, TRANSLATION); // from a page that is gone
    world.cpus[0].unmapped = false;
    world.vcpus[0].context.x[2] = 0x5aff_0000_0000_0000 | DEVICE.0;
    step(&mut world, LDP_X0_X1, probe(0), TRANSLATION); // a tag in the address is none of it
}

#[test]
fn a_pair_stored_to_rom_vanishes_and_its_base_moves() {
    let mut world = World::new();
    world.vcpus[0].context.x[12] = UPPER | (ROM.0 + 8);
    step(&mut world, STP_W10_W11_PRE_8, ROM, PERMISSION | WNR);
    assert_eq!(world.x(12), UPPER | ROM.0);
    let _ = run(&mut world, LDXR_X0, ROM, PERMISSION | WNR);
    assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x35);
}
