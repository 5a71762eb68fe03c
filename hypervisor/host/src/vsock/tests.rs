//! Sockets, with a table that remembers who was rung, and guests that are the test.

use super::half::{Other, Slot, State};
use super::*;
use proptest::prelude::*;
use std::boxed::Box;
use std::collections::HashMap;
use std::string::ToString;
use std::sync::{Arc, Mutex};
use std::vec;

mod credit;
mod ends;
mod lies;
mod services;

#[derive(Debug, Default)]
struct Heard {
    rings: HashMap<String, usize>,
    lines: Vec<String>,
}

#[derive(Debug)]
struct Knocker(String, Arc<Mutex<Heard>>);

impl Door for Knocker {
    fn ring(&self) {
        *self.1.lock().unwrap().rings.entry(self.0.clone()).or_default() += 1;
    }

    fn said(&self, line: &str) {
        self.1.lock().unwrap().lines.push(line.to_string());
    }
}

struct World {
    hub: Mutex<Hub<Knocker>>,
    signals: &'static Signals,
    heard: Arc<Mutex<Heard>>,
}

impl Table for World {
    type Door = Knocker;

    fn with<R>(&self, work: impl FnOnce(&mut Hub<Knocker>) -> R) -> R {
        work(&mut self.hub.lock().unwrap())
    }
}

/// Room that a test's guest says it has.
const ROOM: u32 = 64 << 10;

/// A guest's driver, which tells the truth unless a test has it lie.
#[derive(Clone, Copy)]
struct Guest<'w> {
    world: &'w World,
    id: StationId,
    cid: u32,
}

/// A packet, and its data.
type Got = (VsockPacket, Vec<u8>);

impl World {
    fn new() -> Self {
        let signals = Box::leak(Box::new(Signals::new()));
        Self { hub: Mutex::new(Hub::new(signals)), signals, heard: Arc::default() }
    }

    fn attach(&self, vm: &str, cid: Option<u32>, groups: &[&str]) -> Result<(StationId, u32), String> {
        let groups = groups.iter().map(ToString::to_string).collect();
        let wish = VsockWish { name: "vsock".to_string(), cid, groups };
        let parts = (Knocker(vm.to_string(), self.heard.clone()), Storage::new().unwrap());
        self.with(|hub| hub.attach(vm, &wish, parts))
    }

    /// A guest with a driver, in these groups.
    fn guest(&self, vm: &str, cid: u32, groups: &[&str]) -> Guest<'_> {
        let (id, cid) = self.attach(vm, Some(cid), groups).unwrap();
        self.with(|hub| hub.open(id));
        Guest { world: self, id, cid }
    }

    fn end(&self, vm: &str) -> usize {
        self.with(|hub| hub.end(|door| door.0 == vm)).len()
    }

    fn rings(&self, vm: &str) -> usize {
        self.heard.lock().unwrap().rings.remove(vm).unwrap_or_default()
    }

    /// What holds at all times: both halves of a connection know of each other, and no more waits than there is room for.
    fn check(&self) {
        self.with(|hub| {
            for (number, station) in hub.stations.iter().enumerate() {
                let Some(station) = station else { continue };
                assert_eq!(station.storage.halves.len(), CONNECTIONS);
                for (index, half) in station.storage.halves.iter().enumerate() {
                    assert!(half.held() <= WINDOW as usize);
                    assert!(half.state != State::Free || half.other == Other::Nobody);
                    if let Other::Guest(Slot { station: theirs, index: other }) = half.other {
                        let back = &hub.stations[theirs].as_ref().unwrap().storage.halves[other];
                        assert_eq!(back.other, Other::Guest(Slot { station: number, index }));
                    }
                }
            }
        });
    }
}

