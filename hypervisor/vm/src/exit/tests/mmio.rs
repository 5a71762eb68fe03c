//! Described device accesses, and what is not there.

use crate::policy::{Action, Unsupported};
use crate::testing::{DEVICE, DISTRIBUTOR, NOWHERE, Probe, REDISTRIBUTORS, STARTED, Wishes, World, load, store};
use crate::vcpu::{Cpu, El1Register, Next, Reason};
use types::{AccessSize, IntId, Ipa, RawExit, VcpuId};
use vdev::Cause;

const SIZES: [AccessSize; 4] = [AccessSize::Byte, AccessSize::Halfword, AccessSize::Word, AccessSize::Doubleword];

fn probe(offset: u64) -> Ipa {
    Ipa(DEVICE.0 + offset)
}

fn reference(action: Action) -> Unsupported {
    Unsupported { reference: action, ..Unsupported::default() }
}

#[test]
fn a_store_reaches_the_device_and_a_load_brings_it_back() {
    let mut world = World::new();
    world.vcpus[0].context.x[5] = 0x1122_3344_5566_7788;
    world.vcpus[0].context.x[6] = u64::MAX;
    let pc = world.pc();
    assert_eq!(world.exit(store(probe(Probe::STORED), AccessSize::Word, 5)), Next::Resume);
    assert_eq!(world.exit(load(probe(Probe::STORED), AccessSize::Word, 6)), Next::Resume);
    assert_eq!(world.x(6), 0x5566_7788, "a W register clears the upper half");
    assert_eq!(world.pc(), pc + 8);
    assert_eq!(world.vm.exits(VcpuId(0)).unwrap().get(Reason::Mmio), 2);
}

#[test]
fn bits_above_the_access_size_never_reach_a_register() {
    let mut world = World::new();
    for (size, value) in [(AccessSize::Byte, 0xff), (AccessSize::Word, 0xffff_ffff), (AccessSize::Doubleword, u64::MAX)]
    {
        let _ = world.exit(load(probe(Probe::RUBBISH), size, 3));
        assert_eq!(world.x(3), value);
    }
    let exit = load(probe(Probe::RUBBISH), AccessSize::Byte, 3);
    let _ = world.exit(RawExit { esr: exit.esr | 1 << 21, ..exit });
    assert_eq!(world.x(3), 0xffff_ffff, "LDRSB to a W register");
}

#[test]
fn the_zero_register_stores_zero_and_takes_nothing() {
    let mut world = World::new();
    world.vcpus[0].context.x[1] = 7;
    let _ = world.exit(store(probe(0), AccessSize::Word, 1));
    let _ = world.exit(load(probe(0), AccessSize::Word, 31));
    let _ = world.exit(store(probe(0), AccessSize::Word, 31));
    let _ = world.exit(load(probe(0), AccessSize::Word, 1));
    assert_eq!(world.x(1), 0);
}

#[test]
fn a_device_sees_the_time_of_the_exit() {
    let mut world = World::new();
    world.cpus[0].now = types::Ticks(STARTED.0 + 5);
    let _ = world.exit(load(probe(Probe::NOW), AccessSize::Doubleword, 0));
    assert_eq!(world.x(0), STARTED.0 + 5);
}

#[test]
fn the_interrupt_controller_is_at_its_two_windows() {
    let mut world = World::with(Wishes { vcpus: 3, ..Wishes::default() });
    // GICD_PIDR2 and GICR_PIDR2: architecture version 3.
    for at in [DISTRIBUTOR.0 + 0xffe8, REDISTRIBUTORS.0 + 0xffe8, REDISTRIBUTORS.0 + 0x2_0000 * 2 + 0xffe8] {
        let _ = world.exit(load(Ipa(at), AccessSize::Word, 0));
        assert_eq!(world.x(0) >> 4, 3, "{at:#x}");
    }
    // GICR_TYPER of vCPU 2: affinity 2, the last one.
    let _ = world.exit(load(Ipa(REDISTRIBUTORS.0 + 0x2_0000 * 2 + 8), AccessSize::Doubleword, 0));
    assert_eq!((world.x(0) >> 32, world.x(0) >> 4 & 1), (2, 1));
    // Behind it is nothing.
    let _ = world.exit(load(Ipa(REDISTRIBUTORS.0 + 0x2_0000 * 3 + 8), AccessSize::Word, 0));
    assert_eq!(world.x(0), 0xffff_ffff);
}

#[test]
fn a_devices_interrupt_travels_to_the_list_registers() {
    let mut world = World::new();
    let spi = u64::from(Probe::INTERRUPT.0);
    let mut write = |offset: u64, size, value| {
        world.vcpus[0].context.x[0] = value;
        assert_eq!(world.exit(store(Ipa(DISTRIBUTOR.0 + offset), size, 0)), Next::Resume);
    };
    write(0x0, AccessSize::Word, 0b11); // GICD_CTLR: both groups
    write(0x80 + 4, AccessSize::Word, 1 << (spi - 32)); // GICD_IGROUPR1
    write(0x100 + 4, AccessSize::Word, 1 << (spi - 32)); // GICD_ISENABLER1
    // Wakes the redistributor.
    world.vcpus[0].context.x[0] = 0;
    let _ = world.exit(store(Ipa(REDISTRIBUTORS.0 + 0x14), AccessSize::Word, 0));
    world.effects = Default::default();
    world.vcpus[0].context.x[0] = 1;
    assert_eq!(world.exit(store(probe(Probe::LINE), AccessSize::Word, 0)), Next::Resume);
    assert!(world.effects.kicked().contains(VcpuId(0)));
    assert_eq!(world.refill(0), [Probe::INTERRUPT.0]);
}

