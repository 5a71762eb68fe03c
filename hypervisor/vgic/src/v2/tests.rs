//! The GICv2 from outside. A test for each sentence of IHI 0048 that is relied on and differs from what a GICv3 does.

use super::*;
use crate::testkit::{CpuInterface, SPURIOUS};
use crate::{Version, VgicConfig, VgicError};
use alloc::{vec, vec::Vec};
use vdev::InterruptController;

const WORD: AccessSize = AccessSize::Word;
const BYTE: AccessSize = AccessSize::Byte;
const LISTS: usize = 4;

/// vCPUs, each loaded on a CPU of its own, with everything enabled and group 0, as in a system without Security Extensions.
struct Rig {
    vgic: Vgic,
    cpus: Vec<CpuInterface>,
}

impl Rig {
    fn new(vcpus: usize) -> Self {
        let config = VgicConfig { version: Version::V2, vcpus, intids: 96, list_registers: LISTS, priority_bits: 5 };
        let mut rig = Self { vgic: Vgic::new(config).unwrap(), cpus: Vec::new() };
        for vcpu in 0..vcpus {
            let mut cpu = CpuInterface::new(LISTS, 5);
            rig.vgic.load(VcpuId(vcpu as u16), &mut cpu);
            cpu.enable_group(0, true);
            cpu.set_mask(0xff);
            rig.cpus.push(cpu);
            rig.write(vcpu, 0x100, WORD, 0xffff_0000);
        }
        rig.write(0, 0x000, WORD, 1);
        rig.write(0, 0x104, WORD, 0xffff_ffff);
        rig.write(0, 0x108, WORD, 0xffff_ffff);
        rig
    }

    fn write(&mut self, by: usize, offset: u64, size: AccessSize, value: u64) -> VcpuSet {
        self.vgic.write_distributor(VcpuId(by as u16), offset, size, value)
    }

    fn read(&mut self, by: usize, offset: u64, size: AccessSize) -> u64 {
        self.vgic.observe_distributor(VcpuId(by as u16), &self.cpus[by], offset, size).0
    }

    /// INTID and sender of what the vCPU takes next.
    fn take(&mut self, vcpu: usize) -> (u32, u64) {
        self.vgic.refill(VcpuId(vcpu as u16), &mut self.cpus[vcpu]);
        let before = self.cpus[vcpu].list.clone();
        let intid = self.cpus[vcpu].acknowledge(0);
        let slot = (0..LISTS).find(|slot| before[*slot] != self.cpus[vcpu].list[*slot]);
        (intid, slot.map_or(0, |slot| before[slot] >> 32 & 7))
    }

    fn end(&mut self, vcpu: usize, intid: u32) {
        self.cpus[vcpu].end(0, intid);
        if self.cpus[vcpu].maintenance() != 0 {
            self.vgic.refill(VcpuId(vcpu as u16), &mut self.cpus[vcpu]);
        }
    }

    fn switch(&mut self, vcpu: usize) {
        self.vgic.save(VcpuId(vcpu as u16), &mut self.cpus[vcpu]);
        self.vgic.load(VcpuId(vcpu as u16), &mut self.cpus[vcpu]);
    }
}

const NOTHING: (u32, u64) = (SPURIOUS, 0);

#[test]
fn there_are_eight_vcpus_at_most() {
    let config = VgicConfig { version: Version::V2, vcpus: 9, intids: 96, list_registers: 4, priority_bits: 5 };
    let error = Vgic::new(config).unwrap_err();
    assert_eq!(error, VgicError::Vcpus(Version::V2, 9));
    assert_eq!(alloc::format!("{error}"), "GICv2 for 9 vCPUs: 1 to 8 are possible");
}

#[test]
fn it_says_what_it_is() {
    let mut rig = Rig::new(3);
    assert_eq!(rig.read(0, 0x004, WORD), 2 << 5 | 2, "three CPU interfaces, 96 interrupts");
    assert_eq!(rig.read(0, 0xfe8, WORD) >> 4, 2, "ArchRev");
    assert_eq!(rig.read(0, 0x000, WORD), 1);
    rig.write(0, 0x000, WORD, !0);
    assert_eq!(rig.read(0, 0x000, WORD), 3);
    assert_eq!((rig.read(0, 0x000, BYTE), rig.read(0, 0x002, WORD)), (0, 0));
}

