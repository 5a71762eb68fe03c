//! The interrupt controller from outside: what a guest, a device and the kernel see of it. A test for each sentence of the
//! specification that is relied on; what follows from all of them together is for `tests/model.rs`.

use super::*;
use crate::testkit::{CpuInterface, Deactivation, SPURIOUS};
use alloc::vec;
use types::{AccessSize, IntId};
use vdev::InterruptController;

const WORD: AccessSize = AccessSize::Word;
mod ends;
mod linked;
mod list_registers;
mod messages;
mod pending;
mod waking;

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
