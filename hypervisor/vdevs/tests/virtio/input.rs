//! `vdev virtio-input`.

use crate::driver::{Machine, Registers, World};
use vdev::Control;
use vdev::testkit::{Rig, Wires};
use virtio_drivers::device::input::VirtIOInput;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};

const NAME: &str = "virtio-input";
type Driver = VirtIOInput<Machine, Registers>;
/// `EV_KEY`, `KEY_POWER` down, `SYN_REPORT`, up, `SYN_REPORT`.
const PRESS: [(u16, u16, u32); 4] = [(1, 116, 1), (0, 0, 0), (1, 116, 0), (0, 0, 0)];

fn world(options: &[(&str, Option<&str>)]) -> World {
    World::new(NAME, options, Wires::default())
}

/// Somebody presses the button. Says whether the device has handled that.
fn press(world: &World) -> bool {
    let mut handled = false;
    world.with(|rig| rig.control(Control::Button { handled: &mut handled })).unwrap();
    world.work();
    handled
}

fn events(driver: &mut Driver) -> Vec<(u16, u16, u32)> {
    let next = || driver.pop_pending_event().map(|event| (event.event_type, event.code, event.value));
    std::iter::from_fn(next).collect()
}

#[test]
fn a_driver_finds_one_key() {
    for options in [&[][..], &[("legacy", None)]] {
        let world = world(options);
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
}

#[test]
fn a_press_is_four_events_in_both_versions() {
    for options in [&[][..], &[("legacy", None)]] {
        let world = world(options);
        let mut driver = Driver::new(world.transport()).unwrap();
        world.work();
        assert!(!world.with(|rig| rig.line()));
        for times in 1..=20 {
            assert!(press(&world));
            assert!(world.with(|rig| rig.line()), "it interrupts");
            assert!(!driver.ack_interrupt().is_empty());
            assert_eq!(events(&mut driver), PRESS, "press {times}: buffers go round");
            assert_eq!(events(&mut driver), []);
        }
        let status = world.with(Rig::status);
        assert!(status.contains("; pressed 20 times") && !status.contains("nobody"), "{status}");
    }
}

#[test]
fn where_nobody_listens_the_button_is_not_handled() {
    let world = world(&[]);
    assert!(!press(&world), "no driver");
    assert!(world.with(Rig::status).contains("pressed 0 times, nobody listens"));
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
    fn new(world: &World) -> Self {
        let mut transport = world.transport();
        let found = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(DeviceStatus::empty());
        transport.set_status(found);
        transport.write_driver_features(1 << 32);
        transport.set_status(found | DeviceStatus::FEATURES_OK);
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

#[test]
fn with_too_few_buffers_nothing_is_claimed_and_nothing_comes() {
    let world = world(&[]);
    let mut raw = Raw::new(&world);
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

#[test]
fn a_press_before_the_worker_runs_is_one_press() {
    let world = world(&[]);
    let mut driver = Driver::new(world.transport()).unwrap();
    world.work();
    for _ in 0..3 {
        let mut handled = false;
        world.with(|rig| rig.control(Control::Button { handled: &mut handled })).unwrap();
        assert!(handled);
    }
    world.work();
    assert_eq!(events(&mut driver), PRESS);
}

#[test]
fn a_press_is_forgotten_with_the_driver_that_was_to_hear_of_it() {
    let world = world(&[]);
    let _first = Driver::new(world.transport()).unwrap();
    world.work();
    let mut handled = false;
    world.with(|rig| rig.control(Control::Button { handled: &mut handled })).unwrap();
    assert!(handled);
    let mut second = Driver::new(world.transport()).unwrap();
    world.work();
    assert_eq!(events(&mut second), []);
    assert!(press(&world));
    assert_eq!(events(&mut second), PRESS);
}

#[test]
fn a_driver_that_has_made_a_mistake_is_not_told() {
    let world = world(&[]);
    let mut raw = Raw::new(&world);
    (0..4).for_each(|_| raw.offer(8));
    raw.transport.queue_unset(1);
    // Where there is no memory.
    raw.transport.queue_set(1, 8, 1 << 40, 1 << 40, 1 << 40);
    raw.transport.notify(1);
    assert!(!press(&world));
    assert_eq!(raw.take(), Vec::<Vec<u8>>::new());
}

/// 2.6.1: a queue can go alone, and come back.
#[test]
fn a_press_outlives_its_queue() {
    let world = world(&[]);
    let mut raw = Raw::new(&world);
    (0..4).for_each(|_| raw.offer(8));
    raw.transport.queue_unset(0);
    assert!(press(&world), "there were buffers");
    raw.offered.clear();
    raw.queues[0] = VirtQueue::new(&mut raw.transport, 0, false, false).unwrap();
    for _ in 0..4 {
        assert_eq!(raw.take(), Vec::<Vec<u8>>::new(), "all or nothing");
        raw.offer(8);
    }
    assert_eq!(raw.take(), PRESS.map(bytes));
}

#[test]
fn what_the_driver_says_is_taken_and_dropped() {
    let world = world(&[]);
    let mut raw = Raw::new(&world);
    for round in 0..50 {
        let led = bytes((0x11, 0, round));
        // SAFETY: the buffer is popped below.
        let token = unsafe { raw.queues[1].add(&[&led], &mut []) }.unwrap();
        raw.transport.notify(1);
        assert!(raw.queues[1].can_pop());
        // SAFETY: the buffer that was added.
        assert_eq!(unsafe { raw.queues[1].pop_used(token, &[&led], &mut []) }, Ok(0));
    }
    assert!(raw.world.with(|rig| rig.line()));
}
