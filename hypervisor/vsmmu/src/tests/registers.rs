//! Chapter 6.

use crate::testing::*;
use crate::{Shape, Smmu};
use alloc::sync::Arc;
use types::AccessSize;

/// After a reset, with no stream.
fn fresh() -> Guest {
    Guest::new(&Arc::default(), 1, &[])
}

/// All words where there are registers, and one in each KiB of the rest.
fn offsets() -> impl Iterator<Item = u64> {
    (0..Smmu::SIZE).step_by(4).filter(|offset| offset % 0x1_0000 < 0x400 || offset % 0x400 == 0x3fc)
}

#[test]
fn it_says_what_it_has() {
    let guest = fresh();
    let idr0 = guest.get(0);
    assert_eq!(idr0 & 3, 0b10, "stage 1, no stage 2");
    assert_eq!(idr0 >> 2 & 3, 0b10, "VMSAv8-64");
    assert_eq!(idr0 >> 4 & 1, 1, "COHACC");
    assert_eq!(idr0 >> 5 & 0x7f, 0, "no BTM, HTTU, dormancy, HYP, ATS");
    assert_eq!(idr0 >> 12 & 0x1ff, 1, "ASID16; no MSI, SEV, ATOS, PRI, VMW, VMID16, CD2L, VATOS");
    assert_eq!(idr0 >> 21 & 3, 0b10, "little-endian");
    assert_eq!((idr0 >> 24 & 3, idr0 >> 26 & 1), (0b01, 1), "terminated, by an abort");
    assert_eq!(idr0 >> 27, 1, "two-level stream tables");
    let idr1 = guest.get(4);
    assert_eq!((idr1 & 0x3f, idr1 >> 6 & 0x1f, idr1 >> 11 & 0x1f), (16, 0, 0), "SIDSIZE, SSIDSIZE, PRIQS");
    assert_eq!((idr1 >> 16 & 0x1f, idr1 >> 21 & 0x1f, idr1 >> 26), (7, 8, 0), "EVENTQS, CMDQS; nothing preset");
    assert_eq!((guest.get(8), guest.get(0xc), guest.get(0x10)), (0, 1 << 10, 0), "IDR2, IDR3: RIL, IDR4");
    assert_eq!(guest.get(0x14), 1 << 4 | 2, "4 KiB, 40 bits");
    for (address_bits, size) in [(32, 0), (36, 1), (39, 1), (40, 2), (42, 3), (44, 4), (48, 5), (52, 5)] {
        let smmu = Smmu::new(Shape { address_bits, asid16: false, ..shape() }, &[]);
        assert_eq!(smmu.read(0x14, AccessSize::Word) & 7, size, "{address_bits}");
        assert_eq!(smmu.read(0, AccessSize::Word) >> 12 & 1, 0, "ASID16");
    }
}

#[test]
fn identification_and_what_is_reserved_read_the_same_whatever_is_written() {
    let mut guest = fresh();
    let writable = [
        CR0,
        CR1,
        CR2,
        GBPA,
        IRQ_CTRL,
        STRTAB_BASE,
        STRTAB_BASE + 4,
        STRTAB_BASE_CFG,
        CMDQ_BASE,
        CMDQ_BASE + 4,
        CMDQ_PROD,
        CMDQ_CONS,
        EVENTQ_BASE,
        EVENTQ_BASE + 4,
        EVENTQ_PROD,
        EVENTQ_CONS,
    ];
    for offset in offsets().filter(|offset| !writable.contains(offset)) {
        let before = guest.get(offset);
        guest.set(offset, u64::from(u32::MAX));
        assert_eq!(guest.get(offset), before, "{offset:#x}");
        let is_something = offset < 0x18 && offset != 8 && offset != 0x10;
        assert!(before == 0 || is_something, "{offset:#x} reads {before:#x}");
    }
    assert_eq!((guest.get(0xa8), guest.get(0x1_0020)), (0, 0), "the other page is no mirror");
}

#[test]
fn other_sizes_read_zero_and_are_ignored() {
    let mut guest = fresh();
    for size in [AccessSize::Byte, AccessSize::Halfword] {
        assert_eq!(guest.smmu.read(0, size), 0);
        guest.smmu.write(CR1, size, 0xff);
    }
    assert_eq!((guest.wide(0), guest.wide(STRTAB_BASE_CFG)), (0, 0), "two registers at once");
    guest.put_wide(CR1, u64::MAX);
    guest.put_wide(CMDQ_PROD, u64::MAX);
    assert_eq!([CR1, CR2, CMDQ_PROD, CMDQ_CONS].map(|offset| guest.get(offset)), [0; 4]);
}

