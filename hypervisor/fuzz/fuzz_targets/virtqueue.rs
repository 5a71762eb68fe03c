//! Virtqueues over whatever a guest has in memory, while it changes or not: nothing panics, no operation takes more accesses than a
//! queue is long, and what is written is written to the device's own areas or to buffers that were offered as writable. While memory
//! stands still, a chain is what a plain reading of the specification makes of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Mutex;
use types::{AccessSize, Ipa, Range};
use vdev::testkit::Ram;
use vdev::{GuestMemory, MemoryFault};
use virtio::{Chain, Features, Layout, Queue, RingError, STEP_BUFFERS};

const START: u64 = 0x1000;
const LENGTH: u64 = 0x2000;
/// Where the queue's areas begin, and what is for tables and buffers.
const DESCRIPTORS: u64 = START;
const DRIVER: u64 = START + 0x400;
const DEVICE: u64 = START + 0x600;
const TABLES: u64 = START + 0x1000;

/// Memory that remembers what happens to it, and of which something may change at each access.
struct Witness {
    ram: Ram,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    accesses: usize,
    written: Vec<(u64, u64)>,
    /// What the guest does meanwhile: offsets and bytes.
    changes: Vec<(u16, u8)>,
}

impl Witness {
    fn at(&self, written: Option<(u64, u64)>) -> &Ram {
        let mut seen = self.seen.lock().unwrap();
        seen.accesses += 1;
        seen.written.extend(written);
        if let Some((offset, byte)) = seen.changes.pop() {
            self.ram.write(Ipa(START + u64::from(offset) % LENGTH), &[byte]).unwrap();
        }
        &self.ram
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// For the target itself.
    fn get<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.ram.read(Ipa(at), &mut bytes).ok().map(|()| bytes)
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let _beyond = self.ram.write(Ipa(at), bytes);
    }
}

impl GuestMemory for Witness {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.at(None).read(from, into)
    }
    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.at(Some((to.0, from.len() as u64))).write(to, from)
    }
    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        self.at(None).load(from, size)
    }
    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        self.at(Some((to.0, size.bytes()))).store(to, size, value)
    }
    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        self.at(Some((at.0, size.bytes()))).exchange(at, size, expected, new)
    }
    fn contains(&self, range: Range<Ipa>) -> bool {
        self.ram.contains(range)
    }
}

/// A buffer: its address, its length, whether it is writable.
type Buffer = (u64, u32, bool);

struct Game {
    memory: Witness,
    features: Features,
    size: u16,
    queue: Queue,
    chain: Chain,
    /// A chain has been taken; where the next one is: an index of the available ring, or places of a packed ring; whether that is not
    /// known any more; the writable buffers of the last one, if they are known.
    held: bool,
    popped: u16,
    lost: bool,
    writable: Option<Vec<Buffer>>,
}

impl Game {
    fn descriptor(&self, at: u64) -> Option<(u64, u32, [u16; 2])> {
        let bytes: [u8; 16] = self.memory.get(at)?;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        Some((u64::from_le_bytes(bytes[..8].try_into().unwrap()), length, [half(12), half(14)]))
    }

    /// The chain that begins at descriptor `head` of a split queue, if it is one (2.7.5).
    fn split_chain(&self, head: u16) -> Option<Vec<Buffer>> {
        let (mut table, mut count, mut index, mut chain) = (DESCRIPTORS, u32::from(self.size), head, Vec::new());
        let mut nested = false;
        loop {
            if u32::from(index) >= count || chain.len() >= usize::from(self.size) {
                return None;
            }
            let (address, length, [flags, next]) = self.descriptor(table.checked_add(16 * u64::from(index))?)?;
            if flags & 4 != 0 {
                let allowed = self.features.contains(Features::INDIRECT_DESC) && !nested && flags & 1 == 0;
                if !allowed || length == 0 || length % 16 != 0 || length / 16 > 0xffff {
                    return None;
                }
                address.checked_add(length.into())?;
                (table, count, index, nested) = (address, length / 16, 0, true);
                continue;
            }
            chain.push((address, length, flags & 2 != 0));
            if flags & 1 == 0 {
                return is_a_chain(&chain).then_some(chain);
            }
            index = next;
        }
    }

    /// Does something, and says how many accesses it took.
    fn watched<R>(&mut self, operation: impl FnOnce(&mut Self) -> R) -> (R, Seen) {
        let changes = self.memory.take().changes;
        self.memory.seen.lock().unwrap().changes = changes;
        let result = operation(self);
        let mut seen = self.memory.take();
        self.memory.seen.lock().unwrap().changes = std::mem::take(&mut seen.changes);
        (result, seen)
    }

    fn stands_still(&self) -> bool {
        self.memory.seen.lock().unwrap().changes.is_empty()
    }

