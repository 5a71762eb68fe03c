use super::*;
use crate::smccc::Mitigation;
use crate::testing::{NOWHERE, RAM, ROM, Wishes, World, hvc, smc};
use std::sync::Barrier;
use std::vec::Vec;
use types::EL1_RESET_PSTATE;

const PSCI_VERSION: u64 = 0x8400_0000;
const CPU_SUSPEND: u64 = 0xc400_0001;
const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const PSCI_FEATURES: u64 = 0x8400_000a;
const SYSTEM_RESET2: u64 = 0xc400_0012;
const SMALL: u64 = !(1 << 30);

fn four() -> World {
    World::with(Wishes { vcpus: 4, ..Wishes::default() })
}

fn answer(world: &mut World, identifier: u64, arguments: [u64; 3]) -> i64 {
    let (next, answer) = world.hvc(0, identifier, arguments);
    assert_eq!(next, Next::Resume);
    answer
}

#[test]
fn the_version_is_1_1_by_both_conduits() {
    let mut world = World::new();
    world.vcpus[0].context.x = core::array::from_fn(|index| u64::try_from(index).unwrap() + 100);
    world.vcpus[0].context.x[0] = PSCI_VERSION | 0xffff_ffff_0000_0000; // the identifier is W0
    let before = world.vcpus[0].context.clone();
    assert_eq!(world.exit(hvc(0)), Next::Resume);
    assert_eq!(world.x(0), 0x1_0001);
    assert_eq!(world.vcpus[0].context.x[1..], before.x[1..], "nothing else changes");
    assert_eq!(world.pc(), before.pc, "after an HVC the PC stands behind it already");
    world.vcpus[0].context.x[0] = PSCI_VERSION;
    assert_eq!(world.exit(smc(0)), Next::Resume);
    assert_eq!(world.x(0), 0x1_0001);
    assert_eq!(world.pc(), before.pc + 4, "a trapped SMC is stepped over");
}

#[test]
fn what_nobody_offers_is_not_supported_and_preserves_registers() {
    let mut world = World::new();
    // Among them: 64-bit forms of 32-bit functions, MIGRATE, CPU_FREEZE, SYSTEM_SUSPEND, MEM_PROTECT, SYSTEM_OFF2.
    for identifier in [
        0xc400_0000,
        0xc400_0002,
        0xc400_0006,
        0xc400_0008,
        0xc400_0009,
        0xc400_000a,
        0x8400_0005,
        0xc400_0005,
        0x8400_0007,
        0x8400_000b,
        0x8400_000e,
        0xc400_000e,
        0x8400_0013,
        0x8400_0015,
        0x8400_001f,
        0x8400_0020,
        0x9500_0000,
        0,
        0xffff_ffff,
    ] {
        world.vcpus[0].context.x[1..4].copy_from_slice(&[11, 12, 13]);
        assert_eq!(answer(&mut world, identifier, [11, 12, 13]), -1, "{identifier:#x}");
        assert_eq!(world.vcpus[0].context.x[1..4], [11, 12, 13]);
    }
    for exit in [hvc(2), smc(0xffff)] {
        world.vcpus[0].context.x[0] = PSCI_VERSION;
        assert_eq!(world.exit(exit), Next::Resume);
        assert_eq!(world.x(0).cast_signed(), -1, "no call under the convention has this immediate");
    }
}

#[test]
fn features_tell_what_is_there() {
    let mut world = World::new();
    let mut features = |identifier: u64| answer(&mut world, PSCI_FEATURES, [identifier, 0, 0]);
    for identifier in [
        PSCI_VERSION,
        CPU_SUSPEND,
        CPU_SUSPEND & SMALL,
        CPU_OFF,
        CPU_ON,
        CPU_ON & SMALL,
        AFFINITY_INFO,
        AFFINITY_INFO & SMALL,
        0x8400_0006,
        SYSTEM_OFF,
        SYSTEM_RESET,
        PSCI_FEATURES,
        SYSTEM_RESET2,
        SYSTEM_RESET2 & SMALL,
        0x8000_0000,
    ] {
        assert_eq!(features(identifier), 0, "{identifier:#x}");
    }
    for identifier in [0xc400_0000, 0xc400_0002, 0x8400_0005, 0x8400_000e, 0x8400_0015, 0x8000_0001, 0, u64::MAX] {
        assert_eq!(features(identifier), -1, "{identifier:#x}");
    }
}

