//! Sections 3.3.1, 3.21.3, 5.1 and 5.2.

use crate::testing::*;
use alloc::{format, vec, vec::Vec};

const BYPASS: [u64; 2] = [1 | 0b100 << 1, 0];

#[test]
fn a_guests_stage_1_stands_before_the_hosts_stage_2() {
    let mut guest = Guest::alone();
    guest.translate(3, 5, &[DATA, 0x8000_0000]);
    guest.send(&[cfgi_ste(3), SYNC]);
    assert_eq!(guest.transact(3, 0x123), guest.reached(DATA));
    assert_eq!(
        guest.transact(3, 0x1000),
        Outcome::Stage2Fault,
        "what is not the VM's is not reached by tables of its own"
    );
    assert_eq!(guest.transact(3, 0x2000), Outcome::Stage1Fault);
    assert_eq!(guest.transact(3, DATA), Outcome::Stage1Fault, "the guest's driver is confined to what it has mapped");
    assert_eq!(guest.transact(8, DATA), Outcome::Refused);
    let status = guest.smmu.status();
    assert_eq!((status.enabled, status.streams, status.translated), (true, 2, 1));
    assert!(format!("{status}").starts_with("on; 1 of 2 streams translated; "), "{status}");
}

#[test]
fn an_entry_counts_from_the_command_on_that_says_so() {
    let mut guest = Guest::alone();
    guest.entry(3, BYPASS);
    guest.send(&[cfgi_ste(8), TLBI_NH_ALL, SYNC]);
    assert_eq!(guest.transact(3, DATA), Outcome::Refused);
    guest.send(&[cfgi_ste(3), SYNC]);
    assert_eq!(guest.transact(3, DATA), guest.reached(DATA));
    guest.entry(3, [0, 0]);
    assert_eq!(guest.transact(3, DATA), guest.reached(DATA));
    guest.send(&[cfgi_ste(3), SYNC]);
    assert_eq!(guest.transact(3, DATA), Outcome::Refused);
    guest.entry(3, [1, 0]);
    guest.send(&[cfgi_ste(3), SYNC]);
    assert_eq!(guest.transact(3, DATA), Outcome::Aborted, "Config 0b000: no event");
}

#[test]
fn with_an_entry_go_its_context_descriptors() {
    let mut guest = Guest::alone();
    guest.translate(3, 5, &[DATA]);
    guest.send(&[cfgi_ste(3), SYNC]);
    assert_eq!(guest.transact(3, 0), guest.reached(DATA));
    guest.translate(3, 6, &[DATA + 0x1000]);
    assert_eq!(guest.transact(3, 0), guest.reached(DATA), "cached");
    guest.send(&[cfgi_ste(3), SYNC]);
    assert_eq!(guest.transact(3, 0), guest.reached(DATA + 0x1000), "4.3.1");
    guest.translate(3, 7, &[DATA + 0x2000]);
    guest.send(&[cfgi_cd(3), SYNC]);
    assert_eq!(guest.transact(3, 0), guest.reached(DATA + 0x2000), "4.3.3");
}

#[test]
fn translations_are_forgotten_by_address_space_and_by_address() {
    let mut guest = Guest::alone();
    let va = |page: u64| [0x12 | 5 << 48, page << 12];
    for (command, remaining) in [
        (TLBI_NH_ALL, vec![]),
        ([0x30, 0], vec![]),
        ([0x11 | 5 << 48, 0], vec![]),
        ([0x11 | 6 << 48, 0], vec![0, 1, 2, 3]),
        (va(2), vec![0, 1, 3]),
        ([0x12 | 6 << 48, 2 << 12], vec![0, 1, 2, 3]),
        ([0x13 | 6 << 48, 2 << 12], vec![0, 1, 3]),
        // NUM 1, SCALE 0, TG 1: two pages.
        ([0x12 | 5 << 48 | 1 << 12, 1 << 12 | 1 << 10], vec![0, 3]),
    ] {
        guest.translate(3, 5, &[DATA, DATA + 0x1000, DATA + 0x2000, DATA + 0x3000]);
        guest.send(&[CFGI_ALL, TLBI_NH_ALL, SYNC]);
        (0..4).for_each(|page| assert_eq!(guest.transact(3, page << 12), guest.reached(DATA + (page << 12))));
        // All are mapped elsewhere now.
        guest.translate(3, 5, &[DATA + 0x4000; 4]);
        guest.send(&[command, SYNC]);
        let old = (0..4).filter(|page| guest.transact(3, page << 12) == guest.reached(DATA + (page << 12)));
        assert_eq!(old.collect::<Vec<_>>(), remaining, "{command:x?}");
    }
}

