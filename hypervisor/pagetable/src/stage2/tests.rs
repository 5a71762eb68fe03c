use super::*;
use crate::{
    pool::Stale,
    testing::{Event, TestPool, Walkers},
};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;
const ALL: usize = usize::MAX;

fn range(start: u64, end: u64) -> Range<Ipa> {
    Range::between(Ipa(start), Ipa(end))
}

/// An empty, live stage 2 of 40 bits (two concatenated level 1 tables), room for `left` more tables.
fn live(left: usize) -> (TestPool, Walkers, Stage2) {
    let mut pool = TestPool::with(left + 2);
    let mut walkers = pool.walkers();
    let stage2 = Stage2::new(Stage2Layout::largest(PaRange::Bits40), &mut pool).unwrap();
    walkers.install(stage2.root(), 1, 2);
    (pool, walkers, stage2)
}

fn done(changed: u64) -> Result<Progress<Ipa>, MapError<Ipa>> {
    Ok(Progress { changed, rest: None })
}

/// Level 1 descriptor `index` of the root.
fn root_entry(stage2: &Stage2, pool: &TestPool, index: u64) -> u64 {
    pool.read(Pa(stage2.root().0 + index / 512 * K4), (index % 512) as usize)
}

#[test]
fn vtcr_holds_what_the_manual_says() {
    // DDI 0487, VTCR_EL2: RES1 bit 31; VS 19; PS 18:16; SH0 13:12; ORGN0 11:10; IRGN0 9:8; SL0 7:6; T0SZ 5:0. With the
    // 4 KiB granule SL0 = 0, 1, 2 starts at level 2, 1, 0.
    let common = (1 << 31) | (3 << 12) | (1 << 10) | (1 << 8);
    for (pa, bits, ps, sl0, tables) in [
        (PaRange::Bits32, 32, 0, 0, 4),
        (PaRange::Bits36, 34, 1, 0, 16),
        (PaRange::Bits36, 36, 1, 1, 1),
        (PaRange::Bits40, 40, 2, 1, 2),
        (PaRange::Bits42, 42, 3, 1, 8),
        (PaRange::Bits44, 43, 4, 1, 16),
        (PaRange::Bits44, 44, 4, 2, 1),
        (PaRange::Bits48, 40, 5, 1, 2),
        (PaRange::Bits48, 48, 5, 2, 1),
    ] {
        let layout = Stage2Layout::new(pa, bits).unwrap();
        let expected = common | (ps << 16) | (sl0 << 6) | (64 - u64::from(bits));
        assert_eq!(layout.vtcr(VmidSize::Bits8), expected, "{bits} bits");
        assert_eq!(layout.vtcr(VmidSize::Bits16), expected | (1 << 19));
        assert_eq!(layout.root_tables(), tables, "{bits} bits");
    }
    assert_eq!(Stage2Layout::new(PaRange::Bits40, 41), None, "wider than the machine");
    assert_eq!(Stage2Layout::new(PaRange::Bits40, 31), None);
}

#[test]
fn vttbr_is_root_and_vmid() {
    let (_, _, stage2) = live(0);
    assert_eq!(stage2.vttbr(0xabcd), stage2.root().0 | (0xabcd << 48));
    assert!(stage2.root().is_aligned(2 * K4), "a concatenated root is aligned to its size");
}

#[test]
fn leaves_hold_what_the_manual_says() {
    // DDI 0487, stage 2 attributes: AF 10; SH 9:8; S2AP 7:6; MemAttr 5:2; XN 54:53.
    let (af, sh) = (1 << 10, 3 << 8);
    for (attributes, bits) in [
        (Stage2Attributes::RAM, (0b11 << 6) | (0b1111 << 2)),
        (Stage2Attributes::ROM, (0b01 << 6) | (0b1111 << 2)),
        (Stage2Attributes::DEVICE, (0b11 << 6) | (0b0001 << 2) | (1 << 54)),
        (Stage2Attributes::new(Memory::DeviceNgnrne, Access::READ), (0b01 << 6) | (1 << 54)),
        (Stage2Attributes::new(Memory::DeviceNgre, Access::WRITE), (0b10 << 6) | (0b0010 << 2) | (1 << 54)),
        (Stage2Attributes::new(Memory::DeviceGre, Access::empty()), (0b0011 << 2) | (1 << 54)),
        (Stage2Attributes::new(Memory::NormalNonCacheable, Access::EXECUTE), 0b0101 << 2),
    ] {
        let (mut pool, mut walkers, mut stage2) = live(0);
        assert_eq!(stage2.map(range(G1, 2 * G1), Pa(0), attributes, ALL, &mut pool, &mut walkers), done(G1));
        assert_eq!(root_entry(&stage2, &pool, 1), bits | af | sh | 0b01, "{attributes:?}");
        assert_eq!(stage2.lookup(Ipa(G1), &pool).unwrap().attributes, attributes);
    }
}

