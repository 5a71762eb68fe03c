//! How functions come to rest, and virtual ones into being.
use super::*;
use crate::testkit::AWAY;

fn frequency() -> Frequency {
    Frequency::new(1_000_000).unwrap()
}

/// Advances until it is over. With the result, how long that took in microseconds.
fn bring(model: &Model, found: &Hierarchy, address: PciAddress) -> (RestProgress, u64) {
    let begun = model.now.get();
    let mut rest = Rest::of(&found.functions, address, frequency());
    for _ in 0..10_000 {
        match rest.advance(model, Ticks(model.now.get())) {
            RestProgress::Waiting(until) => {
                assert!(until.0 > model.now.get(), "it waits for what is to come");
                model.now.set(until.0);
            }
            over => return (over, model.now.get() - begun),
        }
    }
    panic!("it does not end");
}

fn resettable(number: u8) -> Simulated {
    let mut disk = disk(number);
    disk.add_express(0, true);
    disk
}

/// As a guest leaves it.
fn use_it(model: &Model, address: PciAddress) {
    let space = Space::new(model, address);
    space.set_half(4, 6);
    space.set_word(0x10, 0x1f00_0000);
}

fn is_as_found(model: &Model, found: &Hierarchy, address: PciAddress) {
    let function = function(found, address);
    let space = Space::new(model, address);
    assert_eq!(
        u64::from(space.word(0x14)) << 32 | u64::from(space.word(0x10) & !0xf),
        function.bars[0].place.unwrap().bus
    );
    assert_eq!(space.half(4), function.command_at_rest());
    assert_eq!(space.half(4) & 4, 0);
}

#[test]
fn a_function_level_reset_takes_its_time_and_the_header_comes_back() {
    let model = Model::new([resettable(8), resettable(0x10)]);
    let found = found(&model);
    assert_eq!(function(&found, at(0, 1, 0)).reset(), Reset::Function);
    use_it(&model, at(0, 1, 0));
    let (over, took) = bring(&model, &found, at(0, 1, 0));
    assert_eq!(over, RestProgress::Done);
    assert!((AWAY..AWAY + 10_000).contains(&took), "{took}");
    assert_eq!((model.with(0, |disk| disk.resets), model.with(1, |disk| disk.resets)), (1, 0));
    is_as_found(&model, &found, at(0, 1, 0));
}

#[test]
fn before_a_function_level_reset_nobody_looks_for_100_ms() {
    let model = Model::new([resettable(8)]);
    let found = found(&model);
    let mut rest = Rest::of(&found.functions, at(0, 1, 0), frequency());
    assert_eq!(rest.advance(&model, Ticks(0)), RestProgress::Waiting(Ticks(100_000)));
    let before = model.accesses.get();
    assert_eq!(rest.advance(&model, Ticks(99_999)), RestProgress::Waiting(Ticks(100_000)));
    assert_eq!(model.accesses.get(), before);
}

#[test]
fn advanced_features_reset_too() {
    let mut disk = disk(8);
    disk.add_advanced();
    let model = Model::new([disk]);
    let found = found(&model);
    assert_eq!(function(&found, at(0, 1, 0)).reset(), Reset::AdvancedFeatures);
    use_it(&model, at(0, 1, 0));
    assert_eq!(bring(&model, &found, at(0, 1, 0)).0, RestProgress::Done);
    assert_eq!(model.with(0, |disk| disk.resets), 1);
    is_as_found(&model, &found, at(0, 1, 0));
}