#[test]
fn every_vcpu_has_its_own_first_registers() {
    let mut rig = Rig::new(2);
    rig.write(0, 0x100, WORD, 1 << 27);
    rig.write(1, 0x180, WORD, 0xffff_ffff);
    assert_eq!(rig.read(0, 0x100, WORD), 0xffff_ffff);
    assert_eq!(rig.read(1, 0x100, WORD), 0xffff, "SGIs cannot be disabled");
    rig.write(0, 0x400 + 27, BYTE, 0xa3);
    assert_eq!((rig.read(0, 0x400 + 27, BYTE), rig.read(1, 0x400 + 27, BYTE)), (0xa0, 0));
    assert_eq!((rig.read(0, 0x800, WORD), rig.read(1, 0x81c, BYTE)), (0x0101_0101, 2), "their own bit");
    rig.write(1, 0x800, WORD, !0);
    assert_eq!(rig.read(1, 0x800, WORD), 0x0202_0202);
    assert_eq!(rig.read(0, 0xc00, WORD), 0xaaaa_aaaa, "SGIs are edges");
    rig.write(0, 0xc00, WORD, 0);
    assert_eq!(rig.read(0, 0xc00, WORD), 0xaaaa_aaaa);
}

#[test]
fn an_interrupt_goes_to_one_of_its_targets() {
    let mut rig = Rig::new(3);
    assert!(rig.vgic.set_level(IntId(40), true).is_empty(), "it has none yet");
    assert_eq!(rig.write(0, 0x800 + 40, BYTE, 0xf4), VcpuSet::of(VcpuId(2)));
    assert_eq!(rig.read(0, 0x828, WORD), 4, "five of the bits are nobody's");
    assert_eq!(rig.take(2), (40, 0));
    // It is active there, and goes elsewhere afterwards.
    rig.write(0, 0x800 + 40, BYTE, 3);
    assert_eq!((rig.take(0), rig.take(1)), (NOTHING, NOTHING));
    rig.end(2, 40);
    let taken: Vec<_> = (0..3).filter(|vcpu| rig.take(*vcpu) == (40, 0)).collect();
    assert!(taken == [0] || taken == [1], "{taken:?}");
    // One that is off takes nothing.
    rig.write(0, 0x800 + 41, BYTE, 6);
    rig.vgic.save(VcpuId(1), &mut rig.cpus[1].clone());
    rig.vgic.power_off(VcpuId(1));
    let _ = rig.vgic.set_level(IntId(41), true);
    assert_eq!(rig.take(2), (41, 0));
}

#[test]
fn a_single_vcpu_has_no_targets_to_choose_from() {
    let mut rig = Rig::new(1);
    rig.write(0, 0x820, WORD, !0);
    assert_eq!((rig.read(0, 0x800, WORD), rig.read(0, 0x820, WORD)), (0, 0));
    let _ = rig.vgic.set_level(IntId(33), true);
    assert_eq!(rig.take(0), (33, 0));
}

#[test]
fn an_sgi_goes_to_whom_the_filter_says() {
    let mut rig = Rig::new(3);
    let all = |rig: &mut Rig| (0..3).map(|vcpu| rig.take(vcpu)).collect::<Vec<_>>();
    rig.write(1, 0xf00, WORD, 0b101 << 16 | 3);
    assert_eq!(all(&mut rig), [(3, 1), NOTHING, (3, 1)]);
    rig.write(2, 0xf00, WORD, 1 << 24 | 4);
    (0..3).for_each(|vcpu| rig.end(vcpu, 3));
    assert_eq!(all(&mut rig), [(4, 2), (4, 2), NOTHING]);
    (0..2).for_each(|vcpu| rig.end(vcpu, 4));
    rig.write(2, 0xf00, WORD, 2 << 24 | 5);
    assert_eq!(all(&mut rig), [NOTHING, NOTHING, (5, 2)]);
    rig.write(2, 0xf00, WORD, 3 << 24 | 6 | 0xff << 16);
    assert_eq!(all(&mut rig), [NOTHING; 3]);
}

#[test]
fn an_sgi_is_pending_once_for_each_sender() {
    for switches in [false, true] {
        let mut rig = Rig::new(4);
        for sender in [3, 1, 2, 1] {
            rig.write(sender, 0xf00, WORD, 1 << 16 | 7);
            if switches {
                rig.switch(0);
            }
        }
        assert_eq!(rig.read(0, 0xf20 + 7, BYTE), 0b1110);
        assert_eq!(rig.read(0, 0x200, WORD) & 0xffff, 1 << 7);
        let mut senders = Vec::new();
        for _ in 0..3 {
            let (intid, sender) = rig.take(0);
            assert_eq!(intid, 7);
            senders.push(sender);
            if switches {
                rig.switch(0);
            }
            assert_eq!(rig.take(0), NOTHING, "one is active");
            rig.end(0, 7);
        }
        assert_eq!(senders, [1, 2, 3]);
        assert_eq!((rig.take(0), rig.read(0, 0xf24, WORD)), (NOTHING, 0));
    }
}

