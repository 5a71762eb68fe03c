//! Networks, with a table that remembers who was rung.

use super::buffer::Buffer;
use super::rate::Limit;
use super::*;
use proptest::prelude::*;
use std::boxed::Box;
use std::collections::HashMap;
use std::string::ToString;
use std::sync::{Arc, Mutex};
use vdev::{Checksum, Frame, Received, Segments, Sent};

#[derive(Clone, Debug, Default)]
struct Bells(Arc<Mutex<HashMap<String, (usize, usize)>>>);

#[derive(Debug)]
struct Knocker(String, Bells);

impl Door for Knocker {
    fn ring(&self) {
        self.1.0.lock().unwrap().entry(self.0.clone()).or_default().0 += 1;
    }

    fn link_changed(&self) {
        self.1.0.lock().unwrap().entry(self.0.clone()).or_default().1 += 1;
    }
}

struct World {
    net: Mutex<Net<Knocker>>,
    bells: Bells,
}

impl Table for World {
    type Door = Knocker;

    fn with<R>(&self, work: impl FnOnce(&mut Net<Knocker>) -> R) -> R {
        work(&mut self.net.lock().unwrap())
    }
}

const HERTZ: Frequency = Frequency::new(1_000_000).unwrap();
const ALL: Offloads = Offloads { checksum: true, tcp4: true, tcp6: true };

impl World {
    fn new() -> Self {
        let up = Box::leak(Box::new(AtomicU32::new(0)));
        Self { net: Mutex::new(Net::new(up)), bells: Bells::default() }
    }

    fn attach(&self, vm: &str, wish: NetWish) -> Result<(PortId, Mac), String> {
        let wish = NetWish { name: "net".to_string(), ..wish };
        let parts = (Knocker(vm.to_string(), self.bells.clone()), Storage::new().unwrap());
        self.with(|net| net.attach(vm, &wish, HERTZ, parts))
    }

    /// An open port of a switch.
    fn plug(&self, vm: &str, group: u16) -> (PortId, Mac) {
        let wish = NetWish { group, ..to("/dev/vswitch0") };
        let (id, mac) = self.attach(vm, wish).unwrap();
        self.with(|net| net.open(id, ALL));
        (id, mac)
    }

    fn send_as(&self, id: PortId, unfinished: Unfinished, frame: &[u8]) -> Sent {
        let mut at = 0;
        send(self, id, Ticks(0), unfinished, frame.len(), &mut |part| {
            part.copy_from_slice(&frame[at..at + part.len()]);
            at += part.len();
            true
        })
    }

    fn send(&self, id: PortId, to: Mac, from: Mac, length: usize) {
        assert_eq!(self.send_as(id, Unfinished::default(), &frame(to, from, length)), Sent::Gone);
    }

    fn receive(&self, id: PortId) -> Option<(Vec<u8>, Unfinished)> {
        let mut got = None;
        let received = receive(self, id, &mut |Frame { unfinished, length, parts }| {
            let bytes: Vec<u8> = parts.flatten().copied().collect();
            assert_eq!(bytes.len(), length);
            got = Some((bytes, unfinished));
            Received::Taken
        });
        assert_eq!(received == Received::Taken, got.is_some());
        got
    }

    /// How many frames wait there.
    fn drain(&self, id: PortId) -> usize {
        core::iter::from_fn(|| self.receive(id)).count()
    }

    fn counts(&self, id: PortId) -> Counts {
        self.with(|net| net.counts(id)).unwrap()
    }

    fn end(&self, vm: &str) -> usize {
        self.with(|net| net.end(|door| door.0 == vm)).len()
    }

    fn is_up(&self, id: PortId) -> bool {
        self.with(|net| net.is_up(id))
    }
}

fn to(peer: &str) -> NetWish {
    NetWish { peer: Some(peer.to_string()), ..NetWish::default() }
}

