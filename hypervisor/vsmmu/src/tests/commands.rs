//! Sections 3.5, 4 and 7.1.

use crate::testing::*;
use crate::{COMMANDS as BATCH, Invalidation, Order};
use alloc::vec::Vec;
use smmu::Reach;

/// What the host is asked to do for one command.
fn orders(command: [u64; 2]) -> Vec<Order> {
    let mut guest = Guest::alone();
    let position = guest.prepare(&[command]);
    guest.put(CMDQ_PROD, position);
    let batch = guest.smmu.begin(&*guest.ram);
    batch.carry_out(&mut guest.host);
    let _ = guest.smmu.finish();
    assert_eq!(guest.get(CMDQ_CONS), position, "{command:x?} has been taken");
    batch.orders().to_vec()
}

#[test]
fn invalidations_are_the_hosts_to_do_without_a_vmid() {
    // A VMID in it is IGNORED.
    assert_eq!(orders([0x10 | 7 << 32, 0]), [Order::Invalidate(Invalidation::All)]);
    assert_eq!(orders([0x30, 0]), [Order::Invalidate(Invalidation::All)]);
    assert_eq!(orders([0x11 | 7 << 32 | 5 << 48, 0]), [Order::Invalidate(Invalidation::Asid(5))]);
    let reach = Reach { address: 0x1234_5000, leaf: true, range: None };
    let address = |asid| [Order::Invalidate(Invalidation::Address { asid, reach })];
    assert_eq!(orders([0x12 | 7 << 32 | 5 << 48, 0x1234_5000 | 1]), address(Some(5)));
    assert_eq!(orders([0x13 | 7 << 32, 0x1234_5000 | 1]), address(None));
    let ranged = orders([0x12 | 3 << 12 | 2 << 20, 0x1234_5000 | 3 << 8 | 1 << 10]);
    assert!(matches!(
        ranged[..],
        [Order::Invalidate(Invalidation::Address { reach: Reach { range: Some(_), .. }, .. })]
    ));
}

#[test]
fn of_contexts_only_those_of_streams_that_there_are() {
    assert_eq!(orders(cfgi_cd(3)), [Order::ForgetContexts { stream: 3 }]);
    assert_eq!(orders([0x06 | 8 << 32, 0]), [Order::ForgetContexts { stream: 8 }], "CMD_CFGI_CD_ALL");
    assert_eq!(orders(cfgi_cd(4)), []);
    assert_eq!(orders([0x01 | 3 << 32, 0]), [], "CMD_PREFETCH_CONFIG");
    assert_eq!(orders([0x02 | 3 << 32, 0x1000]), [], "CMD_PREFETCH_ADDR");
}

#[test]
fn entries_are_looked_at_for_the_streams_a_command_is_about() {
    // 4.3.2: 2^(range + 1), aligned.
    for (command, looked_at) in [
        (cfgi_ste(3), [true, false]),
        (cfgi_ste(8), [false, true]),
        (cfgi_ste(9), [false, false]),
        ([0x04 | 2 << 32, 0], [true, false]),
        ([0x04 | 1 << 32, 0], [false, false]),
        ([0x04 | 0xf << 32, 2], [false, true]),
        ([0x04 | 7 << 32, 2], [true, false]),
        ([0x04 | 5 << 32, 3], [true, true]),
        ([0x04 | 0xffff << 32, 30], [false, false].map(|_| true)),
        (CFGI_ALL, [true, true]),
    ] {
        let mut guest = Guest::alone();
        guest.entry(3, [1 | 0b100 << 1, 0]);
        guest.entry(8, [1 | 0b100 << 1, 0]);
        guest.send(&[command, SYNC]);
        let seen = [3, 8].map(|stream| guest.transact(stream, DATA) == guest.reached(DATA));
        assert_eq!(seen, looked_at, "{command:x?}");
    }
}