    fn pop(&mut self) {
        let still = self.stands_still();
        let entry = DRIVER + 4 + 2 * u64::from(self.popped & (self.size - 1));
        let head = self.memory.get(entry).map(u16::from_le_bytes).unwrap_or_default();
        let (popped, seen) = self.watched(|game| game.queue.pop(&game.memory, &mut game.chain));
        assert!(seen.accesses <= 2 * usize::from(self.size) + 4, "{} accesses", seen.accesses);
        assert!(seen.written.is_empty());
        self.held = popped == Ok(true);
        self.writable = None;
        let packed = self.features.contains(Features::RING_PACKED);
        // How far a packed queue has come is only known while it is known what it takes.
        let (chain, slots) = match packed {
            true if still && !self.lost => self.packed_chain().unzip(),
            true => (None, None),
            false => (self.split_chain(head), Some(1)),
        };
        if still && !self.lost {
            self.compare(popped, chain);
        }
        if self.held {
            self.lost |= packed && !still;
            self.popped = self.popped.wrapping_add(slots.unwrap_or(0));
            if packed {
                self.popped %= self.size;
            }
        }
    }

    /// The list that comes next in a packed queue, if it is one, and how many places it takes (2.8.5).
    fn packed_chain(&self) -> Option<(Vec<Buffer>, u16)> {
        let mut chain = Vec::new();
        for slots in 0..self.size {
            let index = u64::from(self.popped.wrapping_add(slots) % self.size);
            let (address, length, [_, flags]) = self.descriptor(DESCRIPTORS + 16 * index)?;
            if flags & 4 != 0 {
                let count = length / 16;
                let allowed = self.features.contains(Features::INDIRECT_DESC) && slots == 0 && flags & 1 == 0;
                if !allowed || length % 16 != 0 || count == 0 || count > self.size.into() {
                    return None;
                }
                for entry in 0..u64::from(count) {
                    let (address, length, [_, flags]) = self.descriptor(address.checked_add(16 * entry)?)?;
                    chain.push((address, length, flags & 2 != 0));
                }
                return is_a_chain(&chain).then_some((chain, 1));
            }
            chain.push((address, length, flags & 2 != 0));
            if flags & 1 == 0 {
                return is_a_chain(&chain).then_some((chain, slots + 1));
            }
        }
        None
    }

    /// What a split queue has taken, and what it should have.
    fn compare(&mut self, popped: Result<bool, RingError>, expected: Option<Vec<Buffer>>) {
        match (popped, expected) {
            (Ok(true), Some(chain)) => {
                let sum = |writable| -> u64 {
                    chain.iter().filter(|buffer| buffer.2 == writable).map(|buffer| u64::from(buffer.1)).sum()
                };
                assert_eq!(self.chain.reader().remaining(), sum(false));
                assert_eq!(self.chain.writer().remaining(), sum(true));
                self.writable = Some(chain.into_iter().filter(|buffer| buffer.2).collect());
            }
            (Ok(true), None) => panic!("that is no chain"),
            // A table may say that it goes on where there is no memory, and be read ahead.
            (Ok(false) | Err(RingError::AvailableIndex(_) | RingError::Overrun | RingError::Memory(_)), _)
            | (Err(_), None) => {}
            (Err(error), Some(chain)) => panic!("{error} in {chain:?}"),
        }
    }

    fn copy(&mut self, write: bool, count: usize) {
        let mut bytes = vec![0xa5; count];
        let before = if write { self.chain.writer().remaining() } else { self.chain.reader().remaining() };
        let (done, seen) = self.watched(|game| {
            if write {
                game.chain.writer().write(&game.memory, &bytes)
            } else {
                game.chain.reader().read(&game.memory, &mut bytes)
            }
        });
        assert!(seen.accesses <= STEP_BUFFERS);
        if let Ok(done) = done {
            let after = if write { self.chain.writer().remaining() } else { self.chain.reader().remaining() };
            assert_eq!(before - after, done as u64);
        }
        assert!(write || seen.written.is_empty());
        if let Some(writable) = &self.writable {
            for (at, length) in seen.written {
                let within = |(start, size, _): &Buffer| at >= *start && at + length <= start + u64::from(*size);
                assert!(writable.iter().any(within), "{at:#x} was not offered");
            }
        }
    }

    /// What the device writes besides buffers is its own.
    fn check_own(&self, seen: &Seen) {
        assert!(seen.accesses <= 2);
        for (at, length) in &seen.written {
            let within = |start: u64, size: u64| *at >= start && at + length <= start + size;
            let own = if self.features.contains(Features::RING_PACKED) {
                within(DEVICE, 4) || within(DESCRIPTORS, 16 * u64::from(self.size)) && at % 16 == 8 && *length == 8
            } else {
                within(DEVICE, 6 + 8 * u64::from(self.size))
            };
            assert!(own, "{at:#x} is not the device's");
        }
    }

