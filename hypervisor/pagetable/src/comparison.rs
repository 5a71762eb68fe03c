//! Random changes to live tables, checked against three others: a map of plain segments, the `aarch64-paging` package
//! (descriptors, bit for bit), and walkers that forgive nothing (`testing`).

use crate::{
    Access, El2Attributes, El2Stage1, MapError, Memory, PaRange, Stage2, Stage2Attributes, Stage2Layout,
    testing::{TestPool, Walkers},
};
use aarch64_paging::{
    descriptor::{El23Attributes as TheirEl2, PhysicalAddress, Stage2Attributes as TheirStage2},
    paging::{self, Constraints, MemoryRegion, RootTable, TranslationRegime},
    target::TargetAllocator,
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{collections::BTreeMap, vec::Vec};
use types::{Address, Ipa, Pa, Range, Va};

const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;

/// What is mapped, as anybody would write it down.
#[derive(Clone, Default)]
struct Model<T> {
    /// By start: end, output of the start, attributes.
    segments: BTreeMap<u64, (u64, u64, T)>,
}

impl<T: Copy + PartialEq> Model<T> {
    /// Makes `at` a boundary.
    fn cut(&mut self, at: u64) {
        let Some((&start, &(end, to, attributes))) = self.segments.range(..at).next_back() else { return };
        if end > at {
            self.segments.insert(start, (at, to, attributes));
            self.segments.insert(at, (end, to + (at - start), attributes));
        }
    }

    /// Joins what is contiguous and alike.
    fn join(&mut self) {
        let mut joined: BTreeMap<u64, (u64, u64, T)> = BTreeMap::new();
        for (&start, &(end, to, attributes)) in &self.segments {
            match joined.iter_mut().next_back() {
                Some((&from, last)) if last.0 == start && last.1 + (start - from) == to && last.2 == attributes => {
                    last.0 = end;
                }
                _ => _ = joined.insert(start, (end, to, attributes)),
            }
        }
        self.segments = joined;
    }

    /// Starts of the segments from `start` to `end`.
    fn inside(&mut self, start: u64, end: u64) -> Vec<u64> {
        self.cut(start);
        self.cut(end);
        self.segments.range(start..end).map(|(&start, _)| start).collect()
    }

    fn first_overlap(&self, start: u64, end: u64) -> Option<u64> {
        let overlap = |&(&from, &(to, ..)): &(&u64, &(u64, u64, T))| start < end && from < end && start < to;
        self.segments.iter().find(overlap).map(|(&from, _)| from.max(start))
    }

    fn map(&mut self, start: u64, end: u64, to: u64, attributes: T) -> u64 {
        self.segments.insert(start, (end, to, attributes));
        end - start
    }

    fn unmap(&mut self, start: u64, end: u64) -> u64 {
        let starts = self.inside(start, end);
        starts.into_iter().map(|start| self.segments.remove(&start).map_or(0, |(end, ..)| end - start)).sum()
    }

    fn protect(&mut self, start: u64, end: u64, attributes: T) -> u64 {
        let mut changed = 0;
        for start in self.inside(start, end) {
            let segment = self.segments.get_mut(&start).unwrap();
            segment.2 = attributes;
            changed += segment.0 - start;
        }
        changed
    }

    fn lookup(&self, at: u64) -> Option<(u64, T)> {
        let (&start, &(end, to, attributes)) = self.segments.range(..=at).next_back()?;
        (at < end).then_some((to + (at - start), attributes))
    }
}

#[derive(Clone, Debug)]
enum Change<T> {
    Map { to: u64, attributes: T },
    Unmap,
    Protect { attributes: T },
}

#[derive(Clone, Debug)]
struct Step<T> {
    start: u64,
    end: u64,
    change: Change<T>,
    /// Leaves and holes per call.
    entries: usize,
    /// Tables that the pool has left; `None`: plenty.
    left: Option<usize>,
}

/// Addresses around which mistakes happen: ends of pages, blocks, tables, and the whole space.
fn address(bits: u32) -> impl Strategy<Value = u64> {
    let end = 1 << bits;
    let edges = select(std::vec![0, M2, 2 * M2, G1 - M2, G1, G1 + M2, 2 * G1, 512 * G1 - G1, 512 * G1, end - M2, end]);
    (edges, -2_i64..3).prop_map(move |(edge, pages)| edge.saturating_add_signed(pages * K4 as i64).min(end))
}

fn steps<T: Clone + std::fmt::Debug + 'static>(bits: u32, attributes: Vec<T>) -> impl Strategy<Value = Vec<Step<T>>> {
    let output = prop_oneof![Just(None), select(std::vec![0, K4, M2, G1, 4 * G1 + M2, 4 * G1 + K4]).prop_map(Some)];
    let kinds = (0..5, output, select(attributes));
    let left = prop_oneof![3 => Just(None), 1 => (0_usize..4).prop_map(Some)];
    let step = (address(bits), address(bits), kinds, select(std::vec![1, 7, 513, 1500]), left);
    let step = step.prop_map(|(a, b, (kind, to, attributes), entries, left)| {
        let (start, end) = (a.min(b), a.max(b));
        let change = match kind {
            0 | 1 => Change::Map { to: to.map_or(start, |to| to + start % G1), attributes },
            2 => Change::Unmap,
            3 => Change::Protect { attributes },
            // Something to change: everything that is there is small.
            _ => return Step { start, end: end.min(start + 3 * K4), change: Change::Unmap, entries, left },
        };
        Step { start, end, change, entries, left }
    });
    // A run of few cases, as under Miri, is to be short in all.
    let most = if ProptestConfig::default().cases < 16 { 3 } else { 24 };
    vec(step, 1..=most)
}