#[test]
fn a_cpu_is_switched_on_with_the_state_of_a_reset() {
    let mut world = four();
    assert_eq!(answer(&mut world, CPU_ON, [2, RAM.0 + 0x100, 0xc0ff_ee00_dead_beef]), 0);
    assert!(world.effects.kicked().contains(VcpuId(2)));
    assert_eq!(world.vm.power.state(VcpuId(2)), State::OnPending);
    world.vcpus[2].context.x[7] = 99; // left over from an earlier life
    assert!(world.boot(2));
    let context = &world.vcpus[2].context;
    assert_eq!((context.pc, context.pstate), (RAM.0 + 0x100, EL1_RESET_PSTATE));
    assert_eq!(context.x[0], 0xc0ff_ee00_dead_beef);
    assert!(context.x[1..].iter().all(|x| *x == 0));
    assert_eq!(world.vm.power.state(VcpuId(2)), State::On);
    assert!(!world.boot(2), "a start is taken once");
}

#[test]
fn a_32_bit_call_uses_the_lower_halves_of_its_arguments() {
    let mut world = four();
    let garbage = 0xffff_ffff_0000_0000;
    assert_eq!(answer(&mut world, CPU_ON & SMALL, [garbage | 1, garbage | RAM.0, garbage | 5]), 0);
    assert_eq!(world.vm.take_power_on(VcpuId(1)), Some((RAM.0, 5)));
    assert_eq!(
        answer(&mut world, CPU_ON, [garbage | 3, RAM.0, 0]),
        code::INVALID_PARAMETERS,
        "the 64-bit call does not"
    );
}

#[test]
fn cpu_on_checks_target_then_entry_then_state() {
    let mut world = four();
    for target in [4, 16, 0x100, 1 << 31, 1 << 32, u64::MAX] {
        assert_eq!(answer(&mut world, CPU_ON, [target, NOWHERE.0, 0]), code::INVALID_PARAMETERS, "{target:#x}");
    }
    for entry in [NOWHERE.0, RAM.0 - 4, RAM.0 + 0x10_0000, RAM.0 + 2, RAM.0 + 1, u64::MAX, 0] {
        assert_eq!(answer(&mut world, CPU_ON, [0, entry, 0]), code::INVALID_ADDRESS, "{entry:#x}");
    }
    assert_eq!(answer(&mut world, CPU_ON, [0, RAM.0, 0]), code::ALREADY_ON, "itself");
    assert_eq!(answer(&mut world, CPU_ON, [1, ROM.0, 0]), 0, "ROM can be executed");
    assert_eq!(answer(&mut world, CPU_ON, [1, RAM.0, 0]), code::ON_PENDING);
    assert!(world.boot(1));
    assert_eq!(answer(&mut world, CPU_ON, [1, RAM.0, 0]), code::ALREADY_ON);
}

#[test]
fn affinity_info_follows_a_cpu_through_its_life() {
    let mut world = four();
    let info = |world: &mut World| answer(world, AFFINITY_INFO, [1, 0, 0]);
    assert_eq!(info(&mut world), 1, "off");
    let _ = answer(&mut world, CPU_ON, [1, RAM.0, 0]);
    assert_eq!(info(&mut world), 2, "pending");
    assert!(world.boot(1));
    assert_eq!(info(&mut world), 0, "on");
    assert_eq!(world.hvc(1, CPU_OFF, [0; 3]).0, Next::Off);
    assert_eq!(info(&mut world), 1);
    assert_eq!(answer(&mut world, CPU_ON, [1, RAM.0, 7]), 0, "and on again");
}

#[test]
fn affinity_info_answers_for_the_levels_above() {
    let mut world = World::with(Wishes { vcpus: 18, ..Wishes::default() });
    let mut info = |target, level| answer(&mut world, AFFINITY_INFO, [target, level, 0]);
    assert_eq!(info(0x00ff, 1), 0, "cluster 0 has vCPU 0, which is on; level 0 is ignored");
    assert_eq!(info(0x0100, 1), 1, "cluster 1 is off");
    assert_eq!(info(0x0200, 1), code::INVALID_PARAMETERS, "there is no cluster 2");
    assert_eq!(info(0xff_ffff_ffff & 0xff_00ff_0000, 2), code::INVALID_PARAMETERS);
    assert_eq!(info(0, 3), 0);
    assert_eq!(info(0, 4), code::INVALID_PARAMETERS);
    assert_eq!(info(1 << 31, 0), code::INVALID_PARAMETERS);
    assert_eq!(info(18, 0), code::INVALID_PARAMETERS);
    let _ = answer(&mut world, CPU_ON, [0x100, RAM.0, 0]);
    assert_eq!(answer(&mut world, AFFINITY_INFO, [0x101, 1, 0]), 2, "one of cluster 1 is on its way");
}

