//! Trapped system registers.

use crate::exit::syndrome::sysreg;
use crate::policy::{Action, Unsupported};
use crate::testing::{ID_AA64PFR0_EL1, REDISTRIBUTORS, STARTED, Wishes, World, host_id, mrs, store};
use crate::timer::control;
use crate::vcpu::{El1Register, Next};
use types::{AccessSize, Ipa, Ticks, VcpuId};
use vdev::Cause;

const CNTPCT_EL0: u64 = sysreg(3, 3, 14, 0, 1);
const CNTPCTSS_EL0: u64 = sysreg(3, 3, 14, 0, 5);
const CNTP_TVAL_EL0: u64 = sysreg(3, 3, 14, 2, 0);
const CNTP_CTL_EL0: u64 = sysreg(3, 3, 14, 2, 1);
const CNTP_CVAL_EL0: u64 = sysreg(3, 3, 14, 2, 2);
const ICC_SGI1R_EL1: u64 = sysreg(3, 0, 12, 11, 5);
const ICC_DIR_EL1: u64 = sysreg(3, 0, 12, 11, 1);

#[test]
fn identification_registers_come_from_the_table() {
    let mut world = World::new();
    assert_eq!(world.mrs(ID_AA64PFR0_EL1), Some(0x0100_0012));
    assert_eq!(world.mrs(sysreg(3, 0, 0, 4, 4)), Some(0), "ID_AA64ZFR0_EL1");
    for crm in 1..=7 {
        for op2 in 0..8 {
            assert!(world.mrs(sysreg(3, 0, 0, crm, op2)).is_some(), "reserved ones read as zero: C{crm}_{op2}");
            assert_eq!(world.msr(sysreg(3, 0, 0, crm, op2), 0), None, "they are read-only");
        }
    }
}

#[test]
fn nothing_is_known_of_the_implementation_but_its_main_number() {
    let mut world = World::new();
    for register in [sysreg(3, 0, 0, 0, 6), sysreg(3, 1, 0, 0, 7)] {
        assert_eq!(world.mrs(register), Some(0), "REVIDR_EL1, AIDR_EL1");
        assert_eq!(world.msr(register, 0), None, "read-only");
    }
    assert_eq!(world.mrs(sysreg(3, 1, 0, 0, 6)), None, "SMIDR_EL1");
}

#[test]
fn the_interrupt_controllers_system_registers_cannot_be_switched_off() {
    let mut world = World::new();
    let icc_sre = sysreg(3, 0, 12, 12, 5);
    assert_eq!(world.mrs(icc_sre), Some(7));
    assert_eq!(world.msr(icc_sre, 0), Some(Next::Resume));
    assert_eq!(world.mrs(icc_sre), Some(7));
}

#[test]
fn both_counters_start_at_zero() {
    let mut world = World::new();
    world.cpus[0].now = Ticks(STARTED.0 + 77);
    assert_eq!(world.mrs(CNTPCT_EL0), Some(77));
    assert_eq!(world.mrs(CNTPCTSS_EL0), Some(77));
    assert_eq!(world.msr(CNTPCT_EL0, 0), None, "read-only");
    let mut world = World::with(Wishes { counter_offset: Some(0), ..Wishes::default() });
    assert_eq!(world.mrs(CNTPCT_EL0), Some(STARTED.0), "`set counter-offset 0`: the host's own count");
}

#[test]
fn the_physical_timer_tells_the_kernel_when_to_wake_it() {
    let mut world = World::new();
    assert_eq!(world.msr(CNTP_CVAL_EL0, 500), Some(Next::ArmTimer));
    assert_eq!(world.vcpus[0].timer_deadline(), Ticks::NEVER, "still disabled");
    assert_eq!(world.msr(CNTP_CTL_EL0, control::ENABLE), Some(Next::ArmTimer));
    assert_eq!(world.vcpus[0].timer_deadline(), Ticks(STARTED.0 + 500), "in the host's count");
    assert_eq!(world.mrs(CNTP_CTL_EL0), Some(control::ENABLE));
    assert_eq!(world.mrs(CNTP_CVAL_EL0), Some(500));
    assert_eq!(world.msr(CNTP_TVAL_EL0, 100), Some(Next::ArmTimer));
    assert_eq!(world.vcpus[0].timer_deadline(), Ticks(STARTED.0 + 100));
    world.cpus[0].now = Ticks(STARTED.0 + 100);
    assert_eq!(world.mrs(CNTP_CTL_EL0), Some(control::ENABLE | control::ISTATUS));
    assert_eq!(world.mrs(CNTP_TVAL_EL0), Some(0));
}

