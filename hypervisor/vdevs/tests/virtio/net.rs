//! `vdev virtio-net`.

use crate::driver::{Machine, Place, World, tests};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use types::{AccessSize, Ticks};
use vdev::testkit::{Rig, Wires};
use vdev::{
    Checksum, FillFrame, Frame, Mac, NetFilter, NetPort, NetWish, Offloads, Received, Segments, Sent, TakeFrame,
    Unfinished,
};
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};

tests! {
    a_driver_sends_and_receives and legacy,
    frames_wait_for_buffers_and_those_that_fit_into_none_are_lost,
    what_is_left_undone_is_handed_on_as_it_is,
    frames_without_enough_buffers_wait_for_more,
    a_driver_gets_what_has_come_since_it_is_there,
    packets_that_cannot_be_are_not_sent_and_given_back,
    a_sender_with_a_limit_waits,
    orders_choose_frames,
    without_having_been_negotiated_there_are_no_orders,
    the_link_is_what_the_network_says,
    options_are_checked_and_handed_on,
}

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
const VERSION_1: u64 = 1 << 32;
const MRG_RXBUF: u64 = 1 << 15;
const CTRL: u64 = 1 << 17 | 1 << 18;
/// `CSUM`, `GUEST_CSUM`, `GUEST_TSO4`, `HOST_TSO4`.
const OFFLOADS: u64 = 1 | 1 << 1 | 1 << 7 | 1 << 11;

/// A network that is the test; clones are handles of the same.
#[derive(Clone, Default)]
struct Cable(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    wish: NetWish,
    up: bool,
    takes: Option<Offloads>,
    filter: NetFilter,
    /// Nothing is sent before.
    not_before: Ticks,
    sent: Vec<(Vec<u8>, Unfinished)>,
    waiting: VecDeque<(Vec<u8>, Unfinished)>,
}

impl NetPort for Cable {
    fn is_up(&self) -> bool {
        self.0.lock().unwrap().up
    }

    fn open(&self, takes: Offloads) {
        let mut state = self.0.lock().unwrap();
        state.takes = Some(takes);
        state.waiting.clear();
    }

    fn set_filter(&self, filter: &NetFilter) {
        self.0.lock().unwrap().filter = *filter;
    }

    fn send(&self, now: Ticks, unfinished: Unfinished, length: usize, fill: &mut FillFrame<'_>) -> Sent {
        let not_before = self.0.lock().unwrap().not_before;
        if now < not_before {
            return Sent::Wait(not_before);
        }
        let mut bytes = vec![0; length];
        if bytes.chunks_mut(100).all(fill) {
            self.0.lock().unwrap().sent.push((bytes, unfinished));
        }
        Sent::Gone
    }

    fn receive(&self, take: &mut TakeFrame<'_>) -> Received {
        let Some((bytes, unfinished)) = self.0.lock().unwrap().waiting.pop_front() else { return Received::None };
        let received = take(Frame { unfinished, length: bytes.len(), parts: &mut bytes.chunks(100) });
        if received == Received::Left {
            self.0.lock().unwrap().waiting.push_front((bytes, unfinished));
        }
        received
    }
}

impl Cable {
    fn wires(&self) -> Wires {
        let (mut wires, cable) = (Wires::default(), self.clone());
        wires.net = Some(Box::new(move |wish| {
            cable.0.lock().unwrap().wish = wish.clone();
            Ok((wish.mac.unwrap_or(MAC), Arc::new(cable.clone())))
        }));
        wires
    }

    fn take_sent(&self) -> Vec<(Vec<u8>, Unfinished)> {
        std::mem::take(&mut self.0.lock().unwrap().sent)
    }

    fn add(&self, frame: &[u8], unfinished: Unfinished) {
        self.0.lock().unwrap().waiting.push_back((frame.to_vec(), unfinished));
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.0.lock().unwrap())
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 / 3) as u8).collect()
}

/// The device wakes up because its network has something, and works.
fn wake(world: &World) {
    world.wake();
    world.work();
}

