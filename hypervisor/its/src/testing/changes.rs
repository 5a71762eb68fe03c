//! Devices that come and go, and what becomes of their messages meanwhile.

use super::start::{run, started};
use super::{CONFIGURATION, Model};
use crate::{Command, Event, Its, Procedure, Progress, Step, Trouble};
use std::vec::Vec;
use types::{IntId, Pa, Ticks};

const DEVICE: u32 = 0x1234;
const EVENTS: u32 = 5;
const FIRST: IntId = IntId(8200);
const EVENT_TABLE: Pa = Pa(0x10_0000);

/// Whether something is left out: the number of a step.
type LeftOut = Option<usize>;

fn without(mut procedure: Procedure, left_out: LeftOut) -> Procedure {
    if let Some(step) = left_out {
        procedure.steps.remove(step);
    }
    procedure
}

/// The device has its events, and sends.
fn map(its: &mut Its, model: &mut Model, device: u32, table: Pa, left_out: LeftOut) {
    if its.lacks_leaf(device).is_some() {
        assert!(its.give_leaf(device, Pa(0x20_0000 + (u64::from(device) >> 9 << 12)), model));
    }
    model.freed.remove(&table.0);
    (FIRST.0..FIRST.0 + EVENTS).for_each(|lpi| _ = model.closed.remove(&lpi));
    let procedure = without(its.map(device, table, EVENTS, FIRST, 0), left_out);
    run(its, procedure, model);
}

/// The device has none any more, and sends nevertheless. What it had is somebody else's.
fn unmap(its: &mut Its, model: &mut Model, device: u32, table: Pa, left_out: LeftOut) {
    let procedure = without(its.unmap(device, EVENTS), left_out);
    run(its, procedure, model);
    model.closed.extend(FIRST.0..FIRST.0 + EVENTS);
    model.freed.insert(table.0);
}

fn ticks(model: &mut Model, count: usize) {
    (0..count).for_each(|_| model.tick());
}

/// Every event comes, to the right redistributor. If not, that is a violation.
fn all_come(its: &mut Its, model: &mut Model, device: u32, target: u64) {
    model.senders.clear();
    ticks(model, 200);
    model.arrived.clear();
    for number in 0..EVENTS {
        let event = Event { device, event: number };
        if its.raise(event, model) != Ok(true) {
            model.complain("no room".into());
        }
    }
    ticks(model, 600);
    let mut arrived = model.arrived.clone();
    arrived.sort_unstable();
    let expected: Vec<_> = (FIRST.0..FIRST.0 + EVENTS).map(|lpi| (lpi, target)).collect();
    if arrived != expected {
        model.complain(std::format!("{arrived:?} have come"));
    }
}

/// One device after the other has the same LPIs and the same memory.
fn scene(seed: u64, in_map: LeftOut, in_unmap: LeftOut) -> Model {
    let mut model = Model::new(seed);
    let mut its = started(&mut model);
    let second = DEVICE + 0x4000;
    for (device, table) in [(DEVICE, EVENT_TABLE), (second, EVENT_TABLE), (DEVICE, Pa(0x11_0000))] {
        map(&mut its, &mut model, device, table, in_map);
        model.senders.push((device, EVENTS));
        ticks(&mut model, 100);
        all_come(&mut its, &mut model, device, 0);
        model.senders.push((device, EVENTS));
        ticks(&mut model, 20);
        unmap(&mut its, &mut model, device, table, in_unmap);
        ticks(&mut model, 100);
        model.senders.clear();
    }
    model
}

#[test]
fn nothing_comes_to_the_wrong_one_and_nothing_is_lost() {
    for seed in 0..300 {
        assert_eq!(scene(seed, None, None).violation, None, "seed {seed}");
    }
}

#[test]
fn no_step_of_taking_events_away_is_for_nothing() {
    let its = started(&mut Model::new(1));
    let steps = its.unmap(DEVICE, EVENTS).steps;
    let mut needless = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        if (0..100).all(|seed| scene(seed, None, Some(number)).violation.is_none()) {
            needless.push(*step);
        }
    }
    needless.retain(|step| !is_sync(step));
    assert_eq!(needless, []);
}

