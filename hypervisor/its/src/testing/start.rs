//! From whatever firmware has left to an ITS that works; tables and their shapes; redistributors.

use super::{CONFIGURATION, Model};
use crate::lpis::{self, Target};
use crate::{Features, Its, Kind, Layout, Procedure, Progress, Registers, Table, Unfit, close};
use std::collections::BTreeMap;
use std::vec::Vec;
use types::{Pa, Ticks};

pub(super) const TABLE: Pa = Pa(0x1_0000);
const COLLECTIONS: Pa = Pa(0x2_0000);
const COMMANDS: Pa = Pa(0x3_0000);

/// Two redistributors, as the model names them by number.
pub(super) fn targets() -> Vec<Target> {
    (0..2).map(|number| target(number << 8 | 1)).collect()
}

fn target(typer: u64) -> Target {
    let mut frame = Frame(BTreeMap::from([(8, typer)]), 0);
    lpis::prepare(&mut frame, Pa(0x80a_0000), || Ticks(0), Ticks(1)).unwrap()
}

pub(super) fn started(model: &mut Model) -> Its {
    close(model, || Ticks(0), Ticks(1)).unwrap();
    let features = Features::of(model).unwrap();
    let devices = Table::of(Kind::Devices, 0xffff, model).map(|table| (table, TABLE));
    let collections = Table::of(Kind::Collections, 1, model).map(|table| (table, COLLECTIONS));
    let layout = Layout {
        devices,
        collections,
        commands: COMMANDS,
        configuration: Pa(CONFIGURATION),
        targets: targets(),
        patience: Ticks(100_000),
    };
    let (mut its, procedure) = Its::start(features, layout, model).unwrap();
    run(&mut its, procedure, model);
    its
}

pub(super) fn run(its: &mut Its, mut procedure: Procedure, model: &mut Model) {
    for now in 0..100_000 {
        match its.advance(&mut procedure, Ticks(now), model) {
            Progress::Done => return,
            Progress::Waiting => model.tick(),
            Progress::Failed(trouble) => panic!("{trouble}"),
        }
    }
    panic!("it does not end");
}

/// The registers of a redistributor; which bits they do not keep.
struct Frame(BTreeMap<usize, u64>, u64);

impl Registers for Frame {
    fn get(&mut self, offset: usize) -> u32 {
        self.get_wide(offset) as u32
    }
    fn set(&mut self, offset: usize, value: u32) {
        self.set_wide(offset, value.into());
    }
    fn get_wide(&mut self, offset: usize) -> u64 {
        self.0.get(&offset).copied().unwrap_or(0)
    }
    fn set_wide(&mut self, offset: usize, value: u64) {
        self.0.insert(offset, value & !self.1);
    }
}

#[test]
fn it_is_taken_over_from_whoever_had_it() {
    for seed in 0..50 {
        let mut model = Model::new(seed);
        let its = started(&mut model);
        assert_eq!(model.violation, None);
        assert_eq!(model.register(0) & 1, 1);
        assert!(!model.is_past_caches);
        // Two levels: 128 descriptors, in one page; write-back, shareable.
        assert_eq!(model.register(0x100), 3 << 62 | 7 << 59 | 1 << 56 | 7 << 48 | 1 << 10 | TABLE.0);
        assert_eq!(model.register(0x108), 1 << 63 | 7 << 59 | 4 << 56 | 7 << 48 | 1 << 10 | COLLECTIONS.0);
        assert_eq!(model.register(0x80), 1 << 63 | 7 << 59 | 1 << 10 | COMMANDS.0);
        assert_eq!(model.collections, BTreeMap::from([(0, 0), (1, 1 << 16)]));
        assert!(its.has(0xffff) && !its.has(0x1_0000));
    }
}

#[test]
fn what_is_not_shareable_is_not_cached() {
    let mut model = Model::new(1);
    model.drops = BTreeMap::from([(0x100, 3 << 10), (0x80, 3 << 10)]);
    started(&mut model);
    assert!(model.is_past_caches);
    assert_eq!((model.register(0x100) >> 59 & 7, model.register(0x80) >> 59 & 7), (1, 1));
    let mut only_commands = Model::new(1);
    only_commands.drops = BTreeMap::from([(0x80, 3 << 10)]);
    started(&mut only_commands);
    assert!(only_commands.is_past_caches);
}