#[test]
fn who_sees_the_physical_timers_condition_has_its_interrupt_pending() {
    let mut world = World::new();
    let _ = (world.msr(CNTP_CVAL_EL0, 100), world.msr(CNTP_CTL_EL0, control::ENABLE));
    world.cpus[0].now = Ticks(STARTED.0 + 100);
    assert_eq!(world.mrs(CNTP_CTL_EL0), Some(control::ENABLE | control::ISTATUS));
    let _ = world.exit(crate::testing::load(Ipa(REDISTRIBUTORS.0 + 0x1_0200), AccessSize::Word, 0));
    assert_eq!(world.x(0), 1 << 30, "GICR_ISPENDR0");
}

#[test]
fn the_physical_timers_line_follows_its_state() {
    let mut world = World::new();
    // GICR_WAKER awake; PPI 30 in group 1, enabled; both groups on; then the timer.
    let mut redistributor = |offset: u64, value| {
        world.vcpus[0].context.x[0] = value;
        let _ = world.exit(store(Ipa(REDISTRIBUTORS.0 + offset), AccessSize::Word, 0));
    };
    redistributor(0x14, 0);
    redistributor(0x1_0080, 1 << 30);
    redistributor(0x1_0100, 1 << 30);
    world.vcpus[0].context.x[0] = 3;
    let _ = world.exit(store(crate::testing::DISTRIBUTOR, AccessSize::Word, 0));
    let _ = world.msr(CNTP_CVAL_EL0, 10);
    let _ = world.msr(CNTP_CTL_EL0, control::ENABLE);
    assert!(world.refill(0).is_empty());
    // The kernel's alarm.
    let due = world.vcpus[0].timer_deadline();
    world.effects = Default::default();
    world.vcpus[0].update_timer(&world.vm, due, &mut world.effects);
    assert!(world.effects.kicked().contains(VcpuId(0)));
    assert_eq!(world.vcpus[0].timer_deadline(), Ticks::NEVER);
    assert_eq!(world.refill(0), [30]);
    // Masked before the guest has taken it: the line falls, the interrupt goes away.
    world.cpus[0].now = due;
    let _ = world.msr(CNTP_CTL_EL0, control::ENABLE | control::IMASK);
    assert!(world.refill(0).is_empty());
}

#[test]
fn an_sgi_kicks_its_targets() {
    let mut world = World::with(Wishes { vcpus: 3, ..Wishes::default() });
    for vcpu in 0..3_u64 {
        for (offset, value) in [(0x14, 0), (0x1_0080, 0xffff), (0x1_0100, 0xffff)] {
            world.vcpus[0].context.x[0] = value;
            let at = Ipa(REDISTRIBUTORS.0 + vcpu * 0x2_0000 + offset);
            assert_eq!(world.exit(store(at, AccessSize::Word, 0)), Next::Resume);
        }
    }
    world.vcpus[0].context.x[0] = 3;
    let _ = world.exit(store(crate::testing::DISTRIBUTOR, AccessSize::Word, 0));
    world.effects = Default::default();
    // SGI 5 to vCPU 2.
    assert_eq!(world.msr(ICC_SGI1R_EL1, 5 << 24 | 1 << 2), Some(Next::Resume));
    assert_eq!(world.effects.kicked(), types::VcpuSet::of(VcpuId(2)));
    // IRM: all but the sender.
    world.effects = Default::default();
    let _ = world.msr(ICC_SGI1R_EL1, 6 << 24 | 1 << 40);
    assert!(!world.effects.kicked().contains(VcpuId(0)) && world.effects.kicked().contains(VcpuId(1)));
    assert_eq!(world.mrs(ICC_SGI1R_EL1), None, "write-only");
    assert_eq!(world.msr(ICC_DIR_EL1, 5), Some(Next::Resume), "deactivating what is not active");
}

#[test]
fn set_and_way_operations_become_one_request() {
    for name in [sysreg(1, 0, 7, 6, 2), sysreg(1, 0, 7, 10, 2), sysreg(1, 0, 7, 14, 2)] {
        let mut world = World::new();
        assert!(!world.effects.cleans_caches());
        assert_eq!(world.msr(name, 0x1234), Some(Next::Resume));
        assert!(world.effects.cleans_caches());
    }
}

#[test]
fn implementation_defined_control_is_zero_and_ignores_writes() {
    let mut world = World::new();
    let actlr = sysreg(3, 0, 1, 0, 1);
    assert_eq!(world.msr(actlr, u64::MAX), Some(Next::Resume));
    assert_eq!(world.mrs(actlr), Some(0));
}

