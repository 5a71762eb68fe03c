//! The register windows, all of them: whatever is read or written, wherever and however wide, there is an answer that fits.

use types::{AccessSize, VcpuId};
use vgic::testkit::its::{Driver, ITS};
use vgic::{Version, Vgic, VgicConfig};

const SIZES: [AccessSize; 4] = [AccessSize::Byte, AccessSize::Halfword, AccessSize::Word, AccessSize::Doubleword];

fn check(value: u64, offset: u64, size: AccessSize) {
    assert_eq!(value & !size.mask(), 0, "{size:?} at {offset:#x}");
    if !size.is_aligned(offset) || size == AccessSize::Halfword {
        assert_eq!(value, 0, "{size:?} at {offset:#x}: no register can be reached so");
    }
}

#[test]
fn every_offset_and_every_size_answers() {
    for intids in [64, 1024] {
        let config = VgicConfig { version: Version::V3, vcpus: 2, intids, list_registers: 4, priority_bits: 5 };
        let vgic = Vgic::new(config).expect("possible");
        for size in SIZES {
            for offset in 0..Vgic::DISTRIBUTOR_SIZE {
                assert!(vgic.write_distributor(VcpuId(0), offset, size, u64::MAX).iter().all(|vcpu| vcpu.0 < 2));
                check(vgic.read_distributor(offset, size), offset, size);
            }
            // One vCPU's frames more than there are.
            for offset in 0..3 * Vgic::REDISTRIBUTOR_SIZE {
                assert!(vgic.write_redistributor(offset, size, u64::MAX).iter().all(|vcpu| vcpu.0 < 2));
                check(vgic.read_redistributor(offset, size), offset, size);
            }
        }
        for offset in [u64::MAX, u64::MAX - 7, 1 << 63, Vgic::DISTRIBUTOR_SIZE] {
            for size in SIZES {
                assert_eq!(vgic.read_distributor(offset, size) | vgic.read_redistributor(offset | 1 << 62, size), 0);
                let _ = vgic.write_distributor(VcpuId(0), offset, size, u64::MAX);
                let _ = vgic.write_redistributor(offset, size, u64::MAX);
            }
        }
    }
}

#[test]
fn every_offset_and_every_size_of_the_its_answers() {
    for value in [u64::MAX, 0, 1 << 63 | 1, 0x5555_5555_5555_5555] {
        let config = VgicConfig { version: Version::V3, vcpus: 2, intids: 64, list_registers: 4, priority_bits: 5 };
        let vgic = Vgic::new(config).and_then(|vgic| vgic.with_its(ITS, 64)).expect("possible");
        let driver = Driver::default();
        for size in SIZES {
            for offset in 0..Vgic::ITS_SIZE {
                let progress = vgic.write_its(offset, size, value, &driver.memory);
                assert!(driver.finish(&vgic, progress).kick.iter().all(|vcpu| vcpu.0 < 2));
                check(vgic.read_its(offset, size), offset, size);
            }
            for offset in 0..3 * Vgic::REDISTRIBUTOR_SIZE {
                if let Some(progress) = vgic.write_lpi_register(offset, size, value, &driver.memory) {
                    driver.finish(&vgic, progress);
                }
                check(vgic.read_redistributor(offset, size), offset, size);
            }
            for offset in [u64::MAX, u64::MAX - 7, 1 << 63, Vgic::ITS_SIZE] {
                driver.finish(&vgic, vgic.write_its(offset, size, value, &driver.memory));
                assert_eq!(vgic.read_its(offset, size), 0);
            }
        }
    }
}
