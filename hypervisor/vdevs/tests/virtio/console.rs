//! `vdev virtio-console`.

use crate::driver::{Machine, Place, Registers, World, negotiate, tests};
use types::AccessSize;
use vdev::testkit::{Rig, Wire, Wires};
use vdevs::CATALOGUE;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

tests! {
    a_driver_writes_and_reads and legacy,
    what_is_typed_fills_buffers_one_after_the_other,
    an_emergency_needs_no_driver,
    without_backpressure_output_is_dropped_and_counted_and_nobody_waits,
    with_backpressure_output_waits_until_there_is_space,
    a_reset_forgets_output_that_waits,
    further_ports_are_announced_named_opened_and_used,
    without_multiport_there_is_port_0_and_nothing_else,
}

const NAME: &str = "virtio-console";

fn wires() -> (Wires, Wire) {
    let mut wires = Wires::default();
    let wire = wires.wire("-");
    (wires, wire)
}

fn a_driver_writes_and_reads(place: Place) {
    for options in [&[][..], &[("tx-backpressure", None)]] {
        let (wires, wire) = wires();
        let world = World::new(place, NAME, options, wires);
        wire.type_in(b"early");
        let mut console = VirtIOConsole::<Machine, _>::new(world.transport()).unwrap();
        assert_eq!(console.size(), Ok(None), "the size is not known");
        world.work();
        let read = |console: &mut VirtIOConsole<Machine, _>, length: usize| {
            (0..length).map(|_| console.recv(true).unwrap().unwrap()).collect::<Vec<u8>>()
        };
        assert_eq!(read(&mut console, 5), b"early", "typed before there was a driver");
        assert_eq!(console.recv(true), Ok(None));
        for length in [1, 2, 1023, 1024, 1025, 4096, 20_000] {
            let bytes: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
            console.send_bytes(&bytes).unwrap();
            assert_eq!(wire.take_output(), bytes);
        }
        wire.type_in(b"late");
        world.wake();
        world.work();
        assert!(world.line());
        assert_eq!(read(&mut console, 4), b"late");
        console.emergency_write(b'!').unwrap();
        assert_eq!(wire.take_output(), b"!", "one character, however many stores that takes");
    }
}

fn what_is_typed_fills_buffers_one_after_the_other(place: Place) {
    let (wires, wire) = wires();
    let world = World::new(place, NAME, &[], wires);
    let mut console = VirtIOConsole::<Machine, _>::new(world.transport()).unwrap();
    let typed: Vec<u8> = (0..10_000_u32).map(|at| (at / 3) as u8).collect();
    wire.type_in(&typed);
    world.wake();
    world.work();
    let mut read = Vec::new();
    while let Some(byte) = console.recv(true).unwrap() {
        read.push(byte);
    }
    assert_eq!(read, typed);
    assert_eq!(wire.unread(), 0);
}

/// 5.3.5.1, "The device MUST allow a write to emerg_wr, even on an unconfigured device".
fn an_emergency_needs_no_driver(place: Place) {
    let (wires, wire) = wires();
    let world = World::new(place, NAME, &[], wires);
    world.set_configuration(8, AccessSize::Word, 0x1234_5678);
    world.set_configuration(8, AccessSize::Byte, 0x79);
    world.set_configuration(10, AccessSize::Byte, 0x7a);
    assert_eq!(wire.take_output(), [0x78, 0x79], "the lower byte");
}

/// A driver by hand, of which each buffer is given and awaited by itself.
struct Driver {
    world: World,
    transport: Registers,
}

type Queue = VirtQueue<Machine, 16>;

impl Driver {
    /// Negotiates these features besides `VERSION_1`.
    fn new(world: &World, features: u64) -> Self {
        let mut transport = world.transport();
        negotiate(&mut transport, features);
        Self { world: world.clone(), transport }
    }

    fn queue(&mut self, number: u16) -> Queue {
        Queue::new(&mut self.transport, number, false, false).unwrap()
    }

    fn start(&mut self) {
        self.transport.finish_init();
    }