#[test]
fn who_ends_a_reported_interrupt_by_a_store_kicks_itself() {
    let mut world = World::with(Wishes { vcpus: 2, ..Wishes::default() });
    for reported in [false, true] {
        if reported {
            world.vm.gic.report_ends(Probe::INTERRUPT);
        }
        // GICD_ISACTIVER1, GICD_ICACTIVER1. It is routed to the other vCPU.
        for (offset, ends) in [(0x304, false), (0x384, reported)] {
            world.effects = Default::default();
            world.vcpus[1].context.x[0] = 1 << (Probe::INTERRUPT.0 - 32);
            assert_eq!(world.exit_of(1, store(Ipa(DISTRIBUTOR.0 + offset), AccessSize::Word, 0)), Next::Resume);
            assert_eq!(world.effects.kicked().contains(VcpuId(1)), ends, "{offset:#x}");
            assert_eq!(world.vm.gic.take_ended().contains(Probe::INTERRUPT), ends, "{offset:#x}");
        }
    }
}

#[test]
fn the_virtual_timers_interrupt_is_pending_as_long_as_the_timer_asserts_it() {
    const ENABLED_AND_MET: u64 = 0b101;
    const ISPENDR0: Ipa = Ipa(REDISTRIBUTORS.0 + 0x1_0200);
    let mut world = World::new();
    world.vm.gic.inject_hardware(VcpuId(0), IntId::VIRTUAL_TIMER, IntId(27));
    let mut pending = |control| {
        world.cpus[0].set_system_register(El1Register::CntvCtl, control);
        let _ = world.exit(load(ISPENDR0, AccessSize::Word, 0));
        world.x(0) & 1 << 27 != 0
    };
    assert!(pending(ENABLED_AND_MET));
    assert!(!pending(0), "the guest has disabled the timer");
    assert!(!pending(ENABLED_AND_MET), "nothing is left; if the timer asserts it again, that is another interrupt");
    let deactivated = world.cpus[0].interface.deactivated.clone();
    assert_eq!(deactivated, [27], "so that the host hears of the next");
}

#[test]
fn loads_from_nothing_are_ones_and_stores_vanish_by_default() {
    for size in SIZES {
        let mut world = World::new();
        let pc = world.pc();
        assert_eq!(world.exit(load(NOWHERE, size, 4)), Next::Resume);
        assert_eq!(world.x(4), size.mask());
        assert_eq!(world.exit(store(NOWHERE, size, 4)), Next::Resume);
        assert_eq!(world.pc(), pc + 8);
    }
}

#[test]
fn what_a_device_does_not_take_gets_the_same_policy() {
    // Over its end, unaligned, a size that its factory does not list, an offset where it has nothing.
    for (offset, size) in
        [(0x34, AccessSize::Doubleword), (1, AccessSize::Word), (0, AccessSize::Halfword), (0x28, AccessSize::Word)]
    {
        let mut world = World::new();
        assert_eq!(world.exit(load(probe(offset), size, 4)), Next::Resume);
        assert_eq!(world.x(4), size.mask(), "{offset:#x}");
        let mut world = World::with_policy(reference(Action::Fail));
        assert_eq!(world.exit(load(probe(offset), size, 4)), Next::Resume);
        assert_eq!(world.el1(El1Register::Esr), 0x25 << 26 | 1 << 25 | 0x10, "{offset:#x}");
    }
}

#[test]
fn fail_is_a_synchronous_external_abort() {
    let mut world = World::with_policy(reference(Action::Fail));
    let pc = world.pc();
    let exit = store(NOWHERE, AccessSize::Word, 4);
    assert_eq!(world.exit(exit), Next::Resume);
    assert_eq!(world.el1(El1Register::Esr), 0x25 << 26 | 1 << 25 | 1 << 6 | 0x10, "EL1, a write, no ISV");
    assert_eq!(world.el1(El1Register::Far), exit.far, "the virtual address");
    assert_eq!(world.el1(El1Register::Elr), pc);
}

#[test]
fn abort_ends_the_vm_with_code_5_and_says_where() {
    let mut world = World::with_policy(reference(Action::Abort));
    let pc = world.pc();
    assert_eq!(world.exit(load(Ipa(NOWHERE.0 + 0x18), AccessSize::Halfword, 4)), Next::Stop);
    assert_eq!(world.effects.stop(), Some(Cause::Unsupported));
    let end = world.vm.lifecycle.end().unwrap();
    assert_eq!((end.cause.code(), end.vcpu, end.pc), (5, Some(VcpuId(0)), Some(pc)));
    assert_eq!(&*end.detail, "load of 2 bytes at 0x20000018: no device there");
}

#[test]
fn a_devices_bus_error_is_an_abort_whatever_the_policy() {
    for action in [Action::Ignore, Action::Fail, Action::Abort] {
        let mut world = World::with_policy(reference(action));
        assert_eq!(world.exit(store(probe(Probe::BUS_ERROR), AccessSize::Word, 0)), Next::Resume);
        assert_eq!(world.el1(El1Register::Esr) & 0x3f, 0x10);
        assert_eq!(world.effects.stop(), None);
    }
}

#[test]
fn a_device_can_end_the_vm() {
    let mut world = World::new();
    assert_eq!(world.exit(store(probe(Probe::END), AccessSize::Word, 0)), Next::Stop);
    assert_eq!(world.vm.lifecycle.end().unwrap().cause, Cause::Custom(40));
    let mut world = World::new();
    world.vm.wake(vdev::DeviceId(0), vdev::Wake::Backend, STARTED, &mut world.effects);
    assert_eq!(world.effects.stop(), Some(Cause::Watchdog));
    assert_eq!(&*world.vm.lifecycle.end().unwrap().detail, "ended by vdev `probe`");
}