impl Guest<'_> {
    fn packet(&self, own_port: u32, to: (u32, u32), op: VsockOp) -> VsockPacket {
        VsockPacket {
            src_cid: self.cid.into(),
            dst_cid: to.0.into(),
            src_port: own_port,
            dst_port: to.1,
            len: 0,
            kind: VSOCK_STREAM,
            op,
            flags: 0,
            buf_alloc: ROOM,
            fwd_cnt: 0,
        }
    }

    fn send(&self, packet: &VsockPacket) -> bool {
        send(self.world, self.id, packet, &mut |_| false)
    }

    fn say(&self, own_port: u32, to: (u32, u32), op: VsockOp) {
        assert!(self.send(&self.packet(own_port, to, op)));
        self.world.check();
    }

    fn shut_down(&self, own_port: u32, to: (u32, u32), flags: u32) {
        assert!(self.send(&VsockPacket { flags, ..self.packet(own_port, to, VsockOp::Shutdown) }));
    }

    fn write(&self, own_port: u32, to: (u32, u32), bytes: &[u8]) {
        let packet = VsockPacket { len: bytes.len() as u32, ..self.packet(own_port, to, VsockOp::Rw) };
        assert!(self.send_with(&packet, bytes));
        self.world.check();
    }

    fn send_with(&self, packet: &VsockPacket, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        send(self.world, self.id, packet, &mut |part| {
            let Some((now, later)) = rest.split_at_checked(part.len()) else { return false };
            part.copy_from_slice(now);
            rest = later;
            true
        })
    }

    fn receive(&self) -> Option<Got> {
        attend(self.world, self.world.signals, self.id);
        let mut into = vec![0; 4096];
        let packet = receive(self.world, self.id, &mut into)?;
        self.world.check();
        assert_eq!(packet.dst_cid, u64::from(self.cid));
        into.truncate(packet.len as usize);
        Some((packet, into))
    }

    /// What there is for it: what it is about, and the data.
    fn all(&self) -> Vec<(VsockOp, Vec<u8>)> {
        core::iter::from_fn(|| self.receive()).map(|(packet, data)| (packet.op, data)).collect()
    }

    fn ops(&self) -> Vec<VsockOp> {
        self.all().into_iter().map(|(op, _)| op).collect()
    }

    fn counts(&self) -> Counts {
        self.world.with(|hub| hub.counts(self.id)).unwrap()
    }
}

/// Two guests in a group, and between port 10 of the first and port 20 of the second a connection.
fn connected(world: &World) -> (Guest<'_>, Guest<'_>) {
    let (a, b) = (world.guest("a", 3, &["both"]), world.guest("b", 4, &["both"]));
    a.say(10, (4, 20), VsockOp::Request);
    assert_eq!(b.ops(), [VsockOp::Request]);
    b.say(20, (3, 10), VsockOp::Response);
    assert_eq!(a.ops(), [VsockOp::Response]);
    (a, b)
}

