//! Registers that the guest reads without an exit: what exits all the same.

use crate::policy::{Action, Unsupported};
use crate::testing::{DEVICE, Probe, RAM, ROM, Wishes, World, data_abort, fetch_abort, load, store};
use crate::vcpu::{El1Register, Next, Reason};
use types::{AccessSize, Ipa, RawExit, VcpuId};

const WNR: u64 = 1 << 6;
const CM: u64 = 1 << 8;
const PERMISSION: u64 = 0x0f;
/// Behind the registers, in the same page.
const BESIDE: Ipa = Ipa(DEVICE.0 + 0x800);

fn world(action: Action) -> World {
    let policy = Unsupported { reference: action, instruction: action, ..Unsupported::default() };
    World::with(Wishes { shadow: true, policy, ..Wishes::default() })
}

/// As the architecture reports it: `HPFAR_EL2` is of another exit (DDI 0487, "HPFAR_EL2").
fn forbidden(exit: RawExit) -> RawExit {
    RawExit { esr: exit.esr & !0x3f | PERMISSION, hpfar: 0x1230, ..exit }
}

fn forbidden_store(at: Ipa, size: AccessSize) -> RawExit {
    forbidden(store(at, size, 1))
}

fn stored(world: &mut World) -> u64 {
    let _ = world.exit(load(Ipa(DEVICE.0 + Probe::STORED), AccessSize::Doubleword, 2));
    world.x(2)
}

#[test]
fn a_store_to_a_register_is_the_devices() {
    for size in [AccessSize::Byte, AccessSize::Word, AccessSize::Doubleword] {
        let mut world = world(Action::Abort);
        world.vcpus[0].context.x[1] = 0x1122_3344_5566_7788;
        let pc = world.pc();
        assert_eq!(world.exit(forbidden_store(Ipa(DEVICE.0 + Probe::STORED), size)), Next::Resume);
        assert_eq!((world.pc(), stored(&mut world)), (pc + 4, 0x1122_3344_5566_7788 & size.mask()));
        let exits = world.vm.exits(VcpuId(0)).unwrap();
        assert_eq!((exits.get(Reason::Mmio), exits.get(Reason::Abort)), (2, 0));
    }
}

#[test]
fn what_the_device_answers_is_done() {
    let mut world = world(Action::Abort);
    assert_eq!(world.exit(forbidden_store(Ipa(DEVICE.0 + Probe::END), AccessSize::Word)), Next::Stop);
    let mut world = self::world(Action::Abort);
    let exit = forbidden_store(Ipa(DEVICE.0 + Probe::BUS_ERROR), AccessSize::Word);
    assert_eq!(world.exit(exit), Next::Resume);
    assert_eq!(world.el1(El1Register::Esr), 0x25 << 26 | 1 << 25 | WNR | 0x10);
    assert_eq!(world.el1(El1Register::Far), exit.far);
}

#[test]
fn beside_the_registers_nobody_is() {
    // A size that the device does not take is no access of it either.
    for (at, size) in [(BESIDE, AccessSize::Word), (DEVICE, AccessSize::Halfword)] {
        let answer = |action| {
            let mut world = world(action);
            let pc = world.pc();
            let next = world.exit(forbidden_store(at, size));
            (next, world.pc().wrapping_sub(pc), world.el1(El1Register::Esr), stored(&mut world))
        };
        assert_eq!(answer(Action::Ignore), (Next::Resume, 4, 0, 0));
        let (next, _, esr, _) = answer(Action::Fail);
        assert_eq!((next, esr), (Next::Resume, 0x25 << 26 | 1 << 25 | WNR | 0x10));
        assert_eq!(answer(Action::Abort).0, Next::Stop);
    }
}

#[test]
fn a_store_that_only_the_instruction_describes_is_done_part_by_part() {
    const STP_X8_XZR_504: u32 = 0xa91f_fd28; // stp x8, xzr, [x9, #504]
    let mut world = world(Action::Abort);
    let pc = world.pc();
    world.vm.memory().store(Ipa(pc & 0xffff_ffff_ffff), AccessSize::Word, STP_X8_XZR_504.into()).unwrap();
    (world.vcpus[0].context.x[8], world.vcpus[0].context.x[9]) = (0x55, DEVICE.0 - 504);
    let exit = RawExit { far: DEVICE.0, ..forbidden(data_abort(DEVICE, WNR)) };
    assert_eq!(world.exit(exit), Next::Resume);
    assert_eq!(
        (world.pc(), stored(&mut world)),
        (pc + 4, 0),
        "the second part, at another register that keeps what it gets"
    );
    assert_eq!(world.vm.exits(VcpuId(0)).unwrap().get(Reason::Abort), 1);
}

#[test]
fn cache_maintenance_finds_nothing_to_do() {
    let mut world = world(Action::Abort);
    let pc = world.pc();
    assert_eq!(world.exit(forbidden(data_abort(DEVICE, WNR | CM))), Next::Resume);
    assert_eq!(world.pc(), pc + 4);
}

#[test]
fn there_is_nothing_to_execute() {
    let fetch = |action| {
        let mut world = world(action);
        let next = world.exit(forbidden(fetch_abort(DEVICE, 0)));
        (next, world.el1(El1Register::Esr))
    };
    for action in [Action::Ignore, Action::Fail] {
        assert_eq!(fetch(action), (Next::Resume, 0x21 << 26 | 1 << 25 | 0x10));
    }
    assert_eq!(fetch(Action::Abort).0, Next::Stop);
}

#[test]
fn rom_and_a_vm_without_such_pages_are_as_before() {
    for shadow in [false, true] {
        let policy = Unsupported { reference: Action::Ignore, ..Unsupported::default() };
        let mut world = World::with(Wishes { shadow, policy, ..Wishes::default() });
        for at in [ROM, RAM] {
            let pc = world.pc();
            assert_eq!(world.exit(forbidden_store(at, AccessSize::Word)), Next::Resume);
            assert_eq!(world.pc(), pc + 4, "ignored");
        }
        assert_eq!(world.vm.exits(VcpuId(0)).unwrap().get(Reason::Abort), 2);
    }
}

#[test]
fn who_has_lost_the_page_meanwhile_meets_what_is_there_now() {
    let mut world = world(Action::Abort);
    world.cpus[0].unmapped = true;
    let pc = world.pc();
    assert_eq!(world.exit(forbidden_store(DEVICE, AccessSize::Word)), Next::Resume);
    world.cpus[0].unmapped = false;
    assert_eq!((world.pc(), stored(&mut world)), (pc, 0));
}