#[test]
fn the_largest_blocks_that_fit_are_used() {
    let (mut pool, mut walkers, mut stage2) = live(4);
    // From one page below a 2 MiB boundary, which is 2 MiB below 1 GiB, to one page above 2 GiB + 2 MiB.
    let whole = range(G1 - M2 - K4, 2 * G1 + M2 + K4);
    let to = Pa(3 * G1 - M2 - K4);
    assert_eq!(stage2.map(whole, to, Stage2Attributes::RAM, ALL, &mut pool, &mut walkers), done(whole.length()));
    assert_eq!(walkers.leaves_written(), 1, "the others were written before their tables were linked");
    assert_eq!(stage2.tables(), 6);
    for (at, size) in [(G1 - M2 - K4, K4), (G1 - M2, M2), (G1, G1), (2 * G1, M2), (2 * G1 + M2, K4)] {
        let mapping = stage2.lookup(Ipa(at + size - 1), &pool).unwrap();
        assert_eq!((mapping.range, mapping.to), (range(at, at + size), Pa(at + 2 * G1)));
    }
    assert_eq!(stage2.lookup(Ipa(whole.start().0 - 1), &pool), None);
    assert_eq!(stage2.lookup(whole.end(), &pool), None);
    walkers.assert_up_to_date();
}

#[test]
fn output_that_is_less_aligned_than_input_takes_smaller_leaves() {
    let (mut pool, mut walkers, mut stage2) = live(8);
    let block = range(G1, 2 * G1);
    assert_eq!(stage2.map(block, Pa(M2), Stage2Attributes::RAM, ALL, &mut pool, &mut walkers), done(G1));
    assert_eq!(stage2.lookup(Ipa(G1), &pool).unwrap().range, range(G1, G1 + M2));
    let page = range(2 * G1, 2 * G1 + M2);
    assert_eq!(stage2.map(page, Pa(K4), Stage2Attributes::RAM, ALL, &mut pool, &mut walkers), done(M2));
    assert_eq!(stage2.lookup(Ipa(2 * G1), &pool).unwrap().range, range(2 * G1, 2 * G1 + K4));
}

#[test]
fn the_second_table_of_a_concatenated_root_is_used() {
    let (mut pool, mut walkers, mut stage2) = live(0);
    let top = range((1 << 40) - G1, 1 << 40);
    assert_eq!(stage2.map(top, Pa(0), Stage2Attributes::RAM, ALL, &mut pool, &mut walkers), done(G1));
    assert_ne!(root_entry(&stage2, &pool, 1023) & 1, 0);
    assert_eq!(stage2.lookup(Ipa((1 << 40) - 1), &pool).unwrap().range, top);
    assert_eq!(stage2.lookup(Ipa(1 << 40), &pool), None);
}

#[test]
fn mistakes_are_refused_before_anything_is_changed() {
    let (mut pool, mut walkers, mut stage2) = live(4);
    let ram = Stage2Attributes::RAM;
    let mut map = |range, to| stage2.map(range, to, ram, ALL, &mut pool, &mut walkers);
    assert_eq!(map(range(K4, 3 * K4), Pa(0)), done(2 * K4));
    assert_eq!(map(range(1, K4), Pa(0)), Err(MapError::Misaligned));
    assert_eq!(map(range(0, K4 - 1), Pa(0)), Err(MapError::Misaligned));
    assert_eq!(map(range(0, K4), Pa(8)), Err(MapError::Misaligned));
    assert_eq!(map(range((1 << 40) - K4, (1 << 40) + K4), Pa(0)), Err(MapError::InputOutOfRange));
    assert_eq!(map(range(u64::MAX - 2 * K4 + 1, u64::MAX - K4 + 1), Pa(0)), Err(MapError::InputOutOfRange));
    assert_eq!(map(range(0, 2 * K4), Pa((1 << 40) - K4)), Err(MapError::OutputOutOfRange));
    assert_eq!(map(range(0, K4), Pa(u64::MAX - K4 + 1)), Err(MapError::OutputOutOfRange));
    assert_eq!(map(range(0, G1), Pa(0)), Err(MapError::Overlap(Ipa(K4))), "a block over a table");
    assert_eq!(map(range(2 * K4, 4 * K4), Pa(0)), Err(MapError::Overlap(Ipa(2 * K4))));
    assert_eq!(map(range(0, 0), Pa(0)), done(0));
    assert_eq!(stage2.tables(), 4);
    assert_eq!(pool.in_use(), 4);
    assert_eq!(stage2.lookup(Ipa(0), &pool), None);
    assert_eq!(stage2.lookup(Ipa(3 * K4), &pool), None);
}

