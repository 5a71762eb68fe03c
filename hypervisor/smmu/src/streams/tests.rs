use super::*;
use crate::Layout;
use crate::features::testing::FEATURES;
use alloc::string::ToString;
use types::Ticks;

fn smmu() -> Smmu {
    let geometry = Geometry::with_bits(8, &FEATURES);
    let (table, command_queue, event_queue) = (Pa(0x1000), Pa(0x2000), Pa(0x3000));
    let layout =
        Layout { geometry, table, command_queue, command_bits: 4, event_queue, event_bits: 4, patience: Ticks(1) };
    Smmu::new(FEATURES, layout)
}

fn owner(vmid: u16) -> Owner {
    Owner { name: alloc::format!("vm{vmid}"), vmid }
}

/// A disk and a network card that cannot be told apart, and a device of its own.
fn streams(smmu: &mut Smmu) -> Streams {
    let mut streams = Streams::new();
    let geometry = smmu.layout.geometry;
    streams.declare("disk", 0x11, 1, false, geometry).unwrap();
    streams.declare("card", 0x10, 1, false, geometry).unwrap();
    streams.declare("other", 0x50, 2, true, geometry).unwrap();
    smmu.give_leaf(0x10, Pa(0x4000));
    smmu.give_leaf(0x50, Pa(0x5000));
    streams
}

const TABLES: Stage2 = Stage2 { vtcr: 0x8002_3558, root: Pa(0x8000) };

fn told<T: fmt::Debug>(refused: Result<T, Refusal>) -> alloc::string::String {
    refused.unwrap_err().to_string()
}

#[test]
fn a_stream_has_one_owner_and_so_has_a_group() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    assert!(streams.attach(0x10, &owner(1), &TABLES, None, &smmu).is_ok());
    assert_eq!(
        told(streams.attach(0x10, &owner(2), &TABLES, None, &smmu)),
        "`card` (stream 0x10) belongs to `vm1`: `vm2` cannot have it, too"
    );
    assert_eq!(
        told(streams.attach(0x11, &owner(2), &TABLES, None, &smmu)),
        "`disk` (stream 0x11) cannot be told from `card`, which belongs to `vm1`: `vm2` cannot have it"
    );
    assert!(streams.attach(0x11, &owner(1), &TABLES, None, &smmu).is_ok());
    assert!(streams.attach(0x50, &owner(2), &TABLES, None, &smmu).is_ok());
    assert!(streams.of(&owner(1)).eq([0x10, 0x11]));
    assert_eq!(streams.who(0x50), Some(("other", Some(&owner(2)))));
    assert_eq!(streams.who(0x51), None);
}

#[test]
fn streams_that_nobody_has_are_refused() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    let geometry = smmu.layout.geometry;
    assert_eq!(told(streams.declare("far", 0x100, 3, false, geometry)), "there is no stream 0x100 for `far`");
    assert_eq!(told(streams.attach(0x12, &owner(1), &TABLES, None, &smmu)), "there is no stream 0x12 for `vm1`");
    streams.declare("leafless", 0x80, 3, false, geometry).unwrap();
    assert!(smmu.lacks_leaf(0x80) && !smmu.lacks_leaf(0x50));
    assert_eq!(told(streams.attach(0x80, &owner(1), &TABLES, None, &smmu)), "no memory for the entry of stream 0x80");
    assert_eq!(streams.who(0x80), Some(("leafless", None)), "a refusal changes nothing");
    smmu.give_leaf(0x80, Pa(0x6000));
    assert!(streams.attach(0x80, &owner(1), &TABLES, None, &smmu).is_ok());
}

#[test]
fn only_the_owner_gives_back_and_only_what_is_done_is_free() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    assert!(streams.attach(0x10, &owner(1), &TABLES, None, &smmu).is_ok());
    assert_eq!(told(streams.detach(0x10, &owner(2), false, &smmu)), "stream 0x10 does not belong to `vm2`");
    assert_eq!(told(streams.detach(0x11, &owner(1), false, &smmu)), "stream 0x11 does not belong to `vm1`");
    let mut procedure = streams.detach(0x10, &owner(1), false, &smmu).unwrap();
    assert!(!streams.released(0x10, &procedure), "not begun");
    procedure.trouble = Some(crate::Trouble::Nonsense);
    procedure.next = procedure.steps.len();
    assert!(!streams.released(0x10, &procedure), "failed");
    assert!(streams.attach(0x10, &owner(2), &TABLES, None, &smmu).is_err());
    procedure.trouble = None;
    assert!(streams.released(0x10, &procedure));
    assert!(streams.attach(0x10, &owner(2), &TABLES, None, &smmu).is_ok());
}

