//! `vdev virtio-vsock`, over the host's own connections.

use crate::driver::{Machine, Place, Registers, Words, World, negotiate, tests};
use host::vsock::{AGENT_PORT, Door, ECHO_PORT, HOST_CID, Hub, Signals, StationId, Storage, Table, WINDOW};
use std::sync::{Arc, Mutex};
use types::AccessSize;
use vdev::testkit::{Rig, Wires};
use vdev::{FillFrame, VsockPacket, VsockPort, VsockSignal, VsockWish};
use virtio_drivers::device::socket::{VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEventType};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};

tests! {
    a_driver_speaks_with_the_host and legacy,
    two_guests_of_a_group_speak_with_each_other,
    an_agent_is_heard_and_asked_to_shut_down,
    a_driver_that_comes_again_begins_anew,
    a_packet_has_the_data_that_it_says,
    what_is_no_header_is_nothing,
    data_comes_in_as_many_packets_as_buffers_want,
    features_are_those_of_5_10_3,
    a_queue_that_is_reset_alone_takes_nothing_with_it,
    options_are_checked_and_the_cid_is_shown,
}

const NAME: &str = "virtio-vsock";
const RING_RESET: u64 = 1 << 40;

/// The host's side of all devices; clones are handles of the same.
#[derive(Clone)]
struct Host {
    hub: Arc<Mutex<Hub<Log>>>,
    signals: &'static Signals,
    log: Log,
}

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Door for Log {
    fn ring(&self) {}

    fn said(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_string());
    }
}

impl Table for Host {
    type Door = Log;

    fn with<R>(&self, work: impl FnOnce(&mut Hub<Log>) -> R) -> R {
        work(&mut self.hub.lock().unwrap())
    }
}

struct Port(Host, StationId);

impl VsockPort for Port {
    fn open(&self) {
        self.0.with(|hub| hub.open(self.1));
    }

    fn signal(&self, signal: VsockSignal) -> bool {
        self.0.signals.send(self.1, signal)
    }

    fn attend(&self) {
        host::vsock::attend(&self.0, self.0.signals, self.1);
    }

    fn send(&self, packet: &VsockPacket, fill: &mut FillFrame<'_>) -> bool {
        host::vsock::send(&self.0, self.1, packet, fill)
    }

    fn receive(&self, into: &mut [u8]) -> Option<VsockPacket> {
        host::vsock::receive(&self.0, self.1, into)
    }
}

impl Host {
    fn new() -> Self {
        let signals = Box::leak(Box::new(Signals::new()));
        Self { hub: Arc::new(Mutex::new(Hub::new(signals))), signals, log: Log::default() }
    }

    fn wires(&self) -> Wires {
        let (mut wires, host) = (Wires::default(), self.clone());
        wires.vsock = Some(Box::new(move |wish: &VsockWish| {
            let parts = (host.log.clone(), Storage::new().unwrap());
            let attached = host.with(|hub| hub.attach("vm", wish, parts));
            attached.map(|(id, cid)| (cid, Arc::new(Port(host.clone(), id)) as _)).map_err(vdev::BackendError)
        }));
        wires
    }

    fn device(&self, place: Place, options: Words<'_>) -> World {
        World::new(place, NAME, options, self.wires())
    }
}

/// The device is rung, and works.
fn wake(world: &World) {
    world.wake();
    world.work();
}

type Sockets = VsockConnectionManager<Machine, Registers>;

fn sockets(world: &World) -> Sockets {
    VsockConnectionManager::new(VirtIOSocket::<Machine, _>::new(world.transport()).unwrap())
}

/// What has happened, without what is said of room.
fn events(world: &World, sockets: &mut Sockets) -> Vec<VsockEventType> {
    let mut events = Vec::new();
    for _ in 0..100 {
        wake(world);
        match sockets.poll().unwrap() {
            Some(event) if event.event_type == VsockEventType::CreditUpdate => {}
            Some(event) => events.push(event.event_type),
            None => break,
        }
    }
    events
}

fn is_reset(events: &[VsockEventType]) -> bool {
    format!("{events:?}") == "[Disconnected { reason: Reset }]"
}

const ECHO: VsockAddr = VsockAddr { cid: HOST_CID as u64, port: ECHO_PORT };
const AGENT: VsockAddr = VsockAddr { cid: HOST_CID as u64, port: AGENT_PORT };

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 / 3) as u8).collect()
}

