//! What is in a vCPU's list registers: changed by software meanwhile, more than there is room for, or linked to the host's.

use super::*;

// ---- changes of what is in somebody's list registers

#[test]
fn what_is_disabled_is_withdrawn_from_the_vcpu_that_has_it() {
    let mut rig = Rig::new(config(2));
    rig.set_level(33, true);
    rig.enter(0);
    assert_eq!(rig.vgic.write_distributor(VcpuId(0), 0x184, WORD, 1 << 1), only(0), "its holder is told");
    assert_eq!(rig.take(0), SPURIOUS);
    assert_eq!(rig.vgic.write_distributor(VcpuId(0), 0x104, WORD, 1 << 1), only(0));
    assert_eq!(rig.take(0), 33);
    assert_eq!(rig.vgic.write_distributor(VcpuId(0), 0x0, WORD, 1), VcpuSet::first(2), "a group concerns everybody");
    rig.vgic.set_level(IntId(34), true);
    assert_eq!(rig.take(0), SPURIOUS);
}

#[test]
fn a_pending_interrupt_follows_its_router_and_an_active_one_stays() {
    let mut rig = Rig::new(config(2));
    rig.set_level(33, true);
    rig.enter(0);
    let route = |rig: &Rig, to: u64| rig.vgic.write_distributor(VcpuId(0), 0x6108, AccessSize::Doubleword, to);
    assert_eq!(route(&rig, 1), only(0), "its holder has to give it back");
    assert_eq!(rig.enter(0), only(1), "and then the other one is told");
    assert_eq!(rig.take(0), SPURIOUS);
    assert_eq!(rig.take(1), 33);
    route(&rig, 0);
    rig.enter(1);
    assert_eq!(rig.take(0), SPURIOUS, "it is active on the other");
    rig.end(1, 33);
    assert_ne!(rig.cpus[1].maintenance(), 0);
    assert_eq!(rig.vgic.refill(VcpuId(1), &mut rig.cpus[1]), only(0));
    assert_eq!(rig.take(0), 33);
    route(&rig, 0x00ff_0000);
    rig.enter(0);
    rig.end(0, 33);
    rig.enter(0);
    assert_eq!((rig.take(0), rig.take(1)), (SPURIOUS, SPURIOUS), "an affinity that nobody has");
    assert_eq!(route(&rig, 1), only(1));
    assert_eq!(rig.take(1), 33);
}

#[test]
fn active_reads_as_it_is_for_the_reader_and_never_too_early_as_inactive_for_others() {
    let mut rig = Rig::new(config(2));
    rig.set_level(33, true);
    rig.enter(0);
    let observe = |rig: &Rig, by: usize| {
        let (value, kick) = rig.vgic.observe_distributor(VcpuId(by as u16), &rig.cpus[by], 0x304, WORD);
        (value, kick)
    };
    assert_eq!(observe(&rig, 0), (0, VcpuSet::EMPTY));
    assert_eq!(rig.take(0), 33);
    assert_eq!(observe(&rig, 0), (1 << 1, VcpuSet::EMPTY), "the reader's own list registers are looked at");
    rig.end(0, 33);
    rig.vgic.write_distributor(VcpuId(0), 0x184, WORD, 1 << 1);
    let (active, kick) = observe(&rig, 1);
    assert_eq!((active, kick), (1 << 1, only(0)), "the holder has not looked yet");
    rig.enter(0);
    assert_eq!(observe(&rig, 1), (0, VcpuSet::EMPTY));
}

#[test]
fn software_can_make_interrupts_active_and_inactive() {
    let mut rig = Rig::new(config(1));
    rig.set_level(33, true);
    rig.vgic.write_distributor(VcpuId(0), 0x304, WORD, 1 << 1);
    assert_eq!(rig.take(0), SPURIOUS, "active and pending is not signalled");
    assert!(!rig.wakes(0));
    assert_eq!(rig.vgic.observe_distributor(VcpuId(0), &rig.cpus[0], 0x304, WORD).0, 1 << 1);
    rig.vgic.write_distributor(VcpuId(0), 0x384, WORD, 1 << 1);
    assert_eq!(rig.take(0), 33);
    rig.vgic.write_distributor(VcpuId(0), 0x384, WORD, 1 << 1);
    rig.enter(0);
    assert_eq!(rig.vgic.observe_distributor(VcpuId(0), &rig.cpus[0], 0x304, WORD).0, 0);
    rig.end(0, 33);
    assert_eq!(rig.take(0), 33, "its line is still high");
}