#[test]
fn a_bus_is_reset_with_all_that_is_behind_the_bridge() {
    let model = Model::new([
        Simulated::bridge(8),
        disk(8).behind(0),
        Simulated::bridge(0x10).behind(0),
        disk(0x18).behind(2),
        disk(0x10),
    ]);
    let found = found(&model);
    let bridge = at(0, 1, 0);
    assert_eq!(function(&found, at(1, 1, 0)).reset(), Reset::Bus(bridge));
    let rest = Rest::of(&found.functions, at(1, 1, 0), frequency());
    assert_eq!(rest.touches().collect::<Vec<_>>(), [at(1, 1, 0), at(1, 2, 0), at(2, 3, 0)]);
    use_it(&model, at(1, 1, 0));
    let (over, took) = bring(&model, &found, at(1, 1, 0));
    assert_eq!(over, RestProgress::Done);
    assert!(took >= 102_000, "2 ms in reset, 100 ms alone: {took}");
    let resets: Vec<u32> = (0..5).map(|n| model.with(n, |function| function.resets)).collect();
    assert_eq!(resets, [0, 1, 1, 1, 0]);
    // What is behind the bridge that was reset answers again, where it was.
    is_as_found(&model, &found, at(1, 1, 0));
    is_as_found(&model, &found, at(2, 3, 0));
    assert_eq!(Space::new(&model, bridge).half(0x3e) & 0x40, 0);
}

#[test]
fn without_a_reset_bus_master_is_off_and_that_is_all() {
    let model = Model::new([disk(8)]);
    let found = found(&model);
    assert_eq!(function(&found, at(0, 1, 0)).reset(), Reset::None);
    use_it(&model, at(0, 1, 0));
    assert_eq!(bring(&model, &found, at(0, 1, 0)).0, RestProgress::Done);
    assert_eq!(model.with(0, |disk| disk.resets), 0);
    is_as_found(&model, &found, at(0, 1, 0));
}

#[test]
fn what_misbehaves_is_not_at_rest_and_says_why_in_time() {
    let broken = |vices: Vices, has_reset: bool| {
        let model = Model::new([if has_reset {
            resettable(8)
        } else {
            let mut disk = disk(8);
            disk.add_express(0, false);
            disk
        }]);
        let found = found(&model);
        model.with(0, |disk| disk.vices = vices);
        use_it(&model, at(0, 1, 0));
        let (over, took) = bring(&model, &found, at(0, 1, 0));
        assert!(took <= 1_400_000, "{took}");
        match over {
            RestProgress::Failed(address, unrest) => {
                assert_eq!(address, at(0, 1, 0));
                Some(unrest)
            }
            _ => None,
        }
    };
    let none = Vices::default();
    assert_eq!(broken(Vices { is_gone: true, ..none }, true), Some(Unrest::Gone));
    assert_eq!(broken(Vices { never_returns: true, ..none }, true), Some(Unrest::NotReady));
    assert_eq!(broken(Vices { stays_master: true, ..none }, true), Some(Unrest::StaysMaster));
    assert_eq!(broken(Vices { stays_master: true, ..none }, false), Some(Unrest::StaysMaster));
    assert_eq!(broken(Vices { forgets: true, ..none }, true), Some(Unrest::NotRestored));
    // What is pending for ever is reset all the same; if it cannot be, it is not at rest.
    assert_eq!(broken(Vices { never_finishes: true, ..none }, true), None);
    assert_eq!(broken(Vices { never_finishes: true, ..none }, false), Some(Unrest::Pending));
}

#[test]
fn another_function_is_not_the_one_that_was() {
    let model = Model::new([resettable(8)]);
    let found = found(&model);
    model.with(0, |disk| disk.set(0, &[0x86, 0x80]));
    let failed = RestProgress::Failed(at(0, 1, 0), Unrest::Another);
    assert_eq!(bring(&model, &found, at(0, 1, 0)).0, failed);
    assert_eq!(bring(&model, &found, at(0, 9, 0)).0, RestProgress::Failed(at(0, 9, 0), Unrest::Unknown));
}

/// A card with eight virtual functions, each every second number from 80h on.
fn card() -> Simulated {
    let mut card = resettable(8);
    let at = card.add_extended(0x10, 0x40);
    card.set(at + 0x0e, &[8, 0]);
    card.set(at + 0x14, &[0x80, 0, 2, 0]);
    card.set(at + 0x1a, &[0xca, 0x10]);
    card.set(at + 0x1c, &[1]);
    card.allow(at + 0x08, &[0x19]);
    card.allow(at + 0x10, &[0xff, 0xff]);
    card.allow(at + 0x20, &[0xff]);
    card.add_bar(at + 0x24, 4, 0x4000);
    card
}