#[test]
fn a_stream_of_two_devices_is_let_through_if_both_may() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    assert!(streams.bypass(0x50, &owner(1), &smmu).is_ok());
    assert_eq!(
        told(streams.bypass(0x10, &owner(1), &smmu)),
        "`card` (stream 0x10) is not let through: its configuration does not say so by name"
    );
    let mut streams = self::streams(&mut smmu);
    streams.declare("second", 0x50, 2, false, smmu.layout.geometry).unwrap();
    assert_eq!(streams.who(0x50), Some(("other, second", None)));
    assert!(streams.bypass(0x50, &owner(1), &smmu).is_err());
}

#[test]
fn a_stream_is_in_one_group() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    assert_eq!(
        told(streams.declare("second", 0x50, 3, true, smmu.layout.geometry)),
        "`second` and `other` are both stream 0x50, and not in one group"
    );
}

#[test]
fn tables_that_the_smmu_cannot_walk_are_not_given_to_it() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    let far = Stage2 { root: Pa(1 << 44), ..TABLES };
    assert_eq!(
        told(streams.attach(0x10, &owner(1), &far, None, &smmu)),
        "`vm1`: the SMMU does not reach this VM's translation tables at 0x100000000000"
    );
    assert_eq!(streams.who(0x10), Some(("card", None)));
}

#[test]
fn an_attachment_follows_the_specifications_procedure() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    let procedure = streams.attach(0x11, &owner(1), &TABLES, None, &smmu).unwrap();
    let StreamTableEntry([word0, word1, word2, word3, ..]) =
        StreamTableEntry::stage2(1, &TABLES, smmu.features()).unwrap();
    // The entry is the 18th of its leaf.
    let store = |place: u64, word| Step::Store { at: Pa(0x4000 + 0x11 * 64 + place), word };
    let disable = [
        store(0, 0),
        Step::Issue(Command::CfgiSte { stream: 0x11, leaf: true }),
        Step::Synchronize,
        Step::Issue(Command::TlbiS12Vmall { vmid: 1 }),
    ];
    let enable = [
        store(8, word1),
        store(16, word2),
        store(24, word3),
        Step::Store { at: Pa(0x1000), word: 0x4007 },
        Step::Issue(Command::CfgiSte { stream: 0x11, leaf: false }),
        Step::Synchronize,
        store(0, word0),
        Step::Issue(Command::CfgiSte { stream: 0x11, leaf: true }),
        Step::Synchronize,
    ];
    assert_eq!(procedure.steps(), [&disable[..], &enable[..]].concat());
    let procedure = streams.detach(0x11, &owner(1), false, &smmu).unwrap();
    assert_eq!(procedure.steps(), [&disable[..], &[Step::Synchronize]].concat());
}

#[test]
fn a_passed_stream_has_its_owners_name_for_it_until_it_is_released() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    let geometry = smmu.layout.geometry;
    assert_eq!(streams.pass("/disk@1", 0x10, 7, &owner(1), geometry), Ok(()));
    assert!(!streams.is_passed(0x10), "not yet");
    assert!(streams.attach(0x10, &owner(1), &TABLES, None, &smmu).is_ok());
    assert_eq!((streams.who(0x10), streams.is_passed(0x10)), (Some(("/disk@1", Some(&owner(1)))), true));
    // Another device of the VM's behind the same stream.
    assert_eq!(streams.pass("/disk@2", 0x10, 7, &owner(1), geometry), Ok(()));
    assert_eq!(streams.who(0x10), Some(("/disk@1, /disk@2", Some(&owner(1)))));
    let mut procedure = streams.detach(0x10, &owner(1), false, &smmu).unwrap();
    procedure.next = procedure.steps.len();
    assert!(streams.released(0x10, &procedure));
    assert_eq!((streams.who(0x10), streams.is_passed(0x10)), (Some(("card", None)), false));
    // One that nobody has named is forgotten, as often as it comes and goes.
    for _ in 0..3 {
        assert_eq!(streams.pass("/new", 0x12, 8, &owner(2), geometry), Ok(()));
        assert!(streams.attach(0x12, &owner(2), &TABLES, None, &smmu).is_ok());
        let mut procedure = streams.detach(0x12, &owner(2), false, &smmu).unwrap();
        procedure.next = procedure.steps.len();
        assert!(streams.released(0x12, &procedure));
        assert_eq!(streams.who(0x12), None);
    }
}

