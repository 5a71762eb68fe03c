//! Network devices of two guests on one switch, whose packets, orders and buffers are whatever they like: nothing panics, no device gives up
//! a driver whose queues are in order, what is offered to be sent or obeyed is given back, nothing is written but into buffers that were
//! offered, and what comes is a frame of the other one's, no less finished than the driver has said that it takes.

#![no_main]

use host::switch::{self, Door, Net, PortId, Storage, Table};
use libfuzzer_sys::fuzz_target;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use types::{Frequency, Ipa, Ticks};
use vdev::testkit::{Rig, Wires};
use vdev::{FillFrame, GuestMemory, NetFilter, NetPort, NetWish, Offloads, Received, Sent, TakeFrame, Unfinished};

const RAM: u64 = 0x8000_0000;
const BYTES: usize = 0x1_0000;
/// Queues, each in so many bytes, and what they have there.
const QUEUE: usize = 0x400;
const AVAILABLE: usize = 0x100;
const USED: usize = 0x200;
const ENTRIES: usize = 8;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CONTROL: usize = 2;
/// What is sent or ordered, the answer to an order, and received frames.
const OUT: usize = 0x2000;
const OUT_BYTES: usize = 0x5000;
const ANSWER: usize = 0x7ff0;
const IN: usize = 0x8000;
const IN_BYTES: usize = 0x1000;
/// Memory is compared by pieces, which is faster.
const PIECE: usize = 0x100;
/// Most that happens in a run.
const STEPS: usize = 100;

/// Features (5.1.3) that a frame's state depends on.
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const MRG_RXBUF: u64 = 1 << 15;
const VERSION_1: u64 = 1 << 32;
/// `struct virtio_net_hdr`.
const HEADER: usize = 12;

/// Nobody needs to be rung: all are woken all the time.
struct Silence;

impl Door for Silence {
    fn ring(&self) {}
    fn link_changed(&self) {}
}

struct Switch(Mutex<Net<Silence>>);

impl Table for Switch {
    type Door = Silence;

    fn with<R>(&self, work: impl FnOnce(&mut Net<Silence>) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }
}

struct Port(Arc<Switch>, PortId);

impl NetPort for Port {
    fn is_up(&self) -> bool {
        true
    }
    fn open(&self, takes: Offloads) {
        self.0.with(|net| net.open(self.1, takes));
    }
    fn set_filter(&self, filter: &NetFilter) {
        self.0.with(|net| net.set_filter(self.1, filter));
    }
    fn send(&self, now: Ticks, unfinished: Unfinished, length: usize, fill: &mut FillFrame<'_>) -> Sent {
        switch::send(&*self.0, self.1, now, unfinished, length, fill)
    }
    fn receive(&self, take: &mut TakeFrame<'_>) -> Received {
        switch::receive(&*self.0, self.1, take)
    }
}

struct Guest {
    rig: Rig,
    wires: Wires,
    /// What its frames are full of.
    tag: u8,
    /// Whether there is a driver, and what it has negotiated.
    runs: bool,
    features: u64,
    /// Of each queue: the next available index, and the next used one.
    next: [(u16, u16); 3],
    /// Buffers that it has offered: each has the number of its descriptor, and its length.
    offered: VecDeque<(u16, usize)>,
    free: Vec<u16>,
}