/// Either stage, as the test sees it.
trait Tables {
    type Input: Address + std::fmt::Debug;
    type Attributes: Copy + PartialEq + std::fmt::Debug;
    type Theirs: TranslationRegime;
    const LEVEL: u32;
    fn change(
        &mut self,
        range: Range<Self::Input>,
        change: &Change<Self::Attributes>,
        entries: usize,
        pool: &mut TestPool,
        walkers: &mut Walkers,
    ) -> Result<crate::Progress<Self::Input>, MapError<Self::Input>>;
    fn lookup(&self, at: u64, pool: &TestPool) -> Option<(u64, Self::Attributes)>;
    fn tables(&self) -> usize;
    fn root(&self) -> Pa;
    fn destroy(self, pool: &mut TestPool);
    /// The same attributes in the other package's words.
    fn theirs(attributes: Self::Attributes) -> <Self::Theirs as TranslationRegime>::Attributes;
}

macro_rules! tables {
    ($name:ident, $input:ident, $attributes:ident, $theirs:ident, $level:expr, $translate:ident, $flags:ident) => {
        impl Tables for $name {
            type Input = $input;
            type Attributes = $attributes;
            type Theirs = paging::$theirs;
            const LEVEL: u32 = $level;
            fn change(
                &mut self,
                range: Range<$input>,
                change: &Change<$attributes>,
                entries: usize,
                pool: &mut TestPool,
                walkers: &mut Walkers,
            ) -> Result<crate::Progress<$input>, MapError<$input>> {
                match *change {
                    Change::Map { to, attributes } => self.map(range, Pa(to), attributes, entries, pool, walkers),
                    Change::Unmap => self.unmap(range, entries, pool, walkers),
                    Change::Protect { attributes } => self.protect(range, attributes, entries, pool, walkers),
                }
            }
            fn lookup(&self, at: u64, pool: &TestPool) -> Option<(u64, $attributes)> {
                let mapping = $name::lookup(self, $input(at), pool)?;
                assert!(mapping.range.contains($input(at)));
                Some((mapping.to.0 + (at - mapping.range.start().0), mapping.attributes))
            }
            fn tables(&self) -> usize {
                $name::tables(self)
            }
            fn root(&self) -> Pa {
                $name::root(self)
            }
            fn destroy(self, pool: &mut TestPool) {
                $name::destroy(self, pool);
            }
            fn theirs(attributes: $attributes) -> $flags {
                $translate(attributes)
            }
        }
    };
}

tables!(Stage2, Ipa, Stage2Attributes, Stage2, 1, their_stage2, TheirStage2);
tables!(El2Stage1, Va, El2Attributes, El2, 0, their_el2, TheirEl2);

fn their_stage2(attributes: Stage2Attributes) -> TheirStage2 {
    let mut theirs = TheirStage2::VALID | TheirStage2::SH_INNER | TheirStage2::ACCESS_FLAG;
    theirs |= match attributes.memory {
        Memory::NormalWriteBack => TheirStage2::MEMATTR_NORMAL_INNER_WB | TheirStage2::MEMATTR_NORMAL_OUTER_WB,
        Memory::NormalNonCacheable => TheirStage2::MEMATTR_NORMAL_INNER_NC | TheirStage2::MEMATTR_NORMAL_OUTER_NC,
        Memory::DeviceNgnrne => TheirStage2::MEMATTR_DEVICE_nGnRnE,
        Memory::DeviceNgnre => TheirStage2::MEMATTR_DEVICE_nGnRE,
        Memory::DeviceNgre => TheirStage2::MEMATTR_DEVICE_nGRE,
        Memory::DeviceGre => TheirStage2::MEMATTR_DEVICE_GRE,
    };
    theirs.set(TheirStage2::S2AP_ACCESS_RO, attributes.access.contains(Access::READ));
    theirs.set(TheirStage2::S2AP_ACCESS_WO, attributes.access.contains(Access::WRITE));
    theirs.set(TheirStage2::XN, !attributes.access.contains(Access::EXECUTE));
    theirs
}

