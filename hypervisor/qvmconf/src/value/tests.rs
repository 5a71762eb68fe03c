use super::*;
use proptest::prelude::*;

fn message(shape: Shape, text: &str) -> String {
    read(shape, text).unwrap_err().message
}

#[test]
fn a_region_has_an_optional_start() {
    assert_eq!(read(Shape::Region, "128M"), Ok(Value::Region { start: None, length: 128 << 20 }));
    assert_eq!(read(Shape::Region, "0x80000000,1M"), Ok(Value::Region { start: Some(0x8000_0000), length: 1 << 20 }));
    assert_eq!(message(Shape::Region, "0x80000000,"), "the size is missing");
    assert_eq!(message(Shape::Region, "0x1,2,3"), "`2,3` is no size: `,` is not a digit");
    let error = read(Shape::Region, "0x80000000,12Q").unwrap_err();
    assert_eq!((error.part, error.message.as_str()), (11..14, "`12Q` is no size: `Q` is not a digit"));
}

#[test]
fn a_reserved_range_needs_its_length() {
    assert_eq!(read(Shape::Range, "mem:0x1000,4K"), Ok(Value::Region { start: Some(0x1000), length: 4096 }));
    assert_eq!(message(Shape::Range, "0x1000"), "`0x1000` has no length");
}

#[test]
fn a_file_has_an_optional_address() {
    let read_file = |text| read(Shape::File, text);
    assert_eq!(read_file("a,b"), Ok(Value::File { address: None, path: "a,b".into() }));
    assert_eq!(read_file("0x1000,a,b"), Ok(Value::File { address: Some(4096), path: "a,b".into() }));
    assert_eq!(read_file("./1,x"), Ok(Value::File { address: None, path: "./1,x".into() }));
    assert_eq!(message(Shape::File, "0x1000,"), "the file's path is missing");
    assert!(message(Shape::File, "80000000,x").contains("could be hexadecimal or decimal"));
}

#[test]
fn places_name_their_space() {
    assert_eq!(read(Shape::Place, "0x1c090000"), Ok(Value::Place(Place::Memory(0x1c09_0000))));
    assert_eq!(read(Shape::Place, "mem:0x10"), Ok(Value::Place(Place::Memory(16))));
    assert_eq!(read(Shape::Place, "io:0x3f8"), Ok(Value::Place(Place::Port(0x3f8))));
    assert_eq!(read(Shape::Place, "pci:"), Ok(Value::Place(Place::Pci(None))));
    let function = |device, function| Ok(Value::Place(Place::Pci(Some(PciFunction { device, function }))));
    assert_eq!(read(Shape::Place, "pci:3"), function(3, 0));
    assert_eq!(read(Shape::Place, "pci:0:0x1f.7"), function(31, 7));
    assert_eq!(message(Shape::Place, "pci:1:3"), "`1` is no PCI bus: there is bus 0 only");
    assert_eq!(message(Shape::Place, "pci:32"), "`32` is no PCI device: there are 0 to 31");
    assert_eq!(message(Shape::Place, "pci:3.8"), "`8` is no function: there are 0 to 7");
    assert_eq!(message(Shape::Place, "pci:3."), "the function is missing");
    assert_eq!(message(Shape::Place, "pci:0x1af4/0x1041"), "`0x1af4/0x1041` is not where on the PCI bus something is");
    assert_eq!(message(Shape::Place, "usb:1"), "`usb` is no address space");
    assert_eq!(read(Shape::Place, "1c090000").unwrap_err().hint.as_deref(), Some("write 0x1c090000"));
    assert!(message(Shape::Place, "$asinfo_start{x}").contains("not supported yet"));
}