/// To the model one redistributor's is as good as all. What was not waited for is soon, unless it is seen by somebody else first.
fn is_sync(step: &Step) -> bool {
    matches!(step, Step::Issue(Command::Synchronize { .. }))
}

#[test]
fn what_is_not_synchronised_comes_to_somebody_else() {
    let is_seen = |seed| {
        let mut model = Model::new(seed);
        let mut its = started(&mut model);
        map(&mut its, &mut model, DEVICE, EVENT_TABLE, None);
        model.senders.push((DEVICE, EVENTS));
        ticks(&mut model, 30);
        let mut procedure = its.unmap(DEVICE, EVENTS);
        procedure.steps.retain(|step| !is_sync(step));
        run(&mut its, procedure, &mut model);
        model.closed.extend(FIRST.0..FIRST.0 + EVENTS);
        ticks(&mut model, 100);
        model.violation.is_some()
    };
    assert!((0..300).any(is_seen));
}

#[test]
fn no_step_of_giving_events_is_for_nothing() {
    let its = started(&mut Model::new(1));
    let steps = its.map(DEVICE, EVENT_TABLE, EVENTS, FIRST, 0).steps;
    let mut needless = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        if (0..100).all(|seed| scene(seed, Some(number), None).violation.is_none()) {
            needless.push(*step);
        }
    }
    // What is not waited for happens soon enough for the model.
    needless.retain(|step| !is_sync(step) && *step != Step::Await);
    assert_eq!(needless, []);
}

#[test]
fn of_two_that_find_a_page_lacking_one_gives_it_and_both_can_go_on_at_once() {
    for seed in 0..100 {
        let mut model = Model::new(seed);
        let mut its = started(&mut model);
        let neighbour = DEVICE + 1;
        assert!(its.lacks_leaf(DEVICE).is_some() && its.lacks_leaf(neighbour).is_some());
        assert!(its.give_leaf(DEVICE, Pa(0x20_0000), &mut model));
        assert!(!its.give_leaf(neighbour, Pa(0x21_0000), &mut model), "it is still the caller's");
        assert_eq!((its.lacks_leaf(DEVICE), its.lacks_leaf(neighbour)), (None, None));
        // Whoever has given it does nothing more for now, and the other one maps.
        let map = its.map(neighbour, EVENT_TABLE, EVENTS, FIRST, 0);
        run(&mut its, map, &mut model);
        assert_eq!(model.violation, None, "seed {seed}");
        let level1 = (model.register(0x100) & 0x0000_ffff_ffff_f000) + u64::from(DEVICE >> 9) * 8;
        assert_eq!(model.word(level1), 1 << 63 | 0x20_0000, "seed {seed}");
    }
}

#[test]
fn an_lpi_follows_its_event_to_another_redistributor() {
    for seed in 0..100 {
        let mut model = Model::new(seed);
        let mut its = started(&mut model);
        map(&mut its, &mut model, DEVICE, EVENT_TABLE, None);
        for number in 0..EVENTS {
            assert_eq!(its.send_to(Event { device: DEVICE, event: number }, 1, &mut model), Ok(true));
        }
        all_come(&mut its, &mut model, DEVICE, 1 << 16);
        assert_eq!(model.violation, None, "seed {seed}");
    }
}

#[test]
fn an_lpi_that_is_held_comes_when_it_is_let() {
    for seed in 0..100 {
        let mut model = Model::new(seed);
        let mut its = started(&mut model);
        map(&mut its, &mut model, DEVICE, EVENT_TABLE, None);
        let event = Event { device: DEVICE, event: 3 };
        let lpi = IntId(FIRST.0 + 3);
        assert_eq!(its.enable((event, lpi), false, &mut model), Ok(true));
        ticks(&mut model, 300);
        assert_eq!(its.raise(event, &mut model), Ok(true));
        ticks(&mut model, 300);
        assert_eq!(model.arrived, [], "seed {seed}");
        assert_eq!(its.enable((event, lpi), true, &mut model), Ok(true));
        ticks(&mut model, 300);
        assert_eq!(model.arrived, [(lpi.0, 0)], "seed {seed}");
    }
}

