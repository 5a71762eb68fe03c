//! SPIs that are linked to the host's.

use super::*;

/// The guest's, and the host's behind it.
const GUEST: IntId = IntId(40);
const HOST: IntId = IntId(34);

fn rig(list_registers: usize, vcpus: usize) -> Rig {
    Rig::new(VgicConfig { list_registers, ..config(vcpus) })
}

fn inject(rig: &Rig) -> VcpuSet {
    rig.vgic.inject_hardware_shared(GUEST, HOST)
}

/// What the kernel is asked to deactivate.
fn physical(rig: &Rig) -> Vec<IntId> {
    let mut all = Vec::new();
    let _ = rig.vgic.take_ended();
    rig.vgic.take_physical(|intid| all.push(intid));
    all
}

#[test]
fn its_end_deactivates_the_hosts_without_an_exit() {
    let mut rig = rig(4, 1);
    for round in 1..=3 {
        assert_eq!(inject(&rig), only(0));
        assert_eq!(rig.take(0), 40);
        assert_eq!(rig.cpus[0].deactivated.len(), round - 1, "taken, not ended");
        rig.end(0, 40);
        assert_eq!(rig.cpus[0].deactivated, vec![HOST; round]);
        assert_eq!(rig.cpus[0].maintenance(), 0, "nobody has to look");
        assert_eq!(rig.take(0), SPURIOUS, "and it does not come again by itself");
        assert!(!rig.vgic.has_ended() && physical(&rig).is_empty());
    }
}

#[test]
fn it_stays_linked_while_its_vcpu_is_out() {
    let mut rig = rig(4, 1);
    let _ = inject(&rig);
    rig.enter(0);
    rig.save(0);
    assert!(rig.cpus[0].deactivated.is_empty() && physical(&rig).is_empty(), "pending");
    rig.load(0);
    assert_eq!(rig.take(0), 40);
    rig.save(0);
    assert!(rig.cpus[0].deactivated.is_empty() && physical(&rig).is_empty(), "active");
    rig.load(0);
    rig.end(0, 40);
    assert_eq!(rig.cpus[0].deactivated, [HOST]);
    rig.save(0);
    assert!(physical(&rig).is_empty(), "once");
}

#[test]
fn it_goes_where_the_guest_routes_it() {
    let mut rig = rig(4, 2);
    rig.vgic.write_distributor(VcpuId(0), 0x6000 + 8 * 40, AccessSize::Doubleword, 1);
    assert_eq!(inject(&rig), only(1));
    assert_eq!(rig.take(0), SPURIOUS);
    assert_eq!(rig.take(1), 40);
    rig.end(1, 40);
    assert_eq!(rig.cpus[1].deactivated, [HOST]);
}

#[test]
fn one_that_the_guest_has_disabled_waits_and_keeps_the_hosts_active() {
    let mut rig = rig(4, 1);
    rig.vgic.write_distributor(VcpuId(0), 0x184, WORD, 1 << 8);
    let _ = inject(&rig);
    assert_eq!(rig.take(0), SPURIOUS);
    assert!(rig.cpus[0].deactivated.is_empty() && physical(&rig).is_empty());
    rig.vgic.write_distributor(VcpuId(0), 0x104, WORD, 1 << 8);
    assert_eq!(rig.take(0), 40);
    rig.end(0, 40);
    assert_eq!(rig.cpus[0].deactivated, [HOST]);
}

#[test]
fn inactive_by_a_register_is_for_the_kernel_to_deactivate() {
    let mut rig = rig(4, 1);
    // In memory.
    let _ = inject(&rig);
    assert_eq!(rig.take(0), 40);
    rig.save(0);
    rig.vgic.write_distributor(VcpuId(0), 0x384, WORD, 1 << 8);
    assert!(rig.vgic.has_ended(), "the kernel is to look");
    assert_eq!(physical(&rig), [HOST]);
    assert!(physical(&rig).is_empty(), "once");
    // In a list register.
    rig.load(0);
    rig.cpus[0].end(1, 40);
    let _ = inject(&rig);
    assert_eq!(rig.take(0), 40);
    rig.vgic.write_distributor(VcpuId(0), 0x384, WORD, 1 << 8);
    assert!(rig.enter(0).contains(VcpuId(0)), "the vCPU itself is to look");
    assert_eq!(physical(&rig), [HOST]);
    assert!(rig.cpus[0].deactivated.is_empty());
}

#[test]
fn with_one_list_register_every_host_interrupt_is_deactivated_once() {
    let mut rig = rig(1, 1);
    // More urgent, and active while the linked one waits.
    rig.vgic.write_distributor(VcpuId(0), 0x400 + 41, AccessSize::Byte, 0x10);
    let _ = inject(&rig);
    assert_eq!(rig.take(0), 40);
    let _ = (rig.set_level(41, true), rig.set_level(41, false));
    rig.vgic.inject_edge(IntId(41));
    assert_eq!(rig.take(0), 41, "it preempts");
    rig.end(0, 41);
    rig.enter(0);
    rig.end(0, 40);
    rig.enter(0);
    let by_kernel = physical(&rig);
    assert_eq!(rig.cpus[0].deactivated.len() + by_kernel.len(), 1, "{:?} {by_kernel:?}", rig.cpus[0].deactivated);
}

#[test]
fn what_is_no_shared_interrupt_is_ignored() {
    let rig = rig(4, 1);
    assert!(rig.vgic.inject_hardware_shared(IntId(27), HOST).is_empty());
    assert!(rig.vgic.inject_hardware_shared(GUEST, IntId(27)).is_empty());
    assert!(rig.vgic.inject_hardware_shared(IntId(1019), HOST).is_empty(), "the guest has none of that number");
    assert!(rig.vgic.inject_edge(IntId(27)).is_empty());
}

#[test]
fn an_edge_is_not_linked() {
    let mut rig = rig(4, 1);
    assert_eq!(rig.vgic.inject_edge(GUEST), only(0));
    assert_eq!(rig.take(0), 40);
    rig.end(0, 40);
    assert!(rig.cpus[0].deactivated.is_empty() && physical(&rig).is_empty());
    assert_eq!(rig.take(0), SPURIOUS);
}
