//! LPIs and the ITS from outside: what a guest's driver and its devices see. A test for each sentence of IHI 0069 that is relied on;
//! what follows from all of them together is for `tests/lpis.rs`.

use super::*;
use crate::VgicConfig;
use crate::testkit::its::command::{
    Command, clear, discard, int, inv, invall, mapc, mapd, mapi, mapti, movall, movi, sync,
};
use crate::testkit::its::{
    COLLECTIONS, DEVICES, Done, Driver, ITS, MEMORY, PENDING, PROPERTIES, QUEUE, TRANSLATER, rd_base,
};
use crate::testkit::{CpuInterface, SPURIOUS};
use alloc::{string::ToString, vec, vec::Vec};
use types::AccessSize;
use vdev::InterruptController;

mod commands;
mod tables;

const WORD: AccessSize = AccessSize::Word;
const DOUBLEWORD: AccessSize = AccessSize::Doubleword;
/// Enabled, of this priority.
const fn at(priority: u8) -> u8 {
    priority | 1
}

/// vCPUs, each loaded on a CPU of its own, and a driver of the ITS. Device 3 has 5 bits of EventIDs; event `n` below 16 is LPI
/// 8192 + `n`, enabled, of priority 0x80, for vCPU 0.
struct Rig {
    vgic: Vgic,
    cpus: Vec<CpuInterface>,
    driver: Driver,
}

const DEVICE: RequesterId = RequesterId(3);

fn bare(vcpus: usize, lpis: u32) -> Vgic {
    let config = VgicConfig { version: Version::V3, vcpus, intids: 64, list_registers: 4, priority_bits: 5 };
    Vgic::new(config).unwrap().with_messages_at(Ipa(0x800_0000)).with_its(ITS, lpis).unwrap()
}

impl Rig {
    fn new(vcpus: usize) -> Self {
        Self::sized(vcpus, 4, 256)
    }

    fn sized(vcpus: usize, list_registers: usize, lpis: u32) -> Self {
        let config = VgicConfig { version: Version::V3, vcpus, intids: 64, list_registers, priority_bits: 5 };
        let vgic = Vgic::new(config).unwrap().with_messages_at(Ipa(0x800_0000)).with_its(ITS, lpis).unwrap();
        vgic.write_distributor(VcpuId(0), 0, WORD, 3);
        vgic.write_distributor(VcpuId(0), 0x104, WORD, 0xffff_ffff);
        let mut driver = Driver::new(&vgic, vcpus);
        let mut cpus = Vec::new();
        for vcpu in 0..vcpus {
            let mut cpu = CpuInterface::new(list_registers, 5);
            vgic.load(VcpuId(vcpu as u16), &mut cpu);
            cpu.enable_group(1, true);
            cpu.set_mask(0xff);
            cpus.push(cpu);
        }
        (0..16).for_each(|lpi| driver.configure(8192 + lpi, at(0x80)));
        driver.send(&vgic, &[mapd(3, Some(5))]);
        (0..16).for_each(|event| _ = driver.send(&vgic, &[mapti(3, event, 8192 + event, 0)]));
        Self { vgic, cpus, driver }
    }

    fn send(&mut self, commands: &[Command]) -> Done {
        self.driver.send(&self.vgic, commands)
    }

    /// A device sends a message.
    fn message(&self, event: u32) -> VcpuSet {
        self.vgic.message(Some(DEVICE), TRANSLATER, event)
    }

    fn enter(&mut self, vcpu: usize) -> VcpuSet {
        self.vgic.refill(VcpuId(vcpu as u16), &mut self.cpus[vcpu])
    }

    /// The INTID that the vCPU takes next, which it ends at once.
    fn take(&mut self, vcpu: usize) -> u32 {
        self.enter(vcpu);
        let intid = self.cpus[vcpu].acknowledge(1);
        if intid != SPURIOUS {
            self.cpus[vcpu].end(1, intid);
        }
        intid
    }

    fn read(&self, offset: u64) -> u64 {
        self.vgic.read_its(offset, DOUBLEWORD)
    }

    fn refused(&self) -> u64 {
        self.vgic.its_status().unwrap().refused
    }
}

#[test]
fn there_are_as_many_lpis_as_the_distributor_can_say() {
    for (asked, bits) in [(1, 5), (32, 5), (33, 6), (100, 7), (8192, 13)] {
        let vgic = bare(1, asked);
        let typer = vgic.read_distributor(4, WORD);
        // LPIS; IDbits: 14; num_LPIs: two to the power of one more.
        assert_eq!((typer >> 17 & 1, typer >> 19 & 31, typer >> 11 & 31), (1, 13, bits - 1));
        assert_eq!(vgic.its_status().unwrap().lpis, 1 << bits);
    }
    let config = |version| VgicConfig { version, vcpus: 1, intids: 64, list_registers: 4, priority_bits: 5 };
    for (version, lpis) in [(Version::V3, 0), (Version::V3, 8193), (Version::V3, u32::MAX), (Version::V2, 64)] {
        let error = Vgic::new(config(version)).unwrap().with_its(ITS, lpis).unwrap_err();
        assert_eq!(error, VgicError::Lpis(version, lpis));
    }
}