#[test]
fn a_full_queue_is_told_and_not_overrun() {
    let mut model = Model::new(1);
    let mut its = started(&mut model);
    map(&mut its, &mut model, DEVICE, EVENT_TABLE, None);
    model.is_stuck = true;
    let event = Event { device: DEVICE, event: 0 };
    let posted = (0..200).filter(|_| its.raise(event, &mut model) == Ok(true)).count();
    assert_eq!(posted, 127, "one place of 128 stays empty");
    assert_eq!(its.enable((event, FIRST), false, &mut model), Ok(false));
    crate::Memory::publish(&mut model);
    assert_eq!(model.seen.get(&(CONFIGURATION + 8)), Some(&0xa3), "what cannot be told is not written");
    model.is_stuck = false;
    ticks(&mut model, 2000);
    assert_eq!(its.raise(event, &mut model), Ok(true));
}

#[test]
fn an_its_that_does_nothing_is_given_up_in_time() {
    let mut model = Model::new(1);
    let mut its = started(&mut model);
    model.is_stuck = true;
    let mut procedure = its.unmap(DEVICE, EVENTS);
    assert_eq!(its.advance(&mut procedure, Ticks(5), &mut model), Progress::Waiting);
    assert_eq!(its.advance(&mut procedure, Ticks(100_005), &mut model), Progress::Waiting);
    assert_eq!(its.advance(&mut procedure, Ticks(100_006), &mut model), Progress::Failed(Trouble::Late));
    assert_eq!(its.advance(&mut procedure, Ticks(5), &mut model), Progress::Failed(Trouble::Late), "for good");
}

#[test]
fn an_its_that_goes_on_is_waited_for() {
    let mut model = Model::new(1);
    let mut its = started(&mut model);
    assert!(its.give_leaf(DEVICE, Pa(0x20_0000), &mut model));
    let mut procedure = its.map(DEVICE, EVENT_TABLE, 256, FIRST, 0);
    // The hypervisor itself may be late, between any two looks.
    for look in 0..1000 {
        match its.advance(&mut procedure, Ticks(200_000 * look), &mut model) {
            Progress::Waiting => ticks(&mut model, 100),
            progress => {
                assert_eq!((progress, look > 4), (Progress::Done, true));
                return;
            }
        }
    }
    panic!("it does not end");
}

#[test]
fn an_its_that_stalls_or_lies_is_not_used() {
    let mut model = Model::new(1);
    let mut its = started(&mut model);
    model.stalls_at = Some(0x08);
    let mut procedure = its.map(DEVICE, EVENT_TABLE, EVENTS, FIRST, 0);
    let progress = (0..1000).find_map(|now| match its.advance(&mut procedure, Ticks(now), &mut model) {
        Progress::Waiting => None,
        other => Some(other),
    });
    assert_eq!(progress, Some(Progress::Failed(Trouble::Stalled)));
    let mut model = Model::new(1);
    let mut its = started(&mut model);
    for nonsense in [0x800, 0x1000, 0xf_ffe0] {
        model.registers.insert(0x90, nonsense);
        let mut procedure = its.unmap(DEVICE, 1);
        model.is_stuck = true;
        assert_eq!(its.advance(&mut procedure, Ticks(0), &mut model), Progress::Failed(Trouble::Nonsense));
    }
}

#[test]
fn more_events_than_the_queue_has_places() {
    for seed in 0..20 {
        let mut model = Model::new(seed);
        let mut its = started(&mut model);
        assert!(its.give_leaf(DEVICE, Pa(0x20_0000), &mut model));
        let map = its.map(DEVICE, EVENT_TABLE, 256, FIRST, 1);
        run(&mut its, map, &mut model);
        assert_eq!(model.events.len(), 256);
        let unmap = its.unmap(DEVICE, 256);
        run(&mut its, unmap, &mut model);
        assert_eq!((model.events.len(), model.devices.len(), &model.violation), (0, 0, &None));
    }
}

#[test]
fn tables_of_events_have_room_for_all_of_them() {
    let its = started(&mut Model::new(1));
    // 12 bytes each, at a multiple of 256; powers of two, at least two.
    let sizes = [(1, 256), (2, 256), (17, 512), (32, 512), (33, 768), (256, 3072)];
    for (count, bytes) in sizes {
        assert_eq!(its.events_bytes(count), Some(bytes), "{count}");
    }
    assert_eq!((its.events_bytes(0), its.events_bytes(0x1_0001)), (None, None));
}
