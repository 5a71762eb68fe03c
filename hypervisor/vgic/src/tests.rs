//! The interrupt controller from outside: what a guest, a device and the kernel see of it. A test for each sentence of the
//! specification that is relied on; what follows from all of them together is for `tests/model.rs`.

use super::*;
use crate::testkit::{CpuInterface, Deactivation, SPURIOUS};
use alloc::vec;
use types::{AccessSize, IntId};
use vdev::InterruptController;

const WORD: AccessSize = AccessSize::Word;
/// The frame with the private interrupts of a vCPU.
const fn sgi_frame(vcpu: u64) -> u64 {
    vcpu * Vgic::REDISTRIBUTOR_SIZE + 0x1_0000
}

fn config(vcpus: usize) -> VgicConfig {
    VgicConfig { version: Version::V3, vcpus, intids: 256, list_registers: 4, priority_bits: 5 }
}

/// vCPUs, each loaded on a CPU of its own, with everything enabled, group 1, priority 0x80, level-sensitive but for SGIs.
struct Rig {
    vgic: Vgic,
    cpus: Vec<CpuInterface>,
}

impl Rig {
    fn new(config: VgicConfig) -> Self {
        let vgic = Vgic::new(config).unwrap();
        let mut cpus = Vec::new();
        vgic.write_distributor(VcpuId(0), 0, WORD, 3);
        for vcpu in 0..config.vcpus {
            let mut cpu = CpuInterface::new(config.list_registers, u32::from(config.priority_bits));
            vgic.load(VcpuId(vcpu as u16), &mut cpu);
            cpu.enable_group(0, true);
            cpu.enable_group(1, true);
            cpu.set_mask(0xff);
            cpus.push(cpu);
            vgic.write_redistributor(sgi_frame(vcpu as u64) + 0x100, WORD, 0xffff_ffff);
            for byte in 0..32 {
                vgic.write_redistributor(sgi_frame(vcpu as u64) + 0x400 + byte, AccessSize::Byte, 0x80);
            }
        }
        for bank in 1..u64::from(config.intids / 32) {
            vgic.write_distributor(VcpuId(0), 0x100 + 4 * bank, WORD, 0xffff_ffff);
        }
        for intid in 32..u64::from(config.intids) {
            vgic.write_distributor(VcpuId(0), 0x400 + intid, AccessSize::Byte, 0x80);
        }
        Self { vgic, cpus }
    }

    /// What the kernel does before an entry.
    fn enter(&mut self, vcpu: usize) -> VcpuSet {
        self.vgic.refill(VcpuId(vcpu as u16), &mut self.cpus[vcpu])
    }

    /// The INTID that the vCPU takes next, of group 1.
    fn take(&mut self, vcpu: usize) -> u32 {
        self.enter(vcpu);
        self.cpus[vcpu].acknowledge(1)
    }

    fn end(&mut self, vcpu: usize, intid: u32) {
        self.cpus[vcpu].end(1, intid);
    }

    fn set_level(&self, intid: u32, asserted: bool) -> VcpuSet {
        self.vgic.set_level(IntId(intid), asserted)
    }

    fn wakes(&self, vcpu: usize) -> bool {
        self.vgic.wants_attention(VcpuId(vcpu as u16), &self.cpus[vcpu])
    }

    fn save(&mut self, vcpu: usize) -> Saved {
        self.vgic.save(VcpuId(vcpu as u16), &mut self.cpus[vcpu])
    }

    fn load(&mut self, vcpu: usize) {
        self.vgic.load(VcpuId(vcpu as u16), &mut self.cpus[vcpu]);
    }
}

fn only(vcpu: u16) -> VcpuSet {
    VcpuSet::of(VcpuId(vcpu))
}

// ---- what it is