const A: (u32, u32) = (3, 10);
const B: (u32, u32) = (4, 20);
const FULL: [u8; WINDOW as usize] = [7; WINDOW as usize];

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_request_is_offered_and_answered() {
    let world = World::new();
    let (a, b) = (world.guest("a", 3, &["x", "both"]), world.guest("b", 4, &["both", "y"]));
    a.say(10, B, VsockOp::Request);
    assert_eq!(world.rings("b"), 1);
    let (packet, _) = b.receive().unwrap();
    let expected = VsockPacket { buf_alloc: WINDOW, dst_cid: 4, ..a.packet(10, B, VsockOp::Request) };
    assert_eq!(packet, expected, "all packets have valid `buf_alloc` and `fwd_cnt` (5.10.6.3.2)");
    b.say(20, A, VsockOp::Response);
    assert_eq!(world.rings("a"), 1);
    let (packet, _) = a.receive().unwrap();
    assert_eq!(packet, VsockPacket { buf_alloc: WINDOW, ..b.packet(20, A, VsockOp::Response) });
    a.write(10, B, b"hello");
    assert_eq!(b.all(), [(VsockOp::Rw, b"hello".to_vec())]);
    b.write(20, A, b"you, too");
    assert_eq!(a.all(), [(VsockOp::Rw, b"you, too".to_vec())]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_does_not_listen_refuses() {
    let world = World::new();
    let (a, b) = (world.guest("a", 3, &["both"]), world.guest("b", 4, &["both"]));
    a.say(10, B, VsockOp::Request);
    assert_eq!(b.ops(), [VsockOp::Request]);
    b.say(20, A, VsockOp::Rst);
    assert_eq!(a.ops(), [VsockOp::Rst]);
    assert!(b.ops().is_empty(), "a reset is never answered");
    // What is taken back before it was offered nobody hears of.
    a.say(10, B, VsockOp::Request);
    a.say(10, B, VsockOp::Rst);
    assert!(b.ops().is_empty() && a.ops().is_empty());
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn nobody_is_reached_but_members_of_a_group() {
    let world = World::new();
    let a = world.guest("a", 3, &["one"]);
    let (b, lonely) = (world.guest("b", 4, &["other"]), world.guest("c", 5, &[]));
    let (closed, cid) = world.attach("d", None, &["one"]).unwrap();
    assert!(cid >= FIRST_FREE_CID, "one that is found is out of the way of those that are chosen");
    for cid in [4, 5, cid, 3, 0, 1, 77, u32::MAX] {
        a.say(10, (cid, 20), VsockOp::Request);
        let got = a.receive().map(|(packet, _)| (packet.op, packet.src_cid, packet.src_port, packet.dst_port));
        assert_eq!(got, Some((VsockOp::Rst, cid.into(), 20, 10)), "{cid}");
    }
    a.send(&VsockPacket { dst_cid: 1 << 32 | 2, ..a.packet(10, (2, ECHO_PORT), VsockOp::Request) });
    assert_eq!(a.ops(), [VsockOp::Rst], "bits that are reserved are zero (5.10.6)");
    lonely.say(1, (4, 1), VsockOp::Request);
    assert_eq!(lonely.ops(), [VsockOp::Rst]);
    assert!(b.ops().is_empty());
    assert!(world.with(|hub| hub.next(closed, &mut [])).is_none());
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_cid_is_one_stations_only() {
    let world = World::new();
    world.attach("a", Some(7), &[]).unwrap();
    let error = world.attach("b", Some(7), &[]).unwrap_err();
    assert_eq!(error, "/dev/qvm/b/vsock cannot have the CID 7: /dev/qvm/a/vsock has it");
    let found: Vec<u32> = (0..3).map(|number| world.attach(&format!("c{number}"), None, &[]).unwrap().1).collect();
    assert_eq!(found, [1024, 1025, 1026]);
    // Reserved, or the host's (5.10.4).
    for reserved in [0, 1, 2, u32::MAX] {
        assert!(world.attach("r", Some(reserved), &[]).is_err(), "{reserved}");
    }
    assert_eq!(world.end("a"), 1);
    assert!(world.attach("b", Some(7), &[]).is_ok());
    for number in 0..STATIONS - 4 {
        world.attach(&format!("d{number}"), None, &[]).unwrap();
    }
    assert!(world.attach("e", None, &[]).is_err());
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn packets_of_unknown_kinds_are_refused_and_forged_ones_are_not_there() {
    let world = World::new();
    let (a, b) = connected(&world);
    for kind in [0, 2, 3, u16::MAX] {
        for op in [VsockOp::Request, VsockOp::Rw, VsockOp::Invalid] {
            a.send(&VsockPacket { kind, ..a.packet(10, B, op) });
            let (packet, _) = a.receive().unwrap();
            assert_eq!((packet.op, packet.kind), (VsockOp::Rst, kind), "5.10.6.4.2");
        }
        a.send(&VsockPacket { kind, ..a.packet(10, B, VsockOp::Rst) });
        assert!(a.ops().is_empty());
    }
    for src_cid in [4, 2, 0, 1 << 32 | 3] {
        a.send(&VsockPacket { src_cid, ..a.packet(20, A, VsockOp::Rst) });
    }
    assert_eq!((a.counts().forged, a.counts().refused), (4, 12));
    a.write(10, B, b"still there");
    assert_eq!(b.ops(), [VsockOp::Rw]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_is_no_packet_of_a_connection_ends_it() {
    use VsockOp::{CreditRequest, CreditUpdate, Invalid, Request, Response, Rst, Rw, Shutdown};
    for op in [Invalid, Request, Response] {
        let world = World::new();
        let (a, b) = connected(&world);
        a.say(10, B, op);
        assert_eq!((a.ops(), b.ops()), (vec![Rst], vec![Rst]), "{op:?}");
    }
    // Before there is one, on both sides; and where there has never been one.
    for op in [Invalid, Request, Response, Rw, CreditUpdate, CreditRequest, Shutdown] {
        let world = World::new();
        let (a, b) = (world.guest("a", 3, &["both"]), world.guest("b", 4, &["both"]));
        a.say(10, B, op);
        assert_eq!(a.ops(), if op == Request { vec![] } else { vec![Rst] }, "{op:?}");
        a.say(11, B, Request);
        b.all();
        a.say(11, B, op);
        assert_eq!((a.ops(), b.ops()), (vec![Rst], vec![Rst]), "{op:?}");
        if op != Response {
            a.say(12, B, Request);
            b.all();
            b.say(20, (3, 12), op);
            assert_eq!((a.ops(), b.ops()), (vec![Rst], vec![Rst]), "{op:?}");
        }
        // It answers what it has not been asked.
        a.say(13, B, Request);
        b.say(20, (3, 13), op);
        assert_eq!((a.ops(), b.ops()), (vec![Rst], vec![Rst]), "{op:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_does_not_look_at_refusals_is_not_heard_until_it_does() {
    let world = World::new();
    let (a, b) = connected(&world);
    let wrong = a.packet(99, B, VsockOp::Rw);
    let taken = (0..2 * REPLIES).take_while(|_| a.send(&wrong)).count();
    assert_eq!(taken, REPLIES - 1);
    assert!(!a.send(&a.packet(10, B, VsockOp::CreditRequest)));
    // What others send comes all the same.
    b.write(20, A, b"hello");
    let got = a.ops();
    assert_eq!(got.len(), taken + 1);
    assert!(a.send(&wrong));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn connections_are_so_many_and_some_are_for_the_guests_own_wishes() {
    let world = World::new();
    let (a, b) = (world.guest("a", 3, &["both"]), world.guest("b", 4, &["both"]));
    for port in 0..CONNECTIONS as u32 {
        a.say(port, B, VsockOp::Request);
    }
    assert_eq!(a.ops(), [VsockOp::Rst; CONNECTIONS - OFFERS], "b has to have some for itself");
    let offered = b.ops();
    assert_eq!(offered.len(), OFFERS);
    for port in 0..OFFERS as u32 {
        b.say(20, (3, port), VsockOp::Response);
        b.say(1000 + port, (2, ECHO_PORT), VsockOp::Request);
    }
    assert_eq!(a.ops(), [VsockOp::Response; OFFERS]);
    assert_eq!(b.ops(), [VsockOp::Response; OFFERS]);
    b.say(2000, (2, ECHO_PORT), VsockOp::Request);
    assert_eq!(b.ops(), [VsockOp::Rst]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_is_not_answered_makes_way_for_what_is_asked_later() {
    let world = World::new();
    let a = world.guest("a", 3, &["both"]);
    let silent: Vec<Guest<'_>> = (4..7).map(|cid| world.guest(&format!("s{cid}"), cid, &["both"])).collect();
    for (number, to) in (0..).zip([4, 5].into_iter().flat_map(|cid| [cid; OFFERS])) {
        a.say(number, (to, 1), VsockOp::Request);
    }
    silent.iter().for_each(|guest| _ = guest.all());
    assert!(a.ops().is_empty());
    a.say(100, (2, ECHO_PORT), VsockOp::Request);
    assert_eq!(a.ops(), [VsockOp::Rst, VsockOp::Response]);
    assert_eq!(silent[0].ops(), [VsockOp::Rst]);
}