fn frame(to: Mac, from: Mac, length: usize) -> Vec<u8> {
    let filling = (0..).map(|at: usize| (at / 3) as u8);
    to.0.into_iter().chain(from.0).chain(filling).take(length).collect()
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_switch_floods_what_it_does_not_know_and_learns() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac), (c, _)] = ["a", "b", "c"].map(|vm| world.plug(vm, 0));
    let behind = Mac([2, 9, 9, 9, 9, 9]);
    // To all, to a group, and to somebody nobody has seen.
    for to in [Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1]), behind] {
        world.send(a, to, a_mac, 60);
        assert_eq!([a, b, c].map(|port| world.drain(port)), [0, 1, 1], "{to}");
    }
    // The addresses that ports have by configuration are known from the beginning.
    world.send(a, b_mac, a_mac, 60);
    assert_eq!([a, b, c].map(|port| world.drain(port)), [0, 1, 0]);
    // Somebody behind `c` speaks, and is known from then on; then moves.
    world.send(c, b_mac, behind, 60);
    assert_eq!([a, b, c].map(|port| world.drain(port)), [0, 1, 0]);
    world.send(a, behind, a_mac, 60);
    assert_eq!([a, b, c].map(|port| world.drain(port)), [0, 0, 1]);
    world.send(b, a_mac, behind, 60);
    assert_eq!(world.drain(a), 1);
    world.send(a, behind, a_mac, 60);
    assert_eq!([a, b, c].map(|port| world.drain(port)), [0, 1, 0]);
    // To oneself, or to who is behind the same port: nobody else's business.
    world.send(b, b_mac, behind, 60);
    world.send(b, behind, b_mac, 60);
    assert_eq!([a, b, c].map(|port| world.drain(port)), [0; 3]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn groups_do_not_see_each_other() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac)] = ["a", "b"].map(|vm| world.plug(vm, 1));
    let [(c, c_mac), (d, _)] = ["c", "d"].map(|vm| world.plug(vm, 2));
    for to in [Mac::BROADCAST, c_mac, Mac([2, 9, 9, 9, 9, 9])] {
        world.send(a, to, a_mac, 60);
        assert_eq!([c, d].map(|port| world.drain(port)), [0; 2], "{to}");
        assert_eq!(world.drain(b), if to == c_mac { 0 } else { 1 }, "{to}");
    }
    world.send(c, b_mac, c_mac, 60);
    assert_eq!([a, b, d].map(|port| world.drain(port)), [0; 3]);
    // Other switches have the same groups.
    let (other, _) = world.attach("e", NetWish { group: 1, ..to("/dev/vswitch1") }).unwrap();
    world.with(|net| net.open(other, ALL));
    world.send(a, Mac::BROADCAST, a_mac, 60);
    assert_eq!((world.drain(other), world.drain(b)), (0, 1));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn nobody_speaks_with_the_address_of_another_port() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac), (c, _)] = ["a", "b", "c"].map(|vm| world.plug(vm, 0));
    for from in [b_mac, Mac::BROADCAST, Mac::default()] {
        world.send(a, Mac::BROADCAST, from, 60);
    }
    assert_eq!(([b, c].map(|port| world.drain(port)), world.counts(a).forged), ([0, 0], 3));
    world.send(c, b_mac, a_mac, 60);
    assert_eq!((world.drain(a), world.drain(b), world.counts(c).forged), (0, 0, 1));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_one_sends_makes_nobody_forget_what_others_are_known_by() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac), (c, _)] = ["a", "b", "c"].map(|vm| world.plug(vm, 0));
    let behind = Mac([2, 7, 7, 7, 7, 7]);
    world.send(b, a_mac, behind, 60);
    for number in 0..5000_u16 {
        let [high, low] = number.to_be_bytes();
        world.send(c, b_mac, Mac([2, 8, 8, 8, high, low]), 60);
        world.drain(b);
    }
    world.drain(a);
    world.send(a, behind, a_mac, 60);
    assert_eq!([b, c].map(|port| world.drain(port)), [1, 0]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_full_port_loses_what_comes_and_disturbs_nobody() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac), (c, c_mac)] = ["a", "b", "c"].map(|vm| world.plug(vm, 0));
    for _ in 0..POOL + 10 {
        world.send(a, b_mac, a_mac, 60);
    }
    assert_eq!(world.counts(b).full, 10);
    world.send(a, Mac::BROADCAST, a_mac, 60);
    world.send(a, c_mac, a_mac, 60);
    assert_eq!((world.drain(c), world.drain(b), world.counts(b).full), (2, POOL, 11));
    // The longest frames, one after the other, and then none.
    let fit = POOL / FRAME_PIECES;
    for _ in 0..fit + 1 {
        world.send(a, b_mac, a_mac, vdev::MOST_FRAME);
    }
    assert_eq!((world.drain(b), world.counts(b).full), (fit, 12));
    assert_eq!(world.bells.0.lock().unwrap()["b"].0, 2, "rung when there was something and had been nothing");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn frames_come_as_they_were_sent_and_in_order() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac), (c, _)] = ["a", "b", "c"].map(|vm| world.plug(vm, 0));
    let lengths = [vdev::LEAST_FRAME, 60, PIECE - 1, PIECE, PIECE + 1, 9000, vdev::MOST_FRAME];
    for to in [b_mac, Mac::BROADCAST] {
        for length in lengths {
            world.send(a, to, a_mac, length);
        }
        for length in lengths {
            assert_eq!(world.receive(b), Some((frame(to, a_mac, length), Unfinished::default())), "{length}");
        }
    }
    assert_eq!(world.receive(c).map(|(frame, _)| frame.len()), Some(vdev::LEAST_FRAME));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_frame_that_is_left_is_there_again() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac)] = ["a", "b"].map(|vm| world.plug(vm, 0));
    world.send(a, b_mac, a_mac, 5000);
    world.send(a, b_mac, a_mac, 100);
    for _ in 0..3 {
        assert_eq!(receive(&world, b, &mut |_| Received::Left), Received::Left);
    }
    assert_eq!(world.receive(b).unwrap().0, frame(b_mac, a_mac, 5000));
    assert_eq!(world.receive(b).unwrap().0, frame(b_mac, a_mac, 100));
    assert_eq!(receive(&world, b, &mut |_| Received::Taken), Received::None);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_does_not_divide_does_not_get_what_is_to_be_divided_and_checksums_are_finished() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac)] = ["a", "b"].map(|vm| world.plug(vm, 0));
    let checksum = Some(Checksum { start: 34, offset: 16 });
    let whole = Unfinished { checksum, segments: Some(Segments { ipv6: false, size: 1448, headers: 66 }) };
    let mut bytes = frame(b_mac, a_mac, 5001);
    bytes[50..52].fill(0);
    assert_eq!(world.send_as(a, whole, &bytes), Sent::Gone);
    assert_eq!(world.receive(b), Some((bytes.clone(), whole)), "handed on as it is to who takes it");
    world.with(|net| net.open(b, Offloads::default()));
    assert_eq!(world.send_as(a, whole, &bytes), Sent::Gone);
    assert_eq!((world.receive(b), world.counts(b).undivided), (None, 1));
    assert_eq!(world.send_as(a, Unfinished { checksum, segments: None }, &bytes), Sent::Gone);
    let (got, unfinished) = world.receive(b).unwrap();
    assert_eq!(unfinished, Unfinished::default());
    assert_eq!(sum(&got[34..]), 0xffff, "all words together, the checksum among them (RFC 1071)");
    assert!(got[..50] == bytes[..50] && got[52..] == bytes[52..]);
}

