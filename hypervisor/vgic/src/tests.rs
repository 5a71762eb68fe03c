//! The interrupt controller from outside: what a guest, a device and the kernel see of it.

use super::*;
use types::AccessSize;

fn config(vcpus: usize) -> VgicConfig {
    VgicConfig { vcpus, intids: 256, list_registers: 4, priority_bits: 5 }
}

#[test]
fn a_configuration_out_of_range_is_refused_with_the_field_that_is() {
    let good = config(1);
    assert!(Vgic::new(good).is_ok());
    assert_eq!(Vgic::new(VgicConfig { vcpus: 0, ..good }).unwrap_err(), VgicError::Vcpus(0));
    assert_eq!(Vgic::new(VgicConfig { vcpus: 65, ..good }).unwrap_err(), VgicError::Vcpus(65));
    assert_eq!(Vgic::new(VgicConfig { intids: 32, ..good }).unwrap_err(), VgicError::Intids(32));
    assert_eq!(Vgic::new(VgicConfig { intids: 1056, ..good }).unwrap_err(), VgicError::Intids(1056));
    assert_eq!(Vgic::new(VgicConfig { intids: 100, ..good }).unwrap_err(), VgicError::Intids(100));
    assert_eq!(Vgic::new(VgicConfig { list_registers: 17, ..good }).unwrap_err(), VgicError::ListRegisters(17));
    assert_eq!(Vgic::new(VgicConfig { priority_bits: 4, ..good }).unwrap_err(), VgicError::PriorityBits(4));
    assert_eq!(Vgic::new(VgicConfig { priority_bits: 9, ..good }).unwrap_err(), VgicError::PriorityBits(9));
}

#[test]
fn the_controller_says_what_it_is() {
    let vgic = Vgic::new(config(2)).unwrap();
    assert_eq!(vgic.read_distributor(0x0, AccessSize::Word), 0x50, "ARE and DS");
    assert_eq!(vgic.read_distributor(0x4, AccessSize::Word) & 0x1f, 7, "8 times 32 INTIDs");
    assert_eq!(vgic.read_distributor(0xffe8, AccessSize::Word), 0x3b, "GICv3");
    assert_eq!(vgic.read_redistributor(0x2_ffe8, AccessSize::Word), 0x3b);
    assert_eq!(vgic.read_redistributor(0x8, AccessSize::Doubleword), 0);
    assert_eq!(vgic.read_redistributor(0x2_0008, AccessSize::Doubleword), 1 << 32 | 1 << 8 | 1 << 4, "the last one");
    assert_eq!(vgic.read_redistributor(0x4_0008, AccessSize::Doubleword), 0, "nobody's frame");
}
