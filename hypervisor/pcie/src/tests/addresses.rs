//! What has which addresses.
use super::*;

fn memory(function: &Function) -> Vec<u64> {
    function.bars.iter().filter_map(|bar| Some(bar.place?.bus)).collect()
}

#[test]
fn wide_bars_go_above_four_gigabytes_and_narrow_ones_never() {
    let mut card = Simulated::endpoint(8, 1, 2, NET);
    card.add_bar(0x10, 4, 0x1000);
    card.add_bar(0x18, 0xc, 0x10_0000);
    card.add_bar(0x20, 0, 0x2000);
    card.add_bar(0x24, 8, 0x80);
    let found = found(&Model::new([card]));
    let [one, two, three, four] = memory(&found.functions[0])[..] else { panic!() };
    assert!(one >= 1 << 32 && two >= 1 << 32 && three < 1 << 32 && four < 1 << 32);
    assert_eq!(three & !0xfff, three);
    assert_eq!(four & 0xfff, 0, "less than a page has one of its own");
}

#[test]
fn behind_a_bridge_only_what_may_be_read_ahead_is_above_four_gigabytes() {
    let mut card = Simulated::endpoint(0, 1, 2, NET).behind(0);
    card.add_bar(0x10, 4, 0x1000);
    card.add_bar(0x18, 0xc, 0x10_0000);
    let model = Model::new([Simulated::root_port(8, true), card.clone()]);
    let hierarchy = found(&model);
    let [plain, prefetchable] = memory(function(&hierarchy, at(1, 0, 0)))[..] else { panic!() };
    assert!(plain < 1 << 32 && prefetchable >= 1 << 32);
    let bridge = hierarchy.functions[0].bridge.unwrap();
    assert_eq!(bridge.memory.unwrap().first, plain & !0xf_ffff);
    // What the registers say is what forwards.
    let space = Space::new(&model, at(0, 1, 0));
    assert_eq!(u64::from(space.half(0x20)) << 16, bridge.memory.unwrap().first);
    assert_eq!(u64::from(space.half(0x22)) << 16 | 0xf_ffff, bridge.memory.unwrap().last);
    assert_eq!(u64::from(space.word(0x28)) << 32 | u64::from(space.half(0x24) & 0xfff0) << 16, prefetchable);
    assert_eq!((space.half(4) & 6, space.half(0x1c)), (6, 0x00f0));
    // A bridge that has no upper registers has all of it below.
    let mut old = Simulated::bridge(8);
    old.set(0x24, &[0, 0, 0, 0]);
    old.allow(0x28, &[0; 8]);
    let hierarchy = found(&Model::new([old, card]));
    assert!(memory(function(&hierarchy, at(1, 0, 0))).iter().all(|at| *at < 1 << 32));
}

#[test]
fn what_firmware_has_set_stays_if_it_is_sound() {
    let place = |firmware: u32| {
        let mut card = Simulated::endpoint(8, 1, 2, NET);
        card.add_bar(0x10, 0, 0x1_0000);
        let model = Model::new([disk(0x10), card]);
        model.with(1, |card| card.registers[0x10..0x14].copy_from_slice(&firmware.to_le_bytes()));
        memory(function(&found(&model), at(0, 1, 0)))[0]
    };
    assert_eq!(place(0x1234_0000), 0x1234_0000);
    // Outside of the window, at its very end, and nothing.
    for wrong in [0x0800_0000, 0x2000_0000, 0] {
        assert_eq!(place(wrong), 0x1000_0000);
    }
}

#[test]
fn of_two_at_one_address_only_one_stays() {
    let mut card = Simulated::endpoint(8, 1, 2, NET);
    card.add_bar(0x10, 0, 0x1000);
    let mut other = card.clone();
    other.number = 0x10;
    let model = Model::new([card, other]);
    for n in 0..2 {
        model.with(n, |card| card.registers[0x10..0x14].copy_from_slice(&0x1800_0000_u32.to_le_bytes()));
    }
    let found = found(&model);
    let mut all: Vec<u64> = found.functions.iter().flat_map(memory).collect();
    all.sort_unstable();
    assert_eq!(all, [0x1000_0000, 0x1800_0000]);
}