// ---- more interrupts than list registers

#[test]
fn with_one_list_register_the_most_urgent_is_always_taken_and_nested_ends_are_counted() {
    let mut rig = Rig::new(VgicConfig { list_registers: 1, ..config(1) });
    for (intid, priority) in [(40, 0x80), (41, 0x40), (42, 0x20), (43, 0x60)] {
        rig.vgic.write_distributor(VcpuId(0), 0x400 + intid, AccessSize::Byte, priority);
    }
    rig.set_level(40, true);
    assert_eq!(rig.take(0), 40);
    rig.set_level(43, true);
    rig.set_level(41, true);
    assert_eq!(rig.take(0), 41, "the more urgent one of the two preempts");
    rig.set_level(42, true);
    assert_eq!(rig.take(0), 42);
    for intid in [42, 41] {
        rig.set_level(intid, false);
        rig.enter(0);
        rig.end(0, intid);
        assert_ne!(rig.cpus[0].maintenance(), 0, "its end, or that nothing is pending in the list register");
        rig.enter(0);
    }
    assert_eq!(rig.take(0), 43, "not before the one that it cannot preempt has ended");
    for intid in [43, 40] {
        rig.set_level(intid, false);
        rig.enter(0);
        rig.end(0, intid);
        rig.enter(0);
    }
    assert_eq!(rig.cpus[0].maintenance(), 0);
    assert_eq!(rig.take(0), SPURIOUS);
    assert_eq!(rig.vgic.read_distributor(0x304, WORD), 0);
}

#[test]
fn interrupts_of_a_group_that_the_guest_keeps_disabled_do_not_block_the_others() {
    let mut rig = Rig::new(VgicConfig { list_registers: 2, ..config(1) });
    rig.cpus[0].enable_group(0, false);
    // 32 to 35 are of group 0, and the most urgent.
    rig.vgic.write_distributor(VcpuId(0), 0x84, WORD, 0xffff_fff0);
    for intid in 32..36 {
        rig.vgic.write_distributor(VcpuId(0), 0x400 + u64::from(intid), AccessSize::Byte, 0);
        rig.set_level(intid, true);
    }
    for intid in 60..63 {
        rig.set_level(intid, true);
    }
    assert_eq!(rig.take(0), 60, "although it is not the most urgent");
    rig.enter(0);
    assert_eq!(rig.cpus[0].maintenance(), 0);
    rig.cpus[0].enable_group(0, true);
    assert_ne!(rig.cpus[0].maintenance(), 0, "now the others are due");
    for intid in 32..36 {
        rig.enter(0);
        assert_eq!(rig.cpus[0].acknowledge(0), intid);
        rig.set_level(intid, false);
        rig.enter(0);
        rig.cpus[0].end(0, intid);
    }
    rig.end(0, 60);
    rig.set_level(60, false);
    assert_eq!(rig.take(0), 61);
}

#[test]
fn deactivation_out_of_order_traps_while_active_interrupts_are_in_memory() {
    let mut rig = Rig::new(VgicConfig { list_registers: 2, ..config(1) });
    rig.cpus[0].set_split(true);
    for intid in 32..36 {
        rig.set_level(intid, true);
        assert_eq!(rig.take(0), intid);
        rig.set_level(intid, false);
        rig.end(0, intid);
        rig.enter(0);
    }
    for intid in [33, 35, 32, 34] {
        if rig.cpus[0].deactivate_interrupt(intid) == Deactivation::Trapped {
            rig.vgic.deactivate(VcpuId(0), IntId(intid), &mut rig.cpus[0]);
        }
        let active = rig.vgic.observe_distributor(VcpuId(0), &rig.cpus[0], 0x304, WORD).0;
        assert_eq!(active >> (intid - 32) & 1, 0, "{intid}");
    }
    assert_eq!(rig.vgic.observe_distributor(VcpuId(0), &rig.cpus[0], 0x304, WORD).0, 0);
    assert_eq!(rig.cpus[0].hcr, 1, "no trap and no maintenance interrupt when everything fits");
}