#[test]
fn wide_registers_are_reached_whole_and_by_halves() {
    let mut guest = fresh();
    let bits = [
        (STRTAB_BASE, 0x400f_ffff_ffff_ffc0),
        (CMDQ_BASE, 0x400f_ffff_ffff_ffff),
        (EVENTQ_BASE, 0x400f_ffff_ffff_ffff),
    ];
    for (offset, implemented) in bits {
        guest.put_wide(offset, u64::MAX);
        assert_eq!(guest.wide(offset), implemented);
        guest.put(offset, 0);
        assert_eq!(guest.wide(offset), implemented & !0xffff_ffff);
        assert_eq!((guest.get(offset), guest.get(offset + 4)), (0, implemented >> 32));
        guest.put(offset, 0x1234_5640);
        guest.put(offset + 4, 0);
        assert_eq!(guest.wide(offset), 0x1234_5640);
    }
}

#[test]
fn a_register_in_use_keeps_its_value() {
    let mut guest = Guest::alone();
    let locked = [CR1, CR2, STRTAB_BASE, STRTAB_BASE_CFG, CMDQ_BASE, CMDQ_CONS, EVENTQ_BASE, EVENTQ_PROD];
    let before = locked.map(|offset| guest.get(offset));
    locked.iter().for_each(|offset| {
        guest.set(*offset, 0x30_3030);
    });
    assert_eq!(locked.map(|offset| guest.get(offset)), before);
    // 6.3.11: tables with SMMUEN, queues with the queues' own.
    guest.set(CR0, 0b1100);
    guest.set(CR1, 0);
    assert_eq!(guest.get(CR1), 0x35);
    guest.set(CR0, 0b0001);
    guest.set(CR1, 0xfff);
    assert_eq!(guest.get(CR1), 0x3f);
    guest.set(CR0, 0);
    for offset in locked {
        guest.set(offset, 0x30_3030);
    }
    assert_eq!(
        locked.map(|offset| guest.get(offset)),
        [0x030, 0, 0x30_3000, 0x30, 0x30_3030, 0x3030, 0x30_3030, 0x3030]
    );
}

#[test]
fn control_is_acknowledged_and_has_no_bits_that_there_are_not() {
    let mut guest = fresh();
    guest.set(CR0, u64::from(u32::MAX));
    assert_eq!((guest.get(CR0), guest.get(CR0ACK)), (0b1101, 0b1101), "no PRI, ATS, VMW");
    guest.set(IRQ_CTRL, u64::from(u32::MAX));
    assert_eq!((guest.get(IRQ_CTRL), guest.get(IRQ_CTRLACK)), (0b101, 0b101));
    guest.set(CR0, 0);
    guest.set(CR2, u64::from(u32::MAX));
    assert_eq!((guest.get(CR0ACK), guest.get(CR2)), (0, 0b10), "RECINVSID");
}

#[test]
fn translation_is_acknowledged_when_streams_are_translated() {
    let mut guest = Guest::new(&Arc::default(), 1, &[3]);
    assert!(guest.put(CR0, 1));
    assert_eq!(guest.get(CR0ACK), 0);
    let batch = guest.smmu.begin(&*guest.ram);
    assert_eq!((guest.get(CR0ACK), batch.orders().len()), (0, 1));
    batch.carry_out(&mut guest.host);
    let _ = guest.smmu.finish();
    assert_eq!(guest.get(CR0ACK), 1);
    assert!(!guest.smmu.has_work());
}

#[test]
fn bypass_and_abort_take_an_update() {
    let mut guest = Guest::new(&Arc::default(), 1, &[3]);
    assert_eq!((guest.get(GBPA), guest.transact(3, DATA)), (0, guest.reached(DATA)), "reset");
    guest.set(GBPA, 1 << 20);
    assert_eq!(guest.get(GBPA), 0, "6.3.14: a write without UPDATE is ignored");
    guest.put(GBPA, 1 << 31 | 1 << 20);
    assert_eq!(guest.get(GBPA), 1 << 31 | 1 << 20);
    guest.put(GBPA, 1 << 31);
    assert_eq!(guest.get(GBPA), 1 << 31 | 1 << 20, "one update at a time");
    guest.work();
    assert_eq!((guest.get(GBPA), guest.transact(3, DATA)), (1 << 20, Outcome::Aborted));
    guest.boot();
    assert_eq!(guest.transact(3, DATA), Outcome::Refused, "by the table now");
    guest.set(GBPA, 1 << 31);
    assert_eq!((guest.get(GBPA), guest.transact(3, DATA)), (0, Outcome::Refused));
    guest.set(CR0, 0b1100);
    assert_eq!(guest.transact(3, DATA), guest.reached(DATA));
}

#[test]
fn after_a_reset_it_is_as_new() {
    let mut guest = Guest::alone();
    guest.translate(3, 1, &[DATA]);
    guest.send(&[CFGI_ALL, SYNC, [0, 0]]);
    guest.smmu.reset();
    guest.work();
    let new = fresh();
    for offset in offsets() {
        assert_eq!(guest.get(offset), new.get(offset), "{offset:#x}");
    }
    assert_eq!(guest.transact(3, DATA), guest.reached(DATA));
}