#[test]
fn without_an_its_there_are_no_lpis() {
    let config = VgicConfig { version: Version::V3, vcpus: 1, intids: 64, list_registers: 4, priority_bits: 5 };
    let vgic = Vgic::new(config).unwrap();
    let driver = Driver::default();
    assert_eq!(vgic.read_distributor(4, WORD) >> 17 & 1, 0);
    assert_eq!(vgic.read_redistributor(8, DOUBLEWORD) & 1, 0);
    for offset in [0, 0x70, 0x78, 0xc0] {
        assert!(driver.write_redistributor(&vgic, 0, offset, DOUBLEWORD, u64::MAX).is_none());
        assert_eq!(vgic.read_redistributor(offset, WORD) | vgic.read_redistributor(offset, DOUBLEWORD), 0);
    }
    assert_eq!(vgic.message(Some(DEVICE), TRANSLATER, 0), VcpuSet::EMPTY);
    assert_eq!((vgic.in_its(ITS), vgic.its_status()), (None, None));
    assert_eq!(vgic.go_on(&driver.memory), Progress::default());
}

#[test]
fn it_says_what_it_is() {
    let vgic = bare(2, 64);
    let typer = vgic.read_its(8, DOUBLEWORD);
    // Physical; entries of 8 bytes; 16 bits of EventID and of DeviceID; RDbase is a number; 8 bits of collections.
    assert_eq!((typer & 1, typer >> 4 & 15, typer >> 8 & 31, typer >> 13 & 31), (1, 7, 15, 15));
    assert_eq!((typer >> 19 & 1, typer >> 24 & 0xff, typer >> 32 & 15, typer >> 36 & 1), (0, 0, 7, 1));
    assert_eq!((vgic.read_its(8, WORD), vgic.read_its(12, WORD)), (typer & 0xffff_ffff, typer >> 32));
    assert_eq!((vgic.read_its(4, WORD), vgic.read_its(0xffe8, WORD)), (0x4200_043b, 0x3b));
    // GICR_TYPER: PLPIS, no DirectLPI, CommonLPIAff 0; GICR_CTLR: IR, no CES.
    assert_eq!(vgic.read_redistributor(rd_base(1) + 8, DOUBLEWORD) & 0x0300_0009, 1);
    assert_eq!(vgic.read_redistributor(rd_base(1), WORD), 1 << 2);
    // GITS_CTLR: Quiescent.
    assert_eq!(vgic.read_its(0, WORD), 1 << 31);
    assert_eq!((vgic.in_its(ITS), vgic.in_its(Ipa(ITS.0 + 0x1_ffff))), (Some(0), Some(0x1_ffff)));
    assert_eq!((vgic.in_its(Ipa(ITS.0 - 1)), vgic.in_its(Ipa(ITS.0 + 0x2_0000))), (None, None));
}

#[test]
fn a_message_becomes_the_lpi_of_its_event_for_the_vcpu_of_its_collection() {
    let mut rig = Rig::new(2);
    rig.send(&[mapti(3, 5, 8200, 1)]);
    assert_eq!(rig.message(5), VcpuSet::of(VcpuId(1)));
    assert!(rig.vgic.needs_refill(VcpuId(1)) && !rig.vgic.needs_refill(VcpuId(0)));
    assert_eq!((rig.take(0), rig.take(1), rig.take(1)), (SPURIOUS, 8200, SPURIOUS));
    // Nothing is left of it: it has no active state.
    assert!(!rig.vgic.wants_attention(VcpuId(1), &rig.cpus[1]));
    assert_eq!(rig.message(4), VcpuSet::of(VcpuId(0)));
    assert_eq!(rig.take(0), 8196);
}

#[test]
fn messages_that_mean_nothing_are_lost() {
    let rig = Rig::new(1);
    let send = |from, at, event| rig.vgic.message(from, at, event);
    assert!(send(None, TRANSLATER, 1).is_empty(), "from nobody");
    assert!(send(Some(RequesterId(4)), TRANSLATER, 1).is_empty(), "from a stranger");
    assert!(send(Some(DEVICE), TRANSLATER, 16).is_empty() && send(Some(DEVICE), TRANSLATER, 0x1_0001).is_empty());
    assert!(send(Some(DEVICE), Ipa(TRANSLATER.0 + 4), 1).is_empty());
    // A guest's own store is from nobody.
    assert_eq!(rig.vgic.write_its(Vgic::TRANSLATER, WORD, 1, &rig.driver.memory), Progress::default());
    rig.driver.write_word(&rig.vgic, 0, 0);
    assert!(send(Some(DEVICE), TRANSLATER, 1).is_empty(), "while it is disabled");
    rig.driver.write_word(&rig.vgic, 0, 1);
    assert!(!send(Some(DEVICE), TRANSLATER, 1).is_empty());
    // The distributor takes messages as ever.
    assert!(!send(Some(DEVICE), Ipa(0x800_0040), 40).is_empty());
}

