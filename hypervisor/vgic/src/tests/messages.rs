//! Messages of devices to the distributor.

use super::*;

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
