//! Aborts that are no simple device access.

use crate::policy::{Action, Unsupported};
use crate::testing::{NOWHERE, RAM, ROM, STARTED, World, data_abort, fetch_abort, load, store};
use crate::vcpu::{El1Register, Next};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicUsize, Ordering};
use types::{AccessSize, Ipa, Pstate, Range, RawExit, RawExitKind};
use vdev::testkit::Ram;
use vdev::{Cause, GuestMemory, MemoryFault};

const ISV: u64 = 1 << 24;
const WNR: u64 = 1 << 6;
const CM: u64 = 1 << 8;
const S1PTW: u64 = 1 << 7;
const TRANSLATION: u64 = 0x07;
const PERMISSION: u64 = 0x0f;

#[test]
fn a_guest_that_jumps_to_nowhere_ends_alone_with_code_5() {
    let mut world = World::new();
    // No vectors set up: VBAR_EL1 is zero, and there is nothing at zero.
    world.vcpus[0].context.pc = NOWHERE.0;
    assert_eq!(world.exit(fetch_abort(NOWHERE, TRANSLATION)), Next::Resume);
    assert_eq!(world.pc(), 0x200, "it gets the abort that a machine would give it");
    assert_eq!(world.el1(El1Register::Esr), 0x21 << 26 | 1 << 25 | 0x10);
    assert_eq!(world.el1(El1Register::Far), NOWHERE.0);
    assert_eq!(world.el1(El1Register::Elr), NOWHERE.0);
    assert_eq!(world.exit(fetch_abort(Ipa(0x200), TRANSLATION)), Next::Stop, "and cannot take it");
    let end = world.vm.lifecycle.end().unwrap();
    assert_eq!(end.cause, Cause::Unsupported);
    assert!(end.detail.contains("exception vector 0x200") && end.detail.contains("ELR_EL1 0x20000000"), "{end}");
}

#[test]
fn on_sp_el0_the_way_to_the_end_is_one_abort_longer() {
    let mut world = World::new();
    world.vcpus[0].context.pc = 0;
    world.vcpus[0].context.pstate = Pstate::EL1T;
    assert_eq!(world.exit(fetch_abort(Ipa(0), TRANSLATION)), Next::Resume);
    assert_eq!(world.pc(), 0);
    assert_eq!(world.exit(fetch_abort(Ipa(0), TRANSLATION)), Next::Resume);
    assert_eq!(world.pc(), 0x200);
    assert_eq!(world.exit(fetch_abort(Ipa(0x200), TRANSLATION)), Next::Stop);
}

#[test]
fn a_guest_with_vectors_lives_on() {
    let mut world = World::new();
    world.cpus[0].el1.insert(El1Register::Vbar, RAM.0);
    for _ in 0..3 {
        world.vcpus[0].context.pc = NOWHERE.0;
        assert_eq!(world.exit(fetch_abort(NOWHERE, TRANSLATION)), Next::Resume);
        assert_eq!(world.pc(), RAM.0 + 0x200);
    }
}

#[test]
fn a_fetch_from_nothing_ends_the_vm_if_the_configuration_says_abort() {
    let mut world = World::with_policy(Unsupported { reference: Action::Abort, ..Unsupported::default() });
    world.cpus[0].el1.insert(El1Register::Vbar, RAM.0);
    assert_eq!(world.exit(fetch_abort(NOWHERE, TRANSLATION)), Next::Stop);
    assert_eq!(world.vm.lifecycle.end().unwrap().cause.code(), 5);
}

#[test]
fn a_fetch_from_el0_is_reported_as_from_below() {
    let mut world = World::new();
    world.vcpus[0].context.pstate = Pstate::EL0T;
    let _ = world.exit(fetch_abort(NOWHERE, TRANSLATION));
    assert_eq!(world.el1(El1Register::Esr) >> 26, 0x20);
    assert_eq!(world.pc(), 0x400);
}

#[test]
fn cache_maintenance_outside_ram_does_nothing() {
    for status in [TRANSLATION, PERMISSION] {
        let mut world = World::with_policy(Unsupported {
            instruction: Action::Abort,
            reference: Action::Abort,
            register: Action::Abort,
        });
        let pc = world.pc();
        assert_eq!(world.exit(data_abort(NOWHERE, status | CM | WNR)), Next::Resume);
        assert_eq!(world.pc(), pc + 4);
    }
}

