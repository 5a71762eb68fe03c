//! `vdev virtio-input`.

use crate::driver::{Machine, Place, Registers, World, negotiate, tests};
use vdev::testkit::Wires;
use virtio_drivers::device::input::VirtIOInput;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};

tests! {
    a_driver_finds_one_key and legacy,
    a_press_is_four_events and legacy,
    where_nobody_listens_the_button_is_not_handled,
    with_too_few_buffers_nothing_is_claimed_and_nothing_comes,
    a_press_before_the_worker_runs_is_one_press,
    a_press_is_forgotten_with_the_driver_that_was_to_hear_of_it,
    a_driver_that_has_made_a_mistake_is_not_told,
    a_press_outlives_its_queue,
    what_the_driver_says_is_taken_and_dropped,
}

const NAME: &str = "virtio-input";
const RING_RESET: u64 = 1 << 40;
type Driver = VirtIOInput<Machine, Registers>;
/// `EV_KEY`, `KEY_POWER` down, `SYN_REPORT`, up, `SYN_REPORT`.
const PRESS: [(u16, u16, u32); 4] = [(1, 116, 1), (0, 0, 0), (1, 116, 0), (0, 0, 0)];

fn world(place: Place) -> World {
    World::new(place, NAME, &[], Wires::default())
}

/// Somebody presses the button. Says whether the device has handled that.
fn press(world: &World) -> bool {
    let handled = world.press_button();
    world.work();
    handled
}

fn events(driver: &mut Driver) -> Vec<(u16, u16, u32)> {
    let next = || driver.pop_pending_event().map(|event| (event.event_type, event.code, event.value));
    std::iter::from_fn(next).collect()
}

fn a_driver_finds_one_key(place: Place) {
    let world = world(place);
    let mut driver = Driver::new(world.transport()).unwrap();
    assert_eq!(driver.name().unwrap(), "bulkhead power button");
    assert_eq!(driver.serial_number().unwrap(), "");
    let ids = driver.ids().unwrap();
    assert_eq!((ids.bustype, ids.vendor, ids.product, ids.version), (6, 0, 1, 1), "BUS_VIRTUAL");
    let keys = driver.ev_bits(1).unwrap();
    assert_eq!((keys.len(), keys[14]), (15, 0x10), "KEY_POWER is 116");
    assert!(keys[..14].iter().all(|byte| *byte == 0));
    assert!((0..32).filter(|kind| *kind != 1).all(|kind| driver.ev_bits(kind).unwrap().is_empty()));
    assert!(driver.prop_bits().unwrap().is_empty());
    assert!(driver.abs_info(0).is_err());
}

fn a_press_is_four_events(place: Place) {
    let world = world(place);
    let mut driver = Driver::new(world.transport()).unwrap();
    world.work();
    assert!(!world.line());
    for times in 1..=20 {
        assert!(press(&world));
        assert!(world.line(), "it interrupts");
        assert!(!driver.ack_interrupt().is_empty());
        assert_eq!(events(&mut driver), PRESS, "press {times}: buffers go round");
        assert_eq!(events(&mut driver), []);
    }
    let status = world.status();
    assert!(status.contains("; pressed 20 times") && !status.contains("nobody"), "{status}");
}

fn where_nobody_listens_the_button_is_not_handled(place: Place) {
    let world = world(place);
    assert!(!press(&world), "no driver");
    assert!(world.status().contains("pressed 0 times, nobody listens"));
    let mut transport = world.transport();
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    assert!(!press(&world), "one that is not ready");
    let mut driver = Driver::new(world.transport()).unwrap();
    world.work();
    assert!(press(&world));
    assert_eq!(events(&mut driver), PRESS, "and nothing of what came before");
    transport.set_status(DeviceStatus::empty());
    assert!(!press(&world), "one that has gone");
}

/// Buffers one by one, for a driver that has few.
struct Raw {
    world: World,
    transport: Registers,
    queues: [VirtQueue<Machine, 8>; 2],
    /// What has been offered, with the number by which it is known, and not come back.
    offered: Vec<(u16, Box<[u8]>)>,
}

impl Raw {
    /// Negotiates these features besides `VERSION_1`.
    fn new(world: &World, features: u64) -> Self {
        let mut transport = world.transport();
        negotiate(&mut transport, features);
        let queues = [0, 1].map(|number| VirtQueue::new(&mut transport, number, false, false).unwrap());
        transport.finish_init();
        Self { world: world.clone(), transport, queues, offered: Vec::new() }
    }

    fn offer(&mut self, length: usize) {
        let mut buffer = vec![0xee; length].into_boxed_slice();
        // SAFETY: the buffer stays where it is until it is popped.
        let token = unsafe { self.queues[0].add(&[], &mut [&mut buffer]) }.unwrap();
        self.offered.push((token, buffer));
        self.transport.notify(0);
    }