#[test]
fn what_such_an_smmu_has_not_is_illegal() {
    let illegal: [[u64; 2]; 24] = [
        [0x00, 0],
        [0x07, 0],
        [0x18, 0],
        [0x1a, 0],
        [0x20, 0],
        [0x21, 0],
        [0x22, 0],
        [0x23, 0],
        [0x28, 0],
        [0x2a, 0],
        [0x40, 0],
        [0x41, 0],
        [0x42, 0],
        [0x44, 0],
        [0x45, 0],
        [0x50, 0],
        [0x60, 0],
        [0x80, 0],
        [0xff, 0],
        // SSEC.
        [0x03 | 1 << 10, 0],
        [0x05 | 1 << 10, 0],
        // CS.
        [0x46 | 3 << 12, 0],
        // TG without anything else (4.4.1.1).
        [0x12, 1 << 10],
        [0x13, 3 << 10],
    ];
    for command in illegal {
        let mut guest = Guest::alone();
        let start = guest.get(CMDQ_CONS);
        let signals = guest.send(&[TLBI_NH_ALL, command, SYNC]);
        assert!(signals.gerror && !signals.sync, "{command:x?}");
        assert_eq!(guest.get(CMDQ_CONS), (start + 1) | 1 << 24, "{command:x?}: CERROR_ILL at it");
        assert_eq!((guest.get(GERROR) ^ guest.get(GERRORN), guest.smmu.status().refused), (1, 1));
    }
}

#[test]
fn a_stopped_queue_goes_on_when_the_error_is_acknowledged() {
    let mut guest = Guest::alone();
    let start = guest.get(CMDQ_CONS);
    guest.send(&[[0xff, 0], SYNC]);
    assert!(!guest.send(&[SYNC]).gerror && !guest.smmu.has_work(), "it stands still, and says so once");
    assert_eq!(guest.get(CMDQ_CONS), start | 1 << 24);
    // Toggling other bits does nothing.
    assert!(!guest.set(GERRORN, 0x1fe).any());
    assert_eq!(guest.get(GERRORN), 0);
    // Linux replaces the command by CMD_SYNC.
    guest.store(COMMANDS + start * 16, &SYNC_WITH_INTERRUPT);
    let gerror = guest.get(GERROR);
    assert!(guest.set(GERRORN, gerror).sync);
    assert_eq!((guest.get(CMDQ_CONS), guest.get(GERROR)), (start + 3, guest.get(GERRORN)));
    // Acknowledged, but still there: the next error.
    guest.send(&[[0xff, 0]]);
    let gerror = guest.get(GERROR);
    assert_eq!(gerror, 0);
    assert!(guest.set(GERRORN, gerror).gerror);
    assert_eq!((guest.get(GERROR), guest.get(GERRORN)), (1, 0));
}

#[test]
fn a_queue_that_is_not_the_vms_memory_is_an_abort() {
    let mut guest = Guest::alone();
    guest.set(CR0, 0);
    guest.put_wide(CMDQ_BASE, 0x8000_0000 | 8);
    guest.set(CR0, 1 << 3);
    let start = guest.get(CMDQ_CONS);
    assert!(guest.set(CMDQ_PROD, start + 1).gerror);
    assert_eq!(guest.get(CMDQ_CONS), start | 2 << 24, "CERROR_ABT");
}

#[test]
fn error_interrupts_are_there_only_if_they_are_wanted() {
    let mut guest = Guest::alone();
    guest.set(IRQ_CTRL, 0);
    assert!(!guest.send(&[[0xff, 0]]).any());
    assert_eq!(guest.get(GERROR), 1);
}