#[test]
fn the_same_sender_counts_again_once_its_interrupt_is_active() {
    let mut rig = Rig::new(2);
    rig.write(1, 0xf00, WORD, 1 << 16);
    assert_eq!(rig.take(0), (0, 1));
    rig.write(1, 0xf00, WORD, 1 << 16);
    assert_eq!(rig.read(0, 0xf20, BYTE), 2);
    assert_eq!(rig.take(0), NOTHING);
    rig.end(0, 0);
    assert_eq!(rig.take(0), (0, 1));
    rig.end(0, 0);
    assert_eq!(rig.take(0), NOTHING);
}

#[test]
fn senders_are_set_and_cleared_by_registers() {
    let mut rig = Rig::new(4);
    rig.write(0, 0xf20 + 4, WORD, 0x0000_0b00);
    assert_eq!((rig.read(0, 0xf24, WORD), rig.read(1, 0xf24, WORD)), (0x0b00, 0), "the target's own");
    // The lowest is in a list register by now.
    rig.vgic.refill(VcpuId(0), &mut rig.cpus[0]);
    rig.write(0, 0xf10 + 5, BYTE, 0b0011);
    assert_eq!(rig.take(0), (5, 3));
    rig.end(0, 5);
    assert_eq!(rig.take(0), NOTHING);
    // The ordinary registers do nothing to SGIs.
    rig.write(0, 0x200, WORD, 0xffff);
    assert_eq!((rig.read(0, 0x200, WORD), rig.take(0)), (0, NOTHING));
    rig.write(1, 0xf00, WORD, 1 << 16);
    rig.write(0, 0x280, WORD, 0xffff);
    assert_eq!(rig.take(0), (0, 1));
}

#[test]
fn senders_and_other_interrupts_share_few_list_registers() {
    let mut rig = Rig::new(8);
    for sgi in 0..16 {
        for sender in 0..8 {
            rig.write(sender, 0xf00, WORD, 1 << 16 | sgi);
        }
    }
    for intid in 32..64 {
        rig.write(0, 0x800 + intid, BYTE, 1);
        rig.write(0, 0xc00 + intid / 4, BYTE, 0);
        let _ = rig.vgic.set_level(IntId(intid as u32), true);
    }
    let mut taken = vec![0_u32; 96];
    let mut seen = [0_u8; 16];
    loop {
        let (intid, sender) = rig.take(0);
        if intid == SPURIOUS {
            break;
        }
        taken[intid as usize] += 1;
        if intid < 16 {
            seen[intid as usize] |= 1 << sender;
        } else {
            let _ = rig.vgic.set_level(IntId(intid), false);
        }
        rig.end(0, intid);
        if rig.cpus[0].maintenance() != 0 {
            rig.vgic.refill(VcpuId(0), &mut rig.cpus[0]);
        }
    }
    assert_eq!(taken[..16], [8; 16]);
    assert_eq!(seen, [0xff; 16]);
    assert_eq!(taken[32..64], [1; 32]);
}

#[test]
fn deactivation_is_a_trapped_write_if_it_is_separate() {
    let mut rig = Rig::new(2);
    rig.write(1, 0xf00, WORD, 1 << 16 | 9);
    assert_eq!(rig.take(0), (9, 1));
    let deactivate = |rig: &mut Rig, offset, size| {
        let (vgic, cpu) = (&rig.vgic, &mut rig.cpus[0]);
        vgic.write_cpu_interface(VcpuId(0), cpu, offset, size, 1 << 10 | 9)
    };
    let _ = deactivate(&mut rig, 0x1000, WORD);
    assert_eq!(rig.read(0, 0x300, WORD), 1 << 9, "the end of interrupt does it");
    rig.cpus[0].set_split(true);
    rig.cpus[0].end(0, 9);
    assert_eq!(rig.read(0, 0x300, WORD), 1 << 9, "not any more");
    let _ = deactivate(&mut rig, 0x1004, WORD);
    let _ = deactivate(&mut rig, 0x1000, BYTE);
    assert_eq!(rig.read(0, 0x300, WORD), 1 << 9);
    let _ = deactivate(&mut rig, 0x1000, WORD);
    assert_eq!(rig.read(0, 0x300, WORD), 0);
}

#[test]
fn every_offset_answers_in_every_size() {
    let mut rig = Rig::new(2);
    for size in [BYTE, AccessSize::Halfword, WORD, AccessSize::Doubleword] {
        for offset in (0..DISTRIBUTOR_SIZE).step_by(if cfg!(miri) { 37 } else { 1 }) {
            rig.write(1, offset, size, 0xa5a5_a5a5_a5a5_a5a5);
            rig.read(1, offset, size);
        }
    }
    assert_eq!(rig.read(0, 0x040, WORD), 0, "no registers for messages");
    assert_eq!(rig.read(0, 0x6100, WORD), 0);
}