#[test]
fn what_is_pending_is_taken_when_it_is_enabled() {
    let mut rig = Rig::new(1);
    for invalidate in [inv(3, 1), invall(0)] {
        rig.driver.configure(8193, 0x80);
        rig.send(&[invalidate]);
        assert_eq!((rig.message(1), rig.take(0)), (VcpuSet::EMPTY, SPURIOUS));
        rig.driver.configure(8193, at(0x80));
        assert_eq!(rig.take(0), SPURIOUS, "nobody has said that the table has changed");
        let kick = rig.send(&[invalidate, sync(0)]).kick;
        assert_eq!((kick, rig.take(0), rig.take(0)), (VcpuSet::of(VcpuId(0)), 8193, SPURIOUS));
    }
}

#[test]
fn redistributors_invalidate_as_well() {
    let mut rig = Rig::new(2);
    rig.driver.configure(8193, 0x80);
    rig.send(&[inv(3, 1)]);
    rig.message(1);
    for (offset, value) in [(0xa0, 8193), (0xb0, 0)] {
        assert_eq!(rig.take(0), SPURIOUS);
        rig.driver.configure(8193, at(0x80));
        // Whichever redistributor is told: they share the table.
        let progress = rig.driver.write_redistributor(&rig.vgic, 1, offset, DOUBLEWORD, value).unwrap();
        assert_eq!((progress.kick, rig.take(0)), (VcpuSet::of(VcpuId(0)), 8193));
        assert_eq!(rig.vgic.read_redistributor(rd_base(1) + 0xc0, DOUBLEWORD), 0, "GICR_SYNCR.Busy");
        rig.driver.configure(8193, 0x80);
        rig.driver.write_redistributor(&rig.vgic, 1, offset, WORD, value);
        rig.message(1);
    }
    for strange in [0, 8191, 8192 + 256, u64::MAX] {
        rig.driver.write_redistributor(&rig.vgic, 0, 0xa0, DOUBLEWORD, strange);
    }
}

#[test]
fn the_most_urgent_comes_first_among_all_interrupts() {
    let mut rig = Rig::new(1);
    let priorities = [0x80, 0x20, 0xf8, 0x60, 0x28, 0xa0, 0x40, 0x00, 0xc0, 0xe0];
    for (lpi, priority) in (0..).zip(priorities) {
        rig.driver.configure(8192 + lpi, at(priority));
    }
    rig.send(&[invall(0)]);
    for (intid, priority) in [(40, 0x50), (41, 0x10), (42, 0xd0)] {
        rig.vgic.write_distributor(VcpuId(0), 0x400 + intid, AccessSize::Byte, priority);
        rig.vgic.set_level(IntId(intid as u32), true);
    }
    // In whatever order they come: 13 interrupts in 4 list registers.
    [7, 2, 9, 4, 1, 0, 3, 8, 5, 6].into_iter().for_each(|event| _ = rig.message(event));
    let mut order = vec![];
    loop {
        if rig.cpus[0].maintenance() != 0 {
            let _ = rig.vgic.refill(VcpuId(0), &mut rig.cpus[0]);
        }
        rig.enter(0);
        let intid = rig.cpus[0].acknowledge(1);
        if intid == SPURIOUS {
            break;
        }
        if intid < 8192 {
            rig.vgic.set_level(IntId(intid), false);
            rig.enter(0);
        }
        rig.cpus[0].end(1, intid);
        order.push(intid);
    }
    assert_eq!(order, [8199, 41, 8193, 8196, 8198, 40, 8195, 8192, 8197, 8200, 42, 8201, 8194]);
}

#[test]
fn one_that_comes_again_is_taken_again_only_if_it_had_been_taken() {
    comes_again(false);
}

#[test]
fn the_same_where_lpis_are_active_until_their_end() {
    comes_again(true);
}

fn comes_again(lpis_are_active: bool) {
    let mut rig = Rig::new(1);
    rig.cpus[0].lpis_are_active = lpis_are_active;
    rig.message(1);
    rig.enter(0);
    rig.message(1);
    assert_eq!((rig.take(0), rig.take(0)), (8193, SPURIOUS), "twice pending is pending");
    rig.message(1);
    rig.enter(0);
    assert_eq!(rig.cpus[0].acknowledge(1), 8193);
    rig.message(1);
    rig.enter(0);
    rig.cpus[0].end(1, 8193);
    assert_eq!((rig.take(0), rig.take(0)), (8193, SPURIOUS));
}

