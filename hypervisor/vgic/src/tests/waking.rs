//! Sleep, power, waking: redistributors that are asleep, vCPUs that are off or wait.

use super::*;

#[test]
fn a_sleeping_redistributor_delivers_nothing_but_wakes_its_vcpu() {
    let mut rig = Rig::new(config(1));
    let waker = |rig: &Rig| rig.vgic.read_redistributor(0x14, WORD);
    assert_eq!(waker(&rig), 0, "awake, as firmware leaves it");
    rig.set_level(33, true);
    rig.enter(0);
    rig.vgic.write_redistributor(0x14, WORD, 0b10);
    assert_eq!(waker(&rig), 0b110, "ChildrenAsleep follows ProcessorSleep");
    rig.enter(0);
    assert_eq!(rig.cpus[0].acknowledge(1), SPURIOUS);
    rig.cpus[0].enable_group(1, false);
    assert!(rig.wakes(0), "the wake request needs no enabled group in the CPU interface");
    rig.cpus[0].enable_group(1, true);
    rig.vgic.write_redistributor(0x14, WORD, 0);
    assert_eq!(waker(&rig), 0);
    assert_eq!(rig.take(0), 33);
}

#[test]
fn an_interrupt_for_any_vcpu_goes_to_one_that_is_on_and_awake() {
    let mut rig = Rig::new(config(4));
    for bank in 33..37 {
        rig.vgic.write_distributor(VcpuId(0), 0x6000 + 8 * bank, AccessSize::Doubleword, 1 << 31);
    }
    rig.vgic.write_redistributor(2 * Vgic::REDISTRIBUTOR_SIZE + 0x14, WORD, 0b10);
    rig.save(3);
    rig.vgic.power_off(VcpuId(3));
    let mut told = VcpuSet::EMPTY;
    for intid in 33..37 {
        let one = rig.set_level(intid, true);
        assert_eq!(one.count(), 1);
        told = told.union(one);
    }
    assert_eq!(told, VcpuSet(0b11), "in turn, but neither the sleeping one nor the one that is off");
    rig.vgic.write_redistributor(0x14, WORD, 0b10);
    rig.enter(0);
    let mut taken: Vec<u32> = core::iter::repeat_with(|| {
        let intid = rig.take(1);
        rig.set_level(intid, false);
        rig.enter(1);
        rig.end(1, intid);
        intid
    })
    .take_while(|intid| *intid != SPURIOUS)
    .collect();
    taken.sort_unstable();
    assert_eq!(taken, [33, 34, 35, 36], "what the other one had not taken came here when it went to sleep");
    rig.vgic.write_redistributor(Vgic::REDISTRIBUTOR_SIZE + 0x14, WORD, 0b10);
    assert_eq!(rig.set_level(33, true), VcpuSet::EMPTY, "nobody is there");
    rig.vgic.write_redistributor(2 * Vgic::REDISTRIBUTOR_SIZE + 0x14, WORD, 0);
    assert_eq!(rig.take(2), 33, "the first that comes takes it");
}

#[test]
fn a_vcpu_that_was_off_starts_with_a_cpu_interface_after_reset() {
    let mut rig = Rig::new(config(1));
    rig.set_level(33, true);
    assert_eq!(rig.take(0), 33);
    assert!(rig.vgic.power_off(VcpuId(0)).is_empty(), "not while it is loaded");
    rig.save(0);
    rig.vgic.power_off(VcpuId(0));
    rig.load(0);
    assert_eq!(rig.cpus[0].running_priority(), 256);
    assert_eq!(rig.cpus[0].vmcr & 0xff00_0003, 0, "groups disabled, everything masked");
    assert_eq!(rig.vgic.read_redistributor(0x1_0100, WORD), 0xffff_ffff, "the redistributor keeps its state");
}

#[test]
fn a_wait_ends_only_for_what_would_be_signalled() {
    let mut rig = Rig::new(config(1));
    rig.vgic.write_distributor(VcpuId(0), 0x421, AccessSize::Byte, 0x40);
    rig.set_level(33, true);
    rig.enter(0);
    assert!(rig.wakes(0));
    rig.cpus[0].set_mask(0x40);
    assert!(!rig.wakes(0), "not above the mask");
    rig.cpus[0].set_mask(0x48);
    rig.cpus[0].enable_group(1, false);
    assert!(!rig.wakes(0), "its group is disabled");
    rig.cpus[0].enable_group(1, true);
    assert_eq!(rig.take(0), 33);
    rig.set_level(34, true);
    rig.enter(0);
    assert!(!rig.wakes(0), "it does not preempt what is running");
    rig.save(0);
    assert!(!rig.wakes(0), "nor while the vCPU is not loaded");
    rig.vgic.write_distributor(VcpuId(0), 0x422, AccessSize::Byte, 0x10);
    assert!(rig.wakes(0));
}
