use super::*;
use crate::testing::TestPool;
use crate::{PaRange, Stage2Layout};
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::{vec, vec::Vec};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Store(Pa, usize, u64),
    Publish,
    Cpus,
    Devices,
    Free(Pa),
}

type Log = Rc<RefCell<Vec<What>>>;

/// A pool that remembers in which order things happen.
struct Recorder(TestPool, Log);

impl TablePool for Recorder {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        self.0.allocate(pages)
    }

    fn free(&mut self, table: Pa, pages: usize) {
        self.1.borrow_mut().push(What::Free(table));
        self.0.free(table, pages);
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.0.read(table, index)
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        self.1.borrow_mut().push(What::Store(table, index, descriptor));
        self.0.write(table, index, descriptor);
    }
}

struct Cpus(Log);

impl Maintenance<Ipa> for Cpus {
    fn publish(&mut self) {
        self.0.borrow_mut().push(What::Publish);
    }

    fn invalidate(&mut self, _: Range<Ipa>, _: Stale) {
        self.0.borrow_mut().push(What::Cpus);
    }
}

/// Devices that forget, or do not.
struct Devices(Log, bool);

impl DeviceWalkers for Devices {
    fn forget(&mut self, _: Range<Ipa>, _: Stale) -> bool {
        self.0.borrow_mut().push(What::Devices);
        self.1
    }
}

struct World {
    pool: Recorder,
    log: Log,
    tables: Stage2,
    view: DeviceView,
    lost: AtomicBool,
    forgets: bool,
}

fn layout() -> Stage2Layout {
    Stage2Layout::new(PaRange::from_id_aa64mmfr0(0b0101), 40).unwrap()
}

impl World {
    /// Tables with something in them before devices come.
    fn new() -> Self {
        let log = Log::default();
        let mut pool = Recorder(TestPool::with(200), Rc::clone(&log));
        let mut tables = Stage2::new(layout(), &mut pool).unwrap();
        let early = range(7 * GIB, GIB);
        let mapped = tables.map(early, Pa(7 * GIB), Stage2Attributes::RAM, 8, &mut pool, &mut crate::Idle);
        assert!(mapped.is_ok());
        let view = DeviceView::new(&tables, &mut pool).unwrap();
        Self { pool, log, tables, view, lost: AtomicBool::new(false), forgets: true }
    }

    fn change<R>(
        &mut self,
        work: impl FnOnce(&mut Stage2, &mut Mirrored<'_, Recorder>, &mut Walkers<'_, Cpus, Devices>) -> R,
    ) -> R {
        let Self { pool, log, tables, view, lost, forgets } = self;
        log.borrow_mut().clear();
        let mut walkers = Walkers { cpus: Cpus(Rc::clone(log)), devices: Devices(Rc::clone(log), *forgets), lost };
        work(tables, &mut Mirrored { pool, view: Some(view), lost }, &mut walkers)
    }

    fn map(&mut self, at: Range<Ipa>) -> bool {
        let to = Pa(at.start().0);
        self.change(|tables, pool, walkers| {
            tables.map(at, to, Stage2Attributes::RAM, usize::MAX, pool, walkers).is_ok()
        })
    }

    fn unmap(&mut self, at: Range<Ipa>) -> bool {
        self.change(|tables, pool, walkers| tables.unmap(at, usize::MAX, pool, walkers).is_ok())
    }

    fn open(&mut self, is_free: impl Fn(Range<Ipa>) -> bool) -> Option<Ipa> {
        let Self { pool, log, view, .. } = self;
        view.open_doorbell(Pa(0x0809_0000), is_free, pool, &mut Cpus(Rc::clone(log)))
    }

    /// The leaf that devices find at an address, as it stands in its table.
    fn seen(&self, at: u64) -> Option<u64> {
        let mut table = self.view.root;
        loop {
            let (page, index) = table.slot(at);
            match table.entry(self.pool.read(page, index)) {
                Entry::Invalid => return None,
                Entry::Leaf(leaf) => return Some(leaf),
                Entry::Table(below) => table = below,
            }
        }
    }