#[test]
fn one_in_a_list_register_is_taken_back() {
    let mut rig = Rig::new(2);
    // Disabled, cleared, discarded, or moved.
    for (command, comes_back) in
        [(inv(3, 1), true), (clear(3, 1), false), (movi(3, 1, 1), true), (discard(3, 1), false)]
    {
        rig.driver.configure(8193, at(0x80));
        rig.send(&[inv(3, 1)]);
        rig.message(1);
        rig.enter(0);
        rig.driver.configure(8193, if command == inv(3, 1) { 0x80 } else { at(0x80) });
        assert_eq!(rig.send(&[command]).kick, VcpuSet::of(VcpuId(0)));
        let kick = rig.enter(0);
        assert_eq!(rig.cpus[0].acknowledge(1), SPURIOUS, "{command:x?}");
        let is_moved = command == movi(3, 1, 1);
        assert_eq!(kick, if is_moved { VcpuSet::of(VcpuId(1)) } else { VcpuSet::EMPTY });
        if command == inv(3, 1) {
            rig.driver.configure(8193, at(0x80));
            rig.send(&[command]);
        }
        let vcpu = usize::from(is_moved);
        assert_eq!(rig.take(vcpu), if comes_back { 8193 } else { SPURIOUS });
        rig.enter(vcpu);
        rig.send(&[mapti(3, 1, 8193, 0)]);
    }
    assert_eq!(rig.refused(), 0);
}

#[test]
fn a_vcpu_that_leaves_its_cpu_keeps_what_it_has_not_taken() {
    let mut rig = Rig::new(1);
    rig.message(1);
    rig.enter(0);
    assert_eq!(rig.vgic.save(VcpuId(0), &mut rig.cpus[0]), crate::Saved::default());
    assert!(rig.cpus[0].list.iter().all(|value| *value == 0));
    assert!(rig.vgic.wants_attention(VcpuId(0), &rig.cpus[0]), "it is woken by one");
    rig.vgic.load(VcpuId(0), &mut rig.cpus[0]);
    assert_eq!((rig.take(0), rig.take(0)), (8193, SPURIOUS));
    assert!(!rig.vgic.wants_attention(VcpuId(0), &rig.cpus[0]));
}

#[test]
fn ends_of_lpis_are_not_counted_for_others() {
    // One list register: SPI 40 is active in memory while an LPI is taken and ended.
    let mut rig = Rig::sized(1, 1, 32);
    rig.vgic.write_distributor(VcpuId(0), 0x400 + 40, AccessSize::Byte, 0xa0);
    rig.vgic.set_level(IntId(40), true);
    rig.enter(0);
    assert_eq!(rig.cpus[0].acknowledge(1), 40);
    rig.message(1);
    rig.enter(0);
    assert_eq!(rig.cpus[0].acknowledge(1), 8193);
    rig.cpus[0].end(1, 8193);
    rig.enter(0);
    let (active, _) = rig.vgic.observe_distributor(VcpuId(0), &rig.cpus[0], 0x304, WORD);
    assert_eq!(active, 1 << 8);
}

#[test]
fn group_1_has_to_be_enabled_and_the_redistributor_awake() {
    let mut rig = Rig::new(1);
    rig.vgic.write_distributor(VcpuId(0), 0, WORD, 1);
    rig.message(1);
    assert_eq!(rig.take(0), SPURIOUS);
    assert!(!rig.vgic.wants_attention(VcpuId(0), &rig.cpus[0]));
    rig.vgic.write_distributor(VcpuId(0), 0, WORD, 3);
    assert_eq!(rig.take(0), 8193);
    rig.vgic.write_redistributor(0x14, WORD, 2);
    rig.message(1);
    assert_eq!(rig.take(0), SPURIOUS);
    rig.vgic.write_redistributor(0x14, WORD, 0);
    assert_eq!(rig.take(0), 8193);
}

#[test]
fn lpis_of_a_redistributor_that_has_none_are_lost() {
    let vgic = bare(2, 64);
    let mut driver = Driver::new(&vgic, 1);
    driver.configure(8192, at(0));
    driver.send(&vgic, &[mapc(1, Some(1)), mapd(3, Some(5)), mapti(3, 0, 8192, 1)]);
    assert!(vgic.message(Some(DEVICE), TRANSLATER, 0).is_empty());
    let refused = driver.send(&vgic, &[int(3, 0)]).refused.map(|refused| refused.reason);
    assert_eq!(refused, Some("the redistributor's LPIs are not enabled"));
}