#[test]
fn what_is_larger_than_the_window_is_named_and_the_others_go_on() {
    for behind in [false, true] {
        let mut large = Simulated::endpoint(0x20, 1, 2, NET);
        large.add_bar(0x10, 0, 0x2000_0000);
        large.add_bar(0x14, 0, 0x1000);
        let mut small = Simulated::endpoint(0x28, 1, 2, NET);
        small.add_bar(0x10, 0, 0x1000);
        let (large, small) = if behind { (large.behind(0), small.behind(0)) } else { (large, small) };
        let model = Model::new([Simulated::bridge(8), large, small]);
        let found = found(&model);
        let bus = u8::from(behind);
        let lost = function(&found, at(bus, 4, 0));
        assert_eq!((memory(lost), lost.is_placed()), (vec![], false), "not even its second");
        assert_eq!(Space::new(&model, lost.address).half(4) & 7, 0, "and it does not answer there");
        assert!(function(&found, at(bus, 5, 0)).is_placed());
        let flaw = Flaw::NoRoom { bar: 0, size: 0x2000_0000 };
        assert_eq!(found.troubles, [Trouble { function: at(bus, 4, 0), flaw }]);
    }
}

#[test]
fn if_there_is_too_little_the_largest_is_left_out_until_the_rest_fits() {
    // 256 MiB: of three of 128 MiB and one of 64 MiB, one of the large ones and the small one fit.
    let model = Model::new([0x08, 0x10, 0x18, 0x20].map(|number| {
        let mut card = Simulated::endpoint(number, 1, 2, NET);
        card.add_bar(0x10, 0, if number == 0x20 { 64 << 20 } else { 128 << 20 });
        card
    }));
    let found = found(&model);
    let placed: usize = found.functions.iter().filter(|function| function.is_placed()).count();
    assert!((2..=3).contains(&placed), "{found:?}");
    assert_eq!(found.troubles.len(), 4 - placed);
}

#[test]
fn sizes_that_are_none_are_not_used() {
    let mut liar = Simulated::endpoint(8, 1, 2, NET);
    // A hole in the bits that can be set; of a type that is reserved; 64 bits in the last register.
    liar.allow(0x10, &[0, 0xf0, 0x0f, 0xff]);
    liar.set(0x14, &[6]);
    liar.allow(0x14, &[0, 0xf0, 0xff, 0xff]);
    liar.set(0x24, &[4]);
    liar.allow(0x24, &[0, 0xf0, 0xff, 0xff]);
    let found = found(&Model::new([liar]));
    let flaws: Vec<_> = found.troubles.iter().map(|trouble| trouble.flaw).collect();
    assert_eq!(flaws, [Flaw::BarSize(0), Flaw::BarSize(1), Flaw::BarSize(5)]);
    assert_eq!(found.functions[0].bars.len(), 0);
}

#[test]
fn a_bar_that_does_not_keep_its_address_is_named() {
    struct Stuck(Model);
    impl Configuration for Stuck {
        fn read(&self, address: PciAddress, offset: u16, size: types::AccessSize) -> u32 {
            self.0.read(address, offset, size)
        }
        fn write(&self, address: PciAddress, offset: u16, size: types::AccessSize, value: u32) {
            // It can be sized, and keeps nothing else.
            if offset != 0x10 || value == u32::MAX || value == 0 {
                self.0.write(address, offset, size, value);
            }
        }
    }
    let mut card = Simulated::endpoint(8, 1, 2, NET);
    card.add_bar(0x10, 0, 0x1000);
    let model = Stuck(Model::new([card]));
    let found = scan(&model, &host(), 0);
    assert_eq!(found.troubles, [Trouble { function: at(0, 1, 0), flaw: Flaw::BarStuck(0) }]);
    assert!(!found.functions[0].is_placed());
    assert_eq!(Space::new(&model, at(0, 1, 0)).half(4) & 7, 0);
}