#[test]
fn stores_to_rom_follow_the_reference_policy() {
    let rom_store = |policy| {
        let mut world = World::with_policy(Unsupported { reference: policy, ..Unsupported::default() });
        let exit = store(ROM, AccessSize::Word, 0);
        let pc = world.pc();
        let next = world.exit(RawExit { esr: exit.esr & !0x3f | PERMISSION, hpfar: 0, ..exit });
        (next, world.pc().wrapping_sub(pc), world.el1(El1Register::Esr))
    };
    assert_eq!(rom_store(Action::Ignore), (Next::Resume, 4, 0));
    let (next, _, esr) = rom_store(Action::Fail);
    assert_eq!((next, esr), (Next::Resume, 0x25 << 26 | 1 << 25 | WNR | 0x10));
    assert_eq!(rom_store(Action::Abort).0, Next::Stop);
}

#[test]
fn a_walk_through_tables_that_are_not_there_aborts_at_the_level_of_the_missing_table() {
    // 4 KiB granule, 48 bits: TTBR0 -> level 0 in RAM -> level 1 in RAM -> level 2 at NOWHERE.
    const TG0_4K_48_BITS: u64 = 16;
    let virtual_address = 0x0000_0081_4060_5000_u64;
    let (level_0, level_1) = (Ipa(RAM.0 + 0x1000), Ipa(RAM.0 + 0x2000));
    let index = |level: u64| (virtual_address >> (39 - 9 * level)) & 0x1ff;
    let walk = |table: Ipa| {
        let mut world = World::new();
        world.cpus[0].el1.insert(El1Register::Tcr, TG0_4K_48_BITS);
        world.cpus[0].el1.insert(El1Register::Ttbr0, level_0.0 | 1);
        world.poke(Ipa(level_0.0 + index(0) * 8), level_1.0 | 3);
        world.poke(Ipa(level_1.0 + index(1) * 8), NOWHERE.0 | 3);
        let exit = RawExit { far: virtual_address, ..data_abort(table, S1PTW | 0x05) };
        let _ = world.exit(exit);
        world.el1(El1Register::Esr)
    };
    assert_eq!(walk(NOWHERE), 0x25 << 26 | 1 << 25 | 0x14 | 2, "external abort on walk, level 2");
    assert_eq!(walk(level_1) & 0x3f, 0x14 | 1);
    assert_eq!(walk(level_0) & 0x3f, 0x14);
}

#[test]
fn the_walk_knows_the_granules_and_the_upper_half() {
    // TTBR1, 16 KiB granule (TG1 0b01), 47 bits: first level 1, at NOWHERE.
    let mut world = World::new();
    world.cpus[0].el1.insert(El1Register::Tcr, 1 << 30 | 17 << 16);
    world.cpus[0].el1.insert(El1Register::Ttbr1, NOWHERE.0);
    let _ = world.exit(RawExit { far: u64::MAX << 40, ..data_abort(NOWHERE, S1PTW | 0x05) });
    assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x14 | 1);
    // TTBR0, 64 KiB granule (TG0 0b01), 42 bits: first level 2; its fetch aborts too.
    let mut world = World::new();
    world.cpus[0].el1.insert(El1Register::Tcr, 1 << 14 | 22);
    world.cpus[0].el1.insert(El1Register::Ttbr0, NOWHERE.0);
    let _ = world.exit(RawExit { far: 0x1000, ..fetch_abort(NOWHERE, S1PTW | 0x05) });
    assert_eq!(world.el1(El1Register::Esr), 0x21 << 26 | 1 << 25 | 0x14 | 2);
}

#[test]
fn faults_of_the_real_memory_are_external_aborts() {
    for status in [0x10, 0x18, 0x21, 0x30, 0x08] {
        let mut world = World::new();
        assert_eq!(world.exit(data_abort(RAM, ISV | status)), Next::Resume);
        assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x10, "{status:#x}");
        let mut world = World::new();
        assert_eq!(world.exit(fetch_abort(RAM, status)), Next::Resume);
        assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x10, "{status:#x}");
    }
    let mut world = World::new();
    let _ = world.exit(data_abort(RAM, 0x35));
    assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x35, "an exclusive where there can be none");
    let mut world = World::new();
    let exit = load(RAM, AccessSize::Word, 0);
    let _ = world.exit(RawExit { esr: exit.esr & !0x3f | 0x10 | 1 << 9, ..exit });
    assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x10);
}

