use super::*;
use types::Pa;
use vdev::{Place, WantedFunction};
use vgic::Version;

#[test]
fn a_function_is_the_vms_if_it_asks_an_smmu_or_nobody_minds() {
    use Reach::{Everything, Own};
    assert_eq!(function_flaw(Own, true, true), None);
    assert_eq!(function_flaw(Everything, false, true), None);
    assert_eq!(function_flaw(Everything, false, false), None);
    for asks_smmu in [true, false] {
        let why = function_flaw(Own, false, asks_smmu).unwrap();
        assert!(why.contains("no SMMU confines it") && why.contains("`uncontained` passes it"), "{why}");
    }
    assert!(function_flaw(Everything, true, true).unwrap().contains("leave `uncontained` out"));
}

/// Its stream may be the VM's, or refused: it goes past it.
#[test]
fn a_function_that_does_not_ask_an_smmu_is_nobodys_behind_one() {
    for reach in [Reach::Own, Reach::Everything] {
        let why = function_flaw(reach, true, false).unwrap();
        assert!(why.starts_with("is a virtio device") && !why.contains("uncontained"), "{why}");
    }
}

fn with(reach: Reach) -> Description {
    let place = |start| Some(Place { source: 0, start, end: start + 1 });
    let region = PassedRegion {
        guest: Range::new(Ipa(0x1000_0000), 4096).unwrap(),
        host: Range::new(Pa(0x901_0000), 4096).unwrap(),
        writable: true,
        place: place(7),
    };
    let wanted = WantedFunction::Place { bus: 1, device: 0, function: 0 };
    Description {
        passed: vec![PassedDevice { place: place(5), reach, regions: vec![region], interrupts: vec![] }],
        functions: vec![PassedFunction { vdev: 0, wanted, without_reset: false, reach, place: place(9) }],
        ..description()
    }
}

#[test]
fn what_devices_that_reach_memory_do_not_go_with_is_named_with_them() {
    let balloon = |lends| Some(Balloon { device: DeviceId(1), lends });
    for (reach, gic, balloon, why, other) in [
        (Reach::Own, Version::V2, None, "would reach the interrupt controller (GICv2), too", None),
        (Reach::Own, Version::V3, balloon(true), "a balloon that lends", Some(Subject::Vdev(1))),
        (Reach::Everything, Version::V3, balloon(false), "would not come back", Some(Subject::Vdev(1))),
        (Reach::Everything, Version::V2, balloon(true), "would not come back", Some(Subject::Vdev(1))),
    ] {
        let errors = check_reach(&with(reach), gic, balloon);
        let [device, function] = &errors[..] else { panic!("{errors:?}") };
        assert!(device.message.starts_with("`pass`: the device at 0x9010000 "), "{device}");
        assert!(function.message.starts_with("`pass`: pci:1:0.0 "), "{function}");
        assert!(errors.iter().all(|error| error.to_string().contains(why) && error.other == other), "{errors:?}");
        let places: Vec<_> = errors.iter().map(|error| error.place.map(|place| place.start)).collect();
        assert_eq!(places, [Some(7), Some(9)]);
    }
}

#[test]
fn all_else_goes_together() {
    let balloon = |lends| Some(Balloon { device: DeviceId(1), lends });
    for (reach, gic, balloon) in [
        (Reach::Nothing, Version::V2, balloon(true)),
        (Reach::Own, Version::V3, balloon(false)),
        (Reach::Everything, Version::V2, None),
    ] {
        assert_eq!(check_reach(&with(reach), gic, balloon), []);
    }
}
