//! `vdev virtio-balloon`. There is no driver of the package's for it: queues, features and the configuration space are driven here.

use crate::driver::{Machine, Place, Registers, World, negotiate, tests};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use types::{Ipa, Ticks};
use vdev::testkit::{Pages, Rig, Wires};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceType, Transport};

tests! {
    what_the_driver_names_goes_and_is_asked_for_by_the_configuration,
    what_could_not_be_kept_is_not_offered,
    rubbish_takes_nothing_but_the_guests_own,
    reported_pages_go_by_either_of_two_queues,
    reports_that_were_not_negotiated_are_not_heard,
    the_guests_own_numbers_are_shown_and_asked_for_again,
}

/// The guest's RAM begins here, and has so many pages.
const FIRST: u32 = 0x80000;
const PAGES: u64 = 0x400;

const MUST_TELL_HOST: u64 = 1 << 0;
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const PAGE_REPORTING: u64 = 1 << 5;

type Queue = VirtQueue<Machine, 32>;

struct Driver {
    world: World,
    pages: Pages,
    transport: Registers,
    queues: Vec<Queue>,
}

impl Driver {
    fn new(place: Place, options: &[(&str, Option<&str>)], features: u64) -> Self {
        let wires = Wires::default();
        let pages = wires.pages.clone();
        pages.set(Ipa(u64::from(FIRST) << 12), PAGES);
        let world = World::new(place, "virtio-balloon", options, wires);
        let transport = world.transport();
        let mut driver = Self { world, pages, transport, queues: Vec::new() };
        driver.start(features);
        driver
    }

    fn start(&mut self, features: u64) {
        self.queues.clear();
        let transport = &mut self.transport;
        assert_eq!(transport.device_type(), DeviceType::MemoryBalloon);
        negotiate(transport, features);
        let count = if features & PAGE_REPORTING == 0 { 3 } else { 5 };
        self.queues = (0..count).map(|number| Queue::new(transport, number, false, false).unwrap()).collect();
        transport.finish_init();
    }

    /// Hands the device numbers of pages by a queue, and waits.
    fn say(&mut self, queue: usize, numbers: &[u32]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let transport = &mut self.transport;
        self.queues[queue].add_notify_wait_pop(&[&bytes], &mut [], transport).unwrap();
    }

    fn configuration(&self) -> (u32, u32) {
        let field = |offset| self.transport.read_config_space(offset).unwrap();
        (field(0), field(4))
    }

    fn status(&self) -> String {
        self.world.status()
    }
}

fn numbers(pages: impl IntoIterator<Item = u32>) -> Vec<u32> {
    pages.into_iter().map(|page| FIRST + page).collect()
}

fn set(pages: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    pages.into_iter().collect()
}

fn what_the_driver_names_goes_and_is_asked_for_by_the_configuration(place: Place) {
    for options in [&[][..], &[("lend", None)]] {
        let mut driver = Driver::new(place, options, MUST_TELL_HOST | STATS_VQ);
        assert_eq!(driver.configuration(), (0, 0));
        driver.pages.want(PAGES - 256);
        driver.world.wake();
        assert!(driver.world.line(), "the configuration has changed");
        assert_eq!(driver.transport.ack_interrupt().bits(), 2);
        assert_eq!(driver.configuration(), (256, 0));
        driver.say(0, &numbers((0..256).rev()));
        assert_eq!(driver.pages.gone(), set(0..256));
        driver.transport.write_config_space(4, 256_u32).unwrap();
        driver.transport.write_config_space(0, 99_u32).unwrap();
        assert_eq!(driver.configuration(), (256, 256), "what the host wants is not the driver's to say");
        let status = driver.status();
        assert!(status.contains("has 3072 of 4096 KiB, 3072 wanted, 1024 in the balloon"), "{status}");
        // More of them come back when they are touched, which the device has no part in.
        driver.say(1, &numbers(0..256));
        assert_eq!(driver.pages.gone(), set(0..256));
        driver.world.wake();
        assert_eq!(driver.transport.ack_interrupt().bits() & 2, 0, "nothing new is wanted");
    }
}

fn what_could_not_be_kept_is_not_offered(place: Place) {
    let plain = Driver::new(place, &[], 0);
    let offered = plain.transport_features();
    assert_eq!(offered & 0x3f, MUST_TELL_HOST | STATS_VQ, "no reports without `lend`");
    let lender = Driver::new(place, &[("lend", None)], PAGE_REPORTING);
    assert_eq!(lender.transport_features() & 0x3f, MUST_TELL_HOST | STATS_VQ | PAGE_REPORTING);
    assert_eq!(offered & DEFLATE_ON_OOM, 0);
}

impl Driver {
    fn transport_features(&self) -> u64 {
        self.world.transport().read_device_features()
    }
}