#[test]
fn suspending_is_a_wait_that_returns_success() {
    let mut world = World::new();
    for (identifier, state, entry) in [
        (CPU_SUSPEND, 0, 0),               // standby: the entry point does not matter
        (CPU_SUSPEND, 0x0301_1234, RAM.0), // power-down, at any level
        (CPU_SUSPEND & SMALL, 1 << 16, RAM.0),
    ] {
        assert_eq!(world.hvc(0, identifier, [state, entry, 0]), (Next::WaitForInterrupt, 0));
    }
    assert_eq!(answer(&mut world, CPU_SUSPEND, [1 << 16, NOWHERE.0, 0]), code::INVALID_ADDRESS);
    for reserved in [1 << 17, 1 << 26, 1 << 31] {
        assert_eq!(answer(&mut world, CPU_SUSPEND, [reserved, RAM.0, 0]), code::INVALID_PARAMETERS);
    }
}

#[test]
fn the_system_functions_end_the_vm_with_code_0() {
    for (identifier, cause) in
        [(SYSTEM_OFF, Cause::Shutdown), (SYSTEM_RESET, Cause::Reset), (SYSTEM_RESET2, Cause::Reset)]
    {
        let mut world = World::new();
        assert_eq!(world.hvc(0, identifier, [0; 3]).0, Next::Stop);
        assert_eq!(world.effects.stop(), Some(cause));
        assert_eq!(world.vm.lifecycle.end().unwrap().cause.code(), 0);
    }
    let mut world = World::new();
    for reset_type in [1, 0x8000_0000, 0xffff_ffff] {
        assert_eq!(answer(&mut world, SYSTEM_RESET2, [reset_type, 0, 0]), code::INVALID_PARAMETERS);
    }
}

#[test]
fn nothing_needs_to_migrate() {
    assert_eq!(answer(&mut World::new(), 0x8400_0006, [0; 3]), 2);
}

#[test]
fn the_last_cpu_off_is_the_end() {
    let mut world = four();
    let _ = answer(&mut world, CPU_ON, [1, RAM.0, 0]);
    assert_eq!(world.hvc(0, CPU_OFF, [0; 3]).0, Next::Off, "one is on its way still");
    assert!(world.boot(1));
    assert_eq!(world.hvc(1, CPU_OFF, [0; 3]).0, Next::Stop);
    assert_eq!(world.effects.stop(), Some(Cause::Shutdown));
}

#[test]
fn workarounds_go_to_the_firmware_only_if_it_offers_them() {
    use crate::smccc::{Mitigations, Workaround};
    let mitigations = Mitigations { workaround_1: Mitigation::Required, ..Mitigations::default() };
    let mut world = World::with(Wishes { mitigations, ..Wishes::default() });
    assert_eq!(answer(&mut world, 0x8000_8000, [0; 3]), 0);
    assert_eq!(answer(&mut world, 0x8000_3fff, [0; 3]), -1);
    assert_eq!(world.cpus[0].workarounds, [Workaround::BranchPredictor]);
}

#[test]
fn of_two_callers_exactly_one_switches_a_cpu_on() {
    for _ in 0..200 {
        let (power, barrier) = (Power::new(2), Barrier::new(3));
        let results: Vec<_> = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..3_u64)
                .map(|caller| {
                    let (power, barrier) = (&power, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        power.request_on(VcpuId(1), caller, !caller)
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        let winners: Vec<_> =
            (0..3_u64).zip(&results).filter(|(_, result)| result.is_ok()).map(|(who, _)| who).collect();
        assert_eq!(winners.len(), 1);
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(code::ON_PENDING))));
        assert_eq!(power.take_on(VcpuId(1)), Some((winners[0], !winners[0])), "with the winner's arguments");
    }
}