fn virtual_function(number: u8) -> Simulated {
    let mut function = Simulated::endpoint(number, 0xffff, 0xffff, NET);
    function.set(0x3d, &[0]);
    function.add_express(0, true);
    function
}

#[test]
fn virtual_functions_are_made_where_the_card_says_with_their_share_of_its_bars() {
    let model = Model::new([card(), virtual_function(0x88), virtual_function(0x8a)]);
    let hierarchy = found(&model);
    let physical = function(&hierarchy, at(0, 1, 0));
    let own = physical.capabilities.sriov.as_ref().unwrap();
    assert_eq!((own.total, own.device, own.bars[0].size), (8, 0x10ca, 0x4000));
    let make = |count| virtual_functions::make(&model, &hierarchy.functions, physical, count);
    assert_eq!((make(0), make(9)), (Err(VirtualError::TooMany(8)), Err(VirtualError::TooMany(8))));
    let addresses = make(2).unwrap();
    assert_eq!(addresses, [at(0, 17, 0), at(0, 17, 2)]);
    assert_eq!(Space::new(&model, physical.address).half(own.offset + 8) & 9, 9, "there, and answering");
    let made = virtual_functions::find(&model, &hierarchy.functions, physical, &addresses).unwrap();
    let place = own.bars[0].place.unwrap();
    assert_eq!(made[0].bars[0].place, Some(place));
    assert_eq!(made[1].bars[0].place.map(|place| place.bus), Some(place.bus + 0x4000));
    assert_eq!((made[1].vendor, made[1].device, made[1].physical), (0x1b36, 0x10ca, Some(at(0, 1, 0))));
    assert_eq!((made[0].group, made[1].group, made[0].reset()), (1, 2, Reset::Function));
    // It comes to rest by itself.
    let all = Hierarchy { functions: hierarchy.functions.iter().chain(&made).cloned().collect(), troubles: vec![] };
    Space::new(&model, made[0].address).set_half(4, 4);
    assert_eq!(bring(&model, &all, made[0].address).0, RestProgress::Done);
    assert_eq!((model.with(1, |function| function.resets), model.with(0, |card| card.resets)), (1, 0));
    assert_eq!(Space::new(&model, made[0].address).half(4), 0);
    // A reset of the card takes them away, and they are made again.
    assert_eq!(bring(&model, &all, physical.address).0, RestProgress::Done);
    assert_eq!(Space::new(&model, physical.address).half(own.offset + 8) & 9, 9);
    assert_eq!(Space::new(&model, physical.address).half(own.offset + 0x10), 2);
    virtual_functions::unmake(&model, physical);
    assert_eq!(Space::new(&model, physical.address).half(own.offset + 8) & 9, 0);
}

#[test]
fn virtual_functions_are_with_whatever_their_card_cannot_be_kept_apart_from() {
    for keeps in [true, false] {
        let port = Simulated::root_port(8, keeps);
        let mut card = card().behind(0);
        card.number = 0;
        let model = Model::new([port, card, virtual_function(0x80).behind(0), virtual_function(0x82).behind(0)]);
        let found = found(&model);
        let physical = function(&found, at(1, 0, 0));
        let addresses = virtual_functions::make(&model, &found.functions, physical, 2).unwrap();
        let made = virtual_functions::find(&model, &found.functions, physical, &addresses).unwrap();
        let groups = [made[0].group, made[1].group];
        let expected = if keeps { [2, 3] } else { [physical.group; 2] };
        assert_eq!(groups, expected, "the port keeps apart: {keeps}");
    }
}

/// A card with virtual functions, and beside it a function that is reset with the bus only.
fn card_beside_a_disk() -> Model {
    let mut card = card().behind(0);
    card.number = 0;
    card.set(0x0e, &[0x80]);
    card.add_access_control();
    let mut beside = disk(1).behind(0);
    beside.add_express(0, false);
    beside.add_access_control();
    let port = Simulated::root_port(8, true);
    Model::new([port, card, beside, virtual_function(0x80).behind(0), virtual_function(0x82).behind(0)])
}