#[test]
fn a_configuration_out_of_range_is_refused_with_the_field_that_is() {
    let good = config(1);
    assert!(Vgic::new(good).is_ok());
    assert_eq!(Vgic::new(VgicConfig { vcpus: 0, ..good }).unwrap_err(), VgicError::Vcpus(Version::V3, 0));
    assert_eq!(Vgic::new(VgicConfig { vcpus: 65, ..good }).unwrap_err(), VgicError::Vcpus(Version::V3, 65));
    assert_eq!(Vgic::new(VgicConfig { intids: 32, ..good }).unwrap_err(), VgicError::Intids(32));
    assert_eq!(Vgic::new(VgicConfig { intids: 1056, ..good }).unwrap_err(), VgicError::Intids(1056));
    assert_eq!(Vgic::new(VgicConfig { intids: 100, ..good }).unwrap_err(), VgicError::Intids(100));
    assert_eq!(Vgic::new(VgicConfig { list_registers: 17, ..good }).unwrap_err(), VgicError::ListRegisters(17));
    assert_eq!(Vgic::new(VgicConfig { priority_bits: 4, ..good }).unwrap_err(), VgicError::PriorityBits(4));
    assert_eq!(Vgic::new(VgicConfig { priority_bits: 9, ..good }).unwrap_err(), VgicError::PriorityBits(9));
}

#[test]
fn the_controller_says_what_it_is() {
    let vgic = Vgic::new(config(20)).unwrap();
    assert_eq!(vgic.read_distributor(0x0, WORD), 0x50, "ARE and DS");
    assert_eq!(vgic.read_distributor(0x4, WORD) & 0x1f, 7, "8 times 32 INTIDs");
    assert_eq!(vgic.read_distributor(0x4, WORD) >> 19 & 0x1f, 9, "10 bits of INTID");
    assert_eq!(vgic.read_distributor(0x4, WORD) >> 16 & 7, 1, "message-based SPIs, no LPIs");
    assert_eq!(vgic.read_distributor(0xffe8, WORD), 0x3b, "GICv3");
    assert_eq!(vgic.read_redistributor(Vgic::REDISTRIBUTOR_SIZE + 0xffe8, WORD), 0x3b);
    let types = |vcpu: u64| vgic.read_redistributor(vcpu * Vgic::REDISTRIBUTOR_SIZE + 8, AccessSize::Doubleword);
    assert_eq!(types(0), 0);
    assert_eq!(types(17), 0x0101 << 32 | 17 << 8, "affinity 0.0.1.1");
    assert_eq!(types(19), 0x0103 << 32 | 19 << 8 | 1 << 4, "the last one");
    assert_eq!(types(20), 0, "nobody's frame");
    assert_eq!(vgic.read_redistributor(17 * Vgic::REDISTRIBUTOR_SIZE + 12, WORD), 0x0101, "its upper half");
}

#[test]
fn every_size_answers_and_read_only_registers_stay() {
    let vgic = Vgic::new(VgicConfig { intids: 1024, ..config(2) }).unwrap();
    let sizes = [AccessSize::Byte, AccessSize::Halfword, WORD, AccessSize::Doubleword];
    // One register of each kind, and a byte to either side; all offsets there are is for `tests/windows.rs`.
    let registers =
        (0..0x20).map(|number| number * 0x80).chain([0x4, 0x8, 0x14, 0x70, 0x404, 0x47c, 0xc04, 0xc0c, 0xffe8]);
    let routers = [0x6000, 0x6100, 0x6104, 0x7fd8, 0x7fe0];
    let offsets: Vec<u64> = registers.chain(routers).flat_map(|offset| offset..offset + 3).collect();
    for size in sizes {
        for &offset in &offsets {
            let _ = vgic.write_distributor(VcpuId(0), offset, size, u64::MAX);
            let value = vgic.read_distributor(offset, size);
            assert_eq!(value & !size.mask(), 0);
            if size == AccessSize::Halfword || !size.is_aligned(offset) {
                assert_eq!(value, 0, "{size:?} at {offset:#x}");
            }
            for frame in [0, 0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000] {
                let _ = vgic.write_redistributor(frame + offset, size, u64::MAX);
                let value = vgic.read_redistributor(frame + offset, size);
                assert!(value & !size.mask() == 0 && (size.is_aligned(offset) || value == 0));
            }
        }
    }
    assert_eq!(vgic.read_distributor(0x0, WORD), 0x53, "the group enables are all that can change");
    assert_eq!(vgic.read_distributor(0x4, WORD), 0x0049_001f);
    assert_eq!(vgic.read_distributor(0x100, WORD), 0, "ISENABLER0 is the redistributors'");
    assert_eq!(vgic.read_distributor(0xfc, WORD), 0x0fff_ffff, "INTIDs 1020 to 1023 do not exist");
    assert_eq!(vgic.read_distributor(0x7fd8, AccessSize::Doubleword), 0x80ff_ffff, "IROUTER1019");
    assert_eq!(vgic.read_distributor(0x7fe0, AccessSize::Doubleword), 0, "there is no IROUTER1020");
    assert_eq!(vgic.read_redistributor(0x1_0c00, WORD), 0xaaaa_aaaa, "SGIs are edge-triggered");
    assert_eq!(vgic.read_redistributor(0x1_0c04, WORD), 0xaaaa_aaaa, "PPIs can be");
    assert_eq!(vgic.read_redistributor(0x70, AccessSize::Doubleword), 0, "no LPIs");
    assert_eq!(vgic.read_distributor(0x47c, WORD), 0xf8f8_f8f8, "5 bits of priority");
    assert_eq!(vgic.read_distributor(0xd04, WORD), 0, "IGRPMODR: one security state");
}