fn a_driver_speaks_with_the_host(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[("cid", Some("5"))]);
    let mut sockets = sockets(&world);
    assert_eq!(sockets.guest_cid(), 5);
    sockets.connect(ECHO, 100).unwrap();
    assert_eq!(events(&world, &mut sockets), [VsockEventType::Connected]);
    let mut total = 0;
    for length in [1, 44, 300, 1000].into_iter().cycle().take(60) {
        sockets.send(ECHO, 100, &bytes(length)).unwrap();
        let lengths: Vec<VsockEventType> = events(&world, &mut sockets);
        assert!(lengths.iter().all(|event| matches!(event, VsockEventType::Received { .. })), "{lengths:?}");
        let mut got = vec![0; length];
        let mut done = 0;
        while done < length {
            let more = sockets.recv(ECHO, 100, &mut got[done..]).unwrap();
            assert!(more > 0);
            done += more;
        }
        assert_eq!(got, bytes(length));
        sockets.update_credit(ECHO, 100).unwrap();
        total += length;
    }
    assert!(total > WINDOW as usize);
    sockets.shutdown(ECHO, 100).unwrap();
    assert!(is_reset(&events(&world, &mut sockets)));
    sockets.connect(VsockAddr { port: 99, ..ECHO }, 101).unwrap();
    assert!(is_reset(&events(&world, &mut sockets)));
}

fn two_guests_of_a_group_speak_with_each_other(place: Place) {
    let host = Host::new();
    let options = |cid| [("cid", Some(cid)), ("group", Some("g"))];
    let (first, second) = (host.device(place, &options("5")), host.device(place, &options("6")));
    let (mut a, mut b) = (sockets(&first), sockets(&second));
    b.listen(20);
    let (to_b, to_a) = (VsockAddr { cid: 6, port: 20 }, VsockAddr { cid: 5, port: 10 });
    // Whoever is there first: the other one's driver has not looked yet.
    wake(&second);
    a.connect(to_b, 10).unwrap();
    assert_eq!(events(&second, &mut b), [VsockEventType::ConnectionRequest]);
    assert_eq!(events(&first, &mut a), [VsockEventType::Connected]);
    for _ in 0..100 {
        a.send(to_b, 10, &bytes(700)).unwrap();
        events(&second, &mut b);
        let mut got = vec![0; 700];
        let mut done = 0;
        while done < got.len() {
            done += b.recv(to_a, 20, &mut got[done..]).unwrap();
        }
        assert_eq!(got, bytes(700));
        b.update_credit(to_a, 20).unwrap();
        events(&first, &mut a);
    }
    // The one driver goes: the other one is told.
    drop(b);
    second.transport().set_status(DeviceStatus::empty());
    second.work();
    assert!(is_reset(&events(&first, &mut a)));
}

fn an_agent_is_heard_and_asked_to_shut_down(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[]);
    let button = || {
        let handled = world.press_button();
        world.work();
        handled
    };
    assert!(!button(), "there is no driver");
    let mut sockets = sockets(&world);
    assert!(!button(), "there is no agent");
    sockets.connect(AGENT, 1).unwrap();
    assert_eq!(events(&world, &mut sockets), [VsockEventType::Connected]);
    sockets.send(AGENT, 1, b"ready\n").unwrap();
    assert_eq!(*host.log.0.lock().unwrap(), ["ready"]);
    assert!(button());
    assert_eq!(sockets.poll().unwrap().unwrap().event_type, VsockEventType::Received { length: 9 });
    let mut line = [0; 9];
    assert_eq!(sockets.recv(AGENT, 1, &mut line), Ok(9));
    assert_eq!(&line, b"shutdown\n");
    sockets.force_close(AGENT, 1).unwrap();
    assert!(!button());
}

fn a_driver_that_comes_again_begins_anew(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[]);
    for _ in 0..3 {
        let mut sockets = sockets(&world);
        assert_eq!(sockets.guest_cid(), 1024);
        sockets.connect(ECHO, 100).unwrap();
        assert_eq!(events(&world, &mut sockets), [VsockEventType::Connected]);
    }
}

/// A driver that has its queues in its own hands.
struct Raw {
    world: World,
    transport: Registers,
    queues: [VirtQueue<Machine, 8>; 3],
}

impl Raw {
    fn new(world: &World, features: u64) -> Self {
        let mut transport = world.transport();
        negotiate(&mut transport, features);
        let queues = [0, 1, 2].map(|number| VirtQueue::new(&mut transport, number, false, false).unwrap());
        transport.finish_init();
        Self { world: world.clone(), transport, queues }
    }

