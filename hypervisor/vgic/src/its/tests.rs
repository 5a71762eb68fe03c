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
fn tables_are_where_software_says_and_their_attributes_are_fixed() {
    let (vgic, driver) = (bare(1, 64), Driver::default());
    let fixed = 7 << 59 | 7 << 48 | 1 << 10;
    let (devices, collections) = (fixed | 1 << 56, fixed | 4 << 56);
    for (number, reset) in [(0, devices), (1, collections), (2, 0), (7, 0)] {
        assert_eq!(vgic.read_its(0x100 + 8 * number, DOUBLEWORD), reset);
        driver.write_base(&vgic, number, 1 << 63 | 1 << 62 | 0x1234_5678_9000 | 1 << 8 | 0x42);
        let indirect = if number == 0 { 1 << 62 } else { 0 };
        let written = if number < 2 { reset | 1 << 63 | indirect | 0x1234_5678_9000 | 1 << 8 | 0x42 } else { 0 };
        assert_eq!(vgic.read_its(0x100 + 8 * number, DOUBLEWORD), written, "{number}");
    }
    // A page size that is reserved is treated as 64 KiB.
    driver.write_base(&vgic, 0, 3 << 8);
    assert_eq!(vgic.read_its(0x100, DOUBLEWORD), devices | 2 << 8);
    // By halves as well.
    driver.write_word(&vgic, 0x104, 1 << 31);
    assert_eq!(vgic.read_its(0x104, WORD), (devices | 1 << 63) >> 32);
    driver.write(&vgic, 0x80, u64::MAX);
    assert_eq!(vgic.read_its(0x80, DOUBLEWORD), 1 << 63 | 7 << 59 | 0x000f_ffff_ffff_f000 | 1 << 10 | 0xff);
    // While it is enabled they stay.
    driver.write_word(&vgic, 0, 1);
    assert_eq!(vgic.read_its(0, WORD), 1);
    driver.write(&vgic, 0x80, 0);
    driver.write_base(&vgic, 0, 0);
    assert_eq!(vgic.read_its(0x80, DOUBLEWORD) >> 63 & vgic.read_its(0x100, DOUBLEWORD) >> 63, 1);
}