#[test]
fn priorities_can_be_reached_by_byte_and_by_word() {
    let vgic = Vgic::new(config(1)).unwrap();
    vgic.write_distributor(VcpuId(0), 0x424, WORD, 0x1122_33ff);
    assert_eq!(vgic.read_distributor(0x424, WORD), 0x1020_30f8);
    assert_eq!(vgic.read_distributor(0x427, AccessSize::Byte), 0x10);
    vgic.write_distributor(VcpuId(0), 0x426, AccessSize::Byte, 0xa0);
    assert_eq!(vgic.read_distributor(0x424, WORD), 0x10a0_30f8);
    vgic.write_redistributor(0x1_0401, AccessSize::Byte, 0x48);
    assert_eq!(vgic.read_redistributor(0x1_0400, WORD), 0x4800);
}

#[test]
fn routers_can_be_reached_by_halves() {
    let vgic = Vgic::new(config(2)).unwrap();
    vgic.write_distributor(VcpuId(0), 0x6100, WORD, 0x8000_0001);
    vgic.write_distributor(VcpuId(0), 0x6104, WORD, 0xff);
    assert_eq!(
        vgic.read_distributor(0x6100, AccessSize::Doubleword),
        0x8000_0001,
        "affinity level 3 is not implemented"
    );
    assert_eq!(vgic.read_distributor(0x6100, WORD), 0x8000_0001);
    assert_eq!(vgic.read_distributor(0x6104, WORD), 0);
}

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

// ---- sleep, power, waking

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

#[test]
fn strangers_are_ignored() {
    let rig = Rig::new(config(1));
    let mut cpu = CpuInterface::new(4, 5);
    let nobody = VcpuId(1);
    rig.vgic.load(nobody, &mut cpu);
    assert!(rig.vgic.save(nobody, &mut cpu).kick.is_empty() && rig.vgic.refill(nobody, &mut cpu).is_empty());
    assert!(!rig.vgic.needs_refill(nobody) && !rig.vgic.wants_attention(nobody, &cpu));
    assert!(rig.vgic.power_off(nobody).is_empty() && !rig.vgic.inject_hardware(nobody, IntId(27), IntId(27)));
    assert!(rig.vgic.deactivate(nobody, IntId(27), &mut cpu).is_empty());
    assert!(rig.vgic.send_sgi(nobody, SgiRegister::Sgi1r, 2).is_empty());
    assert_eq!(cpu.hcr, 0);
}

// ---- ends that are reported

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

// ---- messages