#[test]
fn an_serror_ends_the_vm_unless_it_was_corrected() {
    let serror = |iss: u64| RawExit { kind: RawExitKind::SError, esr: 0x2f << 26 | 1 << 25 | iss, far: 0, hpfar: 0 };
    let mut world = World::new();
    assert_eq!(world.exit(serror(0b110 << 10 | 0x11)), Next::Resume, "corrected");
    assert_eq!(world.exit(serror(1 << 24 | 0b110 << 10 | 0x11)), Next::Stop, "implementation defined");
    for iss in [0, 0x11, 0b010 << 10 | 0x11] {
        let mut world = World::new();
        assert_eq!(world.exit(serror(iss)), Next::Stop);
        assert_eq!(world.vm.lifecycle.end().unwrap().cause, Cause::Unexpected);
    }
}

/// Memory of which the guest has given the second page back, and of which so many pages come back.
struct Lent {
    ram: Ram,
    spare: AtomicUsize,
}

const GIVEN: Ipa = Ipa(RAM.0 + 0x1000);

impl GuestMemory for Lent {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.ram.read(from, into)
    }
    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.ram.write(to, from)
    }
    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        self.ram.load(from, size)
    }
    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        self.ram.store(to, size, value)
    }
    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        self.ram.exchange(at, size, expected, new)
    }
    fn recall(&self, at: Ipa) -> Result<bool, MemoryFault> {
        if at.align_down(0x1000) != GIVEN {
            return Ok(false);
        }
        let take = |spare: usize| spare.checked_sub(1);
        self.spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| MemoryFault { at })?;
        Ok(true)
    }
    fn contains(&self, range: Range<Ipa>) -> bool {
        self.ram.contains(range)
    }
}

fn lent(spare: usize) -> World {
    let mut world = World::with_policy(Unsupported {
        instruction: Action::Abort,
        reference: Action::Abort,
        register: Action::Abort,
    });
    let memory = Lent { ram: Ram::new(RAM, 0x4000), spare: spare.into() };
    world.vm.configure(Box::new(memory), STARTED).unwrap();
    world
}

/// By each kind of access: described, not described, a walk of the guest's tables, a fetch.
fn touches() -> [RawExit; 6] {
    [
        load(Ipa(GIVEN.0 + 8), AccessSize::Word, 3),
        store(GIVEN, AccessSize::Byte, 3),
        data_abort(GIVEN, TRANSLATION),
        data_abort(GIVEN, TRANSLATION | WNR),
        data_abort(GIVEN, S1PTW | TRANSLATION),
        fetch_abort(GIVEN, TRANSLATION),
    ]
}

#[test]
fn what_was_given_back_is_there_when_it_is_touched_and_the_guest_tries_again() {
    let mut world = lent(touches().len());
    for touch in touches() {
        let before = (world.pc(), world.vcpus[0].context.register(3));
        assert_eq!(world.exit(touch), Next::Resume, "{touch:?}");
        assert_eq!((world.pc(), world.vcpus[0].context.register(3)), before, "nothing has been done for it: {touch:?}");
        assert!(world.effects.none());
    }
}

#[test]
fn a_vm_that_cannot_have_back_what_it_gave_ends_and_says_so() {
    for touch in touches() {
        let mut world = lent(0);
        assert_eq!(world.exit(touch), Next::Stop, "{touch:?}");
        let end = world.vm.lifecycle.end().unwrap();
        assert_eq!(end.cause.code(), 96);
        assert!(end.detail.contains("which the guest had given back"), "{end}");
    }
}

#[test]
fn what_was_never_memory_does_not_come_back() {
    for touch in [load(NOWHERE, AccessSize::Word, 0), fetch_abort(NOWHERE, TRANSLATION)] {
        let mut world = lent(5);
        assert_eq!(world.exit(touch), Next::Stop);
        assert_eq!(world.vm.lifecycle.end().unwrap().cause, Cause::Unsupported);
    }
}