/// What there is when `card` has made two virtual functions, and where these are.
fn found_with_virtual(model: &Model, card: PciAddress) -> (Hierarchy, Vec<PciAddress>) {
    let mut found = found(model);
    let physical = function(&found, card).clone();
    let addresses = virtual_functions::make(model, &found.functions, &physical, 2).unwrap();
    let made = virtual_functions::find(model, &found.functions, &physical, &addresses).unwrap();
    found.functions.extend(made);
    (found, addresses)
}

#[test]
fn a_bus_is_not_reset_under_somebody_who_has_a_virtual_function_there() {
    let model = card_beside_a_disk();
    let (card, disk) = (at(1, 0, 0), at(1, 0, 1));
    let (found, addresses) = found_with_virtual(&model, card);
    let mut owners: Owners<u8> = Owners::new();
    owners.claim(&found.functions, 1, "VM `one`", &[disk]).unwrap();
    owners.claim(&found.functions, 2, "VM `two`", &[addresses[1]]).unwrap();
    let rest = Rest::of(&found.functions, disk, frequency());
    assert_eq!(rest.method(), Reset::Bus(at(0, 1, 0)));
    assert_eq!(owners.only(disk, rest.touches()), Err((addresses[1], "VM `two`")));
    // Its own reset is its owner's to decide on, whoever has what it has made.
    let rest = Rest::of(&found.functions, card, frequency());
    assert_eq!((rest.method(), owners.only(card, rest.touches())), (Reset::Function, Ok(())));
}

#[test]
fn after_a_bus_reset_all_virtual_functions_are_made_again() {
    let model = card_beside_a_disk();
    let (card, disk) = (at(1, 0, 0), at(1, 0, 1));
    let (found, _) = found_with_virtual(&model, card);
    let physical = function(&found, card).clone();
    let (over, took) = bring(&model, &found, disk);
    assert_eq!((over, model.with(1, |card| card.resets)), (RestProgress::Done, 1));
    let own = physical.capabilities.sriov.as_ref().unwrap();
    let space = Space::new(&model, card);
    assert_eq!((space.half(own.offset + 8) & 9, space.half(own.offset + 0x10)), (9, 2));
    assert!(took >= AWAY + 100_000, "nobody looks at them for 100 ms: {took}");
}

/// The control word of the function's only resizable BAR says that it has 2 to the power of `code` MiB.
fn resizable(code: u8) -> (Simulated, u16) {
    let mut disk = Simulated::endpoint(8, 0x1002, 0x73bf, [3, 0, 0]);
    disk.add_express(0, true);
    disk.add_bar(0x10, 0xc, 1 << 20 << code);
    let at = disk.add_extended(0x15, 0x10);
    disk.set(at + 8, &[0x20, code]);
    disk.allow(at + 9, &[0x3f]);
    disk.resizable = Some((0x10, at + 8));
    (disk, at + 8)
}

#[test]
fn a_bar_is_as_large_after_a_reset_as_it_was_at_the_scan() {
    // After a reset it has 256 MiB; firmware has made less, or more, of it.
    for code in [0, 12] {
        let (disk, control) = resizable(8);
        let model = Model::new([disk, self::disk(0x10)]);
        let own = Space::new(&model, at(0, 1, 0));
        own.set_byte(control + 1, code);
        let found = found(&model);
        assert_eq!(function(&found, at(0, 1, 0)).bars[0].size, 1 << 20 << code);
        let (over, _) = bring(&model, &found, at(0, 1, 0));
        assert_eq!((over, own.byte(control + 1)), (RestProgress::Done, code));
        is_as_found(&model, &found, at(0, 1, 0));
    }
}

#[test]
fn a_bar_that_does_not_take_its_size_again_is_not_at_rest() {
    let (disk, control) = resizable(8);
    let model = Model::new([disk]);
    Space::new(&model, at(0, 1, 0)).set_byte(control + 1, 4);
    let found = found(&model);
    model.with(0, |disk| disk.allow(control + 1, &[0]));
    let failed = RestProgress::Failed(at(0, 1, 0), Unrest::NotRestored);
    assert_eq!(bring(&model, &found, at(0, 1, 0)).0, failed);
}