fn their_el2(attributes: El2Attributes) -> TheirEl2 {
    let common = TheirEl2::VALID | TheirEl2::INNER_SHAREABLE | TheirEl2::ACCESSED | TheirEl2::USER_RES1;
    common
        | match attributes {
            El2Attributes::Code => TheirEl2::ATTRIBUTE_INDEX_0 | TheirEl2::READ_ONLY,
            El2Attributes::ReadOnly => TheirEl2::ATTRIBUTE_INDEX_0 | TheirEl2::READ_ONLY | TheirEl2::XN,
            El2Attributes::Data => TheirEl2::ATTRIBUTE_INDEX_0 | TheirEl2::XN,
            El2Attributes::Device => TheirEl2::ATTRIBUTE_INDEX_1 | TheirEl2::XN,
            El2Attributes::NonCacheable => TheirEl2::ATTRIBUTE_INDEX_2 | TheirEl2::XN,
        }
}

/// Ours, the model, and everything that should hold of the two.
struct Bench<T: Tables> {
    tables: T,
    model: Model<T::Attributes>,
    pool: TestPool,
    walkers: Walkers,
    output_end: u64,
}

impl<T: Tables> Bench<T> {
    fn new(pa: PaRange, build: impl FnOnce(&mut TestPool) -> T) -> Self {
        let mut pool = TestPool::with(1000);
        let tables = build(&mut pool);
        let mut walkers = pool.walkers();
        walkers.install(tables.root(), T::LEVEL, tables.tables());
        Self { tables, model: Model { segments: BTreeMap::new() }, pool, walkers, output_end: 1 << pa.bits() }
    }

    /// Does a step, and the same to the model as far as it came.
    fn step(&mut self, step: &Step<T::Attributes>) {
        let Step { start, end, .. } = *step;
        let range = Range::between(T::Input::from_u64(start), T::Input::from_u64(end));
        let (in_use, tables) = (self.pool.in_use(), self.tables.tables());
        self.pool.set_left(step.left.unwrap_or(1000));
        self.walkers.events();
        match self.tables.change(range, &step.change, step.entries, &mut self.pool, &mut self.walkers) {
            Ok(progress) => {
                let stop = progress.rest.map_or(end, |rest| rest.start().as_u64());
                assert!(start == end || stop > start, "no progress");
                assert!(progress.rest.is_none_or(|rest| rest.end().as_u64() == end));
                let changed = match step.change {
                    Change::Map { to, attributes } => {
                        assert_eq!(self.model.first_overlap(start, stop), None);
                        if start == stop { 0 } else { self.model.map(start, stop, to, attributes) }
                    }
                    Change::Unmap => self.model.unmap(start, stop),
                    Change::Protect { attributes } => self.model.protect(start, stop, attributes),
                };
                assert_eq!(progress.changed, changed);
            }
            Err(error) => {
                match error {
                    MapError::Overlap(at) => assert_eq!(self.model.first_overlap(start, end), Some(at.as_u64())),
                    MapError::OutOfTables => assert!(step.left.is_some()),
                    MapError::OutputOutOfRange => {
                        let Change::Map { to, .. } = step.change else { panic!("{error}") };
                        assert!(to + (end - start) > self.output_end);
                    }
                    MapError::Misaligned | MapError::InputOutOfRange => panic!("{error}"),
                }
                assert_eq!((self.pool.in_use(), self.tables.tables()), (in_use, tables));
                assert_eq!(self.walkers.events(), [], "an error is no change");
            }
        }
        self.walkers.assert_up_to_date();
        assert_eq!(self.tables.tables(), self.pool.in_use());
    }

    fn check_lookups(&self) {
        let edges = self.model.segments.iter().flat_map(|(&start, &(end, ..))| [start, end]);
        for at in edges.chain([0, G1 - 1, G1 + M2]).flat_map(|at| [at.saturating_sub(1), at]) {
            assert_eq!(self.tables.lookup(at, &self.pool), self.model.lookup(at), "at {at:#x}");
        }
    }

    fn finish(mut self) {
        self.walkers.retire();
        self.tables.destroy(&mut self.pool);
        assert_eq!(self.pool.in_use(), 0);
    }
}