#[test]
fn what_an_entry_may_not_say_refuses_the_stream() {
    for (words, outcome) in [
        ([0, 0], Outcome::Refused),
        ([0b101 << 1 | CONTEXT, 0], Outcome::Refused),
        ([1 | 0b110 << 1, 0], Outcome::Refused),
        ([1 | 0b111 << 1 | CONTEXT, 0], Outcome::Refused),
        // S1CDMax without substreams; a context beyond the VM's addresses.
        ([1 | 0b101 << 1 | CONTEXT | 1 << 59, 0], Outcome::Refused),
        ([1 | 0b101 << 1 | 1 << 40, 0], Outcome::Refused),
        // One that is no memory, but could be: the machine's SMMU finds out.
        ([1 | 0b101 << 1 | 0x8000_0000, 0], Outcome::Stage2Fault),
        ([1 | 0b001 << 1, 0], Outcome::Aborted),
        ([1 | 0b011 << 1, 0], Outcome::Aborted),
    ] {
        let mut guest = Guest::alone();
        guest.entry(3, words);
        guest.send(&[cfgi_ste(3), SYNC]);
        assert_eq!(guest.transact(3, 0), outcome, "{words:x?}");
    }
}

/// A guest with a table of this shape at this base.
fn with_table(config: u64, base: u64) -> Guest {
    let mut guest = Guest::alone();
    guest.set(CR0, 0b1100);
    guest.put_wide(STRTAB_BASE, base);
    guest.put(STRTAB_BASE_CFG, config);
    guest
}

fn turn_on(guest: &mut Guest) -> [bool; 2] {
    guest.set(CR0, 0b1101);
    [3, 8].map(|stream| guest.transact(stream, DATA) == guest.reached(DATA))
}

#[test]
fn a_linear_table_has_as_many_entries_as_it_says_and_is_aligned_to_its_size() {
    for (config, there) in
        [(8, [true, true]), (4, [true, true]), (3, [true, false]), (2, [true, false]), (1, [false, false])]
    {
        // Bits of the base below the size are ignored.
        let below = ((64 << config) - 1) & !0x3f;
        let mut guest = with_table(config, STREAMS | below);
        guest.entry(3, BYPASS);
        guest.entry(8, BYPASS);
        assert_eq!(turn_on(&mut guest), there, "LOG2SIZE {config}");
    }
    // A reserved format is linear.
    let mut guest = with_table(2 << 16 | 8, STREAMS);
    guest.entry(3, BYPASS);
    assert_eq!(turn_on(&mut guest), [true, false]);
    // More than there are streams is as many as there are, and what is no memory is no entry.
    let mut guest = with_table(0x3f, STREAMS);
    assert_eq!(turn_on(&mut guest), [false, false]);
}

#[test]
fn a_table_of_two_levels_has_spans() {
    const LEAF: u64 = DATA;
    // SPLIT 6, and a reserved one that is the same; 8 and 10.
    for (split, config) in [(6, 6), (6, 7), (6, 0), (8, 8), (10, 10)] {
        let config = 1 << 16 | config << 6 | 16;
        for (span, there) in [
            (0, [false, false]),
            (1, [false, false]),
            (2, [false, false]),
            (3, [true, false]),
            (4, [true, false]),
            (5, [true, true]),
            (split + 1, [true, true]),
            (split + 2, [false, false]),
            (31, [false, false]),
        ] {
            let mut guest = with_table(config, STREAMS);
            guest.store(STREAMS, &[LEAF | span]);
            guest.store(LEAF + 3 * 64, &BYPASS);
            guest.store(LEAF + 8 * 64, &BYPASS);
            assert_eq!(turn_on(&mut guest), there, "SPLIT {split}, Span {span}");
        }
    }
}

#[test]
fn streams_find_their_descriptor_by_the_upper_bits() {
    let mut guest = Guest::new(&Default::default(), 1, &[0x1234]);
    guest.boot();
    guest.set(CR0, 0b1100);
    guest.put_wide(STRTAB_BASE, STREAMS);
    guest.put(STRTAB_BASE_CFG, 1 << 16 | 8 << 6 | 16);
    guest.store(STREAMS + 0x12 * 8, &[(STREAMS + 0x4000) | 9]);
    guest.store(STREAMS + 0x4000 + 0x34 * 64, &BYPASS);
    guest.set(CR0, 0b1101);
    assert_eq!(guest.transact(0x1234, DATA), guest.reached(DATA));
}