    /// Sends a packet and says what comes back of it, into buffers of these lengths.
    fn exchange(&mut self, packet: &[u8], buffers: &mut [Vec<u8>]) -> Vec<u32> {
        self.offer(0, buffers);
        // SAFETY: the buffer lives until it is popped.
        let token = unsafe { self.queues[1].add(&[packet], &mut []) }.unwrap();
        self.transport.notify(1);
        // SAFETY: as above.
        unsafe { self.queues[1].pop_used(token, &[packet], &mut []) }.unwrap();
        self.take(0, buffers)
    }

    fn offer(&mut self, queue: u16, buffers: &mut [Vec<u8>]) {
        for buffer in buffers {
            // SAFETY: tests take them back before they are dropped.
            unsafe { self.queues[usize::from(queue)].add(&[], &mut [buffer]) }.unwrap();
        }
        self.transport.notify(queue);
    }

    /// Takes back the buffers that are used, from the first on.
    fn take(&mut self, queue: usize, buffers: &mut [Vec<u8>]) -> Vec<u32> {
        wake(&self.world);
        let mut lengths = Vec::new();
        for buffer in buffers {
            let Some(token) = self.queues[queue].peek_used() else { break };
            // SAFETY: it was added.
            lengths.push(unsafe { self.queues[queue].pop_used(token, &[], &mut [buffer]) }.unwrap());
        }
        lengths
    }
}

/// A packet of CID 1024, from port 9 to the host.
fn packet(port: u32, kind: u16, op: u16, len: u32, data: &[u8]) -> Vec<u8> {
    let mut packet = [1024_u64, 2].map(u64::to_le_bytes).concat();
    packet.extend([9, port, len].map(u32::to_le_bytes).concat());
    packet.extend([kind, op].map(u16::to_le_bytes).concat());
    packet.extend([0, 4096, 0_u32].map(u32::to_le_bytes).concat());
    packet.extend(data);
    packet
}

/// Operation, type and data of what has come.
fn read(buffer: &[u8], length: u32) -> (u8, u8, Vec<u8>) {
    (buffer[30], buffer[28], buffer[44..length as usize].to_vec())
}

fn a_packet_has_the_data_that_it_says(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[]);
    let mut driver = Raw::new(&world, 0);
    let buffer = || vec![vec![0; 100]];
    let mut got = |packet: &[u8]| {
        let mut buffers = buffer();
        let lengths = driver.exchange(packet, &mut buffers);
        lengths.first().map(|length| read(&buffers[0], *length))
    };
    assert_eq!(got(&packet(7, 1, 1, 0, b"")), Some((2, 1, vec![])));
    // Buffers may be longer than what is said to be in them (5.10.6).
    assert_eq!(got(&packet(7, 1, 5, 3, b"abcdef")), Some((5, 1, b"abc".to_vec())));
    // Shorter ones end the connection, and what is not even a header is nothing.
    assert_eq!(got(&packet(7, 1, 5, 3, b"ab")), Some((3, 1, vec![])));
    assert_eq!(got(&packet(7, 2, 1, 0, b"")), Some((3, 2, vec![])), "unknown `type` (5.10.6.4.2)");
}

fn what_is_no_header_is_nothing(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[]);
    let mut driver = Raw::new(&world, 0);
    let mut buffers = [vec![0; 100], vec![0; 100]];
    assert_eq!(driver.exchange(&packet(7, 1, 1, 0, b"")[..43], &mut buffers[..1]), []);
    assert_eq!(driver.exchange(&packet(7, 1, 1, 0, b""), &mut buffers[1..]), [44]);
}

fn data_comes_in_as_many_packets_as_buffers_want(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[]);
    let mut driver = Raw::new(&world, 0);
    let mut buffers = vec![vec![0; 43], vec![0; 44]];
    assert_eq!(driver.exchange(&packet(7, 1, 1, 0, b""), &mut buffers), [0, 44], "one has no room for a header");
    let mut buffers = vec![vec![0; 50], vec![0; 46], vec![0; 100], vec![0; 100]];
    assert_eq!(driver.exchange(&packet(7, 1, 5, 10, b"0123456789"), &mut buffers), [50, 46, 46]);
    let data: Vec<Vec<u8>> = (0..3).map(|at| read(&buffers[at], buffers[at].len().min(50) as u32).2).collect();
    assert_eq!((&data[0][..], &data[1][..], &data[2][..2]), (&b"012345"[..], &b"67"[..], &b"89"[..]));
    driver.take(0, &mut buffers[3..]);
}