#[test]
fn a_message_is_an_edge_or_a_level_as_the_interrupt_is_configured() {
    let mut rig = Rig::new(config(1));
    rig.vgic.write_distributor(VcpuId(0), 0xc08, WORD, 2 << 16);
    let (set, clear) = (0x40, 0x48);
    // Edge: pending until it is taken, or the message is taken back.
    assert_eq!(rig.vgic.write_distributor(VcpuId(0), set, WORD, 40), only(0));
    assert_eq!(rig.take(0), 40);
    rig.end(0, 40);
    assert_eq!(rig.take(0), SPURIOUS);
    rig.vgic.write_distributor(VcpuId(0), set, WORD, 40);
    rig.vgic.write_distributor(VcpuId(0), clear, WORD, 40);
    assert_eq!(rig.take(0), SPURIOUS);
    // Level: as long as it is not taken back.
    rig.vgic.write_distributor(VcpuId(0), set, WORD, 41);
    rig.vgic.write_distributor(VcpuId(0), 0x284, WORD, 1 << 9);
    for _ in 0..2 {
        assert_eq!(rig.take(0), 41);
        rig.end(0, 41);
    }
    rig.vgic.write_distributor(VcpuId(0), clear, WORD, 41);
    assert_eq!(rig.take(0), SPURIOUS);
    // Pending by software is another matter.
    rig.vgic.write_distributor(VcpuId(0), 0x204, WORD, 1 << 9);
    rig.vgic.write_distributor(VcpuId(0), clear, WORD, 41);
    assert_eq!(rig.take(0), 41);
    rig.end(0, 41);
    // "16-bit accesses to bits [15:0] of this register must be supported."
    rig.vgic.write_distributor(VcpuId(0), set, AccessSize::Halfword, 42);
    rig.vgic.write_distributor(VcpuId(0), set, WORD, 0xffff_e000 | 40);
    assert_eq!([rig.take(0), rig.take(0)], [40, SPURIOUS], "RES0 bits are ignored; equals do not preempt");
    rig.end(0, 40);
    assert_eq!(rig.take(0), 42);
}

#[test]
fn messages_reach_nothing_but_spis() {
    let rig = Rig::new(config(1));
    for (offset, size) in [(0x40, AccessSize::Byte), (0x42, AccessSize::Halfword), (0x40, AccessSize::Doubleword)] {
        assert!(rig.vgic.write_distributor(VcpuId(0), offset, size, 40).is_empty(), "{size:?} at {offset:#x}");
    }
    for intid in [0, 5, 27, 31, 256, 1019, 1020, 1023, 8192, u64::MAX] {
        assert!(rig.vgic.write_distributor(VcpuId(0), 0x40, WORD, intid).is_empty(), "{intid}");
    }
    for alias in [0x50, 0x58] {
        assert!(rig.vgic.write_distributor(VcpuId(0), alias, WORD, 40).is_empty(), "one security state");
    }
    assert!((0x40..0x60).all(|offset| rig.vgic.read_distributor(offset, WORD) == 0), "write-only");
    assert_eq!(rig.vgic.read_distributor(0x204, WORD), 0);
}

#[test]
fn a_device_reaches_the_registers_for_messages_and_no_other() {
    let base = 0x800_0000;
    let Rig { vgic, cpus } = Rig::new(config(1));
    assert!(vgic.message(None, Ipa(0x40), 40).is_empty(), "nobody has said where the distributor is");
    let mut rig = Rig { vgic: vgic.with_messages_at(Ipa(base)), cpus };
    for at in [0x40, base, base + 0x50, base + 0x44, base + 0x104, base + 0x184, base + 0x1_0040, base - 0x40, u64::MAX]
    {
        assert!(rig.vgic.message(None, Ipa(at), 40).is_empty(), "{at:#x}");
    }
    assert_eq!(rig.vgic.read_distributor(0, WORD), 0x53, "groups as they were");
    assert_eq!(rig.take(0), SPURIOUS);
    assert_eq!(rig.vgic.message(None, Ipa(base + 0x40), 40), only(0));
    assert_eq!(rig.take(0), 40);
    let _ = rig.vgic.message(None, Ipa(base + 0x48), 40);
    rig.enter(0);
    rig.end(0, 40);
    assert_eq!(rig.take(0), SPURIOUS);
}