fn a_driver_sends_and_receives(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    let mut net = VirtIONetRaw::<Machine, _, 16>::new(world.transport()).unwrap();
    assert_eq!(net.mac_address(), MAC.0);
    for length in [14, 60, 1514] {
        net.send(&bytes(length)).unwrap();
        assert_eq!(cable.take_sent(), [(bytes(length), Unfinished::default())], "{length}");
        let mut buffer = vec![0; 1526];
        // SAFETY: the buffer lives, and is not touched, until it is completed below.
        let token = unsafe { net.receive_begin(&mut buffer) }.unwrap();
        assert_eq!(net.poll_receive(), None);
        cable.add(&bytes(length), Unfinished::default());
        wake(&world);
        assert_eq!(net.poll_receive(), Some(token));
        // SAFETY: the same buffer.
        let (header, packet) = unsafe { net.receive_complete(token, &mut buffer) }.unwrap();
        assert_eq!((header, packet), (if place.is_legacy() { 10 } else { 12 }, length));
        assert_eq!(buffer[header..header + packet], bytes(length));
        assert!(buffer[..10].iter().all(|byte| *byte == 0));
        assert!(place.is_legacy() != (buffer[10..12] == [1, 0]) || length < 60, "`num_buffers` (5.1.6.4)");
    }
}

fn frames_wait_for_buffers_and_those_that_fit_into_none_are_lost(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    let mut net = VirtIONetRaw::<Machine, _, 16>::new(world.transport()).unwrap();
    world.work();
    for length in [1600, 500] {
        cable.add(&bytes(length), Unfinished::default());
    }
    wake(&world);
    assert_eq!(cable.with(|state| state.waiting.len()), 2);
    let mut buffer = vec![0; 1526];
    let (_, length) = net.receive_wait(&mut buffer).unwrap();
    assert_eq!((length, cable.with(|state| state.waiting.len())), (500, 0));
}

/// A driver that says itself what it negotiates.
struct Driver<T> {
    world: World,
    transport: T,
    receive: VirtQueue<Machine, 8>,
    transmit: VirtQueue<Machine, 8>,
    control: VirtQueue<Machine, 8>,
}

fn driver(world: &World, features: u64) -> Driver<impl Transport> {
    let mut driver = before_driver_ok(world, features);
    driver.go();
    driver
}

/// One that has done everything but that.
fn before_driver_ok(world: &World, features: u64) -> Driver<impl Transport> {
    let mut transport = world.transport();
    transport.set_status(DeviceStatus::empty());
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    assert_eq!(transport.read_device_features() & features, features, "{features:#x} are offered");
    transport.write_driver_features(features | VERSION_1);
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK);
    let mut queue = |number| VirtQueue::new(&mut transport, number, false, false).unwrap();
    let (receive, transmit, control) = (queue(0), queue(1), queue(2));
    Driver { world: world.clone(), transport, receive, transmit, control }
}

impl<T: Transport> Driver<T> {
    fn go(&mut self) {
        self.transport.finish_init();
        self.world.work();
    }

    fn send(&mut self, header: [u8; 12], packet: &[u8]) {
        self.transmit.add_notify_wait_pop(&[&header, packet], &mut [], &mut self.transport).unwrap();
    }

    fn order(&mut self, order: &[u8]) -> u8 {
        let mut answer = [0xee];
        self.control.add_notify_wait_pop(&[order], &mut [&mut answer], &mut self.transport).unwrap();
        answer[0]
    }

    /// Offers buffers of these sizes; returns what is in those that come back.
    fn receive(&mut self, sizes: &[usize]) -> Vec<Vec<u8>> {
        let mut buffers: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0; *size]).collect();
        // SAFETY: the buffers live until they have been popped, or the whole test ends.
        let add = |buffer: &mut Vec<u8>| unsafe { self.receive.add(&[], &mut [buffer]) }.unwrap();
        let tokens: Vec<u16> = buffers.iter_mut().map(add).collect();
        wake(&self.world);
        let mut got = Vec::new();
        for (token, buffer) in tokens.into_iter().zip(&mut buffers) {
            if self.receive.peek_used() == Some(token) {
                // SAFETY: the buffer that was added.
                let length = unsafe { self.receive.pop_used(token, &[], &mut [buffer]) }.unwrap();
                got.push(buffer[..length as usize].to_vec());
            }
        }
        std::mem::forget(buffers);
        got
    }
}

/// What `unfinished` looks like to a driver, less `num_buffers`.
const TSO_HEADER: [u8; 10] = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0];
const TSO: Unfinished = Unfinished {
    checksum: Some(Checksum { start: 34, offset: 16 }),
    segments: Some(Segments { ipv6: false, size: 1448, headers: 54 }),
};