    fn play(&mut self, step: [u8; 8]) {
        let [kind, place, values @ ..] = step;
        let word = u64::from_le_bytes([values[0], values[1], values[2], values[3], values[4], values[5], 0, 0]);
        match kind % 12 {
            // A descriptor, of the queue or of a table, mostly of something that is there.
            0..=2 => {
                let base = if place & 0x80 == 0 { DESCRIPTORS } else { TABLES };
                let address = match values[0] & 3 {
                    0 => TABLES,
                    1 => TABLES + 0x800 + u64::from(values[1]) * 4,
                    2 => START + LENGTH - u64::from(values[1]),
                    _ => word << 16,
                };
                let length = if values[0] & 4 == 0 { u32::from(values[2]) } else { u32::from(values[2]) << 4 };
                let at = base + 16 * u64::from(place & 0x1f);
                self.memory.put(at, &address.to_le_bytes());
                self.memory.put(at + 8, &length.to_le_bytes());
                let packed = self.features.contains(Features::RING_PACKED);
                let flags = u16::from_le_bytes([values[3] & 0x87, values[3] << 1 & 0x80]);
                let link = u16::from(values[4] & 0x1f);
                let last = if packed { [link, flags] } else { [flags & 7, link] };
                self.memory.put(at + 12, &last[0].to_le_bytes());
                self.memory.put(at + 14, &last[1].to_le_bytes());
            }
            // An entry of the ring, and its index.
            3 => self.memory.put(DRIVER + 4 + 2 * u64::from(place & 0x1f), &values[..2]),
            4 => {
                let [low, high] = self.memory.get(DRIVER + 2).unwrap_or_default();
                let index = u16::from_le_bytes([low, high]).wrapping_add(u16::from(place & 3));
                self.memory.put(DRIVER + 2, &index.to_le_bytes());
            }
            5 => self.memory.put(START + u64::from(place) * 32 + u64::from(values[0] & 31), &values[1..]),
            6 => self.pop(),
            7 => self.copy(place & 1 == 0, usize::from(u16::from_le_bytes([values[0], values[1] & 0x1f]))),
            8 if place & 1 == 0 => self.chain.writer().skip(word & 0xffff),
            8 => self.chain.reader().skip(word & 0xffff),
            9 if self.held => {
                self.held = false;
                let written = self.chain.written();
                let (_, seen) = self.watched(|game| game.queue.push(&game.memory, &game.chain, written));
                self.check_own(&seen);
            }
            10 => {
                let (_, seen) = self.watched(|game| game.queue.expect_notification(&game.memory, place & 1 == 0));
                self.check_own(&seen);
            }
            11 if place & 7 == 0 => {
                let changes = values.chunks_exact(3).map(|c| (u16::from_le_bytes([c[0], c[1]]), c[2]));
                self.memory.seen.lock().unwrap().changes = changes.collect();
            }
            _ => {
                let (_, seen) = self.watched(|game| game.queue.wants_interrupt(&game.memory));
                assert!(seen.accesses <= 1 && seen.written.is_empty());
            }
        }
    }
}

/// Readable buffers come first, none wraps, and all together are 4 GiB at most.
fn is_a_chain(chain: &[Buffer]) -> bool {
    let total: u64 = chain.iter().map(|(_, length, _)| u64::from(*length)).sum();
    chain.is_sorted_by_key(|(.., writable)| *writable)
        && chain.iter().all(|(address, length, _)| address.checked_add((*length).into()).is_some())
        && total <= 1 << 32
}

fuzz_target!(|data: &[u8]| {
    let Some((&[shape], steps)) = data.split_first_chunk() else { return };
    let mut features = Features::empty();
    features.set(Features::RING_PACKED, shape & 1 != 0);
    features.set(Features::EVENT_IDX, shape & 2 != 0);
    features.set(Features::INDIRECT_DESC, shape & 4 != 0);
    let size = if shape & 1 == 0 { 1 << (shape >> 3 & 5) } else { 1 + u16::from(shape >> 3) };
    let layout = Layout { size, descriptor_area: Ipa(DESCRIPTORS), driver_area: Ipa(DRIVER), device_area: Ipa(DEVICE) };
    let memory = Witness { ram: Ram::new(Ipa(START), LENGTH as usize), seen: Mutex::default() };
    let queue = Queue::new(features, &layout).expect("a queue that can be");
    let chain = Chain::new(size);
    let mut game = Game { memory, features, size, queue, chain, held: false, popped: 0, lost: false, writable: None };
    for step in steps.chunks_exact(8) {
        game.play(step.try_into().unwrap());
    }
});
