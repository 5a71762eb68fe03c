//! Whatever configuration space says, a scan ends, and harms nobody.
use super::*;
use proptest::prelude::*;

#[test]
fn lists_that_lead_nowhere_end() {
    // To itself; to and fro; into the header; at the very end.
    for links in [
        &[(0x34, 0x40), (0x41, 0x40)][..],
        &[(0x34, 0x40), (0x41, 0x50), (0x51, 0x40)],
        &[(0x34, 0x10)],
        &[(0x34, 0xfc), (0xfd, 0xfc)],
    ] {
        let mut liar = disk(8);
        liar.set(0x06, &[0x10]);
        links.iter().for_each(|(at, to)| liar.set(*at, &[*to]));
        let found = found(&Model::new([liar, disk(0x10)]));
        assert_eq!(found.troubles, [Trouble { function: at(0, 1, 0), flaw: Flaw::Capabilities }], "{links:x?}");
        assert!(found.functions.iter().all(Function::is_placed));
    }
    for next in [0x100_u16, 0x0c0, 0x104] {
        let mut liar = disk(8);
        liar.add_express(0, false);
        liar.set(0x100, &[0x0b, 0]);
        liar.set(0x102, &(next << 4 | 1).to_le_bytes());
        liar.set(0x104, &[0x0b, 0]);
        liar.set(0x106, &(0x104_u16 << 4 | 1).to_le_bytes());
        let found = found(&Model::new([liar]));
        assert_eq!(found.troubles.len(), 1, "{next:x}");
    }
}

#[test]
fn a_bridge_that_keeps_no_numbers_stays_closed() {
    let mut liar = Simulated::bridge(8);
    liar.allow(0x18, &[0, 0, 0]);
    liar.set(0x18, &[0, 0, 0]);
    let found = found(&Model::new([liar, disk(0).behind(0), disk(0x10)]));
    assert_eq!(found.troubles, [Trouble { function: at(0, 1, 0), flaw: Flaw::BusStuck }]);
    assert_eq!(found.functions.len(), 2);
    assert_eq!(found.functions[0].bridge.unwrap().secondary, 0);
}

#[test]
fn there_are_no_more_buses_than_the_host_has() {
    let narrow = machine::PciHost { last_bus: 1, ..host() };
    let model = Model::new([Simulated::bridge(8), Simulated::bridge(0x10), disk(0).behind(0), disk(0).behind(1)]);
    let found = scan(&model, &narrow, 0);
    assert_eq!(found.troubles, [Trouble { function: at(0, 2, 0), flaw: Flaw::NoBus }]);
    assert_eq!(found.functions.len(), 3);
}

#[test]
fn msix_outside_of_its_bar_is_not_used() {
    for (table, pending) in [(0x4000_u32, 0_u32), (0x3ff8, 0), (0, 0x4000), (1, 0), (6, 0)] {
        let mut liar = disk(8);
        let msix = liar.add(0x11, 12);
        liar.set(msix + 2, &[0, 0]);
        liar.set(msix + 4, &table.to_le_bytes());
        liar.set(msix + 8, &pending.to_le_bytes());
        let found = found(&Model::new([liar]));
        assert_eq!(found.functions[0].capabilities.msix, None, "{table:x} {pending:x}");
        assert_eq!(found.troubles[0].flaw, Flaw::MsixOutside);
    }
}

#[test]
fn a_header_that_nobody_knows_is_left_alone() {
    let mut odd = disk(8);
    odd.set(0x0e, &[2]);
    let model = Model::new([odd, disk(0x10)]);
    model.with(0, |odd| odd.registers[4] = 4);
    let found = found(&model);
    assert!(found.troubles.contains(&Trouble { function: at(0, 1, 0), flaw: Flaw::Header(2) }));
    assert_eq!((found.functions.len(), Space::new(&model, at(0, 1, 0)).half(4) & 4), (1, 0), "but it is off");
}

/// Answers everywhere, always the same.
struct Everywhere(u32);

impl Configuration for Everywhere {
    fn read(&self, _: PciAddress, _: u16, _: types::AccessSize) -> u32 {
        self.0
    }
    fn write(&self, _: PciAddress, _: u16, _: types::AccessSize, _: u32) {}
}

#[test]
fn who_answers_everywhere_is_cut_off() {
    for says in [0x0101_0101, 0x8181_8181, 0x1111_1111, 0xffff_fffe, 0x0000_0001] {
        let found = scan(&Everywhere(says), &host(), 0);
        assert!(found.functions.len() <= MAX_FUNCTIONS && found.troubles.len() <= 64, "{says:x}");
    }
    for says in [0, u32::MAX] {
        assert_eq!(scan(&Everywhere(says), &host(), 0), Hierarchy::default());
    }
}

/// A function of bytes, and of bits that can be written.
fn any_function(is_last: usize) -> impl Strategy<Value = Simulated> {
    let bytes = || proptest::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0x60);
    let above = proptest::option::of(0..is_last);
    (any::<u8>(), bytes(), bytes(), 0..3_u8, above, any::<[u8; 16]>()).prop_map(
        |(number, initial, writable, header, above, extended)| {
            let mut function = Simulated::endpoint(number, 0x1234, 1, NET);
            function.set(4, &initial[4..]);
            function.allow(4, &writable[4..]);
            // Mostly of a type that there is.
            function.set(0x0e, &[header & 1 | initial[0x0e] & 0x80]);
            function.set(0x100, &extended);
            function.above = above;
            function
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_of_anything_ends_and_is_sound(functions in (1..6_usize).prop_flat_map(|n| proptest::collection::vec(any_function(n), n))) {
        let model = Model::new(functions);
        let found = found(&model);
        for function in &found.functions {
            // Nobody has been left on, but who cannot be switched off, and bridges.
            let command = Space::new(&model, function.address).half(4);
            let stays = |trouble: &Trouble| trouble.function == function.address && trouble.flaw == Flaw::StaysMaster;
            prop_assert!(command & 4 == 0 || function.bridge.is_some() || found.troubles.iter().any(stays));
            if let Some(msix) = function.capabilities.msix {
                let bar = function.bars.iter().find(|bar| bar.index == msix.table.bar).unwrap();
                prop_assert!(u64::from(msix.table.offset) + 16 * u64::from(msix.vectors) <= bar.size);
            }
            let mut rest = Rest::of(&found.functions, function.address, Frequency::new(1_000_000).unwrap());
            let mut turns = 0;
            while let RestProgress::Waiting(until) = rest.advance(&model, Ticks(model.now.get())) {
                model.now.set(until.0.max(model.now.get() + 1));
                turns += 1;
                prop_assert!(turns < 10_000);
            }
        }
    }
}
