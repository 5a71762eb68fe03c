//! Ends of interrupts that devices hear of.

use super::*;

/// SPI 40 of everything there is, reported and edge-triggered.
fn reported(list_registers: usize) -> Rig {
    let rig = Rig::new(VgicConfig { list_registers, ..config(2) });
    rig.vgic.report_ends(IntId(40));
    rig.vgic.write_distributor(VcpuId(0), 0xc08, WORD, 0xffff_ffff);
    rig
}

/// What has ended since this was last asked.
fn ended(rig: &Rig) -> Vec<u32> {
    let (any, all) = (rig.vgic.has_ended(), rig.vgic.take_ended());
    let ended: Vec<u32> = (0..1100).filter(|intid| all.contains(IntId(*intid))).collect();
    assert_eq!(any, !ended.is_empty());
    assert!(!rig.vgic.has_ended());
    ended
}

fn pulse(rig: &Rig, intid: u32) {
    let _ = (rig.set_level(intid, true), rig.set_level(intid, false));
}

#[test]
fn the_end_of_a_reported_interrupt_is_told_once_and_no_other() {
    let mut rig = reported(4);
    for intid in [40, 41] {
        pulse(&rig, intid);
        assert_eq!(rig.take(0), intid);
        assert_eq!(ended(&rig), [], "taken, not ended");
        rig.end(0, intid);
        assert_eq!(rig.cpus[0].maintenance() != 0, intid == 40, "others end without an exit");
        let kick = rig.vgic.refill(VcpuId(0), &mut rig.cpus[0]);
        assert_eq!(kick.contains(VcpuId(0)), intid == 40, "the vCPU itself is to look");
        assert_eq!(ended(&rig), if intid == 40 { vec![40] } else { vec![] });
        assert!(rig.enter(0).is_empty());
        assert_eq!(ended(&rig), [], "once");
    }
}

#[test]
fn with_split_deactivation_the_priority_drop_is_no_end() {
    let mut rig = reported(4);
    rig.cpus[0].set_split(true);
    pulse(&rig, 40);
    assert_eq!(rig.take(0), 40);
    rig.end(0, 40);
    assert_eq!(rig.cpus[0].maintenance(), 0);
    rig.enter(0);
    assert_eq!(ended(&rig), []);
    assert_eq!(rig.cpus[0].deactivate_interrupt(40), Deactivation::Done);
    assert!(rig.enter(0).contains(VcpuId(0)));
    assert_eq!(ended(&rig), [40]);
}

#[test]
fn each_of_two_in_a_row_is_told() {
    let mut rig = reported(4);
    pulse(&rig, 40);
    assert_eq!(rig.take(0), 40);
    // The next edge comes while it is active, and the vCPU is switched out and in meanwhile: it is both.
    pulse(&rig, 40);
    assert!(rig.save(0).kick.is_empty());
    rig.load(0);
    for next in [40, SPURIOUS] {
        rig.end(0, 40);
        assert!(rig.enter(0).contains(VcpuId(0)));
        assert_eq!(ended(&rig), [40]);
        assert_eq!(rig.cpus[0].acknowledge(1), next);
    }
}

#[test]
fn an_end_is_seen_when_the_list_registers_are_emptied() {
    let mut rig = reported(4);
    pulse(&rig, 40);
    rig.enter(0);
    assert!(rig.save(0).kick.is_empty());
    assert_eq!(ended(&rig), [], "pending");
    rig.load(0);
    assert_eq!(rig.cpus[0].acknowledge(1), 40);
    rig.save(0);
    assert_eq!(ended(&rig), [], "active");
    rig.load(0);
    rig.end(0, 40);
    assert_eq!(rig.save(0).kick, only(0));
    assert_eq!(ended(&rig), [40]);
    rig.load(0);
    rig.save(0);
    assert_eq!(ended(&rig), []);
}

