use super::*;
use crate::{
    pool::Stale,
    testing::{Event, TestPool},
};

const ALL: usize = usize::MAX;

fn range(start: u64, length: u64) -> Range<Va> {
    Range::new(Va(start), length).unwrap()
}

/// Descriptor of the leaf for `at` in tables built over `pool`.
fn leaf(el2: &El2Stage1, at: u64, pool: &TestPool) -> u64 {
    let mut table = el2.root();
    for shift in [39, 30, 21, 12] {
        let descriptor = pool.read(table, (at >> shift) as usize & 511);
        if shift == 12 || descriptor & 2 == 0 {
            return descriptor;
        }
        table = Pa(descriptor & 0xffff_ffff_f000);
    }
    unreachable!("level 3 returns");
}

#[test]
fn registers_hold_what_the_manual_says() {
    // TCR_EL2 (DDI 0487, E2H = 0): RES1 bits 31 and 23; PS 18:16; TG0 15:14 = 4 KiB; SH0 13:12 = inner; ORGN0 11:10 and
    // IRGN0 9:8 = write-back write-allocate; T0SZ 5:0 = 64 - 48.
    assert_eq!(El2Stage1::tcr(PaRange::Bits40), 0x8080_0000 | (2 << 16) | (3 << 12) | (1 << 10) | (1 << 8) | 16);
    assert_eq!(El2Stage1::mair(), 0x0044_04ff);
}

#[test]
fn leaves_hold_what_the_manual_says() {
    let expected = [
        // AF, inner shareable, AP[1] RES1; then AttrIndx, AP[2], XN.
        (El2Attributes::Code, 0x740 | (1 << 7)),
        (El2Attributes::ReadOnly, 0x740 | (1 << 7) | (1 << 54)),
        (El2Attributes::Data, 0x740 | (1 << 54)),
        (El2Attributes::Device, 0x740 | (1 << 2) | (1 << 54)),
        (El2Attributes::NonCacheable, 0x740 | (2 << 2) | (1 << 54)),
    ];
    for (attributes, bits) in expected {
        let mut pool = TestPool::with(4);
        let mut el2 = El2Stage1::new(PaRange::Bits48, &mut pool).unwrap();
        let mut walkers = pool.walkers();
        let progress = el2.map(range(0x1000, 0x1000), Pa(0x9000), attributes, ALL, &mut pool, &mut walkers);
        assert_eq!(progress, Ok(Progress { changed: 0x1000, rest: None }));
        assert_eq!(leaf(&el2, 0x1000, &pool), 0x9000 | bits | 0b11, "{attributes:?}");
        assert_eq!(el2.lookup(Va(0x1fff), &pool).unwrap().attributes, attributes);
    }
}

#[test]
fn an_image_can_be_mapped_as_data_and_then_be_write_protected_while_it_runs() {
    let mut pool = TestPool::with(8);
    let mut el2 = El2Stage1::new(PaRange::Bits40, &mut pool).unwrap();
    let mut walkers = pool.walkers();
    walkers.install(el2.root(), 0, 1);
    let text = range(0x4020_0000, 0x3000);
    let progress = el2.map(text, Pa(0x4020_0000), El2Attributes::Data, ALL, &mut pool, &mut walkers).unwrap();
    assert!(progress.is_complete());
    walkers.events();
    let progress = el2.protect(text, El2Attributes::Code, ALL, &mut pool, &mut walkers).unwrap();
    assert_eq!(progress, Progress { changed: 0x3000, rest: None });
    assert_eq!(el2.lookup(Va(0x4020_2000), &pool).unwrap().attributes, El2Attributes::Code);
    // One invalidation afterwards: permissions do not need break-before-make.
    let whole = Event::Invalidate { start: 0x4020_0000, end: 0x4020_3000, stale: Stale::Leaves };
    assert_eq!(walkers.events(), [whole]);
    walkers.assert_up_to_date();
}

#[test]
fn a_guard_page_is_a_hole_between_stacks() {
    let mut pool = TestPool::with(8);
    let mut el2 = El2Stage1::new(PaRange::Bits40, &mut pool).unwrap();
    let mut walkers = pool.walkers();
    let stacks = 0xffff_0000_0000;
    for stack in 0..3 {
        let at = range(stacks + 0x5000 * stack + 0x1000, 0x4000);
        let to = Pa(0x8000_0000 + 0x4000 * stack);
        assert!(el2.map(at, to, El2Attributes::Data, ALL, &mut pool, &mut walkers).unwrap().is_complete());
    }
    assert_eq!(el2.lookup(Va(stacks + 0x5000), &pool), None);
    assert_eq!(el2.lookup(Va(stacks + 0x4fff), &pool).unwrap().to, Pa(0x8000_3000));
    assert_eq!(el2.lookup(Va(stacks + 0x6000), &pool).unwrap().to, Pa(0x8000_4000));
}