    /// Offers bytes to the device; says whether it is done with them at once.
    fn send(&mut self, number: u16, queue: &mut Queue, bytes: &[u8]) -> bool {
        // SAFETY: the tests' buffers are copied when they are shared.
        let token = unsafe { queue.add(&[bytes], &mut []) }.unwrap();
        self.transport.notify(number);
        if queue.can_pop() {
            // SAFETY: the buffer that was added.
            unsafe { queue.pop_used(token, &[bytes], &mut []) }.unwrap();
            return true;
        }
        false
    }

    /// Offers a buffer and says what the device has put into it, if it has.
    fn receive(&mut self, number: u16, queue: &mut Queue, buffer: &mut [u8]) -> Option<usize> {
        // SAFETY: the buffer is popped below, or the test ends with it.
        let token = unsafe { queue.add(&[], &mut [buffer]) }.unwrap();
        self.transport.notify(number);
        self.world.work();
        // SAFETY: the buffer that was added.
        queue.can_pop().then(|| unsafe { queue.pop_used(token, &[], &mut [buffer]) }.unwrap() as usize)
    }
}

fn full(place: Place, options: &[(&'static str, Option<&'static str>)]) -> (World, Wire, Driver, Queue) {
    let (wires, wire) = wires();
    let world = World::new(place, NAME, options, wires);
    let mut driver = Driver::new(&world, 0);
    let queue = driver.queue(1);
    driver.start();
    (world, wire, driver, queue)
}

fn without_backpressure_output_is_dropped_and_counted_and_nobody_waits(place: Place) {
    let (world, wire, mut driver, mut queue) = full(place, &[]);
    wire.set_space(Some(1500));
    assert!(driver.send(1, &mut queue, &[b'x'; 4000]));
    assert_eq!(wire.take_output().len(), 1500);
    assert!(world.status().contains("port 0: 2500 bytes dropped"));
    wire.set_space(None);
    assert!(driver.send(1, &mut queue, b"again"));
    assert_eq!(wire.take_output(), b"again");
}

fn with_backpressure_output_waits_until_there_is_space(place: Place) {
    let (world, wire, mut driver, mut queue) = full(place, &[("tx-backpressure", None)]);
    let bytes: Vec<u8> = (0..4000_u32).map(|at| (at / 3) as u8).collect();
    wire.set_space(Some(1500));
    assert!(!driver.send(1, &mut queue, &bytes));
    let mut output = wire.take_output();
    assert_eq!(output.len(), 1500);
    world.work();
    assert_eq!(wire.take_output(), [], "nobody looks before there is space");
    for space in [1, 499, 1999] {
        wire.set_space(Some(space));
        world.wake();
        world.work();
        output.extend(wire.take_output());
        assert!(!queue.can_pop());
    }
    wire.set_space(None);
    world.wake();
    world.work();
    output.extend(wire.take_output());
    assert!(queue.can_pop() && output == bytes);
    assert!(world.status().contains("port 0: 0 bytes dropped"));
}

fn a_reset_forgets_output_that_waits(place: Place) {
    let (world, wire, mut driver, mut queue) = full(place, &[("tx-backpressure", None)]);
    wire.set_space(Some(0));
    assert!(!driver.send(1, &mut queue, b"old"));
    let mut driver = Driver::new(&world, 0);
    let mut queue = driver.queue(1);
    driver.start();
    wire.set_space(None);
    assert!(driver.send(1, &mut queue, b"new"));
    assert_eq!(wire.take_output(), b"new");
}

const MULTIPORT: u64 = 1 << 1;

fn message(id: u32, event: u16, value: u16) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&id.to_le_bytes());
    bytes[4..6].copy_from_slice(&event.to_le_bytes());
    bytes[6..].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// 5.3.5, 5.3.6.2: from `DEVICE_READY` to bytes both ways through the second port.