fn what_is_left_undone_is_handed_on_as_it_is(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    let mut driver = driver(&world, OFFLOADS | MRG_RXBUF);
    assert_eq!(cable.with(|state| state.takes), Some(Offloads { checksum: true, tcp4: true, tcp6: false }));
    let mut header = [0; 12];
    header[..10].copy_from_slice(&TSO_HEADER);
    driver.send(header, &bytes(9000));
    assert_eq!(cable.take_sent(), [(bytes(9000), TSO)]);
    // Back again, in several buffers, of which the first says how many (5.1.6.4).
    cable.add(&bytes(5000), TSO);
    let got = driver.receive(&[2000, 100, 3000, 500]);
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [2000, 100, 2912]);
    assert_eq!((&got[0][..10], &got[0][10..12]), (&TSO_HEADER[..], &[3, 0][..]));
    assert_eq!(got.concat()[12..], bytes(5000));
    // The buffer that was not needed is for the next one.
    cable.add(&bytes(60), Unfinished::default());
    let before = driver.receive.can_pop();
    wake(&world);
    assert!(!before && driver.receive.can_pop());
}

fn frames_without_enough_buffers_wait_for_more(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    let mut driver = driver(&world, MRG_RXBUF);
    cable.add(&bytes(1000), Unfinished::default());
    assert_eq!(driver.receive(&[300, 300]).len(), 0);
    assert_eq!(cable.with(|state| state.waiting.len()), 1);
    assert!(!driver.receive.can_pop(), "none of them is given back meanwhile");
    driver.receive(&[300, 300]);
    assert_eq!((cable.with(|state| state.waiting.len()), driver.receive.can_pop()), (0, true));
}

/// What came when there was no driver, or another one, is nobody's.
fn a_driver_gets_what_has_come_since_it_is_there(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    let mut first = driver(&world, CTRL);
    assert_eq!(first.order(&[0, 0, 0]), 0);
    cable.add(&bytes(60), Unfinished::default());
    wake(&world);
    assert_eq!(cable.with(|state| state.waiting.len()), 1, "it has no buffers");
    first.transport.set_status(DeviceStatus::empty());
    cable.add(&bytes(61), Unfinished::default());
    wake(&world);
    let mut second = before_driver_ok(&world, 0);
    cable.add(&bytes(62), Unfinished::default());
    assert_eq!(second.receive(&[1526; 3]), [[0; 0]; 0]);
    second.go();
    assert!(!second.receive.can_pop());
    assert!(cable.with(|state| state.filter.promiscuous), "nor does what another one has ordered count");
    cable.add(&bytes(63), Unfinished::default());
    let more = second.receive(&[]);
    assert!(more.is_empty() && second.receive.can_pop() && cable.with(|state| state.waiting.is_empty()));
}

fn packets_that_cannot_be_are_not_sent_and_given_back(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    let mut driver = driver(&world, 0);
    let mut header = [0; 12];
    header[..10].copy_from_slice(&TSO_HEADER);
    // Not negotiated; too short; too long.
    driver.send(header, &bytes(9000));
    driver.send([0; 12], &bytes(13));
    driver.send([0; 12], &bytes(65_551));
    driver.transmit.add_notify_wait_pop(&[&[0; 5]], &mut [], &mut driver.transport).unwrap();
    assert_eq!(cable.take_sent(), []);
    driver.send([0; 12], &bytes(65_550));
    assert_eq!(cable.take_sent()[0].0.len(), 65_550);
    assert_eq!(driver.transport.get_status() & DeviceStatus::DEVICE_NEEDS_RESET, DeviceStatus::empty());
}

fn a_sender_with_a_limit_waits(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[("rate", Some("1M"))], cable.wires());
    assert_eq!(cable.with(|state| state.wish.rate), Some(1 << 20));
    let mut driver = driver(&world, 0);
    cable.with(|state| state.not_before = Ticks(500));
    let (header, packet) = ([0; 12], bytes(100));
    // SAFETY: the buffers live until the end of the test.
    let token = unsafe { driver.transmit.add(&[&header, &packet], &mut []) }.unwrap();
    driver.transport.notify(1);
    assert!(!driver.transmit.can_pop() && cable.take_sent().is_empty());
    world.pass(Ticks(500));
    world.work();
    assert_eq!((driver.transmit.peek_used(), cable.take_sent()), (Some(token), vec![(packet, Unfinished::default())]));
}