#[test]
fn bases_of_redistributors_are_fixed_once_lpis_are_enabled_which_they_stay() {
    let (vgic, driver) = (bare(2, 64), Driver::default());
    let read = |vcpu, offset| vgic.read_redistributor(rd_base(vcpu) + offset, DOUBLEWORD);
    let write = |vcpu, offset, value| {
        driver.write_redistributor(&vgic, vcpu, offset, if offset == 0 { WORD } else { DOUBLEWORD }, value).unwrap()
    };
    write(0, 0x70, u64::MAX);
    write(0, 0x78, u64::MAX);
    assert_eq!((read(0, 0x70), read(1, 0x70)), (0x000f_ffff_ffff_f79f, 0x000f_ffff_ffff_f79f), "there is one table");
    assert_eq!((read(0, 0x78), read(1, 0x78)), (0x000f_ffff_ffff_0780, 0x780), "PTZ reads as zero");
    write(0, 0x70, PROPERTIES | 13);
    write(0, 0x78, PENDING | 1 << 62);
    assert_eq!(vgic.read_redistributor(0x74, WORD), 0);
    write(0, 0, 1);
    for (vcpu, offset, value) in [(0, 0x70, 0), (1, 0x70, 0), (0, 0x78, 0), (0, 0, 0), (1, 0x78, PENDING)] {
        write(vcpu, offset, value);
    }
    assert_eq!((read(0, 0x70), read(0, 0x78)), (PROPERTIES | 0x780 | 13, PENDING | 0x780));
    assert_eq!((vgic.read_redistributor(0, WORD) & 1, vgic.read_redistributor(rd_base(1), WORD) & 1), (1, 0));
    assert_eq!(read(1, 0x78), PENDING | 0x780);
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
fn commands_raise_clear_and_move() {
    let mut rig = Rig::new(2);
    assert_eq!(rig.send(&[int(3, 1)]).kick, VcpuSet::of(VcpuId(0)));
    assert_eq!(rig.take(0), 8193);
    rig.send(&[int(3, 1), clear(3, 1)]);
    assert_eq!(rig.take(0), SPURIOUS);
    // Pending ones go along with MOVI; later ones go where it says.
    rig.send(&[int(3, 1), movi(3, 1, 1), int(3, 2)]);
    assert_eq!((rig.take(0), rig.take(0), rig.take(1)), (8194, SPURIOUS, 8193));
    rig.message(1);
    assert_eq!((rig.take(0), rig.take(1)), (SPURIOUS, 8193));
    // MOVALL takes what is pending, in list registers or not, and changes no mapping.
    (2..12).for_each(|event| _ = rig.message(event));
    rig.enter(0);
    rig.send(&[movall(0, 1), movall(1, 1)]);
    assert_eq!(rig.take(0), SPURIOUS);
    let mut moved = vec![];
    loop {
        if rig.cpus[1].maintenance() != 0 {
            let _ = rig.vgic.refill(VcpuId(1), &mut rig.cpus[1]);
        }
        match rig.take(1) {
            SPURIOUS => break,
            lpi => moved.push(lpi),
        }
    }
    moved.sort_unstable();
    assert_eq!(moved, (8194..8204).collect::<Vec<_>>());
    rig.message(2);
    assert_eq!((rig.take(1), rig.take(0)), (SPURIOUS, 8194));
    assert_eq!(rig.refused(), 0);
}

#[test]
fn mappings_come_and_go() {
    let mut rig = Rig::new(2);
    let status = |rig: &Rig| rig.vgic.its_status().map(|status| (status.devices, status.events));
    assert_eq!(status(&rig), Some((1, 16)));
    // MAPI: the EventID is the LPI's number.
    rig.driver.configure(8200, at(0));
    rig.send(&[mapd(0xffff, Some(16)), mapi(0xffff, 8200, 1)]);
    rig.vgic.message(Some(RequesterId(0xffff)), TRANSLATER, 8200);
    assert_eq!((rig.take(1), status(&rig)), (8200, Some((2, 17))));
    rig.send(&[discard(0xffff, 8200)]);
    assert!(rig.vgic.message(Some(RequesterId(0xffff)), TRANSLATER, 8200).is_empty());
    // A device that is mapped anew has no events, and one that is not has none either.
    rig.send(&[mapd(3, Some(3))]);
    assert_eq!((rig.message(1), status(&rig)), (VcpuSet::EMPTY, Some((2, 0))));
    rig.send(&[mapti(3, 7, 8199, 0), mapd(3, None), mapd(3, None), mapd(77, None)]);
    assert_eq!((rig.message(7), status(&rig)), (VcpuSet::EMPTY, Some((1, 0))));
    // A collection that is not mapped takes nothing.
    rig.send(&[mapd(3, Some(3)), mapti(3, 7, 8199, 9)]);
    assert!(rig.message(7).is_empty());
    rig.send(&[mapc(9, Some(1))]);
    assert_eq!(rig.message(7), VcpuSet::of(VcpuId(1)));
    rig.take(1);
    rig.send(&[mapc(9, None)]);
    assert!(rig.message(7).is_empty());
    assert_eq!(rig.refused(), 0);
}

#[test]
fn bad_commands_are_skipped_counted_and_reported() {
    let mut rig = Rig::new(2);
    let beyond = [0x08 | 5 << 32, 5, 1 << 63 | (MEMORY.0 + 0x40_0000 - 0x100), 0];
    let bad: &[(Command, &str)] = &[
        ([0xff, 1, 2, 3], "there is no such command"),
        ([0; 4], "there is no such command"),
        (mapd(0x1_0000, Some(1)), "there is no such DeviceID"),
        (mapd(4, Some(17)), "there are no so large EventIDs"),
        (beyond, "the device's table is not the VM's memory"),
        (mapc(256, Some(0)), "there is no such collection"),
        (mapc(1, Some(2)), "there is no such redistributor"),
        (mapti(4, 0, 8192, 0), "the device is not mapped"),
        (mapti(3, 32, 8192, 0), "the device's table has no such event"),
        (mapti(3, 0x1_0000, 8192, 0), "there is no such EventID"),
        (mapti(3, 1, 8191, 0), "there is no such LPI"),
        (mapti(3, 1, 8192 + 256, 0), "there is no such LPI"),
        (mapti(3, 1, 8192, 256), "there is no such collection"),
        (mapi(3, 1, 0), "there is no such LPI"),
        (movi(3, 16, 0), "the event is not mapped"),
        (movi(3, 1, 7), "the collection is not mapped"),
        (inv(3, 16), "the event is not mapped"),
        (invall(7), "the collection is not mapped"),
        (int(3, 16), "the event is not mapped"),
        (clear(3, 16), "the event is not mapped"),
        (discard(3, 16), "the event is not mapped"),
        (movall(0, 2), "there is no such redistributor"),
    ];
    for (number, (command, reason)) in (1..).zip(bad) {
        let progress = rig.send(&[*command, int(3, 1)]);
        assert_eq!(progress.refused, Some(Refused { command: *command, reason }), "{number}");
        assert_eq!(rig.take(0), 8193, "what comes behind it is done");
    }
    assert_eq!(rig.refused(), bad.len() as u64);
    let status = rig.vgic.its_status().unwrap().to_string();
    assert_eq!(status, "ITS at 0x8080000: 1 devices, 16 events, 256 LPIs, 22 commands skipped");
    let refused = Refused { command: [1, 0x20, 3, 4], reason: "why" }.to_string();
    assert_eq!(refused, "ITS command 0x1 0x20 0x3 0x4 is skipped: why");
}

#[test]
fn the_guest_has_to_give_memory_for_tables_that_stay_empty() {
    let mut rig = Rig::new(1);
    rig.driver.write_word(&rig.vgic, 0, 0);
    let attempt = |rig: &mut Rig, number, base, command: Command| {
        rig.driver.write_word(&rig.vgic, 0, 0);
        rig.driver.write_base(&rig.vgic, number, base);
        rig.driver.write_word(&rig.vgic, 0, 1);
        rig.send(&[command]).refused.map(|refused| refused.reason)
    };
    // 4 KiB: 512 entries; with two levels 512 times as many.
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | DEVICES, mapd(511, Some(1))), None);
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | DEVICES, mapd(512, Some(1))), Some("its table is too small"));
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | 1 << 62 | DEVICES, mapd(0xffff, Some(1))), None);
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | 2 << 8 | DEVICES, mapd(8191, Some(1))), None);
    let beyond = MEMORY.0 + 0x40_0000;
    assert_eq!(attempt(&mut rig, 0, 1 << 63 | beyond, mapd(5, Some(1))), Some("its table is not the VM's memory"));
    assert_eq!(attempt(&mut rig, 0, DEVICES, mapd(5, Some(1))), Some("there is no table for it"));
    assert_eq!(attempt(&mut rig, 1, COLLECTIONS, mapc(5, Some(0))), Some("there is no table for it"));
    assert_eq!(attempt(&mut rig, 1, 1 << 63 | COLLECTIONS, mapc(255, Some(0))), None);
    // Bits 51 to 48 of the address of 64 KiB pages.
    assert_eq!(
        attempt(&mut rig, 1, 1 << 63 | 2 << 8 | COLLECTIONS | 0x1000, mapc(5, Some(0))),
        Some("its table is not the VM's memory")
    );
    let mut page = [0; 4096];
    for table in [DEVICES, COLLECTIONS] {
        rig.driver.memory.read(Ipa(table), &mut page).unwrap();
        assert_eq!(page, [0; 4096]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "thousands of commands and LPIs take Miri long")]
