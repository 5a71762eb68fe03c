//! Two guests that do as they like, beside two that keep to the rules and get what they have sent each other.

use super::*;

/// An honest guest's end of a stream, on a connection to the other one: what it sends, and what it has got.
struct Stream {
    own_port: u32,
    to: (u32, u32),
    next_out: u64,
    next_in: u64,
    sent: u32,
    taken: u32,
    free: u32,
    known: u32,
    /// What it has room for.
    room: u32,
    resets: usize,
}

impl Stream {
    fn new(own_port: u32, to: (u32, u32), room: u32) -> Self {
        Self { own_port, to, next_out: 0, next_in: 0, sent: 0, taken: 0, free: 0, known: 0, room, resets: 0 }
    }

    fn header(&self, guest: &Guest<'_>, op: VsockOp) -> VsockPacket {
        VsockPacket { buf_alloc: self.room, fwd_cnt: self.taken, ..guest.packet(self.own_port, self.to, op) }
    }

    fn write(&mut self, guest: &Guest<'_>, length: u32) {
        let length = length.min(self.free - self.sent.wrapping_sub(self.known));
        let bytes: Vec<u8> = (self.next_out..).map(byte).take(length as usize).collect();
        self.next_out += u64::from(length);
        self.sent = self.sent.wrapping_add(length);
        let packet = VsockPacket { len: length, ..self.header(guest, VsockOp::Rw) };
        assert!(guest.send_with(&packet, &bytes));
    }

    /// Takes a packet, whoever it is from, if there is one.
    fn read(&mut self, guest: &Guest<'_>) {
        let Some((packet, data)) = guest.receive() else { return };
        if (packet.src_cid, packet.src_port, packet.dst_port) != (self.to.0.into(), self.to.1, self.own_port) {
            // Somebody else wants something: it is not to be had.
            if packet.op != VsockOp::Rst {
                let to = (packet.src_cid as u32, packet.src_port);
                assert!(guest.send(&guest.packet(packet.dst_port, to, VsockOp::Rst)));
            }
            return;
        }
        (self.free, self.known) = (packet.buf_alloc, packet.fwd_cnt);
        self.resets += usize::from(packet.op == VsockOp::Rst);
        for got in &data {
            assert_eq!(*got, byte(self.next_in));
            self.next_in += 1;
        }
        self.taken = self.taken.wrapping_add(packet.len);
        assert!(packet.len <= self.room);
        if packet.len > 0 {
            assert!(guest.send(&self.header(guest, VsockOp::CreditUpdate)));
        }
    }
}

fn byte(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 13) as u8
}

#[derive(Clone, Debug)]
enum Act {
    Lie { who: bool, packet: VsockPacket, data: usize },
    Take { who: bool, room: usize },
    Reopen { who: bool },
    Signal { who: bool, button: bool },
    Write { who: bool, length: u32 },
    Read { who: bool },
}

fn act() -> impl Strategy<Value = Act> {
    let small = || prop_oneof![4 => 0..4_u32, 1 => any::<u32>()];
    let cid = || prop_oneof![8 => 2..7_u64, 1 => any::<u64>()];
    let port = || prop_oneof![6 => (0..8_u32).boxed(), 1 => Just(20).boxed(), 1 => any::<u32>().boxed()];
    let length = || prop_oneof![4 => 0..3000_u32, 1 => Just(WINDOW), 1 => any::<u32>()];
    let kind = prop_oneof![9 => Just(VSOCK_STREAM), 1 => any::<u16>()];
    let header = (any::<bool>(), prop::option::weighted(0.1, cid()), cid(), port(), port(), kind, 0..9_u16);
    let rest = (length(), small(), prop_oneof![4 => Just(ROOM), 1 => any::<u32>()], small(), 0..3000_usize);
    let lie = (header, rest).prop_map(|((who, src_cid, dst_cid, src_port, dst_port, kind, op), rest)| {
        let (len, flags, buf_alloc, fwd_cnt, data) = rest;
        let src_cid = src_cid.unwrap_or(if who { 6 } else { 5 });
        let op = VsockOp::of(op);
        let packet = VsockPacket { src_cid, dst_cid, src_port, dst_port, len, kind, op, flags, buf_alloc, fwd_cnt };
        Act::Lie { who, packet, data }
    });
    let who = any::<bool>;
    prop_oneof![
        20 => lie,
        8 => (who(), 0..3000_usize).prop_map(|(who, room)| Act::Take { who, room }),
        1 => who().prop_map(|who| Act::Reopen { who }),
        1 => (who(), any::<bool>()).prop_map(|(who, button)| Act::Signal { who, button }),
        8 => (who(), 0..20_000_u32).prop_map(|(who, length)| Act::Write { who, length }),
        16 => who().prop_map(|who| Act::Read { who }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 300 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn liars_harm_nobody(acts in prop::collection::vec(act(), 1..400), room in prop_oneof![1 => 1..10_u32, 9 => 10..40_000_u32]) {
        let world = World::new();
        let (a, b) = connected(&world);
        let liars = [world.guest("c", 5, &["both"]), world.guest("d", 6, &["both"])];
        let mut ends = [(a, Stream::new(10, B, room)), (b, Stream::new(20, A, 1000))];
        for (guest, stream) in &mut ends {
            assert!(guest.send(&stream.header(guest, VsockOp::CreditUpdate)));
            (stream.free, stream.known) = (WINDOW, 0);
        }
        for act in acts {
            match act {
                Act::Lie { who, packet, data } => {
                    let liar = liars[usize::from(who)];
                    let _taken = liar.send_with(&packet, &vec![0xee; data]);
                }
                Act::Take { who, room } => {
                    let liar = liars[usize::from(who)];
                    let mut into = vec![0; room];
                    if let Some(packet) = receive(&world, liar.id, &mut into) {
                        assert!(packet.len as usize <= room);
                        assert_eq!(packet.dst_cid, u64::from(liar.cid));
                    }
                }
                Act::Reopen { who } => world.with(|hub| hub.open(liars[usize::from(who)].id)),
                Act::Signal { who, button } => {
                    let signal = if button { VsockSignal::Button } else { VsockSignal::Closed };
                    let id = liars[usize::from(who)].id;
                    let _heard = world.signals.send(id, signal);
                    attend(&world, world.signals, id);
                }
                Act::Write { who, length } => {
                    let (guest, stream) = &mut ends[usize::from(who)];
                    stream.write(guest, length);
                }
                Act::Read { who } => {
                    let (guest, stream) = &mut ends[usize::from(who)];
                    stream.read(guest);
                }
            }
            world.check();
        }
        // In the end everything has arrived; who has room for one byte gets them one by one.
        let missing: u64 = { let [(_, a), (_, b)] = &ends; a.next_out + b.next_out - a.next_in - b.next_in };
        for _ in 0..1000 + missing {
            ends.iter_mut().for_each(|(guest, stream)| stream.read(guest));
        }
        let [(_, a), (_, b)] = &ends;
        assert_eq!((a.next_in, b.next_in), (b.next_out, a.next_out));
        assert_eq!((a.resets, b.resets), (0, 0));
    }
}