#[test]
fn what_is_passed_has_a_region_a_length_and_letters() {
    let read_pass = |text| match read(Shape::PassedPlace, text) {
        Ok(Value::Passed(place)) => place,
        other => panic!("{text}: {other:?}"),
    };
    let letters = |text| match read_pass(text) {
        PassedPlace::Memory { attributes, .. } => {
            PassAttributes::LETTERS.iter().filter(|letter| attributes.contains(**letter)).collect::<String>()
        }
        PassedPlace::Pci { .. } => panic!("{text}"),
    };
    match read_pass("mem:0x9010000,4K,rwn=0x1c170000") {
        PassedPlace::Memory { start: 0x901_0000, length: 4096, host: 0x1c17_0000, .. } => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(read_pass("0x1000,4K,r"), PassedPlace::Memory { start: 0x1000, host: 0x1000, .. }), "identity");
    assert_eq!(letters("0x1000,4K,rwn"), "nrw");
    assert_eq!(letters("0x1000,4K,+rw-w+n"), "nr", "letters behind a minus are taken away");
    assert_eq!(letters("0x1000,4K,m"), "cmnrstwx", "`m` brings the others");
    assert_eq!(message(Shape::PassedPlace, "0x1000"), "`0x1000` has no length");
    assert_eq!(message(Shape::PassedPlace, "0x1000,4K"), "`0x1000,4K` has no attributes");
    assert_eq!(message(Shape::PassedPlace, "0x1000,4K=0x2000"), "`0x1000,4K` has no attributes");
    assert_eq!(message(Shape::PassedPlace, "0x1000,4K,rwdn"), "`rwdn`: `d` and `n` exclude one another");
    assert_eq!(message(Shape::PassedPlace, "0x1000,4K,md"), "`md`: `d` and `m` exclude one another");
    assert_eq!(message(Shape::PassedPlace, "io:0x3f8,8,rw"), "`io:` is for x86 machines");
    assert_eq!(message(Shape::PassedPlace, "usb:1"), "`usb` is no address space");
    assert_eq!(message(Shape::PassedPlace, "0x1000,4K,rw="), "the address is missing");
    assert!(message(Shape::PassedPlace, "$asinfo_start{x},$asinfo_length{x},rwcxm").contains("not supported yet"));
    let error = read(Shape::PassedPlace, "0x1000,4K,rq=0x2000").unwrap_err();
    assert_eq!((error.message.as_str(), error.part), ("`q` is no attribute", 11..12));
}