fn with_another_table_nothing_is_mapped() {
    // As after a guest's kernel has started another.
    let mut rig = Rig::sized(1, 4, 256);
    rig.send(&[mapd(9, Some(8))]);
    (0..200).for_each(|event| _ = rig.send(&[mapti(9, event, 8192 + event, 0)]));
    rig.driver.write_word(&rig.vgic, 0, 0);
    rig.driver.write_base(&rig.vgic, 0, rig.read(0x100));
    assert_eq!(rig.vgic.its_status().unwrap().events, 216, "it is the same table");
    let progress = rig.vgic.write_its(0x100, DOUBLEWORD, 1 << 63 | 1 << 62 | (DEVICES + 0x1000), &rig.driver.memory);
    assert!(progress.more);
    assert_eq!(rig.vgic.read_its(0, WORD), 0, "GITS_CTLR.Quiescent");
    let _ = rig.vgic.write_its(0, WORD, 1, &rig.driver.memory);
    assert!(rig.message(1).is_empty());
    rig.driver.finish(&rig.vgic, progress);
    let status = rig.vgic.its_status().unwrap();
    assert_eq!((status.devices, status.events), (0, 0));
    assert_eq!(rig.send(&[mapd(3, Some(5)), mapti(3, 1, 8193, 0), int(3, 1)]).refused, None);
    assert_eq!(rig.take(0), 8193);
    rig.driver.write_word(&rig.vgic, 0, 0);
    rig.driver.write_base(&rig.vgic, 1, 1 << 63 | (COLLECTIONS + 0x1000));
    rig.driver.write_word(&rig.vgic, 0, 1);
    assert!(rig.message(1).is_empty(), "its collection is not mapped");
}