#[test]
fn a_sync_is_consumed_when_all_before_it_is_done_and_not_before() {
    let mut guest = Guest::alone();
    let start = guest.get(CMDQ_CONS);
    let position = guest.prepare(&[TLBI_NH_ALL, SYNC_WITH_INTERRUPT, TLBI_NH_ALL]);
    guest.put(CMDQ_PROD, position);
    let batch = guest.smmu.begin(&*guest.ram);
    assert_eq!((batch.orders().len(), guest.get(CMDQ_CONS)), (1, start + 1));
    batch.carry_out(&mut guest.host);
    assert!(!guest.smmu.finish().any());
    assert_eq!((guest.get(CMDQ_CONS), guest.smmu.has_work()), (start + 1, true));
    assert!(guest.step().sync);
    assert_eq!(guest.get(CMDQ_CONS), start + 3);
    // 4.7.3: SIG_NONE, and SIG_SEV where there are no events, tell nobody.
    assert!(!guest.send(&[SYNC]).any() && !guest.send(&[[0x46 | 2 << 12, 0]]).any());
}

#[test]
fn a_batch_is_bounded() {
    let mut guest = Guest::alone();
    let position = guest.prepare(&[TLBI_NH_ALL; 200]);
    let start = guest.get(CMDQ_CONS);
    guest.put(CMDQ_PROD, position);
    let batch = guest.smmu.begin(&*guest.ram);
    assert_eq!((batch.orders().len(), guest.get(CMDQ_CONS)), (BATCH, start + BATCH as u64));
    batch.carry_out(&mut guest.host);
    let _ = guest.smmu.finish();
    guest.work();
    assert_eq!(guest.get(CMDQ_CONS), position);
}

#[test]
fn more_streams_than_a_batch_has_room_for_are_all_looked_at_before_the_sync() {
    let streams: Vec<u32> = (0..100).collect();
    let mut guest = Guest::new(&Default::default(), 1, &streams);
    guest.boot();
    assert!(streams.iter().all(|stream| guest.transact(*stream, DATA) == Outcome::Refused));
    (0..100).for_each(|stream| guest.entry(stream, [1 | 0b100 << 1, 0]));
    let position = guest.prepare(&[CFGI_ALL, SYNC]);
    guest.put(CMDQ_PROD, position);
    while guest.get(CMDQ_CONS) != position {
        let _ = guest.step();
    }
    assert!(streams.iter().all(|stream| guest.transact(*stream, DATA) == guest.reached(DATA)));
}

#[test]
fn the_queue_is_off_when_what_was_under_way_is_over() {
    let mut guest = Guest::alone();
    let position = guest.prepare(&[TLBI_NH_ALL, SYNC]);
    guest.put(CMDQ_PROD, position);
    let batch = guest.smmu.begin(&*guest.ram);
    guest.put(CR0, 0b0101);
    assert_eq!(guest.get(CR0ACK), 0b1101);
    guest.put(CMDQ_CONS, 0);
    assert_ne!(guest.get(CMDQ_CONS), 0, "in use still");
    batch.carry_out(&mut guest.host);
    let _ = guest.smmu.finish();
    assert_eq!(guest.get(CR0ACK), 0b0101);
    assert!(!guest.smmu.has_work(), "6.3.9: nothing is consumed");
    guest.set(CMDQ_CONS, 0);
    assert_eq!(guest.get(CMDQ_CONS), 0);
}

#[test]
fn positions_wrap() {
    let mut guest = Guest::alone();
    for _ in 0..600 {
        guest.send(&[SYNC]);
        assert_eq!(guest.get(CMDQ_PROD), guest.get(CMDQ_CONS));
    }
    // A full queue, and one that cannot be: it ends all the same.
    let start = guest.get(CMDQ_CONS);
    guest.prepare(&[SYNC; 256]);
    guest.set(CMDQ_PROD, start ^ 0x100);
    assert_eq!(guest.get(CMDQ_CONS), start ^ 0x100);
    guest.set(CMDQ_PROD, (start ^ 0x100).wrapping_sub(1) & 0x1ff);
    assert_eq!(guest.get(CMDQ_CONS), (start ^ 0x100).wrapping_sub(1) & 0x1ff);
    // Bits above the round's do not count.
    guest.set(CMDQ_PROD, guest.get(CMDQ_CONS) | 0xf_fe00);
    assert!(!guest.smmu.has_work());
}