fn orders_choose_frames(place: Place) {
    const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    let mut driver = driver(&world, CTRL);
    let filter = || cable.with(|state| state.filter);
    assert!(filter().promiscuous);
    assert_eq!((driver.order(&[0, 0, 0]), filter().promiscuous), (0, false));
    assert_eq!((driver.order(&[0, 1, 1]), filter().all_groups), (0, true));
    assert_eq!((driver.order(&[0, 1, 0]), filter().all_groups), (0, false));
    let table = |count: u32, address: [u8; 6]| [count.to_le_bytes().to_vec(), address.repeat(count as usize)].concat();
    let tables = |stations: &[u8], groups: &[u8]| [&[1, 0], stations, groups].concat();
    assert_eq!(driver.order(&tables(&table(0, MAC.0), &table(1, GROUP))), 0);
    assert!(filter().passes(Mac(GROUP), MAC) && !filter().passes(Mac([1, 0, 0, 0, 0, 9]), MAC));
    // More than there is room for: all of them pass.
    assert_eq!(driver.order(&tables(&table(0, MAC.0), &table(100, GROUP))), 0);
    assert!(filter().passes(Mac([1, 0, 0, 0, 0, 9]), MAC) && !filter().passes(Mac([2, 0, 0, 0, 0, 9]), MAC));
    assert_eq!(driver.order(&tables(&table(100, GROUP), &table(0, GROUP))), 0);
    assert!(filter().promiscuous);
    assert_eq!(driver.order(&tables(&table(0, GROUP), &table(0, GROUP))), 0);
    // What is none changes nothing.
    let before = filter();
    let short = tables(&table(0, MAC.0), &table(2, GROUP)[..15]);
    let huge = tables(&u32::MAX.to_le_bytes(), &table(1, GROUP));
    let rest = [tables(&table(0, MAC.0), &table(1, GROUP)), vec![0]].concat();
    for wrong in [&[0, 0][..], &[0], &[0, 0, 2], &[0, 0, 1, 1], &[0, 2, 1], &[7, 0, 1], &short, &huge, &rest] {
        assert_eq!((driver.order(wrong), filter()), (1, before), "{wrong:?}");
    }
}

fn without_having_been_negotiated_there_are_no_orders(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    assert_eq!(driver(&world, 0).order(&[0, 0, 0]), 1);
    assert!(cable.with(|state| state.filter.promiscuous));
}

fn the_link_is_what_the_network_says(place: Place) {
    let cable = Cable::default();
    let world = World::new(place, "virtio-net", &[], cable.wires());
    let mut net = VirtIONetRaw::<Machine, _, 16>::new(world.transport()).unwrap();
    let status = || world.configuration(6, AccessSize::Halfword);
    assert_eq!(status(), 0);
    for up in [true, false] {
        cable.with(|state| state.up = up);
        wake(&world);
        assert_eq!(status(), up.into());
        assert!(net.ack_interrupt() == InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT);
        wake(&world);
        assert!(net.ack_interrupt() == InterruptStatus::empty(), "nothing has changed");
    }
}

fn options_are_checked_and_handed_on(place: Place) {
    let cable = Cable::default();
    let options = [
        ("mac", Some("02:11:22:33:44:55")),
        ("peer", Some("/dev/vswitch0")),
        ("peermac", Some("02:00:00:00:00:01")),
        ("group", Some("3")),
        ("peerfeats", Some("0x100")),
    ];
    let world = World::new(place, "virtio-net", &options, cable.wires());
    let wish = NetWish {
        name: place.name("virtio-net").to_string(),
        mac: Some(Mac([2, 0x11, 0x22, 0x33, 0x44, 0x55])),
        peer: Some("/dev/vswitch0".to_string()),
        peer_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        group: 3,
        rate: None,
    };
    assert_eq!(cable.with(|state| state.wish.clone()), wish);
    let offered = world.transport().read_device_features();
    assert_eq!((offered >> 11 & 1, offered >> 12 & 1), (0, 1), "the peer divides TCP over IPv4 only");
    let factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == "virtio-net").unwrap();
    for wrong in
        [("mac", "01:00:00:00:00:00"), ("mac", "x"), ("peermac", "00:00:00:00:00:00"), ("group", "4095"), ("rate", "0")]
    {
        let errors = Rig::new(factory, &[(wrong.0, Some(wrong.1))], &mut cable.wires()).err().unwrap();
        assert_eq!(errors[0].option, Some(wrong.0), "{errors:?}");
    }
    let errors = Rig::new(factory, &[], &mut Wires::default()).err().unwrap();
    assert!(errors[0].message.contains("there are no networks"), "{errors:?}");
}