    /// What has come back: as much as was written.
    fn take(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(token) = self.queues[0].peek_used() {
            let place = self.offered.iter().position(|(other, _)| *other == token).unwrap();
            let (_, mut buffer) = self.offered.remove(place);
            // SAFETY: the buffer that was added.
            let length = unsafe { self.queues[0].pop_used(token, &[], &mut [&mut buffer]) }.unwrap();
            all.push(buffer[..length as usize].to_vec());
        }
        all
    }
}

fn bytes(event: (u16, u16, u32)) -> Vec<u8> {
    [&event.0.to_le_bytes()[..], &event.1.to_le_bytes(), &event.2.to_le_bytes()].concat()
}

fn with_too_few_buffers_nothing_is_claimed_and_nothing_comes(place: Place) {
    let world = world(place);
    let mut raw = Raw::new(&world, 0);
    for count in 0..4 {
        assert!(!press(&world), "{count} buffers");
        assert_eq!(raw.take(), Vec::<Vec<u8>>::new());
        raw.offer(8);
    }
    assert!(press(&world), "four");
    assert_eq!(raw.take(), PRESS.map(bytes));
    assert!(!press(&world), "they are used up");
    // Larger ones do, and what is too small for an event goes back as it came.
    for length in [7, 16, 1, 16, 9, 8] {
        raw.offer(length);
    }
    assert_eq!(raw.take(), [vec![], vec![]]);
    assert!(press(&world));
    assert_eq!(raw.take(), PRESS.map(bytes));
}

fn a_press_before_the_worker_runs_is_one_press(place: Place) {
    let world = world(place);
    let mut driver = Driver::new(world.transport()).unwrap();
    world.work();
    for _ in 0..3 {
        assert!(world.press_button());
    }
    world.work();
    assert_eq!(events(&mut driver), PRESS);
}

fn a_press_is_forgotten_with_the_driver_that_was_to_hear_of_it(place: Place) {
    let world = world(place);
    let _first = Driver::new(world.transport()).unwrap();
    world.work();
    assert!(world.press_button());
    let mut second = Driver::new(world.transport()).unwrap();
    world.work();
    assert_eq!(events(&mut second), []);
    assert!(press(&world));
    assert_eq!(events(&mut second), PRESS);
}

/// How a queue goes alone.
type Goes = fn(&mut Registers, u16);

/// The ways that there are: it is reset (2.6.1), and in memory, without that having been negotiated, it is no longer ready (4.2.2).
/// Each with the features that it takes.
fn ways(place: Place) -> Vec<(u64, Goes)> {
    let reset: (u64, Goes) = (RING_RESET, Registers::reset_queue);
    let not_ready: (u64, Goes) = (0, Registers::queue_unset);
    if place == Place::Bus { vec![reset] } else { vec![reset, not_ready] }
}

fn a_driver_that_has_made_a_mistake_is_not_told(place: Place) {
    for (features, goes) in ways(place) {
        let world = world(place);
        let mut raw = Raw::new(&world, features);
        (0..4).for_each(|_| raw.offer(8));
        goes(&mut raw.transport, 1);
        // Where there is no memory.
        raw.transport.queue_set(1, 8, 1 << 40, 1 << 40, 1 << 40);
        raw.transport.notify(1);
        assert!(raw.transport.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET));
        assert!(!press(&world));
        assert_eq!(raw.take(), Vec::<Vec<u8>>::new());
    }
}

fn a_press_outlives_its_queue(place: Place) {
    for (features, goes) in ways(place) {
        let world = world(place);
        let mut raw = Raw::new(&world, features);
        (0..4).for_each(|_| raw.offer(8));
        goes(&mut raw.transport, 0);
        assert!(press(&world), "there were buffers");
        raw.offered.clear();
        raw.queues[0] = VirtQueue::new(&mut raw.transport, 0, false, false).unwrap();
        for _ in 0..4 {
            assert_eq!(raw.take(), Vec::<Vec<u8>>::new(), "all or nothing");
            raw.offer(8);
        }
        assert_eq!(raw.take(), PRESS.map(bytes));
    }
}

fn what_the_driver_says_is_taken_and_dropped(place: Place) {
    let world = world(place);
    let mut raw = Raw::new(&world, 0);
    for round in 0..50 {
        let led = bytes((0x11, 0, round));
        // SAFETY: the buffer is popped below.
        let token = unsafe { raw.queues[1].add(&[&led], &mut []) }.unwrap();
        raw.transport.notify(1);
        assert!(raw.queues[1].can_pop());
        // SAFETY: the buffer that was added.
        assert_eq!(unsafe { raw.queues[1].pop_used(token, &[&led], &mut []) }, Ok(0));
    }
    assert!(raw.world.line());
}