/// The ones' complement sum of the words of `bytes`, independently.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    words.fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word as u16);
        sum + u16::from(carry)
    })
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn nothing_comes_before_somebody_is_there_and_nothing_old_to_the_next() {
    let world = World::new();
    let (a, a_mac) = world.plug("a", 0);
    let (b, b_mac) = world.attach("b", to("/dev/vswitch0")).unwrap();
    world.send(a, b_mac, a_mac, 60);
    assert_eq!((world.drain(b), world.counts(b).full), (0, 1));
    world.with(|net| net.open(b, ALL));
    world.send(a, b_mac, a_mac, 60);
    world.with(|net| net.open(b, ALL));
    assert_eq!(world.drain(b), 0);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn filters_are_the_receivers() {
    let world = World::new();
    let [(a, a_mac), (b, _)] = ["a", "b"].map(|vm| world.plug(vm, 0));
    let filter = NetFilter { promiscuous: false, ..NetFilter::default() };
    world.with(|net| net.set_filter(b, &filter));
    world.send(a, Mac([1, 0, 0x5e, 0, 0, 1]), a_mac, 60);
    world.send(a, Mac::BROADCAST, a_mac, 60);
    assert_eq!((world.drain(b), world.counts(b).full), (1, 0));
    world.with(|net| net.open(b, ALL));
    world.send(a, Mac([1, 0, 0x5e, 0, 0, 1]), a_mac, 60);
    assert_eq!(world.drain(b), 0, "who opens a port has not ordered another filter");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn links_are_up_while_both_ends_are_there() {
    let world = World::new();
    let (a, a_mac) = world.attach("a", to("/dev/qvm/b/net")).unwrap();
    assert!(!world.is_up(a));
    let (b, b_mac) = world.attach("b", to("/dev/qvm/a/net")).unwrap();
    assert!(world.is_up(a) && world.is_up(b));
    world.with(|net| [a, b].map(|id| net.open(id, ALL)));
    world.send(a, b_mac, a_mac, 60);
    world.send(b, a_mac, b_mac, 60);
    assert_eq!((world.drain(a), world.drain(b)), (1, 1));
    assert_eq!((world.end("b"), world.end("b")), (1, 0));
    assert!(!world.is_up(a));
    assert_eq!(world.bells.0.lock().unwrap()["a"].1, 2, "told that it came, and that it went");
    world.send(a, b_mac, a_mac, 60);
    // Whoever has no `peer` is connected with who names it, and with one only.
    let (b, _) = world.attach("b", NetWish::default()).unwrap();
    assert!(world.is_up(a) && world.is_up(b));
    let error = world.attach("c", to("/dev/qvm/b/net")).unwrap_err();
    assert_eq!(error, "/dev/qvm/b/net is connected with /dev/qvm/a/net already");
    let error = world.attach("d", to("/dev/qvm/a/net")).unwrap_err();
    assert_eq!(error, "/dev/qvm/d/net and /dev/qvm/a/net do not name each other, but /dev/qvm/b/net");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn an_address_twice_is_an_error_that_names_both() {
    let world = World::new();
    let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    world.attach("a", NetWish { mac, ..to("/dev/vswitch0") }).unwrap();
    let error = world.attach("b", NetWish { mac, group: 3, ..to("/dev/vswitch0") }).unwrap_err();
    assert_eq!(error, "/dev/qvm/b/net and /dev/qvm/a/net have the same address, 02:00:00:00:00:01");
    world.attach("c", NetWish { mac, ..to("/dev/vswitch1") }).unwrap();
    world.attach("d", NetWish { mac, ..NetWish::default() }).unwrap();
    let error = world.attach("e", NetWish { mac, ..to("/dev/qvm/d/net") }).unwrap_err();
    assert!(error.contains("/dev/qvm/e/net and /dev/qvm/d/net have the same address"), "{error}");
    let peer_mac = Some(Mac([2, 0, 0, 0, 0, 2]));
    let error = world.attach("e", NetWish { peer_mac, ..to("/dev/qvm/d/net") }).unwrap_err();
    assert_eq!(error, "`peermac`: /dev/qvm/d/net has the address 02:00:00:00:00:01");
    assert!(world.attach("f", NetWish { group: 1, ..NetWish::default() }).is_err());
    for number in world.with(|net| net.all().count())..PORTS {
        world.attach(&number.to_string(), to("/dev/vswitch9")).unwrap();
    }
    assert_eq!(world.attach("g", to("/dev/vswitch9")).unwrap_err(), "there are 32 ports already");
    assert_eq!(world.end("a"), 1);
    assert_eq!(world.attach("g", to("/dev/vswitch9")).unwrap().0.index, 0, "the place of the one that has gone");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn names_of_places() {
    let link = |vm: &str, device: &str| Ok(Place::Link(Some(End::Device { vm: vm.into(), device: device.into() })));
    assert_eq!(Place::parse("/dev/vswitch0"), Ok(Place::Switch("0".into())));
    assert_eq!(Place::parse("/dev/vswitch"), Ok(Place::Switch(String::new())));
    assert_eq!(Place::parse("/dev/qvm/linux/eth 0"), link("linux", "eth 0"));
    for wrong in ["", "vswitch0", "/dev/vswitch/0", "/dev/qvm/a", "/dev/qvm/a/", "/dev/qvm//a", "/dev/qvm/a/b/c"] {
        assert!(Place::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn derived_addresses_are_local_stable_and_differ() {
    let mac = derive_address("linux", "net");
    assert_eq!(mac, derive_address("linux", "net"));
    assert_eq!(mac.0[0] & 3, 2, "administered locally, one station's");
    assert!(mac != derive_address("linux", "net1") && mac != derive_address("linu", "xnet"));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_limited_port_waits_and_gets_what_it_may_have() {
    let (rate, hertz) = (1_000_000, Frequency::new(62_500_000).unwrap());
    let mut limit = Limit::new(rate, hertz);
    let (mut now, mut bytes) = (Ticks(0), 0_u64);
    while now < Ticks(10 * 62_500_000) {
        match limit.take(now, 1514) {
            Ok(()) => bytes += 1514,
            Err(when) => {
                assert!(when > now, "it comes nearer");
                now = when;
            }
        }
    }
    // Ten seconds' worth, and what was saved up.
    assert!((10_000_000..10_110_000).contains(&bytes), "{bytes}");
    assert_eq!(Limit::new(1, hertz).take(Ticks(0), vdev::MOST_FRAME), Ok(()));
    let world = World::new();
    let (a, a_mac) = world.attach("a", NetWish { rate: Some(1), ..to("/dev/vswitch0") }).unwrap();
    world.send(a, Mac::BROADCAST, a_mac, vdev::MOST_FRAME);
    assert_eq!(world.send_as(a, Unfinished::default(), &frame(a_mac, a_mac, 14)), Sent::Wait(Ticks(14_000_000)));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_cannot_fill_a_frame_sends_none_and_loses_nothing() {
    let world = World::new();
    let [(a, _), (b, _)] = ["a", "b"].map(|vm| world.plug(vm, 0));
    for _ in 0..10 {
        assert_eq!(send(&world, a, Ticks(0), Unfinished::default(), 9000, &mut |_| false), Sent::Gone);
    }
    assert_eq!(world.drain(b), 0);
    assert_eq!(world.with(|net| net.port(a).unwrap().held()), (2 * FRAME_PIECES, POOL));
}

proptest! {
    /// Whatever happens, no piece is lost, nobody outside of the group gets anything, and frames are what was sent.
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn pieces_stay_and_frames_are_whole(steps in prop::collection::vec((0_usize..6, 0_usize..4, 0_usize..4, 14_usize..12_000), 1..200)) {
        let world = World::new();
        let ports = ["a", "b", "c"].map(|vm| world.plug(vm, 0));
        let stranger = world.plug("s", 1);
        let all = [ports[0], ports[1], ports[2], stranger];
        for (action, from, whom, length) in steps {
            let ((id, mac), (_, to)) = (all[from], all[whom]);
            match action {
                0 => world.send(id, Mac::BROADCAST, mac, length),
                1 | 2 => world.send(id, to, mac, length),
                3 => world.with(|net| net.open(id, ALL)),
                _ => if let Some((bytes, _)) = world.receive(id) {
                    let sender = Mac(bytes[6..12].try_into().unwrap());
                    let to = Mac(bytes[..6].try_into().unwrap());
                    prop_assert!(sender != mac && (to == mac || to == Mac::BROADCAST));
                    prop_assert_eq!(sender == stranger.1, false);
                    prop_assert!(id != stranger.0);
                    prop_assert_eq!(&bytes, &frame(to, sender, bytes.len()));
                }
            }
            for (id, _) in all {
                prop_assert_eq!(world.with(|net| net.port(id).unwrap().held()), (2 * FRAME_PIECES, POOL));
            }
        }
    }

    /// Whatever comes from outside: guests get it as it is or not at all, nobody gets what pretends to be from one of them, and no piece
    /// is lost.
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn frames_from_outside_are_handed_on_or_lost(
        frames in prop::collection::vec((0_usize..5, 0_usize..5, prop::collection::vec(any::<u8>(), 14..1522)), 1..100),
    ) {
        let world = World::new();
        let guests = ["a", "b"].map(|vm| world.plug(vm, 0));
        let stranger = world.plug("s", 1);
        let uplink = card(&world, 0, 0, CARDS).unwrap();
        let known = [guests[0].1, guests[1].1, stranger.1, Mac::BROADCAST];
        for (to, from, mut bytes) in frames {
            for (which, at) in [(to, 0), (from, 6)] {
                if let Some(mac) = known.get(which) {
                    bytes[at..at + 6].copy_from_slice(&mac.0);
                }
            }
            let before = world.counts(uplink).forged;
            prop_assert_eq!(world.send_as(uplink, Unfinished::default(), &bytes), Sent::Gone);
            let is_forged = world.counts(uplink).forged > before;
            let from = Mac(bytes[6..12].try_into().unwrap());
            prop_assert_eq!(is_forged, known.contains(&from) || !from.is_station());
            for (guest, mac) in guests {
                while let Some((got, unfinished)) = world.receive(guest) {
                    prop_assert!(!is_forged && got == bytes && unfinished == Unfinished::default());
                    let to = Mac(got[..6].try_into().unwrap());
                    prop_assert!(to == mac || !known[..3].contains(&to));
                }
            }
            prop_assert_eq!(world.drain(stranger.0), 0);
            for id in [guests[0].0, guests[1].0, uplink] {
                prop_assert_eq!(world.with(|net| net.port(id).unwrap().held()), (2 * FRAME_PIECES, POOL));
            }
        }
    }

    /// A checksum does not depend on where pieces end.
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn checksums_are_right(bytes in prop::collection::vec(any::<u8>(), 60..5000), start in 14_u16..40, offset in 0_u16..18) {
        let mut buffer = Buffer { pieces: ArrayVec::new(), length: bytes.len(), unfinished: Unfinished::default() };
        for _ in 0..Buffer::pieces_for(bytes.len()) {
            buffer.pieces.push(Box::new([0; PIECE]));
        }
        let mut bytes = bytes;
        let place = usize::from(start + offset);
        bytes[place..place + 2].fill(0);
        let mut at = 0;
        let filled = buffer.fill(&mut |part| {
            part.copy_from_slice(&bytes[at..at + part.len()]);
            at += part.len();
            true
        });
        prop_assert!(filled);
        buffer.unfinished.checksum = Some(Checksum { start, offset });
        buffer.finish_checksum();
        let got: Vec<u8> = buffer.parts().flatten().copied().collect();
        // At an odd distance its bytes count the other way round.
        if offset % 2 == 0 {
            prop_assert_eq!(sum(&got[usize::from(start)..]), 0xffff);
        }
        prop_assert_eq!((&got[..place], &got[place + 2..]), (&bytes[..place], &bytes[place + 2..]));
    }
}

/// A card at `/dev/vswitch0`.
fn card(world: &World, number: u32, group: u16, mac: Mac) -> Result<PortId, String> {
    let wish = NetWish { group, ..to("/dev/vswitch0") };
    let parts = (Knocker(std::format!("net{number}"), world.bells.clone()), Storage::new().unwrap());
    world.with(|net| net.attach_card(number, mac, &wish, HERTZ, parts))
}

const CARDS: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// What leaves by the card next, and how many that is.
fn leaving(world: &World, id: PortId, outbox: &mut Outbox) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut into = [0; MOST_ON_WIRE];
    loop {
        match outbox.next(world, id, &mut into) {
            Next::Frame(length) => frames.push(into[..length].to_vec()),
            Next::Lost => {}
            Next::None => return frames,
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn an_uplink_is_a_port_of_its_group_alone() {
    let world = World::new();
    let [(a, a_mac), (b, b_mac)] = ["a", "b"].map(|vm| world.plug(vm, 1));
    let (c, c_mac) = world.plug("c", 2);
    let uplink = card(&world, 0, 1, CARDS).unwrap();
    let mut outbox = Outbox::new().unwrap();
    let outside = Mac([2, 5, 5, 5, 5, 5]);
    // What guests send to each other stays, and what is to somebody nobody knows goes everywhere in the group.
    world.send(a, b_mac, a_mac, 60);
    assert!(leaving(&world, uplink, &mut outbox).is_empty());
    world.send(a, outside, a_mac, 60);
    assert_eq!((leaving(&world, uplink, &mut outbox), world.drain(b)), (std::vec![frame(outside, a_mac, 60)], 2));
    // From the other group nothing leaves, and nothing gets there.
    world.send(c, Mac::BROADCAST, c_mac, 60);
    world.send(uplink, Mac::BROADCAST, outside, 60);
    world.send(uplink, c_mac, outside, 60);
    assert!(leaving(&world, uplink, &mut outbox).is_empty());
    assert_eq!([a, b, c].map(|port| world.drain(port)), [1, 1, 0]);
    // Now it is known where that one is.
    world.send(a, outside, a_mac, 60);
    assert_eq!((leaving(&world, uplink, &mut outbox).len(), world.drain(b)), (1, 0));
    // Nobody outside speaks with a guest's address.
    world.send(uplink, b_mac, a_mac, 60);
    assert_eq!((world.drain(b), world.counts(uplink).forged), (0, 1));
    assert_eq!(world.end("net0"), 1);
    world.send(a, outside, a_mac, 60);
    assert!(leaving(&world, uplink, &mut outbox).is_empty());
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_is_between_bridges_neither_leaves_nor_comes() {
    let world = World::new();
    let [(a, a_mac), (b, _)] = ["a", "b"].map(|vm| world.plug(vm, 0));
    let uplink = card(&world, 0, 0, CARDS).unwrap();
    let mut outbox = Outbox::new().unwrap();
    for (last, passes) in [(0x00, 0), (0x0f, 0), (0x10, 1)] {
        let group = Mac([1, 0x80, 0xc2, 0, 0, last]);
        world.send(a, group, a_mac, 60);
        assert_eq!((leaving(&world, uplink, &mut outbox).len(), world.drain(b)), (passes, 1), "{group}");
        world.send(uplink, group, CARDS, 60);
        assert_eq!([a, b].map(|port| world.drain(port)), [passes; 2], "{group}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_cannot_be_an_uplink_is_told_who_is_in_the_way() {
    let world = World::new();
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    world.attach("a", NetWish { mac: Some(mac), ..to("/dev/vswitch0") }).unwrap();
    let error = card(&world, 0, 0, mac).unwrap_err();
    assert_eq!(error, "/dev/net0 and /dev/qvm/a/net have the same address, 02:00:00:00:00:01");
    card(&world, 0, 0, CARDS).unwrap();
    let error = card(&world, 0, 3, CARDS).unwrap_err();
    assert_eq!(error, "/dev/net0 is the uplink of /dev/vswitch0, group 0 already");
    let error = card(&world, 1, 0, Mac([2, 0, 0, 0, 0, 2])).unwrap_err();
    assert_eq!(
        error,
        "/dev/net0 is the uplink of /dev/vswitch0, group 0: what comes in there would go out by /dev/net1"
    );
    card(&world, 1, 4, Mac([2, 0, 0, 0, 0, 2])).unwrap();
    let error = world.attach("b", NetWish { mac: Some(CARDS), ..to("/dev/vswitch0") }).unwrap_err();
    assert_eq!(error, "/dev/qvm/b/net and /dev/net0 have the same address, 52:54:00:12:34:56");
    let places: Vec<String> = world.with(|net| net.report()).iter().map(|port| port.place.clone()).collect();
    assert_eq!(places, ["/dev/vswitch0, group 0", "/dev/vswitch0, group 0", "/dev/vswitch0, group 4"]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_card_that_is_slow_loses_and_what_it_cannot_send_is_counted() {
    let world = World::new();
    let (a, a_mac) = world.plug("a", 0);
    let uplink = card(&world, 0, 0, CARDS).unwrap();
    let mut outbox = Outbox::new().unwrap();
    let outside = Mac([2, 5, 5, 5, 5, 5]);
    for _ in 0..POOL + 5 {
        world.send(a, outside, a_mac, 60);
    }
    assert_eq!(world.counts(uplink).full, 5);
    assert_eq!(leaving(&world, uplink, &mut outbox).len(), POOL);
    world.send(a, outside, a_mac, 9000);
    let whole = Unfinished { checksum: None, segments: Some(Segments { ipv6: false, size: 1448, headers: 66 }) };
    assert_eq!(world.send_as(a, whole, &frame(outside, a_mac, 5000)), Sent::Gone);
    world.send(a, outside, a_mac, 61);
    let frames = leaving(&world, uplink, &mut outbox);
    assert_eq!((frames, world.counts(uplink).undivided), (std::vec![frame(outside, a_mac, 61)], 2));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_long_segment_leaves_in_frames_in_order() {
    let world = World::new();
    let (a, a_mac) = world.plug("a", 0);
    let uplink = card(&world, 0, 0, CARDS).unwrap();
    let mut outbox = Outbox::new().unwrap();
    let outside = Mac([2, 5, 5, 5, 5, 5]);
    let mut bytes = frame(outside, a_mac, 54);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14] = 0x45;
    bytes[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
    bytes[46] = 0x50;
    bytes.extend((0..20_000_u32).map(|at| (at / 7) as u8));
    let checksum = Some(Checksum { start: 34, offset: 16 });
    let whole = Unfinished { checksum, segments: Some(Segments { ipv6: false, size: 1460, headers: 54 }) };
    assert_eq!(world.send_as(a, whole, &bytes), Sent::Gone);
    world.send(a, outside, a_mac, 60);
    let frames = leaving(&world, uplink, &mut outbox);
    assert_eq!(frames.len(), 15);
    let data: Vec<u8> = frames[..14].iter().flat_map(|frame| &frame[54..]).copied().collect();
    assert!(data == bytes[54..] && frames[14] == frame(outside, a_mac, 60));
}