#[test]
fn what_is_not_the_vms_memory_is_no_command_and_disables() {
    let rig = Rig::new(1);
    // The table of configurations ends before these: IDbits.
    let driver = Driver::default();
    (0..256).for_each(|lpi| driver.configure(8192 + lpi, at(0x80)));
    for (properties, is_known) in
        [(PROPERTIES | 12, false), ((MEMORY.0 + 0x40_0000) | 13, false), (PROPERTIES | 13, true)]
    {
        let vgic = bare(1, 256);
        let mut cpu = CpuInterface::new(4, 5);
        vgic.load(VcpuId(0), &mut cpu);
        driver.write_redistributor(&vgic, 0, 0x70, DOUBLEWORD, properties);
        driver.memory.write(Ipa(PENDING + 1024), &[1]).unwrap();
        driver.write_redistributor(&vgic, 0, 0x78, DOUBLEWORD, PENDING);
        let kick = driver.write_redistributor(&vgic, 0, 0, WORD, 1).unwrap().kick;
        assert_eq!(!kick.is_empty(), is_known, "{properties:#x}");
    }
    rig.driver.write_word(&rig.vgic, 0, 0);
    rig.driver.write(&rig.vgic, 0x80, 1 << 63 | 0x1_0000);
    rig.driver.write_word(&rig.vgic, 0, 1);
    let progress = rig.driver.write(&rig.vgic, 0x88, 96);
    assert_eq!(progress.refused, Some(Refused::unreadable()));
    assert_eq!((rig.read(0x90), rig.refused()), (96, 3));
    // An offset outside of the queue is no offset.
    rig.driver.write(&rig.vgic, 0x88, 0x1000);
    assert_eq!(rig.read(0x88), 96);
}

#[test]
#[cfg_attr(miri, ignore = "thousands of commands and LPIs take Miri long")]
fn the_queue_goes_round_and_is_read_while_the_its_is_enabled() {
    let mut rig = Rig::new(1);
    rig.driver.write_word(&rig.vgic, 0, 0);
    let write = rig.driver.queue(&[int(3, 1)]);
    rig.driver.write(&rig.vgic, 0x88, write);
    assert_eq!((rig.take(0), rig.read(0x90)), (SPURIOUS, write - 32));
    rig.driver.write_word(&rig.vgic, 0, 1);
    assert_eq!((rig.take(0), rig.read(0x90)), (8193, write));
    for _ in 0..0x1_0000 / 32 {
        rig.send(&[sync(0)]);
    }
    assert_eq!(rig.read(0x90), write);
    // A new base begins at its beginning.
    rig.driver.write_word(&rig.vgic, 0, 0);
    rig.driver.write(&rig.vgic, 0x80, 1 << 63 | QUEUE);
    assert_eq!((rig.read(0x90), rig.read(0x88)), (0, 0));
}