#[test]
fn sizes_of_bars_at_the_end_of_configuration_space_are_those_that_there_are() {
    let mut liar = disk(8);
    liar.add_express(0, false);
    liar.set(0x100, &[0x0b, 0]);
    liar.set(0x102, &(0xff0_u16 << 4 | 1).to_le_bytes());
    liar.set(0xff0, &[0x15, 0, 1, 0]);
    liar.set(0xff8, &[0xe0, 0]);
    let model = Model::new([liar]);
    let found = found(&model);
    assert_eq!(bring(&model, &found, at(0, 1, 0)).0, RestProgress::Done);
}

#[test]
fn virtual_functions_without_a_place_are_refused() {
    let make = |change: &dyn Fn(&mut Simulated)| {
        let mut card = card();
        change(&mut card);
        let model = Model::new([card, disk(0x10)]);
        let found = found(&model);
        virtual_functions::make(&model, &found.functions, function(&found, at(0, 1, 0)), 3)
    };
    assert!(make(&|_| ()).is_ok());
    // On another bus; on another function; all on one; on itself.
    for (first, stride) in [(0xf8_u8, 0x100_u16), (8, 1), (0x80, 0), (0, 8)] {
        let [low, high] = stride.to_le_bytes();
        assert_eq!(make(&|card| card.set(0x114, &[first, 0, low, high])), Err(VirtualError::NoPlace), "{first:#x}");
    }
    assert_eq!(make(&|card| card.allow(0x108, &[0])), Err(VirtualError::Refused));
    assert_eq!(make(&|card| card.set(0x10e, &[0])), Err(VirtualError::NoSriov));
    let vast = make(&|card| card.add_bar(0x124, 4, 1 << 40));
    assert_eq!(vast, Err(VirtualError::NoAddresses), "and the card itself goes on");
}

#[test]
fn at_the_end_of_everything_nobody_is_a_master_whoever_it_was() {
    let mut functions = vec![Simulated::root_port(0x08, true), disk(0).behind(0), disk(0xf8), disk(0x10)];
    functions[3].vices.is_gone = true;
    let model = Model::new(functions);
    let found = found(&model);
    let (behind, beside) = (at(1, 0, 0), at(0, 0x1f, 0));
    use_it(&model, behind);
    use_it(&model, beside);
    let other = Space::new(&model, at(0, 1, 0)).half(4);
    assert!(found.functions.len() == 3 && other & 4 != 0, "the bridge forwards");
    assert_eq!(switch_masters_off(&model, 0, 0), 2, "the bridge, and a function beside it");
    assert_eq!(switch_masters_off(&model, 0, 1), 1);
    for address in [behind, beside, at(0, 1, 0)] {
        let command = Space::new(&model, address).half(4);
        assert_eq!(command & 6, 2, "{address}: its registers answer still");
    }
    assert_eq!(switch_masters_off(&model, 0, 0) + switch_masters_off(&model, 0, 1), 0);
    assert_eq!(switch_masters_off(&model, 0, 7), 0, "nobody is there");
}

#[test]
fn what_somebody_else_has_reset_is_waited_for() {
    let model = Model::new([resettable(8)]);
    let found = found(&model);
    let express = function(&found, at(0, 1, 0)).capabilities.express.unwrap();
    Space::new(&model, at(0, 1, 0)).set_half(express.offset + 8, 0x8000);
    assert!(!Space::new(&model, at(0, 1, 0)).answers());
    let (over, took) = bring(&model, &found, at(0, 1, 0));
    assert_eq!((over, model.with(0, |disk| disk.resets)), (RestProgress::Done, 2));
    assert!((2 * AWAY..2 * AWAY + 10_000).contains(&took), "{took}");
    is_as_found(&model, &found, at(0, 1, 0));
}