#[test]
fn passed_functions_are_named_by_place_or_by_kind() {
    let place = |bus, device, function| PciIdentity::Place { bus, device, function };
    let kind = PciIdentity::Kind { vendor: 0x8086, device: 0x10d3 };
    let read_pci = |text| read(Shape::PassedPlace, text);
    let pci = |guest, host| Ok(Value::Passed(PassedPlace::Pci { guest, host }));
    assert_eq!(read_pci("pci:0:3"), pci(place(0, 3, 0), None));
    assert_eq!(read_pci("pci:0x8086/0x10d3"), pci(kind, None));
    assert_eq!(read_pci("pci:0:4.1=pci:255:0x1f.7"), pci(place(0, 4, 1), Some(place(255, 31, 7))));
    assert_eq!(read_pci("pci:0:4=0x8086/0x10d3"), pci(place(0, 4, 0), Some(kind)));
    for wrong in ["pci:", "pci:3", "pci:256:0", "pci:0:32", "pci:0:1.8", "pci:0x10000/1", "pci:0:3="] {
        assert!(read_pci(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_passed_interrupt_has_a_number_on_both_sides() {
    let read_line = |text| read(Shape::PassedInterrupt, text);
    let passed = |line, unmasked, host| {
        let guest = Interrupt { controller: "gic".into(), line };
        Ok(Value::PassedInterrupt(PassedInterrupt { guest, unmasked, host }))
    };
    assert_eq!(read_line("gic:40"), passed(40, false, 40));
    assert_eq!(read_line("gic:40=34"), passed(40, false, 34));
    assert_eq!(read_line("gic:40,u=34"), passed(40, true, 34));
    assert!(message(Shape::PassedInterrupt, "gic:40,t=34").starts_with("`t`: not here"));
    for wrong in ["40", "gic:40,x", "gic:40=", "gic:40=gic:34", "gic:40=4294967296", "gic:"] {
        assert!(read_line(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_interrupt_names_controller_and_line() {
    assert_eq!(
        read(Shape::Interrupt, "gic:37"),
        Ok(Value::Interrupt(Interrupt { controller: "gic".into(), line: 37 }))
    );
    for wrong in ["37", ":37", "gic:", "gic:x", "gic:4294967296", "a:b:3"] {
        assert!(read(Shape::Interrupt, wrong).is_err(), "{wrong}");
    }
}

#[test]
fn scheduling_is_a_priority_and_a_letter() {
    let policy = |text| match read(Shape::Scheduling, text) {
        Ok(Value::Scheduling(Scheduling { priority, policy })) => (priority, policy),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(policy("10"), (10, SchedulingPolicy::RoundRobin));
    assert_eq!(policy("255r"), (255, SchedulingPolicy::RoundRobin));
    assert_eq!(policy("1f"), (1, SchedulingPolicy::Fifo));
    assert_eq!(policy("8o"), (8, SchedulingPolicy::Other));
    assert_eq!(message(Shape::Scheduling, "0"), "priority 0 is not within 1 to 255");
    assert_eq!(message(Shape::Scheduling, "256f"), "priority 256 is not within 1 to 255");
    assert!(read(Shape::Scheduling, "r").is_err());
}

#[test]
fn cpu_lists_are_bounded() {
    assert_eq!(read(Shape::Cpus, "0,3,1"), Ok(Value::Cpus([0, 3, 1].into())));
    assert!(read(Shape::Cpus, "0,,1").is_err());
    assert!(read(Shape::Cpus, "65536").is_err());
    assert!(read(Shape::Cpus, "0,".repeat(64).trim_end_matches(',')).is_ok());
    assert!(read(Shape::Cpus, "0,".repeat(65).trim_end_matches(',')).is_err());
}

#[test]
fn log_filters_are_a_set() {
    let Ok(Value::Filters(set)) = read(Shape::Filters, "debug,error,debug") else { panic!() };
    assert!(set.contains("debug") && set.contains("error") && !set.contains("info"));
    assert!(LogFilters::DEFAULT.contains("info") && !LogFilters::DEFAULT.contains("debug"));
    assert_eq!(read(Shape::Filters, "eror").unwrap_err().hint.unwrap().split('?').next(), Some("did you mean `error`"));
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn no_text_panics_in_any_shape(text in "[0-9a-fxdKMG:,=@$ä-]{0,24}") {
        for shape in [
            Shape::Region, Shape::File, Shape::Address, Shape::Size, Shape::Number, Shape::Boolean, Shape::Place, Shape::PassedPlace, Shape::PassedInterrupt, Shape::Range,
            Shape::Interrupt, Shape::Scheduling, Shape::Cpus, Shape::Filters, Shape::Choice(&["abort", "fail"]),
        ] {
            if let Err(error) = read(shape, &text) {
                prop_assert!(error.part.end <= text.len());
            }
        }
    }
}

#[test]
fn a_sporadic_server_is_five_numbers_that_fit() {
    let server = |text| match read(Shape::Scheduling, text) {
        Ok(Value::Scheduling(Scheduling { priority, policy: SchedulingPolicy::Sporadic(server) })) => {
            (priority, server)
        }
        other => panic!("{text}: {other:?}"),
    };
    let expected = SporadicServer { low: 5, max_replenishments: 16, period: 100_000, budget: 100_000 };
    assert_eq!(server("20,5,16,100000,100000"), (20, expected));
    assert_eq!(server("20,5,16,100000,0x186a0s"), (20, expected));
    for (text, said) in [
        ("20,5,4,100000", "a sporadic server has five numbers"),
        ("20,5,4,100000,50000,1s", "a sporadic server has five numbers"),
        ("20,5,4,100000,s", "a sporadic server has five numbers"),
        ("20,20,4,100000,50000", "the low priority 20 is not below 20"),
        ("20,0,4,100000,50000", "priority 0 is not within 1 to 255"),
        ("256,5,4,100000,50000", "priority 256 is not within 1 to 255"),
        ("20,5,0,100000,50000", "0 replenishments are not 1 to 16"),
        ("20,5,17,100000,50000", "17 replenishments are not 1 to 16"),
        ("20,5,4,100000,100001", "a budget of 100001 ns is not within 10000 ns and the period"),
        ("20,5,4,100000,9999", "a budget of 9999 ns is not within 10000 ns and the period"),
        ("20,5,4,x,50000", "`x` is no time"),
    ] {
        assert!(message(Shape::Scheduling, text).contains(said), "{text}: {}", message(Shape::Scheduling, text));
    }
}