fn features_are_those_of_5_10_3(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[]);
    assert_eq!(world.transport().read_device_features() & 7, 0b101);
    // Streams are there if nothing is said of them, but not if they are said not to be.
    for (features, op) in [(0, 2), (1, 2), (0b101, 2), (0b100, 3)] {
        let mut driver = Raw::new(&world, features);
        let mut buffers = vec![vec![0; 44]];
        assert_eq!(driver.exchange(&packet(7, 1, 1, 0, b""), &mut buffers), [44]);
        assert_eq!(buffers[0][30], op, "{features:#b}");
    }
}

fn a_queue_that_is_reset_alone_takes_nothing_with_it(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[]);
    let mut driver = Raw::new(&world, RING_RESET);
    let mut first = vec![vec![0; 100]];
    assert_eq!(driver.exchange(&packet(7, 1, 1, 0, b""), &mut first), [44]);
    // A queue alone is reset: what had not been taken out is still there for its next life.
    let mut held = vec![vec![0; 100]];
    driver.offer(0, &mut held);
    driver.transport.reset_queue(0);
    driver.exchange(&packet(7, 1, 5, 2, b"hi"), &mut []);
    let station = host.with(|hub| hub.end(|_| true));
    assert_eq!(station.len(), 1);
    assert_eq!(station[0].1.received, 1, "there was nowhere to put it");
}

/// 5.10.6.7: "the VIRTIO_VSOCK_EVENT_TRANSPORT_RESET event indicates that communication has been interrupted". Whenever a guest takes
/// the receive queue away, it gets what there was for it, in that queue or in the next one, or hears that its connections are lost.
#[test]
fn what_is_lost_with_a_queue_is_told() {
    let mut told = 0;
    for moment in 0..100 {
        let host = Host::new();
        let world = host.device(Place::Memory, &[]);
        let mut driver = Raw::new(&world, RING_RESET);
        let [mut events, mut old, mut new] = [4, 100, 100].map(|length| vec![vec![0xff; length]]);
        driver.offer(2, &mut events);
        driver.offer(0, &mut old);
        // QueueSel, QueueReset.
        let was_reset = world.store_at(moment, &[(0x30, 0), (0xc0, 1)]);
        driver.exchange(&packet(7, 1, 1, 0, b""), &mut []);
        let in_the_old = driver.take(0, &mut old);
        if !was_reset.get() {
            assert_eq!((in_the_old, told > 0), (vec![44], true), "all moments have been tried");
            return;
        }
        driver.queues[0] = VirtQueue::new(&mut driver.transport, 0, false, false).unwrap();
        driver.offer(0, &mut new);
        let heard = [in_the_old, driver.take(0, &mut new)].concat();
        let event = driver.take(2, &mut events);
        match (&heard[..], &event[..]) {
            ([44], []) => {}
            ([], [4]) => {
                assert_eq!(events[0], [0; 4], "VIRTIO_VSOCK_EVENT_TRANSPORT_RESET");
                // And lost they are.
                assert_eq!(driver.exchange(&packet(7, 1, 5, 2, b"hi"), &mut []), []);
                assert_eq!((driver.take(0, &mut new), new[0][30]), (vec![44], 3), "a reset");
                told += 1;
            }
            other => panic!("at moment {moment}: {other:?}"),
        }
    }
    panic!("no end of moments");
}

fn options_are_checked_and_the_cid_is_shown(place: Place) {
    let host = Host::new();
    let world = host.device(place, &[("cid", Some("77"))]);
    assert!(world.status().contains("; CID 77"));
    assert_eq!(world.configuration(0, AccessSize::Word), 77);
    assert_eq!(world.configuration(4, AccessSize::Word), 0, "reserved (5.10.4)");
    let factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == NAME).unwrap();
    let long = "x".repeat(33);
    for (option, text) in
        [("cid", "2"), ("cid", "0xffffffff"), ("cid", "77"), ("group", ""), ("group", "a b"), ("group", &long)]
    {
        let errors = Rig::new(factory, &[(option, Some(text))], &mut host.wires()).err();
        assert!(errors.is_some(), "{option} {text}");
    }
    let error = Rig::new(factory, &[("cid", Some("77"))], &mut host.wires()).err().unwrap();
    assert!(error[0].message.contains(&format!("/dev/qvm/vm/{} has it", place.name(NAME))), "{error:?}");
    let errors = Rig::new(factory, &[], &mut Wires::default()).err().unwrap();
    assert!(errors[0].message.contains("there are no sockets"));
}