// ---- hardware-linked interrupts

#[test]
fn the_guests_end_of_a_hardware_linked_interrupt_ends_the_hosts() {
    let mut rig = Rig::new(config(1));
    let timer = IntId::VIRTUAL_TIMER;
    assert!(rig.vgic.inject_hardware(VcpuId(0), timer, IntId(29)));
    assert_eq!(rig.take(0), 27);
    rig.end(0, 27);
    assert_eq!(rig.cpus[0].deactivated, [IntId(29)]);
    assert_eq!(rig.cpus[0].maintenance(), 0, "without an exit");
    assert!(!rig.save(0).is_in_flight(timer));
    for (virtual_, physical) in [(IntId(5), IntId(27)), (IntId(32), IntId(27)), (timer, IntId(1020))] {
        assert!(!rig.vgic.inject_hardware(VcpuId(0), virtual_, physical));
    }
}

#[test]
fn a_hardware_linked_interrupt_moves_with_its_vcpu() {
    let mut rig = Rig::new(config(1));
    let timer = IntId::VIRTUAL_TIMER;
    rig.vgic.inject_hardware(VcpuId(0), timer, timer);
    rig.enter(0);
    assert!(rig.save(0).is_in_flight(timer), "pending");
    rig.load(0);
    assert_eq!(rig.take(0), 27);
    assert!(rig.save(0).is_in_flight(timer), "active");
    rig.load(0);
    rig.end(0, 27);
    assert_eq!(rig.cpus[0].deactivated, [timer]);
}

#[test]
fn a_hardware_linked_interrupt_made_inactive_by_software_ends_the_hosts_too() {
    let mut rig = Rig::new(config(1));
    let timer = IntId::VIRTUAL_TIMER;
    rig.vgic.inject_hardware(VcpuId(0), timer, timer);
    assert_eq!(rig.take(0), 27);
    rig.vgic.write_redistributor(0x1_0380, WORD, 1 << 27);
    rig.enter(0);
    assert_eq!(rig.cpus[0].deactivated, [timer]);
    assert!(!rig.save(0).is_in_flight(timer));
}

#[test]
fn a_hardware_linked_interrupt_is_taken_back_only_before_it_is_acknowledged() {
    let mut rig = Rig::new(config(1));
    let timer = IntId::VIRTUAL_TIMER;
    assert!(!rig.vgic.retract_hardware(VcpuId(0), timer, &mut rig.cpus[0]), "there is none");
    // Masked by the guest: in memory.
    rig.vgic.write_redistributor(0x1_0180, WORD, 1 << 27);
    rig.vgic.inject_hardware(VcpuId(0), timer, timer);
    assert_eq!(rig.vgic.read_redistributor(0x1_0200, WORD), 1 << 27);
    rig.vgic.write_redistributor(0x1_0280, WORD, 1 << 27);
    assert_eq!(rig.vgic.read_redistributor(0x1_0200, WORD), 1 << 27, "its level is still high");
    assert!(rig.vgic.retract_hardware(VcpuId(0), timer, &mut rig.cpus[0]));
    assert_eq!(rig.cpus[0].deactivated, [timer]);
    rig.vgic.write_redistributor(0x1_0100, WORD, 1 << 27);
    assert_eq!(rig.take(0), SPURIOUS);
    // In a list register.
    rig.vgic.inject_hardware(VcpuId(0), timer, timer);
    rig.enter(0);
    assert!(rig.vgic.retract_hardware(VcpuId(0), timer, &mut rig.cpus[0]));
    assert_eq!(rig.take(0), SPURIOUS);
    // Acknowledged.
    rig.vgic.inject_hardware(VcpuId(0), timer, timer);
    assert_eq!(rig.take(0), 27);
    assert!(!rig.vgic.retract_hardware(VcpuId(0), timer, &mut rig.cpus[0]));
}