impl Guest {
    fn new(switch: &Arc<Switch>, tag: u8) -> Self {
        let mut wires = Wires::default();
        let switch = Arc::clone(switch);
        wires.net = Some(Box::new(move |wish: &NetWish| {
            let frequency = Frequency::new(1_000_000).expect("it is not 0");
            let parts = (Silence, Storage::new().expect("there is memory"));
            let (id, mac) =
                switch.with(|net| net.attach(&format!("vm{tag}"), wish, frequency, parts)).expect("there is room");
            Ok((mac, Arc::new(Port(Arc::clone(&switch), id)) as _))
        }));
        let factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == "virtio-net").expect("it is there");
        let mac = format!("02:00:00:00:00:{tag:02x}");
        let options = [("peer", Some("/dev/vswitch0")), ("mac", Some(mac.as_str()))];
        let rig = Rig::new(factory, &options, &mut wires).expect("these options are right");
        let (next, offered) = ([(0, 0); 3], VecDeque::new());
        Self { rig, wires, tag, runs: false, features: 0, next, offered, free: Vec::new() }
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        self.rig.ram.write(Ipa(RAM + at as u64), bytes).expect("it is within memory");
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.rig.ram.read(Ipa(RAM + at as u64), &mut bytes).expect("it is within memory");
        bytes
    }

    fn reset(&mut self) {
        self.rig.write(0x70, 0);
        (self.runs, self.features) = (false, 0);
        self.offered.clear();
    }

    /// A driver comes (3.1.1).
    fn start(&mut self, wanted: u64) {
        self.reset();
        self.rig.write(0x70, 3);
        self.rig.write(0x14, 0);
        self.features = VERSION_1 | self.rig.read(0x10) & wanted & 0xf_ffff;
        for word in [0, 1] {
            self.rig.write(0x24, word);
            self.rig.write(0x20, self.features >> (32 * word) & 0xffff_ffff);
        }
        self.rig.write(0x70, 11);
        for queue in [RECEIVE, TRANSMIT, CONTROL] {
            self.put(queue * QUEUE, &[0; QUEUE]);
            self.rig.write(0x30, queue as u64);
            self.rig.write(0x38, ENTRIES as u64);
            for (register, part) in [(0x80, 0), (0x90, AVAILABLE), (0xa0, USED)] {
                self.rig.write(register, RAM + (queue * QUEUE + part) as u64);
                self.rig.write(register + 4, 0);
            }
            self.rig.write(0x44, 1);
        }
        self.next = [(0, 0); 3];
        self.free = (0..ENTRIES as u16).collect();
        self.rig.write(0x70, 15);
        self.runs = true;
    }

    fn describe(&self, queue: usize, number: u16, (at, length): (usize, usize), flags: u16) {
        let descriptor = [
            &(RAM + at as u64).to_le_bytes()[..],
            &(length as u32).to_le_bytes(),
            &flags.to_le_bytes(),
            &(number + 1).to_le_bytes(),
        ];
        self.put(queue * QUEUE + 16 * usize::from(number), &descriptor.concat());
    }

    fn offer(&mut self, queue: usize, head: u16) {
        let (available, _) = &mut self.next[queue];
        let entry = queue * QUEUE + AVAILABLE + 4 + 2 * (usize::from(*available) % ENTRIES);
        *available = available.wrapping_add(1);
        let index = *available;
        self.put(entry, &head.to_le_bytes());
        self.put(queue * QUEUE + AVAILABLE + 2, &index.to_le_bytes());
        self.rig.write(0x50, queue as u64);
    }

    /// The next buffer that has come back: the number of its descriptor, and how much has been written.
    fn take(&mut self, queue: usize) -> Option<(u16, usize)> {
        let used = self.next[queue].1;
        if u16::from_le_bytes(self.get(queue * QUEUE + USED + 2)) == used {
            return None;
        }
        let entry: [u8; 8] = self.get(queue * QUEUE + USED + 4 + 8 * (usize::from(used) % ENTRIES));
        self.next[queue].1 = used.wrapping_add(1);
        Some((u16::from_le_bytes([entry[0], entry[1]]), u32::from_le_bytes(entry[4..].try_into().unwrap()) as usize))
    }

    /// Offers bytes to be read, in pieces of about `piece` bytes, and with an answer behind them if it is an order.
    fn say(&mut self, queue: usize, bytes: &[u8], piece: usize) {
        self.put(OUT, bytes);
        let most = ENTRIES - 1;
        let piece = piece.max(bytes.len().div_ceil(most)).max(1);
        let mut number = 0;
        for (index, part) in bytes.chunks(piece).enumerate() {
            let is_last = (index + 1) * piece >= bytes.len() && queue == TRANSMIT;
            self.describe(queue, number, (OUT + index * piece, part.len()), u16::from(!is_last));
            number += 1;
        }
        if queue == CONTROL {
            self.describe(queue, number, (ANSWER, 1), 2);
        }
        if number > 0 || queue == CONTROL {
            self.offer(queue, 0);
        }
    }

    /// All devices work; nothing is written that is not the device's to write.
    fn work(&mut self) {
        let before: [u8; BYTES] = self.get(0);
        self.rig.wake();
        self.rig.work(&self.wires.crew);
        let after: [u8; BYTES] = self.get(0);
        let is_used_ring = |at: usize| at < 3 * QUEUE && at % QUEUE >= USED && self.runs;
        let is_offered = |at: usize| {
            let (number, within) = ((at - IN) / IN_BYTES, (at - IN) % IN_BYTES);
            self.offered.iter().any(|(other, length)| usize::from(*other) == number && within < *length)
        };
        let pieces = before.chunks(PIECE).zip(after.chunks(PIECE)).enumerate().filter(|(_, (old, new))| old != new);
        for (piece, (old, new)) in pieces {
            for at in
                (piece * PIECE..).zip(old.iter().zip(new)).filter_map(|(at, (old, new))| (old != new).then_some(at))
            {
                let is_its = is_used_ring(at) || at == ANSWER && self.runs || at >= IN && is_offered(at);
                assert!(is_its, "written at {at:#x}");
            }
        }
        assert_eq!(self.rig.read(0x70) & 64, 0, "its queues are in order");
        if self.runs {
            for queue in [TRANSMIT, CONTROL] {
                while self.take(queue).is_some() {}
                assert_eq!(self.next[queue].0, self.next[queue].1, "what was offered has been given back");
            }
        }
    }

    /// Takes the frames that have come; `sent` are the lengths of those that the other one has ever sent.
    fn collect(&mut self, other: u8, sent: &HashSet<usize>) {
        let (mut packet, mut parts) = (Vec::new(), 0);
        while self.runs
            && let Some((number, written)) = self.take(RECEIVE)
        {
            // In the order of their offering.
            let (offered, room) = self.offered.pop_front().expect("it was offered");
            assert!(number == offered && written <= room);
            let bytes: [u8; IN_BYTES] = self.get(IN + usize::from(number) * IN_BYTES);
            packet.extend(&bytes[..written]);
            self.free.push(number);
            parts += 1;
            // Not even the header has to be in one buffer.
            let count = packet.get(10..HEADER).map(|count| u16::from_le_bytes([count[0], count[1]]));
            if count != Some(parts) {
                assert!(written == room, "each is full before the next is begun");
                continue;
            }
            assert!(parts == 1 || self.features & MRG_RXBUF != 0);
            self.judge(&packet[..HEADER], &packet[HEADER..], other, sent);
            packet.clear();
            parts = 0;
        }
        assert_eq!(parts, 0, "all parts come together");
    }

    fn judge(&self, header: &[u8], frame: &[u8], other: u8, sent: &HashSet<usize>) {
        let has = |feature| self.features & feature != 0;
        let (flags, kind) = (header[0], header[1]);
        assert!(flags == 0 || flags == 1 && has(GUEST_CSUM));
        assert!(kind == 0 || flags == 1 && (kind == 1 && has(GUEST_TSO4) || kind == 4 && has(GUEST_TSO6)));
        assert!(sent.contains(&frame.len()), "{} bytes", frame.len());
        // But for a checksum.
        assert!(frame[12..].iter().filter(|byte| **byte != other).count() <= 2);
    }
}