#[test]
fn one_level_has_room_for_what_it_can() {
    let mut model = Model::new(1);
    model.drops = BTreeMap::from([(0x100, 1 << 62)]);
    let table = Table::of(Kind::Devices, 0xffff, off(&mut model)).unwrap();
    assert_eq!((table.bytes(), table.page_bytes(), table.place(7)), (0x8_0000, 0x1000, None));
    assert!(table.has(0xffff) && !table.has(0x1_0000));
    // 256 pages at most, and a megabyte.
    let table = Table::of(Kind::Devices, u32::MAX, off(&mut model)).unwrap();
    assert_eq!(table.bytes(), 0x10_0000);
    assert!(table.has(0x1_ffff) && !table.has(0x2_0000));
    let few = Table::of(Kind::Devices, 9, off(&mut model)).unwrap();
    assert_eq!(few.bytes(), 0x1000);
}

fn off(model: &mut Model) -> &mut Model {
    close(model, || Ticks(0), Ticks(1)).unwrap();
    model
}

#[test]
fn pages_are_of_the_size_that_it_has() {
    let mut model = Model::new(1);
    // 64 KiB, and nothing else: both bits read as what the model has.
    model.registers.insert(0x100, 1 << 56 | 7 << 48 | 2 << 8);
    model.drops = BTreeMap::from([(0x100, 1 << 8)]);
    let table = Table::of(Kind::Devices, 0xffff, &mut Sticky(off(&mut model))).unwrap();
    assert_eq!(table.page_bytes(), 0x1_0000);
    assert_eq!((table.place(8191).unwrap().index, table.place(8192).unwrap().index), (0, 1));
}

/// Its pages are of 64 KiB, whatever is written.
struct Sticky<'a>(&'a mut Model);

impl Registers for Sticky<'_> {
    fn get(&mut self, offset: usize) -> u32 {
        self.0.get(offset)
    }
    fn set(&mut self, offset: usize, value: u32) {
        self.0.set(offset, value);
    }
    fn get_wide(&mut self, offset: usize) -> u64 {
        self.0.get_wide(offset)
    }
    fn set_wide(&mut self, offset: usize, value: u64) {
        self.0.set_wide(offset, value & !(3 << 8) | 2 << 8);
    }
}

#[test]
fn an_its_that_is_none_or_too_small_is_refused() {
    let mut model = Model::new(1);
    model.registers.insert(0xffe8, 0x20);
    assert_eq!(Features::of(&mut model), Err(Unfit::Architecture(2)));
    let mut model = Model::new(1);
    model.registers.insert(8, 0xffff_fffe);
    assert_eq!(Features::of(&mut model), Err(Unfit::NoLpis));
    // No table of collections, and one that it keeps itself, for two CPUs; then two.
    for (own, fits) in [(1_u64, false), (2, true)] {
        let mut model = Model::new(1);
        model.registers.remove(&0x108);
        let typer = model.register(8);
        model.registers.insert(8, typer | own << 24);
        off(&mut model);
        let features = Features::of(&mut model).unwrap();
        assert_eq!(Table::of(Kind::Collections, 1, &mut model), None);
        let layout = Layout {
            devices: None,
            collections: None,
            commands: COMMANDS,
            configuration: Pa(CONFIGURATION),
            targets: targets(),
            patience: Ticks(1),
        };
        let started = Its::start(features, layout, &mut model).map(|_| ());
        assert_eq!(started, if fits { Ok(()) } else { Err(Unfit::FewCollections) });
    }
    let mut model = Model::new(1);
    model.drops = BTreeMap::from([(0x100, 1 << 63)]);
    off(&mut model);
    let features = Features::of(&mut model).unwrap();
    let devices = Table::of(Kind::Devices, 1, &mut model).map(|table| (table, TABLE));
    let layout = Layout {
        devices,
        collections: Table::of(Kind::Collections, 1, &mut model).map(|table| (table, COLLECTIONS)),
        commands: COMMANDS,
        configuration: Pa(CONFIGURATION),
        targets: targets(),
        patience: Ticks(1),
    };
    assert_eq!(Its::start(features, layout, &mut model).map(|_| ()), Err(Unfit::Table));
}