/// Compares the tables from `ours` and `theirs` down. Table addresses differ, all else must not.
fn compare(ours: u64, theirs: u64, level: u32, pool: &TestPool, image: &[u8]) {
    for (index, our) in pool.table(ours).into_iter().enumerate() {
        let at = (theirs - IMAGE) as usize + 8 * index;
        let their = u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
        if level < 3 && our & 3 == 3 && their & 3 == 3 {
            const ADDRESS: u64 = 0xffff_ffff_f000;
            assert_eq!(our & !ADDRESS, their & !ADDRESS, "table descriptor, level {level}");
            compare(our & ADDRESS, their & ADDRESS, level + 1, pool, image);
        } else {
            assert_eq!(our, their, "level {level}, descriptor {index}: {our:#x}, theirs {their:#x}");
        }
    }
}

/// Where the other package believes its tables are.
const IMAGE: u64 = 0x20_0000_0000;

/// Runs the steps on our tables and on theirs, and compares the trees.
fn compare_with_theirs<T: Tables>(
    mut bench: Bench<T>,
    mut theirs: RootTable<T::Theirs, TargetAllocator<<T::Theirs as TranslationRegime>::Attributes>>,
    steps: &[Step<T::Attributes>],
) {
    for step in steps {
        // Whole steps only, and few leaves: the other package maps all at once. It has no error for an overlap, and its
        // protect is a map over what is there.
        let step = Step { end: step.end.min(step.start + 2 * M2), entries: 2000, left: None, ..step.clone() };
        if matches!(step.change, Change::Map { .. }) && bench.model.first_overlap(step.start, step.end).is_some() {
            continue;
        }
        bench.model.join();
        let before = bench.model.clone();
        bench.step(&step);
        let mut put = |start: u64, end: u64, to: u64, flags| {
            let region = MemoryRegion::new(start as usize, end as usize);
            theirs.map_range(&region, PhysicalAddress(to as usize), flags, Constraints::NO_CONTIGUOUS_HINT).unwrap();
        };
        let none = <T::Theirs as TranslationRegime>::Attributes::default();
        match step.change {
            Change::Map { to, attributes } if step.start < step.end => {
                put(step.start, step.end, to, T::theirs(attributes));
            }
            Change::Unmap | Change::Protect { .. } => {
                let mut before = before;
                for start in before.inside(step.start, step.end) {
                    let (end, to, _) = before.segments[&start];
                    match step.change {
                        Change::Protect { attributes } => put(start, end, to, T::theirs(attributes)),
                        _ => put(start, end, 0, none),
                    }
                }
            }
            Change::Map { .. } => {}
        }
        // It keeps empty tables until told; then no block fits in their place.
        theirs.compact_subtables();
    }
    let image = theirs.translation().as_bytes();
    compare(bench.tables.root().0, IMAGE, T::LEVEL, &bench.pool, &image);
    bench.finish();
}

/// Attributes that differ in permissions and in memory type.
fn stage2_attributes() -> Vec<Stage2Attributes> {
    let non_cacheable = Stage2Attributes::new(Memory::NormalNonCacheable, Access::READ);
    std::vec![Stage2Attributes::RAM, Stage2Attributes::ROM, Stage2Attributes::DEVICE, non_cacheable]
}

fn el2_attributes() -> Vec<El2Attributes> {
    use El2Attributes::{Code, Data, Device, NonCacheable, ReadOnly};
    std::vec![Code, ReadOnly, Data, Device, NonCacheable]
}

fn new_stage2(pa: PaRange) -> Bench<Stage2> {
    Bench::new(pa, |pool| Stage2::new(Stage2Layout::largest(pa), pool).unwrap())
}

fn new_el2() -> Bench<El2Stage1> {
    Bench::new(PaRange::Bits48, |pool| El2Stage1::new(PaRange::Bits48, pool).unwrap())
}

proptest! {
    // No file of past failures: a failure prints the steps.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stage_2_does_what_a_plain_map_does(steps in steps(40, stage2_attributes())) {
        let mut bench = new_stage2(PaRange::Bits40);
        for step in &steps {
            bench.step(step);
            bench.check_lookups();
        }
        bench.finish();
    }

    #[test]
    fn el2_stage_1_does_what_a_plain_map_does(steps in steps(48, el2_attributes())) {
        let mut bench = new_el2();
        for step in &steps {
            bench.step(step);
            bench.check_lookups();
        }
        bench.finish();
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn stage_2_descriptors_are_those_of_another_implementation(steps in steps(36, stage2_attributes())) {
        // 36 bits, level 1: the other package knows no concatenation.
        let theirs = RootTable::new(TargetAllocator::new(IMAGE), 1, paging::Stage2);
        compare_with_theirs(new_stage2(PaRange::Bits36), theirs, &steps);
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn el2_descriptors_are_those_of_another_implementation(steps in steps(48, el2_attributes())) {
        let theirs = RootTable::new(TargetAllocator::new(IMAGE), 0, paging::El2);
        compare_with_theirs(new_el2(), theirs, &steps);
    }
}