#[test]
fn a_passed_stream_and_its_isolation_group_have_one_owner() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    let geometry = smmu.layout.geometry;
    assert_eq!(streams.pass("/disk@1", 0x20, 1, &owner(1), geometry), Ok(()), "no device of the configuration's group");
    smmu.give_leaf(0x20, Pa(0x4000));
    assert!(streams.attach(0x20, &owner(1), &TABLES, None, &smmu).is_ok());
    assert_eq!(
        told(streams.pass("/disk@1", 0x20, 1, &owner(2), geometry)),
        "`/disk@1` (stream 0x20) belongs to `vm1`: `vm2` cannot have it, too"
    );
    assert_eq!(
        told(streams.pass("/disk@2", 0x21, 1, &owner(2), geometry)),
        "`/disk@2` (stream 0x21) cannot be told from `/disk@1`, which belongs to `vm1`: `vm2` cannot have it"
    );
    assert_eq!(streams.who(0x21), None, "a refusal changes nothing");
    assert_eq!(told(streams.pass("far", 0x100, 2, &owner(2), geometry)), "there is no stream 0x100 for `far`");
    assert_eq!(streams.pass("/disk@2", 0x21, 2, &owner(2), geometry), Ok(()));
    assert_eq!(streams.pass("/disk@3", 0x22, 1, &owner(1), geometry), Ok(()), "its own group");
}

#[test]
fn what_the_configuration_gives_away_is_not_passed_and_what_it_only_names_is() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    let geometry = smmu.layout.geometry;
    let host = Owner { name: "smmuman".into(), vmid: 9 };
    assert!(streams.attach(0x10, &host, &TABLES, None, &smmu).is_ok());
    assert!(streams.bypass(0x50, &host, &smmu).is_ok());
    for stream in [0x10, 0x50] {
        let said = told(streams.pass("/x", stream, 3, &owner(1), geometry));
        assert!(said.ends_with("belongs to `smmuman`: `vm1` cannot have it, too"), "{said}");
    }
    let said = told(streams.pass("/x", 0x11, 3, &owner(1), geometry));
    assert!(said.contains("cannot be told from `card`, which belongs to `smmuman`"), "{said}");
    let mut streams = self::streams(&mut smmu);
    assert_eq!(streams.pass("/x", 0x10, 3, &owner(1), geometry), Ok(()));
}

#[test]
fn what_is_being_taken_away_is_not_given_back_by_a_wish_of_its_owners() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    assert!(streams.attach(0x10, &owner(1), &TABLES, None, &smmu).is_ok());
    assert!(streams.hold(0x10, &owner(1), false, &smmu).is_ok());
    assert!(!streams.is_closing(0x10), "it is the owner's own wish");
    assert!(streams.attach(0x10, &owner(1), &TABLES, None, &smmu).is_ok());
    assert_eq!(told(streams.hold(0x10, &owner(2), false, &smmu)), "stream 0x10 does not belong to `vm2`");
    let mut procedure = streams.detach(0x10, &owner(1), true, &smmu).unwrap();
    assert!(streams.is_closing(0x10));
    let closing = "stream 0x10 is being taken from its owner";
    assert_eq!(told(streams.attach(0x10, &owner(1), &TABLES, None, &smmu)), closing);
    assert_eq!(told(streams.hold(0x10, &owner(1), true, &smmu)), closing);
    procedure.next = procedure.steps.len();
    assert!(streams.released(0x10, &procedure) && !streams.is_closing(0x10));
    assert!(streams.attach(0x10, &owner(2), &TABLES, None, &smmu).is_ok());
}

#[test]
fn the_last_change_of_a_stream_counts_also_when_it_has_had_another_owner_since() {
    let mut smmu = smmu();
    let mut streams = streams(&mut smmu);
    let geometry = smmu.layout.geometry;
    assert_eq!(streams.pass("/disk", 0x21, 1, &owner(1), geometry), Ok(()));
    let first = streams.attach(0x21, &owner(1), &TABLES, None, &smmu).unwrap();
    assert!(streams.is_current(&first));
    let other = streams.attach(0x10, &owner(1), &TABLES, None, &smmu).unwrap();
    assert!(streams.is_current(&first), "another stream's is none of this one's");
    let held = streams.hold(0x21, &owner(1), false, &smmu).unwrap();
    assert!(!streams.is_current(&first) && streams.is_current(&held));
    let mut detached = streams.detach(0x21, &owner(1), false, &smmu).unwrap();
    assert!(!streams.is_current(&held) && streams.is_current(&detached) && streams.is_current(&other));
    detached.next = detached.steps.len();
    assert!(streams.released(0x21, &detached));
    assert!(!streams.is_current(&detached), "nobody has it");
    assert_eq!(streams.pass("/disk", 0x21, 1, &owner(1), geometry), Ok(()));
    let next = streams.attach(0x21, &owner(1), &TABLES, None, &smmu).unwrap();
    assert!(streams.is_current(&next));
    for old in [&first, &held, &detached] {
        assert!(!streams.is_current(old));
    }
    assert!(!streams.released(0x21, &detached), "it is the next one's");
}