fuzz_target!(|data: &[u8]| {
    static UP: AtomicU32 = AtomicU32::new(0);
    UP.store(0, std::sync::atomic::Ordering::Relaxed);
    let switch = Arc::new(Switch(Mutex::new(Net::new(&UP))));
    let mut guests = [1, 2].map(|tag| Guest::new(&switch, tag));
    let mut sent: [HashSet<usize>; 2] = Default::default();
    guests.iter_mut().for_each(|guest| guest.start(MRG_RXBUF));
    guests.iter_mut().for_each(Guest::work);
    for step in data.chunks_exact(8).take(STEPS) {
        let [what, size, shift, header @ ..] = <[u8; 8]>::try_from(step).unwrap();
        let [flags, kind, a, b, c] = header;
        let me = usize::from(what >> 7);
        let (guest, sent_by_me) = (&mut guests[me], &mut sent[me]);
        match what & 15 {
            0..=6 if guest.runs => {
                let length = (usize::from(size) << (shift & 7)).min(OUT_BYTES - HEADER);
                // Numbers that may be within the frame, and may not.
                let wide = |byte: u8| (u16::from(byte) << (byte & 7)).to_le_bytes();
                let mut packet =
                    [&[flags & 3, kind & 7][..], &wide(a), &wide(b), &wide(c), &wide(shift), &[0, 0]].concat();
                let (own, other) = ([2, 0, 0, 0, 0, guest.tag], [2, 0, 0, 0, 0, guest.tag ^ 3]);
                let to = [other, [0xff; 6], [1, 0, 0x5e, 0, 0, a], own][usize::from(shift >> 6)];
                let from = if shift & 0x38 == 0x38 { other } else { own };
                let frame = to.into_iter().chain(from).chain(std::iter::repeat(guest.tag));
                packet.extend(frame.take(length));
                sent_by_me.insert(length);
                // It may be cut off in its header.
                packet.truncate(if flags & 0x80 == 0 { packet.len() } else { usize::from(c) });
                sent_by_me.insert(packet.len().saturating_sub(HEADER));
                guest.say(TRANSMIT, &packet, usize::from(b) << 4);
            }
            7..=11 if guest.runs => {
                for (place, byte) in [size, a, b, c].into_iter().enumerate() {
                    if place > usize::from(shift & 3) {
                        break;
                    }
                    let Some(number) = guest.free.pop() else { break };
                    let length = (usize::from(byte) << (flags & 7)).clamp(1, IN_BYTES);
                    guest.describe(RECEIVE, number, (IN + usize::from(number) * IN_BYTES, length), 2);
                    guest.offered.push_back((number, length));
                    guest.offer(RECEIVE, number);
                }
            }
            12 if guest.runs => {
                let table = |count: u8| [&u32::from(count).to_le_bytes()[..], &[a; 6].repeat(count.into())].concat();
                let order = match flags & 3 {
                    0 => step[1..].to_vec(),
                    1 => vec![0, kind & 1, a & 1],
                    _ => [vec![1, 0], table(size), table(shift)].concat(),
                };
                // With more or fewer bytes than it says.
                guest.say(CONTROL, &order[..order.len() - usize::from(b & 15).min(order.len())], c.into());
            }
            13 => guest.start(u64::from(u32::from_le_bytes([size, shift, flags, kind]))),
            14 => guest.reset(),
            15 => guest.rig.now = guest.rig.now.saturating_add(Ticks(size.into())),
            _ => {}
        }
        // Whoever acts works first, so that what it sends has come when the other one does.
        for index in [me, 1 - me] {
            guests[index].work();
            let other = guests[1 - index].tag;
            guests[index].collect(other, &sent[1 - index]);
        }
    }
});