fn rubbish_takes_nothing_but_the_guests_own(place: Place) {
    let mut driver = Driver::new(place, &[], MUST_TELL_HOST);
    let own = FIRST..FIRST + PAGES as u32;
    let rubbish = [0, 1, FIRST - 1, own.end, u32::MAX, 0x8000_0000, own.end - 1, own.end - 1, FIRST];
    driver.say(0, &rubbish);
    assert_eq!(driver.pages.gone(), set([0, PAGES - 1]));
    // Four bytes and a half are one number.
    let transport = &mut driver.transport;
    let bytes = [(FIRST + 5).to_le_bytes().as_slice(), &[1, 2]].concat();
    driver.queues[0].add_notify_wait_pop(&[&bytes], &mut [], transport).unwrap();
    assert_eq!(driver.pages.gone(), set([0, 5, PAGES - 1]));
    // Nor does a request with nothing in it, or with room for something.
    driver.queues[0].add_notify_wait_pop(&[], &mut [&mut [0; 8]], transport).unwrap();
    driver.queues[1].add_notify_wait_pop(&[&[1, 2, 3]], &mut [], transport).unwrap();
    assert_eq!(driver.pages.gone().len(), 3);
}

/// A report's buffers are the pages: here they are within the drivers' memory, which is declared the guest's RAM.
fn reported_pages_go_by_either_of_two_queues(place: Place) {
    for queue in [3, 4] {
        let mut driver = Driver::new(place, &[("lend", None)], MUST_TELL_HOST | STATS_VQ | PAGE_REPORTING);
        driver.pages.set(Ipa(0x8000_0000), 64);
        let transport = &mut driver.transport;
        let mut buffer = vec![0; 5 * 4096 + 100];
        driver.queues[queue].add_notify_wait_pop(&[], &mut [&mut buffer], transport).unwrap();
        let gone: Vec<u64> = driver.pages.gone().into_iter().collect();
        // The place of the buffer is the kit's affair: at least four whole pages of it are in a row.
        assert!((4..=5).contains(&gone.len()) && gone.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{gone:?}");
    }
}

fn reports_that_were_not_negotiated_are_not_heard(place: Place) {
    let mut driver = Driver::new(place, &[("lend", None)], MUST_TELL_HOST);
    driver.pages.set(Ipa(0x8000_0000), 64);
    let transport = &mut driver.transport;
    let mut queue = Queue::new(transport, 4, false, false).unwrap();
    let mut buffer = vec![0; 8192];
    // SAFETY: the buffer lives as long as the queue.
    unsafe { queue.add(&[], &mut [&mut buffer]) }.unwrap();
    transport.notify(4);
    assert!(!queue.can_pop());
    assert!(driver.pages.gone().is_empty());
}

fn the_guests_own_numbers_are_shown_and_asked_for_again(place: Place) {
    let mut driver = Driver::new(place, &[], MUST_TELL_HOST | STATS_VQ);
    let say = |driver: &mut Driver, free: u64, available: u64| {
        let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        let bytes = [entry(4, free), entry(0x7777, 1), entry(6, available), vec![6]].concat();
        // SAFETY: leaked, so it lives.
        let token = unsafe { driver.queues[2].add(&[Box::leak(bytes.into_boxed_slice())], &mut []) }.unwrap();
        driver.transport.notify(2);
        token
    };
    say(&mut driver, 5 << 20, 7 << 20);
    assert!(driver.status().contains(", 5120 free, 7168 available"), "{}", driver.status());
    assert!(!driver.queues[2].can_pop(), "it is kept");
    driver.world.work();
    assert!(!driver.queues[2].can_pop());
    driver.world.pass(Rig::clock().frequency().nanoseconds(10_000_000_000).saturating_add(Ticks(1)));
    driver.world.work();
    assert!(driver.queues[2].can_pop(), "asked for again");
    driver.start(MUST_TELL_HOST);
    assert!(!driver.status().contains("free"), "{}", driver.status());
}

#[test]
fn a_vm_without_ram_to_give_has_no_balloon() {
    let factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == "virtio-balloon").unwrap();
    let errors = Rig::new(factory, &[], &mut Wires::default()).err().unwrap();
    assert!(errors[0].message.contains("no RAM to give back"), "{errors:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 48 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a set: whatever is said in whatever pieces, exactly the guest's own pages among it are gone, until touched.
    #[test]
    fn pages_are_those_of_a_set(requests in vec((vec(0..2 * PAGES as u32, 0..200), vec(0..PAGES, 0..20)), 1..12)) {
        let mut driver = Driver::new(Place::Memory, &[], MUST_TELL_HOST);
        let mut gone = BTreeSet::new();
        for (inflated, touched) in requests {
            if !inflated.is_empty() {
                driver.say(0, &numbers(inflated.iter().copied()));
            }
            gone.extend(inflated.into_iter().map(u64::from).filter(|page| *page < PAGES));
            for page in touched {
                driver.pages.touch(page);
                gone.remove(&page);
            }
            prop_assert_eq!(&driver.pages.gone(), &gone);
        }
    }
}