#[test]
fn what_linux_does_to_the_debug_registers_works() {
    let mut world = World::new();
    let (oslar, oslsr, osdlr, mdscr) =
        (sysreg(2, 0, 1, 0, 4), sysreg(2, 0, 1, 1, 4), sysreg(2, 0, 1, 3, 4), sysreg(2, 0, 0, 2, 2));
    assert_eq!(world.mrs(oslsr), Some(0b1010), "locked after reset");
    assert_eq!(world.msr(osdlr, 0), Some(Next::Resume));
    assert_eq!(world.msr(oslar, 0), Some(Next::Resume));
    assert_eq!(world.mrs(oslsr), Some(0b1000));
    assert_eq!(world.msr(mdscr, 1 << 15), Some(Next::Resume));
    assert_eq!(world.mrs(mdscr), Some(1 << 15));
    assert_eq!(world.msr(sysreg(2, 0, 0, 1, 5), 0), Some(Next::Resume), "DBGBCR1_EL1");
    assert_eq!(world.msr(sysreg(2, 0, 0, 6, 5), 0), None, "DBGBCR6_EL1 does not exist");
    assert_eq!(world.msr(oslsr, 0), None);
    assert_eq!(world.mrs(oslar), None);
}

#[test]
fn the_cpu_compares_only_while_debug_exceptions_are_on() {
    let mut world = World::new();
    let (oslar, mdscr, value, control) =
        (sysreg(2, 0, 1, 0, 4), sysreg(2, 0, 0, 2, 2), sysreg(2, 0, 0, 3, 6), sysreg(2, 0, 0, 3, 7));
    for (register, written) in [(oslar, 0), (value, 0x1000), (control, 0x1ff7)] {
        assert_eq!(world.msr(register, written), Some(Next::Resume));
    }
    assert_eq!(world.cpus[0].debug, None, "a system that only prepares them pays nothing");
    assert_eq!(world.msr(mdscr, 1 << 15), Some(Next::Resume));
    assert_eq!(world.cpus[0].debug.as_ref().unwrap().watchpoints[3].value, 0x1000);
    assert_eq!(world.msr(value, 0x2000), Some(Next::Resume));
    assert_eq!(world.cpus[0].debug.as_ref().unwrap().watchpoints[3].value, 0x2000, "it follows");
    assert_eq!(world.msr(oslar, 1), Some(Next::Resume));
    assert_eq!(world.cpus[0].debug, None, "locked");
}

#[test]
fn the_monitors_are_handed_over_on_first_use_if_the_guest_has_them() {
    const PMCR: u64 = sysreg(3, 3, 9, 12, 0);
    let host_id = host_id(&[(4, 0, 0x2222), (5, 0, 0x1030_5106)]);
    let registers = [
        PMCR,
        sysreg(3, 3, 9, 13, 0),
        sysreg(3, 3, 9, 14, 3),
        sysreg(3, 0, 9, 14, 1),
        sysreg(3, 3, 14, 8, 0),
        sysreg(3, 3, 14, 15, 7),
    ];
    for register in registers {
        let mut world = World::with(Wishes { host_id, monitors: true, ..Wishes::default() });
        let pc = world.pc();
        assert_eq!(world.exit(mrs(register, 2)), Next::Resume);
        assert_eq!(world.pc(), pc, "once more");
        assert!(world.cpus[0].monitors);
        assert_eq!(world.mrs(register), None, "what traps all the same is not there");
    }
    let mut hidden = World::with(Wishes { host_id, monitors: false, ..Wishes::default() });
    assert_eq!(hidden.mrs(PMCR), None);
    assert!(!hidden.cpus[0].monitors);
    let mut shown = World::with(Wishes { host_id, monitors: true, ..Wishes::default() });
    assert_eq!(shown.mrs(sysreg(3, 0, 9, 9, 0)), None, "PMSCR_EL1 is of another extension");
    assert!(!shown.cpus[0].monitors);
}

/// The PMU, implementation defined registers, a reserved encoding, EL2's own.
const UNKNOWN: [u64; 5] = [
    sysreg(3, 3, 9, 13, 0),
    sysreg(3, 1, 15, 2, 0),
    sysreg(3, 0, 11, 0, 0),
    sysreg(3, 7, 4, 4, 4),
    sysreg(3, 4, 1, 1, 0),
];

#[test]
fn unknown_registers_are_undefined_by_default() {
    for name in UNKNOWN {
        let mut world = World::new();
        assert_eq!(world.mrs(name), None);
        assert_eq!(world.el1(El1Register::Esr), 1 << 25);
        assert_eq!(world.msr(name, 0), None);
    }
}

#[test]
fn unknown_registers_follow_the_policy() {
    for name in UNKNOWN {
        let mut world = World::with_policy(Unsupported { register: Action::Ignore, ..Unsupported::default() });
        assert_eq!(world.mrs(name), Some(0));
        assert_eq!(world.msr(name, 1), Some(Next::Resume));
    }
    let mut world = World::with_policy(Unsupported { register: Action::Abort, ..Unsupported::default() });
    let _ = world.mrs(sysreg(3, 3, 9, 13, 0));
    let end = world.vm.lifecycle.end().unwrap();
    assert_eq!(end.cause, Cause::Unsupported);
    assert_eq!(&*end.detail, "read of unknown register S3_3_C9_C13_0");
}