#[test]
fn a_map_that_runs_out_of_tables_leaves_nothing_behind() {
    let (mut pool, mut walkers, mut stage2) = live(3);
    // Needs a level 2 and a level 3 table at either end.
    let whole = range(G1 - K4, 2 * G1 + K4);
    let ram = Stage2Attributes::RAM;
    assert_eq!(stage2.map(whole, whole_pa(whole), ram, ALL, &mut pool, &mut walkers), Err(MapError::OutOfTables));
    assert_eq!((stage2.tables(), pool.in_use()), (2, 2));
    assert_eq!(walkers.events(), []);
    pool.set_left(4);
    assert_eq!(stage2.map(whole, whole_pa(whole), ram, ALL, &mut pool, &mut walkers), done(whole.length()));
    assert_eq!((stage2.tables(), pool.in_use()), (6, 6));
}

fn whole_pa(range: Range<Ipa>) -> Pa {
    Pa(range.start().0)
}

#[test]
fn cutting_a_page_out_of_a_block_splits_it_with_break_before_make() {
    let (mut pool, mut walkers, mut stage2) = live(2);
    let ram = Stage2Attributes::RAM;
    assert_eq!(stage2.map(range(G1, 2 * G1), Pa(4 * G1), ram, ALL, &mut pool, &mut walkers), done(G1));
    walkers.events();
    assert_eq!(stage2.unmap(range(G1 + M2, G1 + M2 + K4), ALL, &mut pool, &mut walkers), done(K4));
    let split = |start, end| [Event::Publish, Event::Invalidate { start, end, stale: Stale::Leaves }, Event::Publish];
    let last = Event::Invalidate { start: G1 + M2, end: G1 + M2 + K4, stale: Stale::Leaves };
    let expected = [&split(G1, 2 * G1)[..], &split(G1 + M2, G1 + 2 * M2), &[last]].concat();
    assert_eq!(walkers.events(), expected);
    walkers.assert_up_to_date();
    assert_eq!(stage2.lookup(Ipa(G1 + M2), &pool), None);
    let neighbour = stage2.lookup(Ipa(G1 + M2 + K4), &pool).unwrap();
    assert_eq!((neighbour.to, neighbour.attributes), (Pa(4 * G1 + M2 + K4), ram));
    assert_eq!(stage2.lookup(Ipa(G1), &pool).unwrap().range, range(G1, G1 + M2));
    assert_eq!(stage2.lookup(Ipa(2 * G1 - 1), &pool).unwrap().to, Pa(5 * G1 - M2));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_split_that_runs_out_of_tables_changes_nothing() {
    for left in 0..3 {
        let (mut pool, mut walkers, mut stage2) = live(left);
        let ram = Stage2Attributes::RAM;
        assert_eq!(stage2.map(range(G1, 2 * G1), Pa(0), ram, ALL, &mut pool, &mut walkers), done(G1));
        walkers.events();
        // Both ends in the same 1 GiB block, in different 2 MiB blocks of it: three tables.
        let hole = range(G1 + K4, G1 + M2 + K4);
        assert_eq!(stage2.unmap(hole, ALL, &mut pool, &mut walkers), Err(MapError::OutOfTables));
        let rom = Stage2Attributes::ROM;
        assert_eq!(stage2.protect(hole, rom, ALL, &mut pool, &mut walkers), Err(MapError::OutOfTables));
        assert_eq!(walkers.events(), []);
        assert_eq!((stage2.tables(), pool.in_use()), (2, 2));
        assert_eq!(stage2.lookup(Ipa(G1 + K4), &pool).unwrap().range, range(G1, 2 * G1));
        pool.set_left(3);
        assert_eq!(stage2.unmap(hole, ALL, &mut pool, &mut walkers), done(M2));
    }
}

#[test]
fn tables_that_become_empty_are_freed_after_walkers_have_forgotten_them() {
    let (mut pool, mut walkers, mut stage2) = live(2);
    let ram = Stage2Attributes::RAM;
    assert_eq!(stage2.map(range(0, 2 * K4), Pa(0), ram, ALL, &mut pool, &mut walkers), done(2 * K4));
    walkers.events();
    assert_eq!(stage2.unmap(range(0, K4), ALL, &mut pool, &mut walkers), done(K4));
    assert_eq!(stage2.tables(), 4);
    assert_eq!(walkers.events(), [Event::Invalidate { start: 0, end: K4, stale: Stale::Leaves }]);
    assert_eq!(stage2.unmap(range(K4, 2 * K4), ALL, &mut pool, &mut walkers), done(K4));
    assert_eq!(walkers.events(), [Event::Invalidate { start: K4, end: 2 * K4, stale: Stale::Tables }]);
    assert_eq!((stage2.tables(), pool.in_use()), (2, 2));
    // So a block can go there.
    assert_eq!(stage2.map(range(0, G1), Pa(0), ram, ALL, &mut pool, &mut walkers), done(G1));
    assert_eq!(stage2.tables(), 2);
}

#[test]
fn holes_need_no_maintenance() {
    let (mut pool, mut walkers, mut stage2) = live(0);
    assert_eq!(stage2.unmap(range(0, 1 << 40), ALL, &mut pool, &mut walkers), done(0));
    let rom = Stage2Attributes::ROM;
    assert_eq!(stage2.protect(range(K4, G1), rom, ALL, &mut pool, &mut walkers), done(0));
    assert_eq!(walkers.events(), []);
}

#[test]
fn write_protection_needs_no_break_but_a_new_memory_type_does() {
    let (mut pool, mut walkers, mut stage2) = live(2);
    let ram = Stage2Attributes::RAM;
    assert_eq!(stage2.map(range(0, 2 * M2), Pa(0), ram, ALL, &mut pool, &mut walkers), done(2 * M2));
    walkers.events();
    let both = |stale| Event::Invalidate { start: 0, end: 2 * M2, stale };
    let rom = Stage2Attributes::ROM;
    assert_eq!(stage2.protect(range(0, 2 * M2), rom, ALL, &mut pool, &mut walkers), done(2 * M2));
    assert_eq!(walkers.events(), [both(Stale::Leaves)]);
    // Again: it is so already, even for a part of a block.
    assert_eq!(stage2.protect(range(K4, M2), rom, ALL, &mut pool, &mut walkers), done(M2 - K4));
    assert_eq!(walkers.events(), []);
    let device = Stage2Attributes::DEVICE;
    assert_eq!(stage2.protect(range(0, 2 * M2), device, ALL, &mut pool, &mut walkers), done(2 * M2));
    let one = |start| Event::Invalidate { start, end: start + M2, stale: Stale::Leaves };
    assert_eq!(walkers.events(), [one(0), one(M2), both(Stale::Leaves)]);
    assert_eq!(stage2.lookup(Ipa(M2), &pool).unwrap().attributes, device);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn long_work_is_done_in_steps() {
    let (mut pool, mut walkers, mut stage2) = live(8);
    let ram = Stage2Attributes::RAM;
    let whole = range(M2 - K4, 2 * M2);
    let (mut rest, mut steps) = (Some(whole), 0);
    while let Some(left) = rest {
        // Output offset by a page: 513 leaves of 4 KiB in two tables.
        let to = Pa(left.start().0 + K4);
        rest = stage2.map(left, to, ram, 100, &mut pool, &mut walkers).unwrap().rest;
        assert!(walkers.leaves_written() <= 100);
        walkers.assert_up_to_date();
        steps += 1;
    }
    assert_eq!(steps, 6);
    assert_eq!(stage2.tables(), 5);
    rest = Some(whole);
    let mut changed = 0;
    while let Some(left) = rest {
        let progress = stage2.unmap(left, 100, &mut pool, &mut walkers).unwrap();
        assert!(progress.changed <= 100 * K4);
        assert_eq!(stage2.lookup(Ipa(left.start().0), &pool), None);
        changed += progress.changed;
        rest = progress.rest;
        walkers.assert_up_to_date();
    }
    assert_eq!(changed, whole.length());
    assert_eq!(pool.in_use(), 2);
    // However small the allowance, every call gets somewhere.
    assert_eq!(stage2.map(range(0, K4), Pa(0), ram, 0, &mut pool, &mut walkers), done(K4));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn destroying_gives_everything_back() {
    let (mut pool, mut walkers, mut stage2) = live(20);
    for at in [0, G1 + M2, 700 * G1 - K4] {
        let page = range(at, at + 2 * K4);
        assert_eq!(stage2.map(page, Pa(0), Stage2Attributes::RAM, ALL, &mut pool, &mut walkers), done(2 * K4));
    }
    walkers.retire();
    stage2.destroy(&mut pool);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn without_memory_for_the_root_there_is_none() {
    let mut pool = TestPool::with(1);
    assert!(Stage2::new(Stage2Layout::largest(PaRange::Bits40), &mut pool).is_none());
    assert_eq!(pool.in_use(), 0);
}