/// Goes on until it may be left for the `nth` time, and leaves it. Says whether it came to that.
fn leave(model: &Model, found: &[Function], address: PciAddress, nth: usize) -> bool {
    let mut rest = Rest::of(found, address, frequency());
    let (mut times, mut held) = (0, 0);
    loop {
        if rest.may_be_left() {
            times += 1;
            held = 0;
            if times == nth {
                return true;
            }
        }
        match rest.advance(model, Ticks(model.now.get())) {
            RestProgress::Waiting(until) => {
                held += until.0 - model.now.get();
                assert!(rest.may_be_left() || held <= 300_000, "it holds whoever waits for {held}");
                model.now.set(until.0);
            }
            _ => return false,
        }
    }
}

#[test]
fn one_that_is_left_does_not_keep_anybody_and_the_next_ends_it() {
    let behind = || [Simulated::bridge(8), Simulated::bridge(0x10).behind(0), disk(8).behind(0)];
    for (functions, address) in [
        (vec![resettable(8)], at(0, 1, 0)),
        (vec![card(), virtual_function(0x88)], at(0, 1, 0)),
        (behind().into(), at(1, 1, 0)),
    ] {
        let mut nth = 1;
        loop {
            let model = Model::new(functions.clone());
            let mut found = found(&model);
            if let Some(physical) = found.functions.iter().find(|function| function.capabilities.sriov.is_some()) {
                let places = virtual_functions::make(&model, &found.functions, physical, 1).unwrap();
                let made = virtual_functions::find(&model, &found.functions, physical, &places).unwrap();
                found.functions.extend(made);
            }
            use_it(&model, address);
            if !leave(&model, &found.functions, address, nth) {
                break;
            }
            assert_eq!(bring(&model, &found, address).0, RestProgress::Done, "left for the {nth}th time");
            is_as_found(&model, &found, address);
            for made in found.functions.iter().filter(|function| function.physical.is_some()) {
                assert!(Space::new(&model, made.address).answers(), "left for the {nth}th time");
            }
            nth += 1;
        }
        assert!(nth > 20, "before its reset, and while it does not answer after it: {nth}");
    }
}

#[test]
fn what_does_not_keep_its_addresses_does_not_answer_at_them() {
    let mut two = resettable(8);
    two.add_bar(0x18, 0, 0x1000);
    let model = Model::new([two]);
    let found = found(&model);
    let address = at(0, 1, 0);
    use_it(&model, address);
    model.with(0, |disk| disk.writable[0x10..0x18].fill(0));
    assert_eq!(bring(&model, &found, address).0, RestProgress::Failed(address, Unrest::NotRestored));
    let space = Space::new(&model, address);
    assert_eq!(space.half(4) & 7, 0, "neither there nor elsewhere");
    let second = function(&found, address).bars[1].place.unwrap();
    assert_eq!(u64::from(space.word(0x18)), second.bus, "those behind the first that does not are set all the same");
    // As soon as it does it is at rest.
    model.with(0, |disk| disk.writable[0x10..0x18].copy_from_slice(&(!0x3fff_u64).to_le_bytes()));
    assert_eq!(bring(&model, &found, address).0, RestProgress::Done);
    is_as_found(&model, &found, address);
}

#[test]
fn where_others_would_be_reset_too_one_can_be_quiet_at_least() {
    let sends = |number| {
        let mut function = disk(number);
        let msi = function.add(5, 24);
        function.set(msi + 2, &[0x80]);
        function.allow(msi + 2, &[0x71]);
        (function.behind(0), msi)
    };
    let ((one, msi), (other, _)) = (sends(8), sends(0x10));
    let model = Model::new([Simulated::bridge(8), one, other]);
    let found = found(&model);
    let addresses = [at(1, 1, 0), at(1, 2, 0)];
    for address in addresses {
        use_it(&model, address);
        Space::new(&model, address).change(msi + 2, 0, 1);
    }
    quiet_only(&model, &found.functions, addresses[0]);
    let states = addresses.map(|address| {
        let space = Space::new(&model, address);
        (space.half(4) & 0x406, space.half(msi + 2) & 1)
    });
    assert_eq!(states, [(0x402, 0), (0x006, 1)], "the other one is somebody else's");
    assert_eq!((1..3).map(|n| model.with(n, |function| function.resets)).sum::<u32>(), 0);
    quiet_only(&model, &found.functions, at(0, 9, 0));
}
