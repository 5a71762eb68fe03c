//! How interrupts become pending and stop being so: SGIs, lines that are high, edges.

use super::*;

// ---- SGIs

#[test]
fn an_sgi_goes_to_the_listed_vcpus_of_the_named_cluster() {
    let rig = Rig::new(config(20));
    let send = |value| rig.vgic.send_sgi(VcpuId(1), SgiRegister::Sgi1r, value);
    assert_eq!(send(3 << 24 | 0b101), VcpuSet(0b101));
    assert_eq!(send(3 << 24 | 1 << 16 | 0x8002), only(17), "vCPU 31 does not exist");
    assert_eq!(send(3 << 24 | 2 << 16 | 1), VcpuSet::EMPTY);
    assert_eq!(send(3 << 24 | 4 << 16 | 1), VcpuSet::EMPTY);
    assert_eq!(send(3 << 24 | 1 << 40), VcpuSet::first(20).without(only(1)), "all but the sender");
    for elsewhere in [1 << 32, 1 << 44, 1 << 48] {
        assert_eq!(send(3 << 24 | elsewhere | 1), VcpuSet::EMPTY, "no vCPU has such an affinity");
    }
}

#[test]
fn an_sgi_is_forwarded_only_if_its_group_is_the_one_sent() {
    let mut rig = Rig::new(config(1));
    rig.vgic.write_redistributor(0x1_0080, WORD, 0xffff_fffe);
    let send = |rig: &Rig, register, sgi: u64| rig.vgic.send_sgi(VcpuId(0), register, sgi << 24 | 1);
    assert_eq!(send(&rig, SgiRegister::Sgi1r, 0), VcpuSet::EMPTY);
    assert_eq!(send(&rig, SgiRegister::Sgi0r, 1), VcpuSet::EMPTY);
    assert_eq!(send(&rig, SgiRegister::Asgi1r, 1), VcpuSet::EMPTY);
    assert_eq!(send(&rig, SgiRegister::Sgi0r, 0), only(0));
    rig.enter(0);
    assert_eq!(rig.cpus[0].signalled(), Some((0, 0)), "as FIQ");
    assert_eq!(rig.cpus[0].acknowledge(1), SPURIOUS);
    assert_eq!(rig.cpus[0].acknowledge(0), 0);
    rig.cpus[0].end(0, 0);
    assert_eq!(send(&rig, SgiRegister::Asgi1r, 0), only(0), "the other register reaches group 0");
    assert_eq!(send(&rig, SgiRegister::Sgi1r, 1), only(0));
    assert_eq!(rig.take(0), SPURIOUS, "the one of group 0 is first");
}

#[test]
fn an_sgi_sent_while_it_is_active_comes_once_more_and_not_before() {
    let mut rig = Rig::new(config(1));
    let send = |rig: &Rig| rig.vgic.send_sgi(VcpuId(0), SgiRegister::Sgi1r, 5 << 24 | 1);
    send(&rig);
    send(&rig);
    assert_eq!(rig.take(0), 5, "two before it was taken are one");
    assert_eq!(send(&rig), only(0));
    send(&rig);
    assert_eq!(rig.take(0), SPURIOUS);
    rig.end(0, 5);
    assert_eq!(rig.take(0), 5);
    rig.end(0, 5);
    assert_eq!(rig.take(0), SPURIOUS);
}

// ---- level and edge

#[test]
fn a_level_is_taken_again_while_it_is_high_and_its_end_is_reported_only_then() {
    let mut rig = Rig::new(config(1));
    assert_eq!(rig.set_level(40, true), only(0));
    assert_eq!(rig.set_level(40, true), VcpuSet::EMPTY, "the same level twice is no event");
    assert_eq!(rig.take(0), 40);
    rig.end(0, 40);
    assert_ne!(rig.cpus[0].maintenance(), 0);
    rig.vgic.refill(VcpuId(0), &mut rig.cpus[0]);
    assert_eq!(rig.cpus[0].maintenance(), 0);
    assert_eq!(rig.take(0), 40);
    assert_eq!(rig.set_level(40, false), only(0));
    rig.enter(0);
    rig.end(0, 40);
    assert_eq!(rig.cpus[0].maintenance(), 0, "no exit: the line went low before the end");
    assert_eq!(rig.take(0), SPURIOUS);
}

#[test]
fn a_level_that_falls_before_it_is_taken_is_gone_unless_software_made_it_pending() {
    let mut rig = Rig::new(config(1));
    rig.set_level(40, true);
    rig.enter(0);
    assert!(rig.wakes(0));
    assert_eq!(rig.set_level(40, false), only(0), "it has to be withdrawn");
    rig.enter(0);
    assert!(!rig.wakes(0));
    assert_eq!(rig.take(0), SPURIOUS);

    rig.set_level(40, true);
    rig.enter(0);
    rig.vgic.write_distributor(VcpuId(0), 0x204, WORD, 1 << 8);
    rig.set_level(40, false);
    assert_eq!(rig.vgic.read_distributor(0x204, WORD), 1 << 8, "ISPENDR holds until it is acknowledged");
    assert_eq!(rig.take(0), 40);
    rig.end(0, 40);
    assert_eq!(rig.take(0), SPURIOUS);
}

#[test]
fn clearing_a_level_that_is_high_has_no_effect_and_clearing_an_edge_does() {
    let mut rig = Rig::new(config(1));
    rig.vgic.write_distributor(VcpuId(0), 0xc08, WORD, 0b10 << 18);
    rig.set_level(40, true);
    rig.set_level(41, true);
    rig.set_level(41, false);
    rig.enter(0);
    let pending = |rig: &Rig| rig.vgic.read_distributor(0x204, WORD);
    assert_eq!(pending(&rig), 0b11 << 8);
    assert_eq!(rig.vgic.write_distributor(VcpuId(0), 0x284, WORD, 0b11 << 8), only(0));
    assert_eq!(pending(&rig), 0b01 << 8);
    assert_eq!(rig.take(0), 40);
    rig.end(0, 40);
    rig.set_level(40, false);
    assert_eq!(rig.take(0), SPURIOUS, "the edge was cleared out of its list register");
}

#[test]
fn private_lines_belong_to_one_vcpu_and_sgis_have_none() {
    let mut rig = Rig::new(config(2));
    let set = |rig: &Rig, intid| rig.vgic.set_private_level(VcpuId(1), IntId(intid), true);
    assert_eq!(set(&rig, 30), only(1));
    assert_eq!(set(&rig, 15), VcpuSet::EMPTY);
    assert_eq!(set(&rig, 32), VcpuSet::EMPTY);
    assert_eq!(rig.vgic.set_private_level(VcpuId(2), IntId(30), true), VcpuSet::EMPTY);
    assert_eq!(rig.set_level(30, true), VcpuSet::EMPTY);
    assert_eq!(rig.set_level(256, true), VcpuSet::EMPTY, "not implemented");
    assert_eq!(rig.set_level(1020, true), VcpuSet::EMPTY);
    assert_eq!(rig.take(0), SPURIOUS);
    assert_eq!(rig.take(1), 30);
}