#[test]
#[cfg_attr(miri, ignore = "thousands of commands and LPIs take Miri long")]
fn long_work_is_done_in_pieces_and_shows_until_it_is() {
    let mut rig = Rig::sized(1, 4, 8192);
    rig.send(&[mapd(8, Some(10))]);
    (0..1000).for_each(|event| _ = rig.send(&[mapti(8, event, 8192 + event, 0)]));
    for command in [invall(0), mapd(8, None)] {
        let before = rig.read(0x90);
        let write = rig.driver.queue(&[command]);
        let mut progress = rig.vgic.write_its(0x88, DOUBLEWORD, write, &rig.driver.memory);
        assert!(progress.more);
        assert_eq!(rig.read(0x90), before, "GITS_CREADR does not pass what is not done");
        // Disabled meanwhile, it is not quiescent before it is done, and its bases stay.
        let _ = rig.vgic.write_its(0, WORD, 0, &rig.driver.memory);
        assert_eq!(rig.vgic.read_its(0, WORD), 0);
        let _ = rig.vgic.write_its(0x80, DOUBLEWORD, 0, &rig.driver.memory);
        let mut pieces = 1;
        while progress.more {
            progress = rig.vgic.go_on(&rig.driver.memory);
            pieces += 1;
        }
        assert!(pieces >= 1000 / 64 - 2, "{pieces}");
        assert_eq!((rig.read(0x90), rig.vgic.read_its(0, WORD)), (write, 1 << 31));
        rig.driver.write_word(&rig.vgic, 0, 1);
    }
    assert_eq!(rig.vgic.its_status().unwrap().events, 16);
    // No more than sixteen commands in the access itself.
    let write = rig.driver.queue(&[sync(0); 40]);
    let before = rig.read(0x90);
    assert!(rig.vgic.write_its(0x88, DOUBLEWORD, write, &rig.driver.memory).more);
    assert_eq!(rig.read(0x90), before + 16 * 32);
    assert!(rig.vgic.go_on(&rig.driver.memory).more);
    assert!(!rig.vgic.go_on(&rig.driver.memory).more);
    assert_eq!(rig.read(0x90), write);
    // GICR_INVALLR
    let first = rig.vgic.write_lpi_register(0xb0, DOUBLEWORD, 0, &rig.driver.memory).unwrap();
    assert_eq!((first.more, rig.vgic.read_redistributor(0xc0, WORD)), (true, 1));
    rig.driver.finish(&rig.vgic, first);
    assert_eq!(rig.vgic.read_redistributor(0xc0, WORD), 0);
}

#[test]
#[cfg_attr(miri, ignore = "thousands of commands and LPIs take Miri long")]
fn the_table_of_pending_lpis_is_read_when_they_are_enabled_unless_it_is_zero() {
    for is_zero in [false, true] {
        let vgic = bare(1, 8192);
        vgic.write_distributor(VcpuId(0), 0, WORD, 3);
        let driver = Driver::default();
        let mut cpu = CpuInterface::new(4, 5);
        vgic.load(VcpuId(0), &mut cpu);
        cpu.enable_group(1, true);
        cpu.set_mask(0xff);
        for lpi in [8192, 8199, 16383] {
            driver.configure(lpi, at(0x40));
            let (at, bit) = (Ipa(PENDING + lpi / 8), 1 << (lpi % 8));
            let mut byte = [0];
            driver.memory.read(at, &mut byte).unwrap();
            driver.memory.write(at, &[byte[0] | bit]).unwrap();
        }
        // The first kilobyte is not LPIs'.
        driver.memory.write(Ipa(PENDING), &[0xff; 1024]).unwrap();
        driver.write_redistributor(&vgic, 0, 0x70, DOUBLEWORD, PROPERTIES | 13);
        driver.write_redistributor(&vgic, 0, 0x78, DOUBLEWORD, PENDING | u64::from(is_zero) << 62);
        driver.write_redistributor(&vgic, 0, 0, WORD, 1);
        let mut taken = vec![];
        loop {
            let _ = vgic.refill(VcpuId(0), &mut cpu);
            match cpu.acknowledge(1) {
                SPURIOUS => break,
                lpi => {
                    cpu.end(1, lpi);
                    taken.push(lpi);
                }
            }
        }
        assert_eq!(taken, if is_zero { vec![] } else { vec![8192, 8199, 16383] });
    }
}

#[test]
fn there_is_room_for_as_many_events_as_lpis() {
    let mut rig = Rig::sized(1, 4, 32);
    rig.send(&[mapd(9, Some(16))]);
    (0..16).for_each(|event| assert_eq!(rig.send(&[mapti(9, 1000 * event, 8192 + 16 + event, 0)]).refused, None));
    let refused = rig.send(&[mapti(9, 7, 8192, 0)]).refused.map(|refused| refused.reason);
    assert_eq!(refused, Some("there are too many events"));
    // One that is there can be mapped anew.
    assert_eq!(rig.send(&[mapti(9, 1000, 8192, 0)]).refused, None);
    (10..40).for_each(|device| _ = rig.send(&[mapd(device, Some(1))]));
    let refused = rig.send(&[mapd(40, Some(1))]).refused.map(|refused| refused.reason);
    assert_eq!(refused, Some("there are too many devices"));
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