#[test]
fn an_interrupt_made_inactive_by_software_has_ended() {
    let mut rig = reported(4);
    let deactivate = |rig: &Rig| rig.vgic.write_distributor(VcpuId(0), 0x384, WORD, 1 << 8);
    // In a list register of the other vCPU, from its next refill on.
    pulse(&rig, 40);
    assert_eq!(rig.take(0), 40);
    assert_eq!(deactivate(&rig), only(0));
    assert_eq!(ended(&rig), []);
    assert!(rig.enter(0).contains(VcpuId(0)));
    assert_eq!(ended(&rig), [40]);
    // One that is pending there has nothing to end.
    pulse(&rig, 40);
    rig.enter(0);
    deactivate(&rig);
    rig.enter(0);
    assert_eq!(ended(&rig), []);
    // In memory, at once.
    assert_eq!(rig.cpus[0].acknowledge(1), SPURIOUS, "the priority is still that of the first");
    rig.end(0, 40);
    assert_eq!(rig.take(0), 40);
    rig.save(0);
    deactivate(&rig);
    assert_eq!(ended(&rig), [40]);
    deactivate(&rig);
    assert_eq!(ended(&rig), [], "it was inactive");
    // Made active by software alone.
    rig.vgic.write_distributor(VcpuId(0), 0x304, WORD, 1 << 8);
    assert_eq!(ended(&rig), []);
    deactivate(&rig);
    assert_eq!(ended(&rig), [40]);
}

#[test]
fn ends_without_a_list_register_are_told_too() {
    for split in [false, true] {
        let mut rig = reported(1);
        rig.vgic.write_distributor(VcpuId(0), 0x400 + 41, AccessSize::Byte, 0x40);
        rig.cpus[0].set_split(split);
        pulse(&rig, 40);
        assert_eq!(rig.take(0), 40);
        pulse(&rig, 41);
        assert_eq!(rig.take(0), 41, "the other one, active, is in memory");
        if split {
            rig.end(0, 41);
            rig.end(0, 40);
            assert_eq!(rig.cpus[0].deactivate_interrupt(40), Deactivation::Trapped);
            assert!(rig.vgic.deactivate(VcpuId(0), IntId(40), &mut rig.cpus[0]).contains(VcpuId(0)));
        } else {
            rig.end(0, 41);
            rig.end(0, 40);
            assert_ne!(rig.cpus[0].maintenance(), 0);
            assert!(rig.vgic.refill(VcpuId(0), &mut rig.cpus[0]).contains(VcpuId(0)));
        }
        assert_eq!(ended(&rig), [40], "split: {split}");
    }
}

#[test]
fn enabling_what_is_pending_or_asserted_is_told() {
    let rig = reported(4);
    let enable =
        |rig: &Rig, on| rig.vgic.write_distributor(VcpuId(0), if on { 0x104 } else { 0x184 }, WORD, 1 << 8 | 1 << 9);
    enable(&rig, false);
    enable(&rig, true);
    assert_eq!(ended(&rig), [], "idle");
    enable(&rig, false);
    pulse(&rig, 40);
    assert_eq!(ended(&rig), []);
    enable(&rig, true);
    assert_eq!(ended(&rig), [40]);
    enable(&rig, true);
    assert_eq!(ended(&rig), [], "it was enabled");
    // A level; and an edge-triggered one that nobody took, whose line is high.
    for edge in [false, true] {
        let rig = reported(4);
        rig.vgic.write_distributor(VcpuId(0), 0xc08, WORD, if edge { 2 << 16 } else { 0 });
        enable(&rig, false);
        let _ = rig.set_level(40, true);
        rig.vgic.write_distributor(VcpuId(0), 0x284, WORD, 1 << 8);
        enable(&rig, true);
        assert_eq!(ended(&rig), [40], "edge: {edge}");
    }
}

#[test]
fn a_level_that_stays_high_is_told_with_each_end() {
    let mut rig = reported(4);
    rig.vgic.write_distributor(VcpuId(0), 0xc08, WORD, 0);
    let _ = rig.set_level(40, true);
    for _ in 0..3 {
        assert_eq!(rig.take(0), 40);
        rig.end(0, 40);
        rig.enter(0);
        assert_eq!(ended(&rig), [40]);
    }
    assert_eq!(rig.take(0), 40);
    let _ = rig.set_level(40, false);
    rig.enter(0);
    rig.end(0, 40);
    rig.enter(0);
    assert_eq!(ended(&rig), [40], "its last one");
    assert_eq!(rig.take(0), SPURIOUS);
}
