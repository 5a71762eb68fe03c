//! WFI and its relatives.

use crate::testing::{STARTED, World, hvc, smc, wfx};
use crate::timer::control;
use crate::vcpu::Next;
use types::Ticks;

#[test]
fn wfi_waits_behind_itself() {
    let mut world = World::new();
    let pc = world.pc();
    assert_eq!(world.exit(wfx(0)), Next::WaitForInterrupt);
    assert_eq!(world.pc(), pc + 4);
    assert_eq!(world.vcpus[0].wake_deadline(&world.vm, 0, 0), Ticks::NEVER);
}

#[test]
fn wfe_lets_others_run() {
    let mut world = World::new();
    let pc = world.pc();
    for iss in [1, 3] {
        assert_eq!(world.exit(wfx(iss)), Next::Yield);
    }
    assert_eq!(world.pc(), pc + 8);
}

#[test]
fn the_earliest_of_both_timers_and_the_timeout_ends_the_wait() {
    use crate::exit::syndrome::sysreg;
    let mut world = World::new();
    world.vcpus[0].context.x[9] = 300;
    assert_eq!(world.exit(wfx(2 | 9 << 5)), Next::WaitForInterrupt, "WFIT");
    let deadline = |world: &World, cval| world.vcpus[0].wake_deadline(&world.vm, control::ENABLE, cval);
    assert_eq!(deadline(&world, 1000), Ticks(STARTED.0 + 300));
    assert_eq!(deadline(&world, 200), Ticks(STARTED.0 + 200));
    let _ = world.msr(sysreg(3, 3, 14, 2, 2), 100);
    let _ = world.msr(sysreg(3, 3, 14, 2, 1), control::ENABLE);
    assert_eq!(deadline(&world, 200), Ticks(STARTED.0 + 100));
    assert_eq!(world.exit(wfx(0)), Next::WaitForInterrupt);
    let _ = world.msr(sysreg(3, 3, 14, 2, 1), 0);
    assert_eq!(deadline(&world, 1000), Ticks(STARTED.0 + 1000), "a plain WFI has no timeout");
}

#[test]
fn a_call_with_immediate_one_lets_others_run() {
    let mut world = World::new();
    world.vcpus[0].context.x[0] = 7;
    let pc = world.pc();
    assert_eq!(world.exit(hvc(1)), Next::Yield);
    assert_eq!((world.pc(), world.vcpus[0].context.x[0]), (pc, 7), "HVC returns behind itself, and nothing is changed");
    for other in [hvc(2), smc(1)] {
        world.vcpus[0].context.x[0] = 7;
        assert_eq!(world.exit(other), Next::Resume);
        assert_eq!(world.vcpus[0].context.x[0], u64::MAX, "NOT_SUPPORTED");
    }
}
