//! A whole VM: exits in, registers and effects out.

mod aborts;
mod emulation;
mod mmio;
mod registers;
mod shadow;
mod waits;

use crate::testing::{World, class};
use crate::vcpu::{El1Register, Next, Reason};
use types::{Pstate, RawExit, RawExitKind, VcpuId};

#[test]
fn interrupts_are_the_hosts_and_leave_the_guest_alone() {
    let mut world = World::new();
    let before = world.vcpus[0].context.clone();
    for kind in [RawExitKind::Irq, RawExitKind::Fiq] {
        assert_eq!(world.exit(RawExit { kind, esr: 0x5600_0000, far: 0, hpfar: 0 }), Next::HostInterrupt);
    }
    let after = &world.vcpus[0].context;
    assert_eq!((before.x, before.pc, before.pstate), (after.x, after.pc, after.pstate));
    assert!(world.effects.none());
    assert_eq!(world.vm.exits(VcpuId(0)).unwrap().get(Reason::Interrupt), 2);
}

#[test]
fn an_undefined_instruction_is_taken_to_el1_as_the_manual_says() {
    for ec in [0x00, 0x07, 0x09, 0x19, 0x1d, 0x3f] {
        let mut world = World::new();
        world.cpus[0].el1.insert(El1Register::Vbar, 0xffff_8000_0001_0800);
        world.vcpus[0].context.pstate = Pstate::EL1H | Pstate::NZCV | Pstate::SS | Pstate::BTYPE | Pstate::IL;
        let old = world.vcpus[0].context.clone();
        assert_eq!(world.exit(class(ec, 0x1e0_0000)), Next::Resume);
        assert_eq!(world.pc(), 0xffff_8000_0001_0a00, "{ec:#x}");
        assert_eq!(world.el1(El1Register::Elr), old.pc, "the instruction itself");
        assert_eq!(world.el1(El1Register::Spsr), old.pstate);
        assert_eq!(world.el1(El1Register::Esr), 1 << 25, "unknown reason, 32-bit instruction");
        let masked = Pstate::D | Pstate::A | Pstate::I | Pstate::F;
        assert_eq!(world.vcpus[0].context.pstate, Pstate::EL1H | masked | Pstate::NZCV);
    }
}

#[test]
fn an_exception_from_el0_goes_to_the_lower_level_vectors() {
    for (pstate, offset) in [(Pstate::EL0T, 0x400), (0x10, 0x600), (Pstate::EL1T, 0), (Pstate::EL1H, 0x200)] {
        let mut world = World::new();
        world.cpus[0].el1.insert(El1Register::Vbar, 0x9000_0000);
        world.vcpus[0].context.pstate = pstate;
        let _ = world.exit(class(0, 0));
        assert_eq!(world.pc(), 0x9000_0000 + offset);
    }
}

#[test]
fn exception_entry_sets_pan_ssbs_and_tco_as_the_control_register_says() {
    use crate::testing::{Wishes, host_id};
    const SPAN: u64 = 1 << 23;
    const DSSBS: u64 = 1 << 44;
    // PAN, SSBS and MTE in the host.
    let host_id = host_id(&[(7, 1, 1 << 20), (4, 1, 2 << 8 | 2 << 4)]);
    let entry = |sctlr, pstate| {
        let mut world = World::with(Wishes { host_id, ..Wishes::default() });
        world.cpus[0].el1.insert(El1Register::Sctlr, sctlr);
        world.vcpus[0].context.pstate = Pstate::EL1H | pstate;
        let _ = world.exit(class(0, 0));
        world.vcpus[0].context.pstate & (Pstate::PAN | Pstate::SSBS | Pstate::TCO | Pstate::UAO | Pstate::DIT)
    };
    assert_eq!(entry(0, 0), Pstate::PAN | Pstate::TCO);
    assert_eq!(entry(SPAN, 0), Pstate::TCO, "SPAN leaves PAN alone");
    assert_eq!(entry(SPAN, Pstate::PAN), Pstate::PAN | Pstate::TCO);
    assert_eq!(entry(SPAN | DSSBS, 0), Pstate::SSBS | Pstate::TCO);
    assert_eq!(entry(SPAN, Pstate::SSBS | Pstate::UAO | Pstate::DIT), Pstate::TCO | Pstate::DIT);
    let mut old = World::new();
    old.cpus[0].el1.insert(El1Register::Sctlr, DSSBS);
    let _ = old.exit(class(0, 0));
    assert_eq!(old.vcpus[0].context.pstate & (Pstate::PAN | Pstate::SSBS | Pstate::TCO), 0, "a CPU without them");
}

#[test]
fn illegal_state_and_debug_exceptions_keep_their_class() {
    let syndrome = |exit| {
        let mut world = World::new();
        assert_eq!(world.exit(exit), Next::Resume);
        world.el1(El1Register::Esr)
    };
    assert_eq!(syndrome(class(0x0e, 0)), 0x0e << 26 | 1 << 25);
    assert_eq!(syndrome(class(0x3c, 0x123)), 0x3c << 26 | 1 << 25 | 0x123, "BRK keeps its comment");
    assert_eq!(syndrome(class(0x32, 0x22)) >> 26, 0x33, "a software step from EL1 itself");
    let mut world = World::new();
    world.vcpus[0].context.pstate = Pstate::EL0T;
    let _ = world.exit(RawExit { far: 0x1234, ..class(0x34, 0x22) });
    assert_eq!(world.el1(El1Register::Esr) >> 26, 0x34, "a watchpoint from EL0");
    assert_eq!(world.el1(El1Register::Far), 0x1234);
}