#[test]
fn an_its_that_does_not_come_to_rest_is_not_used() {
    struct Busy(u32);
    impl Registers for Busy {
        fn get(&mut self, _: usize) -> u32 {
            self.0 & !(1 << 31)
        }
        fn set(&mut self, _: usize, value: u32) {
            self.0 = value;
        }
        fn get_wide(&mut self, _: usize) -> u64 {
            0
        }
        fn set_wide(&mut self, _: usize, _: u64) {}
    }
    let (mut busy, clock) = (Busy(3), core::cell::Cell::new(0));
    let now = || {
        clock.set(clock.get() + 1);
        Ticks(clock.get())
    };
    assert_eq!(close(&mut busy, now, Ticks(10)), Err(Unfit::Late));
    assert_eq!(busy.0, 2, "it has been told");
}

#[test]
fn redistributors_are_named_by_number_or_address() {
    let target = target(0x1_2301 | 5 << 32);
    assert_eq!((target.rdbase(false), target.rdbase(true)), (0x123 << 16, 0x80a_0000));
}

#[test]
fn lpis_are_on_with_both_tables() {
    let mut frame = Frame(BTreeMap::from([(8, 1)]), 0);
    let mut memory = Model::new(1);
    lpis::prepare(&mut frame, Pa(0), || Ticks(0), Ticks(1)).unwrap();
    lpis::enable(&mut frame, &mut memory, [Pa(0x4_0000), Pa(0x5_0000)]).unwrap();
    assert_eq!((frame.get_wide(0x70), frame.get(0)), (0x4_0000 | 1 << 10 | 7 << 7 | 13, 1));
    assert_eq!(frame.get_wide(0x78), 1 << 62 | 0x5_0000 | 1 << 10 | 7 << 7);
    assert!(!memory.is_past_caches);
    let mut frame = Frame(BTreeMap::from([(8, 1)]), 3 << 10);
    lpis::enable(&mut frame, &mut memory, [Pa(0x4_0000), Pa(0x5_0000)]).unwrap();
    assert_eq!((frame.get_wide(0x70), frame.get_wide(0x78)), (0x4_0000 | 1 << 7 | 13, 1 << 62 | 0x5_0000 | 1 << 7));
    assert!(memory.is_past_caches);
    assert_eq!((lpis::CONFIGURATION_BYTES, lpis::PENDING_BYTES), (0x2000, 0x800));
}

#[test]
fn lpis_that_somebody_left_on_are_refused_by_name() {
    assert_eq!(
        lpis::prepare(&mut Frame(BTreeMap::new(), 0), Pa(0), || Ticks(0), Ticks(1)),
        Err(Unfit::NoLpis),
        "GICR_TYPER.PLPIS"
    );
    // It can be cleared.
    let mut frame = Frame(BTreeMap::from([(0, 1), (8, 1)]), 0);
    assert!(lpis::prepare(&mut frame, Pa(0), || Ticks(0), Ticks(1)).is_ok());
    struct Left;
    impl Registers for Left {
        fn get(&mut self, _: usize) -> u32 {
            1
        }
        fn set(&mut self, _: usize, _: u32) {}
        fn get_wide(&mut self, _: usize) -> u64 {
            1
        }
        fn set_wide(&mut self, _: usize, _: u64) {}
    }
    assert_eq!(lpis::prepare(&mut Left, Pa(0), || Ticks(0), Ticks(1)), Err(Unfit::LeftEnabled));
    // What cannot be put elsewhere.
    let mut memory = Model::new(1);
    assert_eq!(lpis::enable(&mut Left, &mut memory, [Pa(0x4_0000), Pa(0x5_0000)]), Err(Unfit::Table));
}