fn further_ports_are_announced_named_opened_and_used(place: Place) {
    let (mut wires, console) = wires();
    let agent = wires.wire("agent");
    let options = [("port", Some("org.bulkhead.agent,agent")), ("hostdev", Some(">-"))];
    let world = World::new(place, NAME, &options, wires);
    assert_eq!(world.configuration(4, AccessSize::Word), 2, "max_nr_ports");
    let mut driver = Driver::new(&world, MULTIPORT);
    let mut queues: Vec<Queue> = (0..6).map(|number| driver.queue(number)).collect();
    driver.start();
    agent.type_in(b"too early");
    let mut buffer = [0; 64];
    assert_eq!(driver.receive(4, &mut queues[4], &mut buffer), None, "the port is not open");
    let mut next = [0; 64];
    let mut hear = |driver: &mut Driver, queues: &mut [Queue]| {
        let length = driver.receive(2, &mut queues[2], &mut next)?;
        Some(next[..length].to_vec())
    };
    let ready = |driver: &mut Driver, queues: &mut [Queue], id, event| {
        assert!(driver.send(3, &mut queues[3], &message(id, event, 1)));
    };
    ready(&mut driver, &mut queues, 0, 0);
    // A buffer that is there when nothing is due would wait: so as many as there are messages.
    for id in 0..2 {
        assert_eq!(hear(&mut driver, &mut queues).unwrap(), message(id, 1, 1));
    }
    ready(&mut driver, &mut queues, 0, 3);
    assert_eq!(hear(&mut driver, &mut queues).unwrap(), message(0, 4, 1), "port 0 is the console");
    assert_eq!(hear(&mut driver, &mut queues).unwrap(), message(0, 6, 1));
    ready(&mut driver, &mut queues, 1, 3);
    let name = [&message(1, 7, 1)[..], b"org.bulkhead.agent"].concat();
    assert_eq!(hear(&mut driver, &mut queues).unwrap(), name, "without a zero at the end");
    assert_eq!(hear(&mut driver, &mut queues).unwrap(), message(1, 6, 1));
    // Neither what was said already nor what makes no sense is answered.
    for (id, event) in [(0, 0), (0, 3), (1, 3), (2, 3), (u32::MAX, 6), (0, 99)] {
        ready(&mut driver, &mut queues, id, event);
    }
    assert!(driver.send(3, &mut queues[3], &[1, 2, 3]));
    assert_eq!(hear(&mut driver, &mut queues), None);
    // The guest opens the port: what waited comes.
    ready(&mut driver, &mut queues, 1, 6);
    assert!(queues[4].can_pop());
    assert_eq!(agent.unread(), 0);
    assert!(driver.send(5, &mut queues[5], b"answer"));
    assert_eq!((agent.take_output(), console.take_output()), (b"answer".to_vec(), Vec::new()));
    assert!(driver.send(1, &mut queues[1], b"hello"));
    assert_eq!((agent.take_output(), console.take_output()), (Vec::new(), b"hello".to_vec()));
}

/// 5.3.2, "The port 0 receive and transmit queues always exist: other queues only exist if VIRTIO_CONSOLE_F_MULTIPORT is set".
fn without_multiport_there_is_port_0_and_nothing_else(place: Place) {
    let (mut wires, console) = wires();
    let agent = wires.wire("agent");
    let world = World::new(place, NAME, &[("port", Some("agent,agent"))], wires);
    let mut driver = Driver::new(&world, 0);
    let mut queues: Vec<Queue> = (0..6).map(|number| driver.queue(number)).collect();
    driver.start();
    agent.type_in(b"x");
    assert!(!driver.send(3, &mut queues[3], &message(0, 0, 1)));
    assert!(!driver.send(5, &mut queues[5], b"x"));
    assert_eq!(driver.receive(4, &mut queues[4], &mut [0; 8]), None);
    assert!(driver.send(1, &mut queues[1], b"x"));
    assert_eq!((agent.take_output(), agent.unread(), console.take_output()), (Vec::new(), 1, b"x".to_vec()));
}

#[test]
fn ports_need_names_of_their_own_and_back_ends_that_there_are() {
    let factory = CATALOGUE.iter().find(|factory| factory.name == NAME).unwrap();
    let refused = |ports: &[&'static str]| {
        let options: Vec<_> = ports.iter().map(|port| ("port", Some(*port))).collect();
        Rig::new(factory, &options, &mut Wires::default()).err().unwrap()[0].message.clone()
    };
    for name in ["", ",-", "a/b", ".", "a b"] {
        assert!(refused(&[name]).contains("is no name"), "{name}");
    }
    assert!(refused(&["a", "a"]).contains("another port has this name"));
    assert!(refused(&["a,nowhere"]).contains("there is no back end `nowhere`"));
    assert!(refused(&["a,<"]).contains("names no back end"));
    let many: Vec<&str> = "abcdefghijklmnop".split("").filter(|name| !name.is_empty()).collect();
    assert!(refused(&many).contains("there are 16 already"));
}