    /// The entries of the root that are not the same for devices.
    fn differences(&self) -> Vec<u64> {
        let entry = |table: Table, at| {
            let (page, index) = table.slot(at);
            self.pool.read(page, index)
        };
        let (own, theirs) = (self.tables.root_table(), self.view.root);
        self.view.entries().filter(|at| entry(own, *at) != entry(theirs, *at)).collect()
    }
}

fn range(start: u64, length: u64) -> Range<Ipa> {
    Range::new(Ipa(start), length).unwrap()
}

#[test]
fn devices_have_what_is_there_when_they_come() {
    let world = World::new();
    assert_ne!(world.view.root(), world.tables.root());
    assert_eq!(world.differences(), []);
    assert!(world.seen(7 * GIB).is_some() && world.seen(8 * GIB).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn devices_see_every_change(changes in prop::collection::vec((any::<bool>(), 0u64..1024, 0u64..3, 1u64..4), 1..24)) {
        let mut world = World::new();
        for (map, gigabyte, offset, length) in changes {
            // Pages, blocks, and whole entries of the root, which are split and put together again.
            let at = match length {
                1 => range(gigabyte * GIB + offset * 4096, 4096),
                2 => range(gigabyte * GIB + offset * 2 * MIB, 2 * MIB),
                _ => range(gigabyte * GIB, GIB),
            };
            let _ = if map { world.map(at) } else { world.unmap(at) };
            prop_assert_eq!(world.differences(), []);
        }
    }
}

#[test]
fn what_goes_is_gone_from_both_roots_then_from_cpus_then_from_devices_and_only_then_free() {
    let mut world = World::new();
    assert!(world.map(range(GIB, 4096)));
    assert!(world.unmap(range(GIB, 4096)));
    let log = world.log.borrow().clone();
    let place = |what: &dyn Fn(&What) -> bool| log.iter().position(what).unwrap();
    let store = |root: Pa| place(&|what| *what == What::Store(root, 1, 0));
    let stores = store(world.tables.root()).max(store(world.view.root()));
    let (cpus, devices) = (place(&|what| *what == What::Cpus), place(&|what| *what == What::Devices));
    let free = place(&|what| matches!(what, What::Free(_)));
    assert!(stores < cpus && cpus < devices && devices < free, "{log:?}");
}

#[test]
fn a_block_is_broken_for_devices_before_it_is_made_anew() {
    let mut world = World::new();
    assert!(world.unmap(range(7 * GIB, 2 * MIB)));
    let log = world.log.borrow().clone();
    let root = world.view.root();
    let stores = |what: &What| matches!(what, What::Store(table, 7, _) if *table == root);
    let places: Vec<usize> = (0..log.len()).filter(|place| stores(&log[*place])).collect();
    let [broken, made] = places[..] else { panic!("{log:?}") };
    assert_eq!(log[broken], What::Store(root, 7, 0));
    assert!(log[broken..made].contains(&What::Devices), "{log:?}");
    assert_eq!((world.seen(7 * GIB), world.differences()), (None, vec![]));
    assert!(world.seen(7 * GIB + 2 * MIB).is_some());
}

#[test]
fn what_devices_have_not_forgotten_is_never_free() {
    let mut world = World::new();
    assert!(world.map(range(GIB, 4096)) && world.map(range(2 * GIB, 4096)));
    let in_use = world.pool.0.in_use();
    world.forgets = false;
    assert!(world.unmap(range(GIB, 4096)));
    assert!(world.lost.load(Ordering::Relaxed));
    assert_eq!(world.pool.0.in_use(), in_use, "two tables less, and they are kept");
    world.forgets = true;
    assert!(world.unmap(range(2 * GIB, 4096)));
    assert!(world.lost.load(Ordering::Relaxed), "for good");
    assert_eq!(world.pool.0.in_use(), in_use);
}

#[test]
fn the_doorbell_is_for_devices_to_write_and_for_nobody_else() {
    let mut world = World::new();
    let last = 511 * GIB;
    let at = world.open(|part| part.start().0 != last).unwrap();
    assert_eq!((at, world.view.doorbell()), (Ipa(510 * GIB), Some(at)), "the last of the first table that is free");
    let leaf = world.seen(at.0).unwrap();
    assert_eq!(crate::descriptor::output(leaf), Pa(0x0809_0000));
    assert_eq!((leaf >> 6 & 3, leaf >> 2 & 0xf), (0b10, 0b0001), "written, not read; Device-nGnRE");
    assert_eq!(world.seen(at.0 + 4096), None, "one page");
    assert_eq!(world.tables.lookup(at, &world.pool), None, "no CPU has it");
    assert_eq!(world.differences(), [at.0]);
    assert_eq!(world.open(|_| true), None, "there is one already");
}

#[test]
fn the_doorbell_stays_whatever_the_guest_has_there() {
    let mut world = World::new();
    let at = world.open(|_| true).unwrap();
    let leaf = world.seen(at.0);
    assert!(world.map(range(at.0, GIB)));
    assert_eq!(world.seen(at.0), leaf);
    assert!(world.unmap(range(at.0, GIB)));
    assert_eq!(world.seen(at.0), leaf);
}

#[test]
fn a_doorbell_where_the_guest_expects_it_is_all_that_devices_have_there() {
    let mut world = World::new();
    let (at, page) = (Ipa(GIB + 0x0809_0000), Pa(0x0809_0000));
    assert!(world.map(range(GIB, 4096)) && world.seen(GIB).is_some());
    world.log.borrow_mut().clear();
    let open = |world: &mut World, at, is_free: bool| {
        let World { pool, log, view, .. } = world;
        view.open_doorbell_at(page, at, |part| part == range(GIB, GIB) && is_free, pool, &mut Cpus(Rc::clone(log)))
    };
    assert!(
        !open(&mut world, at, false) && !open(&mut world, Ipa(at.0 + 4), true) && !open(&mut world, Ipa(1 << 40), true)
    );
    assert!(world.log.borrow().is_empty(), "nothing has changed");
    assert!(open(&mut world, at, true));
    let root = world.view.root();
    let places: Vec<What> = world
        .log
        .borrow()
        .iter()
        .copied()
        .filter(|what| match what {
            What::Store(table, _, _) => *table == root,
            what => *what == What::Cpus,
        })
        .collect();
    assert!(matches!(places[..], [What::Store(_, 1, 0), What::Cpus, What::Store(_, 1, _)]), "{places:?}");
    assert_eq!(world.seen(at.0).map(crate::descriptor::output), Some(page));
    assert_eq!((world.seen(at.0 + 4096), world.seen(at.0 - 4096), world.seen(GIB)), (None, None, None));
    assert!(world.tables.lookup(Ipa(GIB), &world.pool).is_some(), "CPUs have what they had");
    assert!(world.map(range(GIB + 2 * MIB, 2 * MIB)) && world.unmap(range(GIB, 4096)));
    assert_eq!(world.seen(at.0).map(crate::descriptor::output), Some(page), "whatever the guest has there");
    assert!(!open(&mut world, at, true), "there is one already");
}

#[test]
fn without_room_there_is_no_doorbell() {
    let mut world = World::new();
    assert_eq!(world.open(|_| false), None);
    assert_eq!(world.open(|part| part.start() == Ipa(7 * GIB)), None, "something is there");
    let left = world.pool.0.in_use();
    world.pool.0.set_left(1);
    assert_eq!(world.open(|_| true), None);
    assert_eq!((world.pool.0.in_use(), world.differences()), (left, vec![]), "nothing is taken");
    let mut pool = TestPool::with(2);
    let tables = Stage2::new(layout(), &mut pool).unwrap();
    assert!(DeviceView::new(&tables, &mut pool).is_none());
    tables.destroy(&mut pool);
}

#[test]
fn all_of_it_is_given_back() {
    let mut world = World::new();
    assert!(world.map(range(GIB, 4096)) && world.open(|_| true).is_some());
    let World { mut pool, tables, view, .. } = world;
    tables.destroy(&mut pool);
    view.destroy(&mut pool);
    assert_eq!(pool.0.in_use(), 0);
}
