//! Sockets of three guests that send whatever they like, and take what they get or not: nothing panics, nobody is sent more than it has
//! said that it has room for, nor by anybody whom it could not reach, and of a connection nobody gets other bytes than its peer has sent.

#![no_main]

use host::vsock::{Door, ECHO_PORT, HOST_CID, Hub, Signals, StationId, Storage, Table, WINDOW, attend, receive, send};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::Mutex;
use vdev::{VSOCK_STREAM, VsockOp, VsockPacket, VsockSignal, VsockWish};

/// Nobody needs to be rung: all look all the time.
struct Silence;

impl Door for Silence {
    fn ring(&self) {}

    fn said(&self, line: &str) {
        assert!(!line.is_empty() && line.len() <= host::vsock::LONGEST_LINE);
        assert!(line.bytes().all(|byte| (b' '..0x7f).contains(&byte)));
    }
}

struct World(Mutex<Hub<Silence>>);

impl Table for World {
    type Door = Silence;

    fn with<R>(&self, work: impl FnOnce(&mut Hub<Silence>) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }
}

/// What is known of a guest's end of a connection: by its port, the peer's CID and port.
#[derive(Default)]
struct End {
    /// Bytes that it has been sent, and the most that it has ever said it had room for.
    got: u64,
    most: u64,
}

struct Guest {
    id: StationId,
    cid: u32,
    ends: HashMap<(u32, u32, u32), End>,
}

impl Guest {
    fn send(&mut self, world: &World, packet: &VsockPacket, data: u32) {
        let key = (packet.src_port, packet.dst_cid as u32, packet.dst_port);
        if packet.op == VsockOp::Request {
            self.ends.entry(key).or_default();
        }
        if let Some(end) = self.ends.get_mut(&key) {
            // All that it can have meant, however often the counter has gone round: the tests look closer.
            end.most = end.most.max(end.got + u64::from(packet.buf_alloc));
        }
        let mut left = data;
        let cid = self.cid as u8;
        let _taken = send(world, self.id, packet, &mut |part| {
            let Some(rest) = left.checked_sub(part.len() as u32) else { return false };
            left = rest;
            part.fill(cid);
            true
        });
    }

    fn receive(&mut self, world: &World, room: usize) {
        let mut into = vec![0; room];
        let Some(packet) = receive(world, self.id, &mut into) else { return };
        assert_eq!(packet.dst_cid, u64::from(self.cid));
        assert!(packet.len as usize <= room && packet.len <= WINDOW);
        assert!(packet.op == VsockOp::Rw || packet.len == 0);
        let key = (packet.dst_port, packet.src_cid as u32, packet.src_port);
        match packet.op {
            // It may be of an earlier connection of the same two.
            VsockOp::Rst => {}
            VsockOp::Request => {
                // The first and the second are in one group, the second and the third in another.
                assert!(self.cid.abs_diff(packet.src_cid as u32) == 1);
                self.ends.insert(key, End::default());
            }
            VsockOp::Rw => {
                let end = self.ends.get_mut(&key).expect("there is such a connection");
                end.got += u64::from(packet.len);
                assert!(end.got <= end.most);
                let from = if packet.src_cid == u64::from(HOST_CID) { self.cid as u8 } else { packet.src_cid as u8 };
                let is_order = packet.src_cid == u64::from(HOST_CID) && packet.src_port != ECHO_PORT;
                assert!(is_order || into[..packet.len as usize].iter().all(|byte| *byte == from));
            }
            _ => assert_eq!(packet.buf_alloc, WINDOW),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    static SIGNALS: Signals = Signals::new();
    // What an earlier run has left is taken by whoever comes.
    let signals = &SIGNALS;
    let world = World(Mutex::new(Hub::new(signals)));
    let mut guests: Vec<Guest> = [(3, &["x"][..]), (4, &["x", "y"]), (5, &["y"])]
        .into_iter()
        .map(|(cid, groups)| {
            let groups = groups.iter().map(ToString::to_string).collect();
            let wish = VsockWish { name: "vsock".to_string(), cid: Some(cid), groups };
            let parts = (Silence, Storage::new().expect("there is memory"));
            let (id, _) = world.with(|hub| hub.attach("vm", &wish, parts)).expect("there is room");
            world.with(|hub| hub.open(id));
            Guest { id, cid, ends: HashMap::new() }
        })
        .collect();
    for step in data.chunks_exact(8) {
        let [what, op, peer, ports, flags, size, room, forwarded] = step.try_into().unwrap();
        let guest = &mut guests[usize::from(what >> 4) % 3];
        let size = u32::from(size) << (flags >> 4);
        match what & 15 {
            0..=7 => {
                let packet = VsockPacket {
                    src_cid: if flags & 8 == 0 { guest.cid.into() } else { size.into() },
                    dst_cid: u64::from(peer % 7) | u64::from(peer >> 7) << 32,
                    src_port: u32::from(ports >> 4),
                    dst_port: u32::from(ports & 15),
                    len: size,
                    kind: if flags & 4 == 0 { VSOCK_STREAM } else { peer.into() },
                    op: VsockOp::of(u16::from(op % 9)),
                    flags: flags.into(),
                    buf_alloc: u32::from(room) << (op >> 4),
                    fwd_cnt: u32::from(forwarded) << (op >> 5),
                };
                // An honest CID is what connections are of.
                if flags & 8 == 0 || size != guest.cid {
                    let data = if ports & 0x11 == 0x11 { size / 2 } else { size };
                    guest.send(&world, &packet, data);
                }
            }
            8..=12 => guest.receive(&world, usize::from(size as u16)),
            13 => {
                let signal = if op & 1 == 0 { VsockSignal::Button } else { VsockSignal::Closed };
                signals.send(guest.id, signal);
                attend(&world, signals, guest.id);
            }
            _ => world.with(|hub| hub.open(guest.id)),
        }
    }
    let gone = world.with(|hub| hub.end(|_| true));
    assert_eq!(gone.len(), 3);
});
